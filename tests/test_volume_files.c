/* SPDX-License-Identifier: MIT */
/* The namespace, call by call: what is in files, and their sizes and times. */
#include "volume_case.h"
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- Writing ---- */

static void test_overwrites_and_holes(void **state)
{
    (void)state;
    uint64_t ino = make_file("a"), out;
    write_text(ino, 10, "0123456789");
    expect_text(ino, 10, "0123456789");
    write_text(ino, 12, "xx");
    write_text(ino, 18, "abc");
    write_text(ino, 8, "__");
    reopen();
    expect_text(ino, 8, "__01xx4567abc");
    assert_int_equal(get(ino).size, 21);
    assert_int_equal(get(ino).bytes, 13);
    assert_int_equal(volume_seek(f.volume, ino, 0, SEEK_DATA, &out), 0);
    assert_int_equal(out, 8);
    assert_int_equal(volume_seek(f.volume, ino, 0, SEEK_HOLE, &out), 0);
    assert_int_equal(out, 0);
    assert_int_equal(volume_seek(f.volume, ino, 9, SEEK_HOLE, &out), 0);
    assert_int_equal(out, 21);
    assert_int_equal(volume_seek(f.volume, ino, 21, SEEK_DATA, &out), -ENXIO);
}

static void test_offsets_to_the_end_of_the_world(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    const uint64_t offsets[] = {(1ull << 31) - 1, (1ull << 32) - 1, 1ull << 40, INT64_MAX - 2};
    for (int i = 0; i < 4; i++) {
        write_text(ino, offsets[i], "ab");
        expect_text(ino, offsets[i], "ab");
        assert_true(get(ino).size == offsets[i] + 2);
    }
    assert_int_equal(volume_write(f.volume, ino, INT64_MAX - 1, "ab", 2, 0), -EFBIG);
    assert_int_equal(volume_write(f.volume, ino, UINT64_MAX, "ab", 2, 0), -EFBIG);
    struct volume_attr attr = {.size = 1ull << 63};
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_SIZE, &attr, &attr), -EFBIG);
}

static void test_a_write_is_one_frame(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    size_t len = 1 << 20;
    uint8_t *data = malloc(len), *read = malloc(len);
    assert_non_null(data);
    assert_non_null(read);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + i / 65536);
    for (uint64_t offset = 0; offset < 2000; offset += 1000) {
        uint64_t start = frames();
        assert_int_equal(volume_write(f.volume, ino, offset, data, len, 0), len);
        assert_int_equal(frames(), start + 1);
        assert_int_equal(volume_read(f.volume, ino, offset, read, len), len);
        assert_memory_equal(data, read, len);
    }
    assert_int_equal(get(ino).bytes, len + 1000);
    free(data);
    free(read);
}

/* The budget of performance.md: 2 KiB on average. */
static void test_small_appends_log_little(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    char line[100];
    memset(line, 'l', sizeof line);
    uint64_t start = appended();
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(volume_write(f.volume, ino, i * 100, line, 100, 0), 100);
    uint64_t each = (appended() - start) / 1000;
    printf("%llu bytes logged for each append of 100\n", (unsigned long long)each);
    assert_in_range(each, 100, 1200);
    assert_int_equal(get(ino).bytes, 100000);
}

static void test_small_files_log_little(void **state)
{
    (void)state;
    static uint8_t data[8192];
    make_file("first"); /* takes the reservation of ids along */
    uint64_t start = appended();
    uint64_t ino = make_file("second");
    assert_int_equal(volume_write(f.volume, ino, 0, data, sizeof data, 0), sizeof data);
    uint64_t create = appended() - start;
    struct volume_attr attr = {.mode = 0600};
    start = appended();
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_MODE, &attr, &attr), 0);
    printf("%llu bytes to create and write, %llu for a chmod\n", (unsigned long long)create - 8192,
           (unsigned long long)(appended() - start));
    assert_in_range(create, 8192, 8192 + 600);
    assert_in_range(appended() - start, 1, 200);
}

