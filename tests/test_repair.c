/* SPDX-License-Identifier: MIT */
/*
 * Repair: whatever is damaged, afterwards the store opens for writing and check finds nothing; a
 * value that reads is the key's newest, unless the repair has named the key as doubtful; a key that
 * is gone was told of as lost; the damaged originals are there, byte for byte; a second repair
 * finds nothing to do. And all that also if the repair itself is cut off, or meets failing I/O,
 * anywhere.
 */
#include "damage_store.h"
#include "random.h"
#include "sanitized.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static bool full(void)
{
    const char *scale = getenv("SCALE");

    return scale && strcmp(scale, "full") == 0;
}

struct told {
    bool doubt[HISTORY_KEYS];
    unsigned values, records, notes;
    bool print;
};

static int key_number(struct keg_bytes key)
{
    char name[16];

    for (unsigned k = 0; k < HISTORY_KEYS; k++) {
        struct keg_bytes mine = history_key(k, name);

        if (mine.len == key.len && memcmp(mine.data, key.data, key.len) == 0)
            return (int)k;
    }
    return -1;
}

static void lost(void *arg, const struct keg_loss *loss)
{
    struct told *told = arg;

    if (told->print)
        print_message("  kind %d, segment %" PRIu64 " at %" PRIu64 " (%" PRIu64
                      " bytes), sequences %" PRIu64 "..%" PRIu64 ", key %d: %s\n",
                      loss->kind, loss->segment, loss->offset, loss->len, loss->first_sequence,
                      loss->last_sequence, key_number(loss->key), loss->text);
    told->values += loss->kind == KEG_LOSS_VALUE;
    told->records += loss->kind == KEG_LOSS_RECORDS;
    told->notes += loss->kind == KEG_LOSS_NOTE;
    if (loss->kind == KEG_LOSS_DOUBT && key_number(loss->key) >= 0)
        told->doubt[key_number(loss->key)] = true;
}

static int repair(struct keg_env *env, struct told *told)
{
    struct keg_options options = {.segment_size = DAMAGE_STORE_SEGMENT};

    return keg_repair(env, &options, lost, NULL, told);
}

static void print_finding(void *arg, const struct keg_finding *f)
{
    (void)arg;
    print_error("check: segment %" PRIu64 " at %" PRIu64 ": %s\n", f->segment, f->offset, f->text);
}

/* What key k holds: its value's number, 0: it is not there, -1: it cannot be read, -2: neither. */
static int holds(struct keg *keg, unsigned k, uint32_t newest)
{
    static uint8_t want[HISTORY_VALUE_MAX], got[HISTORY_VALUE_MAX];
    struct keg_bytes value = history_value(newest, want);
    struct keg_info info;
    char name[16];
    ssize_t n;

    if (keg_get(keg, history_key(k, name), &info))
        return 0;
    n = keg_read(keg, history_key(k, name), 0, got, sizeof got);
    if (n == -EBADMSG)
        return -1;
    assert_true(n >= 0);
    return newest && n == (ssize_t)value.len && memcmp(got, want, value.len) == 0 ? (int)newest
                                                                                  : -2;
}

/* The damage: where, for messages. */
struct place {
    const char *what;
    uint64_t at;
};

static void check_keys(struct keg *keg, const struct history_state *state, const struct told *told,
                       struct place place)
{
    unsigned unreadable = 0;

    for (unsigned k = 0; k < HISTORY_KEYS; k++) {
        int got = holds(keg, k, state->values[k]);
        bool right = got == (int)state->values[k];

        unreadable += got == -1;
        if (right || got == -1 || (got == 0 && told->records) || (got == -2 && told->doubt[k]))
            continue;
        print_error("%s at %" PRIu64 ": key %u is %d, should be %u; %u records lost, doubt %d\n",
                    place.what, place.at, k, got, state->values[k], told->records, told->doubt[k]);
        fail();
    }
    if (unreadable > told->values) {
        print_error("%s at %" PRIu64 ": %u values unreadable, %u told of\n", place.what, place.at,
                    unreadable, told->values);
        fail();
    }
}

