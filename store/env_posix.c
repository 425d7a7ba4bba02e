/* SPDX-License-Identifier: MIT */
/*
 * The POSIX environment: a directory of a local filesystem. The one file with system calls on a
 * store's files, but for the lock's in lockfile.c.
 *
 * The directory is opened once; everything else goes through *at calls on that descriptor, so a
 * store may be mounted over, and its path renamed, while it is in use. Symbolic links are never
 * followed below it, and what is no regular file is refused.
 *
 * Durability. sync is fdatasync: it covers the size, because a file's new size is needed to read
 * its data. seal uses fsync, since what filesystems do with fdatasync after a cut is less clear and
 * sealing is rare. Names become durable with fsync of the directory. A failed sync is reported once
 * by the kernel, which then takes the pages for clean: nothing here tries again. A file's failure
 * is known to whoever uses the file. The directory is shared, and whoever syncs it next would be
 * told that all is well, of names that are lost: so the environment remembers that it failed.
 *
 * ENV_UNCACHED. O_DIRECT reads the medium whatever the page cache says. It needs aligned buffers,
 * so each read goes through one. Where a filesystem refuses it, or says that it would read through
 * the cache, the file is written back (an error of that is the open's error) and its pages are
 * dropped; that is advice to the kernel, so it is second best.
 *
 * Under a shared lock (lockfile.h) the environment refuses every change with -EROFS, so that two
 * sharers cannot both write.
 */
#include "env.h"
#include "env_posix_read.h"
#include "lockfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    DIRECT_ALIGN = 4096,                              /* bytes; enough for nearly every device */
    FILE_FLAGS = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, /* the last for a FIFO put in our way */
};

struct posix_env {
    struct keg_env env;
    int dir;
    atomic_bool shared;    /* the lock is a shared one: nothing may be changed */
    pthread_mutex_t mutex; /* for what follows */
    int lock;              /* LOCK's descriptor while it is held, else -1 */
    bool names_failed;     /* a sync of the directory has failed; sticks */
};

struct posix_file {
    struct keg_file file;
    int fd;
    size_t align; /* bytes, for O_DIRECT; 0: reads go through the page cache */
};

static const struct env_ops posix_ops;

static struct posix_env *env_of(struct keg_env *env)
{
    return (struct posix_env *)env;
}

static struct posix_file *file_of(struct keg_file *file)
{
    return (struct posix_file *)file;
}

/* Whether a name may be changed: 0, -EINVAL, -EROFS. */
static int may_change(struct posix_env *env, const char *name)
{
    if (!env_name_ok(name))
        return -EINVAL;
    return atomic_load(&env->shared) ? -EROFS : 0;
}

/* ---- Files ---- */

/* A regular file's descriptor, or a negative errno. */
static int open_regular(struct posix_env *env, const char *name, int flags)
{
    struct stat st;
    int fd, rc = 0;

    do
        fd = openat(env->dir, name, flags | FILE_FLAGS, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st))
        rc = -errno;
    else if (!S_ISREG(st.st_mode))
        rc = -EINVAL;
    if (rc)
        close(fd);
    return rc ? rc : fd;
}

/* Takes fd over, also when it fails. */
static int file_new(int fd, size_t align, struct keg_file **out)
{
    struct posix_file *file = malloc(sizeof *file);

    if (!file) {
        close(fd);
        return -ENOMEM;
    }
    *file = (struct posix_file){.file.ops = &posix_ops, .fd = fd, .align = align};
    *out = &file->file;
    return 0;
}

static int posix_create(struct keg_env *e, const char *name, struct keg_file **out)
{
    struct posix_env *env = env_of(e);
    int fd, rc = may_change(env, name);

    if (rc)
        return rc;
    fd = open_regular(env, name, O_RDWR | O_CREAT | O_EXCL);
    if (fd < 0)
        return fd;
    rc = file_new(fd, 0, out);
    if (rc)
        unlinkat(env->dir, name, 0);
    return rc;
}

/* What O_DIRECT on fd needs offsets, lengths and buffers aligned to; 0: it does not work here. */
static size_t direct_align(int fd)
{
    size_t align = DIRECT_ALIGN;
    void *probe;
    ssize_t n;
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) && (stx.stx_mask & STATX_DIOALIGN)) {
        size_t want = stx.stx_dio_mem_align > stx.stx_dio_offset_align ? stx.stx_dio_mem_align
                                                                       : stx.stx_dio_offset_align;

        if (stx.stx_dio_offset_align == 0 || want > ENV_POSIX_READ_BOUNCE / 2 ||
            (want & (want - 1)))
            return 0;
        if (want > align)
            align = want;
    }
#endif
    if (posix_memalign(&probe, align, align))
        return 0;
    n = pread(fd, probe, align, 0);
    free(probe);
    return n < 0 && errno == EINVAL ? 0 : align;
}

