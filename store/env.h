/* SPDX-License-Identifier: MIT */
/*
 * The I/O seam: the weakest set of operations that the store needs of the world. Every system call
 * on a store's files is in env_posix.c (with env_posix_read.c and lockfile.c); env_mem.c keeps
 * files in memory; env_fault.c (env_fault.h) models a disk that fails and loses power. A
 * distributed object store could stand here.
 *
 * Files are named by plain names (no '/') in one flat directory. A file is written once, from front
 * to back, by one writer; positional reads may go on meanwhile from any thread.
 *
 * What a power cut may do, and so what the store may count on:
 * - bytes appended and not synced may be there, missing, zero, garbage, torn at any 512-byte
 *   boundary, and later ones may be there while earlier ones are not;
 * - a name made or removed and not followed by env_sync_names may be there or not, each on its own;
 * - env_publish is atomic and durable when it returns 0, if the file was synced before.
 *
 * All functions return 0 or a negative errno unless they say otherwise, and are safe to call from
 * several threads, but one file's append, sync and seal come from one thread at a time (a sync may
 * run beside an append: it covers what was appended before it began).
 */
#ifndef ENV_H
#define ENV_H

#include "keg.h"

#include <sys/uio.h>

/* Embedded first in each implementation's own struct. */
struct keg_file {
    const struct env_ops *ops;
};
struct keg_env {
    const struct env_ops *ops;
};

enum env_how {
    ENV_READ,     /* for reading */
    ENV_APPEND,   /* for reading and going on appending */
    ENV_UNCACHED, /* for reading what the medium holds: past the page cache, or after having it
                     written back and dropped */
};

struct env_space {
    uint64_t total, free; /* bytes of the filesystem; free ones that this process may take */
};

struct env_ops {
    void (*destroy)(struct keg_env *env);

    /* A new, empty file for reading and appending; -EEXIST. The name is durable only after
     * sync_names. All that take a name give -EINVAL for one that env_name_ok refuses; all that
     * change something give -EROFS under a shared lock. */
    int (*create)(struct keg_env *env, const char *name, struct keg_file **out);
    /* -ENOENT; -EINVAL: no regular file; -EIO, -EMFILE, -ENOMEM, -EACCES. */
    int (*open)(struct keg_env *env, const char *name, enum env_how how, struct keg_file **out);
    void (*close)(struct keg_file *file);

    /* Writes all of iov (count 1..ENV_IOV_MAX) at byte `at`, which is the end of what was appended
     * so far; what an earlier, failed append or pre-zeroing left there is overwritten. -ENOSPC,
     * -EDQUOT, -EFBIG or -EIO: any part of it may have been written. */
    int (*append)(struct keg_file *file, uint64_t at, const struct iovec *iov, int count);

    /* What was appended before the call, and the size, are durable. Never retried after a
     * failure. */
    int (*sync)(struct keg_file *file);

    /* Cuts the file to length bytes (at most its size) and makes it durable. An append may follow,
     * at length or before it. Never retried after a failure. */
    int (*seal)(struct keg_file *file, uint64_t length);

    /* Bytes from offset on, into the buffers of iov (count 1..ENV_IOV_MAX) one after the other,
     * which may overlap; returns how many, fewer than all only at the end of the file. -EIO is the
     * one code for bytes that cannot be read, whatever the system calls it: those who read around
     * such places know them by it. Any other error (-ENOMEM, -EINVAL) says nothing of the bytes.
     * After an error the buffers may hold anything. */
    ssize_t (*read)(struct keg_file *file, uint64_t offset, const struct iovec *iov, int count);
    int (*size)(struct keg_file *file, uint64_t *size);

    /* The synced file `from` becomes `to`, replacing what was there, atomically and durably. */
    int (*publish)(struct keg_env *env, const char *from, const char *to);
    int (*remove)(struct keg_env *env, const char *name); /* -ENOENT */
    /* All names are durable. Once this, or a publish on its way, has failed to make names durable,
     * any that were not may be lost for ever: both give -EIO from then on, whoever asks, for the
     * life of the environment, and do nothing. */
    int (*sync_names)(struct keg_env *env);

    /* Calls fn for each regular file but LOCK and names that env_name_ok refuses, in no order.
     * fn's non-0 return ends it and is returned. fn may remove and create files; those created
     * meanwhile may be met or not. */
    int (*list)(struct keg_env *env, int (*fn)(void *arg, const char *name), void *arg);

    /* Takes the lock for the life of the environment or until unlock, and writes "PID OWNER" with
     * it (owner NULL: "-"; it ends at a newline). -EBUSY: held by another, or already by this
     * environment. Dies with the process. Where LOCK is there but may only be read, the lock is
     * shared among readers, and everything that changes a file gives -EROFS; holder then says
     * "0 -". -EROFS, -EACCES: no LOCK there and none can be made. */
    int (*lock)(struct keg_env *env, const char *owner);
    void (*unlock)(struct keg_env *env);
    int (*holder)(struct keg_env *env, char *text, size_t size); /* as keg_holder */

