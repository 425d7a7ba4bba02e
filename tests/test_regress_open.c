/* SPDX-License-Identifier: MIT */
/* The same of opening a store, and of check. */
#include "bench.h"
#include "manifest.h"
#include "segment.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- Opening ---- */

static void copy_file(struct keg_env *from, struct keg_env *to, const char *name)
{
    uint8_t *data;
    size_t len;

    assert_int_equal(env_slurp(from, name, 1 << 24, &data, &len), 0);
    assert_int_equal(env_replace(to, name, data, len), 0);
    free(data);
}

/* A store restored from a backup, beside a hint from later: the segment grows past the length that
 * this hint claims, and is not what it says. */
static void test_hint_of_another_history(void **state)
{
    struct keg_env *backup;
    struct bench bench;

    (void)state;
    assert_int_equal(env_mem(0, &backup), 0);
    bench_open(&bench);
    bench_put_all(bench.keg, 0, 3);
    assert_int_equal(keg_close(bench.keg), 0);
    copy_file(bench.disk, backup, SEGMENT_MANIFEST);
    copy_file(bench.disk, backup, "00000001.data");
    assert_int_equal(bench_reopen(&bench), 0);
    bench_put_all(bench.keg, 3, 10);
    assert_int_equal(keg_close(bench.keg), 0);
    copy_file(backup, bench.disk, SEGMENT_MANIFEST);
    copy_file(backup, bench.disk, "00000001.data");
    assert_int_equal(bench_reopen(&bench), 0);
    bench_put_all(bench.keg, 20, 40);
    bench_stop(&bench, false);
    assert_int_equal(bench_reopen(&bench), 0);
    assert_null(keg_readonly_reason(bench.keg));
    bench_want_all(bench.keg, 0, 3);
    bench_want_all(bench.keg, 20, 40);
    assert_false(bench_has(bench.keg, 3));
    assert_int_equal(keg_close(bench.keg), 0);
    keg_env_free(backup);
    bench_free(&bench);
}

static int fail_hints(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    return op == HOOK_READ && bench_ends(name, ".hint") ? -EIO : 0;
}

/* A bad sector in a hint is no worse than a hint that is not there. */
static void test_unreadable_hint_is_none(void **state)
{
    struct bench bench;

    (void)state;
    bench_open(&bench);
    bench_put_all(bench.keg, 0, 400);
    assert_int_equal(keg_close(bench.keg), 0);
    bench.hook.fn = fail_hints;
    assert_int_equal(bench_reopen(&bench), 0);
    assert_null(keg_readonly_reason(bench.keg));
    bench_want_all(bench.keg, 0, 400);
    bench.hook.fn = NULL;
    assert_int_equal(keg_close(bench.keg), 0);
    bench_free(&bench);
}

/* Frames behind a damaged one count, those that do not prove anything, too. */
static void test_frames_behind_damage_count(void **state)
{
    struct keg_info info;
    struct bench bench;
    char buf[40];

    (void)state;
    bench_open(&bench);
    bench_put_all(bench.keg, 0, 3);
    assert_int_equal(keg_sync(bench.keg), 0);
    bench_put_all(bench.keg, 3, 4);
    assert_int_equal(keg_get(bench.keg, bench_name(0, buf), &info), 0);
    bench_stop(&bench, false);
    assert_int_equal(env_fault_flip(bench.disk, "00000001.data", info.offset - 10, 1), 0);
    assert_int_equal(bench_reopen(&bench), 0);
    assert_non_null(keg_readonly_reason(bench.keg));
    bench_want_all(bench.keg, 1, 4);
    assert_int_equal(keg_close(bench.keg), 0);
    bench_free(&bench);
}

/* A store that opens read-only for damage is not changed, whichever segment is damaged. */
static void test_damage_keeps_the_tail(void **state)
{
    struct bench bench;
    uint8_t *before, *after;
    size_t len, now;

    (void)state;
    bench_open(&bench);
    bench_put_all(bench.keg, 0, 50);
    bench_drop_all(bench.keg, 0, 40);
    assert_int_equal(keg_compact(bench.keg, NULL, NULL), 0);
    bench_put_all(bench.keg, 50, 55);
    bench_stop(&bench, false);
    /* 1 is gone, 2 is active, 3 compacted. */
    bench_remove_hints(&bench);
    assert_int_equal(env_fault_flip(bench.disk, "00000003.data", FORMAT_SEGMENT_SIZE + 50, 1), 0);
    assert_int_equal(env_slurp(bench.disk, "00000002.data", 1 << 20, &before, &len), 0);
    assert_int_equal(bench_reopen(&bench), 0);
    assert_non_null(keg_readonly_reason(bench.keg));
    bench_want_all(bench.keg, 50, 55);
    assert_int_equal(keg_close(bench.keg), 0);
    assert_int_equal(env_slurp(bench.disk, "00000002.data", 1 << 20, &after, &now), 0);
    assert_int_equal(now, len);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
    bench_free(&bench);
}

