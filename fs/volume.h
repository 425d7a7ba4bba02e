/* SPDX-License-Identifier: MIT */
/*
 * The namespace: names, inodes and file contents as keys of a store. Knows no FUSE type; the
 * daemon, the command line and the tests stand on it.
 *
 * Errors: 0 or a negative errno (a length where said); those of POSIX for the call of the same
 * name, and of keg.h underneath, with damage (-EBADMSG) turned into -EIO. Permissions are not
 * checked here (the kernel does, with default_permissions) but for what only a file system can: a
 * non-empty or missing directory, types, limits. Names are bytes without '/' and NUL, 1..255 of
 * them, never "." or ".."; a longer one is -ENAMETOOLONG.
 *
 * Threads: everything may be called from any thread at any time, but volume_close. An operation
 * locks the inodes it changes (striped, in ascending order) from reading their records until its
 * frame is in the index.
 */
#ifndef VOLUME_H
#define VOLUME_H

#include "keg.h"
#include <sys/stat.h>
#include <time.h>

struct volume;

enum { VOLUME_ROOT = 1, VOLUME_NAME_MAX = 255, VOLUME_SYMLINK_MAX = 4095 };

enum {
    VOLUME_CREATE = 1,        /* make an empty volume if the store is empty */
    VOLUME_READONLY = 2,      /* change nothing */
    VOLUME_RELATIME = 4,      /* atime moves with reads, at most once a day or after a change */
    VOLUME_NO_BACKGROUND = 8, /* no threads of its own (tests, short commands): what is freed is
                                 reclaimed by the calls themselves and by volume_tend */
};

struct volume_options {
    unsigned flags;
    uint32_t root_uid, root_gid; /* owner of the root of a new volume */
    unsigned hold_ms;    /* how long a truncation to zero waits for the write after it; 0: 500. With
                            the store's sync interval it bounds what a power cut can take */
    uint64_t hold_bytes; /* memory for inodes held back: after a truncation to zero, or a new time
                            of access. With more of them the oldest are logged; 0: 32 MiB */
    keg_log_fn *log;     /* damage, with the inode it hit; may be NULL; from any thread */
    void *log_arg;
    /* For tests that have to be repeatable; NULL: CLOCK_REALTIME, and a random secret. */
    struct timespec (*now)(void *arg);
    void *now_arg;
    const uint8_t *secret; /* 16 bytes that key the hash of names in a new volume */
};

/*
 * Opens the volume in an open store, which stays the caller's and must outlive it; finishes what
 * orphan keys list. -ENOENT: the store holds no volume and no VOLUME_CREATE was given; -EPROTO: it
 * holds something else, or a newer volume format.
 */
KEG_CHECKED int volume_open(struct keg *keg, const struct volume_options *options,
                            struct volume **out);
/* Logs what is held back; frees. The store is still to be closed. NULL is allowed. */
KEG_CHECKED int volume_close(struct volume *volume);

struct volume_attr {
    uint64_t ino;
    uint64_t size;  /* bytes */
    uint64_t bytes; /* allocated */
    uint64_t rdev;
    uint32_t mode, nlink, uid, gid;
    struct timespec atime, mtime, ctime, btime;
    bool has_xattrs;
};
/* The same as stat(2) shows it: st_blocks from bytes; st_blksize 1 MiB, of a directory
 * a power of two from 32 KiB to 1 MiB, by its entries. */
void volume_stat(const struct volume_attr *attr, struct stat *st);

/*
 * Every call below that returns a volume_attr through `out` of a found or made entry counts as one
 * lookup (as FUSE counts them); volume_forget gives n of them back. An inode without a name lives
 * until its count is 0. Callers that do not count pass their entry through volume_forget(.., 1).
 */
void volume_forget(struct volume *volume, uint64_t ino, uint64_t n);

KEG_CHECKED int volume_lookup(struct volume *volume, uint64_t dir, struct keg_bytes name,
                              struct volume_attr *out);
/* The inode by its number, for file handles; counts a lookup. -ESTALE: there is none, or it has no
 * name and no lookups. */
KEG_CHECKED int volume_lookup_ino(struct volume *volume, uint64_t ino, struct volume_attr *out);
/* No lookup is counted by this one. */
KEG_CHECKED int volume_getattr(struct volume *volume, uint64_t ino, struct volume_attr *out);

enum {
    VOLUME_SET_MODE = 1,
    VOLUME_SET_UID = 2,
    VOLUME_SET_GID = 4,
    VOLUME_SET_SIZE = 8,
    VOLUME_SET_ATIME = 16,
    VOLUME_SET_MTIME = 32,
    VOLUME_SET_ATIME_NOW = 64,
    VOLUME_SET_MTIME_NOW = 128,
    VOLUME_SET_CTIME = 256,
    VOLUME_KILL_SUID = 512, /* clear suid, and sgid where group-executable */
};
/* Size 0 is visible at once and logged with the next write (see the design's promise 2). A mode
 * goes into the access ACL, too, where there is one. */
KEG_CHECKED int volume_setattr(struct volume *volume, uint64_t ino, unsigned set,
                               const struct volume_attr *attr, struct volume_attr *out);

