/* SPDX-License-Identifier: MIT */
/*
 * One workload of puts, batches, deletes, syncs, hints, rolls, compactions and reopens, run again
 * and again: the power is cut at its first I/O, at its second, and so on until a run has no such
 * I/O; then the recovery is cut as well. After each cut the store must hold a prefix of what was
 * committed, with all that was synced and no batch by half, and the same without any hint. The same
 * workload meets EIO and ENOSPC at every I/O, once and for ever.
 *
 * A failing run prints its seed and numbers; TEST_SEED, TEST_CUT and TEST_AGAIN replay it.
 */
#include "env_fault.h"
#include "history.h"
#include "random.h"
#include "sanitized.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENT = 64 << 10, STEPS = 120 };

enum { STRIDE = SANITIZED ? 7 : 1 }; /* I/Os from one cut to the next */

struct run {
    struct keg_env *env;
    struct keg *keg;
    struct history history;
    struct random random;
    uint32_t next_value;
    bool failed; /* an operation has: whatever follows may, too */
    bool verbose;
};

static void print_log(void *arg, enum keg_level level, const char *line)
{
    const struct run *run = arg;

    (void)level;
    if (run->verbose)
        print_message("log: %s\n", line);
}

static int open_keg(struct run *run)
{
    struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                  .segment_size = SEGMENT,
                                  .log = print_log,
                                  .log_arg = run};
    int err = keg_open(run->env, &options, &run->keg);

    if (err)
        run->keg = NULL;
    return err;
}

/* A batch of up to six puts and deletes, durable or not. */
static int step_commit(struct run *run, unsigned flags)
{
    static uint8_t values[6][HISTORY_VALUE_MAX];
    struct history_state state = *history_now(&run->history);
    struct keg_batch batch = {0};
    uint32_t numbers[6];
    char keys[6][16];
    size_t count = 1 + random_below(&run->random, random_below(&run->random, 3) ? 1 : 6);
    int err;

    for (size_t i = 0; i < count; i++) {
        unsigned k = (unsigned)random_below(&run->random, HISTORY_KEYS);
        struct keg_bytes key = history_key(k, keys[i]);

        if (random_below(&run->random, 3) == 0) {
            state.values[k] = 0;
            assert_int_equal(keg_batch_delete(&batch, key), 0);
            continue;
        }
        numbers[i] = state.values[k] = ++run->next_value;
        assert_int_equal(keg_batch_put(&batch, key, history_meta(&numbers[i]),
                                       history_value(numbers[i], values[i])),
                         0);
    }
    err = keg_commit(run->keg, &batch, flags);
    keg_batch_free(&batch);
    history_commit(&run->history, &state, err);
    if (!err && flags & KEG_SYNC)
        history_sync(&run->history);
    return err;
}

static int step_reopen(struct run *run)
{
    int err = keg_close(run->keg);

    run->keg = NULL;
    if (!err)
        history_sync(&run->history);
    return err ? err : open_keg(run);
}

static int step(struct run *run)
{
    uint64_t dice = random_below(&run->random, 100);
    int err;

    if (dice < 80)
        return step_commit(run, random_below(&run->random, 12) ? 0 : KEG_SYNC);
    if (dice < 88) {
        err = keg_sync(run->keg);
        if (!err)
            history_sync(&run->history);
        return err;
    }
    if (dice < 92)
        return keg_hint(run->keg);
    if (dice < 96)
        return keg_compact(run->keg, NULL, NULL);
    return step_reopen(run);
}

