/* SPDX-License-Identifier: MIT */
/*
 * Damage at rest: the bits of a small store are flipped, one after the other, with all hints there
 * and with none; files are cut, lost, or those of another store. The store must open (or say why
 * not), never give wrong bytes, never an older value of a key for its newest, and find the damage
 * by reading or by check, or be whole all the same.
 *
 * One bit of each byte, which the seed chooses; TEST_ALL=1: every bit of every byte.
 */
#include "damage_store.h"
#include "random.h"
#include "sanitized.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STRIDE = SANITIZED ? 11 : 1 }; /* bytes from one flip to the next */
struct verdict {
    unsigned damaged; /* values that gave -EBADMSG */
    unsigned missing; /* keys that are gone, or there again */
};

/* Whether the opened store says that it cannot know everything. */
static bool in_doubt(struct keg *keg)
{
    const char *reason = keg_readonly_reason(keg);

    return reason && strcmp(reason, "opened read-only") != 0;
}

/* Reads all keys. A value that reads must be the key's newest; anything else fails the test. */
static struct verdict read_all(struct keg *keg, const struct history_state *state)
{
    static uint8_t want[HISTORY_VALUE_MAX], got[HISTORY_VALUE_MAX];
    struct verdict verdict = {0};

    for (unsigned k = 0; k < HISTORY_KEYS; k++) {
        uint32_t v = state->values[k];
        struct keg_bytes value = history_value(v, want);
        struct keg_info info;
        char name[16];
        ssize_t n;

        if (keg_get(keg, history_key(k, name), &info)) {
            verdict.missing += v != 0;
            continue;
        }
        n = keg_read(keg, history_key(k, name), 0, got, sizeof got);
        if (n == -EBADMSG) {
            verdict.damaged++;
        } else if (v == 0 || n != (ssize_t)value.len || memcmp(got, want, value.len) != 0) {
            /* An older value may only show where the store says that it cannot know. */
            assert_true(in_doubt(keg));
            verdict.missing++;
        }
    }
    return verdict;
}

struct findings {
    unsigned all, live;
};

static void count_finding(void *arg, const struct keg_finding *f)
{
    struct findings *findings = arg;

    findings->all++;
    findings->live += f->live && f->key.len;
}

/* Opens what is damaged. True if it opened. */
static bool judge(struct store *store, const char *what, uint64_t offset)
{
    struct findings findings = {0};
    struct verdict verdict;
    struct keg *keg;
    bool readonly;
    int err = damage_store_open(store->env, KEG_READONLY, &keg);

    if (err) {
        assert_true(err == -EBADMSG || err == -EPROTONOSUPPORT);
        return false;
    }
    readonly = in_doubt(keg);
    verdict = read_all(keg, &store->state);
    assert_true(keg_check(keg, count_finding, NULL, &findings) >= 0);
    assert_int_equal(keg_close(keg), 0);
    if ((verdict.missing && !readonly) || (verdict.damaged && findings.live < verdict.damaged)) {
        print_error("%s at %" PRIu64 ": %u missing, %u damaged, read-only %d, check finds %u (%u "
                    "live)\n",
                    what, offset, verdict.missing, verdict.damaged, readonly, findings.all,
                    findings.live);
        fail();
    }
    return true;
}

/* Flips one bit of a byte, or each in turn, and counts those that a store does not open with. */
static uint64_t flip_byte(struct store *store, const char *name, uint64_t at, unsigned first,
                          unsigned bits)
{
    uint64_t refused = 0;

    for (unsigned i = 0; i < bits; i++) {
        uint8_t mask = (uint8_t)(1u << (first + i) % 8);

        assert_int_equal(env_fault_flip(store->env, name, at, mask), 0);
        refused += !judge(store, name, at);
        assert_int_equal(env_fault_flip(store->env, name, at, mask), 0);
    }
    return refused;
}

