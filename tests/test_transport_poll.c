/* SPDX-License-Identifier: MIT */
/* A ring's thread that looks before it sleeps: when it finds, gives up, and keeps still. The clock
 * and sched_yield are the test's. */
#include "transport_poll.h"
#include <liburing.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t clock_ns;
static unsigned yields;
static uint64_t yield_takes_ns;
static unsigned comes_at;     /* with which yield something completes; 0: none */
static char running[64];      /* in the place of /proc/loadavg */
static unsigned asked;        /* how often it was read */
static unsigned crowded_from; /* with which reading it says that others want the CPUs; 0: never */

static struct io_uring ring;
static struct transport_poll_load load;
static int event = -1;
static uint64_t counted;

static unsigned others_until; /* up to which yield another ring has requests */

int __wrap_clock_gettime(clockid_t id, struct timespec *out);
int __wrap_sched_yield(void);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t at);

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t at)
{
    (void)fd, (void)at;
    asked++;
    if (asked == crowded_from)
        strcpy(running, "1.00 0.50 0.25 4/200 4711\n");
    assert_true(strlen(running) <= len);
    memcpy(buf, running, strlen(running));
    return (ssize_t)strlen(running);
}

int __wrap_clock_gettime(clockid_t id, struct timespec *out)
{
    (void)id;
    out->tv_sec = (time_t)(clock_ns / 1000000000U);
    out->tv_nsec = (long)(clock_ns % 1000000000U);
    return 0;
}

int __wrap_sched_yield(void)
{
    const uint64_t one = 1;
    clock_ns += yield_takes_ns;
    if (yields < others_until)
        atomic_store(&load.served, clock_ns);
    if (++yields == comes_at)
        assert_int_equal(write(event, &one, sizeof one), sizeof one);
    return 0;
}

static int set_up(void **state)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_TASKRUN_FLAG};
    (void)state;
    clock_ns = 5000000000U;
    yields = comes_at = asked = others_until = crowded_from = 0;
    strcpy(running, "1.00 0.50 0.25 2/200 4711\n");
    yield_takes_ns = 10 * 1000;
    if (io_uring_queue_init_params(8, &ring, &params))
        return -1;
    event = eventfd(0, EFD_CLOEXEC);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    io_uring_prep_read(sqe, event, &counted, sizeof counted, 0);
    return event < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    io_uring_queue_exit(&ring);
    transport_poll_close(&load);
    close(event);
    return 0;
}

static struct transport_poll polling(uint64_t us)
{
    transport_poll_open(&load, us, 2);
    return (struct transport_poll){.load = &load};
}

static void test_how_long(void **state)
{
    (void)state;
    for (unsigned rings = 1; rings < 5; rings++) {
        transport_poll_open(&load, TRANSPORT_POLL_AUTO, rings);
        assert_int_equal(load.us, rings == 2 ? 500 : 0);
        assert_int_equal(load.fd >= 0, rings == 2);
        transport_poll_close(&load);
        transport_poll_open(&load, 7, rings);
        assert_int_equal(load.us, 7);
        transport_poll_close(&load);
        transport_poll_open(&load, 0, rings);
        assert_int_equal(load.fd, -1);
    }
}

static void hear(struct io_uring *from)
{
    struct io_uring_cqe *cqe;
    assert_int_equal(io_uring_peek_cqe(from, &cqe), 0);
    io_uring_cqe_seen(from, cqe);
}

static void test_not_at_all(void **state)
{
    struct transport_poll poll = polling(0);
    (void)state;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 0);
}

static void test_gives_up(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 5);
    assert_int_equal(transport_poll(&poll, &ring), 0); /* and looks again the next time */
    assert_int_equal(yields, 10);
}

static void test_finds_at_once(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    io_uring_prep_nop(io_uring_get_sqe(&ring)); /* it is submitted, too */
    assert_int_equal(transport_poll(&poll, &ring), 1);
    assert_int_equal(yields, 0);
}

static void test_finds_what_comes(void **state)
{
    struct transport_poll poll = polling(50);
    struct io_uring_cqe *cqe;
    (void)state;
    comes_at = 3;
    assert_int_equal(transport_poll(&poll, &ring), 1);
    assert_int_equal(yields, 3);
    assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
    assert_int_equal(cqe->res, sizeof counted);
}

/* Two want the two CPUs beside those that poll: nobody polls for a while, which is the longer the
 * more often it was so, then asks again. */
static void test_gives_way(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    strcpy(running, "1.00 0.50 0.25 3/200 4711\n"); /* the thread itself is one */
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(transport_poll(&poll, &ring), 0);
        clock_ns += 1000 * 1000;
    }
    assert_int_equal(yields, 0);
    assert_int_equal(asked, 9); /* after 0, 1, 3, 7, 15, 31, 51, 71, 91 ms */
    strcpy(running, "1.00 0.50 0.25 2/200 4711\n");
    clock_ns += 20 * 1000 * 1000;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 5);
    assert_int_equal(asked, 10);
    strcpy(running, "1.00 0.50 0.25 3/200 4711\n"); /* those that come and go cost little */
    clock_ns += 1000 * 1000;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    strcpy(running, "1.00 0.50 0.25 2/200 4711\n");
    clock_ns += 1000 * 1000;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 10);
}

