/* SPDX-License-Identifier: MIT */
/*
 * libkeg: an ordered, append-only key-value store. This is its one public header.
 *
 * A key is 1..KEG_KEY_MAX bytes and compares as bytes (memcmp, then length). It has a small meta
 * (0..KEG_META_MAX bytes), which lives in the index and costs no I/O to read, and a value
 * (0..KEG_VALUE_MAX bytes), which lives in the log. An empty value is a value.
 *
 * Errors: every function that can fail returns 0 (or a length) or a negative errno, and says below
 * which. Common to all that change something:
 *   -EROFS     the store is read-only: opened so, or damaged record heads without a sound hint
 *              (keg_readonly_reason says which)
 *   -EIO       the medium failed, now or in an earlier sync or append, which poisoned the store
 *   -ENOSPC    no space outside the reserve (KEG_FREEING may use the reserve)
 *   -ENOMEM    nothing was changed
 *   -EINVAL    a key, meta or value outside the limits
 * Damage (a checksum that does not fit) is always -EBADMSG.
 *
 * Threads: every function on an open store may be called from any thread at any time, except
 * keg_close. A batch or an iterator belongs to one thread at a time.
 *
 * The library never prints: what a person should know goes, a line at a time and without a newline,
 * to the log callback.
 */
#ifndef KEG_H
#define KEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define KEG_CHECKED __attribute__((warn_unused_result))

enum {
    KEG_KEY_MAX = 1024,
    KEG_META_MAX = 255,
    KEG_VALUE_MAX = 16 << 20, /* bytes */
    KEG_BATCH_MAX = 32 << 20, /* bytes a batch takes in the log, heads included */
    KEG_BLOCK = 64 << 10,     /* a value longer than this has a CRC for each such block */
};

struct keg;
struct keg_env; /* env.h; keg_env_posix below makes the usual one */

/* Bytes that somebody else owns. */
struct keg_bytes {
    const void *data;
    size_t len;
};

enum keg_level { KEG_LOG_ERROR, KEG_LOG_WARNING, KEG_LOG_INFO };
typedef void keg_log_fn(void *arg, enum keg_level level, const char *line);

/* ---- Opening ---- */

enum {
    KEG_CREATE = 1,        /* make an empty store if the directory holds none */
    KEG_READONLY = 2,      /* change nothing on disk, not even to recover; takes the lock */
    KEG_NO_BACKGROUND = 4, /* no thread of its own: no timed sync, hints written inline,
                              compaction only by keg_compact; for tests and short commands */
};

struct keg_options {
    unsigned flags;
    uint64_t segment_size;     /* bytes at which a segment is sealed; 0: 64 MiB, less on a small
                                  filesystem; from 64 KiB to below 128 MiB */
    unsigned sync_interval_ms; /* everything is durable this long after it was committed; 0: 1000 */
    unsigned lock_wait_ms;     /* how long to wait for another process to let go of the store */
    const char *owner; /* written to LOCK behind the pid: the mountpoint, or "-"; may be NULL */
    keg_log_fn *log;   /* may be NULL; may be called from any thread */
    void *log_arg;
};

/*
 * The POSIX environment: a directory, made (0700) if create is set and its parent exists. *out is
 * freed by keg_env_free, after every store opened on it was closed. It keeps a descriptor of the
 * directory and never uses the path again.
 * -ENOENT, -ENOTDIR, -EACCES, -EROFS, -EMFILE, -ENOMEM and what open(2) and mkdir(2) give.
 */
KEG_CHECKED int keg_env_posix(const char *dir, bool create, struct keg_env **out);
void keg_env_free(struct keg_env *env);

/*
 * Who holds the store's lock, as "PID OWNER" in text (NUL-terminated, cut to size). 0; -ENOENT when
 * nobody does; an I/O error.
 */
KEG_CHECKED int keg_holder(struct keg_env *env, char *text, size_t size);

/*
 * Opens the store in env: takes the lock, recovers, and starts the background thread. env stays the
 * caller's and must outlive the store. Before it fails it gives the log callback one line of level
 * KEG_LOG_ERROR that says what, which file, and what to do.
 * -ENOENT   no store there and no KEG_CREATE
 * -EBUSY    another process (or an open store in this one) holds the lock; see keg_holder
 * -EPROTONOSUPPORT  the store has a newer format
 * -EBADMSG  MANIFEST is damaged, or missing with segments there
 * -EINVAL   an option is out of range
 * -EACCES, -EROFS, -EIO, -ENOSPC, -ENOMEM, -EMFILE
 */
KEG_CHECKED int keg_open(struct keg_env *env, const struct keg_options *options, struct keg **out);