/* After a repair: all that the head of this file says. */
static void check_repaired(struct keg_env *env, const struct history_state *state,
                           const struct told *told, struct place place)
{
    struct told again = {.print = false};
    struct keg *keg;
    char name[16];

    assert_int_equal(damage_store_open(env, 0, &keg), 0);
    if (keg_readonly_reason(keg)) {
        print_error("%s at %" PRIu64 ": %s\n", place.what, place.at, keg_readonly_reason(keg));
        fail();
    }
    check_keys(keg, state, told, place);
    if (keg_check(keg, print_finding, NULL, NULL) != 0) {
        print_error("%s at %" PRIu64 ": check is not content\n", place.what, place.at);
        fail();
    }
    assert_int_equal(
        keg_put(keg, history_key(1, name), (struct keg_bytes){0}, (struct keg_bytes){"x", 1}, 0),
        0);
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    assert_int_equal(keg_check(keg, print_finding, NULL, NULL), 0);
    assert_int_equal(keg_close(keg), 0);
    if (repair(env, &again) != 0) {
        print_error("%s at %" PRIu64 ": repaired once more\n", place.what, place.at);
        fail();
    }
}

/* Each segment that is no longer what it was in `before` is there as it was, under another name. */
static void check_originals(struct keg_env *before, struct keg_env *after, struct place place)
{
    struct names names = damage_store_list(before);

    for (size_t i = 0; i < names.count; i++) {
        char aside[ENV_NAME_MAX + 1];
        uint8_t *a, *b;
        size_t a_len, b_len;

        if (!strstr(names.names[i], ".data"))
            continue;
        snprintf(aside, sizeof aside, "%.40s.damaged", names.names[i]);
        assert_int_equal(env_slurp(before, names.names[i], 1 << 24, &a, &a_len), 0);
        if (env_slurp(after, aside, 1 << 24, &b, &b_len) &&
            env_slurp(after, names.names[i], 1 << 24, &b, &b_len)) {
            free(a);
            continue; /* one that no manifest listed */
        }
        if (a_len > b_len || memcmp(a, b, a_len) != 0) {
            print_error("%s at %" PRIu64 ": %s is changed\n", place.what, place.at, names.names[i]);
            fail();
        }
        free(a);
        free(b);
    }
}

/* Repairs a copy of the damaged store. Returns what the repair did. */
static int try_repair(struct keg_env *damaged, const struct history_state *state,
                      struct place place)
{
    struct keg_env *env = damage_store_clone(damaged);
    struct told told = {.print = false};
    int done = repair(env, &told);

    if (done < 0) {
        print_error("%s at %" PRIu64 ": repair: %s\n", place.what, place.at, strerror(-done));
        fail();
    }
    check_originals(damaged, env, place);
    check_repaired(env, state, &told, place);
    keg_env_free(env);
    return done;
}

static void test_a_sound_store_is_left_alone(void **state)
{
    struct told told = {.print = true};
    struct store store;
    struct names before, after;

    (void)state;
    damage_store_make(&store);
    before = damage_store_list(store.env);
    assert_int_equal(repair(store.env, &told), 0);
    after = damage_store_list(store.env);
    assert_int_equal(told.notes, 0);
    assert_int_equal(before.count, after.count);
    assert_int_equal(try_repair(store.env, &store.state, (struct place){"nothing", 0}), 0);
    keg_env_free(store.env);
}

static void flip_everywhere(bool hints)
{
    unsigned stride = full() ? 1 : SANITIZED ? 53 : 7, flips = 0, repaired = 0;
    struct store store;
    struct names names;

    damage_store_make(&store);
    if (!hints)
        damage_store_remove_hints(store.env);
    names = damage_store_list(store.env);
    for (size_t i = 0; i < names.count; i++) {
        const char *name = names.names[i];
        uint64_t size = damage_store_size(store.env, name);

        for (uint64_t at = 0; at < size; at += stride) {
            uint8_t mask = (uint8_t)(1u << (at * 5 % 8));

            /* The inside of the one large value is all alike. */
            if (size > HISTORY_VALUE_MAX && at > 4096 && at + 8192 < size)
                at += 2000;
            assert_int_equal(env_fault_flip(store.env, name, at, mask), 0);
            repaired += (unsigned)try_repair(store.env, &store.state, (struct place){name, at});
            assert_int_equal(env_fault_flip(store.env, name, at, mask), 0);
            flips++;
        }
    }
    print_message("%u flips, %u repaired\n", flips, repaired);
    assert_true(repaired > flips / 4);
    keg_env_free(store.env);
}

