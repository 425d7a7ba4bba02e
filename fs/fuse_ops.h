/* SPDX-License-Identifier: MIT */
/* The FUSE handlers. Each decodes its request, calls one function of the volume or of the control
 * directory, and replies exactly once; what takes long replies from a thread of the workers. */
#ifndef FUSE_OPS_H
#define FUSE_OPS_H

#include "control.h"
#include "transport.h"
#include "volume.h"
#include "workers.h"
#include <pthread.h>
#include <stdatomic.h>

/* The session's user data. */
struct fuse_ops_daemon {
    struct transport transport; /* first: transport.c takes the user data for it */
    struct volume *volume;
    struct control *control;
    struct workers *workers;
    bool sync;           /* every change is durable before it is answered */
    bool commit_close;   /* what was truncated or created becomes the file at its last close */
    bool writeback;      /* the kernel gathers writes, and knows sizes and times better */
    atomic_uint seeking; /* late_seek: under way */
    pthread_mutex_t syncs_lock;
    struct late *syncs, **syncs_last; /* syncs_lock; late_sync: those that wait for the next sync */
    bool syncing;                     /* syncs_lock; one is under way */
    struct fuse_session *session;
    pthread_mutex_t handles_lock;
    struct handle *handles; /* handles_lock; those that are open */
};

struct fuse_lowlevel_ops;
extern const struct fuse_lowlevel_ops fuse_ops_table;

#endif
