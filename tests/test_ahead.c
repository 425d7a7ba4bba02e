/* SPDX-License-Identifier: MIT */
/* Zeros ahead of the log (store/ahead.c): when they are written, and that nobody takes them for
 * anything. What cuts and failures do to them, test_cuts and test_crash show. */
#include "fixture.h"
#include "format.h"
#include "space.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENT = 1 << 20 };

struct store {
    struct keg_env *disk;
    struct keg *keg;
    unsigned torn; /* lines of the log about a torn tail */
};

static void hear(void *arg, enum keg_level level, const char *line)
{
    struct store *store = arg;

    (void)level;
    store->torn += strstr(line, "torn tail") != NULL;
}

static void open_store(struct store *store)
{
    struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                  .segment_size = SEGMENT,
                                  .log = hear,
                                  .log_arg = store};

    assert_int_equal(keg_open(store->disk, &options, &store->keg), 0);
    assert_null(keg_readonly_reason(store->keg));
}

static void begin(struct store *store, uint64_t capacity)
{
    *store = (struct store){0};
    assert_int_equal(env_fault(capacity, &store->disk), 0);
    open_store(store);
}

static void end(struct store *store)
{
    assert_int_equal(keg_close(store->keg), 0);
    keg_env_free(store->disk);
}

/* As kill -9: nothing is written any more. */
static void kill_store(struct store *store)
{
    struct env_fault_plan plan = {.kind = ENV_FAULT_CUT, .at = 1};

    env_fault_set(store->disk, &plan);
    assert_int_not_equal(keg_close(store->keg), 0);
    env_fault_revive(store->disk);
}

static uint64_t size_of(struct store *store, const char *name)
{
    uint8_t *data;
    size_t len;

    assert_int_equal(env_slurp(store->disk, name, 1 << 24, &data, &len), 0);
    free(data);
    return len;
}

static uint64_t length_of(struct store *store)
{
    struct keg_stats stats;

    keg_stats(store->keg, &stats);
    assert_int_equal(stats.segments, 1);
    return stats.data_bytes;
}

static int put(struct store *store, unsigned n, size_t len, unsigned flags)
{
    static char value[64 << 10];
    char buf[FIXTURE_NAME];

    memset(value, 'v', sizeof value);
    return keg_put(store->keg, fixture_name(n, buf), (struct keg_bytes){0},
                   (struct keg_bytes){value, len}, flags);
}

static void put_synced(struct store *store, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++)
        assert_int_equal(put(store, n, 1000, KEG_SYNC), 0);
}

static void want(struct store *store, unsigned to)
{
    char buf[FIXTURE_NAME], value[1001];

    for (unsigned n = 0; n < to; n++) {
        assert_int_equal(keg_read(store->keg, fixture_name(n, buf), 0, value, sizeof value), 1000);
        assert_true(value[0] == 'v' && value[999] == 'v');
    }
}

static void test_small_syncs_and_a_clean_close(void **state)
{
    struct store store;

    (void)state;
    begin(&store, 0);
    put_synced(&store, 0, 3);
    /* For some dozens of syncs, and not counted as data. */
    assert_true(size_of(&store, "00000001.data") > length_of(&store) + 32 * 1000);
    assert_true(length_of(&store) < 4 * 1200);
    put_synced(&store, 3, 200);
    assert_true(size_of(&store, "00000001.data") > length_of(&store));
    assert_int_equal(keg_close(store.keg), 0);
    open_store(&store);
    assert_int_equal(size_of(&store, "00000001.data"), length_of(&store));
    want(&store, 200);
    put_synced(&store, 200, 202); /* goes on in the same segment */
    assert_true(length_of(&store) > 200 * 1000);
    assert_int_equal(store.torn, 0);
    end(&store);
}

static void test_a_roll_cuts_them_off(void **state)
{
    struct store store;
    struct keg_stats stats;

    (void)state;
    begin(&store, 0);
    put_synced(&store, 0, 1100);
    keg_stats(store.keg, &stats);
    assert_int_equal(stats.segments, 2);
    assert_true(size_of(&store, "00000001.data") <= SEGMENT);
    assert_true(size_of(&store, "00000001.data") + size_of(&store, "00000002.data") >
                stats.data_bytes);
    assert_int_equal(keg_close(store.keg), 0);
    open_store(&store);
    keg_stats(store.keg, &stats);
    assert_int_equal(size_of(&store, "00000001.data") + size_of(&store, "00000002.data"),
                     stats.data_bytes);
    want(&store, 1100);
    end(&store);
}

