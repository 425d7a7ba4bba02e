/* SPDX-License-Identifier: MIT */
/*
 * It is an OFD lock, or flock on kernels without. Both belong to the open file, not to the process:
 * a second environment in one process conflicts, and no close of another descriptor drops it, as it
 * would with POSIX locks. We change to flock only where the kernel has no OFD locks at all, never
 * on an error that may pass: two processes using two kinds of lock would not see each other.
 *
 * LOCK is never removed by us. Should somebody else remove it, the next process would lock a new
 * file while the old one is still held; so after locking we look whether it is still the one under
 * that name. (That helps the process that waits while it happens. Nothing helps against removing
 * the LOCK of a mounted store.)
 *
 * Where LOCK cannot be opened for writing (a read-only filesystem, another user's store) the lock
 * is a shared one: any number of readers, no writer.
 */
#include "lockfile.h"
#include "env.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TEXT_MAX = 32 + 4096, /* bytes of LOCK: a pid and a path */
    TRIES = 8,            /* times LOCK may vanish under us before we say -EBUSY */
};

/* The last flag is for a FIFO put in our way. */
static int open_lock(int dir, int flags)
{
    int fd = openat(dir, ENV_LOCK_NAME, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    struct stat st;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return -EINVAL;
    }
    return fd;
}

static int lock_file(int fd, bool shared)
{
    struct flock lock = {.l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (!fcntl(fd, F_OFD_SETLK, &lock))
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return -EBUSY;
    if (errno != EINVAL)
        return -errno;
    if (!flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB))
        return 0;
    return errno == EWOULDBLOCK ? -EBUSY : -errno;
}

/* F_WRLCK, F_RDLCK: somebody holds it so; F_UNLCK: nobody; or a negative errno. The flock way takes
 * it for a moment, until fd is closed. */
static int probe(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (!fcntl(fd, F_OFD_GETLK, &lock))
        return lock.l_type;
    if (errno != EINVAL)
        return -errno;
    if (!flock(fd, LOCK_EX | LOCK_NB))
        return F_UNLCK;
    return errno == EWOULDBLOCK ? F_WRLCK : -errno;
}

/* Whether fd is still the file that the next one to lock would open. */
static bool is_current(int dir, int fd)
{
    struct stat mine, there;

    return !fstat(fd, &mine) && !fstatat(dir, ENV_LOCK_NAME, &there, AT_SYMLINK_NOFOLLOW) &&
           mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

/* -ESTALE: LOCK was removed meanwhile. */
static int open_and_lock(int dir, bool *shared)
{
    int rc, fd = open_lock(dir, O_RDWR | O_CREAT);

    *shared = fd == -EROFS || fd == -EACCES;
    if (*shared) {
        int reason = fd;

        fd = open_lock(dir, O_RDONLY);
        if (fd == -ENOENT)
            fd = reason;
    }
    if (fd < 0)
        return fd;
    rc = lock_file(fd, *shared);
    if (!rc && !is_current(dir, fd))
        rc = -ESTALE;
    if (rc)
        close(fd);
    return rc ? rc : fd;
}

/*
 * Says who holds the lock. It is for people and for commands that look for the mount: failing to
 * write it (the disk may be full) must not keep the store shut. Written over the old text before
 * the file is cut, because a full disk may not give a block back once it was freed.
 */
static void write_owner(int fd, const char *owner)
{
    char text[TEXT_MAX + 1];
    const char *name = owner && *owner ? owner : "-";
    int n =
        snprintf(text, sizeof text, "%ld %.*s\n", (long)getpid(), (int)strcspn(name, "\n"), name);

    if (n < 0 || (size_t)n >= sizeof text || pwrite(fd, text, (size_t)n, 0) != n)
        n = 0;
    if (ftruncate(fd, n)) {
        /* The text ends at its newline anyway. */
    }
}

int lockfile_take(int dir, const char *owner, bool *shared)
{
    int fd = -ESTALE;

    for (int i = 0; fd == -ESTALE && i < TRIES; i++)
        fd = open_and_lock(dir, shared);
    if (fd == -ESTALE)
        return -EBUSY;
    if (fd >= 0 && !*shared)
        write_owner(fd, owner);
    return fd;
}

int lockfile_holder(int dir, char *text, size_t size)
{
    char buf[TEXT_MAX + 1] = "";
    char *end;
    int held, fd = open_lock(dir, O_RDONLY);
    ssize_t n = 0;

    if (fd < 0)
        return fd;
    held = probe(fd);
    if (held == F_WRLCK)
        n = pread(fd, buf, sizeof buf - 1, 0);
    if (n < 0)
        held = -errno;
    close(fd);
    if (held < 0)
        return held;
    if (held == F_UNLCK)
        return -ENOENT;
    end = strchr(buf, '\n');
    if (end)
        *end = '\0';
    snprintf(text, size, "%s", end ? buf : "0 -");
    return 0;
}
