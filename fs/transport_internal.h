/* SPDX-License-Identifier: MIT */
/* What the transports share. */
#ifndef TRANSPORT_INTERNAL_H
#define TRANSPORT_INTERNAL_H

#include "transport.h"
#include <sys/uio.h>

enum {
    TRANSPORT_PAYLOAD = 1 << 20, /* max_write, and the most that a reply carries */
    TRANSPORT_HEAD = 40 + 128,   /* the most that comes before it: header and arguments */
};

/* ---- transport.c: for the transports ---- */

/* Handles a request, in one piece, 8-byte aligned and valid until this returns. */
void transport_serve(struct transport *t, void *message, size_t len);
/* Must the request be given to a worker, because its handler waits for the disk? */
bool transport_waits(const struct transport *t, const void *message, size_t len);

/* ---- transport_device.c ---- */

/* Serves /dev/fuse: everything, or what does not come over the rings. 0 or -errno. */
KEG_CHECKED int transport_device_loop(struct transport *t);

/* ---- transport_uring.c, or transport_nouring.c in its place ---- */

/* Makes the rings and their threads, which then wait for transport_uring_go. -errno. */
KEG_CHECKED int transport_uring_new(struct transport *t, struct transport_uring **out);
/* The kernel agreed: from now on it sends requests to the rings. */
void transport_uring_go(struct transport_uring *uring);
/* Do requests come over the rings? */
bool transport_uring_serves(const struct transport_uring *uring);
/* Ends the threads, after the replies that are due; at once if there is nobody any more to reply
 * to. May be called again. */
void transport_uring_stop(struct transport_uring *uring, bool gone);
void transport_uring_free(struct transport_uring *uring); /* after stop */
/* Takes a reply to a request that came over a ring; false: it did not. Any thread. */
bool transport_uring_reply(struct transport_uring *uring, const struct iovec *iov, int count);
/* transport_room, for the request that this thread handles. */
void *transport_uring_room(size_t size);

#endif
