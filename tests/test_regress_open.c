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

/* A MANIFEST from before the first segment was sealed, beside its hint from afterwards: the hint
 * covers the footer, and nothing may be written behind that. */
static void test_hint_of_a_segment_sealed_since(void **state)
{
    struct keg_env *backup;
    struct fixture fixture;

    (void)state;
    assert_int_equal(env_mem(0, &backup), 0);
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 3);
    fixture_stop(&fixture, false);
    copy_file(fixture.disk, backup, SEGMENT_MANIFEST);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_int_equal(keg_close(fixture.keg), 0);
    copy_file(backup, fixture.disk, SEGMENT_MANIFEST);
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_put_all(fixture.keg, 3, 10);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_want_all(fixture.keg, 0, 10);
    assert_int_equal(keg_check(fixture.keg, NULL, NULL, NULL), 0);
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

/* ---- Sectors that cannot be read ---- */

struct sector {
    struct fixture *fixture;
    const char *name;
    uint64_t at;
};

static int fail_sector(void *arg, enum hook_op op, const char *name)
{
    const struct sector *bad = arg;
    const struct hook *hook = &bad->fixture->hook;

    return op == HOOK_READ && strcmp(name, bad->name) == 0 && hook->read_at < bad->at + 512 &&
                   hook->read_at + hook->read_len > bad->at
               ? -EIO
               : 0;
}

/* Repairs with one sector that stays unreadable; afterwards the store opens for writing, and all
 * that the sector and its page did not hold is there. Returns how many of the first `count` keys
 * can still be read. */
static unsigned repair_sector(struct fixture *fixture, const char *name, uint64_t at,
                              unsigned count)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT};
    struct sector bad = {fixture, name, at};
    unsigned left = 0;
    uint8_t value[300];
    char buf[40];

    fixture->hook.fn = fail_sector;
    fixture->hook.arg = &bad;
    assert_int_equal(keg_repair(&fixture->hook.env, &options, NULL, NULL, NULL), 1);
    assert_int_equal(fixture_reopen(fixture), 0);
    assert_null(keg_readonly_reason(fixture->keg));
    assert_int_equal(keg_check(fixture->keg, NULL, NULL, NULL), 0);
    for (unsigned n = 0; n < count; n++)
        left += keg_read(fixture->keg, fixture_name(n, buf), 0, value, sizeof value) ==
                (ssize_t)sizeof value;
    assert_int_equal(keg_close(fixture->keg), 0);
    assert_int_equal(keg_repair(&fixture->hook.env, &options, NULL, NULL, NULL), 0);
    fixture->hook.fn = NULL;
    return left;
}

/* A store is repaired wherever a sector cannot be read: in a segment's header, ... */
static void test_repair_of_an_unreadable_header(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 400);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_in_range(repair_sector(&fixture, "00000001.data", 0, 400), 380, 399);
    fixture_free(&fixture);
}

/* ... in values that are zeros, as what cannot be read is taken for at first, ... */
static void test_repair_of_unreadable_zeros(void **state)
{
    struct fixture fixture;
    struct keg_info info;
    char buf[40];

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 100);
    assert_int_equal(keg_put(fixture.keg, fixture_text("zeros"), (struct keg_bytes){0},
                             (struct keg_bytes){(const char[20000]){0}, 20000}, 0),
                     0);
    assert_int_equal(keg_get(fixture.keg, fixture_text("zeros"), &info), 0);
    fixture_put_all(fixture.keg, 100, 400);
    assert_true(info.segment == 1);
    assert_int_equal(keg_get(fixture.keg, fixture_name(399, buf), &info), 0);
    assert_true(info.segment > 1);
    assert_int_equal(keg_get(fixture.keg, fixture_text("zeros"), &info), 0);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(repair_sector(&fixture, "00000001.data", info.offset + 10000, 400), 400);
    fixture_free(&fixture);
}

/* ... and in the tail, whatever is behind it. */
static void test_repair_of_an_unreadable_tail(void **state)
{
    struct fixture fixture;
    struct keg_info info;
    char buf[40];

    (void)state;
    for (unsigned synced = 0; synced < 2; synced++) {
        fixture_open(&fixture);
        for (unsigned n = 0; n < 100; n++)
            assert_int_equal(fixture_put(fixture.keg, n, synced ? KEG_SYNC : 0), 0);
        assert_int_equal(keg_get(fixture.keg, fixture_name(50, buf), &info), 0);
        fixture_stop(&fixture, false);
        assert_in_range(repair_sector(&fixture, "00000001.data", info.offset, 100),
                        synced ? 80 : 30, synced ? 99 : 50);
        fixture_free(&fixture);
    }
}

