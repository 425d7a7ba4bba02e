/* SPDX-License-Identifier: MIT */
/*
 * FUSE over io_uring: the kernel (6.14 and later) has a queue for each possible CPU, and sends a
 * request to that of the CPU which the client runs on. A queue has entries, each a buffer of ours
 * that the kernel was told of by REGISTER. A completion says that an entry holds a request; the
 * answer goes into the same entry, and COMMIT_AND_FETCH gives it back to the kernel and waits for
 * the next request. So a request costs one system call and no thread is woken on another CPU.
 *
 * Threads. A ring belongs to one thread, pinned to a CPU, that makes, submits and waits (without
 * that promise, and without DEFER_TASKRUN, it is markedly slower). There is a ring for each CPU
 * that the process may run on; the queues of the others (not there yet, or not ours) are shared
 * out among the rings, for the kernel sends nothing anywhere before each queue has an entry.
 * Before a thread sleeps it may poll (transport_poll.h).
 *
 * Who owns an entry: the kernel, but from the completion until COMMIT_AND_FETCH is submitted it is
 * the request's, whose number is in `unique` then. A handler that replies at once does so in the
 * ring's thread, into the entry that `current` names. A late reply comes from any thread: it finds
 * the entry by its number, fills it, puts it on its ring's list `answered` and wakes the ring by
 * its eventfd. Rejected: a lock around each ring, which costs DEFER_TASKRUN and with it what the
 * rings are for.
 *
 * A request whose reply is late keeps its entry. So that fsyncs, of which there may be many, never
 * take all of a queue, the ring adds an entry to a queue in which fewer than SPARE are left, up to
 * MOST. It must do so before the queue is full, for the kernel looks at what waits only when an
 * entry comes back.
 *
 * Memory: an entry is 1 MiB of address space, touched as far as requests reach. The kernel uses the
 * entry that came back last. What large requests have touched is given back after idle seconds.
 *
 * INIT, forgets, interrupts and notifications go over /dev/fuse (transport_device.c). If the kernel
 * refuses a REGISTER, so does everything.
 *
 * The end: entries complete with ENOTCONN when the mount is gone or aborted. When the session is to
 * end but the mount is there still, `stopping` is set: late replies are waited for and what comes
 * in between is refused, because giving back an entry cannot be had without fetching.
 */
#define FUSE_USE_VERSION 314
#include "log.h"
#include "transport_choice.h"
#include "transport_entry.h"
#include "transport_poll.h"
#include <errno.h>
#include <fuse_lowlevel.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    DEPTH = 8,        /* entries of a queue at first */
    ABSENT_DEPTH = 2, /* of a CPU that is not there */
    SPARE = 4,
    MOST = 64,
    SUBMISSIONS = 64, /* room for these; more are submitted in between */
    IDLE_S = 2,
};

/* ---- The kernel's interface; Debian 12's headers are older ---- */

enum { CMD_REGISTER = 1, CMD_COMMIT_AND_FETCH = 2 };

struct command {
    uint64_t flags;
    uint64_t commit_id;
    uint16_t queue;
    uint8_t padding[6];
};
_Static_assert(sizeof(struct command) == 24, "as the kernel has it");

/* ---- Ours ---- */

struct transport_queue {
    struct ring *ring;
    unsigned id, depth;
    unsigned late;          /* its ring's thread */
    _Atomic unsigned count; /* only grows */
    struct transport_entry entries[MOST];
};

struct ring {
    struct transport_uring *uring;
    struct io_uring io;
    pthread_t thread;
    int cpu; /* -1: anywhere */
    int wake;
    uint64_t wake_count;
    unsigned late;    /* the thread's */
    bool over, large; /* the thread's */
    struct transport_poll poll;
    pthread_mutex_t lock;
    struct transport_entry *answered; /* lock */
};

enum state { WAITING, GOING, ENDED };

struct transport_uring {
    struct transport *t;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned made;    /* lock: threads that have set up */
    int err;          /* lock: of the first that could not */
    enum state state; /* lock */
    atomic_bool stopping, gone, serves;
    bool joined;
    struct transport_poll_load load;
    unsigned ring_count, queue_count, started;
    struct ring *rings;
    struct transport_queue **queues;
};

