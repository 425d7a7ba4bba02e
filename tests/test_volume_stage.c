/* SPDX-License-Identifier: MIT */
/* Contents that are replaced as a whole over many writes, and what else happens to the file
 * meanwhile. */
#include "env_fault.h"
#include "volume_case.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

/* Under a sanitizer every seventh I/O has to do. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STRIDE = 7 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { STRIDE = 7 };
#else
enum { STRIDE = 1 };
#endif
#else
enum { STRIDE = 1 };
#endif

static uint64_t make_text(const char *name, const char *text)
{
    uint64_t ino = make_file(name);
    if (*text)
        write_text(ino, 0, text);
    return ino;
}

/* As open(O_TRUNC) does. */
static void open_truncate(uint64_t ino)
{
    assert_int_equal(volume_writer_open(f.volume, ino, false), 0);
    set_size(ino, 0);
}

static void close_writer(uint64_t ino)
{
    assert_int_equal(volume_writer_close(f.volume, ino), 0);
}

static size_t staged(void)
{
    return f.volume->held[HELD_STAGED].count;
}

static void test_new_is_seen_and_old_survives_a_crash(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "the old contents"), before = keys();
    open_truncate(ino);
    assert_int_equal(get(ino).size, 0);
    write_text(ino, 0, "new ");
    write_text(ino, 4, "contents");
    expect_text(ino, 0, "new contents");
    assert_int_equal(volume_sync(f.volume, 0), 0); /* of all: commits nothing */
    assert_int_equal(staged(), 1);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    crash_and_reopen();
    expect_text(ino, 0, "the old contents");
    assert_int_equal(keys(), before); /* what was staged is reclaimed */
}

static void test_close_makes_it_the_new_one(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "the old contents"), before = keys();
    open_truncate(ino);
    write_text(ino, 0, "new ");
    write_text(ino, 4, "contents");
    uint64_t logged = frames();
    close_writer(ino);
    assert_int_equal(frames(), logged + 2); /* the commit, and the old contents reclaimed */
    assert_int_equal(staged(), 0);
    crash_and_reopen();
    expect_text(ino, 0, "new contents");
    assert_int_equal(keys(), before + 1); /* two extents */
}

static void test_truncation_alone(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old");
    open_truncate(ino);
    close_writer(ino);
    crash_and_reopen();
    assert_int_equal(get(ino).size, 0);
    assert_int_equal(get(ino).bytes, 0);
}

static void test_created(void **state)
{
    (void)state;
    uint64_t ino = make_file("a"), other = make_file("b");
    assert_int_equal(volume_writer_open(f.volume, ino, true), 0);
    assert_int_equal(volume_writer_open(f.volume, other, true), 0);
    write_text(ino, 0, "half");
    uint64_t logged = frames();
    close_writer(other); /* nothing to commit */
    assert_int_equal(frames(), logged);
    crash_and_reopen();
    assert_int_equal(get(ino).size, 0);
}

static void test_appending_is_not_staged(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old"), empty = make_file("b");
    assert_int_equal(volume_writer_open(f.volume, ino, false), 0);
    assert_int_equal(volume_writer_open(f.volume, empty, false), 0);
    write_text(ino, 3, " and more");
    write_text(empty, 0, "a log");
    crash_and_reopen();
    expect_text(ino, 0, "old and more");
    expect_text(empty, 0, "a log");
    /* Neither is a file that is truncated without a writer. */
    set_size(ino, 0);
    write_text(ino, 0, "new");
    crash_and_reopen();
    expect_text(ino, 0, "new");
}

static void test_fsync_commits_and_ends_it(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old");
    open_truncate(ino);
    write_text(ino, 0, "new");
    assert_int_equal(volume_sync(f.volume, ino), 0);
    write_text(ino, 3, " and more");
    crash_and_reopen();
    expect_text(ino, 0, "new and more");
}

static void test_unmount_commits(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old");
    open_truncate(ino);
    write_text(ino, 0, "new");
    reopen();
    expect_text(ino, 0, "new");
}

/* Whose mount has gone while they had the file open never close it. */
static void test_detached_writers_commit_nothing(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old"), new = make_file("b"), before = keys();
    open_truncate(ino);
    write_text(ino, 0, "half of the new");
    assert_int_equal(volume_writer_open(f.volume, new, true), 0);
    write_text(new, 0, "half");
    volume_drop_staged(f.volume);
    assert_int_equal(staged(), 0);
    reopen();
    expect_text(ino, 0, "old");
    assert_int_equal(get(new).size, 0);
    assert_int_equal(keys(), before);
}

