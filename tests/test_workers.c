/* SPDX-License-Identifier: MIT */
#include "workers.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

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
        cmocka_unit_test(test_nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