static void test_plan_carries_like_a_counter(void **state)
{
    (void)state;
    struct extent pieces[WINDOW_PIECES + 1];
    size_t first, last;
    for (unsigned i = 0; i < WINDOW_PIECES; i++)
        pieces[i] = (struct extent){1000 + i * 10, 10};
    extents_plan(pieces, WINDOW_PIECES - 1, 1150, 1160, &first, &last);
    assert_int_equal(first, last); /* room for one more */
    extents_plan(pieces, WINDOW_PIECES, 1160, 1170, &first, &last);
    assert_int_equal(first, 0);
    assert_int_equal(last, WINDOW_PIECES);
    pieces[0] = (struct extent){0, 1010};
    extents_plan(pieces, WINDOW_PIECES, 1160, 1170, &first, &last);
    assert_int_equal(first, 1); /* a big piece is left alone */
    pieces[WINDOW_PIECES - 1].len = 5;
    extents_plan(pieces, WINDOW_PIECES, 1160, 1170, &first, &last);
    assert_int_equal(first, 0); /* nothing right before it: all */
    extents_plan(pieces, 4, 1015, 1025, &first, &last);
    assert_int_equal(first, 1); /* what it overlaps */
    assert_int_equal(last, 3);
}

/* The mode that is left of each one with suid or sgid. */
static void expect_bits_go(unsigned set, const struct volume_attr *to)
{
    static const struct {
        uint32_t before, after;
    } modes[] = {{06755, 0755},  {04755, 0755},  {02755, 0755},
                 {04644, 0644},  {02644, 02644}, /* no group that may execute it: mandatory locking,
                                                    of old */
                 {06644, 02644}, {0777, 0777}};
    struct volume_attr attr;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        uint64_t ino = make_file("bits");
        attr = (struct volume_attr){.mode = modes[i].before};
        write_text(ino, 0, "contents");
        assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_MODE, &attr, &attr), 0);
        assert_int_equal(attr.mode, S_IFREG | modes[i].before);
        if (set) {
            assert_int_equal(volume_setattr(f.volume, ino, set, to, &attr), 0);
            assert_int_equal(attr.mode, S_IFREG | modes[i].after);
        } else {
            assert_int_equal(volume_write(f.volume, ino, 3, "x", 1, VOLUME_KILL_SUID), 1);
        }
        assert_int_equal(get(ino).mode, S_IFREG | modes[i].after);
        assert_int_equal(volume_sync(f.volume, ino), 0);
        crash_and_reopen();
        assert_int_equal(get(ino).mode, S_IFREG | modes[i].after);
        assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("bits")), 0);
    }
}

/* Whether a caller may keep the bits is known to the kernel alone, which then does not say KILL; so
 * it comes with writes, truncations and, on its own, ahead of fallocate. */
static void test_suid_and_sgid_go(void **state)
{
    (void)state;
    const struct volume_attr to = {.uid = 9, .gid = 9, .size = 4}, zero = {.size = 0};
    expect_bits_go(0, NULL);
    expect_bits_go(VOLUME_KILL_SUID, NULL);
    expect_bits_go(VOLUME_SET_UID, &to);
    expect_bits_go(VOLUME_SET_GID, &to);
    expect_bits_go(VOLUME_SET_UID | VOLUME_SET_GID, &to);
    expect_bits_go(VOLUME_SET_SIZE | VOLUME_KILL_SUID, &to);
    expect_bits_go(VOLUME_SET_SIZE | VOLUME_KILL_SUID, &zero);
}