static void test_the_last_writer_commits(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old");
    open_truncate(ino);
    assert_int_equal(volume_writer_open(f.volume, ino, false), 0);
    write_text(ino, 0, "new");
    assert_int_equal(volume_writer_flush(f.volume, ino), 0);
    close_writer(ino);
    assert_int_equal(staged(), 1);
    assert_int_equal(volume_writer_flush(f.volume, ino), 0);
    assert_int_equal(staged(), 0);
    crash_and_reopen();
    expect_text(ino, 0, "new");
}

/* "cmd > file" closes a duplicate before cmd writes. */
static void test_flush_leaves_nothing_written_alone(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old");
    open_truncate(ino);
    assert_int_equal(volume_writer_flush(f.volume, ino), 0);
    write_text(ino, 0, "half");
    crash_and_reopen();
    expect_text(ino, 0, "old");
}

static void test_truncated_again(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old"), before = keys();
    open_truncate(ino);
    write_text(ino, 0, "first");
    set_size(ino, 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    write_text(ino, 0, "second");
    expect_text(ino, 0, "second");
    close_writer(ino);
    assert_int_equal(keys(), before);
    crash_and_reopen();
    expect_text(ino, 0, "second");
}

/* A truncation that only memory knows of, by somebody who has not opened the file. */
static void test_truncated_before_it_was_opened(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old"), before = keys();
    set_size(ino, 0);
    open_truncate(ino);
    write_text(ino, 0, "half");
    crash_and_reopen();
    expect_text(ino, 0, "old");
    set_size(ino, 0);
    open_truncate(ino);
    write_text(ino, 0, "new");
    close_writer(ino);
    assert_int_equal(keys(), before);
}

static void test_sizes_of_what_is_staged(void **state)
{
    (void)state;
    static char big[300 << 10];
    memset(big, 'x', sizeof big);
    uint64_t ino = make_text("a", "the old contents");
    open_truncate(ino);
    assert_int_equal(volume_write(f.volume, ino, 0, big, sizeof big, 0), sizeof big);
    set_size(ino, 100 << 10);
    set_size(ino, 400 << 10);
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    assert_int_equal(volume_fallocate(f.volume, ino, punch, 1000, 70000), 0);
    assert_int_equal(volume_fallocate(f.volume, ino, 0, 0, 500 << 10), 0);
    assert_int_equal(get(ino).bytes, (100 << 10) - 70000);
    uint64_t hole;
    assert_int_equal(volume_seek(f.volume, ino, 0, SEEK_HOLE, &hole), 0);
    assert_int_equal(hole, 1000);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    crash_and_reopen();
    expect_text(ino, 0, "the old contents");
}

/* As cp -p does between its writes and its close. */
static void test_attributes_are_logged_with_the_old_contents(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old");
    struct timespec old_time = get(ino).mtime;
    struct volume_attr attr = {.mode = 0600, .mtime = {.tv_sec = 12345}}, out;
    open_truncate(ino);
    write_text(ino, 0, "the new");
    const unsigned set = VOLUME_SET_MODE | VOLUME_SET_MTIME;
    assert_int_equal(volume_setattr(f.volume, ino, set, &attr, &out), 0);
    assert_int_equal(out.size, 7);
    assert_int_equal(get(ino).mtime.tv_sec, 12345);
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.x"), "1", 1, 0), 0);
    crash_and_reopen();
    expect_text(ino, 0, "old");
    assert_int_equal(get(ino).mode & 07777, 0600);
    assert_int_equal(get(ino).mtime.tv_sec, old_time.tv_sec);
    assert_int_equal(volume_getxattr(f.volume, ino, T("user.x"), NULL, 0), 1);
    open_truncate(ino);
    write_text(ino, 0, "the new");
    assert_int_equal(volume_setattr(f.volume, ino, set, &attr, &out), 0);
    close_writer(ino);
    crash_and_reopen();
    expect_text(ino, 0, "the new");
    assert_int_equal(get(ino).mtime.tv_sec, 12345);
}

static void test_a_time_of_an_empty_file_is_logged(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    struct volume_attr attr = {.mtime = {.tv_sec = 12345}}, out;
    assert_int_equal(volume_writer_open(f.volume, ino, true), 0);
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_MTIME, &attr, &out), 0);
    crash_and_reopen();
    assert_int_equal(get(ino).mtime.tv_sec, 12345);
}

static void test_names_move_with_the_old_contents(void **state)
{
    (void)state;
    uint64_t ino = make_text("a", "old");
    struct volume_attr attr;
    open_truncate(ino);
    write_text(ino, 0, "half");
    assert_int_equal(volume_link(f.volume, ino, VOLUME_ROOT, T("b"), &attr), 0);
    assert_int_equal(volume_rename(f.volume, VOLUME_ROOT, T("a"), VOLUME_ROOT, T("c"), 0), 0);
    expect_text(ino, 0, "half");
    crash_and_reopen();
    assert_int_equal(find(VOLUME_ROOT, "c"), 0);
    assert_int_equal(get(ino).nlink, 2);
    expect_text(ino, 0, "old");
}

