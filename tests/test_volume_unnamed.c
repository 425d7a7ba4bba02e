/* SPDX-License-Identifier: MIT */
/* Files that are made without a name, and given one later or never. */
#include "volume_case.h"

static int link_as(uint64_t ino, const char *name)
{
    struct volume_attr attr;
    int error = volume_link(f.volume, ino, VOLUME_ROOT, T(name), &attr);
    if (!error)
        volume_forget(f.volume, ino, 1);
    return error;
}

static uint64_t make_unnamed(uint64_t dir)
{
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFREG | 0640, .uid = 1, .gid = 2};
    assert_int_equal(volume_make_unnamed(f.volume, dir, &new, &attr), 0);
    assert_int_equal(attr.nlink, 0);
    return attr.ino;
}

static void test_it_gets_a_name(void **state)
{
    (void)state;
    struct volume_attr before = get(VOLUME_ROOT);
    uint64_t ino = make_unnamed(VOLUME_ROOT);
    assert_int_equal(get(VOLUME_ROOT).mtime.tv_sec, before.mtime.tv_sec);
    write_text(ino, 0, "contents");
    assert_int_equal(link_as(ino, "a"), 0);
    assert_int_equal(link_as(ino, "b"), 0);
    assert_int_equal(get(ino).nlink, 2);
    volume_forget(f.volume, ino, 1);
    crash_and_reopen();
    expect_text(ino, 0, "contents");
    assert_int_equal(get(ino).nlink, 2);
}

static void test_the_last_forget_reclaims_it(void **state)
{
    (void)state;
    uint64_t before = keys();
    uint64_t ino = make_unnamed(VOLUME_ROOT);
    struct volume_statfs fs;
    write_text(ino, 0, "contents");
    assert_int_equal(volume_statfs(f.volume, &fs), 0);
    assert_int_equal(fs.inodes, 2);
    volume_forget(f.volume, ino, 1);
    assert_int_equal(keys(), before);
    assert_int_equal(volume_statfs(f.volume, &fs), 0);
    assert_int_equal(fs.inodes, 1);
}

static void test_a_crash_reclaims_it(void **state)
{
    (void)state;
    uint64_t before = keys();
    write_text(make_unnamed(VOLUME_ROOT), 0, "contents");
    crash_and_reopen();
    assert_int_equal(volume_tend(f.volume), 0);
    assert_int_equal(keys(), before);
}

static void test_only_the_unnamed_can_come_back(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    assert_int_equal(link_as(ino, "b"), -ENOENT);
    ino = make_unnamed(VOLUME_ROOT);
    assert_int_equal(link_as(ino, "a"), 0);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    assert_int_equal(link_as(ino, "a"), -ENOENT);
}

static void test_what_it_takes_from_the_directory(void **state)
{
    (void)state;
    struct volume_attr attr;
    uint64_t dir = make(VOLUME_ROOT, "dir", S_IFDIR | 02755);
    const struct volume_new fifo = {.mode = S_IFIFO | 0600};
    const struct volume_new file = {.mode = S_IFREG | 0600, .gid = 77};
    assert_int_equal(volume_make_unnamed(f.volume, dir, &fifo, &attr), -EINVAL);
    assert_int_equal(volume_make_unnamed(f.volume, make_file("a"), &file, &attr), -ENOTDIR);
    assert_int_equal(volume_make_unnamed(f.volume, dir, &file, &attr), 0);
    assert_int_equal(attr.gid, 2);
    assert_int_equal(volume_rmdir(f.volume, VOLUME_ROOT, T("dir")), 0);
    assert_int_equal(volume_make_unnamed(f.volume, dir, &file, &attr), -ENOENT);
}

/* With -o commit=close the name is given to the new contents, not to the empty file. */
static void test_its_first_name_commits_what_is_staged(void **state)
{
    (void)state;
    uint64_t ino = make_unnamed(VOLUME_ROOT);
    assert_int_equal(volume_writer_open(f.volume, ino, true), 0);
    write_text(ino, 0, "contents");
    assert_int_equal(link_as(ino, "a"), 0);
    crash_and_reopen();
    assert_int_equal(find(VOLUME_ROOT, "a"), 0);
    expect_text(ino, 0, "contents");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_it_gets_a_name),
        TEST(test_the_last_forget_reclaims_it),
        TEST(test_a_crash_reclaims_it),
        TEST(test_only_the_unnamed_can_come_back),
        TEST(test_what_it_takes_from_the_directory),
        TEST(test_its_first_name_commits_what_is_staged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
