/* SPDX-License-Identifier: MIT */
/*
 * With commit=close the daemon has to know who may still write to a file: each handle opened for
 * writing is a writer of the volume. (In the default mode OPEN and FLUSH are answered ENOSYS, once,
 * and the kernel never asks again.)
 *
 * When is the last close? RELEASE comes when the last duplicate of a descriptor is gone, but after
 * close(2) has returned: it can report nothing, and a crash right behind close would find the old
 * contents. FLUSH comes in each close(2), of each duplicate and in each process that has one. So
 * the contents are committed in the FLUSH that is likely to be the last, and at the latest in
 * RELEASE: if the file has no other writer, if anything was written (a shell opens the file of
 * "cmd > file", duplicates it and closes the first before it runs cmd), and if the process that
 * closes is the one that opened (in "{ cmd1; cmd2; } > file" cmd1 closes at its end, too).
 *
 * What this gets wrong: a process that writes, closes one duplicate and goes on writing through
 * another commits too early, and the rest is logged write by write as in the default mode. The
 * alternative, to commit in RELEASE alone, would never tell anyone of a full disk.
 */
#define FUSE_USE_VERSION 314
#include "handles.h"
#include "late.h"
#include "reply.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { HANDLE_WRITES = 1, HANDLE_PID_SHIFT = 1 };

static bool writes(const struct fuse_file_info *fi)
{
    return fi->fh & HANDLE_WRITES;
}

static int open_handle(struct fuse_ops_daemon *d, pid_t thread, uint64_t ino, bool created,
                       struct fuse_file_info *fi)
{
    fi->keep_cache = 1;
    fi->fh = 0;
    if (!d->commit_close || control_owns(ino) || (fi->flags & O_ACCMODE) == O_RDONLY)
        return 0;
    int err = volume_writer_open(d->volume, ino, created);
    if (!err)
        fi->fh = (uint64_t)(uint32_t)thread << HANDLE_PID_SHIFT | HANDLE_WRITES;
    return err;
}

int handles_created(struct fuse_ops_daemon *d, pid_t thread, uint64_t ino,
                    struct fuse_file_info *fi)
{
    int err = open_handle(d, thread, ino, true, fi);
    if (err)
        volume_forget(d->volume, ino, 1); /* the reply's lookup */
    return err;
}

int handles_close(struct fuse_ops_daemon *d, uint64_t ino, const struct fuse_file_info *fi)
{
    return writes(fi) ? volume_writer_close(d->volume, ino) : 0;
}

void handles_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    int err = d->commit_close ? open_handle(d, fuse_req_ctx(req)->pid, ino, false, fi) : -ENOSYS;
    if (err)
        fuse_reply_err(req, -err);
    else if (fuse_reply_open(req, fi))
        (void)handles_close(d, ino, fi);
}

/* Are these threads of one process? The kernel tells which thread called. */
static bool same_process(pid_t a, pid_t b)
{
    char path[64];
    if (a == b)
        return true;
    (void)snprintf(path, sizeof path, "/proc/%ld/task/%ld", (long)a, (long)b);
    return access(path, F_OK) == 0;
}

void handles_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    int err = d->commit_close ? 0 : -ENOSYS;
    if (!err && writes(fi) &&
        same_process((pid_t)(fi->fh >> HANDLE_PID_SHIFT), fuse_req_ctx(req)->pid))
        err = reply_durable(d, volume_writer_flush(d->volume, ino), ino);
    fuse_reply_err(req, -err);
}

void handles_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    int err = handles_close(d, ino, fi);
    if (err)
        late_invalidate(req, ino); /* the old contents are back */
    else
        fuse_reply_err(req, writes(fi) ? -reply_durable(d, 0, ino) : 0);
}
