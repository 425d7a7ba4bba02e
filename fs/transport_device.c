/* SPDX-License-Identifier: MIT */
/*
 * /dev/fuse, by one thread. A thread that sleeps in read(2) costs the client 30 to 57 us for each
 * request, most of it to wake a halted CPU; so after a request the next is awaited for 20 us with
 * reads that do not block, and only then in poll(2). An idle mount costs nothing.
 *
 * More threads made it slower in every arrangement that was tried: each reads a part of the
 * requests and sleeps longer in between. What waits for the disk is handled by the workers, so one
 * thread is enough.
 *
 * Beside the rings of io_uring this thread answers INIT and takes what the kernel does not send
 * over them: forgets and interrupts. Forgets come in batches of what has gathered, so it lets them
 * gather.
 */
#define FUSE_USE_VERSION 314
#include "transport_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER = TRANSPORT_PAYLOAD + (64 << 10), /* the kernel wants room for the header, too */
    SPIN_NS = 20 * 1000,
    GATHER_NS = 5 * 1000000,
};

struct device {
    struct transport *t;
    int fd;
    char *buffer;
    uint64_t spin; /* ns */
    uint64_t last; /* when the last request was over; 0: nothing came since the last poll */
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- A request that waits for the disk ---- */

struct handed {
    struct workers_job job; /* first */
    struct transport *t;
    size_t len;
    char message[] __attribute__((aligned(8)));
};

static void serve_handed(struct workers_job *job)
{
    struct handed *h = (struct handed *)job;
    struct transport *t = h->t;
    const size_t len = h->len;
    transport_serve(t, h->message, len);
    free(h);
    requests_waited(&t->requests, len);
}

/* False: as much is waiting as may, so the kernel has to: this thread does it, and takes no more.
 */
static bool hand_over(struct device *d, size_t len)
{
    if (!requests_may_wait(&d->t->requests, len, d->t->waiting_max))
        return false;
    struct handed *h = malloc(sizeof *h + len);
    if (!h) {
        requests_waited(&d->t->requests, len);
        return false;
    }
    *h = (struct handed){.job.run = serve_handed, .t = d->t, .len = len};
    memcpy(h->message, d->buffer, len);
    workers_run(d->t->workers, &h->job);
    return true;
}

/* ---- The loop ---- */

static void let_forgets_gather(const struct device *d)
{
    const struct timespec pause = {.tv_nsec = GATHER_NS};
    const struct fuse_in_header *in = (const struct fuse_in_header *)(const void *)d->buffer;
    if ((in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET) && d->t->uring &&
        transport_uring_serves(d->t->uring))
        nanosleep(&pause, NULL);
}

static void serve(struct device *d, size_t len)
{
    if (!transport_waits(d->t, d->buffer, len) || !hand_over(d, len))
        transport_serve(d->t, d->buffer, len);
    let_forgets_gather(d);
}

/* Nothing is there to read. 0 or -errno. */
static int await(struct device *d)
{
    struct pollfd fd = {.fd = d->fd, .events = POLLIN};
    if (d->last && now_ns() - d->last < d->spin) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
        return 0;
    }
    d->last = 0;
    return poll(&fd, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

static int loop(struct device *d)
{
    while (!fuse_session_exited(d->t->session)) {
        ssize_t n = read(d->fd, d->buffer, BUFFER);
        int err = 0;
        if (n >= (ssize_t)sizeof(struct fuse_in_header)) {
            serve(d, (size_t)n);
            d->last = d->spin ? now_ns() : 0;
        } else if (n >= 0) {
            err = -EIO;
        } else if (errno == EAGAIN) {
            err = await(d);
        } else if (errno == ENODEV) {
            return 0;                                   /* unmounted, or aborted */
        } else if (errno != EINTR && errno != ENOENT) { /* a signal, an aborted request */
            err = -errno;
        }
        if (err)
            return err;
    }
    return 0;
}

/* Where there is but one CPU, who spins keeps the client from going on. */
static uint64_t spin_time(void)
{
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof cpus, &cpus) || CPU_COUNT(&cpus) > 1 ? SPIN_NS : 0;
}

static int prepare(struct device *d)
{
    int flags = fcntl(d->fd, F_GETFL);
    if (flags < 0 || fcntl(d->fd, F_SETFL, flags | O_NONBLOCK))
        return -errno;
    d->buffer = aligned_alloc(4096, BUFFER);
    return d->buffer ? 0 : -ENOMEM;
}

int transport_device_loop(struct transport *t)
{
    struct device d = {.t = t, .fd = fuse_session_fd(t->session), .spin = spin_time()};
    int err = prepare(&d);
    if (!err)
        err = loop(&d);
    if (t->uring)
        transport_uring_stop(t->uring, !fuse_session_exited(t->session));
    free(d.buffer);
    return err;
}
