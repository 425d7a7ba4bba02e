/* SPDX-License-Identifier: MIT */
/*
 * How requests reach the handlers and replies the kernel: libfuse's loop of several threads on
 * /dev/fuse, with our own read and write under it. The read counts requests and keeps what libfuse
 * does not pass on; the write adds to the INIT reply what libfuse 3.14 never asks for.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include "keg.h"
#include "requests.h"

struct fuse_session;

struct transport {
    struct requests requests;
    uint64_t init_unique; /* of the INIT request; no other can have it */
    uint32_t init_flags;  /* what the kernel offered with it */
};

extern const char transport_name[];

/* After fuse_session_mount; the session's user data begins with the transport. -errno. */
KEG_CHECKED int transport_attach(struct fuse_session *session);
/* Serves until the file system is unmounted or the session told to exit; 0 then, else -errno. */
KEG_CHECKED int transport_loop(struct fuse_session *session, unsigned max_threads);

/* In a handler of WRITE: suid, sgid and capabilities are to go (the writer may not keep them). */
bool transport_kills_suid(void);

#endif
