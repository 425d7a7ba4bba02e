/* SPDX-License-Identifier: MIT */
/* Zeros ahead of the log (store/ahead.c) where they are not wanted: a repair that meets them knows
 * that they are no lost records, and a disk without room for them is not asked again and again. */
#include "fixture.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENT = 1 << 20, KEYS = 50 };

static const char first[] = "00000001.data";

static uint64_t size_of(struct fixture *fixture, const char *name)
{
    struct keg_file *file;
    uint64_t size;

    assert_int_equal(env_open(fixture->disk, name, ENV_READ, &file), 0);
    assert_int_equal(env_size(file, &size), 0);
    env_close(file);
    return size;
}

static void count_kind(void *arg, const struct keg_loss *loss)
{
    unsigned *counts = arg;

    counts[loss->kind]++;
}

static int repair(struct fixture *fixture, unsigned counts[KEG_LOSS_NOTE + 1])
{
    struct keg_options options = {.segment_size = SEGMENT};

    memset(counts, 0, (KEG_LOSS_NOTE + 1) * sizeof *counts);
    return keg_repair(&fixture->hook.env, &options, count_kind, NULL, counts);
}

/* Killed with synced puts in its one segment, and zeros behind them. What data_bytes was. */
static uint64_t make_killed(struct fixture *fixture)
{
    struct keg_stats stats;

    fixture_open_sized(fixture, SEGMENT);
    for (unsigned n = 0; n < KEYS; n++)
        assert_int_equal(fixture_put(fixture->keg, n, KEG_SYNC), 0);
    keg_stats(fixture->keg, &stats);
    assert_int_equal(stats.segments, 1);
    fixture_stop(fixture, false);
    assert_true(size_of(fixture, first) > stats.data_bytes + 4096);
    return stats.data_bytes;
}

static void end(struct fixture *fixture)
{
    fixture->hook.fn = NULL;
    assert_int_equal(fixture_reopen(fixture), 0);
    assert_null(keg_readonly_reason(fixture->keg));
    fixture_want_all(fixture->keg, 0, KEYS);
    assert_int_equal(keg_close(fixture->keg), 0);
    fixture_free(fixture);
}

static void test_manifest_lost(void **state)
{
    unsigned counts[KEG_LOSS_NOTE + 1];
    struct fixture fixture;

    (void)state;
    make_killed(&fixture);
    assert_int_equal(env_remove(fixture.disk, "MANIFEST"), 0);
    assert_int_equal(repair(&fixture, counts), 1);
    assert_int_equal(counts[KEG_LOSS_RECORDS], 0);
    assert_int_equal(counts[KEG_LOSS_DOUBT], 0);
    assert_int_equal(counts[KEG_LOSS_VALUE], 0);
    end(&fixture);
}

/* One byte among the zeros may be of a record. */
static void test_manifest_lost_and_no_zeros(void **state)
{
    unsigned counts[KEG_LOSS_NOTE + 1];
    struct fixture fixture;

    (void)state;
    make_killed(&fixture);
    assert_int_equal(env_fault_flip(fixture.disk, first, size_of(&fixture, first) - 1, 1), 0);
    assert_int_equal(env_remove(fixture.disk, "MANIFEST"), 0);
    assert_int_equal(repair(&fixture, counts), 1);
    assert_int_equal(counts[KEG_LOSS_RECORDS], 1);
    assert_int_equal(counts[KEG_LOSS_DOUBT], KEYS);
    end(&fixture);
}

struct sector {
    const struct hook *hook;
    uint64_t at;
};

static int fail_sector(void *arg, enum hook_op op, const char *name)
{
    const struct sector *bad = arg;

    return op == HOOK_READ && strcmp(name, first) == 0 && bad->hook->read_at < bad->at + 512 &&
                   bad->hook->read_at + bad->hook->read_len > bad->at
               ? -EIO
               : 0;
}

/* Nor may what cannot be read be counted for zeros. */
static void test_manifest_lost_and_zeros_unreadable(void **state)
{
    unsigned counts[KEG_LOSS_NOTE + 1];
    struct fixture fixture;
    struct sector bad = {.hook = &fixture.hook};

    (void)state;
    make_killed(&fixture);
    bad.at = (size_of(&fixture, first) - 1) / 512 * 512;
    assert_int_equal(env_remove(fixture.disk, "MANIFEST"), 0);
    fixture.hook.fn = fail_sector;
    fixture.hook.arg = &bad;
    assert_int_equal(repair(&fixture, counts), 1);
    assert_int_equal(counts[KEG_LOSS_RECORDS], 1);
    end(&fixture);
}

