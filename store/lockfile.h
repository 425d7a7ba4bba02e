/* SPDX-License-Identifier: MIT */
/*
 * The lock of a store directory: the file LOCK, locked for the life of a descriptor. Its text says
 * who holds it. Part of env_posix.c, which keeps the descriptor. Safe to call from any thread.
 */
#ifndef LOCKFILE_H
#define LOCKFILE_H

#include "keg.h"

/*
 * Takes the lock in directory dir, made if need be, and writes "PID OWNER\n" (owner may be NULL;
 * it ends at a newline). Returns a descriptor whose closing lets it go.
 * *shared: LOCK may only be read, so others may hold it like this, but nobody to write.
 * -EBUSY: held by another descriptor of this or any process; -EINVAL: LOCK is no regular file;
 * -EROFS, -EACCES: it is not there and cannot be made, or may not even be read; what open(2) gives.
 */
KEG_CHECKED int lockfile_take(int dir, const char *owner, bool *shared);

/* As keg_holder; "0 -" if the lock is shared, or its holder has not yet said who it is. */
KEG_CHECKED int lockfile_holder(int dir, char *text, size_t size);

#endif
