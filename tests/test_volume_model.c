/* SPDX-License-Identifier: MIT */
/*
 * The namespace against a naive tree, with random operations; on a store in memory, and on a disk
 * that fails or loses power. TEST_SEED=N replays, TEST_STEPS=N sets how many operations,
 * TEST_VERBOSE=1 prints them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "env_fault.h"
#include "volume_model.h"
#include <errno.h>
#include <stdlib.h>

static unsigned steps(unsigned usual)
{
    const char *text = getenv("TEST_STEPS");
    return text ? (unsigned)strtoul(text, NULL, 0) : usual;
}

static void test_random_operations(void **state)
{
    (void)state;
    struct fixture f = {.volume_flags = VOLUME_NO_BACKGROUND,
                        .keg_flags = KEG_NO_BACKGROUND,
                        .seconds = 1790000000};
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->random = random_seeded();
    assert_int_equal(env_mem(0, &f.env), 0);
    assert_int_equal(fixture_open(&f), 0);
    model_begin(m, &f);
    unsigned count = steps(10000);
    for (unsigned i = 0; i < count; i++) {
        if (model_step(m) != 0) {
            printf("in step %u\n", i);
            fail();
        }
    }
    assert_int_equal(model_reopen(m), 0);
    assert_int_equal(f.damage_lines, 0);
    assert_int_equal(fixture_close(&f), 0);
    model_end(m);
    free(m);
    keg_env_free(f.env);
}

/* What is there after a cut is one of the trees since the last sync. Returns how many bytes the cut
 * took. */
static uint64_t recover(const struct model *m, struct fixture *f)
{
    /* From here on nothing reaches the disk, so closing changes nothing. */
    env_fault_set(f->env, &(struct env_fault_plan){.kind = ENV_FAULT_CUT, .at = 1, .seed = 1});
    if (f->volume)
        (void)!fixture_close(f);
    uint64_t lost = env_fault_restart(f->env);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(volume_check(f->volume, fixture_print, NULL), 0);
    char *text = model_volume_text(f->volume);
    uint64_t hash = model_hash(text);
    size_t at = m->history_count;
    while (at > m->synced && m->history[at - 1] != hash)
        at--;
    if (at == m->synced)
        printf("not a tree since the last sync:\n%s\n", text);
    assert_true(at > m->synced);
    free(text);
    assert_int_equal(fixture_close(f), 0);
    return lost;
}

/* Random operations until one meets a fault; then what is left. */
static uint64_t fail_once(struct random *random, enum env_fault_kind kind)
{
    struct fixture f = {.volume_flags = VOLUME_NO_BACKGROUND,
                        .keg_flags = KEG_NO_BACKGROUND,
                        .seconds = 1790000000};
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->random = *random;
    assert_int_equal(env_fault(0, &f.env), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(volume_sync(f.volume, 0), 0);
    model_begin(m, &f);
    model_keep_history(m);
    struct env_fault_plan plan = {.kind = kind, .at = 1 + random_below(&m->random, 300)};
    plan.seed = random_next(&m->random);
    /* A disk that is full once would mostly be so for an operation that takes no space. */
    plan.forever = kind == ENV_FAULT_ENOSPC || random_below(&m->random, 2);
    env_fault_set(f.env, &plan);
    /* The store may take a fault without an operation that fails, as when it writes a hint. */
    int result = 0;
    for (unsigned after = 0; result == 0 && after < 50; after += env_fault_struck(f.env))
        result = model_step(m);
    assert_true(result <= 0);
    assert_true(env_fault_struck(f.env));
    uint64_t lost = recover(m, &f);
    *random = m->random;
    model_end(m);
    free(m);
    keg_env_free(f.env);
    return lost;
}

static void fail_often(enum env_fault_kind kind, unsigned rounds)
{
    struct random random = random_seeded();
    uint64_t lost = 0;
    for (unsigned i = 0; i < rounds; i++)
        lost += fail_once(&random, kind);
    printf("%u faults; power cuts took %llu bytes\n", rounds, (unsigned long long)lost);
    assert_true(lost > 0);
}

static void test_power_cuts(void **state)
{
    (void)state;
    fail_often(ENV_FAULT_CUT, steps(1000) / 10);
}

static void test_failing_io(void **state)
{
    (void)state;
    fail_often(ENV_FAULT_EIO, steps(500) / 10);
}

static void test_full_disk(void **state)
{
    (void)state;
    fail_often(ENV_FAULT_ENOSPC, steps(500) / 10);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* the seed is printed whatever happens */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_failing_io),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("volume_model", tests, NULL, NULL);
}