/* A value in the tail that cannot be read is all that is lost, if nothing else stands behind. */
static void test_value_unreadable(void **state)
{
    static char large[12000];
    struct keg_bytes key = fixture_text("large");
    unsigned counts[KEG_LOSS_NOTE + 1];
    struct fixture fixture;
    struct keg_info info;
    struct sector bad = {.hook = &fixture.hook};

    (void)state;
    memset(large, 1, sizeof large);
    fixture_open_sized(&fixture, SEGMENT);
    assert_int_equal(keg_put(fixture.keg, key, fixture_text(""),
                             (struct keg_bytes){large, sizeof large}, KEG_SYNC),
                     0);
    assert_int_equal(keg_get(fixture.keg, key, &info), 0);
    for (unsigned n = 0; n < KEYS; n++)
        assert_int_equal(fixture_put(fixture.keg, n, KEG_SYNC), 0);
    fixture_stop(&fixture, false);
    bad.at = (info.offset + 6000) / 512 * 512;
    fixture.hook.fn = fail_sector;
    fixture.hook.arg = &bad;
    assert_int_equal(repair(&fixture, counts), 1);
    assert_int_equal(counts[KEG_LOSS_VALUE], 1);
    assert_int_equal(counts[KEG_LOSS_RECORDS], 0);
    assert_int_equal(counts[KEG_LOSS_DOUBT], 0);
    end(&fixture);
}

/* ---- No room ---- */

struct refusal {
    int error;   /* of the next append to the first segment, once it is done; 0: none */
    bool footer; /* the refused append is not done at all */
    unsigned appends, cuts;
};

static int refuse(void *arg, enum hook_op op, const char *name)
{
    struct refusal *refusal = arg;
    int error = refusal->error;

    if (strcmp(name, first) != 0)
        return 0;
    refusal->cuts += op == HOOK_SEAL;
    if (op != HOOK_APPEND)
        return 0;
    refusal->appends++;
    refusal->error = 0;
    return refusal->footer ? -error : error;
}

static void put_large(struct fixture *fixture, unsigned count)
{
    static char value[60000];
    struct keg_bytes bytes = {value, sizeof value};

    for (unsigned n = 0; n < count; n++)
        assert_int_equal(keg_put(fixture->keg, fixture_text("large"), fixture_text(""), bytes, 0),
                         0);
}

/* What the filesystem refuses of them is cut off, and then the segment goes without. */
static void test_no_room_for_zeros(void **state)
{
    static const int errors[] = {ENOSPC, EDQUOT};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct refusal refusal = {0};
        struct fixture fixture;
        struct keg_stats stats;

        fixture_open_sized(&fixture, SEGMENT);
        assert_int_equal(fixture_put(fixture.keg, 0, KEG_SYNC), 0);
        refusal.error = errors[i];
        fixture.hook.fn = refuse;
        fixture.hook.arg = &refusal;
        for (unsigned n = 1; n < KEYS; n++)
            assert_int_equal(fixture_put(fixture.keg, n, KEG_SYNC), 0);
        keg_stats(fixture.keg, &stats);
        assert_int_equal(stats.segments, 1);
        assert_int_equal(refusal.appends, KEYS); /* one for each put, and the zeros */
        assert_int_equal(refusal.cuts, 1);
        assert_int_equal(size_of(&fixture, first), stats.data_bytes);
        put_large(&fixture, SEGMENT / 60000 + 1); /* the next segment is another matter, */
        for (unsigned n = 0; n < 4 * KEYS; n++)   /* once the room for puts is asked again */
            assert_int_equal(fixture_put(fixture.keg, n % KEYS, KEG_SYNC), 0);
        keg_stats(fixture.keg, &stats);
        assert_int_equal(stats.segments, 2);
        assert_true(size_of(&fixture, first) + size_of(&fixture, "00000002.data") >
                    stats.data_bytes);
        assert_int_equal(keg_close(fixture.keg), 0);
        end(&fixture);
    }
}

/* A roll that fails leaves them where they are; the close still cuts them off. */
static void test_no_room_for_a_footer(void **state)
{
    struct refusal refusal = {.error = ENOSPC, .footer = true};
    struct fixture fixture;
    struct keg_stats stats;

    (void)state;
    fixture_open_sized(&fixture, SEGMENT);
    for (unsigned n = 0; n < KEYS; n++)
        assert_int_equal(fixture_put(fixture.keg, n, KEG_SYNC), 0);
    fixture.hook.fn = refuse;
    fixture.hook.arg = &refusal;
    assert_int_equal(keg_compact(fixture.keg, NULL, NULL), 0); /* goes on without the roll */
    assert_int_equal(refusal.appends, 1);
    keg_stats(fixture.keg, &stats);
    assert_int_equal(stats.segments, 1);
    assert_true(size_of(&fixture, first) > stats.data_bytes);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(size_of(&fixture, first), stats.data_bytes);
    end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest_lost),
        cmocka_unit_test(test_manifest_lost_and_no_zeros),
        cmocka_unit_test(test_manifest_lost_and_zeros_unreadable),
        cmocka_unit_test(test_value_unreadable),
        cmocka_unit_test(test_no_room_for_zeros),
        cmocka_unit_test(test_no_room_for_a_footer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
