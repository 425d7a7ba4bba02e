/* SPDX-License-Identifier: MIT */
/* What must hold before a store is mounted. Each thing that does not is said in one line. */
#ifndef MOUNT_CHECK_H
#define MOUNT_CHECK_H

#include "mount_options.h"
#include <limits.h>

struct mount_paths {
    char store[PATH_MAX], mountpoint[PATH_MAX]; /* real paths; the store need not exist yet */
};

/* Resolves the paths, clears a dead mount of ours off the mountpoint (and says so), and looks at
 * the mountpoint, at how it lies to the store, and at /dev/fuse. False when it may not be mounted.
 */
KEG_CHECKED bool mount_check(const struct mount_options *options, struct mount_paths *paths);

#endif
