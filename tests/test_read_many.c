/* SPDX-License-Identifier: MIT */
/* Many values in one call: the same bytes and errors as one by one, in fewer reads of the disk. */
#include "fixture.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

enum { VALUES = 16, LONG = KEG_BLOCK, SHORT = 100, SEGMENT = 8 << 20 };

/* Reads of segments, and which of them fail. */
static struct watch {
    unsigned reads;
    uint64_t bytes, longest;
    uint64_t bad_at; /* a byte of segment 1 that cannot be read; 0: none */
    struct fixture *fixture;
} watch;

static int count_reads(void *arg, enum hook_op op, const char *name)
{
    const struct hook *hook = &watch.fixture->hook;

    (void)arg;
    if (op != HOOK_READ || !fixture_ends(name, ".data"))
        return 0;
    watch.reads++;
    watch.bytes += hook->read_len;
    if (hook->read_len > watch.longest)
        watch.longest = hook->read_len;
    return watch.bad_at && watch.bad_at >= hook->read_at &&
                   watch.bad_at < hook->read_at + hook->read_len
               ? -EIO
               : 0;
}

static void start(struct fixture *fixture)
{
    fixture_open_sized(fixture, SEGMENT);
    watch = (struct watch){.fixture = fixture};
    fixture->hook.fn = count_reads;
}

static void stop(struct fixture *fixture)
{
    assert_int_equal(keg_close(fixture->keg), 0);
    fixture_free(fixture);
}

/* The n-th key, and its value of len bytes. */
static struct keg_bytes key_of(unsigned n)
{
    static char names[100][FIXTURE_NAME];

    return fixture_name(n, names[n % 100]);
}

static uint8_t byte_of(unsigned n, size_t i)
{
    return (uint8_t)(1 + (n * 7919 + i * 31 + i / 251) % 255);
}

static uint8_t *value_of(unsigned n, size_t len)
{
    uint8_t *value = malloc(len + 1);

    assert_non_null(value);
    for (size_t i = 0; i < len; i++)
        value[i] = byte_of(n, i);
    return value;
}

/* Puts keys [from, to) as one batch. */
static void put(struct keg *keg, unsigned from, unsigned to, size_t len)
{
    struct keg_batch batch = {0};
    uint8_t *values[100];

    for (unsigned n = from; n < to; n++) {
        values[n] = value_of(n, len);
        assert_int_equal(keg_batch_put(&batch, key_of(n), (struct keg_bytes){0},
                                       (struct keg_bytes){values[n], len}),
                         0);
    }
    assert_int_equal(keg_commit(keg, &batch, 0), 0);
    for (unsigned n = from; n < to; n++)
        free(values[n]);
    keg_batch_free(&batch);
}

/* Reads keys [0, count) in one call: from `skip` of the first on, `cut` bytes less of the last. */
static void read_keys(struct keg *keg, struct keg_reading *readings, unsigned count, size_t len,
                      size_t skip, size_t cut)
{
    watch.reads = 0;
    watch.bytes = watch.longest = 0;
    for (unsigned n = 0; n < count; n++) {
        uint32_t from = n == 0 ? (uint32_t)skip : 0;
        size_t want = len - from - (n == count - 1 ? cut : 0);

        /* Behind what is wanted nothing may be touched. */
        readings[n] = (struct keg_reading){.key = key_of(n), .offset = from, .len = want};
        readings[n].buf = malloc(want);
        assert_non_null(readings[n].buf);
    }
    keg_read_many(keg, readings, count);
}

/* All but `bad` are as they were put. */
static void want_keys(const struct keg_reading *readings, unsigned count, int bad, int error)
{
    for (unsigned n = 0; n < count; n++) {
        const struct keg_reading *reading = &readings[n];
        const uint8_t *bytes = reading->buf;

        if ((int)n == bad) {
            assert_int_equal(reading->result, error);
        } else {
            assert_int_equal(reading->result, reading->len);
            for (size_t i = 0; i < reading->len; i++)
                assert_int_equal(bytes[i], byte_of(n, reading->offset + i));
        }
        free(reading->buf);
    }
}

