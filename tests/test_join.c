/* SPDX-License-Identifier: MIT */
/* Who syncs lets those join who were just let go (durable.c), and nobody else pays for it. */
#include "fixture.h"
#include "spin.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <time.h>

#include <cmocka.h>

enum { THREADS = 6, PUTS = 200, PAUSE = 128, PATIENCE_S = 30 };

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

/* ---- Who is woken to make a sync and finds that it need not ---- */

enum { FIRST, SECOND, NEWCOMER, THIRD }; /* who puts */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static unsigned begun, may_end; /* lock: syncs */
static unsigned asleep;         /* lock: calls of spin_sleep */
static bool hold_second;        /* lock: the second one, woken, does not go on yet */
static bool guarded;
static _Thread_local unsigned who;

void __real_spin_sleep(_Atomic uint32_t *word, uint32_t seen);
void __wrap_spin_sleep(_Atomic uint32_t *word, uint32_t seen);

void __wrap_spin_sleep(_Atomic uint32_t *word, uint32_t seen)
{
    pthread_mutex_lock(&lock);
    asleep++;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
    __real_spin_sleep(word, seen);
    pthread_mutex_lock(&lock);
    while (who == SECOND && hold_second)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
}

static int held_sync(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    (void)name;
    if (op != HOOK_SYNC || !guarded)
        return 0;
    pthread_mutex_lock(&lock);
    unsigned mine = begun++;
    pthread_cond_broadcast(&moved);
    while (mine >= may_end)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}

static void await_count(const unsigned *count, unsigned wanted)
{
    pthread_mutex_lock(&lock);
    while (*count < wanted)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
}

static void let(unsigned syncs_end, bool hold)
{
    pthread_mutex_lock(&lock);
    may_end = syncs_end;
    hold_second = hold;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static void *put_once(void *arg)
{
    struct writer *w = arg;

    who = w->first;
    w->err = fixture_put(w->keg, w->first, KEG_SYNC);
    return NULL;
}

static void expect_all(struct writer *writers, pthread_t *threads, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        struct timespec until = {.tv_sec = time(NULL) + PATIENCE_S};

        assert_int_equal(pthread_timedjoin_np(threads[i], NULL, &until), 0);
        assert_int_equal(writers[i].err, 0);
    }
}

/* One waits for the next sync. It is woken to make it, but a newcomer does. A third waits for the
 * one behind that. */
static void test_newcomer(void **state)
{
    struct writer writers[THIRD + 1];
    pthread_t threads[THIRD + 1];
    struct fixture f;

    (void)state;
    fixture_open(&f);
    f.hook.fn = held_sync;
    begun = may_end = asleep = 0;
    hold_second = guarded = true;
    for (unsigned i = FIRST; i <= THIRD; i++) {
        writers[i] = (struct writer){.keg = f.keg, .first = i};
        if (i == NEWCOMER)
            let(1, true); /* the first sync ends: the second thread is woken, and held */
        if (i == NEWCOMER)
            assert_int_equal(pthread_join(threads[FIRST], NULL), 0);
        assert_int_equal(pthread_create(&threads[i], NULL, put_once, &writers[i]), 0);
        if (i == FIRST || i == NEWCOMER)
            await_count(&begun, i == FIRST ? 1 : 2);
        if (i == SECOND || i == THIRD)
            await_count(&asleep, i == SECOND ? 1 : 3);
        if (i == NEWCOMER) {
            let(1, false);
            await_count(&asleep, 2); /* the second thread, once more */
        }
    }
    let(UINT_MAX, false);
    expect_all(writers, threads, SECOND, THIRD + 1);
    guarded = false;
    assert_int_equal(keg_close(f.keg), 0);
    fixture_free(&f);
}

static void *sync_only(void *arg)
{
    struct writer *w = arg;

    w->err = keg_sync(w->keg);
    return NULL;
}

/* The sync under way covers who come next: they wait for it, not for another, and nobody waits for
 * them to join another. */
static void test_covered_already(void **state)
{
    struct writer writers[THREADS];
    pthread_t threads[THREADS];
    struct fixture f;

    (void)state;
    fixture_open(&f);
    f.hook.fn = held_sync;
    begun = may_end = asleep = 0;
    hold_second = false;
    guarded = true;
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.keg = f.keg, .first = i};
        assert_int_equal(pthread_create(&threads[i], NULL, i ? sync_only : put_once, &writers[i]),
                         0);
        await_count(i ? &asleep : &begun, i ? i : 1);
    }
    let(UINT_MAX, false);
    expect_all(writers, threads, 0, THREADS);
    assert_int_equal(begun, 1);
    atomic_store(&yields, 0);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(fixture_put(f.keg, i, KEG_SYNC), 0);
    assert_int_equal(atomic_load(&yields), 0);
    guarded = false;
    assert_int_equal(keg_close(f.keg), 0);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_beside_others),
        cmocka_unit_test(test_all_hear_of_a_failure),
        cmocka_unit_test(test_newcomer),
        cmocka_unit_test(test_covered_already),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