/* Writes the file back and has its pages dropped. */
static int drop_cache(int fd)
{
    if (fdatasync(fd))
        return -errno;
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int open_uncached(struct posix_env *env, const char *name, struct keg_file **out)
{
    int rc, fd = open_regular(env, name, O_RDONLY | O_DIRECT);
    size_t align;

    if (fd >= 0) {
        align = direct_align(fd);
        if (align)
            return file_new(fd, align, out);
        close(fd);
    } else if (fd != -EINVAL && fd != -EOPNOTSUPP) {
        return fd;
    }
    fd = open_regular(env, name, O_RDONLY);
    if (fd < 0)
        return fd;
    rc = drop_cache(fd);
    if (rc) {
        close(fd);
        return rc;
    }
    return file_new(fd, 0, out);
}

static int posix_open(struct keg_env *e, const char *name, enum env_how how, struct keg_file **out)
{
    struct posix_env *env = env_of(e);
    int fd, rc;

    if (!env_name_ok(name))
        return -EINVAL;
    if (how == ENV_UNCACHED)
        return open_uncached(env, name, out);
    if (how == ENV_APPEND) {
        rc = may_change(env, name);
        if (rc)
            return rc;
    }
    fd = open_regular(env, name, how == ENV_APPEND ? O_RDWR : O_RDONLY);
    return fd < 0 ? fd : file_new(fd, 0, out);
}

static void posix_close(struct keg_file *f)
{
    struct posix_file *file = file_of(f);

    close(file->fd);
    free(file);
}

static int write_all(int fd, const char *p, size_t len, off_t at)
{
    while (len) {
        ssize_t n = pwrite(fd, p, len, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
        at += n;
    }
    return 0;
}

static int posix_append(struct keg_file *f, uint64_t at, const struct iovec *iov, int count)
{
    struct posix_file *file = file_of(f);

    while (count > 0) {
        ssize_t n;
        int rc;

        if (at > INT64_MAX)
            return -EFBIG;
        n = pwritev(file->fd, iov, count < ENV_IOV_MAX ? count : ENV_IOV_MAX, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += (uint64_t)n;
        for (; count > 0 && (size_t)n >= iov->iov_len; iov++, count--)
            n -= (ssize_t)iov->iov_len;
        if (count == 0)
            break;
        /* A short write: finish the piece it ended in, then go on with the next. */
        rc = write_all(file->fd, (const char *)iov->iov_base + n, iov->iov_len - (size_t)n,
                       (off_t)at);
        if (rc)
            return rc;
        at += iov->iov_len - (size_t)n;
        iov++;
        count--;
    }
    return 0;
}

static int posix_sync(struct keg_file *f)
{
    return fdatasync(file_of(f)->fd) ? -errno : 0;
}

static int posix_size(struct keg_file *f, uint64_t *size)
{
    struct stat st;

    if (fstat(file_of(f)->fd, &st))
        return -errno;
    *size = (uint64_t)st.st_size;
    return 0;
}

static int posix_seal(struct keg_file *f, uint64_t length)
{
    int fd = file_of(f)->fd;
    uint64_t size;
    int rc = posix_size(f, &size);

    if (!rc && length > size)
        rc = -EINVAL;
    if (!rc && (ftruncate(fd, (off_t)length) || fsync(fd)))
        rc = -errno;
    return rc;
}

static ssize_t posix_read(struct keg_file *f, uint64_t offset, const struct iovec *iov, int count)
{
    return env_posix_read(file_of(f)->fd, file_of(f)->align, offset, iov, count);
}

/* ---- Names ---- */

/* A filesystem that knows no fsync of a directory says EINVAL; it has nothing better to offer. */
static int sync_dir(int fd)
{
    return fsync(fd) && errno != EINVAL ? -errno : 0;
}

/* The mutex is held meanwhile, so that no other sync comes between a failure and the note of it. */
static int sync_names(struct posix_env *env)
{
    int rc = -EIO;

    pthread_mutex_lock(&env->mutex);
    if (!env->names_failed)
        rc = sync_dir(env->dir);
    env->names_failed = rc != 0;
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static bool names_failed(struct posix_env *env)
{
    bool failed;

    pthread_mutex_lock(&env->mutex);
    failed = env->names_failed;
    pthread_mutex_unlock(&env->mutex);
    return failed;
}

static int posix_publish(struct keg_env *e, const char *from, const char *to)
{
    struct posix_env *env = env_of(e);
    int rc = may_change(env, from);

    if (!rc)
        rc = may_change(env, to);
    if (!rc && names_failed(env))
        rc = -EIO;
    if (rc)
        return rc;
    if (renameat(env->dir, from, env->dir, to))
        return -errno;
    return sync_names(env);
}

static int posix_remove(struct keg_env *e, const char *name)
{
    struct posix_env *env = env_of(e);
    int rc = may_change(env, name);

    if (rc)
        return rc;
    return unlinkat(env->dir, name, 0) ? -errno : 0;
}

static int posix_sync_names(struct keg_env *e)
{
    return sync_names(env_of(e));
}

static bool is_regular(DIR *dir, const struct dirent *entry)
{
    struct stat st;

    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_REG;
    return !fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode);
}

static int posix_list(struct keg_env *e, int (*fn)(void *arg, const char *name), void *arg)
{
    int rc = 0, fd = openat(env_of(e)->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir;

    if (fd < 0)
        return -errno;
    dir = fdopendir(fd);
    if (!dir) {
        rc = -errno;
        close(fd);
        return rc;
    }
    while (!rc) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            rc = -errno;
            break;
        }
        if (env_name_ok(entry->d_name) && is_regular(dir, entry))
            rc = fn(arg, entry->d_name);
    }
    closedir(dir);
    return rc;
}

/* ---- The lock ---- */

static int posix_lock(struct keg_env *e, const char *owner)
{
    struct posix_env *env = env_of(e);
    bool shared = false;
    int fd = -EBUSY;

    pthread_mutex_lock(&env->mutex);
    if (env->lock < 0)
        fd = lockfile_take(env->dir, owner, &shared);
    if (fd >= 0) {
        env->lock = fd;
        atomic_store(&env->shared, shared);
    }
    pthread_mutex_unlock(&env->mutex);
    return fd < 0 ? fd : 0;
}

static void posix_unlock(struct keg_env *e)
{
    struct posix_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    if (env->lock >= 0)
        close(env->lock);
    env->lock = -1;
    atomic_store(&env->shared, false);
    pthread_mutex_unlock(&env->mutex);
}

static int posix_holder(struct keg_env *e, char *text, size_t size)
{
    return lockfile_holder(env_of(e)->dir, text, size);
}

/* ---- The environment ---- */

static int posix_space(struct keg_env *e, struct env_space *space)
{
    struct statvfs vfs;

    if (fstatvfs(env_of(e)->dir, &vfs))
        return -errno;
    *space = (struct env_space){.total = (uint64_t)vfs.f_blocks * vfs.f_frsize,
                                .free = (uint64_t)vfs.f_bavail * vfs.f_frsize};
    return 0;
}

static uint64_t posix_clock(struct keg_env *e)
{
    struct timespec now = {0};

    (void)e;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int posix_random(struct keg_env *e, void *buf, size_t len)
{
    size_t done = 0;

    (void)e;
    while (done < len) {
        ssize_t n = getrandom((char *)buf + done, len - done, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    return 0;
}

static void posix_destroy(struct keg_env *e)
{
    struct posix_env *env = env_of(e);

    if (env->lock >= 0)
        close(env->lock);
    close(env->dir);
    pthread_mutex_destroy(&env->mutex);
    free(env);
}

static const struct env_ops posix_ops = {
    .destroy = posix_destroy,
    .create = posix_create,
    .open = posix_open,
    .close = posix_close,
    .append = posix_append,
    .sync = posix_sync,
    .seal = posix_seal,
    .read = posix_read,
    .size = posix_size,
    .publish = posix_publish,
    .remove = posix_remove,
    .sync_names = posix_sync_names,
    .list = posix_list,
    .lock = posix_lock,
    .unlock = posix_unlock,
    .holder = posix_holder,
    .space = posix_space,
    .clock = posix_clock,
    .random = posix_random,
};

/* Makes the name of a directory just made durable; by way of ".." it is the right parent, whatever
 * links the path went through. A parent that may not be read is synced with all its filesystem. */
static int sync_parent(int dir)
{
    int rc, parent = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (parent < 0)
        return syncfs(dir) ? -errno : 0;
    rc = sync_dir(parent);
    close(parent);
    return rc;
}

int keg_env_posix(const char *dir, bool create, struct keg_env **out)
{
    struct posix_env *env;
    bool made = false;
    int fd, rc = 0;

    if (create) {
        made = !mkdir(dir, 0700);
        /* On a read-only filesystem a directory that is there may still give EROFS, not EEXIST. */
        if (!made && errno != EEXIST && errno != EROFS)
            return -errno;
    }
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (made)
        rc = sync_parent(fd);
    env = rc ? NULL : malloc(sizeof *env);
    if (!env) {
        close(fd);
        return rc ? rc : -ENOMEM;
    }
    *env = (struct posix_env){.env.ops = &posix_ops, .dir = fd, .lock = -1};
    rc = -pthread_mutex_init(&env->mutex, NULL);
    if (rc) {
        close(fd);
        free(env);
        return rc;
    }
    *out = &env->env;
    return 0;
}