static void test_rename_over_commits(void **state)
{
    (void)state;
    static const unsigned flags[] = {0, VOLUME_EXCHANGE};
    for (int i = 0; i < 2; i++) {
        uint64_t target = make_text("target", "old"), ino = make_file("temporary");
        assert_int_equal(volume_writer_open(f.volume, ino, true), 0);
        write_text(ino, 0, "new");
        struct keg_bytes from = T("temporary"), to = T("target");
        assert_int_equal(volume_rename(f.volume, 1, from, 1, to, flags[i]), 0);
        crash_and_reopen();
        expect_text(ino, 0, "new");
        if (flags[i])
            expect_text(target, 0, "old");
        assert_int_equal(volume_unlink(f.volume, 1, to), 0);
    }
}

static void test_unlinked(void **state)
{
    (void)state;
    uint64_t before = keys();
    for (int crash = 0; crash < 2; crash++) {
        uint64_t ino = make_text("a", "old");
        open_truncate(ino);
        write_text(ino, 0, "half");
        assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
        expect_text(ino, 0, "half");
        if (crash) {
            crash_and_reopen();
        } else {
            close_writer(ino);
            volume_forget(f.volume, ino, 1);
        }
        assert_int_equal(keys(), before);
    }
    /* The other way round, which the kernel does not do. */
    uint64_t ino = make_text("a", "old");
    open_truncate(ino);
    write_text(ino, 0, "half");
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    volume_forget(f.volume, ino, 1);
    assert_int_equal(keys(), before);
    close_writer(ino);
}

static ssize_t fill_once(void *arg, void *buf, size_t size)
{
    const char **text = arg;
    size_t n = strlen(*text);
    assert_true(n <= size);
    memcpy(buf, *text, n);
    *text += n;
    return (ssize_t)n;
}

static void test_put_over_it(void **state)
{
    (void)state;
    const char *text = "put";
    const struct volume_new new = {.mode = S_IFREG | 0644};
    uint64_t ino = make_text("a", "old"), before = keys();
    open_truncate(ino);
    write_text(ino, 0, "half");
    assert_int_equal(volume_put(f.volume, T("a"), &new, fill_once, &text), 0);
    close_writer(ino);
    expect_text(ino, 0, "put");
    assert_int_equal(keys(), before);
}

/* The volume is on a disk that fails instead. */
static void on_failing_disk(void)
{
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(f.env);
    assert_int_equal(env_fault(0, &f.env), 0);
    assert_int_equal(fixture_open(&f), 0);
}

static uint64_t count_syncs(void)
{
    struct keg_stats stats;
    keg_stats(f.volume->keg, &stats);
    return stats.syncs;
}

static void test_a_full_disk_leaves_the_old_contents(void **state)
{
    (void)state;
    on_failing_disk();
    uint64_t ino = make_text("a", "old"), sound = make_text("b", "sound"), before = keys();
    open_truncate(ino);
    write_text(ino, 0, "half of");
    write_text(sound, 0, "S");
    const struct env_fault_plan full = {.kind = ENV_FAULT_ENOSPC, .at = 1, .forever = true};
    env_fault_set(f.env, &full);
    assert_true(volume_write(f.volume, ino, 7, " it", 3, 0) < 0);
    env_fault_set(f.env, &(struct env_fault_plan){0});
    assert_true(volume_sync(f.volume, ino) < 0);
    const uint64_t syncs = count_syncs();
    int errors[3] = {-1, 0, -1};
    volume_sync_many(f.volume, (uint64_t[]){sound, ino, sound}, errors, 3);
    assert_true(errors[1] < 0); /* which keeps the others from nothing */
    assert_int_equal(errors[0], 0);
    assert_int_equal(errors[2], 0);
    assert_int_equal(count_syncs(), syncs + 1);
    assert_true(volume_writer_flush(f.volume, ino) < 0);
    expect_text(ino, 0, "half of");
    assert_true(volume_writer_close(f.volume, ino) < 0);
    expect_text(ino, 0, "old");
    reopen();
    expect_text(ino, 0, "old");
    assert_int_equal(keys(), before);
    /* And a truncation makes good for it. */
    open_truncate(ino);
    stage_break(f.volume, ino, -ENOSPC);
    set_size(ino, 0);
    write_text(ino, 0, "new");
    close_writer(ino);
    expect_text(ino, 0, "new");
}

static void test_a_commit_that_fails(void **state)
{
    (void)state;
    on_failing_disk();
    uint64_t ino = make_text("a", "old");
    open_truncate(ino);
    write_text(ino, 0, "new");
    const struct env_fault_plan full = {.kind = ENV_FAULT_ENOSPC, .at = 1, .forever = true};
    env_fault_set(f.env, &full);
    assert_true(volume_writer_flush(f.volume, ino) < 0);
    assert_true(volume_writer_close(f.volume, ino) < 0);
    expect_text(ino, 0, "old");
    env_fault_set(f.env, &(struct env_fault_plan){0});
    reopen();
    expect_text(ino, 0, "old");
}

