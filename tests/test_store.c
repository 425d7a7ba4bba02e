/* SPDX-License-Identifier: MIT */
/* The engine through its public header: put, get, scan, batches, reopen, rolls, compaction. */
#include "env.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENT = 64 << 10 };

static void print_log(void *arg, enum keg_level level, const char *line)
{
    (void)arg;
    (void)level;
    print_message("log: %s\n", line);
}

static struct keg_bytes text(const char *s)
{
    return (struct keg_bytes){s, strlen(s)};
}

static struct keg_bytes none(void)
{
    return (struct keg_bytes){"", 0};
}

static struct keg *open_store(struct keg_env *env, unsigned flags)
{
    struct keg_options options = {
        .flags = flags | KEG_CREATE | KEG_NO_BACKGROUND, .segment_size = SEGMENT, .log = print_log};
    struct keg *keg;

    assert_int_equal(keg_open(env, &options, &keg), 0);
    return keg;
}

static struct keg_env *memory(void)
{
    struct keg_env *env;

    assert_int_equal(env_mem(0, &env), 0);
    return env;
}

static void want_value(struct keg *keg, const char *key, const char *value)
{
    char buf[256];
    ssize_t n = keg_read(keg, text(key), 0, buf, sizeof buf);

    assert_int_equal(n, strlen(value));
    assert_memory_equal(buf, value, (size_t)n);
}

static void want_missing(struct keg *keg, const char *key)
{
    struct keg_info info;

    assert_int_equal(keg_get(keg, text(key), &info), -ENOENT);
}

static void test_put_get_delete(void **state)
{
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);
    struct keg_info info;

    (void)state;
    assert_int_equal(keg_put(keg, text("a"), text("meta"), text("value"), 0), 0);
    want_value(keg, "a", "value");
    assert_int_equal(keg_get(keg, text("a"), &info), 0);
    assert_int_equal(info.meta_len, 4);
    assert_memory_equal(info.meta, "meta", 4);
    assert_int_equal(keg_put(keg, text("a"), none(), none(), 0), 0);
    want_value(keg, "a", "");
    assert_int_equal(keg_delete(keg, text("a"), 0), 0);
    want_missing(keg, "a");
    assert_int_equal(keg_delete(keg, text("a"), 0), -ENOENT);
    assert_int_equal(keg_put(keg, none(), none(), none(), 0), -EINVAL);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static void test_reopen_keeps_everything(void **state)
{
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);
    struct keg_stats stats;

    (void)state;
    assert_int_equal(keg_put(keg, text("a"), text("m"), text("one"), 0), 0);
    assert_int_equal(keg_put(keg, text("b"), text("m"), text("two"), 0), 0);
    assert_int_equal(keg_delete(keg, text("a"), 0), 0);
    assert_int_equal(keg_close(keg), 0);
    keg = open_store(env, 0);
    want_missing(keg, "a");
    want_value(keg, "b", "two");
    keg_stats(keg, &stats);
    assert_int_equal(stats.keys, 1);
    assert_int_equal(stats.segments, 1); /* a clean close lets the segment go on */
    assert_int_equal(stats.recovered_segments, 0);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static void test_batch_is_one_frame(void **state)
{
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);
    struct keg_batch batch = {0};
    struct keg_stats stats;

    (void)state;
    assert_int_equal(keg_put(keg, text("old"), none(), text("x"), 0), 0);
    assert_int_equal(keg_batch_put(&batch, text("new"), none(), text("y")), 0);
    assert_int_equal(keg_batch_delete(&batch, text("old")), 0);
    assert_int_equal(keg_batch_delete(&batch, text("never there")), 0);
    assert_int_equal(keg_batch_put(&batch, text("brief"), none(), text("z")), 0);
    assert_int_equal(keg_batch_delete(&batch, text("brief")), 0);
    assert_int_equal(keg_commit(keg, &batch, KEG_SYNC), 0);
    want_value(keg, "new", "y");
    want_missing(keg, "old");
    want_missing(keg, "brief");
    keg_stats(keg, &stats);
    assert_int_equal(stats.frames, 2);
    assert_int_equal(stats.deletes, 2); /* the one that was never there left no record */
    keg_batch_free(&batch);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static void fill(uint8_t *buf, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        buf[i] = (uint8_t)(seed >> 24);
    }
}

