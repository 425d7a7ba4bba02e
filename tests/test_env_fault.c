/* SPDX-License-Identifier: MIT */
/*
 * The environment that fails, held to env.h: that it never loses what is promised, and that it does
 * lose, over many seeds, everything that is not. A fault model that is too kind proves nothing.
 */
#include "env_fault.h"
#include "random.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SEEDS = 400, PIECE = 512 };

static struct random dice;

static struct keg_env *disk(void)
{
    struct keg_env *env;

    assert_int_equal(env_fault(0, &env), 0);
    return env;
}

static void plan(struct keg_env *env, enum env_fault_kind kind, uint64_t at, uint64_t seed)
{
    env_fault_set(env, &(struct env_fault_plan){.kind = kind, .at = at, .seed = seed});
}

static int append(struct keg_file *file, uint64_t at, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};

    return env_append(file, at, &iov, 1);
}

/* A file with `synced` bytes 's' that are durable, and then `more` bytes 'u' that are not. */
static struct keg_file *prepare(struct keg_env *env, size_t synced, size_t more)
{
    static uint8_t s[8192], u[8192];
    struct keg_file *file;

    memset(s, 's', sizeof s);
    memset(u, 'u', sizeof u);
    assert_int_equal(env_create(env, "f", &file), 0);
    if (synced)
        assert_int_equal(append(file, 0, s, synced), 0);
    assert_int_equal(env_sync(file), 0);
    assert_int_equal(env_sync_names(env), 0);
    if (more)
        assert_int_equal(append(file, synced, u, more), 0);
    return file;
}

static size_t load(struct keg_env *env, const char *name, enum env_how how, uint8_t *buf,
                   size_t len)
{
    struct keg_file *file;
    ssize_t n;

    assert_int_equal(env_open(env, name, how, &file), 0);
    n = env_read(file, 0, buf, len);
    assert_true(n >= 0);
    env_close(file);
    return (size_t)n;
}

static bool there(struct keg_env *env, const char *name)
{
    struct keg_file *file;
    int rc = env_open(env, name, ENV_READ, &file);

    assert_true(rc == 0 || rc == -ENOENT);
    if (!rc)
        env_close(file);
    return !rc;
}

static bool all(const uint8_t *p, size_t len, uint8_t byte)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != byte)
            return false;
    return true;
}

/* ---- Which operation fails, and how ---- */

static int count_names(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return 0;
}

static int do_create(struct keg_env *env, struct keg_file *file)
{
    int rc = env_create(env, "new", &file);

    if (!rc)
        env_close(file);
    return rc;
}

static int do_open(struct keg_env *env, struct keg_file *file)
{
    int rc = env_open(env, "f", ENV_READ, &file);

    if (!rc)
        env_close(file);
    return rc;
}

static int do_append(struct keg_env *env, struct keg_file *file)
{
    (void)env;
    return append(file, 100, "more", 4);
}

static int do_sync(struct keg_env *env, struct keg_file *file)
{
    (void)env;
    return env_sync(file);
}

static int do_seal(struct keg_env *env, struct keg_file *file)
{
    (void)env;
    return env_seal(file, 50);
}

static int do_read(struct keg_env *env, struct keg_file *file)
{
    char c = 's';
    ssize_t n = env_read(file, 0, &c, 1);

    (void)env;
    assert_int_equal(c == 's', n == 1); /* who ignores the error must not find it right */
    return n < 0 ? (int)n : 0;
}

static int do_size(struct keg_env *env, struct keg_file *file)
{
    uint64_t size;

    (void)env;
    return env_size(file, &size);
}

static int do_publish(struct keg_env *env, struct keg_file *file)
{
    (void)file;
    return env_publish(env, "other", "target");
}

static int do_remove(struct keg_env *env, struct keg_file *file)
{
    (void)file;
    return env_remove(env, "other");
}

static int do_sync_names(struct keg_env *env, struct keg_file *file)
{
    (void)file;
    return env_sync_names(env);
}

