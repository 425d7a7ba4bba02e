/* SPDX-License-Identifier: MIT */
/*
 * What the files behind volume.h share. DESIGN.md tells how they fit together.
 *
 * Lock order: rename_lock, reclaim_lock or count_lock, never two of them; then the store's gate
 * (keg_enter), which inodes_lock passes; then stripes in ascending order, but for one that is only
 * tried; then reserve_lock; then id_lock, table_lock or tend_lock, under which none is taken.
 */
#ifndef VOLUME_INTERNAL_H
#define VOLUME_INTERNAL_H

#include "acl.h"
#include "keys.h"
#include "volume.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    STRIPES = 256,
    IDS_RESERVED = 65536,           /* at a time */
    RECLAIM_MAX = 4096,             /* records of one frame when space is reclaimed */
    RECLAIM_FULL = RECLAIM_MAX - 8, /* from here on, what is left is for inode and orphan keys */
    LOCK_MAX = 32,                  /* inodes that one operation locks */
    WRITE_MAX = 16 << 20,           /* bytes of one write */
    SPARES = 64,                    /* of struct held, kept for the next */
    WINDOW_PIECES = 16,             /* extents in a window before they are merged */
    XATTR_VALUE_MAX = 64 << 10,     /* bytes */
    DIRENT_SIZE = 32,               /* what an entry adds to the size of its directory */
};

enum held_kind {
    HELD_TRUNCATED, /* to zero; waits a moment for the write after it */
    HELD_LAZY,      /* only its atime; it can wait for the next change */
    HELD_STAGED,    /* new contents, until they are committed or given up (stage.c) */
    HELD_KINDS,
};

/* What is known of an inode in memory and not in the store (yet). */
struct held {
    uint64_t ino;
    struct inode inode;
    enum held_kind kind;      /* the list it is in */
    uint64_t since;           /* when it came into its list (tend_clock), under tend_lock */
    struct held *prev, *next; /* in its list, under tend_lock */
};
/* Oldest first, so that who flushes as many as there were has flushed all that there were. */
struct held_list {
    struct held *first, *last;
    size_t count;
};

/* An inode that somebody has looked up, or that is held. */
struct entry {
    uint64_t ino; /* 0: the slot is free */
    uint64_t lookups;
    struct held *held; /* its contents change under the stripe's lock, held exclusively */
    bool unlinked;     /* has no name: to be reclaimed when lookups is 0 */
    bool linkable;     /* never had one, and may be given its first */
    uint8_t pieces;    /* inodes_pieces */
    uint32_t writers;  /* volume_writer_open */
};

struct stripe {
    pthread_rwlock_t lock;      /* the records of the inodes that fall on it */
    pthread_mutex_t table_lock; /* what follows */
    struct entry *slots;        /* open addressing; capacity is 0 or a power of 2 */
    size_t used, capacity;
};

enum work_kind {
    WORK_INODE,   /* reclaim an inode that has no name and no lookups */
    WORK_CONTENT, /* reclaim contents that no inode points to */
    WORK_TAIL,    /* reclaim what is behind an inode's size */
    WORK_FLUSH,   /* log what is held of an inode */
};
struct work {
    enum work_kind kind;
    uint64_t id;
};

enum { SPARE_CHUNKS = 4 };
struct chunk;

struct volume {
    struct keg *keg;
    unsigned flags;
    keg_log_fn *log;
    void *log_arg;
    struct timespec (*now)(void *arg);
    void *now_arg;
    unsigned hold_ms;
    size_t hold_max;    /* inodes held truncated or lazy, at most */
    uint64_t hash_mask; /* all ones; tests make names fall together */
    uint8_t secret[KEYS_SECRET_SIZE];
    struct stripe stripes[STRIPES];

    pthread_mutex_t rename_lock; /* which directory is whose child, while one of them moves */

    pthread_mutex_t reserve_lock; /* one thread reserves ids at a time */
    pthread_mutex_t id_lock;      /* what follows */
    uint64_t next_id;
    uint64_t id_limit; /* ids below it are reserved; changed with reserve_lock held as well */

    pthread_mutex_t tend_lock; /* what follows */
    struct work *work;         /* a ring */
    size_t work_at, work_count, work_capacity;
    struct held_list held[HELD_KINDS];
    struct held *spare; /* up to SPARES that are not used */
    size_t spares;
    bool stop;
    pthread_cond_t work_wake, held_wake;
    pthread_t reclaimer, flusher;
    bool has_reclaimer, has_flusher; /* set while opening and closing only */

