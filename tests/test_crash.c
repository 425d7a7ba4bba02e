/* SPDX-License-Identifier: MIT */
/*
 * One workload of puts, batches, deletes, syncs, hints, rolls, compactions and reopens, run again
 * and again: the power is cut at its first I/O, at its second, and so on until a run has no such
 * I/O; then the recovery is cut as well. After each cut the store must hold a prefix of what was
 * committed, with all that was synced and no batch by half, and the same without any hint. The same
 * workload meets EIO and ENOSPC at every I/O, once and for ever.
 *
 * A failing run prints its seed and numbers; TEST_SEED, TEST_CUT and TEST_AGAIN replay it.
 * TEST_ALL=1 takes every I/O for each kind of failure, and not every fifth.
 */
#include "sanitized.h"
#include "workload.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = 120 };

enum { STRIDE = SANITIZED ? 7 : 1 }; /* I/Os from one cut to the next */

/* Runs the workload until it ends or the store is lost to it. Errors are noted, not judged. */
static void work(struct workload *run)
{
    struct history_state now;
    int err = workload_open(run);

    run->failed = err != 0;
    for (int i = 0; i < STEPS && run->keg; i++) {
        err = workload_step(run);
        if (!err && !run->failed && i % 40 == 39) {
            bool good =
                history_read(run->keg, &now) && history_same(&now, history_now(&run->history));

            assert_true(good || env_fault_struck(run->env));
        }
        run->failed = run->failed || err;
    }
    if (run->keg) {
        err = keg_close(run->keg);
        run->keg = NULL;
        if (!err)
            history_sync(&run->history);
        run->failed = run->failed || err;
    }
}

/* One run cut at I/O `cut`, and its recovery at I/O `again` (0: not). False: the run has ended
 * before; *lost grows by what the cuts put at risk. */
static bool cut_once(uint64_t seed, uint64_t cut, uint64_t again, uint64_t *lost)
{
    struct env_fault_plan plan = {ENV_FAULT_CUT, cut, false, seed ^ cut * 0x9e3779b97f4a7c15u};
    struct workload run;
    bool struck;

    workload_begin(&run, seed, 0);
    env_fault_set(run.env, &plan);
    work(&run);
    struck = env_fault_struck(run.env);
    if (!struck && run.failed) {
        print_error("seed %" PRIu64 ": a run without a fault failed\n", seed);
        fail();
    }
    *lost += env_fault_restart(run.env);
    if (struck && again) {
        plan.at = again;
        plan.seed ^= again;
        env_fault_set(run.env, &plan);
        if (workload_open(&run) == 0 && keg_close(run.keg))
            run.failed = true;
        run.keg = NULL;
        struck = env_fault_struck(run.env);
        *lost += env_fault_restart(run.env);
    }
    if (!workload_recovers(&run)) {
        print_error("TEST_SEED=%" PRIu64 " TEST_CUT=%" PRIu64 " TEST_AGAIN=%" PRIu64 "\n", seed,
                    cut, again);
        fail();
    }
    workload_end(&run);
    return struck;
}

static void test_cut_at_every_io(void **state)
{
    uint64_t seed = workload_number("TEST_SEED", 1), lost = 0, cuts = 0,
             only = workload_number("TEST_CUT", 0);

    (void)state;
    if (only) {
        cut_once(seed, only, workload_number("TEST_AGAIN", 0), &lost);
        return;
    }
    for (uint64_t cut = 1; cut_once(seed, cut, 0, &lost); cut += STRIDE)
        cuts++;
    print_message("%" PRIu64 " cuts, %" PRIu64 " bytes lost by them\n", cuts, lost);
    assert_true(cuts > STEPS / STRIDE);
    assert_true(lost > 0);
}

/* Every 61st cut, and then the recovery at each of its I/Os. */
static void test_cut_recovery_too(void **state)
{
    uint64_t seed = workload_number("TEST_SEED", 2), lost = 0, twice = 0;
    bool struck = true;

    (void)state;
    for (uint64_t cut = 7; struck; cut += 61 * STRIDE) {
        uint64_t none = 0;

        for (uint64_t again = 1; cut_once(seed, cut, again, &lost); again++)
            twice++;
        struck = cut_once(seed, cut, 0, &none);
    }
    print_message("%" PRIu64 " double cuts, %" PRIu64 " bytes lost by them\n", twice, lost);
    assert_true(twice > 100 / STRIDE);
    assert_true(lost > 0);
}

/* Returns how many runs met their fault. */
static uint64_t fail_everywhere(enum env_fault_kind kind, bool forever, uint64_t seed,
                                uint64_t stride)
{
    uint64_t struck = 0;
    bool more = true;

    for (uint64_t at = 1; more; at += stride) {
        struct env_fault_plan plan = {kind, at, forever, seed ^ at};
        struct workload run;

        workload_begin(&run, seed, 0);
        env_fault_set(run.env, &plan);
        work(&run);
        struck += env_fault_struck(run.env);
        more = env_fault_operations(run.env) >= at;
        /* Half of the runs lose power on top. */
        if (at % 2)
            env_fault_restart(run.env);
        else
            env_fault_revive(run.env);
        if (!workload_recovers(&run)) {
            print_error("kind %d%s at I/O %" PRIu64 ", TEST_SEED=%" PRIu64 "\n", kind,
                        forever ? " for ever" : "", at, seed);
            fail();
        }
        workload_end(&run);
    }
    return struck;
}

static void test_fail_every_io(void **state)
{
    uint64_t seed = workload_number("TEST_SEED", 3);
    uint64_t some = workload_number("TEST_ALL", 0) ? 1 : 5 * STRIDE;

    (void)state;
    assert_true(fail_everywhere(ENV_FAULT_EIO, false, seed, STRIDE) > STEPS / STRIDE);
    assert_true(fail_everywhere(ENV_FAULT_EIO, true, seed, some) > STEPS / 2 / STRIDE);
    assert_true(fail_everywhere(ENV_FAULT_ENOSPC, false, seed, some) > STEPS / 5 / STRIDE);
    assert_true(fail_everywhere(ENV_FAULT_ENOSPC, true, seed, some) > STEPS / 5 / STRIDE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_every_io),
        cmocka_unit_test(test_cut_recovery_too),
        cmocka_unit_test(test_fail_every_io),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
