/* SPDX-License-Identifier: MIT */
/* The same of opening a store, and of check. */
#include "fixture.h"
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
    struct fixture fixture;

    (void)state;
    assert_int_equal(env_mem(0, &backup), 0);
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 3);
    assert_int_equal(keg_close(fixture.keg), 0);
    copy_file(fixture.disk, backup, SEGMENT_MANIFEST);
    copy_file(fixture.disk, backup, "00000001.data");
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_put_all(fixture.keg, 3, 10);
    assert_int_equal(keg_close(fixture.keg), 0);
    copy_file(backup, fixture.disk, SEGMENT_MANIFEST);
    copy_file(backup, fixture.disk, "00000001.data");
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_put_all(fixture.keg, 20, 40);
    fixture_stop(&fixture, false);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_null(keg_readonly_reason(fixture.keg));
    fixture_want_all(fixture.keg, 0, 3);
    fixture_want_all(fixture.keg, 20, 40);
    assert_false(fixture_has(fixture.keg, 3));
    assert_int_equal(keg_close(fixture.keg), 0);
    keg_env_free(backup);
    fixture_free(&fixture);
}

static int fail_hints(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    return op == HOOK_READ && fixture_ends(name, ".hint") ? -EIO : 0;
}

/* A bad sector in a hint is no worse than a hint that is not there. */
static void test_unreadable_hint_is_none(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 400);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture.hook.fn = fail_hints;
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_null(keg_readonly_reason(fixture.keg));
    fixture_want_all(fixture.keg, 0, 400);
    fixture.hook.fn = NULL;
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* Frames behind a damaged one count, those that do not prove anything, too. */
static void test_frames_behind_damage_count(void **state)
{
    struct keg_info info;
    struct fixture fixture;
    char buf[40];

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 3);
    assert_int_equal(keg_sync(fixture.keg), 0);
    fixture_put_all(fixture.keg, 3, 4);
    assert_int_equal(keg_get(fixture.keg, fixture_name(0, buf), &info), 0);
    fixture_stop(&fixture, false);
    assert_int_equal(env_fault_flip(fixture.disk, "00000001.data", info.offset - 10, 1), 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_non_null(keg_readonly_reason(fixture.keg));
    fixture_want_all(fixture.keg, 1, 4);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* A store that opens read-only for damage is not changed, whichever segment is damaged. */
static void test_damage_keeps_the_tail(void **state)
{
    struct fixture fixture;
    uint8_t *before, *after;
    size_t len, now;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 50);
    fixture_drop_all(fixture.keg, 0, 40);
    assert_int_equal(keg_compact(fixture.keg, NULL, NULL), 0);
    fixture_put_all(fixture.keg, 50, 55);
    fixture_stop(&fixture, false);
    /* 1 is gone, 2 is active, 3 compacted. */
    fixture_remove_hints(&fixture);
    assert_int_equal(env_fault_flip(fixture.disk, "00000003.data", FORMAT_SEGMENT_SIZE + 50, 1), 0);
    assert_int_equal(env_slurp(fixture.disk, "00000002.data", 1 << 20, &before, &len), 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_non_null(keg_readonly_reason(fixture.keg));
    fixture_want_all(fixture.keg, 50, 55);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(env_slurp(fixture.disk, "00000002.data", 1 << 20, &after, &now), 0);
    assert_int_equal(now, len);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
    fixture_free(&fixture);
}

/* A name with the highest id that there is, left by who knows whom, does not use the ids up. */
static void test_stray_with_the_highest_id(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(env_replace(fixture.disk, "18446744073709551615.data", "x", 1), 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_put_all(fixture.keg, 0, 400);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_want_all(fixture.keg, 0, 400);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* Numbers in a sound MANIFEST that no store reaches. */
static void test_implausible_manifest(void **state)
{
    struct manifest_segment segments[2] = {
        {.id = 1, .kind = FORMAT_LOG, .sealed = true, .length = 1}, {.id = 2, .kind = FORMAT_LOG}};
    struct fixture fixture;
    uint8_t bytes[1024];

    (void)state;
    fixture_open(&fixture);
    assert_int_equal(keg_close(fixture.keg), 0);
    for (int i = 0; i < 4; i++) {
        struct manifest manifest = {.next_segment = 3, .segments = segments, .count = 2};

        segments[0].length = i == 0 ? (uint64_t)1 << 40 : 1000;
        segments[1].sealed = false;
        manifest.next_segment = i == 1 ? UINT64_MAX : 3;
        manifest.last_sequence = i == 2 ? UINT64_MAX : 3;
        segments[0].sealed = i != 3;
        manifest_encode(bytes, &manifest);
        assert_int_equal(env_replace(fixture.disk, SEGMENT_MANIFEST, bytes, manifest_size(2)), 0);
        assert_int_equal(fixture_reopen(&fixture), -EBADMSG);
    }
    fixture_free(&fixture);
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
    struct fixture fixture;
    uint64_t size = manifest_size(1);

    (void)state;
    fixture_open(&fixture);
    assert_int_equal(keg_check(fixture.keg, NULL, NULL, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t at = i * size / 2 + 20;

        assert_int_equal(env_fault_flip(fixture.disk, SEGMENT_MANIFEST, at, 1), 0);
        assert_int_equal(keg_check(fixture.keg, NULL, NULL, NULL), 1);
        assert_int_equal(env_fault_flip(fixture.disk, SEGMENT_MANIFEST, at, 1), 0);
    }
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* Check names what cannot be read, and goes on. */
static void test_check_goes_on_past_unreadable(void **state)
{
    struct findings findings = {0};
    struct fixture fixture;
    unsigned in_first = 0;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 400);
    for (unsigned n = 0; n < 400; n++) {
        struct keg_info info;
        char buf[40];

        assert_int_equal(keg_get(fixture.keg, fixture_name(n, buf), &info), 0);
        in_first += info.segment == 1;
    }
    fixture.hook.fn = fixture_fail_first;
    assert_true(keg_check(fixture.keg, count_finding, NULL, &findings) > 0);
    fixture.hook.fn = NULL;
    assert_true(in_first > 0 && in_first < 400);
    assert_int_equal(findings.live, in_first);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
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