/* ---- Segments that are gone ---- */

static void count_losses(void *arg, const struct keg_loss *loss)
{
    unsigned *losses = arg;

    losses[loss->kind]++;
}

/* A hint that stops short of the segment's end does not say what was behind it: the keys that it
 * has may be older than what is lost. */
static void test_missing_segment_behind_its_hint(void **state)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT};
    struct fixture fixture;

    (void)state;
    for (unsigned sealed = 0; sealed < 2; sealed++) {
        unsigned losses[8] = {0};

        fixture_open(&fixture);
        fixture_put_all(fixture.keg, 0, 10);
        assert_int_equal(keg_close(fixture.keg), 0);
        assert_int_equal(fixture_reopen(&fixture), 0);
        fixture_put_all(fixture.keg, 0, 5);
        fixture_stop(&fixture, false);
        if (sealed) {
            assert_int_equal(fixture_reopen(&fixture), 0);
            fixture_stop(&fixture, false);
        }
        assert_int_equal(env_remove(fixture.disk, "00000001.data"), 0);
        assert_int_equal(keg_repair(fixture.disk, &options, count_losses, NULL, losses), 1);
        assert_int_equal(losses[KEG_LOSS_RECORDS], 1);
        assert_int_equal(losses[KEG_LOSS_DOUBT], 10);
        assert_int_equal(losses[KEG_LOSS_VALUE], 10);
        assert_int_equal(keg_repair(fixture.disk, &options, NULL, NULL, NULL), 0);
        fixture_free(&fixture);
    }
}

/* ---- A last frame without its padding ---- */

/* A closed store of eleven keys whose segment ends with the last value, *len bytes. False: that is
 * where it ended before, without padding. */
static bool make_cut(struct fixture *fixture, size_t value_len, uint64_t *len)
{
    struct keg_info info;
    uint8_t *data;
    size_t size;

    fixture_open(fixture);
    fixture_put_all(fixture->keg, 0, 10);
    assert_int_equal(keg_put(fixture->keg, fixture_text("last"), (struct keg_bytes){0},
                             (struct keg_bytes){"a value", value_len}, 0),
                     0);
    assert_int_equal(keg_get(fixture->keg, fixture_text("last"), &info), 0);
    assert_int_equal(keg_close(fixture->keg), 0);
    *len = info.offset + value_len;
    assert_int_equal(env_slurp(fixture->disk, "00000001.data", 1 << 24, &data, &size), 0);
    assert_in_range(size - *len, 0, FORMAT_ALIGN - 1);
    assert_int_equal(env_replace(fixture->disk, "00000001.data", data, *len), 0);
    free(data);
    return *len < size;
}

/* What was there counts, and what is appended after the repair is found again. */
static void test_repair_of_cut_padding(void **state)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT};
    unsigned padded = 0;
    uint64_t len;

    (void)state;
    for (size_t value_len = 0; value_len < 8; value_len++) {
        unsigned losses[8] = {0};
        struct fixture fixture;

        padded += make_cut(&fixture, value_len, &len);
        assert_int_equal(env_remove(fixture.disk, SEGMENT_MANIFEST), 0);
        assert_int_equal(keg_repair(fixture.disk, &options, count_losses, NULL, losses), 1);
        assert_int_equal(losses[KEG_LOSS_RECORDS] + losses[KEG_LOSS_VALUE], 0);
        for (unsigned round = 0; round < 2; round++) {
            assert_int_equal(fixture_reopen(&fixture), 0);
            assert_null(keg_readonly_reason(fixture.keg));
            assert_int_equal(keg_check(fixture.keg, NULL, NULL, NULL), 0);
            fixture_want_all(fixture.keg, 0, 10 + round);
            assert_int_equal(keg_get(fixture.keg, fixture_text("last"), &(struct keg_info){0}), 0);
            fixture_put_all(fixture.keg, 10 + round, 11 + round);
            assert_int_equal(keg_hint(fixture.keg), 0);
            if (round)
                assert_int_equal(keg_close(fixture.keg), 0);
            else
                fixture_stop(&fixture, false);
        }
        assert_int_equal(keg_repair(fixture.disk, &options, NULL, NULL, NULL), 0);
        fixture_free(&fixture);
    }
    assert_in_range(padded, 7, 8);
}