    int (*space)(struct keg_env *env, struct env_space *space);

    /* Nanoseconds of a clock that never goes back, for intervals only: clocks order nothing. */
    uint64_t (*clock)(struct keg_env *env);

    /* len random bytes, for ids and secrets. */
    int (*random)(struct keg_env *env, void *buf, size_t len);
};

#define ENV_LOCK_NAME "LOCK"
enum { ENV_IOV_MAX = 1024, ENV_NAME_MAX = 63 }; /* bytes of a name, without its NUL */

static inline KEG_CHECKED int env_create(struct keg_env *env, const char *name,
                                         struct keg_file **out)
{
    return env->ops->create(env, name, out);
}

static inline KEG_CHECKED int env_open(struct keg_env *env, const char *name, enum env_how how,
                                       struct keg_file **out)
{
    return env->ops->open(env, name, how, out);
}

/* NULL is allowed. */
static inline void env_close(struct keg_file *file)
{
    if (file)
        file->ops->close(file);
}

static inline KEG_CHECKED int env_append(struct keg_file *file, uint64_t at,
                                         const struct iovec *iov, int count)
{
    return file->ops->append(file, at, iov, count);
}

static inline KEG_CHECKED int env_sync(struct keg_file *file)
{
    return file->ops->sync(file);
}

static inline KEG_CHECKED int env_seal(struct keg_file *file, uint64_t length)
{
    return file->ops->seal(file, length);
}

static inline KEG_CHECKED ssize_t env_read(struct keg_file *file, uint64_t offset, void *buf,
                                           size_t len)
{
    const struct iovec iov = {buf, len};

    return file->ops->read(file, offset, &iov, 1);
}

static inline KEG_CHECKED ssize_t env_readv(struct keg_file *file, uint64_t offset,
                                            const struct iovec *iov, int count)
{
    return file->ops->read(file, offset, iov, count);
}

static inline KEG_CHECKED int env_size(struct keg_file *file, uint64_t *size)
{
    return file->ops->size(file, size);
}

static inline KEG_CHECKED int env_publish(struct keg_env *env, const char *from, const char *to)
{
    return env->ops->publish(env, from, to);
}

static inline KEG_CHECKED int env_remove(struct keg_env *env, const char *name)
{
    return env->ops->remove(env, name);
}

static inline KEG_CHECKED int env_sync_names(struct keg_env *env)
{
    return env->ops->sync_names(env);
}

static inline KEG_CHECKED int env_list(struct keg_env *env, int (*fn)(void *arg, const char *name),
                                       void *arg)
{
    return env->ops->list(env, fn, arg);
}

static inline KEG_CHECKED int env_lock(struct keg_env *env, const char *owner)
{
    return env->ops->lock(env, owner);
}

static inline void env_unlock(struct keg_env *env)
{
    env->ops->unlock(env);
}

static inline KEG_CHECKED int env_space(struct keg_env *env, struct env_space *space)
{
    return env->ops->space(env, space);
}

static inline uint64_t env_clock(struct keg_env *env)
{
    return env->ops->clock(env);
}

static inline KEG_CHECKED int env_random(struct keg_env *env, void *buf, size_t len)
{
    return env->ops->random(env, buf, len);
}

/* env.c: what the operations give together. keg_env_free and keg_holder are there, too. */

/* Reads exactly len bytes; a file that ends before is -EBADMSG. */
KEG_CHECKED int env_read_all(struct keg_file *file, uint64_t offset, void *buf, size_t len);

/* Replaces the file `name` by these bytes, atomically and durably, through "NAME.tmp". */
KEG_CHECKED int env_replace(struct keg_env *env, const char *name, const void *data, size_t len);

/* Reads the whole file into memory that the caller frees; -EFBIG over limit bytes. */
KEG_CHECKED int env_slurp(struct keg_env *env, const char *name, size_t limit, uint8_t **data,
                          size_t *len);

/* Whether name can be a file's: 1..ENV_NAME_MAX bytes, no '/', no leading '.', not LOCK. */
KEG_CHECKED bool env_name_ok(const char *name);

/*
 * env_mem.c: an environment in memory, empty; for tests and benchmarks (meson: keg_test). Several
 * stores can be opened on it one after another, and a second at a time meets -EBUSY. Its clock goes
 * on by 1 us a call. capacity: bytes its files may take in all, 0 for no limit; -ENOMEM.
 */
KEG_CHECKED int env_mem(uint64_t capacity, struct keg_env **out);

#endif
