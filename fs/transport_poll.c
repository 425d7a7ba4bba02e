/* SPDX-License-Identifier: MIT */
#include "transport_poll.h"
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_US = 500,
    ASK_NS = 1000 * 1000,
    CALM_LEAST_NS = 1000 * 1000,
    CALM_MOST_NS = 20 * 1000 * 1000,
    MISSED_MOST = 4,
    SOON_NS = 200 * 1000, /* what comes later was not worth the wait */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void transport_poll_open(struct transport_poll_load *load, uint64_t us, unsigned rings)
{
    load->us = us != TRANSPORT_POLL_AUTO ? us : rings == 2 ? DEFAULT_US : 0;
    load->cpus = rings;
    load->fd = load->us ? open("/proc/loadavg", O_RDONLY | O_CLOEXEC) : -1;
    atomic_init(&load->polling, 0);
    atomic_init(&load->served, 0);
    /* In some containers it is a file of another FUSE filesystem: too slow to ask. */
    struct statfs fs;
    if (load->fd >= 0 && (fstatfs(load->fd, &fs) || fs.f_type != PROC_SUPER_MAGIC))
        transport_poll_close(load);
}

void transport_poll_close(struct transport_poll_load *load)
{
    if (load->fd >= 0)
        close(load->fd);
    load->fd = -1;
}

/* Others than those that poll want all CPUs, as far as can be told. */
static bool crowded(struct transport_poll_load *load)
{
    char text[128];
    unsigned running;
    ssize_t n = pread(load->fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return true;
    text[n] = '\0';
    if (sscanf(text, "%*s %*s %*s %u/", &running) != 1)
        return true;
    return running >= load->cpus + atomic_load_explicit(&load->polling, memory_order_relaxed);
}

/* A completion is there, or the kernel waits for the thread to come and make it. */
static bool ready(const struct io_uring *ring)
{
    return io_uring_cq_ready(ring) || (IO_URING_READ_ONCE(*ring->sq.kflags) & IORING_SQ_TASKRUN);
}

/* How long to keep still for a reason that was met so often in a row. Short at first: the daemon's
 * own threads, and the kernel's, come and go. */
static uint64_t calm_ns(unsigned times)
{
    uint64_t calm = CALM_LEAST_NS;
    while (times-- > 1 && calm < CALM_MOST_NS)
        calm *= 2;
    return calm < CALM_MOST_NS ? calm : CALM_MOST_NS;
}

/* Whether to go on, as far as others want the CPUs. */
static bool may_poll(struct transport_poll *poll, uint64_t now)
{
    if (now - poll->asked >= ASK_NS) {
        poll->asked = now;
        poll->crowded = crowded(poll->load) ? poll->crowded + 1 : 0;
        poll->calm_end = poll->crowded ? now + calm_ns(poll->crowded) : 0;
    }
    return now >= poll->calm_end;
}

/* This ring has had requests. */
static uint64_t say_served(struct transport_poll_load *load)
{
    const uint64_t now = now_ns();
    if (atomic_load_explicit(&load->served, memory_order_relaxed) < now)
        atomic_store_explicit(&load->served, now, memory_order_relaxed);
    return now;
}

static void look(struct transport_poll *poll, const struct io_uring *ring)
{
    struct transport_poll_load *load = poll->load;
    const uint64_t begin = say_served(load), length = load->us * 1000;
    uint64_t now = begin, served = begin;

    atomic_fetch_add_explicit(&load->polling, 1, memory_order_relaxed);
    while (!ready(ring) && now < served + length && may_poll(poll, now)) {
        sched_yield();
        now = now_ns();
        if (load->cpus == 2)
            served = atomic_load_explicit(&load->served, memory_order_relaxed);
    }
    atomic_fetch_sub_explicit(&load->polling, 1, memory_order_relaxed);
    bool soon = ready(ring) && now - begin <= SOON_NS;
    if (soon || served > begin + length) /* it was of use here, or for the client of the other */
        poll->missed = 0;
    else if (now >= poll->calm_end && ++poll->missed >= MISSED_MOST)
        poll->calm_end = now + calm_ns(poll->missed - MISSED_MOST + 1);
}

int transport_poll(struct transport_poll *poll, struct io_uring *ring)
{
    if (poll->load->fd < 0)
        return 0;
    if (now_ns() < poll->calm_end) {
        if (poll->missed < MISSED_MOST) /* others want this CPU, but the client does not pause */
            say_served(poll->load);
        return 0;
    }
    int err = io_uring_submit_and_get_events(ring);
    if (err < 0)
        return err;
    look(poll, ring);
    err = io_uring_cq_ready(ring) ? 0 : io_uring_get_events(ring);
    return err < 0 ? err : io_uring_cq_ready(ring) > 0;
}
