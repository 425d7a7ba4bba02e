/* SPDX-License-Identifier: MIT */
/* What nobody syncs is durable within the sync interval: the store's own timer sees to it. */
#include "fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum {
    ROUNDS = 20,
    INTERVAL_MS = 20,
};

static struct fixture fixture;
static unsigned patience_ms = 30000; /* on a machine that does much else; TEST_PATIENCE_MS */

static void open_it(void)
{
    const struct keg_options options = {
        .flags = KEG_CREATE, .segment_size = FIXTURE_SEGMENT, .sync_interval_ms = INTERVAL_MS};

    assert_int_equal(keg_open(&fixture.hook.env, &options, &fixture.keg), 0);
}

/* How many syncs have ended. */
static uint64_t count_syncs(void)
{
    struct keg_stats stats;

    keg_stats(fixture.keg, &stats);
    return stats.syncs;
}

static bool wait_for_sync(uint64_t before)
{
    for (unsigned ms = 0; ms < patience_ms && count_syncs() == before; ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return count_syncs() > before;
}

/* Nothing else makes it so: no call that syncs, no full segment, too few bytes to be written
 * behind. */
static void test_put_is_synced_by_the_timer(void **state)
{
    (void)state;
    memset(&fixture, 0, sizeof fixture);
    assert_int_equal(env_fault(0, &fixture.disk), 0);
    hook_init(&fixture.hook, fixture.disk);
    for (unsigned n = 0; n < ROUNDS; n++) {
        open_it();
        uint64_t before = count_syncs();

        assert_int_equal(fixture_put(fixture.keg, n, 0), 0);
        bool synced = wait_for_sync(before);
        fixture_stop(&fixture, true);
        assert_true(synced);
        open_it();
        fixture_want_all(fixture.keg, 0, n + 1);
        assert_int_equal(keg_close(fixture.keg), 0);
    }
    fixture_free(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_put_is_synced_by_the_timer)};
    const char *patience = getenv("TEST_PATIENCE_MS");

    if (patience)
        patience_ms = (unsigned)strtoul(patience, NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