static void test_one_batch_is_one_read(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];

    (void)state;
    start(&fixture);
    put(fixture.keg, 0, VALUES, LONG);
    read_keys(fixture.keg, readings, VALUES, LONG, 0, 0);
    want_keys(readings, VALUES, -1, 0);
    assert_int_equal(watch.reads, 1);
    assert_int_equal(watch.bytes, VALUES * LONG);
    stop(&fixture);
}

/* What is wanted in part is read whole, to be verified, and only what is wanted is given. */
static void test_parts_at_both_ends(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];

    (void)state;
    start(&fixture);
    put(fixture.keg, 0, VALUES, LONG);
    read_keys(fixture.keg, readings, VALUES, LONG, 1000, 60000);
    want_keys(readings, VALUES, -1, 0);
    assert_int_equal(watch.reads, 1);
    assert_int_equal(watch.bytes, VALUES * LONG);
    stop(&fixture);
}

/* Batches that follow each other have a head between them, which is read and thrown away. */
static void test_over_frames(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];

    (void)state;
    start(&fixture);
    for (unsigned n = 0; n < VALUES; n++)
        put(fixture.keg, n, n + 1, SHORT);
    read_keys(fixture.keg, readings, VALUES, SHORT, 0, 0);
    want_keys(readings, VALUES, -1, 0);
    assert_int_equal(watch.reads, 1);
    stop(&fixture);
}

/* What lies between is not read when it is long. */
static void test_gaps_are_bounded(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];

    (void)state;
    start(&fixture);
    for (unsigned n = 0; n < VALUES; n++) {
        put(fixture.keg, n, n + 1, SHORT);
        put(fixture.keg, 50, 51, 5000);
    }
    read_keys(fixture.keg, readings, VALUES, SHORT, 0, 0);
    want_keys(readings, VALUES, -1, 0);
    assert_int_equal(watch.reads, VALUES);
    assert_int_equal(watch.bytes, VALUES * SHORT);
    stop(&fixture);
}

/* More than are found under one lock, and runs that are bounded. */
static void test_many(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[90];

    (void)state;
    start(&fixture);
    put(fixture.keg, 0, 90, LONG);
    read_keys(fixture.keg, readings, 90, LONG, 0, 0);
    want_keys(readings, 90, -1, 0);
    assert_int_equal(watch.reads, 3);
    assert_true(watch.longest <= 32 * LONG);
    stop(&fixture);
}

static void test_over_segments(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[90];
    struct keg_info info;
    unsigned segments = 1;
    uint64_t last = 0;

    (void)state;
    start(&fixture);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture.segment_size = 1 << 20;
    assert_int_equal(fixture_reopen(&fixture), 0);
    for (unsigned n = 0; n < 60; n += 4)
        put(fixture.keg, n, n + 4, LONG);
    for (unsigned n = 0; n < 60; n++) {
        assert_int_equal(keg_get(fixture.keg, key_of(n), &info), 0);
        segments += last && info.segment != last;
        last = info.segment;
    }
    assert_true(segments >= 3);
    read_keys(fixture.keg, readings, 60, LONG, 5, 5);
    want_keys(readings, 60, -1, 0);
    assert_true(watch.reads >= segments && watch.reads <= segments + 1);
    stop(&fixture);
}

/* Values written one by one in any order stand in the order of their keys afterwards. */
static void test_after_compaction(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];

    (void)state;
    start(&fixture);
    for (unsigned n = 0; n < VALUES; n++) {
        put(fixture.keg, n * 7 % VALUES, n * 7 % VALUES + 1, 20000);
        put(fixture.keg, 50, 51, 60000);
    }
    read_keys(fixture.keg, readings, VALUES, 20000, 0, 0);
    want_keys(readings, VALUES, -1, 0);
    assert_int_equal(watch.reads, VALUES);
    assert_int_equal(keg_compact(fixture.keg, NULL, NULL), 0);
    read_keys(fixture.keg, readings, VALUES, 20000, 0, 0);
    want_keys(readings, VALUES, -1, 0);
    assert_int_equal(watch.reads, 1);
    stop(&fixture);
}