static void test_flips(void **state)
{
    (void)state;
    flip_everywhere(true);
}

static void test_flips_without_hints(void **state)
{
    (void)state;
    flip_everywhere(false);
}

/* ---- Files ---- */

enum { DAMAGES = 9 };
static const char *const damages[DAMAGES] = {
    "missing",       "cut by a byte", "cut in half",      "emptied",         "zeros behind it",
    "garbage in it", "its own half",  "of another store", "another segment",
};

static void replace(struct keg_env *env, const char *name, const uint8_t *data, size_t len)
{
    assert_int_equal(env_replace(env, name, data, len), 0);
}

/* Does the i-th damage to a file. */
static void damage_file(struct keg_env *env, const struct store *other, const char *name, int i)
{
    struct random random = {(uint64_t)i};
    size_t len, other_len;
    uint8_t *data, *wrong, *longer;
    const char *from = i == 7 ? name : strstr(name, ".hint") ? "00000002.hint" : "00000002.data";

    assert_int_equal(env_slurp(env, name, 1 << 24, &data, &len), 0);
    if (env_slurp(i == 7 ? other->env : env, from, 1 << 24, &wrong, &other_len)) {
        wrong = NULL;
        other_len = 0;
    }
    longer = calloc(1, len + 5000);
    assert_non_null(longer);
    memcpy(longer, data, len);
    if (i >= 5 && len > 600)
        random_fill(&random, data + len / 3, 200);
    if (i == 0)
        assert_int_equal(env_remove(env, name), 0);
    else if (i <= 3)
        replace(env, name, longer, i == 1 ? len - 1 : i == 2 ? len / 2 : 0);
    else if (i == 4)
        replace(env, name, longer, len + 5000);
    else if (i == 5)
        replace(env, name, data, len);
    else if (i == 6)
        memcpy(longer + len / 2, longer, len / 2), replace(env, name, longer, len);
    else
        replace(env, name, wrong, other_len);
    free(data);
    free(wrong);
    free(longer);
}

static void each_file(bool hints)
{
    struct store store, other;
    struct names names;

    damage_store_make(&store);
    damage_store_make(&other);
    if (!hints)
        damage_store_remove_hints(store.env);
    names = damage_store_list(store.env);
    for (size_t i = 0; i < names.count; i++) {
        for (int how = 0; how < DAMAGES; how++) {
            struct keg_env *env = damage_store_clone(store.env);
            char what[128];

            snprintf(what, sizeof what, "%.40s: %s", names.names[i], damages[how]);
            if (strcmp(names.names[i], "MANIFEST") != 0 || how != 7)
                damage_file(env, &other, names.names[i], how);
            (void)try_repair(env, &store.state, (struct place){what, 0});
            keg_env_free(env);
        }
    }
    keg_env_free(store.env);
    keg_env_free(other.env);
}

static void test_files_damaged(void **state)
{
    (void)state;
    each_file(true);
}

static void test_files_damaged_without_hints(void **state)
{
    (void)state;
    each_file(false);
}