static int do_list(struct keg_env *env, struct keg_file *file)
{
    unsigned count = 0;

    (void)file;
    return env_list(env, count_names, &count);
}

static int do_lock(struct keg_env *env, struct keg_file *file)
{
    (void)file;
    return env_lock(env, "me");
}

static int do_space(struct keg_env *env, struct keg_file *file)
{
    struct env_space space;

    (void)file;
    return env_space(env, &space);
}

static const struct {
    int (*run)(struct keg_env *env, struct keg_file *file);
    bool takes_space;
} operations[] = {
    {do_create, true}, {do_append, true},  {do_publish, true},     {do_open, false},
    {do_sync, false},  {do_seal, false},   {do_read, false},       {do_size, false},
    {do_list, false},  {do_remove, false}, {do_sync_names, false}, {do_lock, false},
    {do_space, false},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

/* Each operation counts as one, and meets the plan made for it and no other. */
static void test_each_operation(void **state)
{
    const enum env_fault_kind kinds[] = {ENV_FAULT_NONE, ENV_FAULT_EIO, ENV_FAULT_ENOSPC,
                                         ENV_FAULT_CUT};

    (void)state;
    for (int i = 0; i < OPERATIONS; i++) {
        for (int k = 0; k < 8; k++) {
            enum env_fault_kind kind = kinds[k % 4];
            bool strikes = kind && k < 4 && (kind != ENV_FAULT_ENOSPC || operations[i].takes_space);
            struct keg_env *env = disk();
            struct keg_file *file = prepare(env, 100, 0);
            int rc, want = !strikes ? 0 : kind == ENV_FAULT_ENOSPC ? -ENOSPC : -EIO;

            assert_int_equal(env_replace(env, "other", "other", 5), 0);
            plan(env, kind, k < 4 ? 1 : 2, random_next(&dice)); /* now, or one too late */
            rc = operations[i].run(env, file);
            assert_int_equal(rc, want);
            assert_int_equal(env_fault_operations(env), 1);
            assert_int_equal(env_fault_struck(env), strikes);
            assert_int_equal(env_fault_open_files(env), 1);
            env_close(file);
            keg_env_free(env);
        }
    }
}

static void test_once_and_for_ever(void **state)
{
    (void)state;
    for (int forever = 0; forever < 2; forever++) {
        struct keg_env *env = disk();
        struct keg_file *file = prepare(env, 100, 0);

        env_fault_set(env,
                      &(struct env_fault_plan){.kind = ENV_FAULT_EIO, .at = 2, .forever = forever});
        assert_int_equal(do_size(env, file), 0);
        assert_int_equal(do_size(env, file), -EIO);
        assert_int_equal(do_size(env, file), forever ? -EIO : 0);
        assert_int_equal(do_space(env, file), forever ? -EIO : 0);
        env_fault_set(env, NULL);
        assert_int_equal(do_size(env, file), 0);
        assert_int_equal(env_fault_operations(env), 1);
        env_close(file);
        keg_env_free(env);
    }
}

/* Once the power is off nothing works, nothing changes, and only a restart helps. */
static void test_off_until_restart(void **state)
{
    struct keg_env *env = disk();
    struct keg_file *file = prepare(env, 100, 0);
    uint8_t buf[200];
    char text[20];

    (void)state;
    assert_int_equal(env_replace(env, "other", "other", 5), 0);
    assert_int_equal(env_lock(env, "me"), 0);
    plan(env, ENV_FAULT_CUT, 1, 1);
    assert_int_equal(do_size(env, file), -EIO);
    for (int i = 0; i < OPERATIONS; i++)
        assert_int_equal(operations[i].run(env, file), -EIO);
    env_fault_set(env, NULL);
    assert_int_equal(do_size(env, file), -EIO);
    env_close(file);
    assert_int_equal(env_fault_restart(env), 0);
    assert_int_equal(keg_holder(env, text, sizeof text), -ENOENT);
    assert_int_equal(env_lock(env, "me"), 0);
    assert_int_equal(load(env, "f", ENV_READ, buf, sizeof buf), 100);
    assert_true(all(buf, 100, 's'));
    assert_true(there(env, "other"));
    assert_false(there(env, "target"));
    assert_false(there(env, "new"));
    keg_env_free(env);
}

/* What is left of an append that failed: any first part of it. */
static void test_append_in_part(void **state)
{
    unsigned none = 0, part = 0;
    uint8_t buf[2000];

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct keg_env *env = disk();
        struct keg_file *file = prepare(env, 10, 0);
        struct iovec iov[] = {{"abcd", 4}, {"efgh", 4}};
        size_t n;

        plan(env, seed % 2 ? ENV_FAULT_EIO : ENV_FAULT_ENOSPC, 1, seed);
        assert_int_equal(env_append(file, 10, iov, 2), seed % 2 ? -EIO : -ENOSPC);
        n = load(env, "f", ENV_READ, buf, sizeof buf);
        assert_in_range(n, 10, 18);
        assert_memory_equal(buf + 10, "abcdefgh", n - 10);
        none += n == 10;
        part += n > 10 && n < 18;
        assert_int_equal(append(file, 10, "AB", 2), 0);
        env_close(file);
        keg_env_free(env);
    }
    assert_true(none > 0 && part > 0);
}