/* A MANIFEST of the one segment that there is, durable up to `length`. */
static void write_manifest(struct fixture *fixture, uint64_t length)
{
    struct manifest_segment segment = {.id = 1, .kind = FORMAT_LOG, .length = length};
    struct manifest manifest = {.next_segment = 2, .segments = &segment, .count = 1};
    struct format_segment header;
    uint8_t *data, bytes[1024];
    size_t size;

    assert_int_equal(env_slurp(fixture->disk, "00000001.data", 1 << 24, &data, &size), 0);
    assert_int_equal(format_segment_decode(data, &header), 0);
    free(data);
    memcpy(manifest.store, header.store, sizeof manifest.store);
    manifest_encode(bytes, &manifest);
    assert_int_equal(env_replace(fixture->disk, SEGMENT_MANIFEST, bytes, manifest_size(1)), 0);
    fixture_remove_hints(fixture);
}

/* A MANIFEST that calls such an end durable, as a repair that was cut off can have left it: nothing
 * is appended there. */
static void test_durable_without_padding(void **state)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT};
    uint64_t len;

    (void)state;
    for (size_t value_len = 0; value_len < 8; value_len++) {
        struct fixture fixture;
        bool padded = make_cut(&fixture, value_len, &len);

        write_manifest(&fixture, len);
        assert_int_equal(fixture_reopen(&fixture), 0);
        assert_true((keg_readonly_reason(fixture.keg) != NULL) == padded);
        fixture_want_all(fixture.keg, 0, 10);
        assert_int_equal(keg_close(fixture.keg), 0);
        assert_int_equal(keg_repair(fixture.disk, &options, NULL, NULL, NULL), padded);
        fixture_free(&fixture);
    }
}

/* The same of one that calls durable what ends inside a frame, as the MANIFEST of another history
 * can: the repair goes by the frames, and loses none. */
static void test_durable_up_to_inside_a_frame(void **state)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT};
    uint64_t len;

    (void)state;
    for (uint64_t back = 4; back < 400; back += 4) {
        struct fixture fixture;
        unsigned losses[8] = {0};
        bool whole;

        for (size_t value_len = 0; make_cut(&fixture, value_len, &len); value_len++) {
            assert_int_not_equal(value_len, 7);
            fixture_free(&fixture);
        }
        write_manifest(&fixture, len - back);
        assert_int_equal(fixture_reopen(&fixture), 0);
        whole = keg_readonly_reason(fixture.keg) == NULL; /* a frame's end, by chance */
        assert_int_equal(keg_close(fixture.keg), 0);
        assert_int_equal(keg_repair(fixture.disk, &options, count_losses, NULL, losses), !whole);
        assert_int_equal(losses[KEG_LOSS_RECORDS] + losses[KEG_LOSS_VALUE], 0);
        assert_int_equal(fixture_reopen(&fixture), 0);
        assert_null(keg_readonly_reason(fixture.keg));
        fixture_want_all(fixture.keg, 0, 10);
        assert_int_equal(keg_get(fixture.keg, fixture_text("last"), &(struct keg_info){0}), 0);
        assert_int_equal(keg_close(fixture.keg), 0);
        fixture_free(&fixture);
    }
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
        cmocka_unit_test(test_hint_of_a_segment_sealed_since),
        cmocka_unit_test(test_unreadable_hint_is_none),
        cmocka_unit_test(test_frames_behind_damage_count),
        cmocka_unit_test(test_damage_keeps_the_tail),
        cmocka_unit_test(test_stray_with_the_highest_id),
        cmocka_unit_test(test_implausible_manifest),
        cmocka_unit_test(test_repair_of_an_unreadable_header),
        cmocka_unit_test(test_repair_of_unreadable_zeros),
        cmocka_unit_test(test_repair_of_an_unreadable_tail),
        cmocka_unit_test(test_missing_segment_behind_its_hint),
        cmocka_unit_test(test_repair_of_cut_padding),
        cmocka_unit_test(test_durable_without_padding),
        cmocka_unit_test(test_durable_up_to_inside_a_frame),
        cmocka_unit_test(test_check_finds_either_manifest),
        cmocka_unit_test(test_check_goes_on_past_unreadable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
