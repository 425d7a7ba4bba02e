/* SPDX-License-Identifier: MIT */
/*
 * What is mounted where (/proc/self/mountinfo), and unmounting. Any thread. Knows no FUSE.
 */
#ifndef MOUNTS_H
#define MOUNTS_H

#include "keg.h"
#include <limits.h>

#define MOUNTS_TYPE "fuse.kegfs"

struct mounts_entry {
    char point[PATH_MAX];  /* mountpoint */
    char source[PATH_MAX]; /* of ours: the store's real path */
    char type[64];
    uint32_t user; /* of a FUSE: who mounted it */
};

/* The topmost mount at exactly this real path. -ENOENT when nothing is mounted there; -EIO, -ENOMEM
 * and what open(2) gives when the table cannot be read. */
KEG_CHECKED int mounts_at(const char *path, struct mounts_entry *out);

/* Is a kegfs of this store (its real path) mounted at this real path? */
bool mounts_is_ours(const char *path, const char *store);

/* Has the daemon that serves this mountpoint died? (Attributes may still come from the kernel's
 * cache then, so stat(2) does not tell.) Asks the daemon, if there is one. */
bool mounts_is_dead(const char *path);

/*
 * The absolute path without symbolic links, of something that need not exist (its parent must) and
 * may be a mountpoint whose daemon is dead. buf has PATH_MAX bytes. -errno as realpath(3).
 */
KEG_CHECKED int mounts_realpath(const char *path, char *buf);

/* Is a the same as or inside b? Both are real paths. */
bool mounts_inside(const char *a, const char *b);

/* Gives what is mounted there these flags (MS_RDONLY, MS_NODEV, ...) in place of those it has.
 * -EPERM without root's rights, and what mount(2) gives. */
KEG_CHECKED int mounts_remount(const char *path, unsigned long flags);

/* The control file of a mount, to be told a command; root: a directory, or AT_FDCWD with the
 * mountpoint before the name. What open(2) gives: -ENOTCONN dead, -EACCES another user's, -EROFS.
 */
KEG_CHECKED int mounts_open_control(int root, const char *path);
/* Writes the command to it and closes it. Returns when the command is done, with its error. */
KEG_CHECKED int mounts_tell(int control, const char *command);

/* Unmounts; lazy: detaches at once though it is in use. Without root's rights fusermount3 does it.
 * -EBUSY, -EPERM, -EINVAL (nothing mounted there), and what umount2(2) gives. */
KEG_CHECKED int mounts_unmount(const char *path, bool lazy);

#endif