static _Thread_local struct transport_entry *current;

/* ---- Submissions: the ring's thread ---- */

static struct io_uring_sqe *next_sqe(struct ring *ring)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring->io)))
        (void)io_uring_submit(&ring->io);
    return sqe;
}

static void submit_command(struct transport_entry *e, unsigned op)
{
    struct io_uring_sqe *sqe = next_sqe(e->queue->ring);
    const struct command command = {.commit_id = e->commit_id, .queue = (uint16_t)e->queue->id};
    memset(sqe, 0, 2 * sizeof *sqe); /* it is one of 128 bytes */
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE; /* the only one registered */
    sqe->cmd_op = op;
    if (op == CMD_REGISTER) {
        sqe->addr = (uint64_t)(uintptr_t)e->parts;
        sqe->len = 2;
    }
    memcpy(sqe->cmd, &command, sizeof command);
    io_uring_sqe_set_data(sqe, e);
}

static void give_back(struct transport_entry *e)
{
    if (transport_entry_large(e)) /* the reply */
        e->queue->ring->large = true;
    atomic_store_explicit(&e->unique, 0, memory_order_relaxed);
    e->registering = false;
    submit_command(e, CMD_COMMIT_AND_FETCH);
}

static void await_wake(struct ring *ring)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_read(sqe, ring->wake, &ring->wake_count, sizeof ring->wake_count, 0);
    io_uring_sqe_set_data(sqe, NULL);
}

static void wake_ring(struct ring *ring)
{
    (void)eventfd_write(ring->wake, 1);
}

/* ---- Entries ---- */

static int add_entry(struct transport_queue *q)
{
    unsigned i = atomic_load_explicit(&q->count, memory_order_relaxed);
    int err = i < MOST ? transport_entry_init(&q->entries[i], q) : -ENOSPC;
    if (!err)
        atomic_store_explicit(&q->count, i + 1, memory_order_release);
    return err;
}

static void register_entry(struct transport_entry *e)
{
    e->registering = true;
    e->commit_id = 0;
    submit_command(e, CMD_REGISTER);
}

/* Gives back what large requests have touched of the entries that the kernel has. Only this thread
 * takes requests into them, so none comes meanwhile. */
static void trim(struct ring *ring)
{
    ring->large = false;
    for (unsigned i = 0; i < ring->uring->queue_count; i++) {
        struct transport_queue *q = ring->uring->queues[i];
        for (unsigned k = 0; q->ring == ring && k < q->count; k++)
            if (!atomic_load_explicit(&q->entries[k].unique, memory_order_relaxed))
                transport_entry_trim(&q->entries[k]);
    }
}

/* ---- Replies ---- */

static struct transport_entry *find(struct transport_uring *uring, uint64_t unique)
{
    for (unsigned i = 0; i < uring->queue_count; i++) {
        struct transport_queue *q = uring->queues[i];
        unsigned count = atomic_load_explicit(&q->count, memory_order_acquire);
        for (unsigned k = 0; k < count; k++)
            if (atomic_load_explicit(&q->entries[k].unique, memory_order_acquire) == unique)
                return &q->entries[k];
    }
    return NULL;
}

bool transport_uring_reply(struct transport_uring *uring, const struct iovec *iov, int count)
{
    const struct fuse_out_header *out = iov[0].iov_base;
    const uint64_t unique = out->unique;
    if (current && atomic_load_explicit(&current->unique, memory_order_relaxed) == unique) {
        transport_entry_fill(current, iov, count);
        current->replied = true;
        return true;
    }
    struct transport_entry *e = find(uring, unique);
    if (!e)
        return false;
    transport_entry_fill(e, iov, count);
    struct ring *ring = e->queue->ring;
    pthread_mutex_lock(&ring->lock);
    bool first = !ring->answered;
    e->next = ring->answered;
    ring->answered = e;
    pthread_mutex_unlock(&ring->lock);
    if (first)
        wake_ring(ring);
    return true;
}

void *transport_uring_room(size_t size)
{
    /* The payload of a READ is empty, so the reply may be put together there. */
    return current && !current->header->payload_size && size <= TRANSPORT_PAYLOAD ? current->payload
                                                                                  : NULL;
}

