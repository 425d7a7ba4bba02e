/* SPDX-License-Identifier: MIT */
/* The requests that libfuse 3.14 does not know and would answer ENOSYS: TMPFILE (open(2) with
 * O_TMPFILE) and STATX (statx(2) that asks for the time of birth). */
#ifndef EXTRA_H
#define EXTRA_H

#include "fuse_ops.h"
#include <sys/uio.h>

/* Gives a reply to the kernel, as libfuse's are given. 0 or -errno: it was not taken. */
typedef int extra_reply_fn(void *arg, struct iovec *iov, int count);

/*
 * Is the request, as it came from the kernel, one of these? If so it is answered, through `reply`,
 * once, before this returns. Any thread, whatever brought the request; `request` may be unaligned.
 */
bool extra_handle(struct fuse_ops_daemon *daemon, const void *request, size_t len,
                  extra_reply_fn *reply, void *arg);

#endif
