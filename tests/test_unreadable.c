/* SPDX-License-Identifier: MIT */
/*
 * Sectors that cannot be read. A read error says nothing of what stands there: it is never the end
 * of the log, and a store whose newest records may be there opens read-only, with a line that names
 * the place. Nothing on disk is changed by that: once the sector can be read again, all is there.
 */
#include "damage_store.h"
#include "fixture.h"
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SECTOR = 512 };

struct sector {
    struct hook *hook;
    char name[ENV_NAME_MAX + 1];
    uint64_t at;
};

static int fail_sector(void *arg, enum hook_op op, const char *name)
{
    const struct sector *bad = arg;
    const struct hook *hook = bad->hook;

    return op == HOOK_READ && strcmp(name, bad->name) == 0 && hook->read_at < bad->at + SECTOR &&
                   hook->read_at + hook->read_len > bad->at
               ? -EIO
               : 0;
}

static void spoil(struct hook *hook, struct sector *bad, const char *name, uint64_t at)
{
    *bad = (struct sector){.hook = hook, .at = at / SECTOR * SECTOR};
    snprintf(bad->name, sizeof bad->name, "%s", name);
    hook->fn = fail_sector;
    hook->arg = bad;
}

/* The store is read-only, for a place in this file not before `from` and before `to`. */
static void want_reason(struct keg *keg, const char *name, uint64_t from, uint64_t to)
{
    const char *reason = keg_readonly_reason(keg), *offset;

    assert_non_null(reason);
    offset = strstr(reason, "offset ");
    if (strncmp(reason, name, strlen(name)) != 0 || !strstr(reason, "cannot be read") || !offset)
        print_error("%s\n", reason);
    assert_memory_equal(reason, name, strlen(name));
    assert_non_null(strstr(reason, "cannot be read"));
    assert_non_null(strstr(reason, "kegfs check --repair"));
    assert_non_null(offset);
    assert_true(strtoull(offset + 7, NULL, 10) >= from && strtoull(offset + 7, NULL, 10) < to);
}

static unsigned count_readable(struct keg *keg, unsigned count)
{
    unsigned there = 0;

    for (unsigned n = 0; n < count; n++)
        there += fixture_has(keg, n);
    return there;
}

static uint64_t place_of(struct keg *keg, unsigned n, uint64_t *segment)
{
    struct keg_info info;
    char buf[FIXTURE_NAME];

    assert_int_equal(keg_get(keg, fixture_name(n, buf), &info), 0);
    *segment = info.segment;
    return info.offset;
}

/* Opens with the bad sector, which has to make it read-only; and again, once it can be read. */
static void open_without_and_with(struct fixture *fixture, const struct sector *bad, uint64_t slack,
                                  unsigned count, unsigned least)
{
    assert_int_equal(fixture_reopen(fixture), 0);
    want_reason(fixture->keg, bad->name, bad->at > slack ? bad->at - slack : 0, bad->at + SECTOR);
    assert_in_range(count_readable(fixture->keg, count), least, count - 1);
    assert_int_equal(fixture_put(fixture->keg, 0, 0), -EROFS);
    assert_int_equal(keg_close(fixture->keg), 0);
    fixture->hook.fn = NULL;
    assert_int_equal(fixture_reopen(fixture), 0);
    assert_null(keg_readonly_reason(fixture->keg));
    fixture_want_all(fixture->keg, 0, count);
    assert_int_equal(keg_close(fixture->keg), 0);
    fixture_free(fixture);
}

static void test_unreadable_heads_open_read_only(void **state)
{
    struct fixture fixture;
    struct sector bad;
    uint64_t segment, at;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 400);
    at = place_of(fixture.keg, 50, &segment);
    assert_int_equal(segment, 1);
    place_of(fixture.keg, 399, &segment);
    assert_true(segment > 1);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_remove_hints(&fixture);
    spoil(&fixture.hook, &bad, "00000001.data", at);
    open_without_and_with(&fixture, &bad, 4096, 400, 380);
}

static void test_unreadable_header_opens_read_only(void **state)
{
    struct fixture fixture;
    struct sector bad;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 400);
    assert_int_equal(keg_close(fixture.keg), 0);
    spoil(&fixture.hook, &bad, "00000001.data", 0);
    open_without_and_with(&fixture, &bad, 0, 400, 380);
}

/* What stands behind it may have been durable or not. */
static void test_unreadable_tail_is_not_the_end(void **state)
{
    (void)state;
    for (unsigned synced = 0; synced < 2; synced++) {
        struct fixture fixture;
        struct sector bad;
        uint64_t segment, at;

        fixture_open(&fixture);
        for (unsigned n = 0; n < 100; n++)
            assert_int_equal(fixture_put(fixture.keg, n, synced ? KEG_SYNC : 0), 0);
        at = place_of(fixture.keg, 50, &segment);
        fixture_stop(&fixture, false);
        spoil(&fixture.hook, &bad, "00000001.data", at);
        open_without_and_with(&fixture, &bad, 4096, 100, synced ? 80 : 30);
    }
}