/* ---- Requests: the ring's thread ---- */

static void serve_handed(struct workers_job *job)
{
    struct transport_entry *e = (struct transport_entry *)job;
    transport_serve(e->queue->ring->uring->t, e->message, e->len);
}

static void refuse(struct transport_entry *e, uint64_t unique, int error)
{
    struct fuse_out_header out = {.unique = unique, .error = error};
    transport_entry_fill(e, &(struct iovec){&out, sizeof out}, 1);
    give_back(e);
}

/* The request's reply is late: it keeps its entry, so the queue may need another. */
static void count_late(struct transport_queue *q)
{
    q->late++;
    q->ring->late++;
    unsigned count = atomic_load_explicit(&q->count, memory_order_relaxed);
    if (count - q->late < SPARE && !add_entry(q))
        register_entry(&q->entries[count]);
}

static void serve(struct transport_entry *e)
{
    struct ring *ring = e->queue->ring;
    struct transport_uring *uring = ring->uring;
    if (transport_entry_take(e)) {
        log_error("io_uring: a request that makes no sense: unmounting");
        kill(getpid(), SIGTERM);
        ring->over = true;
        return;
    }
    if (transport_entry_large(e))
        ring->large = true;
    if (atomic_load(&uring->stopping)) {
        refuse(e, atomic_load(&e->unique), -ECONNABORTED);
        return;
    }
    if (transport_waits(uring->t, e->message, e->len)) {
        e->job.run = serve_handed;
        count_late(e->queue);
        workers_run(uring->t->workers, &e->job);
        return;
    }
    current = e;
    transport_serve(uring->t, e->message, e->len);
    current = NULL;
    if (e->replied)
        give_back(e);
    else
        count_late(e->queue);
}

static void take_answered(struct ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    struct transport_entry *e = ring->answered;
    ring->answered = NULL;
    pthread_mutex_unlock(&ring->lock);
    for (struct transport_entry *next; e; e = next) {
        next = e->next;
        e->queue->late--;
        ring->late--;
        give_back(e);
    }
}

/* A command of the entry failed. */
static void complete_failed(struct transport_entry *e, int err)
{
    struct ring *ring = e->queue->ring;
    struct transport_uring *uring = ring->uring;
    if (err == -EAGAIN || err == -EINTR) {
        submit_command(e, e->registering ? CMD_REGISTER : CMD_COMMIT_AND_FETCH);
    } else if (err == -ENOTCONN || err == -ECONNABORTED || err == -ECANCELED) {
        ring->over = true;
    } else if (e->registering) { /* one of the first: then the kernel goes on with /dev/fuse */
        log_warning("io_uring: an entry of queue %u is refused: %s", e->queue->id, strerror(-err));
        if (e < e->queue->entries + e->queue->depth) {
            atomic_store(&uring->serves, false);
            atomic_store(&uring->t->name, transport_choice_name(TRANSPORT_SPIN));
        }
    } else { /* lost; the client has an error */
        log_error("io_uring: a reply is refused: %s", strerror(-err));
    }
}

static void complete(struct ring *ring, const struct io_uring_cqe *cqe)
{
    struct transport_entry *e = io_uring_cqe_get_data(cqe);
    if (!e)
        await_wake(ring);
    else if (cqe->res < 0)
        complete_failed(e, cqe->res);
    else
        serve(e);
}

/* ---- The thread ---- */

static int make_ring(struct ring *ring)
{
    unsigned most = 1;
    for (unsigned i = 0; i < ring->uring->queue_count; i++)
        most += ring->uring->queues[i]->ring == ring ? MOST : 0;
    struct io_uring_params params = {
        .flags = IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE |
                 IORING_SETUP_CLAMP,
        .cq_entries = most};
    const int fd = fuse_session_fd(ring->uring->t->session);
    int err = io_uring_queue_init_params(SUBMISSIONS, &ring->io, &params);
    if (err)
        return err;
    err = io_uring_register_files(&ring->io, &fd, 1);
    if (err)
        io_uring_queue_exit(&ring->io);
    else
        (void)io_uring_register_ring_fd(&ring->io); /* only saves a look-up */
    return err;
}

