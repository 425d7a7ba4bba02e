/* SPDX-License-Identifier: MIT */
/* How often the disk is read for the contents of a file, and that damage stays where it is. */
#include "volume_case.h"

#include "hook.h"
#include "random.h"

enum { WINDOW = KEYS_WINDOW, LONG = 1 << 20, FILE_MAX = 4 * LONG };

static struct hook hook;
static unsigned reads; /* of segments, since it was last set to 0 */
static uint64_t read_bytes;

static int count_reads(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    if (op == HOOK_READ && strstr(name, ".data")) {
        reads++;
        read_bytes += hook.read_len;
    }
    return 0;
}

/* A volume over a hook; segments hold a few MiB. */
static int setup_hooked(void **state)
{
    struct keg_env *memory;
    (void)state;
    f = (struct fixture){.volume_flags = VOLUME_NO_BACKGROUND,
                         .keg_flags = KEG_NO_BACKGROUND,
                         .segment_size = 8 << 20,
                         .seconds = 1790000000};
    if (env_mem(0, &memory) != 0)
        return -1;
    hook_init(&hook, memory);
    hook.fn = count_reads;
    f.env = &hook.env;
    return fixture_open(&f);
}

static int teardown_hooked(void **state)
{
    (void)state;
    ssize_t findings = volume_check(f.volume, fixture_print, NULL);
    int error = fixture_close(&f);
    keg_env_free(hook.below);
    return findings != 0 || error;
}

/* What each byte of a file should be. */
static uint8_t model[FILE_MAX];

static void write_bytes(uint64_t ino, uint64_t from, size_t len)
{
    static unsigned round;
    round++;
    for (size_t i = 0; i < len; i++)
        model[from + i] = (uint8_t)(1 + (i * 37 + i / 253 + round * 101) % 255);
    assert_int_equal(volume_write(f.volume, ino, from, model + from, len, 0), len);
}

static void expect_bytes(uint64_t ino, uint64_t from, size_t len)
{
    uint8_t *buf = malloc(len);
    assert_non_null(buf);
    reads = 0;
    read_bytes = 0;
    assert_int_equal(volume_read(f.volume, ino, from, buf, len), len);
    assert_memory_equal(buf, model + from, len);
    free(buf);
}

static void start_over(void)
{
    memset(model, 0, sizeof model);
}

static void test_a_mebibyte_is_one_read(void **state)
{
    (void)state;
    start_over();
    uint64_t ino = make_file("big");
    for (unsigned i = 0; i < 3; i++)
        write_bytes(ino, (uint64_t)i * LONG, LONG);
    for (unsigned i = 0; i < 3; i++) {
        expect_bytes(ino, (uint64_t)i * LONG, LONG);
        assert_int_equal(reads, 1);
        assert_int_equal(read_bytes, LONG);
    }
    /* Begun and ended inside of extents, over two frames: 17 extents, and the head between. */
    expect_bytes(ino, 5000, LONG);
    assert_int_equal(reads, 1);
    assert_in_range(read_bytes, LONG + WINDOW, LONG + WINDOW + 4096);
}

/* Written in the small pieces of a program with a small buffer. */
static void test_many_small_frames(void **state)
{
    (void)state;
    start_over();
    uint64_t ino = make_file("log");
    for (unsigned i = 0; i < 64; i++)
        write_bytes(ino, i * 16384, 16384);
    expect_bytes(ino, 0, LONG);
    assert_int_equal(reads, 2); /* 64 extents, at most 32 in a call */
}

/* What begins the window is found by its key, the rest by a scan: each is read once. */
static void test_pieces_are_read_once(void **state)
{
    (void)state;
    start_over();
    uint64_t ino = make_file("log"), other = make_file("other");
    for (unsigned i = 0; i < 5; i++) {
        write_bytes(ino, i * 100, 100);
        assert_int_equal(volume_write(f.volume, other, 0, "far", 3, 0), 3);
        assert_int_equal(volume_write(f.volume, other, 0, model, WINDOW, 0), WINDOW);
    }
    expect_bytes(ino, 0, 500);
    assert_int_equal(reads, 5);
    assert_int_equal(read_bytes, 500);
    expect_bytes(ino, 50, 100);
    assert_int_equal(reads, 2);
    expect_bytes(ino, 250, 100);
    assert_int_equal(reads, 2);
}

static void test_holes_are_zeros(void **state)
{
    (void)state;
    start_over();
    uint64_t ino = make_file("sparse");
    write_bytes(ino, 3 * WINDOW, 2 * WINDOW);
    write_bytes(ino, 7 * WINDOW + 100, 500);
    write_bytes(ino, 9 * WINDOW, 100);
    write_bytes(ino, 15 * WINDOW, WINDOW);
    expect_bytes(ino, 0, LONG);
    assert_int_equal(reads, 1);
    expect_bytes(ino, 4 * WINDOW - 1, 5 * WINDOW);
    expect_bytes(ino, WINDOW, WINDOW);
    assert_int_equal(reads, 0);
}