/*
 * Makes everything durable, writes the active segment's hint, releases the lock and frees the
 * store, whatever it returns. 0, or the error that kept something from becoming durable or the hint
 * from being written. No other call may be under way. NULL is allowed.
 */
KEG_CHECKED int keg_close(struct keg *keg);

/* NULL, or why the store refuses changes: one line, valid until keg_close. */
const char *keg_readonly_reason(const struct keg *keg);

/* ---- Changing ---- */

enum {
    KEG_SYNC = 1,    /* return only when the change is durable */
    KEG_FREEING = 2, /* the change frees space (or is small and must not fail): may use the reserve,
                        and waits for compaction where that runs low; not from a callback of
                        keg_check or keg_compact */
    KEG_WAITED = 4,  /* keg_make_room was called just before, and no commit since that did not wait
                        itself: no more waiting, though others have used up the room */
};

/*
 * A batch is applied wholly or not at all, in memory and over any crash. It refers to the caller's
 * keys, metas and values; they must stay until keg_commit returns. Operations on one key apply in
 * the order given. The struct is the caller's (zero it to begin); keg_batch_free frees what it
 * points to, keg_batch_clear keeps the memory for reuse. keg_batch_lend begins one that
 * owns nothing yet in memory of the caller's, which stays until keg_batch_free: as long as `room`
 * is enough nothing is allocated.
 */
struct keg_op {
    struct keg_bytes key, meta, value;
    bool tombstone;
};
struct keg_batch {
    struct keg_op *ops;
    size_t count, capacity;
    bool lent; /* ops are the caller's */
};
void keg_batch_lend(struct keg_batch *batch, struct keg_op *room, size_t capacity);
/* -ENOMEM, -EINVAL (limits); on failure the batch is as before. */
KEG_CHECKED int keg_batch_put(struct keg_batch *batch, struct keg_bytes key, struct keg_bytes meta,
                              struct keg_bytes value);
KEG_CHECKED int keg_batch_delete(struct keg_batch *batch, struct keg_bytes key);
void keg_batch_clear(struct keg_batch *batch);
void keg_batch_free(struct keg_batch *batch);

/*
 * Commits a batch: one frame in the log. When it returns 0 every later read sees all of it, and
 * kill -9 loses nothing of it; with KEG_SYNC neither does a power cut. An empty batch is 0.
 * Deleting a key that is not there is no error and appends nothing for it. That is judged when the
 * call begins: a key that another thread puts meanwhile is then there, as if it had been put later.
 * Who needs it otherwise keeps the two apart, as a namespace does by its locks.
 * -E2BIG over KEG_BATCH_MAX, and the common errors. After an error the change may still be found
 * there once the store was reopened after a crash, but never by half.
 */
KEG_CHECKED int keg_commit(struct keg *keg, const struct keg_batch *batch, unsigned flags);

/*
 * For callers that hold locks of their own over a commit. What a commit may have to wait for is
 * waited for before those are taken, as a rule: by keg_enter for the log to roll, when the segment
 * is nearly full; by keg_make_room, before a change that frees space, for the compaction that a
 * full disk then needs. A commit that finds it necessary all the same waits itself,
 * but with KEG_WAITED not for space.
 *
 * keg_leave comes after the locks are given back. Any number of threads may be inside; a thread
 * enters once at a time, and inside calls neither keg_compact nor keg_check.
 *
 * keg_quiesce waits until nobody is inside and keeps everybody out until keg_resume, by the same
 * thread: with callers who all enter, what is in the store does not change meanwhile.
 */
void keg_make_room(struct keg *keg);
void keg_enter(struct keg *keg);
void keg_leave(struct keg *keg);
void keg_quiesce(struct keg *keg);
void keg_resume(struct keg *keg);

/* One put or delete. keg_delete of a key that is not there is -ENOENT. */
KEG_CHECKED int keg_put(struct keg *keg, struct keg_bytes key, struct keg_bytes meta,
                        struct keg_bytes value, unsigned flags);
KEG_CHECKED int keg_delete(struct keg *keg, struct keg_bytes key, unsigned flags);

/*
 * Returns when all that was committed before the call is durable. Calls share syncs. The first
 * failure poisons the store: all waiters get -EIO, and so does every later call.
 */
KEG_CHECKED int keg_sync(struct keg *keg);

/* ---- Reading ---- */

struct keg_info {
    uint64_t sequence;  /* of the record that is the key's newest */
    uint64_t segment;   /* where it lies */
    uint64_t offset;    /* of the value's bytes in the segment; 0 with a value_len that is not:
                           keg_repair found it lost, and reading it gives -EBADMSG */
    uint32_t value_len; /* bytes */
    uint8_t meta_len;
    uint8_t meta[KEG_META_MAX];
};