/* Zeros behind the last frame are not taken for a torn one, nor for anything that counts; a byte
 * that is none is torn. */
static void test_after_a_kill(void **state)
{
    struct store store;

    (void)state;
    begin(&store, 0);
    put_synced(&store, 0, 10);
    uint64_t length = length_of(&store);
    kill_store(&store);
    assert_true(size_of(&store, "00000001.data") > length + 32 * 1000);
    open_store(&store);
    want(&store, 10);
    assert_int_equal(store.torn, 0);
    assert_int_equal(size_of(&store, "00000001.data"), length + FORMAT_FOOTER_SIZE);
    put_synced(&store, 10, 20);
    kill_store(&store);
    uint64_t size = size_of(&store, "00000002.data");
    assert_int_equal(env_fault_flip(store.disk, "00000002.data", size - 1, 1), 0);
    open_store(&store);
    want(&store, 20);
    assert_int_equal(store.torn, 1);
    end(&store);
}

/* Only small syncs that are asked for are worth it. */
static void test_not_otherwise(void **state)
{
    struct store store;

    (void)state;
    begin(&store, 0);
    for (unsigned n = 0; n < 100; n++)
        assert_int_equal(put(&store, n, 1000, 0), 0);
    assert_int_equal(size_of(&store, "00000001.data"), length_of(&store));
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(put(&store, n, 20000, KEG_SYNC), 0);
    assert_int_equal(size_of(&store, "00000001.data"), length_of(&store));
    assert_int_equal(put(&store, 0, 1000, KEG_SYNC), 0);
    assert_int_equal(put(&store, 1, 60000, KEG_SYNC), 0); /* a large one after a small one */
    assert_int_equal(size_of(&store, "00000001.data"), length_of(&store));
    end(&store);
}

/* They take no room that puts would not have had, and what frees space goes on. */
static void test_a_full_disk(void **state)
{
    struct store store;
    char buf[FIXTURE_NAME];
    unsigned n = 0;

    (void)state;
    begin(&store, 6 << 20);
    while (put(&store, n, 1000, KEG_SYNC) == 0)
        n++;
    assert_true(n > 1000);
    for (unsigned i = 0; i < n; i++) {
        struct keg_op op = {.key = fixture_name(i, buf), .tombstone = true};
        struct keg_batch batch = {.ops = &op, .count = 1};

        assert_int_equal(keg_commit(store.keg, &batch, KEG_FREEING | KEG_SYNC), 0);
    }
    assert_int_equal(keg_compact(store.keg, NULL, NULL), 0);
    put_synced(&store, 0, n / 2);
    end(&store);
}

static uint64_t free_on(struct store *store)
{
    struct env_space space;

    assert_int_equal(env_space(store->disk, &space), 0);
    return space.free;
}

/* A small store on a disk that others have filled but for the reserve and `room` bytes. */
static void begin_near_full(struct store *store, uint64_t room)
{
    uint64_t filler;
    uint8_t *bytes;

    begin(store, 8 << 20);
    put_synced(store, 0, 3);
    assert_int_equal(keg_close(store->keg), 0);
    open_store(store);
    filler = free_on(store) - space_reserve(store->keg) - room;
    bytes = calloc(1, filler);
    assert_non_null(bytes);
    assert_int_equal(env_replace(store->disk, "another's", bytes, filler), 0);
    free(bytes);
}

/* Where puts have less room than the zeros would take, the reserve is not written to: all of the
 * room is there for puts. */
static void test_not_out_of_the_reserve(void **state)
{
    enum { ROOM = 40 << 10, SLACK = 8 << 10 }; /* the reserve grows with what is put */
    struct store store;
    unsigned n = 3;

    (void)state;
    begin_near_full(&store, ROOM);
    while (put(&store, n, 1000, KEG_SYNC) == 0) {
        assert_int_equal(size_of(&store, "00000001.data"), length_of(&store));
        assert_true(free_on(&store) + SLACK > space_reserve(store.keg));
        n++;
    }
    assert_in_range(n - 3, (ROOM - SLACK) / 1100, ROOM / 1000);
    end(&store);
    begin_near_full(&store, 200 << 10); /* where there is enough, they are written */
    put_synced(&store, 3, 6);
    assert_true(size_of(&store, "00000001.data") > length_of(&store) + 32 * 1000);
    assert_true(free_on(&store) > space_reserve(store.keg));
    end(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_syncs_and_a_clean_close),
        cmocka_unit_test(test_a_roll_cuts_them_off),
        cmocka_unit_test(test_after_a_kill),
        cmocka_unit_test(test_not_otherwise),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_not_out_of_the_reserve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