/* The same at its very end, where a torn tail would be. */
static void test_unreadable_end_is_not_the_end(void **state)
{
    struct fixture fixture;
    struct sector bad;
    uint64_t segment, at;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 100);
    at = place_of(fixture.keg, 99, &segment);
    fixture_stop(&fixture, false);
    spoil(&fixture.hook, &bad, "00000001.data", at);
    open_without_and_with(&fixture, &bad, 4096, 100, 80);
}

/* A value alone that cannot be read, in a frame that is known to have been durable, is one value.
 */
static void test_unreadable_value_in_a_tail_is_one_value(void **state)
{
    static char got[20000];
    struct keg_bytes key = fixture_text("large");
    struct fixture fixture;
    struct keg_info info;
    struct sector bad;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 10);
    memset(got, 1, sizeof got);
    assert_int_equal(
        keg_put(fixture.keg, key, fixture_text(""), (struct keg_bytes){got, sizeof got}, KEG_SYNC),
        0);
    for (unsigned n = 10; n < 20; n++)
        assert_int_equal(fixture_put(fixture.keg, n, KEG_SYNC), 0);
    assert_int_equal(keg_get(fixture.keg, key, &info), 0);
    fixture_stop(&fixture, false);
    spoil(&fixture.hook, &bad, "00000001.data", info.offset + 10000);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_null(keg_readonly_reason(fixture.keg));
    fixture_want_all(fixture.keg, 0, 20);
    assert_int_equal(keg_read(fixture.keg, key, 0, got, sizeof got), -EIO);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture.hook.fn = NULL;
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_int_equal(keg_read(fixture.keg, key, 0, got, sizeof got), sizeof got);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* ---- A segment that MANIFEST does not know ---- */

static void copy_file(struct keg_env *env, const char *from, const char *to)
{
    uint8_t *data;
    size_t len;

    assert_int_equal(env_slurp(env, from, 1 << 24, &data, &len), 0);
    assert_int_equal(env_replace(env, to, data, len), 0);
    free(data);
}

static bool is_there(struct keg_env *env, const char *name)
{
    struct keg_file *file;
    int err = env_open(env, name, ENV_READ, &file);

    if (!err)
        env_close(file);
    return err == 0;
}

static int repair(struct fixture *fixture)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT};

    return keg_repair(&fixture->hook.env, &options, NULL, NULL, NULL);
}

struct finding {
    uint64_t segment;
    unsigned met;
};

static void look_for(void *arg, const struct keg_finding *found)
{
    struct finding *finding = arg;

    finding->met += found->segment == finding->segment;
}

/* A store with 20 keys, and a segment whose number it has not given out. */
static void make_unknown(struct fixture *fixture, const char *name)
{
    fixture_open(fixture);
    fixture_put_all(fixture->keg, 0, 20);
    assert_int_equal(keg_close(fixture->keg), 0);
    copy_file(fixture->disk, "00000001.data", name);
}

static void want_whole(struct fixture *fixture, unsigned count)
{
    assert_int_equal(fixture_reopen(fixture), 0);
    assert_null(keg_readonly_reason(fixture->keg));
    fixture_want_all(fixture->keg, 0, count);
    fixture_put_all(fixture->keg, 0, count);
    assert_int_equal(keg_check(fixture->keg, NULL, NULL, NULL), 0);
    assert_int_equal(keg_close(fixture->keg), 0);
}

/* Check tells of it, and a repair sets it aside, so that the store can be written to again and the
 * segment stays for whoever can read it one day. */
static void test_unknown_segment_is_set_aside(void **state)
{
    struct finding finding = {.segment = 99};
    struct fixture fixture;
    struct sector bad;

    (void)state;
    make_unknown(&fixture, "00000099.data");
    spoil(&fixture.hook, &bad, "00000099.data", 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    want_reason(fixture.keg, "00000099.data", 0, 1);
    assert_int_equal(keg_check(fixture.keg, look_for, NULL, &finding), 1);
    assert_int_equal(finding.met, 1);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(repair(&fixture), 1);
    assert_false(is_there(fixture.disk, "00000099.data"));
    assert_true(is_there(fixture.disk, "00000099.data.damaged"));
    assert_int_equal(repair(&fixture), 0);
    fixture.hook.fn = NULL;
    want_whole(&fixture, 20);
    want_whole(&fixture, 20);
    assert_true(is_there(fixture.disk, "00000099.data.damaged"));
    fixture_free(&fixture);
}

/* An older MANIFEST put back, and what is newer cannot be read while other damage is repaired. */
static void test_newer_segment_stays_for_better_days(void **state)
{
    struct fixture fixture;
    struct sector bad;
    char name[32], aside[48];
    uint64_t segment, len;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 300);
    assert_int_equal(keg_close(fixture.keg), 0);
    copy_file(fixture.disk, "MANIFEST", "kept");
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_put_all(fixture.keg, 300, 460);
    place_of(fixture.keg, 459, &segment);
    assert_int_equal(keg_close(fixture.keg), 0);
    copy_file(fixture.disk, "kept", "MANIFEST");
    snprintf(name, sizeof name, "%08" PRIu64 ".data", segment);
    snprintf(aside, sizeof aside, "%s.damaged", name);
    len = damage_store_size(fixture.disk, name);
    assert_int_equal(env_fault_flip(fixture.disk, "00000001.data", 1000, 1), 0);
    spoil(&fixture.hook, &bad, name, 0);
    assert_int_equal(repair(&fixture), 1);
    fixture.hook.fn = NULL;
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_null(keg_readonly_reason(fixture.keg));
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_false(is_there(fixture.disk, name));
    assert_int_equal(damage_store_size(fixture.disk, aside), len);
    fixture_free(&fixture);
}