/* Key's meta and the value's length, from memory. 0 or -ENOENT. */
KEG_CHECKED int keg_get(struct keg *keg, struct keg_bytes key, struct keg_info *info);

/*
 * Reads up to len bytes of key's value from offset on into buf, and verifies them. Returns how many
 * (0 at or past the value's end), -ENOENT, -EBADMSG (damage: said to the log and counted), -EIO,
 * -ENOMEM.
 */
KEG_CHECKED ssize_t keg_read(struct keg *keg, struct keg_bytes key, uint32_t offset, void *buf,
                             size_t len);

/*
 * Several values in one call, each read as keg_read reads it; the same key may be there more than
 * once. What lies side by side in a segment (the values of one batch, or after a compaction those
 * of keys that follow each other) and is asked for in that order is read at once: so many small
 * reads become few large ones. Damage to one value does not keep the others from being read.
 */
struct keg_reading {
    struct keg_bytes key;
    uint32_t offset; /* in the value */
    size_t len;      /* bytes wanted */
    void *buf;       /* the caller's; undefined after an error of this one */
    ssize_t result;  /* set: what keg_read would have returned */
    struct {         /* the store's, from keg_find_many on */
        void *segment;
        uint64_t offset;
        uint32_t value_len, crc;
    } found;
};
void keg_read_many(struct keg *keg, struct keg_reading *readings, size_t count);

/*
 * The same in two steps, for who has a lock of its own over the keys and does not want to hold it
 * while the disk is read. keg_find_many does no input or output and allocates nothing: it sets each
 * result to how many bytes there will be, or -ENOENT, and remembers where they are. keg_fetch_many
 * reads and verifies them, and sets the results as keg_read_many does. It reads what was found,
 * whatever became of the key meanwhile: overwritten, deleted, compacted.
 *
 * Keys are used by the first step only, offset and len by both; buf may be set between the two.
 * Readings may be moved, regrouped and fetched in any parts and by any thread, but each found one
 * has to be given to keg_fetch_many or keg_drop_many, before keg_close; both pass over those with
 * -ENOENT, and what was fetched or dropped already. Up to KEG_FIND_MAX, counted from the first, are
 * found at one moment: between these and the next a commit may fall.
 *
 * As long as something found in it was not fetched or dropped a segment keeps its files: one that
 * was compacted takes its space on the disk until then, and who fetches or drops the last of it
 * removes them. Nothing waits for that, keg_compact neither.
 */
enum { KEG_FIND_MAX = 32 };
void keg_find_many(struct keg *keg, struct keg_reading *readings, size_t count);
void keg_fetch_many(struct keg *keg, struct keg_reading *readings, size_t count);
/* Gives up what was found; the results stay. It may remove a file, so better without a lock. */
void keg_drop_many(struct keg *keg, struct keg_reading *readings, size_t count);

/*
 * An ordered scan of the keys that begin with prefix. It is no snapshot: a key put or deleted while
 * the scan is under way may or may not be met, but no key is met twice and none that is there
 * throughout is missed. prefix is copied. keg_iter_seek: the next key met is the first >= key.
 */
struct keg_iter;
struct keg_entry { /* valid until the next call on the iterator */
    struct keg_bytes key, meta;
    uint64_t sequence, segment, offset;
    uint32_t value_len;
};
KEG_CHECKED int keg_iter_open(struct keg *keg, struct keg_bytes prefix, struct keg_iter **out);
KEG_CHECKED int keg_iter_seek(struct keg_iter *iter, struct keg_bytes key);
/* 1: *entry is the next one; 0: no more; -ENOMEM. */
KEG_CHECKED int keg_iter_next(struct keg_iter *iter, struct keg_entry *entry);
void keg_iter_close(struct keg_iter *iter); /* NULL is allowed */

/* ---- Tending ---- */

/* Called now and then with how far a long call has come; a true return cancels it (-ECANCELED). */
typedef bool keg_progress_fn(void *arg, uint64_t done, uint64_t total);

/*
 * Rewrites every segment that holds dead bytes worth it (the active one is sealed first), and
 * returns when the space is free; waits for a compaction or check that is under way. Readers and
 * writers go on. Safe to cancel and to be killed. A segment that cannot be read is left alone.
 * -ECANCELED, and the common errors.
 */
KEG_CHECKED int keg_compact(struct keg *keg, keg_progress_fn *progress, void *arg);

/* Writes every hint that is missing, and one for the active segment as far as it goes. */
KEG_CHECKED int keg_hint(struct keg *keg);