/* ---- What a cut does to bytes ---- */

/* Each fate of a piece comes about, in any order, and no synced byte is touched. */
static void test_cut_pieces(void **state)
{
    enum { SYNCED = 700, MORE = 8000, ALL = SYNCED + MORE };
    unsigned kept = 0, zero = 0, garbage = 0, later = 0, shorter = 0, between = 0, full = 0;
    uint8_t buf[ALL + 1];

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct keg_env *env = disk();
        bool lost = false;
        uint64_t changed;
        size_t n;

        env_close(prepare(env, SYNCED, MORE));
        plan(env, ENV_FAULT_NONE, 0, seed);
        changed = env_fault_restart(env);
        n = load(env, "f", ENV_READ, buf, sizeof buf);
        assert_in_range(n, SYNCED, ALL);
        assert_true(all(buf, SYNCED, 's'));
        shorter += n == SYNCED;
        full += n == ALL;
        between += n > SYNCED && n < ALL;
        assert_int_equal(changed == 0, n == ALL && all(buf + SYNCED, MORE, 'u'));
        for (size_t at = SYNCED; at < n; at = (at / PIECE + 1) * PIECE) {
            size_t len = PIECE - at % PIECE < n - at ? PIECE - at % PIECE : n - at;
            bool good = all(buf + at, len, 'u');

            kept += good;
            zero += all(buf + at, len, 0);
            garbage += !good && !all(buf + at, len, 0);
            later += good && lost;
            lost |= !good;
        }
        keg_env_free(env);
    }
    assert_true(kept && zero && garbage && later && shorter && between && full);
}

/* Bytes written over durable ones (a failed append's, or zeros written ahead) may come back. */
static void test_cut_overwritten(void **state)
{
    enum { LEN = 4096 };
    unsigned old = 0, new = 0, zero = 0;
    uint8_t buf[LEN];

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct keg_env *env = disk();
        struct keg_file *file = prepare(env, LEN, 0);

        memset(buf, 'n', sizeof buf);
        assert_int_equal(append(file, 100, buf, LEN - 200), 0);
        env_close(file);
        plan(env, ENV_FAULT_NONE, 0, seed);
        env_fault_restart(env);
        assert_int_equal(load(env, "f", ENV_READ, buf, LEN), LEN);
        assert_true(all(buf, 100, 's'));
        assert_true(all(buf + LEN - 100, 100, 's'));
        for (size_t at = PIECE; at < LEN - PIECE; at += PIECE) {
            old += all(buf + at, PIECE, 's');
            new += all(buf + at, PIECE, 'n');
            zero += all(buf + at, PIECE, 0);
        }
        keg_env_free(env);
    }
    assert_true(old && new &&zero);
}