static void flip_everywhere(bool hints)
{
    bool all = getenv("TEST_ALL") != NULL;
    struct random random = random_seeded();
    unsigned bits = all ? 8 : 1;
    struct store store;
    struct names names;
    uint64_t flips = 0, refused = 0;

    damage_store_make(&store);
    if (!hints)
        damage_store_remove_hints(store.env);
    names = damage_store_list(store.env);
    assert_true(names.count >= (hints ? 5 : 3));
    for (size_t i = 0; i < names.count; i++) {
        const char *name = names.names[i];
        uint64_t size = damage_store_size(store.env, name);

        for (uint64_t at = 0; at < size; at += all ? 1 : STRIDE) {
            /* The inside of the one large value is all alike. */
            if (!all && size > HISTORY_VALUE_MAX && at > 4096 && at + 8192 < size)
                at += 500;
            refused += flip_byte(&store, name, at, (unsigned)random_below(&random, 8), bits);
            flips += bits;
        }
    }
    assert_true(judge(&store, "nothing", 0));
    print_message("%" PRIu64 " flips of %s, %" PRIu64 " of them refused at open\n", flips,
                  hints ? "a store with hints" : "one without", refused);
    assert_true(flips > 200);
    keg_env_free(store.env);
}

static void test_flip_every_bit(void **state)
{
    (void)state;
    flip_everywhere(true);
}

static void test_flip_every_bit_without_hints(void **state)
{
    (void)state;
    flip_everywhere(false);
}

/* One copy of the manifest is enough: whatever is flipped, in either. */
static void test_manifest_has_two_copies(void **state)
{
    struct store store;
    struct keg *keg;
    uint64_t size;

    (void)state;
    damage_store_make(&store);
    size = damage_store_size(store.env, "MANIFEST");
    for (uint64_t at = 0; at < size; at++) {
        assert_int_equal(env_fault_flip(store.env, "MANIFEST", at, 0x10), 0);
        assert_int_equal(damage_store_open(store.env, KEG_READONLY, &keg), 0);
        assert_int_equal(read_all(keg, &store.state).missing, 0);
        assert_int_equal(keg_close(keg), 0);
        assert_int_equal(env_fault_flip(store.env, "MANIFEST", at, 0x10), 0);
    }
    keg_env_free(store.env);
}

/* Sealed bytes that are gone are damage, never a shorter log. */
static void test_truncated_and_missing_files(void **state)
{
    struct names names;

    (void)state;
    for (size_t i = 0;; i++) {
        struct store store;
        struct keg *keg;

        damage_store_make(&store);
        names = damage_store_list(store.env);
        if (i == names.count) {
            keg_env_free(store.env);
            break;
        }
        if (strcmp(names.names[i], "MANIFEST") != 0) {
            uint64_t size = damage_store_size(store.env, names.names[i]);

            assert_int_equal(env_fault_truncate(store.env, names.names[i], size - 1), 0);
            judge(&store, names.names[i], size - 1);
            assert_int_equal(env_fault_truncate(store.env, names.names[i], size / 2), 0);
            judge(&store, names.names[i], size / 2);
            assert_int_equal(env_remove(store.env, names.names[i]), 0);
            judge(&store, names.names[i], 0);
        } else {
            assert_int_equal(env_remove(store.env, "MANIFEST"), 0);
            assert_int_equal(damage_store_open(store.env, KEG_CREATE, &keg), -EBADMSG);
        }
        keg_env_free(store.env);
    }
}

/* Files of another store with the same names are not taken for this one's. */
static void test_files_of_another_store(void **state)
{
    struct store mine, other;
    struct names names;

    (void)state;
    damage_store_make(&other);
    names = damage_store_list(other.env);
    for (size_t i = 0; i < names.count; i++) {
        if (strcmp(names.names[i], "MANIFEST") == 0)
            continue;
        damage_store_make(&mine);
        damage_store_copy_file(other.env, mine.env, names.names[i]);
        judge(&mine, names.names[i], 0);
        keg_env_free(mine.env);
    }
    keg_env_free(other.env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flip_every_bit),
        cmocka_unit_test(test_flip_every_bit_without_hints),
        cmocka_unit_test(test_manifest_has_two_copies),
        cmocka_unit_test(test_truncated_and_missing_files),
        cmocka_unit_test(test_files_of_another_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