/* ---- Power ---- */

enum { OLD_SIZE = 5 << 20, NEW_SIZE = (5 << 20) + 12345, PIECE = 100000 };

static uint8_t image[NEW_SIZE], read_back[NEW_SIZE];

static void fill_image(uint8_t seed)
{
    for (size_t i = 0; i < sizeof image; i++)
        image[i] = (uint8_t)(seed + i * 7 + i / 65536);
}

/* Truncates and writes in pieces, until something fails. */
static void replace(uint64_t ino)
{
    struct volume_attr attr = {.size = 0}, out;
    bool ok = volume_writer_open(f.volume, ino, false) == 0 &&
              volume_setattr(f.volume, ino, VOLUME_SET_SIZE, &attr, &out) == 0;
    for (size_t at = 0; ok && at < NEW_SIZE; at += PIECE) {
        size_t n = NEW_SIZE - at < PIECE ? NEW_SIZE - at : PIECE;
        ok = volume_write(f.volume, ino, at, image + at, n, 0) == (ssize_t)n;
        if (ok && at % (PIECE * 16) == 0)
            ok = volume_sync(f.volume, 0) == 0; /* the timer's: extents durable, not committed */
    }
    if (volume_writer_close(f.volume, ino) == 0 && ok)
        (void)!volume_sync(f.volume, 0);
}

/* Cuts the power at the at-th I/O of a replacement. Returns whether it came so far. */
static bool cut_once(uint64_t at, unsigned *olds, unsigned *news, uint64_t *lost)
{
    on_failing_disk();
    uint64_t ino = make_file("a");
    fill_image(1);
    for (size_t from = 0; from < OLD_SIZE; from += 1 << 20)
        assert_int_equal(volume_write(f.volume, ino, from, image + from, 1 << 20, 0), 1 << 20);
    assert_int_equal(volume_sync(f.volume, ino), 0);
    uint64_t before = keys();
    fill_image(99);
    const struct env_fault_plan cut = {.kind = ENV_FAULT_CUT, .at = at, .seed = at};
    env_fault_set(f.env, &cut);
    replace(ino);
    bool struck = env_fault_struck(f.env);
    const struct env_fault_plan now = {.kind = ENV_FAULT_CUT, .at = 1, .seed = at};
    if (!struck)
        env_fault_set(f.env, &now); /* closing must not help */
    (void)!fixture_close(&f);
    *lost += env_fault_restart(f.env);
    assert_int_equal(fixture_open(&f), 0);
    bool is_new = get(ino).size == NEW_SIZE;
    assert_true(is_new || get(ino).size == OLD_SIZE);
    fill_image(is_new ? 99 : 1);
    size_t size = is_new ? NEW_SIZE : OLD_SIZE;
    assert_int_equal(volume_read(f.volume, ino, 0, read_back, NEW_SIZE), size);
    assert_memory_equal(read_back, image, size);
    assert_int_equal(volume_tend(f.volume), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    if (!is_new)
        assert_int_equal(keys(), before);
    ++*(is_new ? news : olds);
    return struck;
}

static void test_power_cut_at_every_io(void **state)
{
    (void)state;
    unsigned olds = 0, news = 0;
    uint64_t lost = 0, at = 1;
    while (cut_once(at, &olds, &news, &lost))
        at += STRIDE;
    printf("%u cuts: %u old, %u new, %llu bytes lost\n", olds + news, olds, news,
           (unsigned long long)lost);
    assert_true(olds > 0 && news > 0 && lost > 0);
    assert_true(at > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_new_is_seen_and_old_survives_a_crash),
        TEST(test_close_makes_it_the_new_one),
        TEST(test_truncation_alone),
        TEST(test_created),
        TEST(test_appending_is_not_staged),
        TEST(test_fsync_commits_and_ends_it),
        TEST(test_unmount_commits),
        TEST(test_detached_writers_commit_nothing),
        TEST(test_the_last_writer_commits),
        TEST(test_flush_leaves_nothing_written_alone),
        TEST(test_truncated_again),
        TEST(test_truncated_before_it_was_opened),
        TEST(test_sizes_of_what_is_staged),
        TEST(test_attributes_are_logged_with_the_old_contents),
        TEST(test_a_time_of_an_empty_file_is_logged),
        TEST(test_names_move_with_the_old_contents),
        TEST(test_rename_over_commits),
        TEST(test_unlinked),
        TEST(test_put_over_it),
        TEST(test_a_full_disk_leaves_the_old_contents),
        TEST(test_a_commit_that_fails),
        TEST(test_power_cut_at_every_io),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
