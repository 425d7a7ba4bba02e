/* SPDX-License-Identifier: MIT */
/* Who syncs lets those join who were just let go (durable.c), and nobody else pays for it. */
#include "fixture.h"
#include "spin.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <time.h>

#include <cmocka.h>

enum { THREADS = 6, PUTS = 200, PAUSE = 128, PATIENCE_S = 60 };

static atomic_uint yields;
static atomic_bool busy; /* another program takes the CPU at each of them */

bool __real_spin_yield(void);
bool __wrap_spin_yield(void);

bool __wrap_spin_yield(void)
{
    bool brief = __real_spin_yield();

    atomic_fetch_add(&yields, 1);
    return brief && !atomic_load(&busy);
}

/* A sync takes long enough for the others to append and to wait for it. */
static int slow_sync(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    (void)name;
    for (int i = 0; op == HOOK_SYNC && i < 50; i++)
        sched_yield();
    return 0;
}

static uint64_t syncs(struct keg *keg)
{
    struct keg_stats stats;

    keg_stats(keg, &stats);
    return stats.syncs;
}

/* fsync of a file, then of its directory: the second has nothing to wait for. */
static void test_alone(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    atomic_store(&yields, 0);
    for (unsigned i = 0; i < PUTS; i++) {
        assert_int_equal(fixture_put(f.keg, i, KEG_SYNC), 0);
        assert_int_equal(keg_sync(f.keg), 0);
    }
    assert_int_equal(atomic_load(&yields), 0);
    assert_int_equal(keg_close(f.keg), 0);
    fixture_free(&f);
}

struct writer {
    struct keg *keg;
    unsigned first;
    int err;
};

static void *write_synced(void *arg)
{
    struct writer *w = arg;

    for (unsigned i = 0; i < PUTS && !w->err; i++)
        w->err = fixture_put(w->keg, w->first + i, KEG_SYNC);
    return NULL;
}

static void write_together(struct keg *keg)
{
    struct writer writers[THREADS];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.keg = keg, .first = i * PUTS};
        assert_int_equal(pthread_create(&threads[i], NULL, write_synced, &writers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].err, 0);
    }
}

/* Where it takes long to let others run, that is not done at the next syncs. */
static void test_beside_others(void **state)
{
    time_t begin = time(NULL);
    struct fixture f;
    uint64_t before;

    (void)state;
    fixture_open(&f);
    f.hook.fn = slow_sync;
    before = syncs(f.keg);
    atomic_store(&yields, 0);
    atomic_store(&busy, true);
    do {
        write_together(f.keg);
        print_message("%u times in %u syncs\n", atomic_load(&yields),
                      (unsigned)(syncs(f.keg) - before));
        assert_in_range(atomic_load(&yields), 0, (syncs(f.keg) - before) / PAUSE + 1);
    } while (atomic_load(&yields) < 2 && time(NULL) - begin < PATIENCE_S);
    assert_true(atomic_load(&yields) >= 2); /* else it shows nothing */
    atomic_store(&busy, false);
    assert_int_equal(keg_close(f.keg), 0);
    fixture_free(&f);
}

static atomic_int good_syncs;

/* The same until so many were good; then each fails. */
static int slow_failing_sync(void *arg, enum hook_op op, const char *name)
{
    slow_sync(arg, op, name);
    return op == HOOK_SYNC && atomic_fetch_sub(&good_syncs, 1) <= 0 ? -EIO : 0;
}

static void *write_until_error(void *arg)
{
    struct writer *w = arg;

    for (unsigned i = 0; !w->err; i++)
        w->err = fixture_put(w->keg, w->first + i % PUTS, KEG_SYNC);
    return NULL;
}

/* Of those that wait for the next sync, only one is woken to make it. When it does not, since this
 * one has failed, all must hear of it. */
static void test_all_hear_of_a_failure(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        struct writer writers[THREADS];
        pthread_t threads[THREADS];
        struct fixture f;

        fixture_open(&f);
        atomic_store(&good_syncs, 20 + round);
        f.hook.fn = slow_failing_sync;
        for (unsigned i = 0; i < THREADS; i++) {
            writers[i] = (struct writer){.keg = f.keg, .first = i * PUTS};
            assert_int_equal(pthread_create(&threads[i], NULL, write_until_error, &writers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            struct timespec until = {.tv_sec = time(NULL) + PATIENCE_S};

            assert_int_equal(pthread_timedjoin_np(threads[i], NULL, &until), 0);
            assert_int_equal(writers[i].err, -EIO);
        }
        assert_int_equal(keg_close(f.keg), -EIO);
        fixture_free(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_beside_others),
        cmocka_unit_test(test_all_hear_of_a_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
