/* SPDX-License-Identifier: MIT */
#include "workers.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct workers_job *first, **last; /* lock */
    unsigned idle, queued, count, max; /* lock */
    bool ending;                       /* lock */
    pthread_t threads[];
};

static void *work(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct workers_job *job = w->first;
        if (!job) {
            if (w->ending)
                break;
            w->idle++;
            pthread_cond_wait(&w->wake, &w->lock);
            w->idle--;
            continue;
        }
        w->first = job->next;
        if (!w->first)
            w->last = &w->first;
        w->queued--;
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int workers_new(unsigned max_threads, struct workers **out)
{
    struct workers *w = calloc(1, sizeof *w + max_threads * sizeof w->threads[0]);
    if (!w)
        return -ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    w->last = &w->first;
    w->max = max_threads;
    *out = w;
    return 0;
}

void workers_run(struct workers *w, struct workers_job *job)
{
    pthread_mutex_lock(&w->lock);
    /* One more thread unless enough are idle for all that waits. */
    if (w->queued >= w->idle && w->count < w->max &&
        !pthread_create(&w->threads[w->count], NULL, work, w))
        w->count++;
    if (!w->count) {
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        return;
    }
    job->next = NULL;
    *w->last = job;
    w->last = &job->next;
    w->queued++;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->count; i++)
        pthread_join(w->threads[i], NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    free(w);
}