/* Only the value that is hit fails, and it is counted once. */
static void test_damage_in_the_middle(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];
    struct keg_info info;
    struct keg_stats stats;

    (void)state;
    start(&fixture);
    put(fixture.keg, 0, VALUES, LONG);
    for (int bad = 0; bad < VALUES; bad += 5) {
        assert_int_equal(keg_get(fixture.keg, key_of((unsigned)bad), &info), 0);
        assert_int_equal(env_fault_flip(fixture.disk, "00000001.data", info.offset + 99, 4), 0);
        /* Where it is wanted in part, the damage may be outside of that. */
        read_keys(fixture.keg, readings, VALUES, LONG, 1000, 1000);
        want_keys(readings, VALUES, bad, -EBADMSG);
        assert_int_equal(watch.reads, 1);
        keg_stats(fixture.keg, &stats);
        assert_int_equal(stats.damaged_reads, 1 + bad / 5);
        assert_int_equal(env_fault_flip(fixture.disk, "00000001.data", info.offset + 99, 4), 0);
    }
    stop(&fixture);
}

/* A sector that cannot be read hurts the value that it is in, and between two values nobody. */
static void test_unreadable_in_the_middle(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];
    struct keg_info info;

    (void)state;
    start(&fixture);
    for (unsigned n = 0; n < VALUES; n++)
        put(fixture.keg, n, n + 1, SHORT);
    assert_int_equal(keg_get(fixture.keg, key_of(5), &info), 0);
    watch.bad_at = info.offset + 50;
    read_keys(fixture.keg, readings, VALUES, SHORT, 10, 10);
    want_keys(readings, VALUES, 5, -EIO);
    assert_int_equal(watch.reads, 1 + VALUES);
    watch.bad_at = info.offset + SHORT + 2;
    read_keys(fixture.keg, readings, VALUES, SHORT, 0, 0);
    want_keys(readings, VALUES, -1, 0);
    watch.bad_at = 0;
    stop(&fixture);
}

static void test_a_file_that_is_cut(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];
    struct keg_info info;

    (void)state;
    start(&fixture);
    put(fixture.keg, 0, VALUES, LONG);
    assert_int_equal(keg_get(fixture.keg, key_of(VALUES - 1), &info), 0);
    assert_int_equal(env_fault_truncate(fixture.disk, "00000001.data", info.offset + LONG / 2), 0);
    read_keys(fixture.keg, readings, VALUES, LONG, 0, 0);
    want_keys(readings, VALUES, VALUES - 1, -EBADMSG);
    (void)!keg_close(fixture.keg);
    fixture_free(&fixture);
}

/* Whatever is asked for, in any order, the answer is keg_read's. */
static void test_as_one_by_one(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 3000, KEG_BLOCK, KEG_BLOCK + 1, 200000};
    enum { SIZES = sizeof sizes / sizeof *sizes, KEYS = 40, MOST = 70, ROOM = 210000 };
    struct random random = random_seeded();
    struct fixture fixture;
    struct keg_reading readings[MOST];
    uint8_t *one = malloc(ROOM), *many = malloc((size_t)MOST * ROOM);

    (void)state;
    assert_true(one && many);
    start(&fixture);
    for (unsigned n = 0; n < KEYS; n++) /* every tenth is not there */
        if (n % 10)
            put(fixture.keg, n, n + 1, sizes[random_below(&random, SIZES)]);
    for (int round = 0; round < 100; round++) {
        size_t count = random_below(&random, MOST + 1);
        unsigned key = (unsigned)random_below(&random, KEYS);

        for (size_t i = 0; i < count; i++) {
            key =
                random_below(&random, 4) ? (key + 1) % KEYS : (unsigned)random_below(&random, KEYS);
            readings[i] = (struct keg_reading){.key = key_of(key), .buf = many + i * ROOM};
            readings[i].len = ROOM;
            if (random_below(&random, 3) == 0) {
                readings[i].offset = (uint32_t)random_below(&random, 4000);
                readings[i].len = random_below(&random, 70000);
            }
        }
        keg_read_many(fixture.keg, readings, count);
        for (size_t i = 0; i < count; i++) {
            ssize_t n =
                keg_read(fixture.keg, readings[i].key, readings[i].offset, one, readings[i].len);

            assert_int_equal(readings[i].result, n);
            assert_true(n <= 0 || memcmp(one, readings[i].buf, (size_t)n) == 0);
        }
    }
    stop(&fixture);
    free(one);
    free(many);
}

