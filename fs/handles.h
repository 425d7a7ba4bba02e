/* SPDX-License-Identifier: MIT */
/* OPEN, FLUSH and RELEASE of files: refused, but with the option commit=close. */
#ifndef HANDLES_H
#define HANDLES_H

#include "fuse_ops.h"
#include <fuse_lowlevel.h>

void handles_begin(struct fuse_ops_daemon *daemon);
/* When no request can come any more. Those that are open then are given back by nobody. */
void handles_end(struct fuse_ops_daemon *daemon);
void handles_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void handles_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void handles_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* A WRITE is being handled: who wrote last decides whose close is the last. */
void handles_wrote(fuse_req_t req, const struct fuse_file_info *fi);

/* A file was made and is being opened by a thread of this number: fills in its handle. Does not
 * reply. */
KEG_CHECKED int handles_created(struct fuse_ops_daemon *daemon, pid_t thread, uint64_t ino,
                                struct fuse_file_info *fi);
/* Gives a handle back that the kernel did not take, or has no more. */
int handles_close(struct fuse_ops_daemon *daemon, uint64_t ino, const struct fuse_file_info *fi);

#endif
