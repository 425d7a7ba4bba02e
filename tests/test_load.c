/* SPDX-License-Identifier: MIT */
/*
 * Loading hints together: with several parts and with one, with hints lost, unsound or of which
 * only the end is damaged, the state is the one that the segments themselves give.
 */
#include "env.h"
#include "hintfile.h"
#include "random.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { KEYS = 120000, STEPS = 220000, SEGMENT = 4 << 20 };

static struct keg_env *disk;
static struct keg *keg;

static void say(void *arg, enum keg_level level, const char *line)
{
    (void)arg, (void)level;
    if (getenv("TEST_VERBOSE"))
        print_message("log: %s\n", line);
}

static void open_store(unsigned flags)
{
    struct keg_options options = {
        .flags = flags | KEG_NO_BACKGROUND, .segment_size = SEGMENT, .log = say};

    assert_int_equal(keg_open(disk, &options, &keg), 0);
}

static void reopen(unsigned flags)
{
    assert_int_equal(keg_close(keg), 0);
    open_store(flags);
}

/* A sum over every key with all that the index has of it, and the live bytes. */
static uint64_t state_of_store(void)
{
    struct keg_bytes all = {"", 0};
    struct keg_entry entry;
    struct keg_iter *iter;
    struct keg_stats stats;
    uint64_t sum = 14695981039346656037u;

    assert_int_equal(keg_iter_open(keg, all, &iter), 0);
    while (keg_iter_next(iter, &entry) == 1) {
        const uint64_t numbers[] = {entry.sequence,  entry.segment, entry.offset,
                                    entry.value_len, entry.key.len, entry.meta.len};
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            sum = (sum ^ numbers[i]) * 1099511628211u;
        for (size_t i = 0; i < entry.key.len; i++)
            sum = (sum ^ ((const uint8_t *)entry.key.data)[i]) * 1099511628211u;
        for (size_t i = 0; i < entry.meta.len; i++)
            sum = (sum ^ ((const uint8_t *)entry.meta.data)[i]) * 1099511628211u;
    }
    keg_iter_close(iter);
    keg_stats(keg, &stats);
    sum = (sum ^ stats.keys) * 1099511628211u;
    return (sum ^ stats.live_bytes) * 1099511628211u;
}

static void fill_store(struct random *random)
{
    struct keg_batch batch = {0};
    static char keys[100][32];
    static uint8_t value[40];

    for (unsigned step = 0; step < STEPS; step += 100) {
        keg_batch_clear(&batch);
        for (unsigned i = 0; i < 100; i++) {
            int len = snprintf(keys[i], sizeof keys[i], "key %08u of many",
                               (unsigned)random_below(random, KEYS));
            struct keg_bytes key = {keys[i], (size_t)len};
            struct keg_bytes meta = {value, random_below(random, 20)};

            if (random_below(random, 4) == 0)
                assert_int_equal(keg_batch_delete(&batch, key), 0);
            else
                assert_int_equal(
                    keg_batch_put(&batch, key, meta,
                                  (struct keg_bytes){value, random_below(random, sizeof value)}),
                    0);
        }
        assert_int_equal(keg_commit(keg, &batch, 0), 0);
        if (step == STEPS / 2)
            assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    }
    keg_batch_free(&batch);
}

static int remove_hint(void *arg, const char *name)
{
    unsigned *every = arg;
    size_t len = strlen(name);

    static unsigned met;
    if (len > 5 && strcmp(name + len - 5, ".hint") == 0 && met++ % *every == 0)
        assert_int_equal(env_remove(disk, name), 0);
    return 0;
}

/* Writes a hint again with one byte changed, at `part` of its size. */
static int spoil_hint(void *arg, const char *name)
{
    const double *part = arg;
    size_t size = strlen(name);
    struct keg_file *file;
    uint8_t *bytes;

    if (size < 5 || strcmp(name + size - 5, ".hint") != 0)
        return 0;
    assert_int_equal(env_slurp(disk, name, 1 << 30, &bytes, &size), 0);
    bytes[(size_t)(*part * (double)(size - 1))] ^= 0x10;
    assert_int_equal(env_remove(disk, name), 0);
    assert_int_equal(env_create(disk, name, &file), 0);
    struct iovec iov = {bytes, size};
    assert_int_equal(env_append(file, 0, &iov, 1), 0);
    env_close(file);
    free(bytes);
    return 1; /* one is enough */
}

static uint64_t recovered(void)
{
    struct keg_stats stats;

    keg_stats(keg, &stats);
    return stats.recovered_segments;
}

static void hints_and_segments_give_one_state(void **state)
{
    struct random random = random_seeded();
    static const double parts[] = {0.0, 0.3, 0.6, 0.97, 1.0};
    unsigned every = 2;
    uint64_t want;

    (void)state;
    assert_int_equal(env_mem(0, &disk), 0);
    open_store(KEG_CREATE);
    fill_store(&random);
    want = state_of_store();
    reopen(0);
    assert_int_equal(recovered(), 0);
    assert_true(state_of_store() == want);

    assert_int_equal(keg_close(keg), 0);
    assert_int_equal(env_list(disk, remove_hint, &every), 0);
    open_store(KEG_READONLY);
    assert_true(recovered() > 0);
    assert_true(state_of_store() == want);

    every = 1;
    assert_int_equal(keg_close(keg), 0);
    assert_int_equal(env_list(disk, remove_hint, &every), 0);
    open_store(0);
    assert_true(state_of_store() == want);

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        double part = parts[i];

        assert_int_equal(keg_hint(keg), 0);
        assert_int_equal(keg_close(keg), 0);
        assert_int_equal(env_list(disk, spoil_hint, &part), 1);
        open_store(0);
        assert_int_equal(recovered(), 1);
        assert_true(state_of_store() == want);
    }
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hints_and_segments_give_one_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
