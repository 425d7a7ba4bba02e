/* SPDX-License-Identifier: MIT */
/* What the call-by-call tests of the namespace share: each case has a fresh volume in memory, and
 * must leave a sound tree. */
#ifndef VOLUME_CASE_H
#define VOLUME_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "volume_fixture.h"
#include <errno.h>

#define T          fixture_text
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static struct fixture f;

static inline int setup(void **state)
{
    (void)state;
    f = (struct fixture){.volume_flags = VOLUME_NO_BACKGROUND,
                         .keg_flags = KEG_NO_BACKGROUND,
                         .seconds = 1790000000};
    if (env_mem(0, &f.env) != 0)
        return -1;
    return fixture_open(&f);
}

/* Whatever a test did, it leaves a sound tree. */
static inline int teardown(void **state)
{
    (void)state;
    ssize_t findings = volume_check(f.volume, fixture_print, NULL);
    int error = fixture_close(&f);
    keg_env_free(f.env);
    return findings != 0 || error;
}

static inline void reopen(void)
{
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(fixture_open(&f), 0);
}

/* What a crash of the process leaves: nothing held is logged. */
static inline void crash_and_reopen(void)
{
    for (int i = 0; i < HELD_KINDS; i++) {
        while (f.volume->held[i].first)
            inodes_logged(f.volume, f.volume->held[i].first->inode.ino);
    }
    reopen();
}

static inline uint64_t make(uint64_t dir, const char *name, uint32_t mode)
{
    struct volume_attr attr;
    const struct volume_new new = {.mode = mode, .uid = 1, .gid = 2};
    assert_int_equal(volume_make(f.volume, dir, T(name), &new, &attr), 0);
    return attr.ino;
}

static inline uint64_t make_file(const char *name)
{
    return make(VOLUME_ROOT, name, S_IFREG | 0644);
}

static inline struct volume_attr get(uint64_t ino)
{
    struct volume_attr attr;
    assert_int_equal(volume_getattr(f.volume, ino, &attr), 0);
    return attr;
}

static inline int find(uint64_t dir, const char *name)
{
    struct volume_attr attr;
    int error = volume_lookup(f.volume, dir, T(name), &attr);
    if (!error)
        volume_forget(f.volume, attr.ino, 1);
    return error;
}

static inline void write_text(uint64_t ino, uint64_t offset, const char *s)
{
    assert_int_equal(volume_write(f.volume, ino, offset, s, strlen(s), 0), strlen(s));
}

static inline void expect_text(uint64_t ino, uint64_t offset, const char *s)
{
    char buf[256] = {0};
    assert_int_equal(volume_read(f.volume, ino, offset, buf, sizeof buf), strlen(s));
    assert_memory_equal(buf, s, strlen(s));
}

static inline void set_size(uint64_t ino, uint64_t size)
{
    struct volume_attr attr = {.size = size}, out;
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_SIZE, &attr, &out), 0);
    assert_int_equal(out.size, size);
}

static inline uint64_t keys(void)
{
    struct keg_stats stats;
    keg_stats(f.keg, &stats);
    return stats.keys;
}

static inline uint64_t frames(void)
{
    struct keg_stats stats;
    keg_stats(f.keg, &stats);
    return stats.frames;
}

static inline uint64_t appended(void)
{
    struct keg_stats stats;
    keg_stats(f.keg, &stats);
    return stats.append_bytes;
}

#endif