struct keg_stats {
    uint64_t keys;          /* live keys */
    uint64_t segments;      /* in the manifest, the active one included */
    uint64_t live_bytes;    /* live records, encoded, with their heads */
    uint64_t data_bytes;    /* .data bytes, the active one without its pre-zeroed part */
    uint64_t hint_bytes;    /* .hint bytes */
    uint64_t index_bytes;   /* memory the index takes */
    uint64_t puts, deletes; /* records committed since the store was opened, like all below */
    uint64_t frames;        /* batches committed */
    uint64_t appends;       /* writes to the log; a group of frames shares one */
    uint64_t append_bytes;  /* bytes appended by commits */
    uint64_t syncs;         /* syncs of the log; sync_waits callers shared them */
    uint64_t sync_waits;
    uint64_t reads, read_bytes;
    uint64_t damaged_reads;                /* reads that failed their checksum */
    uint64_t compactions, compacted_bytes; /* runs, and bytes they wrote */
    uint64_t hints_written;
    uint64_t free_bytes;         /* on the store's filesystem, less the reserve */
    uint64_t total_bytes;        /* size of the store's filesystem */
    uint64_t sequence;           /* last one used */
    uint64_t recovered_segments; /* at open: scanned for want of a sound hint */
};
void keg_stats(struct keg *keg, struct keg_stats *stats);

struct keg_segment_info {
    uint64_t id;
    uint64_t bytes, live_bytes, hint_bytes; /* hint_bytes 0: none */
    uint64_t first_sequence, last_sequence; /* 0, 0: no records */
    bool compacted;                         /* made by compaction, else a log segment */
    bool sealed;
};
/* Calls fn for each segment, in the order of the manifest, on copies taken at the start. fn's non-0
 * return ends it and is returned. -ENOMEM. */
KEG_CHECKED int keg_segments(struct keg *keg,
                             int (*fn)(void *arg, const struct keg_segment_info *segment),
                             void *arg);

/*
 * What keg_repair has to say. key is empty where it says nothing; all pointers are valid during the
 * call only.
 */
enum keg_loss_kind {
    KEG_LOSS_VALUE,   /* a live key's value is lost: the key stays, to read it is -EBADMSG */
    KEG_LOSS_RECORDS, /* records are lost, and nothing says of which keys */
    KEG_LOSS_DOUBT,   /* a live key whose newer value, or deletion, may be among the lost records */
    KEG_LOSS_NOTE,    /* nothing is lost: what was damaged, or done */
};
struct keg_loss {
    enum keg_loss_kind kind;
    struct keg_bytes key; /* of a value, a doubt */
    uint64_t segment;     /* 0: none in particular */
    uint64_t offset, len; /* bytes of the segment that are lost */
    /* Of lost records: their sequences lie in first..last (last may be UINT64_MAX: not known), and
     * their keys, where `before` is not empty, between `after` and `before`. */
    uint64_t first_sequence, last_sequence;
    struct keg_bytes after, before;
    const char *text; /* in words, without a newline */
};
typedef void keg_loss_fn(void *arg, const struct keg_loss *loss);

/*
 * Makes a sound store of what is left of a damaged one that nobody has open, and tells lost (may be
 * NULL) what is not. Every segment is read and verified. Those without damage stay as they are; of
 * the others, all that is whole is copied to new segments, and they are renamed: NNNNNNNN.data to
 * NNNNNNNN.data.damaged, its hint likewise, so that nothing of a damaged original is changed or
 * removed. It can be cut off at any point, cancelled, and done again. Room is needed for the copies
 * (-ENOSPC changes nothing). store/DESIGN.md says what is kept of a key when records are lost.
 * options: flags are not looked at.
 * 1: repaired; 0: there was nothing to repair; errors as keg_open and keg_compact; -EBADMSG:
 * nothing there is of any store.
 */
KEG_CHECKED int keg_repair(struct keg_env *env, const struct keg_options *options,
                           keg_loss_fn *lost, keg_progress_fn *progress, void *arg);

/*
 * One finding of keg_check. key is empty when the damage has no key (a head, a hint, a file); key
 * and text are valid during the call only.
 */
struct keg_finding {
    struct keg_bytes key;
    uint64_t segment, offset;
    bool live;        /* a live value is hit; else a dead record, a hint or a head */
    const char *text; /* what is wrong, in words, without a newline */
};
/*
 * Reads and verifies every byte: heads and values of all segments, every hint against its segment,
 * the manifest against the directory. Returns the number of findings (0: sound) or a negative
 * errno. Readers and writers go on.
 */
KEG_CHECKED ssize_t keg_check(struct keg *keg,
                              void (*found)(void *arg, const struct keg_finding *f),
                              keg_progress_fn *progress, void *arg);

#endif