/* Values around the size at which they get a list of CRCs, read whole and in parts. */
static void test_large_values(void **state)
{
    static const uint32_t sizes[] = {
        1, KEG_BLOCK - 1, KEG_BLOCK, KEG_BLOCK + 1, 3 * KEG_BLOCK, 1000003, KEG_VALUE_MAX};
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);
    uint8_t *want = malloc(KEG_VALUE_MAX), *got = malloc(KEG_VALUE_MAX);

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct keg_bytes key = {&sizes[i], sizeof sizes[i]};
            uint32_t size = sizes[i], from = size / 3, len = size / 2;

            fill(want, size, size);
            if (round == 0)
                assert_int_equal(keg_put(keg, key, none(), (struct keg_bytes){want, size}, 0), 0);
            assert_int_equal(keg_read(keg, key, 0, got, KEG_VALUE_MAX), size);
            assert_memory_equal(got, want, size);
            assert_int_equal(keg_read(keg, key, from, got, len), len);
            assert_memory_equal(got, want + from, len);
            assert_int_equal(keg_read(keg, key, size, got, 1), 0);
        }
        assert_int_equal(keg_close(keg), 0);
        keg = open_store(env, 0);
    }
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    assert_int_equal(keg_check(keg, NULL, NULL, NULL), 0);
    assert_int_equal(keg_close(keg), 0);
    free(want);
    free(got);
    keg_env_free(env);
}

static void test_limits(void **state)
{
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);
    struct keg_batch batch = {0};
    static uint8_t big[KEG_VALUE_MAX];
    static uint8_t key[KEG_KEY_MAX + 1], meta[KEG_META_MAX + 1];

    (void)state;
    assert_int_equal(keg_put(keg, (struct keg_bytes){key, KEG_KEY_MAX + 1}, none(), none(), 0),
                     -EINVAL);
    assert_int_equal(keg_put(keg, text("k"), (struct keg_bytes){meta, KEG_META_MAX + 1}, none(), 0),
                     -EINVAL);
    assert_int_equal(keg_put(keg, (struct keg_bytes){key, KEG_KEY_MAX},
                             (struct keg_bytes){meta, KEG_META_MAX}, none(), 0),
                     0);
    assert_int_equal(keg_batch_put(&batch, text("a"), none(), (struct keg_bytes){big, sizeof big}),
                     0);
    assert_int_equal(keg_batch_put(&batch, text("b"), none(), (struct keg_bytes){big, sizeof big}),
                     0);
    assert_int_equal(keg_commit(keg, &batch, 0), -E2BIG);
    want_missing(keg, "a");
    keg_batch_free(&batch);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static void put_numbered(struct keg *keg, unsigned n, unsigned version)
{
    char key[32], value[200];

    snprintf(key, sizeof key, "key%06u", n);
    memset(value, 'a' + (int)(version % 26), sizeof value);
    snprintf(value, sizeof value, "%u.%u", n, version);
    assert_int_equal(keg_put(keg, text(key), text("m"), (struct keg_bytes){value, sizeof value}, 0),
                     0);
}

static void want_numbered(struct keg *keg, unsigned n, int version)
{
    char key[32], value[200], want[32];

    snprintf(key, sizeof key, "key%06u", n);
    if (version < 0) {
        want_missing(keg, key);
        return;
    }
    snprintf(want, sizeof want, "%u.%d", n, version);
    assert_int_equal(keg_read(keg, text(key), 0, value, sizeof value), sizeof value);
    assert_string_equal(value, want);
}

/* Three versions of everything, half deleted: over many segments. */
static void churn(struct keg *keg, unsigned count)
{
    char key[32];

    for (unsigned version = 0; version < 3; version++) {
        for (unsigned n = 0; n < count; n++)
            put_numbered(keg, n, version);
    }
    for (unsigned n = 0; n < count; n += 2) {
        snprintf(key, sizeof key, "key%06u", n);
        assert_int_equal(keg_delete(keg, text(key), 0), 0);
    }
}

static void want_churned(struct keg *keg, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        want_numbered(keg, n, n % 2 ? 2 : -1);
}

static int remove_hint(void *arg, const char *name)
{
    return strstr(name, ".hint") ? env_remove(arg, name) : 0;
}

static void remove_hints(struct keg_env *env)
{
    assert_int_equal(env_list(env, remove_hint, env), 0);
}

