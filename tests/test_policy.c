/* SPDX-License-Identifier: MIT */
/* What to compact, by table. */
#include "policy.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { MiB = 1 << 20, SEGMENT = 64 * MiB, MAX = 40 };

struct row {
    const char *what;
    enum policy_mode mode;
    size_t count;
    struct policy_segment segments[MAX];
    uint64_t active_bytes, active_live;
    uint64_t room; /* 0: any */
    size_t want_count;
    size_t want[MAX];
};

static const struct row rows[] = {
    {"nothing there", POLICY_DEMAND, .want_count = 0},
    {"all live", POLICY_DEMAND, 2,
     .segments = {{60 * MiB, 60 * MiB, 1, true, 0, 0}, {60 * MiB, 59 * MiB, 2, true, 0, 0}},
     .want_count = 0},
    {"the one with dead bytes", POLICY_DEMAND, 2,
     .segments = {{60 * MiB, 60 * MiB, 1, true, 0, 0}, {60 * MiB, 50 * MiB, 2, true, 0, 0}},
     .want_count = 1, .want = {1}},
    {"oldest first, as many as fit one", POLICY_DEMAND, 3,
     .segments = {{60 * MiB, 30 * MiB, 3, true, 0, 0},
                  {60 * MiB, 30 * MiB, 1, true, 0, 0},
                  {60 * MiB, 30 * MiB, 2, true, 0, 0}},
     .want_count = 2, .want = {1, 2}},
    {"not one that may not be used", POLICY_DEMAND, 1, .segments = {{60 * MiB, 0, 1, false, 0, 0}},
     .want_count = 0},
    {"small ones are merged, a single one not", POLICY_DEMAND, 3,
     .segments = {{MiB, MiB, 1, true, 0, 0},
                  {60 * MiB, 60 * MiB, 2, true, 0, 0},
                  {MiB, MiB, 3, true, 0, 0}},
     .want_count = 2, .want = {0, 2}},
    {"a single small one stays", POLICY_DEMAND, 1, .segments = {{MiB, MiB, 1, true, 0, 0}},
     .want_count = 0},
    {"the background waits while the promise holds", POLICY_BACKGROUND, 1,
     .segments = {{60 * MiB, 10 * MiB, 1, true, 0, 0}}, .want_count = 0},
    {"the background takes the emptiest first", POLICY_BACKGROUND, 4,
     .segments = {{64 * MiB, 40 * MiB, 1, true, 0, 0},
                  {64 * MiB, 5 * MiB, 2, true, 0, 0},
                  {64 * MiB, 20 * MiB, 3, true, 0, 0},
                  {64 * MiB, 2 * MiB, 4, true, 0, 0}},
     .want_count = 3, .want = {3, 1, 2}},
    {"small ones for which there is no room are not rewritten one by one", POLICY_BACKGROUND, 8,
     .segments = {{MiB, MiB, 1, true, 0, MiB},
                  {MiB, MiB, 2, true, 0, MiB},
                  {MiB, MiB, 3, true, 0, MiB},
                  {MiB, MiB, 4, true, 0, MiB},
                  {MiB, MiB, 5, true, 0, MiB},
                  {MiB, MiB, 6, true, 0, MiB},
                  {MiB, MiB, 7, true, 0, MiB},
                  {MiB, MiB, 8, true, 0, MiB}},
     .room = 3 * MiB, .want_count = 0},
    {"short of space: what fits with its hint", POLICY_SQUEEZED, 2,
     .segments = {{60 * MiB, 20 * MiB, 1, true, 0, 10 * MiB},
                  {40 * MiB, 20 * MiB, 2, true, 0, 10 * MiB}},
     .room = 64 * MiB, .want_count = 1, .want = {1}},
    {"short of space: what may fit, if nothing else is there", POLICY_SQUEEZED, 1,
     .segments = {{60 * MiB, 20 * MiB, 1, true, 0, 10 * MiB}}, .room = 64 * MiB, .want_count = 1,
     .want = {0}},
    {"short of space: what is dead in name only", POLICY_SQUEEZED, 1,
     .segments = {{60 * MiB, 57 * MiB, 1, true, 3 * MiB, 0}}, .want_count = 0},
    {"short of space: what frees something", POLICY_SQUEEZED, 2,
     .segments = {{60 * MiB, 60 * MiB, 1, true, 0, 0}, {60 * MiB, 40 * MiB, 2, true, 0, 0}},
     .want_count = 1, .want = {1}},
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        size_t chosen[POLICY_GROUP_MAX];
        size_t n = policy_choose(row->segments, row->count, SEGMENT, row->mode, row->active_bytes,
                                 row->active_live, row->room ? row->room : UINT64_MAX, chosen);

        if (n != row->want_count)
            print_error("%s\n", row->what);
        assert_int_equal(n, row->want_count);
        for (size_t j = 0; j < n; j++)
            assert_int_equal(chosen[j], row->want[j]);
    }
}

/* Rewriting what the background chooses, until it chooses nothing, must reach the promise. */
static void test_background_keeps_the_promise(void **state)
{
    struct policy_segment segments[MAX];
    uint64_t bytes = 0, live = 0;
    size_t chosen[POLICY_GROUP_MAX], n;

    (void)state;
    for (size_t i = 0; i < MAX; i++)
        segments[i] = (struct policy_segment){64 * MiB, (i * 7 % 65) * MiB, i, true, 0, 0};
    while ((n = policy_choose(segments, MAX, SEGMENT, POLICY_BACKGROUND, 0, 0, UINT64_MAX,
                              chosen)) > 0) {
        for (size_t i = 0; i < n; i++) {
            segments[chosen[i]].bytes = segments[chosen[i]].live;
            segments[chosen[i]].usable = false;
        }
    }
    for (size_t i = 0; i < MAX; i++) {
        bytes += segments[i].bytes;
        live += segments[i].live;
    }
    assert_true(2 * live >= bytes - 2 * (uint64_t)SEGMENT);
}

static void test_seal_active(void **state)
{
    const struct policy_segment full[] = {{64 * MiB, MiB, 1, false, 0, 0},
                                          {64 * MiB, MiB, 2, false, 0, 0}};

    (void)state;
    assert_true(policy_seal_active(full, 2, SEGMENT, 40 * MiB, MiB));
    assert_false(policy_seal_active(full, 2, SEGMENT, 40 * MiB, 39 * MiB));
    assert_false(policy_seal_active(full, 0, SEGMENT, 40 * MiB, MiB));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_background_keeps_the_promise),
        cmocka_unit_test(test_seal_active),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
