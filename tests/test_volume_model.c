/* SPDX-License-Identifier: MIT */
/*
 * The namespace against a naive tree, with random operations; on a store in memory, and on one
 * whose power is cut. TEST_SEED=N replays, TEST_STEPS=N sets how many operations, TEST_VERBOSE=1
 * prints them.
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
    unsigned count = steps(20000);
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
static uint64_t recover(struct model *m, struct fixture *f)
{
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

static void test_power_cuts(void **state)
{
    (void)state;
    struct random random = random_seeded();
    uint64_t lost = 0;
    unsigned rounds = steps(3000) / 10;
    for (unsigned round = 0; round < rounds; round++) {
        struct fixture f = {.volume_flags = VOLUME_NO_BACKGROUND,
                            .keg_flags = KEG_NO_BACKGROUND,
                            .seconds = 1790000000};
        struct model *m = calloc(1, sizeof *m);
        assert_non_null(m);
        m->random = random;
        assert_int_equal(env_fault(0, &f.env), 0);
        assert_int_equal(fixture_open(&f), 0);
        assert_int_equal(volume_sync(f.volume, 0), 0);
        model_begin(m, &f);
        m->keep_history = true;
        char *text = model_text(m, true);
        m->history = malloc(256 * sizeof *m->history);
        assert_non_null(m->history);
        m->history_capacity = 256;
        m->history[m->history_count++] = model_hash(text);
        free(text);
        struct env_fault_plan plan = {.kind = ENV_FAULT_CUT,
                                      .at = 1 + random_below(&m->random, 300)};
        plan.seed = random_next(&m->random);
        env_fault_set(f.env, &plan);
        int result = 0;
        while (result == 0)
            result = model_step(m);
        assert_true(result < 0);
        assert_true(env_fault_struck(f.env));
        lost += recover(m, &f);
        random = m->random;
        model_end(m);
        free(m);
        keg_env_free(f.env);
    }
    printf("%u cuts took %llu bytes\n", rounds, (unsigned long long)lost);
    assert_true(lost > 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* the seed is printed whatever happens */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_power_cuts),
    };
    return cmocka_run_group_tests_name("volume_model", tests, NULL, NULL);
}