static void test_rolls_and_scan(void **state)
{
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);
    struct keg_stats stats;
    struct keg_iter *iter;
    struct keg_entry entry;
    unsigned n = 1;

    (void)state;
    churn(keg, 2000);
    keg_stats(keg, &stats);
    assert_true(stats.segments > 10);
    assert_int_equal(stats.keys, 1000);
    want_churned(keg, 2000);
    assert_int_equal(keg_iter_open(keg, text("key"), &iter), 0);
    for (; keg_iter_next(iter, &entry) == 1; n += 2) {
        char want[32];

        snprintf(want, sizeof want, "key%06u", n);
        assert_int_equal(entry.key.len, strlen(want));
        assert_memory_equal(entry.key.data, want, entry.key.len);
    }
    assert_int_equal(n, 2001);
    assert_int_equal(keg_iter_seek(iter, text("key001998")), 0);
    assert_int_equal(keg_iter_next(iter, &entry), 1);
    assert_memory_equal(entry.key.data, "key001999", 9);
    assert_int_equal(keg_iter_next(iter, &entry), 0);
    keg_iter_close(iter);
    assert_int_equal(keg_close(keg), 0);
    remove_hints(env);
    keg = open_store(env, 0);
    want_churned(keg, 2000);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static void test_compaction(void **state)
{
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);
    struct keg_stats stats;

    (void)state;
    churn(keg, 2000);
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    want_churned(keg, 2000);
    keg_stats(keg, &stats);
    assert_true(stats.data_bytes * 10 <= stats.live_bytes * 11);
    assert_int_equal(keg_check(keg, NULL, NULL, NULL), 0);
    assert_int_equal(keg_close(keg), 0);
    for (int round = 0; round < 2; round++) {
        keg = open_store(env, 0);
        want_churned(keg, 2000);
        assert_int_equal(keg_check(keg, NULL, NULL, NULL), 0);
        assert_int_equal(keg_close(keg), 0);
        remove_hints(env);
    }
    keg_env_free(env);
}

enum { LINE = 256 };

static void keep_line(void *arg, enum keg_level level, const char *line)
{
    (void)level;
    snprintf(arg, LINE, "%s", line);
}

/* And says who has it. */
static void test_second_open_is_busy(void **state)
{
    char said[LINE] = "", holder[64];
    struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                  .log = keep_line,
                                  .log_arg = said,
                                  .owner = "/mnt/first"};
    struct keg_env *env = memory();
    struct keg *keg, *second;

    (void)state;
    assert_int_equal(keg_open(env, &options, &keg), 0);
    options.owner = "/mnt/second";
    assert_int_equal(keg_open(env, &options, &second), -EBUSY);
    assert_int_equal(keg_holder(env, holder, sizeof holder), 0);
    assert_non_null(strstr(holder, " /mnt/first"));
    assert_non_null(strstr(said, holder));
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static int any_file(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return 1;
}

/* Looking for a store where there is none leaves nothing behind, a LOCK least of all. */
static void test_no_store_is_left_alone(void **state)
{
    struct keg_options options = {.flags = KEG_READONLY | KEG_NO_BACKGROUND};
    struct keg_env *env = memory();
    struct keg *keg;
    char holder[64];

    (void)state;
    assert_int_equal(keg_open(env, &options, &keg), -ENOENT);
    options.flags = KEG_NO_BACKGROUND;
    assert_int_equal(keg_open(env, &options, &keg), -ENOENT);
    assert_int_equal(env_list(env, any_file, NULL), 0);
    assert_int_equal(keg_holder(env, holder, sizeof holder), -ENOENT);
    keg_env_free(env);
}

static void test_readonly(void **state)
{
    struct keg_env *env = memory();
    struct keg *keg = open_store(env, 0);

    (void)state;
    assert_int_equal(keg_put(keg, text("a"), none(), text("one"), 0), 0);
    assert_int_equal(keg_close(keg), 0);
    keg = open_store(env, KEG_READONLY);
    want_value(keg, "a", "one");
    assert_int_equal(keg_put(keg, text("a"), none(), text("two"), 0), -EROFS);
    assert_int_equal(keg_compact(keg, NULL, NULL), -EROFS);
    assert_int_equal(keg_sync(keg), 0);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get_delete),
        cmocka_unit_test(test_reopen_keeps_everything),
        cmocka_unit_test(test_batch_is_one_frame),
        cmocka_unit_test(test_large_values),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_rolls_and_scan),
        cmocka_unit_test(test_compaction),
        cmocka_unit_test(test_second_open_is_busy),
        cmocka_unit_test(test_no_store_is_left_alone),
        cmocka_unit_test(test_readonly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