/* One that can be read, and proves the manifest to be an older one, is reported, too. */
static void test_check_tells_of_a_newer_segment(void **state)
{
    struct finding finding = {0};
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    copy_file(fixture.disk, "MANIFEST", "kept");
    fixture_put_all(fixture.keg, 0, 400);
    place_of(fixture.keg, 399, &finding.segment);
    assert_true(finding.segment > 1);
    assert_int_equal(keg_close(fixture.keg), 0);
    copy_file(fixture.disk, "kept", "MANIFEST");
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_true(keg_check(fixture.keg, look_for, NULL, &finding) > 0);
    assert_int_equal(finding.met, 1);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* ---- Each sector of a small store ---- */

/* Whether all keys have their newest value; if not, whether none has an older one. */
static bool is_whole(struct keg *keg, const struct history_state *state, bool doubt)
{
    static uint8_t want[HISTORY_VALUE_MAX], got[HISTORY_VALUE_MAX];
    bool whole = true;

    for (unsigned k = 0; k < HISTORY_KEYS; k++) {
        uint32_t v = state->values[k];
        struct keg_bytes value = history_value(v, want);
        struct keg_info info;
        char name[16];
        ssize_t n = keg_get(keg, history_key(k, name), &info);

        if (!n)
            n = keg_read(keg, history_key(k, name), 0, got, sizeof got);
        if (v ? n == (ssize_t)value.len && memcmp(got, want, value.len) == 0 : n == -ENOENT)
            continue;
        whole = false;
        assert_true(doubt || n == -EIO);
    }
    return whole;
}

/* Opens for writing with the sector, then again without it: whatever was seen of the store in
 * between, all of it is there. */
static bool lose_sector(const char *name, uint64_t at, bool hints)
{
    struct keg_options options = {.flags = KEG_NO_BACKGROUND, .segment_size = DAMAGE_STORE_SEGMENT};
    struct store store;
    struct sector bad;
    struct hook hook;
    struct keg *keg;
    bool doubt = false;
    int err;

    damage_store_make(&store);
    if (!hints)
        damage_store_remove_hints(store.env);
    hook_init(&hook, store.env);
    spoil(&hook, &bad, name, at);
    err = keg_open(&hook.env, &options, &keg);
    assert_true(err == 0 || (err == -EIO && strcmp(name, "MANIFEST") == 0));
    if (!err) {
        doubt = keg_readonly_reason(keg) != NULL;
        if (!is_whole(keg, &store.state, doubt))
            assert_true(keg_check(keg, NULL, NULL, NULL) > 0);
        if (doubt)
            want_reason(keg, name, 0, UINT64_MAX);
        err = keg_close(keg); /* the last segment may be past making a hint of */
        assert_true(err == 0 || err == -EIO);
    }
    assert_int_equal(damage_store_open(store.env, 0, &keg), 0);
    assert_true(is_whole(keg, &store.state, false));
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(store.env);
    return doubt;
}

static void lose_everywhere(bool hints)
{
    unsigned sectors = 0, doubts = 0;
    struct store store;
    struct names names;

    damage_store_make(&store);
    if (!hints)
        damage_store_remove_hints(store.env);
    names = damage_store_list(store.env);
    for (size_t i = 0; i < names.count; i++) {
        uint64_t size = damage_store_size(store.env, names.names[i]);

        for (uint64_t at = 0; at < size; at += SECTOR, sectors++)
            doubts += lose_sector(names.names[i], at, hints);
    }
    keg_env_free(store.env);
    print_message("%u sectors, %u of which made it read-only\n", sectors, doubts);
    assert_true(doubts > 0 && doubts < sectors);
}

static void test_each_sector_unreadable(void **state)
{
    (void)state;
    lose_everywhere(true);
    lose_everywhere(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unreadable_heads_open_read_only),
        cmocka_unit_test(test_unreadable_header_opens_read_only),
        cmocka_unit_test(test_unreadable_tail_is_not_the_end),
        cmocka_unit_test(test_unreadable_end_is_not_the_end),
        cmocka_unit_test(test_unreadable_value_in_a_tail_is_one_value),
        cmocka_unit_test(test_unknown_segment_is_set_aside),
        cmocka_unit_test(test_newer_segment_stays_for_better_days),
        cmocka_unit_test(test_check_tells_of_a_newer_segment),
        cmocka_unit_test(test_each_sector_unreadable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
