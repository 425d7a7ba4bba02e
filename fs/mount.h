/* SPDX-License-Identifier: MIT */
/* Mounts a store and serves it, from the checks before to the close after. */
#ifndef MOUNT_H
#define MOUNT_H

#include "mount_options.h"

/*
 * Returns an exit code. Without `foreground`, the calling process returns when the mount answers
 * and its child serves it; with it, when the file system is unmounted.
 */
KEG_CHECKED int mount_run(const struct mount_options *options);

#endif