/* Makes a file of any type: mode has S_IFMT; target (symbolic links only) its text; the sgid bit
 * and the default ACL of the directory are inherited as on Linux, and where there is no such ACL
 * the umask is taken from the mode. */
struct volume_new {
    uint32_t mode, uid, gid, umask;
    uint64_t rdev;
    struct keg_bytes target;
};
KEG_CHECKED int volume_make(struct volume *volume, uint64_t dir, struct keg_bytes name,
                            const struct volume_new *new, struct volume_attr *out);
/* The same of a regular file without a name, as O_TMPFILE wants it: nlink is 0, and volume_link may
 * give it its first name as long as it has lookups. Else it goes, by the last forget or a crash. */
KEG_CHECKED int volume_make_unnamed(struct volume *volume, uint64_t dir,
                                    const struct volume_new *new, struct volume_attr *out);
KEG_CHECKED int volume_link(struct volume *volume, uint64_t ino, uint64_t dir,
                            struct keg_bytes name, struct volume_attr *out);
KEG_CHECKED int volume_unlink(struct volume *volume, uint64_t dir, struct keg_bytes name);
KEG_CHECKED int volume_rmdir(struct volume *volume, uint64_t dir, struct keg_bytes name);
enum { VOLUME_NOREPLACE = 1, VOLUME_EXCHANGE = 2 }; /* as RENAME_ */
KEG_CHECKED int volume_rename(struct volume *volume, uint64_t dir, struct keg_bytes name,
                              uint64_t new_dir, struct keg_bytes new_name, unsigned flags);

/* Returns the target's length, cut to size; it is not NUL-terminated. */
KEG_CHECKED ssize_t volume_readlink(struct volume *volume, uint64_t ino, char *buf, size_t size);

/* Regular files. Both return bytes; read fewer only at the end of the file, write never fewer. */
KEG_CHECKED ssize_t volume_read(struct volume *volume, uint64_t ino, uint64_t offset, void *buf,
                                size_t len);
/* flags: VOLUME_KILL_SUID. One call is one frame, however long (up to 16 MiB). */
KEG_CHECKED ssize_t volume_write(struct volume *volume, uint64_t ino, uint64_t offset,
                                 const void *buf, size_t len, unsigned flags);
/* mode: FALLOC_FL_ bits of linux/falloc.h: 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE,
 * ZERO_RANGE[|KEEP_SIZE]; others -EOPNOTSUPP. Mode 0 makes zeros of holes up to 64 KiB at a time;
 * larger ones stay holes. */
KEG_CHECKED int volume_fallocate(struct volume *volume, uint64_t ino, int mode, uint64_t offset,
                                 uint64_t len);
/* whence: SEEK_DATA or SEEK_HOLE. *out is the offset found; -ENXIO. */
KEG_CHECKED int volume_seek(struct volume *volume, uint64_t ino, uint64_t offset, int whence,
                            uint64_t *out);

/*
 * Directory entries in cookie order, without "." and "..". cookie 0 begins; each entry gives the
 * cookie to go on behind it. Cookies hold over deletions and remounts; entries with one and the
 * same hash are never parted by a cookie (fn is offered them until it refuses: then the cookie of
 * the last entry with another hash is where to go on). fn returns false to stop: that entry was not
 * taken. With attrs, each taken entry counts as one lookup and attr is filled; else, and where the
 * inode is damaged, nlink is 0 and attr holds only ino and the type bits of mode.
 */
struct volume_dirent {
    struct keg_bytes name;
    uint64_t cookie;
    struct volume_attr attr;
};
KEG_CHECKED int volume_readdir(struct volume *volume, uint64_t dir, uint64_t cookie, bool attrs,
                               bool (*fn)(void *arg, const struct volume_dirent *entry), void *arg);
/* The directory's parent; the root is its own. */
KEG_CHECKED int volume_parent(struct volume *volume, uint64_t dir, uint64_t *parent);

/* Extended attributes; names with their prefix ("user.x"), up to 255 bytes; values up to 64 KiB.
 * get and list return a length; with size 0 only that; -ERANGE when it does not fit; -ENODATA.
 * flags: XATTR_CREATE, XATTR_REPLACE, VOLUME_KILL_SGID.
 *
 * The two POSIX ACLs are checked (-EINVAL; -EOPNOTSUPP: of an unknown version, or a symbolic link;
 * -EACCES: a default ACL, and no directory), go with the mode, and whether one is there does not
 * matter to flags; to set an empty one means to remove it, and to remove none is no error. One that
 * is damaged is -EIO, as is whatever depends on it. */
enum { VOLUME_KILL_SGID = 1 << 16 }; /* with an access ACL: clear sgid */
KEG_CHECKED int volume_setxattr(struct volume *volume, uint64_t ino, struct keg_bytes name,
                                const void *value, size_t size, int flags);
KEG_CHECKED ssize_t volume_getxattr(struct volume *volume, uint64_t ino, struct keg_bytes name,
                                    void *value, size_t size);
