/* SPDX-License-Identifier: MIT */
/* The namespace: what was wrong once. */
#include "volume_case.h"
#include <inttypes.h>
#include <stdlib.h>

/* Milliseconds that a truncation has been held; 0: it is not. */
static uint64_t held_for(uint64_t ino)
{
    uint64_t since = 0;
    pthread_mutex_lock(&f.volume->tend_lock);
    for (const struct held *h = f.volume->held[0].first; h; h = h->next)
        since = h->ino == ino ? h->since : since;
    pthread_mutex_unlock(&f.volume->tend_lock);
    return since ? tend_clock() - since + 1 : 0;
}

/*
 * The timer logged every truncation that was held, not only those whose time had come: a file
 * truncated just before it, with its write on the way, was empty after a crash.
 */
static void test_the_timer_logs_no_young_truncation(void **state)
{
    enum { HOLD = 300 };
    bool seen = false;
    (void)state;
    uint64_t old = make_file("old"), young = make_file("young");
    f.volume->hold_ms = HOLD;
    f.volume->flags &= ~(unsigned)VOLUME_NO_BACKGROUND;
    assert_int_equal(tend_start(f.volume), 0);
    /* Again if this thread was so slow that both had waited long enough. */
    for (int round = 0; round < 20 && !seen; round++) {
        uint64_t age;
        write_text(old, 0, "old");
        write_text(young, 0, "old");
        set_size(old, 0);
        while ((age = held_for(old)) != 0 && age < HOLD / 2)
            sched_yield();
        set_size(young, 0);
        while (held_for(old))
            sched_yield();
        seen = held_for(young) > 0;
        uint64_t before = tend_clock();
        while (held_for(young)) /* its own time comes, too */
            assert_true(tend_clock() - before < 60000);
    }
    tend_stop(f.volume);
    f.volume->flags |= VOLUME_NO_BACKGROUND;
    assert_true(seen);
}

/* However often a file is truncated, the first of these is logged when its time has come. */
static void test_truncating_again_does_not_put_it_off(void **state)
{
    size_t count;
    (void)state;
    uint64_t a = make_file("a"), b = make_file("b");
    write_text(a, 0, "a");
    write_text(b, 0, "b");
    set_size(a, 0);
    set_size(b, 0);
    set_size(a, 0);
    assert_int_equal(inodes_first_held(f.volume, false, UINT64_MAX, &count), a);
    assert_int_equal(count, 2);
    assert_int_equal(inodes_first_held(f.volume, false, 0, &count), 0);
}

/*
 * A truncation to zero held in memory, of a file whose record still has a long tail: reclaiming
 * the tail's orphan key alone left the tail to nobody when the daemon was then killed.
 */
static void test_a_held_truncation_keeps_the_tail_listed(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    for (uint64_t i = 0; i < 9000; i++)
        assert_int_equal(volume_write(f.volume, ino, i << 16, "x", 1, 0), 1);
    f.volume->flags &= ~(unsigned)VOLUME_NO_BACKGROUND;
    set_size(ino, 1);
    set_size(ino, 0);
    f.volume->flags |= VOLUME_NO_BACKGROUND;
    assert_int_equal(volume_tend(f.volume), 0);
    crash_and_reopen();
    assert_int_equal(get(ino).size, 1);
    assert_int_equal(get(ino).bytes, 1);
}

static bool count_names(void *arg, const struct volume_dirent *entry)
{
    unsigned *counts = arg;
    counts[entry->attr.nlink != 0]++;
    if (entry->attr.nlink)
        volume_forget(f.volume, entry->attr.ino, 1);
    return true;
}

/* A listing with attributes ended with EIO at an inode that could not be decoded, and what came
 * behind it could not be seen. */
static void test_a_damaged_inode_hides_no_names(void **state)
{
    unsigned counts[2] = {0};
    struct keys_key key;
    struct keg_info was;
    (void)state;
    make_file("one");
    uint64_t bad = make_file("two");
    make_file("three");
    keys_inode(&key, bad);
    assert_int_equal(keg_get(f.keg, keys_bytes(&key), &was), 0);
    assert_int_equal(
        keg_put(f.keg, keys_bytes(&key), (struct keg_bytes){"?", 1}, (struct keg_bytes){0}, 0), 0);
    assert_int_equal(volume_readdir(f.volume, VOLUME_ROOT, 0, true, count_names, counts), 0);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 2);
    assert_int_equal(keg_put(f.keg, keys_bytes(&key), (struct keg_bytes){was.meta, was.meta_len},
                             (struct keg_bytes){0}, 0),
                     0);
}