/* Says how it went, and waits for the word to go. */
static bool may_go(struct transport_uring *uring, int err)
{
    pthread_mutex_lock(&uring->lock);
    uring->made++;
    if (err && !uring->err)
        uring->err = err;
    pthread_cond_broadcast(&uring->changed);
    while (uring->state == WAITING)
        pthread_cond_wait(&uring->changed, &uring->lock);
    bool go = uring->state == GOING;
    pthread_mutex_unlock(&uring->lock);
    return go && !err;
}

/* busy: something came the last time. */
static int submit_and_wait(struct ring *ring, bool busy)
{
    struct __kernel_timespec idle = {.tv_sec = IDLE_S};
    struct io_uring_cqe *cqe;
    int err = busy ? transport_poll(&ring->poll, &ring->io) : 0;
    if (err)
        return err;
    if (!ring->large)
        return io_uring_submit_and_wait(&ring->io, 1);
    err = io_uring_submit_and_wait_timeout(&ring->io, &cqe, 1, &idle, NULL);
    if (err == -ETIME)
        trim(ring);
    return err == -ETIME ? 0 : err;
}

static void run(struct ring *ring)
{
    struct transport_uring *uring = ring->uring;
    unsigned count = 0;
    while (!ring->over && !atomic_load(&uring->gone) &&
           (!atomic_load(&uring->stopping) || ring->late)) {
        struct io_uring_cqe *cqe;
        unsigned head;
        int err = submit_and_wait(ring, count > 0);
        if (err < 0 && err != -EINTR && err != -EAGAIN && err != -EBUSY) {
            log_error("io_uring: %s: unmounting", strerror(-err));
            kill(getpid(), SIGTERM);
            break;
        }
        count = 0;
        io_uring_for_each_cqe(&ring->io, head, cqe)
        {
            complete(ring, cqe);
            count++;
        }
        io_uring_cq_advance(&ring->io, count);
        take_answered(ring);
    }
    /* The last replies that were waited for: nothing else submits them any more. */
    if (!ring->over && !atomic_load(&uring->gone))
        (void)io_uring_submit(&ring->io);
}

static void *ring_thread(void *arg)
{
    struct ring *ring = arg;
    struct transport_uring *uring = ring->uring;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (ring->cpu >= 0) {
        CPU_SET((size_t)ring->cpu, &cpus);
        (void)sched_setaffinity(0, sizeof cpus, &cpus); /* if not, it is slower */
    }
    int err = make_ring(ring);
    if (may_go(uring, err)) {
        for (unsigned i = 0; i < uring->queue_count; i++)
            for (unsigned k = 0; uring->queues[i]->ring == ring && k < uring->queues[i]->depth; k++)
                register_entry(&uring->queues[i]->entries[k]);
        await_wake(ring);
        run(ring);
    }
    if (!err)
        io_uring_queue_exit(&ring->io);
    return NULL;
}

/* ---- Setting up ---- */

static int make_queue(struct transport_uring *uring, unsigned id, struct ring *ring, unsigned depth)
{
    struct transport_queue *q = calloc(1, sizeof *q);
    if (!q)
        return -ENOMEM;
    uring->queues[id] = q;
    q->ring = ring;
    q->id = id;
    int err = 0;
    for (q->depth = 0; !err && q->depth < depth; q->depth += !err)
        err = add_entry(q);
    return err;
}

static int make_queues(struct transport_uring *uring, const cpu_set_t *ours)
{
    int err = 0;
    unsigned used = 0, online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    for (unsigned i = 0; i < uring->queue_count && used < uring->ring_count; i++)
        if (CPU_ISSET(i, ours))
            uring->rings[used++].cpu = (int)i;
    used = 0;
    for (unsigned i = 0; !err && i < uring->queue_count; i++) {
        bool own = CPU_ISSET(i, ours) && used < uring->ring_count;
        struct ring *ring = own ? &uring->rings[used++] : &uring->rings[i % uring->ring_count];
        err = make_queue(uring, i, ring, own || i < online ? DEPTH : ABSENT_DEPTH);
    }
    return err;
}