KEG_CHECKED ssize_t volume_listxattr(struct volume *volume, uint64_t ino, char *list, size_t size);
KEG_CHECKED int volume_removexattr(struct volume *volume, uint64_t ino, struct keg_bytes name);

/*
 * Contents that are replaced as a whole. While an inode has writers, and then only, a truncation to
 * zero (and creation, told by `created`) stages its new contents: every call sees them, but after a
 * crash the file has the old ones, until they are committed as one. They are when the last writer
 * closes, at volume_sync of this inode (but not of all), when it is renamed over another, and at
 * volume_close; what is written from then on is logged as ever. If a write to them failed, or the
 * commit does, the last writer's close returns the error and the old contents are back: so the
 * caller has to forget what it cached. DESIGN.md tells of other changes meanwhile.
 *
 * open: -ENOENT, -EISDIR, -EINVAL, -EROFS. flush, for a close that can still report: commits if
 * there is one writer and anything in the new contents, and gives nothing up when that fails.
 */
KEG_CHECKED int volume_writer_open(struct volume *volume, uint64_t ino, bool created);
KEG_CHECKED int volume_writer_flush(struct volume *volume, uint64_t ino);
KEG_CHECKED int volume_writer_close(struct volume *volume, uint64_t ino);

/* Those that write now never close, as their mount has gone: what is staged is given up, and each
 * file keeps its old contents, as after a crash. Before volume_close. */
void volume_drop_staged(struct volume *volume);

/* Logs what is held back of ino (0: of all inodes, but nothing that is staged) and makes everything
 * durable. */
KEG_CHECKED int volume_sync(struct volume *volume, uint64_t ino);
/* The same for several, none of them 0, with one sync: errors[i] is what it returns for inos[i]. */
void volume_sync_many(struct volume *volume, const uint64_t *inos, int *errors, size_t count);
/* Reclaims what is freed and not yet reclaimed, but for inodes with lookups. */
KEG_CHECKED int volume_tend(struct volume *volume);

struct volume_statfs {
    uint64_t total, free; /* bytes */
    uint64_t inodes;      /* in use */
};
KEG_CHECKED int volume_statfs(struct volume *volume, struct volume_statfs *out);

/* What the volume has in memory beside the store's index. */
struct volume_memory {
    uint64_t known_inodes; /* that have lookups, writers, or are held */
    uint64_t held_inodes;  /* changed, and not logged yet */
    uint64_t queued;       /* inodes and contents to be reclaimed */
    uint64_t table_bytes;  /* all three take */
};
void volume_memory(struct volume *volume, struct volume_memory *out);

/* ---- Paths, for the command line ---- */

/* Path below the root ("" and "/" are the root), no ".." and symbolic links not followed. Counts
 * one lookup. */
KEG_CHECKED int volume_resolve(struct volume *volume, struct keg_bytes path,
                               struct volume_attr *out);
/*
 * Puts a regular file at path as a whole, replacing one that is there: contents come from fill,
 * which returns bytes put into buf, 0 at the end, or a negative errno, which volume_put returns,
 * and nothing has changed. Makes missing parents. When it fails nothing of it is visible. new: mode
 * and owner of the file (an existing one keeps its own).
 */
typedef ssize_t volume_fill_fn(void *arg, void *buf, size_t size);
KEG_CHECKED int volume_put(struct volume *volume, struct keg_bytes path,
                           const struct volume_new *new, volume_fill_fn *fill, void *arg);

/* A path of the inode that owns a key of the store, for reports, NUL-terminated into buf; -ENOENT
 * when it has none any more (*buf then says what the key is). map: NULL, or one that was made for
 * many calls (pathmap_new, pathmap_free), which then need no pass over all names each. */
struct pathmap;
KEG_CHECKED int volume_describe(struct volume *volume, const struct pathmap *map,
                                struct keg_bytes key, char *buf, size_t size);

/*
 * Makes a sound tree of a store that keg_repair has been over; no volume is open on it. Counts,
 * sizes and orphan keys are set by what is there; names without an inode go, what has no name goes
 * to lost+found. Each thing done is given to told, with the inode whose path says where (0: none);
 * the path can be had once the volume is open. Returns how many; -EPROTO: written by a newer
 * version.
 */
typedef void volume_repair_fn(void *arg, uint64_t ino, const char *text);
KEG_CHECKED ssize_t volume_repair(struct keg *keg, volume_repair_fn *told, void *arg);

/*
 * Verifies the tree: every name has an inode, every inode a name (or an orphan key), link counts,
 * sizes, extents and parents fit. Returns the number of findings, each given to found in words.
 */
KEG_CHECKED ssize_t volume_check(struct volume *volume, void (*found)(void *arg, const char *text),
                                 void *arg);

/* What a repair (or unlinking one of several names of a damaged link) has left as lost, each piece
 * given to lost (which may be NULL) with its key. Returns how many. -ENOMEM. */
typedef void volume_lost_fn(void *arg, struct keg_bytes key, const char *text);
KEG_CHECKED ssize_t volume_lost(struct volume *volume, volume_lost_fn *lost, void *arg);

#endif
