/* SPDX-License-Identifier: MIT */
#include "workers.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

/* How many threads may be made still, as where the number of processes is limited. */
static int threads_left = INT_MAX;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    if (!threads_left)
        return EAGAIN;
    threads_left--;
    return __real_pthread_create(thread, attr, run, arg);
}

struct counted {
    struct workers_job job;
    atomic_int *done;
    pthread_barrier_t *barrier;
};

static void count(struct workers_job *job)
{
    struct counted *c = (struct counted *)job;
    if (c->barrier)
        pthread_barrier_wait(c->barrier);
    atomic_fetch_add(c->done, 1);
    free(c);
}

static void add(struct workers *workers, atomic_int *done, pthread_barrier_t *barrier)
{
    struct counted *c = malloc(sizeof *c);
    assert_non_null(c);
    *c = (struct counted){.job.run = count, .done = done, .barrier = barrier};
    workers_run(workers, &c->job);
}

static void test_all_are_done(void **state)
{
    struct workers *workers;
    atomic_int done = 0;
    (void)state;
    assert_int_equal(workers_new(3, &workers), 0);
    for (int i = 0; i < 1000; i++)
        add(workers, &done, NULL);
    workers_free(workers);
    assert_int_equal(done, 1000);
}

/* Jobs that wait for each other: as many as there may be threads must run at once. */
static void test_run_together(void **state)
{
    enum { THREADS = 8 };
    struct workers *workers;
    pthread_barrier_t barrier;
    atomic_int done = 0;
    (void)state;
    assert_int_equal(workers_new(THREADS, &workers), 0);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int round = 0; round < 200; round++)
        for (int i = 0; i < THREADS; i++)
            add(workers, &done, &barrier);
    workers_free(workers);
    assert_int_equal(done, 200 * THREADS);
    pthread_barrier_destroy(&barrier);
}

struct waiter {
    struct workers_job job;
    pthread_mutex_t *lock;
    pthread_cond_t *changed;
    int *open; /* set by the one that all the others wait for */
    int *done;
    bool opens;
};

static void wait_or_open(struct workers_job *job)
{
    struct waiter *w = (struct waiter *)job;
    pthread_mutex_lock(w->lock);
    if (w->opens)
        *w->open = 1;
    pthread_cond_broadcast(w->changed);
    while (!*w->open)
        pthread_cond_wait(w->changed, w->lock);
    ++*w->done;
    pthread_mutex_unlock(w->lock);
    free(w);
}

static void run_those_that_wait(unsigned max_threads, int threads)
{
    enum { JOBS = 32 };
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
    struct workers *workers;
    int open = 0, done = 0;
    threads_left = threads;
    assert_int_equal(workers_new(max_threads, &workers), 0);
    for (int i = 0; i <= JOBS; i++) {
        struct waiter *w = malloc(sizeof *w);
        assert_non_null(w);
        *w = (struct waiter){.job = {.run = wait_or_open, .waits = i < JOBS},
                             .lock = &lock,
                             .changed = &changed,
                             .open = &open,
                             .done = &done,
                             .opens = i == JOBS};
        workers_run(workers, &w->job);
    }
    workers_free(workers);
    threads_left = INT_MAX;
    assert_int_equal(done, JOBS + 1);
}

/* 32 releases that fail at once with -o sync: each has the kernel forget pages, which may wait for
 * a WRITE, which needs a worker. However many wait, the job that they wait for gets a thread. */
static void test_those_that_wait_leave_room(void **state)
{
    (void)state;
    run_those_that_wait(4, INT_MAX);
}

/* So it is when fewer threads can be made than there may be. */
static void test_few_threads(void **state)
{
    (void)state;
    for (int threads = 2; threads < 8; threads++)
        run_those_that_wait(8, threads);
}

/* A job may wait for the thread that hands it over, so there is none that would run it there. */
static void test_no_threads(void **state)
{
    struct workers *workers;
    (void)state;
    for (threads_left = 0; threads_left < 2; threads_left++) {
        int left = threads_left;
        assert_int_equal(workers_new(8, &workers), -EAGAIN);
        threads_left = left;
    }
    threads_left = INT_MAX;
}

static void test_nothing_to_do(void **state)
{
    struct workers *workers;
    (void)state;
    assert_int_equal(workers_new(4, &workers), 0);
    workers_free(workers);
    workers_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_are_done),
        cmocka_unit_test(test_run_together),
        cmocka_unit_test(test_those_that_wait_leave_room),
        cmocka_unit_test(test_few_threads),
        cmocka_unit_test(test_no_threads),
        cmocka_unit_test(test_nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
