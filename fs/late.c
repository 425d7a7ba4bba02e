/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 314
#include "late.h"
#include "reply.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* What has the kernel forget pages may wait for WRITEs of them, which may need a worker (-o sync)
 * or an entry of a ring. Workers are left by workers.c; of entries, seeks must never have them all.
 */
enum {
    MOST_SEEKING = 16,
    MOST_SYNCED = 64, /* with one sync; more have the next */
};

/* A request under way. Its memory is the job's; text is what libfuse's buffer held. */
struct late {
    struct workers_job job; /* first */
    struct late *next;      /* of those that wait for a sync */
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

/* NULL: there is no memory, and that was the reply. */
static struct late *new_late(fuse_req_t req, uint64_t ino, const char *text, size_t len, bool waits,
                             void (*answer)(struct late *late, struct fuse_ops_daemon *daemon))
{
    struct late *late = malloc(sizeof *late + len + 1);
    if (!late) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    *late = (struct late){
        .job = {.run = run, .waits = waits}, .req = req, .answer = answer, .ino = ino, .len = len};
    memcpy(late->text, text, len);
    late->text[len] = '\0';
    return late;
}

/* waits: for WRITEs. False: there is no memory, and that was the reply. */
static bool hand_over(fuse_req_t req, uint64_t ino, const char *text, size_t len, bool waits,
                      void (*answer)(struct late *late, struct fuse_ops_daemon *daemon))
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct late *late = new_late(req, ino, text, len, waits, answer);
    if (!late)
        return false;
    workers_run(d->workers, &late->job);
    return true;
}

/* ---- Syncs ---- */

void late_begin(struct fuse_ops_daemon *d)
{
    pthread_mutex_init(&d->syncs_lock, NULL);
    d->syncs = NULL;
    d->syncs_last = &d->syncs;
    d->syncing = false;
}

void late_end(struct fuse_ops_daemon *d)
{
    pthread_mutex_destroy(&d->syncs_lock);
}

/* Takes what waits, up to MOST_SYNCED. 0: nothing does, and then the next to come syncs. */
static size_t take_syncs(struct fuse_ops_daemon *d, struct late **taken)
{
    size_t count = 0;
    pthread_mutex_lock(&d->syncs_lock);
    for (; d->syncs && count < MOST_SYNCED; count++) {
        taken[count] = d->syncs;
        d->syncs = d->syncs->next;
    }
    if (!d->syncs)
        d->syncs_last = &d->syncs;
    d->syncing = count > 0;
    pthread_mutex_unlock(&d->syncs_lock);
    return count;
}

/* One worker syncs for all, and is not woken for each: the requests that come meanwhile cost no
 * thread, and their replies go out together. */
static void run_syncs(struct workers_job *job)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(((struct late *)job)->req);
    struct late *taken[MOST_SYNCED];
    uint64_t inos[MOST_SYNCED];
    int errors[MOST_SYNCED];
    for (size_t count; (count = take_syncs(d, taken)) > 0;) {
        for (size_t i = 0; i < count; i++)
            inos[i] = taken[i]->ino;
        volume_sync_many(d->volume, inos, errors, count);
        for (size_t i = 0; i < count; i++) {
            reply_done(taken[i]->req, errors[i]);
            free(taken[i]);
        }
    }
}

void late_sync(fuse_req_t req, uint64_t ino)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    if (control_owns(ino)) {
        fuse_reply_err(req, 0);
        return;
    }
    struct late *late = new_late(req, ino, "", 0, false, NULL);
    if (!late)
        return;
    late->job.run = run_syncs;
    pthread_mutex_lock(&d->syncs_lock);
    const bool first = !d->syncing;
    d->syncing = true;
    late->next = NULL;
    *d->syncs_last = late;
    d->syncs_last = &late->next;
    pthread_mutex_unlock(&d->syncs_lock);
    if (first)
        workers_run(d->workers, &late->job);
}

static void answer_invalidate(struct late *late, struct fuse_ops_daemon *d)
{
    /* It fails when the inode is not cached, or the mount is gone. */
    (void)fuse_lowlevel_notify_inval_inode(d->session, late->ino, 0, 0);
    fuse_reply_err(late->req, 0);
}