/* ---- In two steps ---- */

static int is_first(void *arg, const char *name)
{
    bool *found = arg;

    *found = *found || strcmp(name, "00000001.data") == 0;
    return 0;
}

static bool first_is_there(const struct fixture *fixture)
{
    bool found = false;

    assert_int_equal(env_list(fixture->disk, is_first, &found), 0);
    return found;
}

/* Closes the store: no descriptor is left. */
static void stop_clean(struct fixture *fixture)
{
    assert_int_equal(keg_close(fixture->keg), 0);
    assert_int_equal(env_fault_open_files(fixture->disk), 0);
    fixture_free(fixture);
}

/* Finds keys [0, VALUES) in segment 1, and then has the half of them deleted, the others
 * overwritten, and the segment compacted. */
static void find_and_compact(struct fixture *fixture, struct keg_reading *readings)
{
    struct keg_info info;

    start(fixture);
    put(fixture->keg, 0, VALUES, LONG);
    for (unsigned n = 0; n < VALUES; n++)
        readings[n] = (struct keg_reading){.key = key_of(n), .len = LONG};
    watch.reads = 0;
    keg_find_many(fixture->keg, readings, VALUES);
    for (unsigned n = 0; n < VALUES; n += 2)
        assert_int_equal(keg_delete(fixture->keg, key_of(n), 0), 0);
    for (unsigned n = 1; n < VALUES; n += 2)
        put(fixture->keg, n, n + 1, SHORT);
    assert_int_equal(watch.reads, 0);
    assert_int_equal(keg_compact(fixture->keg, NULL, NULL), 0);
    assert_int_equal(keg_get(fixture->keg, key_of(1), &info), 0);
    assert_int_not_equal(info.segment, 1);
    assert_int_equal(info.value_len, SHORT);
    assert_true(first_is_there(fixture));
    for (unsigned n = 0; n < VALUES; n++)
        assert_int_equal(readings[n].result, LONG);
    watch.reads = 0;
}

/* What was found is read as it was, and its segment goes with the last of it. */
static void test_found_before_it_was_compacted(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];

    (void)state;
    find_and_compact(&fixture, readings);
    for (unsigned n = 0; n < VALUES; n++) {
        readings[n].buf = malloc(LONG);
        assert_non_null(readings[n].buf);
    }
    keg_fetch_many(fixture.keg, readings, VALUES - 1);
    assert_true(first_is_there(&fixture));
    keg_fetch_many(fixture.keg, readings, VALUES); /* but the last nothing is left to do of */
    assert_int_equal(watch.reads, 2);
    assert_false(first_is_there(&fixture));
    want_keys(readings, VALUES, -1, 0);
    stop_clean(&fixture);
}

static void test_found_and_dropped(void **state)
{
    struct fixture fixture;
    struct keg_reading readings[VALUES];

    (void)state;
    find_and_compact(&fixture, readings);
    keg_drop_many(fixture.keg, readings, VALUES - 1);
    assert_true(first_is_there(&fixture));
    keg_drop_many(fixture.keg, readings, VALUES);
    assert_false(first_is_there(&fixture));
    assert_int_equal(watch.reads, 0);
    stop_clean(&fixture);
}

/* Changes one of the keys [0, below), or compacts. */
static void change_some(struct keg *keg, struct random *random, unsigned below)
{
    unsigned n = (unsigned)random_below(random, below);

    if (random_below(random, 4) == 0)
        assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    else if (random_below(random, 3))
        put(keg, n, n + 1, random_below(random, 2) ? SHORT : 20000);
    else
        (void)!keg_delete(keg, key_of(n), 0);
}