static int start_threads(struct transport_uring *uring)
{
    int err = 0;
    while (!err && uring->started < uring->ring_count) {
        struct ring *ring = &uring->rings[uring->started];
        err = -pthread_create(&ring->thread, NULL, ring_thread, ring);
        uring->started += !err;
    }
    pthread_mutex_lock(&uring->lock);
    while (uring->made < uring->started)
        pthread_cond_wait(&uring->changed, &uring->lock);
    err = err ? err : uring->err;
    pthread_mutex_unlock(&uring->lock);
    return err;
}

static int set_up(struct transport_uring *uring)
{
    cpu_set_t ours;
    if (sched_getaffinity(0, sizeof ours, &ours))
        CPU_ZERO(&ours);
    for (unsigned i = 0; i < uring->queue_count && i < CPU_SETSIZE; i++)
        uring->ring_count += CPU_ISSET(i, &ours) != 0;
    if (!uring->ring_count)
        uring->ring_count = 1;
    uring->rings = calloc(uring->ring_count, sizeof *uring->rings);
    uring->queues = calloc(uring->queue_count, sizeof(struct transport_queue *));
    if (!uring->rings || !uring->queues) {
        uring->ring_count = uring->queue_count = 0;
        return -ENOMEM;
    }
    for (unsigned i = 0; i < uring->ring_count; i++) {
        struct ring *ring = &uring->rings[i];
        ring->uring = uring;
        ring->cpu = -1;
        ring->wake = -1;
        ring->poll.load = &uring->load;
        pthread_mutex_init(&ring->lock, NULL);
    }
    for (unsigned i = 0; i < uring->ring_count; i++)
        if ((uring->rings[i].wake = eventfd(0, EFD_CLOEXEC)) < 0)
            return -errno;
    transport_poll_open(&uring->load, uring->t->poll_us, uring->ring_count);
    int err = make_queues(uring, &ours);
    return err ? err : start_threads(uring);
}

int transport_uring_new(struct transport *t, struct transport_uring **out)
{
    struct transport_uring *uring = calloc(1, sizeof *uring);
    if (!uring)
        return -ENOMEM;
    uring->load.fd = -1;
    uring->t = t;
    uring->queue_count = transport_possible_cpus();
    pthread_mutex_init(&uring->lock, NULL);
    pthread_cond_init(&uring->changed, NULL);
    int err = uring->queue_count > UINT16_MAX ? -E2BIG : set_up(uring);
    if (err) {
        transport_uring_stop(uring, true);
        transport_uring_free(uring);
        return err;
    }
    *out = uring;
    return 0;
}

static void set_state(struct transport_uring *uring, enum state state)
{
    pthread_mutex_lock(&uring->lock);
    uring->state = state;
    pthread_cond_broadcast(&uring->changed);
    pthread_mutex_unlock(&uring->lock);
}

void transport_uring_go(struct transport_uring *uring)
{
    atomic_store(&uring->serves, true);
    set_state(uring, GOING);
}

bool transport_uring_serves(const struct transport_uring *uring)
{
    return atomic_load(&uring->serves);
}

void transport_uring_stop(struct transport_uring *uring, bool gone)
{
    if (uring->joined)
        return;
    uring->joined = true;
    atomic_store(&uring->gone, gone);
    atomic_store(&uring->stopping, true);
    set_state(uring, ENDED);
    for (unsigned i = 0; i < uring->started; i++)
        wake_ring(&uring->rings[i]);
    for (unsigned i = 0; i < uring->started; i++)
        pthread_join(uring->rings[i].thread, NULL);
}

void transport_uring_free(struct transport_uring *uring)
{
    for (unsigned i = 0; i < uring->queue_count; i++) {
        struct transport_queue *q = uring->queues[i];
        for (unsigned k = 0; q && k < q->count; k++)
            transport_entry_free(&q->entries[k]);
        free(q);
    }
    for (unsigned i = 0; i < uring->ring_count; i++) {
        if (uring->rings[i].wake >= 0)
            close(uring->rings[i].wake);
        pthread_mutex_destroy(&uring->rings[i].lock);
    }
    transport_poll_close(&uring->load);
    pthread_cond_destroy(&uring->changed);
    pthread_mutex_destroy(&uring->lock);
    free(uring->rings);
    free(uring->queues);
    free(uring);
}