static void test_suid_and_sgid_stay(void **state)
{
    (void)state;
    struct volume_attr attr = {.uid = 9, .gid = 9, .size = 4};
    uint64_t ino = make(VOLUME_ROOT, "a", S_IFREG | 06755);
    write_text(ino, 0, "contents");
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_SIZE, &attr, &attr), 0);
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 0, 10), 0);
    assert_int_equal(get(ino).mode, S_IFREG | 06755);
    attr = (struct volume_attr){.uid = 9, .gid = 9, .mode = 06755};
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_UID | VOLUME_SET_MODE, &attr, &attr),
                     0);
    assert_int_equal(attr.mode, S_IFREG | 06755); /* chmod comes last */
    uint64_t dir = make(VOLUME_ROOT, "d", S_IFDIR | 06755);
    attr = (struct volume_attr){.uid = 9, .gid = 9};
    assert_int_equal(volume_setattr(f.volume, dir, VOLUME_SET_UID | VOLUME_SET_GID, &attr, &attr),
                     0);
    assert_int_equal(attr.mode, S_IFDIR | 06755);
}

/* ---- Sizes ---- */

static void test_truncation_to_zero_is_logged_with_the_next_write(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    write_text(ino, 0, "the old contents");
    uint64_t start = frames();
    set_size(ino, 0);
    assert_int_equal(frames(), start);
    expect_text(ino, 0, "");
    assert_int_equal(get(ino).size, 0);
    write_text(ino, 0, "new");
    expect_text(ino, 0, "new");
    /* The frame of all that, and the one that reclaims. */
    assert_int_equal(frames(), start + 2);
    crash_and_reopen();
    expect_text(ino, 0, "new");
}

static void test_a_crash_before_the_write_keeps_the_old_contents(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    write_text(ino, 0, "the old contents");
    set_size(ino, 0);
    crash_and_reopen();
    expect_text(ino, 0, "the old contents");
}

static void test_sync_and_close_log_a_truncation(void **state)
{
    (void)state;
    uint64_t a = make_file("a"), b = make_file("b"), c = make_file("c");
    uint64_t without = keys();
    write_text(a, 0, "contents");
    write_text(b, 0, "contents");
    write_text(c, 0, "contents");
    set_size(a, 0);
    set_size(b, 0);
    set_size(c, 0);
    assert_int_equal(volume_sync(f.volume, a), 0);
    struct volume_attr attr = {.mode = 0600};
    assert_int_equal(volume_setattr(f.volume, b, VOLUME_SET_MODE, &attr, &attr), 0);
    assert_int_equal(f.volume->held[0].count, 1);
    reopen();
    reopen(); /* the orphan of the last one was logged by close */
    assert_int_equal(get(a).size + get(b).size + get(c).size, 0);
    assert_int_equal(keys(), without);
}

static void test_truncation_cuts_an_extent(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    write_text(ino, 0, "0123456789");
    write_text(ino, 70000, "far away");
    set_size(ino, 4);
    assert_int_equal(get(ino).bytes, 4);
    set_size(ino, 8);
    crash_and_reopen();
    char buf[8];
    assert_int_equal(volume_read(f.volume, ino, 0, buf, 8), 8);
    assert_memory_equal(buf, "0123\0\0\0\0", 8);
    set_size(ino, 80000);
    memset(buf, 1, 8);
    assert_int_equal(volume_read(f.volume, ino, 70000, buf, 8), 8);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0\0", 8);
}

/* A tail that is too long for one frame never comes back, however soon the file grows. */
static void test_a_long_tail_is_out_of_reach(void **state)
{
    (void)state;
    uint64_t ino = make_file("a"), out;
    for (uint64_t i = 0; i < 9000; i++)
        assert_int_equal(volume_write(f.volume, ino, i << 16, "x", 1, 0), 1);
    /* As a thread would leave it: nothing reclaimed yet. */
    f.volume->flags &= ~(unsigned)VOLUME_NO_BACKGROUND;
    set_size(ino, 70000);
    struct inode inode;
    assert_int_equal(inodes_load(f.volume, ino, &inode), 0);
    assert_true(inode.flags & INODE_TAIL);
    assert_true(inode.bytes > 2);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    assert_int_equal(volume_seek(f.volume, ino, 65537, SEEK_DATA, &out), -ENXIO);
    write_text(ino, 9000ull << 16, "end");
    f.volume->flags |= VOLUME_NO_BACKGROUND;
    assert_int_equal(get(ino).bytes, 2 + 3);
    assert_int_equal(volume_seek(f.volume, ino, 65537, SEEK_DATA, &out), 0);
    assert_true(out == 9000ull << 16);
}

