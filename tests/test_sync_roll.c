/* SPDX-License-Identifier: MIT */
/* A sync fails while others wait for its end: those who want to know of it, and a roll, whose seal
 * syncs the same file and would be told that all is well. */
#include "fixture.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { WAITERS = 8, VALUE = 3000, ROUNDS = 20 };

static struct fixture fixture;
static atomic_bool armed, in_sync, rolling, failed;
static atomic_uint after; /* seals and manifests after the failure */

static void wait_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

/* The first sync of the first segment lasts until a roll has made the second one, and fails. */
static int hook(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    if (op == HOOK_CREATE && !strcmp(name, "00000002.data"))
        atomic_store(&rolling, true);
    if (op == HOOK_SYNC && !strcmp(name, "00000001.data") && atomic_exchange(&armed, false)) {
        struct env_fault_plan plan = {.kind = ENV_FAULT_EIO, .at = 1};

        atomic_store(&in_sync, true);
        while (!atomic_load(&rolling))
            wait_ms(1);
        wait_ms(5); /* a roll that does not wait by then finds the store poisoned: just as well */
        env_fault_set(fixture.disk, &plan);
        atomic_store(&failed, true);
    }
    if ((op == HOOK_SEAL || op == HOOK_PUBLISH) && atomic_load(&failed))
        atomic_fetch_add(&after, 1);
    return 0;
}

static int put(unsigned n)
{
    static char value[VALUE];
    char name[FIXTURE_NAME];

    memset(value, (int)(1 + n % 250), sizeof value);
    return keg_put(fixture.keg, fixture_name(n, name), fixture_text("m"),
                   (struct keg_bytes){value, sizeof value}, 0);
}

static void *sync_it(void *result)
{
    *(int *)result = keg_sync(fixture.keg);
    return NULL;
}

static void *roll_it(void *result)
{
    *(int *)result = put(1000);
    return NULL;
}

static void fill_a_segment(void)
{
    struct keg_stats stats;
    unsigned n = 0;

    do {
        assert_int_equal(put(n++), 0);
        keg_stats(fixture.keg, &stats);
    } while (stats.data_bytes + VALUE + 200 < FIXTURE_SEGMENT);
}

static void one_round(void)
{
    pthread_t threads[WAITERS], roller;
    int results[WAITERS], rolled = 0;

    fixture_open(&fixture);
    fill_a_segment();
    in_sync = rolling = failed = false;
    after = 0;
    armed = true;
    fixture.hook.fn = hook;
    assert_int_equal(pthread_create(&threads[0], NULL, sync_it, &results[0]), 0);
    while (!atomic_load(&in_sync))
        wait_ms(1);
    for (int i = 1; i < WAITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, sync_it, &results[i]), 0);
    wait_ms(2);
    assert_int_equal(pthread_create(&roller, NULL, roll_it, &rolled), 0);
    pthread_join(roller, NULL);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(results[i], -EIO);
    }
    assert_int_equal(rolled, -EIO);
    assert_int_equal(after, 0);
    fixture.hook.fn = NULL;
    env_fault_set(fixture.disk, NULL);
    assert_int_equal(keg_close(fixture.keg), -EIO);
    keg_env_free(fixture.disk);
}

static void test_roll_behind_a_failing_sync(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++)
        one_round();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_roll_behind_a_failing_sync)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