/* A sync or a seal that the cut interrupts has been done or not; what was synced before stays. */
static void test_cut_in_sync(void **state)
{
    unsigned done = 0, lost = 0;
    uint8_t buf[8192];

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct keg_env *env = disk();
        struct keg_file *file = prepare(env, 700, 3000);
        size_t n;

        plan(env, ENV_FAULT_CUT, 1, seed);
        assert_int_equal(seed % 2 ? env_sync(file) : env_seal(file, 2000), -EIO);
        env_close(file);
        env_fault_restart(env);
        n = load(env, "f", ENV_READ, buf, sizeof buf);
        assert_in_range(n, 700, 3700);
        assert_true(all(buf, 700, 's'));
        if (n == (seed % 2 ? 3700 : 2000) && all(buf + 700, n - 700, 'u'))
            done++;
        else
            lost++;
        keg_env_free(env);
    }
    assert_true(done && lost);
}

/* ---- A failed sync ---- */

/* The trap: after it the cache shows everything, the next sync says that all is well, and what did
 * not get to the disk then never will. */
static void failed_sync(uint64_t seed, bool seal, unsigned *lost, unsigned *arrived)
{
    enum { SYNCED = 1024, MORE = 4096, ALL = SYNCED + MORE };
    struct keg_env *env = disk();
    struct keg_file *file = prepare(env, SYNCED, MORE);
    uint8_t shown[ALL + PIECE], medium[ALL + PIECE], after[ALL + PIECE];
    size_t n = ALL;

    plan(env, ENV_FAULT_EIO, 1, seed);
    assert_int_equal(seal ? env_seal(file, ALL) : env_sync(file), -EIO);
    assert_int_equal(env_sync(file), 0);
    assert_int_equal(load(env, "f", ENV_READ, shown, n), n);
    assert_true(all(shown, SYNCED, 's'));
    assert_true(all(shown + SYNCED, MORE, 'u'));
    assert_int_equal(load(env, "f", ENV_UNCACHED, medium, n), n);
    /* What is written from now on is synced as ever. */
    assert_int_equal(append(file, n, shown, PIECE), 0);
    assert_int_equal(env_sync(file), 0);
    env_close(file);
    env_fault_restart(env);
    assert_int_equal(load(env, "f", ENV_READ, after, sizeof after), n + PIECE);
    assert_memory_equal(after, medium, n);
    assert_true(all(after + n, PIECE, 's'));
    for (size_t at = SYNCED; at < ALL; at += PIECE) {
        assert_true(all(after + at, PIECE, 'u') || all(after + at, PIECE, 0));
        *lost += after[at] == 0;
        *arrived += after[at] == 'u';
    }
    keg_env_free(env);
}

static void test_failed_sync(void **state)
{
    (void)state;
    for (int seal = 0; seal < 2; seal++) {
        unsigned lost = 0, arrived = 0;

        for (uint64_t seed = 0; seed < SEEDS; seed++)
            failed_sync(seed, seal, &lost, &arrived);
        assert_true(lost && arrived);
    }
}

/* ---- Names ---- */

