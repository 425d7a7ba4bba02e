/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 314
#include "reply.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/statvfs.h>

/* ---- The thread's buffer ---- */

struct buffer {
    size_t size;
    char data[];
};

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
    if (pthread_key_create(&buffer_key, free))
        abort(); /* a process has 1,024 of them and this is the one we use */
}

void *reply_buffer(size_t size)
{
    void *in_place = transport_room(size);
    if (in_place)
        return in_place;
    pthread_once(&buffer_once, make_key);
    struct buffer *buffer = pthread_getspecific(buffer_key);
    if (buffer && buffer->size >= size)
        return buffer->data;
    /* Grown in large steps and kept: fresh memory is slow to touch. */
    size_t room = 128 << 10;
    while (room < size)
        room *= 2;
    struct buffer *grown = malloc(sizeof *grown + room);
    if (!grown)
        return NULL;
    grown->size = room;
    if (pthread_setspecific(buffer_key, grown)) {
        free(grown);
        return NULL;
    }
    free(buffer);
    return grown->data;
}

int reply_durable(struct fuse_ops_daemon *d, int err, uint64_t ino)
{
    if (err || !d->sync)
        return err;
    return volume_sync(d->volume, d->commit_close ? 0 : ino); /* of all: commits nothing staged */
}

int reply_durable_entry(struct fuse_ops_daemon *d, int err, const struct volume_attr *attr)
{
    if (err)
        return err;
    err = reply_durable(d, 0, attr->ino);
    if (err)
        volume_forget(d->volume, attr->ino, 1);
    return err;
}

/* ---- Replies ---- */

void reply_fill(struct fuse_entry_param *entry, const struct volume_attr *attr)
{
    *entry = (struct fuse_entry_param){
        .ino = attr->ino, .attr_timeout = REPLY_FOREVER, .entry_timeout = REPLY_FOREVER};
    volume_stat(attr, &entry->attr);
}

void reply_done(fuse_req_t req, int err)
{
    fuse_reply_err(req, -err);
}

void reply_entry_of(fuse_req_t req, int err, const struct volume_attr *attr)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct fuse_entry_param entry;
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    reply_fill(&entry, attr);
    if (fuse_reply_entry(req, &entry))
        volume_forget(d->volume, attr->ino, 1);
}

bool reply_create_of(fuse_req_t req, int err, const struct volume_attr *attr,
                     struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct fuse_entry_param entry;
    if (err) {
        fuse_reply_err(req, -err);
        return false;
    }
    reply_fill(&entry, attr);
    bool taken = fuse_reply_create(req, &entry, fi) == 0;
    if (!taken)
        volume_forget(d->volume, attr->ino, 1);
    return taken;
}

void reply_absent(fuse_req_t req)
{
    struct fuse_entry_param entry = {.ino = 0, .entry_timeout = REPLY_FOREVER};
    fuse_reply_entry(req, &entry);
}

void reply_attr_of(fuse_req_t req, int err, const struct volume_attr *attr)
{
    struct stat st;
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    volume_stat(attr, &st);
    fuse_reply_attr(req, &st, REPLY_FOREVER);
}

void reply_target(fuse_req_t req, ssize_t n, const char *target)
{
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_readlink(req, target);
}

void reply_data(fuse_req_t req, ssize_t n, const void *data)
{
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_buf(req, data, (size_t)n);
}

void reply_written(fuse_req_t req, ssize_t n)
{
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_write(req, (size_t)n);
}

void reply_sized(fuse_req_t req, ssize_t n, const void *data, size_t size)
{
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else if (size)
        fuse_reply_buf(req, data, (size_t)n);
    else
        fuse_reply_xattr(req, (size_t)n);
}

void reply_statfs_of(fuse_req_t req, int err, const struct volume_statfs *fs)
{
    enum { UNIT = 4096 };
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    /* Inodes never run out; programs that divide by their number want one. */
    const fsfilcnt_t room = fs->free / 256;
    struct statvfs st = {.f_bsize = UNIT,
                         .f_frsize = UNIT,
                         .f_blocks = fs->total / UNIT,
                         .f_bfree = fs->free / UNIT,
                         .f_bavail = fs->free / UNIT,
                         .f_files = fs->inodes + room,
                         .f_ffree = room,
                         .f_favail = room,
                         .f_namemax = VOLUME_NAME_MAX};
    fuse_reply_statfs(req, &st);
}

/* ---- The control directory ---- */

void reply_control_attr(fuse_req_t req, uint64_t ino)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct stat st;
    int err = control_getattr(d->control, ino, &st);
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_attr(req, &st, REPLY_FOREVER);
}

void reply_control_read(fuse_req_t req, uint64_t ino, uint64_t offset, size_t size)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct keg_bytes data;
    int err = control_read(d->control, ino, offset, size, &data);
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    fuse_reply_buf(req, data.data, data.len);
    control_forget(d->control, ino, 1);
}

/* Only the directory's name may be kept: a file is made anew at each lookup. */
void reply_control_entry(fuse_req_t req, int err, const struct stat *st)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    struct fuse_entry_param entry = {.ino = st->st_ino,
                                     .attr = *st,
                                     .attr_timeout = REPLY_FOREVER,
                                     .entry_timeout = S_ISDIR(st->st_mode) ? REPLY_FOREVER : 0};
    if (fuse_reply_entry(req, &entry))
        control_forget(d->control, st->st_ino, 1);
}
