/* SPDX-License-Identifier: MIT */
/*
 * libfuse 3.14 knows PARALLEL_DIROPS and HANDLE_KILLPRIV but never sends them, and does not know
 * HANDLE_KILLPRIV_V2, which saves a GETXATTR before a write, nor OVER_IO_URING. So the reply to
 * INIT is completed on its way out. Likewise it drops the flag of WRITE that says whether suid is
 * to go: it is left in a variable of the thread, because a request is handled in the thread that
 * looked at it. SETXATTR has a flag of that kind for sgid, if SETXATTR_EXT is asked for; but then
 * its head is longer than libfuse knows, so what is new in it is taken out on the way.
 */
#define FUSE_USE_VERSION 314
#include "transport.h"
#include "extra.h"
#include "log.h"
#include "transport_internal.h"
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

/* Asked for if the kernel offers it. */
static const uint32_t extra_flags = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2;
/* OVER_IO_URING, as it is in the second word of flags; newer than the headers. */
static const uint32_t uring_flag2 = 1U << 9;
/* For POSIX ACLs. Without DONT_MASK their modes would come with the umask taken from them. */
static const uint32_t acl_flags = FUSE_POSIX_ACL | FUSE_DONT_MASK;

static _Thread_local uint32_t write_flags, setxattr_flags;
static _Thread_local bool setxattr_told; /* that there were flags */

bool transport_kills_suid(void)
{
    return write_flags & FUSE_WRITE_KILL_SUIDGID;
}

bool transport_kills_sgid(uint32_t uid)
{
    return setxattr_told ? setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID : uid != 0;
}

void *transport_room(size_t size)
{
    return transport_uring_room(size);
}

/* ---- Requests ---- */

static uint32_t asked_flags(const struct transport *t)
{
    uint32_t flags = extra_flags | (t->acl ? acl_flags | FUSE_SETXATTR_EXT : 0);
    return flags & t->init_flags;
}

static void keep_init(struct transport *t, const struct fuse_in_header *in, const char *arg,
                      size_t len)
{
    const size_t before_ext = offsetof(struct fuse_init_in, flags2);
    struct fuse_init_in init = {0};
    if (len < before_ext)
        return;
    memcpy(&init, arg, len < sizeof init ? len : sizeof init);
    t->init_unique = in->unique;
    t->init_flags = init.flags;
    t->init_flags2 = init.flags & FUSE_INIT_EXT ? init.flags2 : 0;
    t->acl = t->acl && (t->init_flags & acl_flags) == acl_flags;
}

/* Not inlined: libfuse cancels threads in read_request's read(2), whose frame then must hold
 * nothing that a sanitizer would have to clear. */
__attribute__((noinline)) static void look_at(struct transport *t, const void *buf, size_t len)
{
    struct fuse_in_header in;
    const char *arg = (const char *)buf + sizeof in;
    if (len < sizeof in)
        return;
    memcpy(&in, buf, sizeof in);
    requests_count(&t->requests, in.opcode);
    write_flags = 0;
    if (in.opcode == FUSE_WRITE && len >= sizeof in + sizeof(struct fuse_write_in))
        memcpy(&write_flags, arg + offsetof(struct fuse_write_in, write_flags), sizeof write_flags);
    if (in.opcode == FUSE_INIT)
        keep_init(t, &in, arg, len - sizeof in);
}

/* Keeps the flags of a SETXATTR and makes it what it was before it had them. Returns its length.
 * Not inlined, as look_at. */
__attribute__((noinline)) static size_t cut_setxattr(const struct transport *t, char *buf,
                                                     size_t len)
{
    enum { OLD = FUSE_COMPAT_SETXATTR_IN_SIZE, NEW = sizeof(struct fuse_setxattr_in) };
    struct fuse_in_header in;
    if (len < sizeof in + NEW)
        return len;
    memcpy(&in, buf, sizeof in);
    setxattr_told = in.opcode == FUSE_SETXATTR && asked_flags(t) & FUSE_SETXATTR_EXT;
    if (!setxattr_told)
        return len;
    char *args = buf + sizeof in;
    memcpy(&setxattr_flags, args + offsetof(struct fuse_setxattr_in, setxattr_flags),
           sizeof setxattr_flags);
    memmove(args + OLD, args + NEW, len - sizeof in - NEW);
    in.len -= NEW - OLD;
    memcpy(buf, &in, sizeof in);
    return len - (NEW - OLD);
}

bool transport_waits(const struct transport *t, const void *message, size_t len)
{
    struct fuse_in_header in;
    if (!t->sync || len < sizeof in)
        return false;
    memcpy(&in, message, sizeof in);
    switch (in.opcode) {
    case FUSE_LOOKUP:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
    case FUSE_INIT:
    case FUSE_GETATTR:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_READLINK:
    case FUSE_OPEN:
    case FUSE_OPENDIR:
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_STATFS:
    case FUSE_LSEEK:
    case 52: /* STATX, newer than the headers of some build machines */
        return false;
    default:
        return true;
    }
}

/* ---- Replies ---- */

static bool asks_for_rings(const struct transport *t, const struct fuse_init_out *init)
{
    const size_t most = (size_t)init->max_pages * (size_t)sysconf(_SC_PAGESIZE);
    return t->uring && t->init_flags2 & uring_flag2 && most <= TRANSPORT_PAYLOAD &&
           init->max_write <= TRANSPORT_PAYLOAD;
}

