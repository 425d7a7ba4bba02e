/* SPDX-License-Identifier: MIT */
/* The handlers that list directories. Stateless: a cookie holds for the directory's life. */
#ifndef LISTING_H
#define LISTING_H

#include "fuse_ops.h"
#include <fuse_lowlevel.h>

void listing_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void listing_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                  struct fuse_file_info *fi);
void listing_readplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                      struct fuse_file_info *fi);

#endif
