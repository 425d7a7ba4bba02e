/* SPDX-License-Identifier: MIT */
/*
 * Damage at rest: each byte of a small store gets a flipped bit, one after the other, with all
 * hints there and with none; files are cut, lost, or those of another store. The store must open
 * (or say why not), never give wrong bytes, never an older value of a key for its newest, and find
 * the damage by reading or by check, or be whole all the same.
 */
#include "env_fault.h"
#include "history.h"
#include "random.h"
#include "sanitized.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { STRIDE = SANITIZED ? 11 : 1 }; /* bytes from one flip to the next */
enum { SEGMENT = 64 << 10, FILES_MAX = 16 };

struct store {
    struct keg_env *env;
    struct history_state state;
};

static int open_keg(struct keg_env *env, unsigned flags, struct keg **keg)
{
    struct keg_options options = {.flags = flags | KEG_NO_BACKGROUND, .segment_size = SEGMENT};

    return keg_open(env, &options, keg);
}

static void put(struct keg *keg, struct history_state *state, unsigned k, uint32_t v)
{
    static uint8_t buf[HISTORY_VALUE_MAX];
    char name[16];

    state->values[k] = v;
    assert_int_equal(keg_put(keg, history_key(k, name), history_meta(&v), history_value(v, buf), 0),
                     0);
}

static void drop(struct keg *keg, struct history_state *state, unsigned k)
{
    char name[16];

    state->values[k] = 0;
    assert_int_equal(keg_delete(keg, history_key(k, name), 0), 0);
}

/* Sealed segments with older and newer records and tombstones, a compacted one, and an active one
 * with a hinted part; small, because each byte of it is flipped. */
static void make_store(struct store *store)
{
    struct keg *keg;

    memset(store, 0, sizeof *store);
    assert_int_equal(env_fault(0, &store->env), 0);
    assert_int_equal(open_keg(store->env, KEG_CREATE, &keg), 0);
    for (unsigned k = 0; k < 6; k++)
        put(keg, &store->state, k, 1 + k);
    for (unsigned k = 0; k < 3; k++)
        put(keg, &store->state, k, 12 + k);
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    for (unsigned k = 2; k < 8; k++)
        put(keg, &store->state, k, 23 + k % 3);
    drop(keg, &store->state, 5);
    drop(keg, &store->state, 0);
    put(keg, &store->state, 9, 29);
    assert_int_equal(keg_hint(keg), 0);
    put(keg, &store->state, 10, 34);
    put(keg, &store->state, 2, 45);
    drop(keg, &store->state, 6);
    assert_int_equal(keg_close(keg), 0);
    assert_int_equal(open_keg(store->env, 0, &keg), 0);
    put(keg, &store->state, 11, 35);
    drop(keg, &store->state, 7);
    assert_int_equal(keg_close(keg), 0);
}

struct names {
    char names[FILES_MAX][ENV_NAME_MAX + 1];
    size_t count;
};

static int note(void *arg, const char *name)
{
    struct names *names = arg;

    assert_true(names->count < FILES_MAX);
    snprintf(names->names[names->count++], ENV_NAME_MAX + 1, "%s", name);
    return 0;
}

static struct names list(struct keg_env *env)
{
    struct names names = {.count = 0};

    assert_int_equal(env_list(env, note, &names), 0);
    return names;
}

static void remove_hints(struct keg_env *env)
{
    struct names names = list(env);

    for (size_t i = 0; i < names.count; i++) {
        if (strstr(names.names[i], ".hint"))
            assert_int_equal(env_remove(env, names.names[i]), 0);
    }
}

static uint64_t size_of(struct keg_env *env, const char *name)
{
    struct keg_file *file;
    uint64_t size;

    assert_int_equal(env_open(env, name, ENV_READ, &file), 0);
    assert_int_equal(env_size(file, &size), 0);
    env_close(file);
    return size;
}

struct verdict {
    unsigned damaged; /* values that gave -EBADMSG */
    unsigned missing; /* keys that are gone, or there again */
};

/* Reads all keys. A value that reads must be the key's newest; anything else fails the test. */
static struct verdict read_all(struct keg *keg, const struct history_state *state)
{
    static uint8_t want[HISTORY_VALUE_MAX], got[HISTORY_VALUE_MAX];
    bool readonly = keg_readonly_reason(keg) != NULL;
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
            assert_true(readonly);
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
    int err = open_keg(store->env, KEG_READONLY, &keg);