void late_invalidate(fuse_req_t req, uint64_t ino)
{
    hand_over(req, ino, "", 0, true, answer_invalidate);
}

struct seek {
    uint64_t offset;
    int whence;
};

/* The hole that an answer to the seek stands on, [*from, *to); none if they are equal. */
static int hole_of(struct volume *volume, uint64_t ino, const struct seek *seek, uint64_t *from,
                   uint64_t *to)
{
    struct volume_attr attr;
    *from = seek->offset;
    int err = volume_getattr(volume, ino, &attr);
    if (!err && seek->offset >= attr.size)
        err = -ENXIO;
    if (!err && seek->whence == SEEK_HOLE)
        err = volume_seek(volume, ino, seek->offset, SEEK_HOLE, from);
    if (err)
        return err;
    err = *from < attr.size ? volume_seek(volume, ino, *from, SEEK_DATA, to) : -ENXIO;
    if (err == -ENXIO)
        *to = attr.size;
    return err == -ENXIO ? 0 : err;
}

static void reply_seek(fuse_req_t req, int err, uint64_t found)
{
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_lseek(req, (off_t)found);
}

/* An answer that is never wrong: what is before the end is data. */
static void answer_without_holes(fuse_req_t req, struct fuse_ops_daemon *d, uint64_t ino,
                                 const struct seek *seek)
{
    struct volume_attr attr;
    int err = volume_getattr(d->volume, ino, &attr);
    if (!err && seek->offset >= attr.size)
        err = -ENXIO;
    reply_seek(req, err, err || seek->whence == SEEK_DATA ? seek->offset : attr.size);
}

/* The kernel asks without having written back what is dirty, so that a hole may have data in its
 * cache: forgetting the pages of the hole writes them back. If there were any, the hole is now
 * another one, and so on. */
static void answer_seek(struct late *late, struct fuse_ops_daemon *d)
{
    struct seek seek;
    uint64_t found, from, to, last_from = 0, last_to = 0;
    memcpy(&seek, late->text, sizeof seek);
    int err = hole_of(d->volume, late->ino, &seek, &from, &to);
    while (!err && from < to && (from != last_from || to != last_to)) {
        last_from = from;
        last_to = to;
        (void)fuse_lowlevel_notify_inval_inode(d->session, late->ino, (off_t)from,
                                               (off_t)(to - from));
        err = hole_of(d->volume, late->ino, &seek, &from, &to);
    }
    if (!err)
        err = volume_seek(d->volume, late->ino, seek.offset, seek.whence, &found);
    atomic_fetch_sub(&d->seeking, 1);
    reply_seek(late->req, err, err ? 0 : found);
}

void late_seek(fuse_req_t req, uint64_t ino, uint64_t offset, int whence)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    const struct seek seek = {offset, whence};
    bool many = atomic_fetch_add(&d->seeking, 1) >= MOST_SEEKING;
    if (!many && hand_over(req, ino, (const char *)&seek, sizeof seek, true, answer_seek))
        return;
    atomic_fetch_sub(&d->seeking, 1);
    if (many)
        answer_without_holes(req, d, ino, &seek);
}

static void answer_lookup(struct late *late, struct fuse_ops_daemon *d)
{
    struct stat st;
    const uint32_t uid = fuse_req_ctx(late->req)->uid;
    int err = control_lookup(d->control, late->ino, late->text, uid, &st);
    reply_control_entry(late->req, err, &st);
}

void late_lookup(fuse_req_t req, uint64_t dir, const char *name)
{
    hand_over(req, dir, name, strlen(name), false, answer_lookup);
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
        hand_over(req, ino, command, len, false, answer_write);
}

static void answer_setxattr(struct late *late, struct fuse_ops_daemon *d)
{
    reply_done(late->req, control_setxattr(d->control, late->text));
}

void late_setxattr(fuse_req_t req, const char *name)
{
    hand_over(req, VOLUME_ROOT, name, strlen(name), false, answer_setxattr);
}