/* Pieces written from the end to the beginning lie as the file does only when compacted. */
static void test_after_compaction(void **state)
{
    (void)state;
    start_over();
    uint64_t ino = make_file("backwards"), dead = make_file("dead");
    for (unsigned i = 16; i-- > 0;) {
        assert_int_equal(volume_write(f.volume, dead, 0, model, 2 * WINDOW, 0), 2 * WINDOW);
        write_bytes(ino, (uint64_t)i * WINDOW, WINDOW);
    }
    set_size(dead, 0);
    expect_bytes(ino, 0, LONG);
    assert_int_equal(reads, 16);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    expect_bytes(ino, 0, LONG);
    assert_true(reads <= 2);
}

/* A change inside of an extent reads it once, and straight to where it is written from. */
static void test_an_overwrite_reads_once(void **state)
{
    (void)state;
    start_over();
    uint64_t ino = make_file("big");
    write_bytes(ino, 0, LONG);
    reads = 0;
    read_bytes = 0;
    write_bytes(ino, 5 * WINDOW + 4096, 4096);
    assert_int_equal(reads, 1);
    assert_int_equal(read_bytes, WINDOW);
    reads = 0;
    write_bytes(ino, 9 * WINDOW, WINDOW);
    assert_int_equal(reads, 0);
    expect_bytes(ino, 0, LONG);
}

/* Flips a bit of the file's byte at `offset`; done again, it is as before. */
static void flip(uint64_t content, uint64_t offset)
{
    struct keys_key key;
    struct keg_info info;
    char name[32];
    uint8_t *data;
    size_t len;
    keys_extent(&key, content, offset / WINDOW * WINDOW);
    assert_int_equal(keg_get(f.keg, keys_bytes(&key), &info), 0);
    snprintf(name, sizeof name, "%08" PRIu64 ".data", info.segment);
    assert_int_equal(env_slurp(hook.below, name, 1 << 24, &data, &len), 0);
    data[info.offset + offset % WINDOW] ^= 16;
    assert_int_equal(env_replace(hook.below, name, data, len), 0);
    free(data);
}

/* A store that is open reads the file it has open; so it is opened again. */
static void flip_and_reopen(uint64_t content, uint64_t offset)
{
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(fixture_open(&f), 0);
    flip(content, offset);
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(fixture_open(&f), 0);
}

static void test_damage_stays_where_it_is(void **state)
{
    struct inode inode;
    static uint8_t buf[LONG];
    (void)state;
    start_over();
    uint64_t ino = make_file("big");
    write_bytes(ino, 0, LONG);
    assert_int_equal(inodes_load(f.volume, ino, &inode), 0);
    flip_and_reopen(inode.content, 7 * WINDOW + 77);
    unsigned lines = f.damage_lines;
    assert_int_equal(volume_read(f.volume, ino, 0, buf, LONG), -EIO);
    assert_true(f.damage_lines > lines);
    assert_int_equal(volume_read(f.volume, ino, 6 * WINDOW, buf, WINDOW + 1), -EIO);
    assert_int_equal(volume_read(f.volume, ino, 7 * WINDOW, buf, 1), -EIO);
    expect_bytes(ino, 0, 7 * WINDOW);
    expect_bytes(ino, 8 * WINDOW, 8 * WINDOW);
    /* A write that would have to keep some of it fails, one over all of it mends it. */
    assert_int_equal(volume_write(f.volume, ino, 7 * WINDOW, "x", 1, 0), -EIO);
    write_bytes(ino, 7 * WINDOW, WINDOW);
    expect_bytes(ino, 0, LONG);
}

/* Any writes, holes and truncations; any reads. */
static void test_random(void **state)
{
    struct random random = random_seeded();
    (void)state;
    start_over();
    uint64_t ino = make_file("any"), size = 0;
    for (unsigned i = 0; i < 400; i++) {
        uint64_t from = random_below(&random, FILE_MAX - 1);
        size_t len = 1 + (size_t)(random_width(&random) % LONG);
        if (random_below(&random, 2))
            from -= from % WINDOW;
        if (len > FILE_MAX - from)
            len = (size_t)(FILE_MAX - from);
        if (random_below(&random, 5) == 0) {
            assert_int_equal(volume_fallocate(f.volume, ino, 3, from, len), 0);
            memset(model + from, 0, len);
        } else if (random_below(&random, 3)) {
            write_bytes(ino, from, len);
            size = from + len > size ? from + len : size;
        } else if (from < size) {
            expect_bytes(ino, from, len < size - from ? len : (size_t)(size - from));
        }
        if (i % 100 == 99)
            assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    }
    if (size)
        expect_bytes(ino, 0, (size_t)size);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_hooked, teardown_hooked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_mebibyte_is_one_read),   TEST(test_many_small_frames),
        TEST(test_pieces_are_read_once),     TEST(test_holes_are_zeros),
        TEST(test_after_compaction),         TEST(test_an_overwrite_reads_once),
        TEST(test_damage_stays_where_it_is), TEST(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
