/* SPDX-License-Identifier: MIT */
/*
 * What a handler is for libfuse, done by hand: header and arguments are taken from the request's
 * bytes, and the reply is put together as the protocol has it. It is the transport that calls this
 * first with each request, and libfuse never sees those that were answered.
 */
#define FUSE_USE_VERSION 314
#include "extra.h"
#include "handles.h"
#include "reply.h"
#include <errno.h>
#include <linux/fuse.h>
#include <linux/stat.h>
#include <stddef.h>
#include <string.h>
#include <sys/sysmacros.h>

/* ---- What linux/fuse.h of protocol 7.39 and later has ---- */

enum { OPCODE_TMPFILE = 51, OPCODE_STATX = 52 };

struct extra_time {
    int64_t tv_sec;
    uint32_t tv_nsec;
    int32_t reserved;
};

struct extra_statx_out {
    uint64_t attr_valid; /* seconds */
    uint32_t attr_valid_nsec;
    uint32_t flags;
    uint64_t spare[2];
    struct {
        uint32_t mask; /* STATX_ */
        uint32_t blksize;
        uint64_t attributes;
        uint32_t nlink, uid, gid;
        uint16_t mode;
        uint16_t spare0;
        uint64_t ino, size, blocks, attributes_mask;
        struct extra_time atime, btime, ctime, mtime;
        uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
        uint64_t spare2[14];
    } stat;
};
_Static_assert(sizeof(struct extra_statx_out) == 32 + 256, "as the kernel has it");

/* ---- Requests and replies ---- */

struct extra {
    struct fuse_ops_daemon *daemon;
    struct fuse_in_header in;
    const char *args; /* behind the header */
    size_t args_len;
    extra_reply_fn *reply;
    void *reply_arg;
};

/* err: 0 or -errno, and then there is no payload. Returns whether the kernel took it. */
static bool answer(const struct extra *x, int err, void *payload, size_t len)
{
    struct fuse_out_header out = {
        .len = (uint32_t)(sizeof out + (err ? 0 : len)), .error = err, .unique = x->in.unique};
    struct iovec iov[] = {{&out, sizeof out}, {payload, len}};
    return x->reply(x->reply_arg, iov, err ? 1 : 2) == 0;
}

/* ---- STATX ---- */

static struct extra_time extra_time(struct timespec t)
{
    return (struct extra_time){.tv_sec = t.tv_sec, .tv_nsec = (uint32_t)t.tv_nsec};
}

static void fill_statx(struct extra_statx_out *out, const struct stat *st)
{
    out->attr_valid = REPLY_FOREVER;
    out->stat.mask = STATX_BASIC_STATS;
    out->stat.blksize = (uint32_t)st->st_blksize;
    out->stat.nlink = (uint32_t)st->st_nlink;
    out->stat.uid = st->st_uid;
    out->stat.gid = st->st_gid;
    out->stat.mode = (uint16_t)st->st_mode;
    out->stat.ino = st->st_ino;
    out->stat.size = (uint64_t)st->st_size;
    out->stat.blocks = (uint64_t)st->st_blocks;
    out->stat.atime = extra_time(st->st_atim);
    out->stat.ctime = extra_time(st->st_ctim);
    out->stat.mtime = extra_time(st->st_mtim);
    out->stat.rdev_major = major(st->st_rdev);
    out->stat.rdev_minor = minor(st->st_rdev);
}

static void statx_(const struct extra *x)
{
    struct fuse_ops_daemon *d = x->daemon;
    struct extra_statx_out out = {0};
    struct volume_attr attr;
    struct stat st;
    bool control = control_owns(x->in.nodeid);
    int err = control ? control_getattr(d->control, x->in.nodeid, &st)
                      : volume_getattr(d->volume, x->in.nodeid, &attr);
    if (!err && !control)
        volume_stat(&attr, &st);
    if (!err)
        fill_statx(&out, &st);
    if (!err && !control) {
        out.stat.mask |= STATX_BTIME;
        out.stat.btime = extra_time(attr.btime);
    }
    answer(x, err, &out, sizeof out);
}

/* ---- TMPFILE ---- */

static void fill_entry(struct fuse_entry_out *out, const struct volume_attr *attr)
{
    struct stat st;
    volume_stat(attr, &st);
    *out = (struct fuse_entry_out){
        .nodeid = attr->ino, .entry_valid = REPLY_FOREVER, .attr_valid = REPLY_FOREVER};
    out->attr = (struct fuse_attr){.ino = attr->ino,
                                   .size = (uint64_t)st.st_size,
                                   .blocks = (uint64_t)st.st_blocks,
                                   .atime = (uint64_t)st.st_atim.tv_sec,
                                   .mtime = (uint64_t)st.st_mtim.tv_sec,
                                   .ctime = (uint64_t)st.st_ctim.tv_sec,
                                   .atimensec = (uint32_t)st.st_atim.tv_nsec,
                                   .mtimensec = (uint32_t)st.st_mtim.tv_nsec,
                                   .ctimensec = (uint32_t)st.st_ctim.tv_nsec,
                                   .mode = st.st_mode,
                                   .nlink = (uint32_t)st.st_nlink,
                                   .uid = st.st_uid,
                                   .gid = st.st_gid,
                                   .blksize = (uint32_t)st.st_blksize};
}

/* The name that comes with it stands for none. */
static void tmpfile_(const struct extra *x)
{
    struct fuse_ops_daemon *d = x->daemon;
    struct fuse_create_in create;
    struct volume_attr attr;
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out;
    if (x->args_len < sizeof create) {
        answer(x, -EINVAL, NULL, 0);
        return;
    }
    memcpy(&create, x->args, sizeof create);
    const struct volume_new new = {.mode = S_IFREG | (create.mode & 07777),
                                   .uid = x->in.uid,
                                   .gid = x->in.gid,
                                   .umask = create.umask};
    struct fuse_file_info fi = {.flags = (int)create.flags};
    int err = control_owns(x->in.nodeid)
                  ? -EPERM
                  : volume_make_unnamed(d->volume, x->in.nodeid, &new, &attr);
    err = reply_durable_entry(d, err, &attr);
    if (!err)
        err = handles_created(d, (pid_t)x->in.pid, attr.ino, &fi);
    if (err) {
        answer(x, err, NULL, 0);
        return;
    }
    fill_entry(&out.entry, &attr);
    out.open = (struct fuse_open_out){.fh = fi.fh, .open_flags = FOPEN_KEEP_CACHE};
    if (!answer(x, 0, &out, sizeof out)) {
        volume_forget(d->volume, attr.ino, 1);
        (void)handles_close(d, attr.ino, &fi);
    }
}

bool extra_handle(struct fuse_ops_daemon *daemon, const void *request, size_t len,
                  extra_reply_fn *reply, void *arg)
{
    struct extra x = {.daemon = daemon, .reply = reply, .reply_arg = arg};
    if (len < sizeof x.in)
        return false;
    memcpy(&x.in, request, sizeof x.in);
    x.args = (const char *)request + sizeof x.in;
    x.args_len = len - sizeof x.in;
    if (x.in.opcode == OPCODE_STATX)
        statx_(&x);
    else if (x.in.opcode == OPCODE_TMPFILE)
        tmpfile_(&x);
    else
        return false;
    return true;
}
