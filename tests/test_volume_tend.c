/* SPDX-License-Identifier: MIT */
/*
 * A truncation to zero is logged when its time has come, though reclaiming takes for ever: it waits
 * for a lock that the test holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "volume_fixture.h"

static struct fixture f;
/* For what takes 20, on a machine that does much else; TEST_PATIENCE_MS. */
static unsigned patience_ms = 20000;

static int setup(void **state)
{
    (void)state;
    f = (struct fixture){.keg_flags = KEG_NO_BACKGROUND};
    if (env_mem(0, &f.env) != 0)
        return -1;
    return fixture_open(&f);
}

static int teardown(void **state)
{
    (void)state;
    ssize_t findings = volume_check(f.volume, fixture_print, NULL);
    int error = fixture_close(&f);
    keg_env_free(f.env);
    return findings != 0 || error;
}

static void wait_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static uint64_t make_file(const char *name)
{
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFREG | 0644};
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, fixture_text(name), &new, &attr), 0);
    assert_int_equal(volume_write(f.volume, attr.ino, 0, "contents", 8, 0), 8);
    return attr.ino;
}

/* What a crash would find. */
static bool is_logged_empty(uint64_t ino)
{
    struct inode record;
    inodes_lock_shared(f.volume, ino);
    int error = inodes_load_record(f.volume, ino, &record);
    inodes_unlock_shared(f.volume, ino);
    return error == 0 && record.size == 0;
}

static bool is_reclaiming(void)
{
    if (pthread_mutex_trylock(&f.volume->reclaim_lock) != 0)
        return true;
    pthread_mutex_unlock(&f.volume->reclaim_lock);
    return false;
}

static void *reclaim(void *result)
{
    *(int *)result = volume_tend(f.volume);
    return NULL;
}

/* By the volume's own thread, or by somebody who asked for it. */
static void truncate_while_reclaiming(bool own)
{
    uint64_t gone = make_file("gone"), kept = make_file("kept");
    struct volume_attr attr = {.size = 0};
    pthread_t other;
    int result = 0;
    assert_int_not_equal(gone % STRIPES, kept % STRIPES);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, fixture_text("gone")), 0);

    inodes_lock_one(f.volume, gone);
    volume_forget(f.volume, gone, 1);
    if (!own)
        assert_int_equal(pthread_create(&other, NULL, reclaim, &result), 0);
    while (!is_reclaiming()) /* it will not go on before the lock is free */
        wait_ms(1);
    int error = volume_setattr(f.volume, kept, VOLUME_SET_SIZE, &attr, &attr);
    uint64_t since = tend_clock();
    while (!is_logged_empty(kept) && tend_clock() < since + patience_ms)
        wait_ms(1);
    bool logged = is_logged_empty(kept), reclaiming = is_reclaiming();
    inodes_unlock_one(f.volume, gone);

    if (!own)
        pthread_join(other, NULL);
    assert_int_equal(error, 0);
    assert_int_equal(result, 0);
    assert_true(reclaiming);
    assert_true(logged);
}

static void test_truncation_is_logged_while_the_volume_reclaims(void **state)
{
    (void)state;
    truncate_while_reclaiming(true);
}

static void test_truncation_is_logged_while_somebody_reclaims(void **state)
{
    (void)state;
    truncate_while_reclaiming(false);
}

/* The other way round: it does not come before its time, as its write is about to join it. */
static void test_truncation_waits_while_the_volume_reclaims(void **state)
{
    (void)state;
    uint64_t kept = make_file("kept"), gone = make_file("gone");
    struct volume_attr attr = {.size = 0};
    f.volume->hold_ms = 3600 * 1000; /* nothing is held yet, so no thread looks at it */
    assert_int_equal(volume_setattr(f.volume, kept, VOLUME_SET_SIZE, &attr, &attr), 0);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, fixture_text("gone")), 0);
    volume_forget(f.volume, gone, 1);
    assert_int_equal(volume_tend(f.volume), 0);
    assert_false(is_logged_empty(kept));
}

/* A volume that is closed at any moment logs what it holds, and does not hang. */
static void test_closing_ends_both_threads(void **state)
{
    (void)state;
    struct volume_attr attr;
    uint64_t ino = make_file("kept");
    for (unsigned i = 0; i < 100; i++) {
        attr.size = 0;
        assert_int_equal(volume_write(f.volume, ino, 0, "again", 5, 0), 5);
        assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_SIZE, &attr, &attr), 0);
        if (i % 10 == 0)
            wait_ms(i / 10 * 5); /* before it is due, and after it */
        assert_int_equal(fixture_close(&f), 0);
        assert_int_equal(fixture_open(&f), 0);
        assert_int_equal(volume_lookup(f.volume, VOLUME_ROOT, fixture_text("kept"), &attr), 0);
        assert_int_equal(attr.size, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_truncation_is_logged_while_the_volume_reclaims, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_truncation_is_logged_while_somebody_reclaims, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_truncation_waits_while_the_volume_reclaims, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_closing_ends_both_threads, setup, teardown),
    };
    const char *patience = getenv("TEST_PATIENCE_MS");
    if (patience)
        patience_ms = (unsigned)strtoul(patience, NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