static void test_a_long_tail_is_reclaimed(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    for (uint64_t i = 0; i < 9000; i++)
        assert_int_equal(volume_write(f.volume, ino, i << 16, "x", 1, 0), 1);
    f.volume->flags &= ~(unsigned)VOLUME_NO_BACKGROUND;
    set_size(ino, 1);
    f.volume->flags |= VOLUME_NO_BACKGROUND;
    assert_true(get(ino).bytes > 1);
    reopen(); /* finishes it */
    assert_int_equal(get(ino).bytes, 1);
}

static void test_fallocate(void **state)
{
    (void)state;
    uint64_t ino = make_file("a"), out;
    const int keep = FALLOC_FL_KEEP_SIZE, punch = FALLOC_FL_PUNCH_HOLE | keep;
    write_text(ino, 0, "0123456789");
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 5, 15), 0);
    assert_int_equal(get(ino).size, 20);
    assert_int_equal(volume_fallocate(f.volume, ino, keep, 0, 100), 0);
    assert_int_equal(get(ino).size, 20);
    assert_int_equal(volume_fallocate(f.volume, ino, punch, 2, 3), 0);
    assert_int_equal(get(ino).bytes, 17);
    char buf[10];
    assert_int_equal(volume_read(f.volume, ino, 0, buf, 10), 10);
    assert_memory_equal(buf,
                        "01\0\0\0"
                        "56789",
                        10);
    assert_int_equal(volume_seek(f.volume, ino, 0, SEEK_HOLE, &out), 0);
    assert_int_equal(out, 2);
    assert_int_equal(volume_fallocate(f.volume, ino, FALLOC_FL_ZERO_RANGE, 8, 100), 0);
    assert_int_equal(get(ino).size, 108);
    assert_int_equal(get(ino).bytes, 5);
    assert_int_equal(volume_fallocate(f.volume, ino, FALLOC_FL_PUNCH_HOLE, 0, 1), -EOPNOTSUPP);
    assert_int_equal(volume_fallocate(f.volume, ino, FALLOC_FL_COLLAPSE_RANGE, 0, 1), -EOPNOTSUPP);
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 0, 0), -EINVAL);
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 1, INT64_MAX), -EFBIG);
}

static void test_small_fallocate_is_data(void **state)
{
    (void)state;
    uint64_t ino = make_file("a"), out;
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 4095, 2), 0);
    assert_int_equal(get(ino).size, 4097);
    assert_int_equal(get(ino).bytes, 2);
    write_text(ino, 4095, "xy");
    assert_int_equal(get(ino).bytes, 2);
    assert_int_equal(volume_fallocate(f.volume, ino, FALLOC_FL_KEEP_SIZE, 4000, 1000), 0);
    assert_int_equal(get(ino).bytes, 97);
    char buf[3];
    assert_int_equal(volume_read(f.volume, ino, 4094, buf, 3), 3);
    assert_memory_equal(buf, "\0xy", 3);
    assert_int_equal(volume_seek(f.volume, ino, 0, SEEK_DATA, &out), 0);
    assert_int_equal(out, 4000);
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 1 << 20, 1 << 20), 0); /* a hole */
    assert_int_equal(get(ino).bytes, 97);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
}

static void test_times(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    struct volume_attr attr = {.atime = {-5, 7}, .mtime = {1ll << 40, 999999999}}, out;
    assert_int_equal(
        volume_setattr(f.volume, ino, VOLUME_SET_ATIME | VOLUME_SET_MTIME, &attr, &out), 0);
    reopen();
    assert_true(get(ino).atime.tv_sec == -5 && get(ino).atime.tv_nsec == 7);
    assert_true(get(ino).mtime.tv_sec == 1ll << 40);
    attr.atime.tv_nsec = 1000000000;
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_ATIME, &attr, &out), -EINVAL);
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_MTIME_NOW, &attr, &out), 0);
    assert_true(out.mtime.tv_sec == out.ctime.tv_sec);
}

