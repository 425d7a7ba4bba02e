/* SPDX-License-Identifier: MIT */
/*
 * Replies. Each sends exactly one and uses up the request. err is 0 or -errno; what follows it is
 * only looked at when err is 0. Any thread; but reply_buffer's memory is the thread's.
 */
#ifndef REPLY_H
#define REPLY_H

#include "fuse_ops.h"
#include <fuse_lowlevel.h>
#include <string.h>

/* Seconds; the kernel may keep what it was told for as long as it likes. */
enum { REPLY_FOREVER = 1000000000 };

static inline struct keg_bytes reply_name(const char *name)
{
    return (struct keg_bytes){name, strlen(name)};
}

/* At least size bytes, valid until the thread asks again; NULL without memory. */
void *reply_buffer(size_t size);

/* After a change with result err: with the option sync, makes it durable. Returns the result. */
KEG_CHECKED int reply_durable(struct fuse_ops_daemon *daemon, int err, uint64_t ino);

/* The same after one that counted a lookup, which it gives back when it fails. */
KEG_CHECKED int reply_durable_entry(struct fuse_ops_daemon *daemon, int err,
                                    const struct volume_attr *attr);

/* What the kernel is told of an inode. */
void reply_fill(struct fuse_entry_param *entry, const struct volume_attr *attr);

void reply_done(fuse_req_t req, int err);
/* These two count a lookup and give it back when the kernel does not take the reply; the second
 * says whether it did. */
void reply_entry_of(fuse_req_t req, int err, const struct volume_attr *attr);
bool reply_create_of(fuse_req_t req, int err, const struct volume_attr *attr,
                     struct fuse_file_info *fi);
void reply_absent(fuse_req_t req); /* the name is not there, to be kept */
void reply_attr_of(fuse_req_t req, int err, const struct volume_attr *attr);
void reply_target(fuse_req_t req, ssize_t n, const char *target);
void reply_data(fuse_req_t req, ssize_t n, const void *data);
void reply_written(fuse_req_t req, ssize_t n);
/* Attributes: with size 0 only the length n is told, else the n bytes. */
void reply_sized(fuse_req_t req, ssize_t n, const void *data, size_t size);
void reply_statfs_of(fuse_req_t req, int err, const struct volume_statfs *fs);

void reply_control_attr(fuse_req_t req, uint64_t ino);
void reply_control_read(fuse_req_t req, uint64_t ino, uint64_t offset, size_t size);
void reply_control_entry(fuse_req_t req, int err, const struct stat *st);

#endif
