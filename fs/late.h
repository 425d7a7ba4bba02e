/* SPDX-License-Identifier: MIT */
/* Handlers that hand their work to the workers, whose thread replies: syncs and the control
 * directory's commands. */
#ifndef LATE_H
#define LATE_H

#include "fuse_ops.h"
#include <fuse_lowlevel.h>

void late_begin(struct fuse_ops_daemon *daemon);
void late_end(struct fuse_ops_daemon *daemon);

/* Those that come while a sync is under way are all answered by the next one. */
void late_sync(fuse_req_t req, uint64_t ino);
/* Answers 0 to a request once the kernel has forgotten what it cached of the inode. */
void late_invalidate(fuse_req_t req, uint64_t ino);
/* Answers LSEEK, whence SEEK_DATA or SEEK_HOLE, once stores through shared mappings into what is a
 * hole as far as the volume knows have come here. While many are under way: that all is data. */
void late_seek(fuse_req_t req, uint64_t ino, uint64_t offset, int whence);
void late_lookup(fuse_req_t req, uint64_t dir, const char *name); /* in the control directory */
void late_write(fuse_req_t req, uint64_t ino, const char *command, size_t len);
void late_setxattr(fuse_req_t req, const char *name);

#endif
