/* SPDX-License-Identifier: MIT */
/* In place of transport_uring.c where there is no liburing: there are never any rings. */
#include "transport_internal.h"
#include <errno.h>

int transport_uring_new(struct transport *t, struct transport_uring **out)
{
    (void)t;
    *out = NULL;
    return -ENOSYS;
}

void transport_uring_go(struct transport_uring *uring)
{
    (void)uring;
}

bool transport_uring_serves(const struct transport_uring *uring)
{
    (void)uring;
    return false;
}

void transport_uring_stop(struct transport_uring *uring, bool gone)
{
    (void)uring;
    (void)gone;
}

void transport_uring_free(struct transport_uring *uring)
{
    (void)uring;
}

bool transport_uring_reply(struct transport_uring *uring, const struct iovec *iov, int count)
{
    (void)uring;
    (void)iov;
    (void)count;
    return false;
}

void *transport_uring_room(size_t size)
{
    (void)size;
    return NULL;
}
