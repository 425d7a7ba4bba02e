/* SPDX-License-Identifier: MIT */
/* How the POSIX environment reads: with one call where the system lets it. */
#ifndef ENV_POSIX_READ_H
#define ENV_POSIX_READ_H

#include "env.h"

enum { ENV_POSIX_READ_BOUNCE = 1 << 20 }; /* bytes of the buffer of one O_DIRECT read */

/* As env_ops.read, from a descriptor. align: bytes that reads must be aligned to (O_DIRECT); 0:
 * they go through the page cache. */
KEG_CHECKED ssize_t env_posix_read(int fd, size_t align, uint64_t offset, const struct iovec *iov,
                                   int count);

#endif
