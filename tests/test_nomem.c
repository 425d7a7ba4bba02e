/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of the engine fails once, one after the other, and then that one and all after
 * it, over the same random work. A call that fails for it has changed nothing and says so; the
 * store stays writable; and it holds exactly what the calls that returned 0 have put there, now and
 * when it is opened again. AddressSanitizer sees to it that nothing leaks on the way (as the list
 * of members did when not even the first segment could be added).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOMEM_ITSELF
#include "nomem.h"
#include "sanitized.h"
#include "workload.h"
#include <errno.h>

enum { STEPS = 150, STRIDE = SANITIZED ? 7 : 1 };

static unsigned long countdown; /* 1: the next one fails; 0: none */
static bool forever;            /* and all after it */
static bool no_pages;           /* mmap fails */
static unsigned long failures;

static bool fails(void)
{
    if (countdown == 0 || --countdown > 0)
        return false;
    countdown = forever;
    failures++;
    return true;
}

void *nomem_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

void *nomem_calloc(size_t count, size_t size)
{
    return fails() ? NULL : calloc(count, size);
}

void *nomem_realloc(void *old, size_t size)
{
    return fails() ? NULL : realloc(old, size);
}

void *nomem_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    if (!no_pages && !fails())
        return mmap(at, len, prot, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

/* Opens at the second try at the latest. */
static void open_again(struct workload *w)
{
    int err = workload_open(w);

    if (err) {
        assert_int_equal(err, -ENOMEM);
        countdown = 0;
        assert_int_equal(workload_open(w), 0);
    }
}

static bool holds_it(struct workload *w)
{
    struct history_state state;

    return !keg_readonly_reason(w->keg) && history_read(w->keg, &state) &&
           history_same(&state, history_now(&w->history)) &&
           keg_check(w->keg, NULL, NULL, NULL) == 0;
}

/* Whether the allocation at which it was to fail came at all. */
static bool run_once(uint64_t seed, unsigned long at)
{
    unsigned long before = failures;
    struct workload w;

    workload_begin(&w, seed, 0);
    countdown = at;
    open_again(&w);
    for (int i = 0; i < STEPS; i++) {
        int err = workload_step(&w);

        if (err && err != -ENOMEM)
            print_error("step %d says %d\n", i, err);
        assert_true(!err || err == -ENOMEM);
        if (!w.keg)
            open_again(&w);
        if (forever && failures > before + 20)
            countdown = 0; /* memory is there again */
    }
    countdown = 0;
    bool good = holds_it(&w);
    if (good && workload_close(&w) == 0 && workload_open(&w) == 0)
        good = holds_it(&w);
    if (!good) {
        print_error("allocation %lu%s, seed %" PRIu64 "\n", at, forever ? " for ever" : "", seed);
        fail();
    }
    assert_int_equal(workload_close(&w), 0);
    workload_end(&w);
    return failures != before;
}

static void fail_each(bool all_after)
{
    uint64_t seed = workload_number("TEST_SEED", 5);
    unsigned long at = 1;

    forever = all_after;
    while (run_once(seed, at))
        at += STRIDE;
    print_message("%lu allocations\n", at - 1);
    assert_true(at > 200);
}

static void test_each_fails_once(void **state)
{
    (void)state;
    fail_each(false);
}

static void test_each_and_all_after_it_fail(void **state)
{
    (void)state;
    fail_each(true);
}

/* ---- The index grows ---- */

static struct keg_bytes long_key(unsigned n, uint8_t *buf)
{
    struct random random = {n};

    random_fill(&random, buf, 1000);
    return (struct keg_bytes){buf, 1000};
}

static int put_long(struct workload *w, unsigned n)
{
    uint8_t buf[1000];

    return keg_put(w->keg, long_key(n, buf), (struct keg_bytes){"", 0}, (struct keg_bytes){"", 0},
                   0);
}

/* A put for which the index has no room is refused before it is logged. */
static void test_no_room_in_the_index(void **state)
{
    struct keg_info info;
    struct workload w;
    uint8_t buf[1000];
    unsigned count = 0;
    int err;

    (void)state;
    workload_begin(&w, 1, 0);
    assert_int_equal(workload_open(&w), 0);
    no_pages = true;
    while ((err = put_long(&w, count)) == 0 && count < 100000)
        count++;
    assert_int_equal(err, -ENOMEM);
    assert_null(keg_readonly_reason(w.keg));
    for (unsigned n = 0; n <= count; n++)
        assert_int_equal(keg_get(w.keg, long_key(n, buf), &info), n < count ? 0 : -ENOENT);
    no_pages = false;
    assert_int_equal(put_long(&w, count), 0);
    assert_int_equal(workload_close(&w), 0);
    assert_int_equal(workload_open(&w), 0);
    for (unsigned n = 0; n <= count; n++)
        assert_int_equal(keg_get(w.keg, long_key(n, buf), &info), 0);
    assert_int_equal(workload_close(&w), 0);
    workload_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fails_once),
        cmocka_unit_test(test_each_and_all_after_it_fail),
        cmocka_unit_test(test_no_room_in_the_index),
    };

    return cmocka_run_group_tests_name("nomem", tests, NULL, NULL);
}
