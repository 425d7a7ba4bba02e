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
 * "cmd > file", duplicates it and closes the first before it runs cmd), if the process that closes
 * is the one that opened (in "{ cmd1; cmd2; } > file" cmd1 closes at its end, too), and if it is
 * the one that wrote last (who opens a file for a child to write closes it when the child has
 * hardly begun).
 *
 * What this gets wrong: a process that writes, closes one duplicate and goes on writing through
 * another, or leaves that to another process that has not begun to, commits too early, and the rest
 * is logged write by write as in the default mode. And where the opener has left the writing to
 * others, or has ended (a daemon that opens its files first), only RELEASE commits. To look into
 * /proc/PID/fd for who has duplicates is no remedy: that waits for a process which is just closing
 * one of ours in execve, and which waits for us. To commit in RELEASE alone would never tell anyone
 * of a full disk.
 */
#define FUSE_USE_VERSION 314
#include "handles.h"
#include "late.h"
#include "reply.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What fi->fh points to, of a file opened for writing; else it is 0. */
struct handle {
    struct handle *next, **at;
    pid_t opener;               /* the process */
    atomic_int thread, process; /* who wrote last; 0: nobody */
};

/* Is this a thread of the process? Who may not signal it is told so only if it is. */
static bool is_of_process(pid_t process, pid_t thread)
{
    return process == thread || tgkill(process, thread, 0) == 0 || errno == EPERM;
}

/* The kernel tells which thread called, and threads end before their processes do. */
static pid_t process_of(pid_t thread)
{
    char path[64], line[256];
    long process = thread;
    if (thread <= 0 || tgkill(thread, thread, 0) == 0 || errno == EPERM)
        return thread; /* the first thread of its process */
    (void)snprintf(path, sizeof path, "/proc/%ld/status", (long)thread);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "Tgid: %ld", &process) == 1)
            break;
    if (status)
        (void)fclose(status);
    return (pid_t)process;
}

static struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

static void add(struct fuse_ops_daemon *d, struct handle *h)
{
    pthread_mutex_lock(&d->handles_lock);
    h->next = d->handles;
    h->at = &d->handles;
    if (h->next)
        h->next->at = &h->next;
    d->handles = h;
    pthread_mutex_unlock(&d->handles_lock);
}

static void drop(struct fuse_ops_daemon *d, struct handle *h)
{
    pthread_mutex_lock(&d->handles_lock);
    *h->at = h->next;
    if (h->next)
        h->next->at = h->at;
    pthread_mutex_unlock(&d->handles_lock);
    free(h);
}

void handles_begin(struct fuse_ops_daemon *d)
{
    pthread_mutex_init(&d->handles_lock, NULL);
}

void handles_end(struct fuse_ops_daemon *d)
{
    while (d->handles)
        drop(d, d->handles);
    pthread_mutex_destroy(&d->handles_lock);
}

static int open_handle(struct fuse_ops_daemon *d, pid_t thread, uint64_t ino, bool created,
                       struct fuse_file_info *fi)
{
    fi->keep_cache = 1;
    fi->fh = 0;
    if (!d->commit_close || control_owns(ino) || (fi->flags & O_ACCMODE) == O_RDONLY)
        return 0;
    struct handle *h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    int err = volume_writer_open(d->volume, ino, created);
    if (err) {
        free(h);
        return err;
    }
    h->opener = process_of(thread);
    add(d, h);
    fi->fh = (uintptr_t)h;
    return 0;
}

void handles_wrote(fuse_req_t req, const struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    const pid_t thread = fuse_req_ctx(req)->pid;
    /* What the kernel writes back is not of whom it says. */
    if (!h || fi->writepage || atomic_load(&h->thread) == thread)
        return;
    atomic_store(&h->process, process_of(thread));
    atomic_store(&h->thread, thread);
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
    struct handle *h = handle_of(fi);
    if (!h)
        return 0;
    drop(d, h);
    return volume_writer_close(d->volume, ino);
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

static bool is_last_close(const struct handle *h, pid_t thread)
{
    const pid_t writer = atomic_load(&h->process);
    return is_of_process(h->opener, thread) && (!writer || writer == h->opener);
}

void handles_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    const struct handle *h = handle_of(fi);
    int err = d->commit_close ? 0 : -ENOSYS;
    if (h && is_last_close(h, fuse_req_ctx(req)->pid))
        err = reply_durable(d, volume_writer_flush(d->volume, ino), ino);
    fuse_reply_err(req, -err);
}

void handles_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    const bool writes = handle_of(fi);
    int err = handles_close(d, ino, fi);
    if (err)
        late_invalidate(req, ino); /* the old contents are back */
    else
        fuse_reply_err(req, writes ? -reply_durable(d, 0, ino) : 0);
}