/* Those that poll are not counted: they would keep each other from it. */
static void test_others_poll(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    atomic_store(&load.polling, 1);
    strcpy(running, "1.00 0.50 0.25 3/200 4711\n");
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 5);
    assert_int_equal(atomic_load(&load.polling), 1);
}

static void test_asks_seldom(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    yield_takes_ns = 1000;
    for (unsigned i = 0; i < 100; i++) { /* of 50 us each */
        comes_at = yields + 50;
        assert_int_equal(transport_poll(&poll, &ring), 1);
        hear(&ring);
        io_uring_prep_read(io_uring_get_sqe(&ring), event, &counted, sizeof counted, 0);
    }
    assert_int_equal(asked, 5);
    assert_int_equal(yields, 5000);
}

static void test_not_told(void **state)
{
    static const char *const texts[] = {"", "1.00", "1.00 0.50 0.25 x/200 4711\n"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct transport_poll poll = polling(50);
        strcpy(running, texts[i]);
        assert_int_equal(transport_poll(&poll, &ring), 0);
        assert_int_equal(yields, 0);
        transport_poll_close(&load);
    }
}

/* A client that takes its time pays for few polls: four, and in the end one for each 20 ms. */
static void test_misses(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 4 * 5);
    for (unsigned i = 0; i < 100; i++) { /* 100 ms */
        clock_ns += 1000 * 1000;
        assert_int_equal(transport_poll(&poll, &ring), 0);
    }
    assert_in_range(yields, 11 * 5, 12 * 5); /* after 1, 3, 7, 15, 31, 51, 71, 91 ms */
    yields = 0;
    for (unsigned i = 0; i < 200; i++) {
        clock_ns += 1000 * 1000;
        assert_int_equal(transport_poll(&poll, &ring), 0);
    }
    assert_in_range(yields, 9 * 5, 10 * 5);
    clock_ns += 20 * 1000 * 1000;
    io_uring_prep_nop(io_uring_get_sqe(&ring));
    yields = 0;
    assert_int_equal(transport_poll(&poll, &ring), 1); /* it comes quickly again */
    hear(&ring);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 4 * 5);
}

/* The client of another ring would come to this CPU if it were idle. */
static void test_stays_while_another_ring_is_served(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    for (unsigned i = 0; i < 6; i++) { /* none of these was in vain */
        yields = 0;
        others_until = 200; /* 2 ms */
        assert_int_equal(transport_poll(&poll, &ring), 0);
        assert_int_equal(yields, 200 + 5);
    }
    yields = 0;
    comes_at = 15;
    assert_int_equal(transport_poll(&poll, &ring), 1);
    assert_int_equal(yields, 15);
}

/* There the client has other CPUs to go to. */
static void test_with_more_cpus_each_for_itself(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    load.cpus = 4;
    others_until = 200;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 5);
}

/* Both clients pause: neither keeps the other's thread from leaving off. */
static void test_misses_beside_another_that_does(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        yields = 0;
        others_until = 3;
        assert_int_equal(transport_poll(&poll, &ring), 0);
        assert_int_equal(yields, i < 4 ? 3 + 5 : 0);
    }
}

/* While it gives way to others its client may still be at work, and must not be taken away; a
 * client that pauses may. */
static void test_says_that_it_is_served(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    strcpy(running, "1.00 0.50 0.25 3/200 4711\n");
    assert_int_equal(transport_poll(&poll, &ring), 0);
    clock_ns += 500 * 1000;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 0);
    assert_int_equal(load.served, clock_ns);
    strcpy(running, "1.00 0.50 0.25 2/200 4711\n");
    clock_ns += 20 * 1000 * 1000;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(transport_poll(&poll, &ring), 0);
    const uint64_t last = load.served;
    clock_ns += 500 * 1000;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(load.served, last);
}

/* A request each 450 us is answered without polling in the end, as one each second is. */
static void test_few_requests(void **state)
{
    struct transport_poll poll = polling(500);
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        comes_at = yields + 45;
        assert_int_equal(transport_poll(&poll, &ring), 1);
        hear(&ring);
        io_uring_prep_read(io_uring_get_sqe(&ring), event, &counted, sizeof counted, 0);
    }
    assert_int_equal(yields, 4 * 45);
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 4 * 45);
}

/* It asks in between, too, and does not poll on beside programs that have come since. */
static void test_leaves_another_ring_when_crowded(void **state)
{
    struct transport_poll poll = polling(50);
    (void)state;
    others_until = 1000;
    crowded_from = 2;
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(asked, 2);
    assert_int_equal(yields, 100);
    assert_int_equal(transport_poll(&poll, &ring), 0);
    assert_int_equal(yields, 100);
}

static bool rings_refused(void)
{
    struct io_uring_params params = {.flags =
                                         IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    if (io_uring_queue_init_params(1, &ring, &params))
        return true;
    io_uring_queue_exit(&ring);
    return false;
}

int main(void)
{
    if (rings_refused()) {
        fputs("no io_uring here, or an old one\n", stderr);
        return 77; /* skipped */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_how_long),
        cmocka_unit_test_setup_teardown(test_not_at_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gives_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finds_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finds_what_comes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gives_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others_poll, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_asks_seldom, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_misses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stays_while_another_ring_is_served, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_leaves_another_ring_when_crowded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_with_more_cpus_each_for_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_misses_beside_another_that_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_says_that_it_is_served, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_few_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_told, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