    if (err) {
        assert_true(err == -EBADMSG || err == -EPROTONOSUPPORT);
        return false;
    }
    verdict = read_all(keg, &store->state);
    assert_true(keg_check(keg, count_finding, NULL, &findings) >= 0);
    assert_int_equal(keg_close(keg), 0);
    assert_int_equal(open_keg(store->env, KEG_READONLY, &keg), 0);
    readonly = strcmp(keg_readonly_reason(keg), "opened read-only") != 0;
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

static void flip_everywhere(bool hints)
{
    struct store store;
    struct names names;
    uint64_t flips = 0, refused = 0;

    make_store(&store);
    if (!hints)
        remove_hints(store.env);
    names = list(store.env);
    assert_true(names.count >= (hints ? 5 : 3));
    for (size_t i = 0; i < names.count; i++) {
        const char *name = names.names[i];
        uint64_t size = size_of(store.env, name);

        for (uint64_t at = 0; at < size; at += STRIDE) {
            uint8_t mask = (uint8_t)(1u << (at * 5 % 8));

            /* The inside of the one large value is all alike. */
            if (size > HISTORY_VALUE_MAX && at > 4096 && at + 8192 < size)
                at += 500;
            assert_int_equal(env_fault_flip(store.env, name, at, mask), 0);
            refused += !judge(&store, name, at);
            assert_int_equal(env_fault_flip(store.env, name, at, mask), 0);
            flips++;
        }
    }
    assert_true(judge(&store, "nothing", 0));
    print_message("%" PRIu64 " flips, %" PRIu64 " of them refused at open\n", flips, refused);
    assert_true(flips > 200);
    keg_env_free(store.env);
}

static void test_flip_every_byte(void **state)
{
    (void)state;
    flip_everywhere(true);
}

static void test_flip_every_byte_without_hints(void **state)
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
    make_store(&store);
    size = size_of(store.env, "MANIFEST");
    for (uint64_t at = 0; at < size; at++) {
        assert_int_equal(env_fault_flip(store.env, "MANIFEST", at, 0x10), 0);
        assert_int_equal(open_keg(store.env, KEG_READONLY, &keg), 0);
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

        make_store(&store);
        names = list(store.env);
        if (i == names.count) {
            keg_env_free(store.env);
            break;
        }
        if (strcmp(names.names[i], "MANIFEST") != 0) {
            uint64_t size = size_of(store.env, names.names[i]);

            assert_int_equal(env_fault_truncate(store.env, names.names[i], size - 1), 0);
            judge(&store, names.names[i], size - 1);
            assert_int_equal(env_fault_truncate(store.env, names.names[i], size / 2), 0);
            judge(&store, names.names[i], size / 2);
            assert_int_equal(env_remove(store.env, names.names[i]), 0);
            judge(&store, names.names[i], 0);
        } else {
            assert_int_equal(env_remove(store.env, "MANIFEST"), 0);
            assert_int_equal(open_keg(store.env, KEG_CREATE, &keg), -EBADMSG);
        }
        keg_env_free(store.env);
    }
}

static void copy_file(struct keg_env *from, struct keg_env *to, const char *name)
{
    uint8_t *data;
    size_t len;

    assert_int_equal(env_slurp(from, name, 1 << 24, &data, &len), 0);
    assert_int_equal(env_replace(to, name, data, len), 0);
    free(data);
}

/* Files of another store with the same names are not taken for this one's. */
static void test_files_of_another_store(void **state)
{
    struct store mine, other;
    struct names names;

    (void)state;
    make_store(&other);
    names = list(other.env);
    for (size_t i = 0; i < names.count; i++) {
        if (strcmp(names.names[i], "MANIFEST") == 0)
            continue;
        make_store(&mine);
        copy_file(other.env, mine.env, names.names[i]);
        judge(&mine, names.names[i], 0);
        keg_env_free(mine.env);
    }
    keg_env_free(other.env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flip_every_byte),
        cmocka_unit_test(test_flip_every_byte_without_hints),
        cmocka_unit_test(test_manifest_has_two_copies),
        cmocka_unit_test(test_truncated_and_missing_files),
        cmocka_unit_test(test_files_of_another_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