/* Adds what libfuse does not know. Are rings asked for? */
static bool complete_init(const struct transport *t, const struct iovec *iov, int count)
{
    const struct fuse_out_header *out = iov[0].iov_base;
    if (count < 2 || out->error || iov[1].iov_len < offsetof(struct fuse_init_out, flags2) + 4)
        return false;
    struct fuse_init_out *init = iov[1].iov_base;
    init->flags |= asked_flags(t);
    if (!asks_for_rings(t, init))
        return false;
    init->flags |= FUSE_INIT_EXT;
    init->flags2 |= uring_flag2;
    return true;
}

/* A mount that does not come about: its first request fails, and the loop ends. */
static ssize_t refuse(struct transport *t, int fd, struct iovec *iov)
{
    struct fuse_out_header *out = iov[0].iov_base;
    log_error("no transport=uring here: the kernel offers none");
    t->refused = true;
    out->error = -EOPNOTSUPP;
    out->len = (uint32_t)(iov[0].iov_len = sizeof *out);
    fuse_session_exit(t->session);
    return writev(fd, iov, 1);
}

static void use_device(struct transport *t, const char *why)
{
    log_warning("no FUSE over io_uring: %s; using /dev/fuse", why);
    t->kind = TRANSPORT_SPIN;
    atomic_store(&t->name, transport_choice_name(t->kind));
}

/* INIT is answered before any other request comes. */
static ssize_t reply_to_init(struct transport *t, int fd, struct iovec *iov, int count)
{
    const bool asked = complete_init(t, iov, count);
    ssize_t n;
    if (t->uring && t->forced && !asked)
        return refuse(t, fd, iov);
    n = writev(fd, iov, count);
    if (n > 0 && asked) {
        transport_uring_go(t->uring);
    } else if (t->uring) {
        transport_uring_stop(t->uring, true);
        use_device(t, "the kernel offers none");
    }
    return n;
}

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *user)
{
    struct transport *t = user;
    const struct fuse_out_header *out = iov[0].iov_base;
    ssize_t n;
    if (t->uring && out->unique && transport_uring_reply(t->uring, iov, count))
        return out->len;
    if (out->unique && out->unique == t->init_unique)
        n = reply_to_init(t, fd, iov, count);
    else
        n = writev(fd, iov, count);
    /* Nobody waits any more: libfuse would print a line for each of these but ENOENT. */
    if (n < 0 && (errno == ENODEV || errno == ENOTCONN || errno == ECONNABORTED))
        errno = ENOENT;
    return n;
}

/* ---- On to libfuse, or past it ---- */

struct origin {
    int fd;
    void *user;
};

static int reply_extra(void *arg, struct iovec *iov, int count)
{
    const struct origin *o = arg;
    return write_reply(o->fd, iov, count, o->user) < 0 ? -errno : 0;
}

void transport_serve(struct transport *t, void *message, size_t len)
{
    struct fuse_buf buf = {.mem = message};
    struct origin origin = {fuse_session_fd(t->session), t};
    look_at(t, message, len);
    len = buf.size = cut_setxattr(t, message, len);
    if (!extra_handle((struct fuse_ops_daemon *)t, message, len, reply_extra, &origin))
        fuse_session_process_buf(t->session, &buf);
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

/* Of libfuse's loop. */
static ssize_t read_request(int fd, void *buf, size_t len, void *user)
{
    ssize_t n = read(fd, buf, len);
    if (n <= 0)
        return n;
    look_at(user, buf, (size_t)n);
    n = (ssize_t)cut_setxattr(user, buf, (size_t)n);
    if (!answer_extra(fd, buf, (size_t)n, user))
        return n;
    errno = EINTR; /* there is nothing for libfuse: its loop comes again */
    return -1;
}

/* ---- The loop ---- */

int transport_attach(struct transport *t, struct fuse_session *session)
{
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};
    t->session = session;
    atomic_store(&t->name, transport_choice_name(t->kind));
    int err = fuse_session_custom_io(session, &io, fuse_session_fd(session));
    if (err || t->kind != TRANSPORT_URING)
        return err;
    err = transport_uring_new(t, &t->uring);
    if (!err)
        return 0;
    if (t->forced)
        log_error("no transport=uring here: setting up the rings: %s", strerror(-err));
    else
        use_device(t, strerror(-err));
    return t->forced ? err : 0;
}

static int libfuse_loop(struct transport *t)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (!config)
        return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, t->max_threads);
    /* Threads that come and go cost several times the request. */
    fuse_loop_cfg_set_idle_threads(config, t->max_threads);
    int err = fuse_session_loop_mt(t->session, config);
    fuse_loop_cfg_destroy(config);
    return err < 0 ? err : 0;
}

int transport_loop(struct transport *t)
{
    int err = t->kind == TRANSPORT_LIBFUSE ? libfuse_loop(t) : transport_device_loop(t);
    return t->refused ? -EOPNOTSUPP : err;
}

void transport_detach(struct transport *t)
{
    if (!t->uring)
        return;
    transport_uring_stop(t->uring, true);
    transport_uring_free(t->uring);
    t->uring = NULL;
}