/* Whatever happens in between, and in what parts it is fetched: the same as at the moment when it
 * was found. */
static void test_found_stays_as_it_was(void **state)
{
    enum { KEYS = 20, MOST = 50, ROOM = 20000 };
    struct random random = random_seeded();
    struct fixture fixture;
    struct keg_reading then[MOST], now[MOST];
    uint8_t *old = malloc((size_t)MOST * ROOM), *new = malloc((size_t)MOST * ROOM);

    (void)state;
    assert_true(old && new);
    start(&fixture);
    for (int round = 0; round < 200; round++) {
        size_t count = 1 + random_below(&random, MOST);

        for (size_t i = 0; i < count; i++) {
            then[i] = now[i] =
                (struct keg_reading){.key = key_of((unsigned)random_below(&random, KEYS)),
                                     .offset = (uint32_t)random_below(&random, 200),
                                     .len = random_below(&random, ROOM)};
            then[i].buf = old + i * ROOM;
            now[i].buf = new + i *ROOM;
        }
        keg_read_many(fixture.keg, then, count);
        keg_find_many(fixture.keg, now, count);
        for (uint64_t n = random_below(&random, 8); n > 0; n--)
            change_some(fixture.keg, &random, KEYS);
        for (size_t i = 0, n; i < count; i += n) {
            n = 1 + random_below(&random, count - i);
            if (random_below(&random, 8) == 0) {
                keg_drop_many(fixture.keg, now + i, n);
                continue;
            }
            keg_fetch_many(fixture.keg, now + i, n);
            for (size_t k = i; k < i + n; k++) {
                assert_int_equal(now[k].result, then[k].result);
                assert_true(now[k].result <= 0 ||
                            memcmp(now[k].buf, then[k].buf, (size_t)now[k].result) == 0);
            }
        }
    }
    stop_clean(&fixture);
    free(old);
    free(new);
}

/* A batch that begins in its caller's memory, outgrows it, and begins there again. */
static void test_lent_batch(void **state)
{
    struct keg_op room[2];
    struct keg_batch batch;
    struct keg_info info;
    struct fixture f;
    char key[] = "lent 0";

    (void)state;
    fixture_open(&f);
    for (unsigned count = 1; count <= 5; count++) {
        char keys[5][sizeof key];

        keg_batch_lend(&batch, room, 2);
        for (unsigned i = 0; i < count; i++) {
            memcpy(keys[i], key, sizeof key);
            keys[i][5] = (char)('0' + i);
            assert_int_equal(keg_batch_put(&batch, (struct keg_bytes){keys[i], 6},
                                           (struct keg_bytes){&count, sizeof count},
                                           (struct keg_bytes){"value", 5}),
                             0);
        }
        assert_int_equal(batch.ops == room, count <= 2);
        assert_int_equal(keg_commit(f.keg, &batch, 0), 0);
        for (unsigned i = 0; i < count; i++) {
            unsigned meta;

            assert_int_equal(keg_get(f.keg, (struct keg_bytes){keys[i], 6}, &info), 0);
            assert_int_equal(info.meta_len, sizeof meta);
            memcpy(&meta, info.meta, sizeof meta);
            assert_int_equal(meta, count);
        }
        keg_batch_free(&batch);
    }
    assert_int_equal(keg_close(f.keg), 0);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lent_batch),
        cmocka_unit_test(test_one_batch_is_one_read),
        cmocka_unit_test(test_parts_at_both_ends),
        cmocka_unit_test(test_over_frames),
        cmocka_unit_test(test_gaps_are_bounded),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_over_segments),
        cmocka_unit_test(test_after_compaction),
        cmocka_unit_test(test_damage_in_the_middle),
        cmocka_unit_test(test_unreadable_in_the_middle),
        cmocka_unit_test(test_a_file_that_is_cut),
        cmocka_unit_test(test_as_one_by_one),
        cmocka_unit_test(test_found_before_it_was_compacted),
        cmocka_unit_test(test_found_and_dropped),
        cmocka_unit_test(test_found_stays_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
