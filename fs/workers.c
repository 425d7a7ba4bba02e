/* SPDX-License-Identifier: MIT */
/*
 * Each idle thread waits on a condition of its own. One condition for all would do by POSIX, but up
 * to glibc 2.40 a signal may be lost where several threads wait (sourceware bug 25847), and a job
 * would be left lying until the next.
 */
#include "workers.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct queue {
    struct workers_job *first, **last;
};

struct sleeper { /* on the stack of its thread */
    struct sleeper *next;
    pthread_cond_t wake;
    bool called;
};

struct workers {
    pthread_mutex_t lock; /* for all below but max */
    struct sleeper *sleepers;
    struct queue ready, waiting; /* waiting: for a job of their kind to end */
    unsigned idle, queued, count, max;
    unsigned waits; /* jobs in `ready` or running that wait for others */
    bool ending;
    pthread_t threads[];
};

static void add(struct queue *queue, struct workers_job *job)
{
    job->next = NULL;
    *queue->last = job;
    queue->last = &job->next;
}

static struct workers_job *take(struct queue *queue)
{
    struct workers_job *job = queue->first;
    if (job)
        queue->first = job->next;
    if (!queue->first)
        queue->last = &queue->first;
    return job;
}

/* Is there one to be called? */
static bool call_one_locked(struct workers *w)
{
    struct sleeper *sleeper = w->sleepers;
    if (!sleeper)
        return false;
    w->sleepers = sleeper->next;
    sleeper->called = true;
    pthread_cond_signal(&sleeper->wake);
    return true;
}

static void sleep_unlocked(struct workers *w)
{
    struct sleeper self = {.next = w->sleepers, .wake = PTHREAD_COND_INITIALIZER};
    w->sleepers = &self;
    w->idle++;
    while (!self.called)
        pthread_cond_wait(&self.wake, &w->lock);
    w->idle--;
    pthread_cond_destroy(&self.wake);
}

static void make_ready_locked(struct workers *w, struct workers_job *job)
{
    w->waits += job->waits;
    add(&w->ready, job);
    w->queued++;
    (void)call_one_locked(w);
}

static bool may_wait_locked(const struct workers *w)
{
    return w->waits < (w->count + 1) / 2;
}

static void run_unlocked(struct workers *w, struct workers_job *job)
{
    const bool waits = job->waits;
    w->queued--;
    pthread_mutex_unlock(&w->lock);
    job->run(job);
    pthread_mutex_lock(&w->lock);
    w->waits -= waits;
    if (waits && (job = take(&w->waiting)))
        make_ready_locked(w, job);
}

static void *work(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct workers_job *job = take(&w->ready);
        if (job) {
            run_unlocked(w, job);
        } else if (w->ending && !w->waits) {
            break;
        } else {
            sleep_unlocked(w);
        }
    }
    while (call_one_locked(w))
        ;
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static int add_thread_locked(struct workers *w)
{
    int err = -pthread_create(&w->threads[w->count], NULL, work, w);
    w->count += !err;
    return err;
}

int workers_new(unsigned max_threads, struct workers **out)
{
    int err = 0;
    struct workers *w = calloc(1, sizeof *w + max_threads * sizeof w->threads[0]);
    if (!w)
        return -ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    w->ready.last = &w->ready.first;
    w->waiting.last = &w->waiting.first;
    w->max = max_threads;
    pthread_mutex_lock(&w->lock);
    while (!err && w->count < 2)
        err = add_thread_locked(w);
    pthread_mutex_unlock(&w->lock);
    if (err)
        workers_free(w);
    else
        *out = w;
    return err;
}

static void add_threads_locked(struct workers *w, const struct workers_job *job)
{
    /* One more unless enough are idle for all that is queued. */
    unsigned wanted = w->count + (w->queued >= w->idle);
    /* For each that waits for others there is one that does not, before it may run. */
    if (job->waits && wanted < 2 * (w->waits + 1))
        wanted = 2 * (w->waits + 1);
    while (w->count < wanted && w->count < w->max && !add_thread_locked(w))
        ;
}

void workers_run(struct workers *w, struct workers_job *job)
{
    pthread_mutex_lock(&w->lock);
    add_threads_locked(w, job);
    if (job->waits && !may_wait_locked(w))
        add(&w->waiting, job);
    else
        make_ready_locked(w, job);
    pthread_mutex_unlock(&w->lock);
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    while (call_one_locked(w))
        ;
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->count; i++)
        pthread_join(w->threads[i], NULL);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