/* Flips a bit wherever the store's segments have these bytes. */
static void damage(const char *bytes)
{
    unsigned places = 0;
    for (uint64_t id = 1; id < 10; id++) {
        char name[32];
        uint8_t *data;
        size_t len;
        snprintf(name, sizeof name, "%08" PRIu64 ".data", id);
        if (env_slurp(f.env, name, 1 << 24, &data, &len))
            continue;
        for (uint8_t *at = data; (at = memmem(at, len - (size_t)(at - data), bytes, strlen(bytes)));
             places++)
            *at++ ^= 1;
        assert_int_equal(env_replace(f.env, name, data, len), 0);
        free(data);
    }
    assert_true(places > 0);
}

static void count_lost(void *arg, struct keg_bytes key, const char *text)
{
    (void)key;
    assert_string_equal(text, "lost");
    ++*(unsigned *)arg;
}

static void expect_lost(uint64_t ino, unsigned links)
{
    unsigned lost = 0;
    char buf[64];
    assert_int_equal(volume_readlink(f.volume, ino, buf, sizeof buf), -EIO);
    assert_int_equal(get(ino).nlink, links);
    assert_int_equal(volume_lost(f.volume, count_lost, &lost), 1);
    assert_int_equal(lost, 1);
}

/* A symbolic link with a damaged text and several names: only the last of them could be removed. */
static void test_each_name_of_a_damaged_link_can_go(void **state)
{
    struct volume_attr attr;
    (void)state;
    const struct volume_new new = {.mode = S_IFLNK | 0777, .target = T("the damaged text")};
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, T("a"), &new, &attr), 0);
    uint64_t ino = attr.ino;
    for (const char *name = "bcd"; *name; name++) {
        const struct keg_bytes one = {name, 1};
        assert_int_equal(volume_link(f.volume, ino, VOLUME_ROOT, one, &attr), 0);
    }
    make_file("file");
    assert_int_equal(fixture_close(&f), 0);
    damage("the damaged text");
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_UID, &attr, &attr), -EIO);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    assert_true(f.damage_lines > 0);
    expect_lost(ino, 3);
    assert_int_equal(volume_rename(f.volume, VOLUME_ROOT, T("file"), VOLUME_ROOT, T("b"), 0), 0);
    expect_lost(ino, 2);
    reopen();
    expect_lost(ino, 2);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("c")), 0);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("d")), 0);
    assert_int_equal(volume_tend(f.volume), 0);
    assert_int_equal(volume_lost(f.volume, NULL, NULL), 0);
    assert_int_equal(find(VOLUME_ROOT, "b"), 0);
}

/* A store that was repaired, and its tree not: extents overlap. A write there ran over the end of
 * its buffer. */
static void test_a_write_into_extents_that_overlap(void **state)
{
    struct inode inode;
    struct keys_key key;
    char bytes[1000] = "";
    (void)state;
    uint64_t ino = make_file("a");
    assert_int_equal(volume_write(f.volume, ino, 0, bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(inodes_load(f.volume, ino, &inode), 0);
    keys_extent(&key, inode.content, 100);
    struct keg_bytes value = {bytes, 100}, none = {0};
    assert_int_equal(keg_put(f.keg, keys_bytes(&key), none, value, 0), 0);
    assert_true(volume_write(f.volume, ino, 50, bytes, 100, 0) < 0);
    assert_int_equal(volume_read(f.volume, ino, 0, bytes, sizeof bytes), sizeof bytes);
    assert_int_equal(keg_delete(f.keg, keys_bytes(&key), 0), 0);
    assert_int_equal(volume_write(f.volume, ino, 50, bytes, 100, 0), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_timer_logs_no_young_truncation),
        TEST(test_truncating_again_does_not_put_it_off),
        TEST(test_a_held_truncation_keeps_the_tail_listed),
        TEST(test_a_damaged_inode_hides_no_names),
        TEST(test_each_name_of_a_damaged_link_can_go),
        TEST(test_a_write_into_extents_that_overlap),
    };
    return cmocka_run_group_tests_name("volume_regress", tests, NULL, NULL);
}
