/* SPDX-License-Identifier: MIT */
/*
 * libfuse 3.14 knows PARALLEL_DIROPS and HANDLE_KILLPRIV but never sends them, and does not know
 * HANDLE_KILLPRIV_V2, which saves a GETXATTR before a write. So the reply to INIT is completed on
 * its way out. Likewise it drops the flag of WRITE that says whether suid is to go: the read sees
 * the raw request and leaves the flag in a variable of the thread, because libfuse's loop handles
 * each request in the thread that read it.
 */
#define FUSE_USE_VERSION 314
#include "transport.h"
#include "extra.h"
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

const char transport_name[] = "libfuse";

/* Asked for if the kernel offers it. */
static const uint32_t extra_flags = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2;

static _Thread_local uint32_t write_flags;

bool transport_kills_suid(void)
{
    return write_flags & FUSE_WRITE_KILL_SUIDGID;
}

/* Not inlined: libfuse cancels threads in read_request's read(2), whose frame then must hold
 * nothing that a sanitizer would have to clear. */
__attribute__((noinline)) static void look_at(struct transport *t, const void *buf, size_t len)
{
    struct fuse_in_header in;
    if (len < sizeof in)
        return;
    memcpy(&in, buf, sizeof in);
    requests_count(&t->requests, in.opcode);
    write_flags = 0;
    if (in.opcode == FUSE_WRITE && len >= sizeof in + sizeof(struct fuse_write_in))
        memcpy(&write_flags,
               (const char *)buf + sizeof in + offsetof(struct fuse_write_in, write_flags),
               sizeof write_flags);
    if (in.opcode == FUSE_INIT && len >= sizeof in + offsetof(struct fuse_init_in, flags) + 4) {
        t->init_unique = in.unique;
        memcpy(&t->init_flags, (const char *)buf + sizeof in + offsetof(struct fuse_init_in, flags),
               4);
    }
}

static void complete_init(const struct transport *t, const struct iovec *iov, int count)
{
    const struct fuse_out_header *out = iov[0].iov_base;
    if (count < 2 || out->unique != t->init_unique || out->error ||
        iov[1].iov_len < offsetof(struct fuse_init_out, flags) + 4)
        return;
    struct fuse_init_out *init = iov[1].iov_base;
    init->flags |= extra_flags & t->init_flags;
}

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *user)
{
    const struct transport *t = user;
    const struct fuse_out_header *out = iov[0].iov_base;
    if (out->unique && out->unique == t->init_unique)
        complete_init(t, iov, count);
    ssize_t n = writev(fd, iov, count);
    /* Nobody waits any more: libfuse would print a line for each of these but ENOENT. */
    if (n < 0 && (errno == ENODEV || errno == ENOTCONN || errno == ECONNABORTED))
        errno = ENOENT;
    return n;
}

struct origin {
    int fd;
    void *user;
};

static int reply_extra(void *arg, struct iovec *iov, int count)
{
    const struct origin *o = arg;
    return write_reply(o->fd, iov, count, o->user) < 0 ? -errno : 0;
}

/* Answers what libfuse does not know. Its threads may be cancelled in read_request: not in here. */
__attribute__((noinline)) static bool answer_extra(int fd, const void *buf, size_t len, void *user)
{
    struct origin origin = {fd, user};
    int state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    bool answered = extra_handle(user, buf, len, reply_extra, &origin);
    pthread_setcancelstate(state, &state);
    return answered;
}

static ssize_t read_request(int fd, void *buf, size_t len, void *user)
{
    ssize_t n = read(fd, buf, len);
    if (n <= 0)
        return n;
    look_at(user, buf, (size_t)n);
    if (!answer_extra(fd, buf, (size_t)n, user))
        return n;
    errno = EINTR; /* there is nothing for libfuse: its loop comes again */
    return -1;
}

int transport_attach(struct fuse_session *session)
{
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};
    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

int transport_loop(struct fuse_session *session, unsigned max_threads)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (!config)
        return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, max_threads);
    /* Threads that come and go cost several times the request. */
    fuse_loop_cfg_set_idle_threads(config, max_threads);
    int err = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return err < 0 ? err : 0;
}