    _Atomic(struct chunk *) spare_chunks[SPARE_CHUNKS]; /* change.c; or NULL */

    pthread_mutex_t reclaim_lock; /* one thread reclaims at a time */
    pthread_mutex_t count_lock;
    bool counted;                /* under count_lock */
    atomic_int_least64_t inodes; /* in use, if counted; else how many came less those that went */
};

/* ---- volume.c ---- */

struct timespec volume_now(struct volume *volume);
/* A new inode number or content id, never used before. */
KEG_CHECKED int volume_new_id(struct volume *volume, uint64_t *id);
/* A line for the log callback. */
void volume_log(struct volume *volume, enum keg_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Damage met in what belongs to ino is logged and becomes -EIO; other errors stay. */
KEG_CHECKED int volume_error(struct volume *volume, uint64_t ino, int error);
bool volume_names_ok(struct keg_bytes name, int *error);

/* ---- inodes.c: locks, the table in memory, records ---- */

struct lockset {
    unsigned count;
    uint8_t stripes[LOCK_MAX]; /* ascending, each once */
};
/* For who changes inodes: enters the store (keg_enter) and locks exclusively, so that a frame may
 * be committed until they are unlocked. A thread locks once at a time. */
void inodes_lock(struct volume *volume, struct lockset *set, const uint64_t *inos, unsigned count);
/* Locks one more, if that needs no waiting against the order of locks; else false. */
bool inodes_lock_also(struct volume *volume, struct lockset *set, uint64_t ino);
void inodes_unlock(struct volume *volume, const struct lockset *set);
void inodes_lock_one(struct volume *volume, uint64_t ino);
void inodes_unlock_one(struct volume *volume, uint64_t ino);
/* For who changes what is in memory of the inode and commits nothing: does not enter the store, and
 * so waits for no roll and no check. */
void inodes_lock_memory(struct volume *volume, uint64_t ino);
void inodes_unlock_memory(struct volume *volume, uint64_t ino);
void inodes_lock_shared(struct volume *volume, uint64_t ino);
void inodes_unlock_shared(struct volume *volume, uint64_t ino);

KEG_CHECKED int inodes_init(struct volume *volume);
void inodes_destroy(struct volume *volume);

/* The inode as it is now: what is held of it, else its record. The stripe is locked. -ENOENT. */
KEG_CHECKED int inodes_load(struct volume *volume, uint64_t ino, struct inode *inode);
/* The same for a directory that has not been removed: -ENOTDIR, -ENOENT. */
KEG_CHECKED int inodes_load_dir(struct volume *volume, uint64_t ino, struct inode *inode);
/* Keeps the inode as it is in memory until it is logged. The stripe is locked exclusively. Of an
 * inode that is held already, lazy or not, it cannot fail. */
KEG_CHECKED int inodes_hold(struct volume *volume, const struct inode *inode, bool lazy);
/* The inode was logged: nothing of it is held any more. The stripe is locked exclusively. */
void inodes_logged(struct volume *volume, uint64_t ino);
bool inodes_is_held(struct volume *volume, uint64_t ino);
/* It is held for its time of access only. The stripe is locked exclusively. */
bool inodes_is_lazy(struct volume *volume, uint64_t ino);
/* The inode that has been held longest of this kind, if it is held since `before` or longer; 0:
 * none. *count: how many are held. */
uint64_t inodes_first_held(struct volume *volume, enum held_kind kind, uint64_t before,
                           size_t *count);
/* Counts what is in the tables; the rest of *out is added to by tend_measure. */
void inodes_measure(struct volume *volume, struct volume_memory *out);
/* The inode as its record in the store has it, whatever is held. The stripe is locked. -ENOENT. */
KEG_CHECKED int inodes_load_record(struct volume *volume, uint64_t ino, struct inode *inode);

KEG_CHECKED int inodes_add_writer(struct volume *volume, uint64_t ino);
uint32_t inodes_drop_writer(struct volume *volume, uint64_t ino); /* returns how many are left */
uint32_t inodes_writers(struct volume *volume, uint64_t ino);

/* How many extents the window has in which the file ends; 0: not known. A guess (extents.c), kept
 * while the inode is in the table. */
unsigned inodes_pieces(struct volume *volume, uint64_t ino);
void inodes_set_pieces(struct volume *volume, uint64_t ino, unsigned pieces);

KEG_CHECKED int inodes_count_lookup(struct volume *volume, uint64_t ino);
/* Takes it back, when nobody got to know of it. */
void inodes_uncount_lookup(struct volume *volume, uint64_t ino);
uint64_t inodes_lookups(struct volume *volume, uint64_t ino);
/* The inode has lost its last name. The stripe is locked exclusively. */
void inodes_unlinked(struct volume *volume, uint64_t ino);
/* Of an inode that was made without a name and has lookups: it may be, or has been, given one. */
void inodes_set_linkable(struct volume *volume, uint64_t ino);
bool inodes_linkable(struct volume *volume, uint64_t ino);
void inodes_named(struct volume *volume, uint64_t ino);
void inodes_attr(const struct inode *inode, struct volume_attr *attr);

/* ---- change.c: what one operation logs ---- */

/* Room for what a write of 1 MiB logs; of more, there are allocations. */
enum { CHANGE_NOTES = 12, CHANGE_ROOM = 1024, CHANGE_OPS = 20 };
/*
 * A frame under construction. Errors stick: the first is returned by change_commit, so that what
 * comes before it need not be checked call by call. change_commit (or change_drop) frees it.
 */
struct change {
    struct volume *volume;
    struct keg_batch batch;
    struct keg_op ops[CHANGE_OPS]; /* lent to it */
    int error;
    unsigned notes;
    struct change_note {
        enum change_noted { NOTE_LOGGED, NOTE_STAGED, NOTE_UNLINKED, NOTE_WORK } kind;
        struct work work;
        const void *inode; /* of NOTE_STAGED: a copy, not aligned */
    } note[CHANGE_NOTES];  /* to be done when it is committed */
    struct chunk *chunks;
    size_t room_used;
    uint8_t room[CHANGE_ROOM];
};
void change_free_spares(struct volume *volume); /* volume_close */
void change_begin(struct change *change, struct volume *volume);
/* Memory that lasts as long as the frame; NULL: it failed, and the frame with it. */
void *change_alloc(struct change *change, size_t len);
void change_fail(struct change *change, int error);
void change_put(struct change *change, const struct keys_key *key, struct keg_bytes meta,
                struct keg_bytes value);
void change_delete(struct change *change, const struct keys_key *key);
/* The inode as it is now, and an orphan key for its stale contents. Of a staged inode, all but what
 * belongs to the contents; that stays in memory. Locked exclusively. */
void change_inode(struct change *change, const struct inode *inode);
/* The same of one that has lost a name: that works for a symbolic link with a damaged text, too,
 * whose other names are then left without any (its size is 0, and reading it -EIO). */
void change_unlinked(struct change *change, const struct inode *inode);
/* The same as change_inode where only the contents changed: nothing of a staged inode is logged. */
void change_contents(struct change *change, const struct inode *inode);
void change_new_inode(struct change *change, const struct inode *inode, struct keg_bytes target);
/* The name, by its key (dirs_key), leads to the inode. change_delete takes it away. */
void change_name(struct change *change, const struct keys_key *name, uint64_t ino, uint32_t mode);
void change_orphan(struct change *change, enum keys_orphan orphan, uint64_t id);
void change_unorphan(struct change *change, enum keys_orphan orphan, uint64_t id);
/* Something to be done once the frame is committed. */
void change_work(struct change *change, enum work_kind kind, uint64_t id);
/* Deletes every key with this prefix, as far as the frame stays within RECLAIM_MAX records.
 * Returns whether that was all of them. */
bool change_delete_all(struct change *change, enum keys_kind kind, uint64_t id);
/* flags as keg_commit. Where volume_check would see it, the caller has entered the store. */
KEG_CHECKED int change_commit(struct change *change, unsigned flags);
void change_drop(struct change *change);

/* ---- dirs.c ---- */

void dirs_key(const struct volume *volume, uint64_t dir, struct keg_bytes name,
              struct keys_key *key);
/* What a name stands for. -ENOENT. */
KEG_CHECKED int dirs_find(struct volume *volume, uint64_t dir, struct keg_bytes name, uint64_t *ino,
                          uint32_t *type);
/* The same by its key; dir is for the log. */
KEG_CHECKED int dirs_find_key(struct volume *volume, uint64_t dir, const struct keys_key *key,
                              uint64_t *ino, uint32_t *type);
/* A name of dir came (1), went (-1) or changed (0), at `now`. */
void dirs_touch(struct inode *dir, int entries, struct timespec now);
/* 0, -ENOTEMPTY, or another error. */
KEG_CHECKED int dirs_empty(struct volume *volume, uint64_t dir);
/* A new inode in memory, without a name; what it inherits goes into the frame. */
void dirs_new_inode(struct change *change, struct inode *inode, uint64_t ino,
                    const struct inode *dir, const struct volume_new *new, struct timespec now);

/* ---- xattrs.c, rights.c: attributes, and the ACLs among them ---- */

/* Whether the inode has another attribute than this one: 1, 0, or an error. */
KEG_CHECKED int xattrs_has_others(struct volume *volume, uint64_t ino, struct keg_bytes name);
/* listxattr(2) has no room for longer lists: -ENOSPC, as nobody could see such an attribute. */
KEG_CHECKED int xattrs_check_room(struct volume *volume, uint64_t ino, struct keg_bytes name);
/* The flag of an inode that has such an ACL; of ACL_NONE none. */
uint32_t rights_flag(enum acl_kind kind);
/* The inode's mode has changed: its ACL goes with it. */
void rights_chmod(struct change *change, struct inode *inode);
/* A new inode gets the ACLs that its directory hands down, or its mode loses the umask. */
void rights_inherit(struct change *change, const struct inode *dir, struct inode *inode,
                    uint32_t umask);
/* Sets the ACL, or removes it by an empty one. Locked exclusively, after keg_make_room. */
KEG_CHECKED int rights_set_locked(struct volume *volume, uint64_t ino, enum acl_kind kind,
                                  struct keg_bytes acl, bool kill_sgid);

/* ---- extents.c: one file's contents ---- */

struct extent {
    uint64_t offset;
    uint32_t len; /* bytes */
};
struct extents {
    struct keg_iter *iter;
};
/* All extents that end behind `from`, and perhaps some before it in the same window, in order. */
KEG_CHECKED int extents_open(struct volume *volume, uint64_t content, uint64_t from,
                             struct extents *it);
/* 1: *extent is the next; 0: no more; or an error. */
KEG_CHECKED int extents_next(struct extents *it, struct extent *extent);
void extents_close(struct extents *it);
/* Reads exactly bytes [from, from + len) of the file, which lie in the extent. */
KEG_CHECKED int extents_read(struct volume *volume, uint64_t content, const struct extent *extent,
                             uint64_t from, void *buf, size_t len);
/*
 * The same of many extents of the same contents, gathered, as the store reads neighbours at once.
 * In two steps for who only reads: extents_find while a stripe keeps the contents as they are, and
 * extents_fetch, which does all the reading, when it is unlocked. What was gathered has to be
 * fetched or dropped.
 */
enum {
    EXTENTS_GATHERED = 17, /* what a read of 1 MiB meets, wherever it begins */
    EXTENTS_MOST = EXTENTS_GATHERED * (WINDOW_PIECES + 1), /* where it was written in pieces */
};
struct extents_reads {
    struct volume *volume;
    uint64_t content;
    int error;           /* the first */
    size_t count, found; /* gathered; of those, found in the store */
    size_t room;         /* for readings: few, or allocated */
    struct keg_reading *readings, few[EXTENTS_GATHERED];
    struct keys_key keys[EXTENTS_GATHERED]; /* of those not found yet */
};
void extents_gather_begin(struct extents_reads *reads, struct volume *volume, uint64_t content);
void extents_gather(struct extents_reads *reads, const struct extent *extent, uint64_t from,
                    void *buf, size_t len);
/* The first one, of which only is known where it would begin. Returns how many of these bytes it
 * has, and will read. */
size_t extents_gather_first(struct extents_reads *reads, uint64_t start, uint64_t from, void *buf,
                            size_t len);
/* On failure all is dropped. */
KEG_CHECKED int extents_find(struct extents_reads *reads);
/* The first error of all. */
KEG_CHECKED int extents_fetch(struct extents_reads *reads);
void extents_drop(struct extents_reads *reads);
/* Both steps. */
KEG_CHECKED int extents_gathered(struct extents_reads *reads);
/* Which pieces [*first, *last) of a window a write of [from, to) takes in: those it overlaps, and
 * more when there would be too many. Pure. */
void extents_plan(const struct extent *pieces, size_t count, uint64_t from, uint64_t to,
                  size_t *first, size_t *last);
/* Adds to the frame what writing does, and changes bytes (not size) of the inode. The data must
 * last as long as the frame. inode->content is set. */
KEG_CHECKED int extents_write(struct change *change, struct inode *inode, uint64_t offset,
                              const void *data, size_t len);
/* Adds to the frame what making [from, to) a hole does, up to RECLAIM_MAX records; *next is how far
 * it came, `to` if all was done. Changes bytes of the inode. */
KEG_CHECKED int extents_punch(struct change *change, struct inode *inode, uint64_t from,
                              uint64_t to, uint64_t *next);

/* ---- files.c ---- */

/* Adds to the frame what making the file smaller does. */
KEG_CHECKED int files_shrink(struct change *change, struct inode *inode, uint64_t size);
/* Sees to it that nothing is behind the size, so that it may grow. May commit frames. */
KEG_CHECKED int files_trim(struct volume *volume, struct inode *inode);
/* Adds to the frame what makes all of [from, to) data: zeros where there was a hole. At most
 * KEYS_WINDOW bytes. */
KEG_CHECKED int files_fill(struct change *change, struct inode *inode, uint64_t from, uint64_t to);
void files_kill_suid(struct inode *inode);
/* A change of contents or owner takes capabilities(7) from a program: deletes them in this frame.
 * Returns whether there were any. */
bool files_kill_capabilities(struct change *change, const struct inode *inode);

/* ---- stage.c: contents that are replaced as a whole ---- */

/* Truncates the inode to zero. If it has writers its new contents are staged from here on, else
 * the old ones become stale. The caller goes on with change_inode or change_contents, even if
 * nothing else changes. Locked exclusively. */
KEG_CHECKED int stage_truncate(struct change *change, struct inode *inode);
/* The staged contents become the inode's, in this frame; the caller goes on with change_inode. No
 * contents staged: nothing. Fails if a write is missing from them. */
KEG_CHECKED int stage_commit(struct change *change, struct inode *inode);
/* What is staged is forgotten, and the old contents become stale. */
void stage_replace(struct change *change, struct inode *inode);
/* A write to the inode failed, so that its staged contents must not be committed. */
void stage_break(struct volume *volume, uint64_t ino, int error);
/* Commits all that are staged, at the end (keep false: none of them); those that cannot be are
 * given up. The first error. */
KEG_CHECKED int stage_close(struct volume *volume, bool keep);

/* ---- orphans.c, tend.c: what is done later ---- */

/* Puts what the orphan keys list into the queue. */
KEG_CHECKED int orphans_scan(struct volume *volume);
/* Does a part of the work, 1..LOCK_MAX pieces; *done of them, from the first on, need no more. */
KEG_CHECKED int orphans_reclaim(struct volume *volume, const struct work *work, size_t count,
                                size_t *done);

KEG_CHECKED int tend_init(struct volume *volume);
KEG_CHECKED int tend_start(struct volume *volume);
void tend_stop(struct volume *volume);
void tend_destroy(struct volume *volume);
/* To be done later. If memory is short it is dropped: the orphan key keeps it for the next open. */
void tend_add(struct volume *volume, enum work_kind kind, uint64_t id);
/* Works through the queue. */
KEG_CHECKED int tend_run(struct volume *volume);
/* The same, at the end of a call, in a volume without a thread. */
void tend_inline(struct volume *volume);
/* Logs what is held of ino, and only with `stages` what is staged. A time of access that cannot be
 * logged is dropped, and is no error. */
KEG_CHECKED int tend_flush(struct volume *volume, uint64_t ino, bool stages);
KEG_CHECKED int tend_flush_all(struct volume *volume, enum held_kind kind);
/* Before one more is held: logs the oldest if there are as many as there may be, of times of access
 * first. For a `lazy` one nothing else is logged: -EAGAIN. No lock is held. */
KEG_CHECKED int tend_make_room(struct volume *volume, bool lazy);
/* Whether one more may be held without that. */
bool tend_has_room(struct volume *volume);
void tend_measure(struct volume *volume, struct volume_memory *out);
/* Milliseconds, only to be compared. */
uint64_t tend_clock(void);

/* ---- paths.c ---- */

/* A path of an inode, found by searching names; slow. -ENOENT, -ENAMETOOLONG. */
KEG_CHECKED int paths_of(struct volume *volume, uint64_t ino, char *buf, size_t size);

#endif