static void test_cut_names(void **state)
{
    unsigned made[4] = {0}, removed[2] = {0}, replaced[3] = {0};
    uint8_t buf[8];

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct keg_env *env = disk();
        struct keg_file *file;
        size_t n;

        assert_int_equal(env_replace(env, "gone", "old", 3), 0);
        assert_int_equal(env_replace(env, "again", "old", 3), 0);
        assert_int_equal(env_replace(env, "firm", "old", 3), 0);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(env_create(env, i ? "a" : "b", &file), 0);
            env_close(file);
        }
        assert_int_equal(env_remove(env, "gone"), 0);
        assert_int_equal(env_remove(env, "again"), 0);
        assert_int_equal(env_create(env, "again", &file), 0);
        env_close(file);
        plan(env, ENV_FAULT_NONE, 0, seed);
        env_fault_restart(env);
        made[there(env, "a") + 2 * there(env, "b")]++;
        removed[there(env, "gone")]++;
        n = there(env, "again") ? load(env, "again", ENV_READ, buf, sizeof buf) : 9;
        replaced[n == 9 ? 2 : n == 3]++;
        assert_true(there(env, "firm"));
        /* What came back stays. */
        assert_int_equal(env_fault_restart(env), 0);
        assert_int_equal(there(env, "again"), n != 9);
        keg_env_free(env);
    }
    for (int i = 0; i < 4; i++)
        assert_true(made[i] > 0);
    for (int i = 0; i < 3; i++)
        assert_true(replaced[i] > 0 && removed[i % 2] > 0);
}

/* A publish that fails, or in which the power goes: the old file or the new, never none. */
static void test_publish_is_atomic(void **state)
{
    unsigned seen[3][2] = {{0}};

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const enum env_fault_kind kinds[] = {ENV_FAULT_EIO, ENV_FAULT_ENOSPC, ENV_FAULT_CUT};
        struct keg_env *env = disk();
        struct keg_file *file;
        uint8_t buf[8] = {0};

        assert_int_equal(env_replace(env, "m", "old", 3), 0);
        assert_int_equal(env_create(env, "t", &file), 0);
        assert_int_equal(append(file, 0, "new", 3), 0);
        assert_int_equal(env_sync(file), 0);
        env_close(file);
        plan(env, kinds[seed % 3], 1, seed);
        assert_true(env_publish(env, "t", "m") < 0);
        env_fault_restart(env);
        assert_int_equal(load(env, "m", ENV_READ, buf, sizeof buf), 3);
        assert_true(!memcmp(buf, "old", 3) || !memcmp(buf, "new", 3));
        seen[seed % 3][buf[0] == 'n']++;
        keg_env_free(env);
    }
    assert_true(seen[0][0] && seen[0][1] && seen[2][0] && seen[2][1]);
    assert_int_equal(seen[1][1], 0);
}

static void test_damage(void **state)
{
    struct keg_env *env = disk();
    uint8_t buf[100];

    (void)state;
    env_close(prepare(env, 50, 0));
    assert_int_equal(env_fault_flip(env, "f", 49, 0x81), 0);
    assert_int_equal(env_fault_flip(env, "f", 50, 1), -EINVAL);
    assert_int_equal(env_fault_flip(env, "none", 0, 1), -ENOENT);
    assert_int_equal(env_fault_restart(env), 0);
    assert_int_equal(load(env, "f", ENV_READ, buf, sizeof buf), 50);
    assert_true(all(buf, 49, 's'));
    assert_int_equal(buf[49], 's' ^ 0x81);
    assert_int_equal(env_fault_truncate(env, "f", 51), -EINVAL);
    assert_int_equal(env_fault_truncate(env, "none", 0), -ENOENT);
    assert_int_equal(env_fault_truncate(env, "f", 20), 0);
    assert_int_equal(env_fault_restart(env), 0);
    assert_int_equal(load(env, "f", ENV_READ, buf, sizeof buf), 20);
    keg_env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_operation),
        cmocka_unit_test(test_once_and_for_ever),
        cmocka_unit_test(test_off_until_restart),
        cmocka_unit_test(test_append_in_part),
        cmocka_unit_test(test_cut_pieces),
        cmocka_unit_test(test_cut_overwritten),
        cmocka_unit_test(test_cut_in_sync),
        cmocka_unit_test(test_failed_sync),
        cmocka_unit_test(test_cut_names),
        cmocka_unit_test(test_publish_is_atomic),
        cmocka_unit_test(test_damage),
    };

    dice = random_seeded();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