/* Runs the workload until it ends or the store is lost to it. Errors are noted, not judged. */
static void work(struct run *run)
{
    struct history_state now;
    int err = open_keg(run);

    run->failed = err != 0;
    for (int i = 0; i < STEPS && run->keg; i++) {
        err = step(run);
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

static void begin(struct run *run, uint64_t seed)
{
    memset(run, 0, sizeof *run);
    assert_int_equal(env_fault(0, &run->env), 0);
    history_init(&run->history);
    run->random.state = seed;
    run->verbose = getenv("TEST_VERBOSE") != NULL;
}

static void end(struct run *run)
{
    if (env_fault_open_files(run->env)) {
        print_error("%u files left open\n", env_fault_open_files(run->env));
        fail();
    }
    history_free(&run->history);
    keg_env_free(run->env);
}

static int remove_hint(void *arg, const char *name)
{
    return strstr(name, ".hint") ? env_remove(arg, name) : 0;
}

/* Opens what a crash has left, twice: as it is, and without hints. */
static bool recovers(struct run *run)
{
    struct history_state state, again;
    bool good;

    env_fault_set(run->env, NULL);
    if (open_keg(run)) {
        print_error("it does not open\n");
        return false;
    }
    good = !keg_readonly_reason(run->keg) && history_read(run->keg, &state) &&
           keg_check(run->keg, NULL, NULL, NULL) == 0;
    if (!good)
        print_error("read-only (%s), unreadable, or check finds something\n",
                    keg_readonly_reason(run->keg) ? keg_readonly_reason(run->keg) : "no");
    if (good && !history_allows(&run->history, &state)) {
        print_error("no prefix that holds what was synced\n");
        good = false;
    }
    if (keg_close(run->keg) || !good)
        return false;
    if (env_list(run->env, remove_hint, run->env) || open_keg(run))
        return false;
    good = history_read(run->keg, &again) && history_same(&state, &again);
    if (!good)
        print_error("another state without hints\n");
    /* The store goes on working. */
    history_restart(&run->history, &state);
    run->next_value += 1000;
    for (int i = 0; good && i < 5; i++)
        good = step_commit(run, KEG_SYNC) == 0;
    return keg_close(run->keg) == 0 && good;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s ? strtoull(s, NULL, 10) : otherwise;
}

/* One run cut at I/O `cut`, and its recovery at I/O `again` (0: not). False: the run has ended
 * before; *lost grows by what the cuts put at risk. */
static bool cut_once(uint64_t seed, uint64_t cut, uint64_t again, uint64_t *lost)
{
    struct env_fault_plan plan = {ENV_FAULT_CUT, cut, false, seed ^ cut * 0x9e3779b97f4a7c15u};
    struct run run;
    bool struck;

    begin(&run, seed);
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
        if (open_keg(&run) == 0 && keg_close(run.keg))
            run.failed = true;
        run.keg = NULL;
        struck = env_fault_struck(run.env);
        *lost += env_fault_restart(run.env);
    }
    if (!recovers(&run)) {
        print_error("TEST_SEED=%" PRIu64 " TEST_CUT=%" PRIu64 " TEST_AGAIN=%" PRIu64 "\n", seed,
                    cut, again);
        fail();
    }
    end(&run);
    return struck;
}

static void test_cut_at_every_io(void **state)
{
    uint64_t seed = number("TEST_SEED", 1), lost = 0, cuts = 0, only = number("TEST_CUT", 0);

    (void)state;
    if (only) {
        cut_once(seed, only, number("TEST_AGAIN", 0), &lost);
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
    uint64_t seed = number("TEST_SEED", 2), lost = 0, twice = 0;
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
        struct run run;

        begin(&run, seed);
        env_fault_set(run.env, &plan);
        work(&run);
        struck += env_fault_struck(run.env);
        more = env_fault_operations(run.env) >= at;
        /* Half of the runs lose power on top. */
        if (at % 2)
            env_fault_restart(run.env);
        if (!recovers(&run)) {
            print_error("kind %d%s at I/O %" PRIu64 ", TEST_SEED=%" PRIu64 "\n", kind,
                        forever ? " for ever" : "", at, seed);
            fail();
        }
        end(&run);
    }
    return struck;
}

static void test_fail_every_io(void **state)
{
    uint64_t seed = number("TEST_SEED", 3);

    (void)state;
    assert_true(fail_everywhere(ENV_FAULT_EIO, false, seed, STRIDE) > STEPS / STRIDE);
    assert_true(fail_everywhere(ENV_FAULT_EIO, true, seed, 5 * STRIDE) > STEPS / 2 / STRIDE);
    assert_true(fail_everywhere(ENV_FAULT_ENOSPC, false, seed, 5 * STRIDE) > STEPS / 5 / STRIDE);
    assert_true(fail_everywhere(ENV_FAULT_ENOSPC, true, seed, 5 * STRIDE) > STEPS / 5 / STRIDE);
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
