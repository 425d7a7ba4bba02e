/* SPDX-License-Identifier: MIT */
/*
 * How requests reach the handlers and replies the kernel. Three ways, chosen at mount
 * (transport_choice.h): FUSE over io_uring, one thread that reads /dev/fuse and spins a little
 * before it sleeps, and libfuse's loop of several threads. All pass each request to libfuse, which
 * decodes it and calls the handler, and all have our own read and write under libfuse: the read
 * counts requests and keeps what libfuse does not pass on; the write adds to the INIT reply what
 * libfuse 3.14 never asks for, and carries replies to where the request came from.
 *
 * Handlers run in the transport's threads, several at a time but for the spinning one. They may
 * reply later, from any thread; what takes long must, for it holds up what comes behind it.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include "keg.h"
#include "requests.h"
#include "transport_choice.h"
#include "workers.h"

struct fuse_session;
struct transport_uring;

struct transport {
    /* The owner sets these before transport_attach. */
    enum transport_kind kind;
    bool forced; /* no other may take its place */
    bool sync;   /* every change waits for the disk: the workers handle it */
    struct workers *workers;
    uint64_t waiting_max; /* bytes of requests that the workers may have waiting, on /dev/fuse */
    unsigned max_threads; /* of libfuse's loop */
    uint64_t poll_us;     /* TRANSPORT_URING: how long to look before sleeping (transport_poll.h) */
    bool acl;             /* POSIX ACLs are wanted; from INIT on: and the kernel knows them */

    /* Any thread may read these two. */
    struct requests requests;
    requests_transport name; /* of the kind in use */

    struct fuse_session *session;
    struct transport_uring *uring; /* NULL: none */
    uint64_t init_unique;          /* of the INIT request; no other can have it */
    uint32_t init_flags;           /* what the kernel offered with it */
    uint32_t init_flags2;
    bool refused; /* the kernel offers no rings, and there may be nothing else */
};

/* After fuse_session_mount; the session's user data begins with the transport. -errno; a forced
 * TRANSPORT_URING may want memory or descriptors for its rings, and says so in a line. */
KEG_CHECKED int transport_attach(struct transport *transport, struct fuse_session *session);
/*
 * Serves until the file system is unmounted or the session told to exit; 0 then, else -errno. To
 * end it, call fuse_session_exit and send the calling thread a signal that interrupts, until it
 * has returned. Late replies are accepted afterwards, until transport_detach.
 */
KEG_CHECKED int transport_loop(struct transport *transport);
/* Call when no reply can come any more, and before the session ends. */
void transport_detach(struct transport *transport);

/* In a handler of WRITE: suid, sgid and capabilities are to go (the writer may not keep them). */
bool transport_kills_suid(void);
/* In a handler of SETXATTR with an access ACL: sgid is to go, for the same reason. Before
 * Linux 5.14 the kernel does not tell, and then it goes unless the caller is root. */
bool transport_kills_sgid(uint32_t uid);
/* In a handler of READ or READDIR: memory for `size` bytes of the reply that need then not be
 * copied; NULL where there is none. Good until the handler replies. */
void *transport_room(size_t size);

#endif