/* A name with the highest id that there is, left by who knows whom, does not use the ids up. */
static void test_stray_with_the_highest_id(void **state)
{
    struct bench bench;

    (void)state;
    bench_open(&bench);
    assert_int_equal(keg_close(bench.keg), 0);
    assert_int_equal(env_replace(bench.disk, "18446744073709551615.data", "x", 1), 0);
    assert_int_equal(bench_reopen(&bench), 0);
    bench_put_all(bench.keg, 0, 400);
    assert_int_equal(keg_close(bench.keg), 0);
    assert_int_equal(bench_reopen(&bench), 0);
    bench_want_all(bench.keg, 0, 400);
    assert_int_equal(keg_close(bench.keg), 0);
    bench_free(&bench);
}

/* Numbers in a sound MANIFEST that no store reaches. */
static void test_implausible_manifest(void **state)
{
    struct manifest_segment segments[2] = {
        {.id = 1, .kind = FORMAT_LOG, .sealed = true, .length = 1}, {.id = 2, .kind = FORMAT_LOG}};
    struct bench bench;
    uint8_t bytes[1024];

    (void)state;
    bench_open(&bench);
    assert_int_equal(keg_close(bench.keg), 0);
    for (int i = 0; i < 4; i++) {
        struct manifest manifest = {.next_segment = 3, .segments = segments, .count = 2};

        segments[0].length = i == 0 ? (uint64_t)1 << 40 : 1000;
        segments[1].sealed = false;
        manifest.next_segment = i == 1 ? UINT64_MAX : 3;
        manifest.last_sequence = i == 2 ? UINT64_MAX : 3;
        segments[0].sealed = i != 3;
        manifest_encode(bytes, &manifest);
        assert_int_equal(env_replace(bench.disk, SEGMENT_MANIFEST, bytes, manifest_size(2)), 0);
        assert_int_equal(bench_reopen(&bench), -EBADMSG);
    }
    bench_free(&bench);
}

/* ---- Check ---- */

struct findings {
    unsigned all, live;
};

static void count_finding(void *arg, const struct keg_finding *f)
{
    struct findings *findings = arg;

    findings->all++;
    findings->live += f->live;
}

/* Check finds a copy of MANIFEST that is damaged while the other still serves. */
static void test_check_finds_either_manifest(void **state)
{
    struct bench bench;
    uint64_t size = manifest_size(1);

    (void)state;
    bench_open(&bench);
    assert_int_equal(keg_check(bench.keg, NULL, NULL, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t at = i * size / 2 + 20;

        assert_int_equal(env_fault_flip(bench.disk, SEGMENT_MANIFEST, at, 1), 0);
        assert_int_equal(keg_check(bench.keg, NULL, NULL, NULL), 1);
        assert_int_equal(env_fault_flip(bench.disk, SEGMENT_MANIFEST, at, 1), 0);
    }
    assert_int_equal(keg_close(bench.keg), 0);
    bench_free(&bench);
}

/* Check names what cannot be read, and goes on. */
static void test_check_goes_on_past_unreadable(void **state)
{
    struct findings findings = {0};
    struct bench bench;
    unsigned in_first = 0;

    (void)state;
    bench_open(&bench);
    bench_put_all(bench.keg, 0, 400);
    for (unsigned n = 0; n < 400; n++) {
        struct keg_info info;
        char buf[40];

        assert_int_equal(keg_get(bench.keg, bench_name(n, buf), &info), 0);
        in_first += info.segment == 1;
    }
    bench.hook.fn = bench_fail_first;
    assert_true(keg_check(bench.keg, count_finding, NULL, &findings) > 0);
    bench.hook.fn = NULL;
    assert_true(in_first > 0 && in_first < 400);
    assert_int_equal(findings.live, in_first);
    assert_int_equal(keg_close(bench.keg), 0);
    bench_free(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hint_of_another_history),
        cmocka_unit_test(test_unreadable_hint_is_none),
        cmocka_unit_test(test_frames_behind_damage_count),
        cmocka_unit_test(test_damage_keeps_the_tail),
        cmocka_unit_test(test_stray_with_the_highest_id),
        cmocka_unit_test(test_implausible_manifest),
        cmocka_unit_test(test_check_finds_either_manifest),
        cmocka_unit_test(test_check_goes_on_past_unreadable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