static void test_relatime_waits_in_memory(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    f.volume->flags |= VOLUME_RELATIME;
    write_text(ino, 0, "x");
    uint64_t start = frames();
    expect_text(ino, 0, "x");
    struct volume_attr attr = get(ino);
    assert_true(attr.atime.tv_sec > attr.mtime.tv_sec);
    expect_text(ino, 0, "x");
    assert_true(get(ino).atime.tv_sec == attr.atime.tv_sec);
    assert_int_equal(frames(), start);
    volume_forget(f.volume, ino, 1);
    assert_int_equal(frames(), start + 1);
    reopen();
    assert_true(get(ino).atime.tv_sec == attr.atime.tv_sec);
}

/* ---- Capabilities ---- */

static void set_capability(uint64_t ino)
{
    assert_int_equal(volume_setxattr(f.volume, ino, T("security.capability"), "c", 1, 0), 0);
}

static void expect_capability(uint64_t ino, bool there)
{
    assert_int_equal(volume_getxattr(f.volume, ino, T("security.capability"), NULL, 0),
                     there ? 1 : -ENODATA);
    assert_int_equal(volume_getxattr(f.volume, ino, T("user.a"), NULL, 0), 2);
}

static ssize_t fill_nothing(void *arg, void *buf, size_t size)
{
    (void)arg, (void)buf, (void)size;
    return 0;
}

/* The kernel does so as well, but only for what goes through it. */
static void test_new_contents_or_owners_take_capabilities_away(void **state)
{
    (void)state;
    struct volume_attr attr = {.mode = 0755, .uid = 7}, out;
    uint64_t ino = make_file("a");
    const unsigned sets[] = {VOLUME_SET_UID, VOLUME_SET_SIZE, VOLUME_KILL_SUID};
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.a"), "xx", 2, 0), 0);
    for (int i = 0; i < 3; i++) {
        set_capability(ino);
        assert_int_equal(volume_setattr(f.volume, ino, sets[i], &attr, &out), 0);
        expect_capability(ino, false);
    }
    set_capability(ino);
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_MODE, &attr, &out), 0);
    expect_capability(ino, true);
    write_text(ino, 0, "x");
    expect_capability(ino, false);
    set_capability(ino);
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 0, 10), 0);
    expect_capability(ino, false);
    set_capability(ino);
    const struct volume_new new = {.mode = S_IFREG | 0644};
    assert_int_equal(volume_put(f.volume, T("a"), &new, fill_nothing, NULL), 0);
    expect_capability(ino, false);
    crash_and_reopen();
    expect_capability(ino, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_overwrites_and_holes),
        TEST(test_offsets_to_the_end_of_the_world),
        TEST(test_a_write_is_one_frame),
        TEST(test_small_appends_log_little),
        TEST(test_small_files_log_little),
        TEST(test_plan_carries_like_a_counter),
        TEST(test_suid_and_sgid_go),
        TEST(test_suid_and_sgid_stay),
        TEST(test_truncation_to_zero_is_logged_with_the_next_write),
        TEST(test_a_crash_before_the_write_keeps_the_old_contents),
        TEST(test_sync_and_close_log_a_truncation),
        TEST(test_truncation_cuts_an_extent),
        TEST(test_a_long_tail_is_out_of_reach),
        TEST(test_a_long_tail_is_reclaimed),
        TEST(test_fallocate),
        TEST(test_small_fallocate_is_data),
        TEST(test_times),
        TEST(test_relatime_waits_in_memory),
        TEST(test_new_contents_or_owners_take_capabilities_away),
    };
    return cmocka_run_group_tests_name("volume_files", tests, NULL, NULL);
}