/* An older MANIFEST knows nothing of later segments: opening removes nothing, repair finds them. */
static void test_an_older_manifest(void **state)
{
    struct told told = {.print = false};
    struct store store;
    struct keg *keg;
    uint8_t *old;
    size_t len;
    char name[16];

    (void)state;
    damage_store_make(&store);
    assert_int_equal(env_slurp(store.env, "MANIFEST", 1 << 20, &old, &len), 0);
    assert_int_equal(damage_store_open(store.env, 0, &keg), 0);
    for (unsigned k = 12; k < 16; k++) {
        static uint8_t buf[HISTORY_VALUE_MAX];
        uint32_t v = 58; /* large: each fills a segment */

        store.state.values[k] = v;
        assert_int_equal(
            keg_put(keg, history_key(k, name), history_meta(&v), history_value(v, buf), 0), 0);
    }
    assert_int_equal(keg_close(keg), 0);
    replace(store.env, "MANIFEST", old, len);
    free(old);
    assert_int_equal(damage_store_open(store.env, 0, &keg), 0);
    assert_non_null(keg_readonly_reason(keg));
    assert_non_null(strstr(keg_readonly_reason(keg), "MANIFEST is older"));
    assert_int_equal(keg_close(keg), 0);
    assert_int_equal(repair(store.env, &told), 1);
    check_repaired(store.env, &store.state, &told, (struct place){"older MANIFEST", 0});
    keg_env_free(store.env);
}

/* ---- A repair that is cut off, or meets failing I/O ---- */

static void hurt(struct keg_env *env, int how)
{
    struct names names = damage_store_list(env);

    if (how == 2)
        assert_int_equal(env_remove(env, "MANIFEST"), 0);
    for (size_t i = 0; i < names.count; i++) {
        uint64_t size =
            strstr(names.names[i], ".data") ? damage_store_size(env, names.names[i]) : 0;

        if (size > 200)
            assert_int_equal(env_fault_flip(env, names.names[i], how ? size / 2 : size - 100, 0x20),
                             0);
    }
}

static void strike_everywhere(enum env_fault_kind kind, bool hints, int how)
{
    /* Space is asked for at few of the operations, so none of them is left out. */
    unsigned step = full() || kind == ENV_FAULT_ENOSPC ? 1 : SANITIZED ? 9 : 2, struck = 0;
    struct store store;

    damage_store_make(&store);
    if (!hints)
        damage_store_remove_hints(store.env);
    hurt(store.env, how);
    for (uint64_t at = 1;; at += step) {
        struct env_fault_plan plan = {.kind = kind, .at = at, .seed = at};
        struct keg_env *env = damage_store_clone(store.env);
        struct told first = {.print = false}, told = {.print = false};
        bool hit, over;
        int done;

        env_fault_set(env, &plan);
        done = repair(env, &first);
        hit = env_fault_struck(env);
        over = at > env_fault_operations(env);
        env_fault_set(env, NULL);
        if (kind == ENV_FAULT_CUT)
            (void)env_fault_restart(env);
        else
            env_fault_revive(env);
        /* One that says it has succeeded has told everything, and so has it told what one that had
         * done its work could not say in the end. */
        if (done < 0)
            done = repair(env, &told);
        if (done < 0) {
            print_error("struck at %" PRIu64 ": then %s\n", at, strerror(-done));
            fail();
        }
        for (unsigned k = 0; k < HISTORY_KEYS; k++)
            told.doubt[k] = told.doubt[k] || first.doubt[k];
        told.values += first.values;
        told.records += first.records;
        check_originals(store.env, env, (struct place){"struck", at});
        check_repaired(env, &store.state, &told, (struct place){"struck", at});
        keg_env_free(env);
        struck += hit;
        if (over)
            break;
    }
    print_message("struck %u times\n", struck);
    assert_true(struck > 5);
    keg_env_free(store.env);
}

static void test_cut_off_anywhere(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        strike_everywhere(ENV_FAULT_CUT, true, how);
        strike_everywhere(ENV_FAULT_CUT, false, how);
    }
}

static void test_no_space_anywhere(void **state)
{
    (void)state;
    strike_everywhere(ENV_FAULT_ENOSPC, true, 1);
    strike_everywhere(ENV_FAULT_ENOSPC, false, 1);
}

static void test_failing_io_anywhere(void **state)
{
    (void)state;
    strike_everywhere(ENV_FAULT_EIO, false, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sound_store_is_left_alone),
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_flips_without_hints),
        cmocka_unit_test(test_files_damaged),
        cmocka_unit_test(test_files_damaged_without_hints),
        cmocka_unit_test(test_an_older_manifest),
        cmocka_unit_test(test_cut_off_anywhere),
        cmocka_unit_test(test_no_space_anywhere),
        cmocka_unit_test(test_failing_io_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
