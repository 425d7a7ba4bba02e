/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 314
#include "late.h"
#include "reply.h"
#include <errno.h>
#include <stdlib.h>

/* A request under way. Its memory is the job's; text is what libfuse's buffer held. */
struct late {
    struct workers_job job; /* first */
    fuse_req_t req;
    void (*answer)(struct late *late, struct fuse_ops_daemon *daemon);
    uint64_t ino;
    size_t len;
    char text[];
};

static void run(struct workers_job *job)
{
    struct late *late = (struct late *)job;
    late->answer(late, fuse_req_userdata(late->req));
    free(late);
}

static void hand_over(fuse_req_t req, uint64_t ino, const char *text, size_t len,
                      void (*answer)(struct late *late, struct fuse_ops_daemon *daemon))
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct late *late = malloc(sizeof *late + len + 1);
    if (!late) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    *late = (struct late){.job.run = run, .req = req, .answer = answer, .ino = ino, .len = len};
    memcpy(late->text, text, len);
    late->text[len] = '\0';
    workers_run(d->workers, &late->job);
}

static void answer_sync(struct late *late, struct fuse_ops_daemon *d)
{
    reply_done(late->req, volume_sync(d->volume, late->ino));
}

void late_sync(fuse_req_t req, uint64_t ino)
{
    if (control_owns(ino))
        fuse_reply_err(req, 0);
    else
        hand_over(req, ino, "", 0, answer_sync);
}

static void answer_invalidate(struct late *late, struct fuse_ops_daemon *d)
{
    /* It fails when the inode is not cached, or the mount is gone. */
    (void)fuse_lowlevel_notify_inval_inode(d->session, late->ino, 0, 0);
    fuse_reply_err(late->req, 0);
}

void late_invalidate(fuse_req_t req, uint64_t ino)
{
    hand_over(req, ino, "", 0, answer_invalidate);
}

static void answer_lookup(struct late *late, struct fuse_ops_daemon *d)
{
    struct stat st;
    int err = control_lookup(d->control, late->ino, late->text, &st);
    reply_control_entry(late->req, err, &st);
}

void late_lookup(fuse_req_t req, uint64_t dir, const char *name)
{
    hand_over(req, dir, name, strlen(name), answer_lookup);
}

static void answer_write(struct late *late, struct fuse_ops_daemon *d)
{
    int err = control_run(d->control, late->text, late->len);
    reply_written(late->req, err ? err : (ssize_t)late->len);
}

void late_write(fuse_req_t req, uint64_t ino, const char *command, size_t len)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    int err = control_writable(d->control, ino);
    if (err)
        fuse_reply_err(req, -err);
    else
        hand_over(req, ino, command, len, answer_write);
}

static void answer_setxattr(struct late *late, struct fuse_ops_daemon *d)
{
    reply_done(late->req, control_setxattr(d->control, late->text));
}

void late_setxattr(fuse_req_t req, const char *name)
{
    hand_over(req, VOLUME_ROOT, name, strlen(name), answer_setxattr);
}
