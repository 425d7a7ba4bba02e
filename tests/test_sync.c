/* SPDX-License-Identifier: MIT */
/*
 * What a sync promises, with the moment of failure chosen and not drawn.
 *
 * One sync fails, once, and all that comes after it would succeed: so Linux does it, while the page
 * cache goes on showing what the disk does not have. Whoever asks again is told that all is well.
 * So nobody may ask again: the file whose sync failed is not synced any more, the store refuses all
 * changes, and what it holds when it is opened again is a prefix of what was put, with all that was
 * acknowledged. Whether the machine lost power meanwhile or just the process ended makes no
 * difference.
 *
 * And a sync that succeeds acknowledges what was there when it began, and nothing else.
 */
#include "fixture.h"
#include "gate.h"
#include "segment.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum {
    SYNCED = 20, /* keys that a sync acknowledged before the failure */
    PUT = 40,    /* all that were put before it */
    SEEDS = 24,  /* how much of them a failed sync and a loss of power leave */
    WAITERS = 4,
};

static struct fixture fixture;

static int roll(struct keg *keg)
{
    return gate_roll(keg, false);
}

/* ---- One failure ---- */

/* Which operation fails, and what is seen of the disk from then on. */
static struct {
    enum hook_op op;
    const char *name;
    uint64_t seed;
    bool alone;           /* afterwards only this file is lost, and the store goes on */
    void (*before)(void); /* called when it is about to fail; may be NULL */
    atomic_bool failed;
    atomic_uint again; /* syncs and publications after it */
} victim;

static void count_again(enum hook_op op, const char *name)
{
    bool same = !strcmp(name, victim.name);

    if (op == HOOK_CREATE && same)
        victim.failed = false; /* another file, by the same name */
    else if (op == HOOK_PUBLISH && (!victim.alone || !strcmp(victim.name, SEGMENT_MANIFEST_TMP)))
        victim.again++;
    else if ((op == HOOK_SYNC || op == HOOK_SEAL || op == HOOK_SYNC_NAMES) &&
             (same || !victim.alone))
        victim.again++;
}

static int strike(void *arg, enum hook_op op, const char *name)
{
    bool *struck = arg;

    if (victim.failed)
        count_again(op, name);
    if (op == victim.op && !strcmp(name, victim.name) && !*struck) {
        struct env_fault_plan plan = {ENV_FAULT_EIO, 1, false, victim.seed};

        *struck = true;
        if (victim.before)
            victim.before();
        env_fault_set(fixture.disk, &plan);
        victim.failed = true;
    }
    return 0;
}

static void aim(enum hook_op op, const char *name, bool alone, uint64_t seed)
{
    static bool struck;

    victim.op = op;
    victim.name = name;
    victim.alone = alone;
    victim.seed = seed;
    victim.before = NULL;
    victim.failed = false;
    victim.again = 0;
    struck = false;
    fixture.hook.arg = &struck;
    fixture.hook.fn = strike;
}

/* ---- What must hold ---- */

/* Of the keys put one after the other the first so many are there, and no other. */
static unsigned prefix(void)
{
    unsigned n = 0;

    while (fixture_has(fixture.keg, n))
        n++;
    for (unsigned i = n; i < PUT + 10; i++)
        assert_false(fixture_has(fixture.keg, i));
    return n;
}

/* The store is lost to changes, for ever and for all. Reads go on. */
static void expect_poisoned(void)
{
    struct keg_batch batch = {0};
    char buf[FIXTURE_NAME];
    struct keg *keg = fixture.keg;

    assert_true(victim.failed);
    assert_non_null(keg_readonly_reason(keg));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(keg_sync(keg), -EIO);
        assert_int_equal(fixture_put(keg, PUT, 0), -EIO);
        assert_int_equal(fixture_put(keg, PUT, KEG_SYNC), -EIO);
        assert_int_equal(keg_delete(keg, fixture_name(0, buf), KEG_FREEING | KEG_SYNC), -EIO);
        assert_int_equal(keg_batch_delete(&batch, fixture_name(1, buf)), 0);
        assert_int_equal(keg_commit(keg, &batch, KEG_SYNC), -EIO);
        assert_int_equal(gate_roll(keg, false), -EIO);
        assert_true(keg_compact(keg, NULL, NULL) < 0);
        assert_true(keg_hint(keg) < 0);
        keg_batch_clear(&batch);
    }
    keg_batch_free(&batch);
    fixture_want_all(keg, 0, PUT);
    assert_int_equal(keg_close(keg), -EIO);
    assert_int_equal(victim.again, 0);
    fixture.hook.fn = NULL;
}

/* The power goes while the store is closed. */
static void cut_power(uint64_t seed)
{
    struct env_fault_plan plan = {ENV_FAULT_CUT, 1, true, seed};
    int err;

    env_fault_set(fixture.disk, &plan);
    err = keg_close(fixture.keg);
    assert_true(err == 0 || err == -EIO); /* 0: nothing was left to write */
}

/* After the process has ended, or the power has gone. Returns how many keys are left; *lost grows
 * by the bytes that went. */
static unsigned come_back(bool power, uint64_t seed, uint64_t *lost)
{
    struct env_fault_plan plan = {.kind = ENV_FAULT_NONE, .seed = seed};

    env_fault_set(fixture.disk, &plan);
    if (power)
        *lost += env_fault_restart(fixture.disk);
    else
        env_fault_revive(fixture.disk);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_null(keg_readonly_reason(fixture.keg));
    return prefix();
}

/* What the poisoned store left is a prefix, of at most so many keys, and stays when the power goes
 * after the next open. */
static void expect_prefix_of(unsigned most, bool power, uint64_t seed, uint64_t *lost)
{
    unsigned there = come_back(power, seed, lost);

    assert_in_range(there, SYNCED, most);
    *lost += there < PUT;
    assert_int_equal(keg_sync(fixture.keg), 0);
    cut_power(seed);
    assert_int_equal(come_back(true, ~seed, lost), there);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

static void expect_prefix(bool power, uint64_t seed, uint64_t *lost)
{
    expect_prefix_of(PUT, power, seed, lost);
}

static void begin(void)
{
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, SYNCED);
    assert_int_equal(keg_sync(fixture.keg), 0);
    fixture_put_all(fixture.keg, SYNCED, PUT);
}

/* The operation fails in `act`. Returns the bytes that were lost by it, over all seeds. */
static uint64_t fail_once(enum hook_op op, const char *name, int (*act)(struct keg *keg))
{
    uint64_t lost = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin();
        aim(op, name, false, seed);
        assert_int_equal(act(fixture.keg), -EIO);
        expect_poisoned();
        expect_prefix(seed % 2, seed, &lost);
    }
    return lost;
}

/* ---- It poisons ---- */

static int put_synced(struct keg *keg)
{
    return fixture_put(keg, PUT - 1, KEG_SYNC);
}

static void test_failed_sync(void **state)
{
    (void)state;
    assert_true(fail_once(HOOK_SYNC, "00000001.data", keg_sync) > 0);
    assert_true(fail_once(HOOK_SYNC, "00000001.data", put_synced) > 0);
}

static void test_failed_seal(void **state)
{
    (void)state;
    assert_true(fail_once(HOOK_SEAL, "00000001.data", roll) > 0);
}

/* Nobody knows which of the two manifests is there after the next loss of power. */
static void test_failed_publication(void **state)
{
    (void)state;
    fail_once(HOOK_PUBLISH, SEGMENT_MANIFEST, roll);
}

static void test_failed_sync_of_the_directory(void **state)
{
    (void)state;
    assert_true(fail_once(HOOK_SYNC_NAMES, "", roll) > 0);
}

static pthread_t roller;
static atomic_bool created, published; /* the roll's segment; the hint, or not */

static void *roll_it(void *arg)
{
    (void)arg;
    return (void *)(intptr_t)gate_roll(fixture.keg, false);
}

static void wait_until(atomic_bool *done)
{
    struct timespec pause = {0, 1000000};

    while (!*done)
        nanosleep(&pause, NULL);
}

/* A hint's publication begins: first a roll creates its segment, whose name it is to make durable
 * too. */
static void begin_roll(void)
{
    created = published = false;
    assert_int_equal(pthread_create(&roller, NULL, roll_it, NULL), 0);
    wait_until(&created);
}

/* The roll syncs its new name after the publication of the hint. */
static int strike_before_the_roll(void *arg, enum hook_op op, const char *name)
{
    if (op == HOOK_SYNC_NAMES && !published) {
        created = true;
        wait_until(&published);
    }
    return victim.failed ? 0 : strike(arg, op, name);
}

/* A hint is an aid, and its publication may fail. But that syncs the directory, and the kernel
 * tells a failure once: the roll that syncs the directory next has to know of it. */
static void test_failed_publication_of_a_hint(void **state)
{
    unsigned poisoned = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        void *rolled;
        uint64_t lost = 0;
        unsigned there;
        int put;

        begin();
        aim(HOOK_PUBLISH, "00000001.hint", false, seed);
        victim.before = begin_roll;
        fixture.hook.fn = strike_before_the_roll;
        assert_int_equal(keg_hint(fixture.keg), -EIO);
        published = true;
        assert_int_equal(pthread_join(roller, &rolled), 0);
        put = fixture_put(fixture.keg, PUT, KEG_SYNC);
        assert_int_equal((intptr_t)rolled, put);
        assert_true(put == 0 || put == -EIO);
        assert_int_equal(put != 0, keg_readonly_reason(fixture.keg) != NULL);
        poisoned += put != 0;
        fixture.hook.fn = NULL;
        cut_power(seed);
        there = come_back(true, seed, &lost);
        assert_int_equal(there, put ? PUT : PUT + 1);
        assert_int_equal(keg_close(fixture.keg), 0);
        fixture_free(&fixture);
    }
    assert_in_range(poisoned, 1, SEEDS - 1); /* a rename that fails itself leaves no doubt */
}

static pthread_t waiters[WAITERS];
static atomic_uint returned; /* waiters that have their result */

static void *wait_for_sync(void *arg)
{
    int err = keg_sync(fixture.keg);

    (void)arg;
    returned++;
    return (void *)(intptr_t)err;
}

/* Returns when all of them are waiting, or as good as. */
static void begin_waiters(void)
{
    struct timespec pause = {0, 1000000};
    struct keg_stats before, now;

    returned = 0;
    keg_stats(fixture.keg, &before);
    for (int i = 0; i < WAITERS; i++)
        assert_int_equal(pthread_create(&waiters[i], NULL, wait_for_sync, NULL), 0);
    do {
        nanosleep(&pause, NULL);
        keg_stats(fixture.keg, &now);
    } while (now.sync_waits < before.sync_waits + WAITERS);
}

static void expect_failed_waiters(void)
{
    void *results[WAITERS];

    for (int i = 0; i < WAITERS; i++)
        assert_int_equal(pthread_join(waiters[i], &results[i]), 0);
    for (int i = 0; i < WAITERS; i++)
        assert_int_equal((intptr_t)results[i], -EIO);
}

static void test_failed_sync_with_waiters(void **state)
{
    uint64_t lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        int mine;

        begin();
        aim(HOOK_SYNC, "00000001.data", false, seed);
        victim.before = begin_waiters;
        mine = keg_sync(fixture.keg);
        expect_failed_waiters();
        assert_int_equal(mine, -EIO);
        expect_poisoned();
        expect_prefix(seed % 2, seed, &lost);
    }
    assert_true(lost > 0);
}

/* Whoever was let go too early has time to make use of it, before the store is poisoned. */
static bool slow_to_poison;

void __real_keg_poison(struct keg *keg, const char *what, uint64_t segment, int err);
void __wrap_keg_poison(struct keg *keg, const char *what, uint64_t segment, int err);
void __wrap_keg_poison(struct keg *keg, const char *what, uint64_t segment, int err)
{
    struct timespec pause = {0, 1000000};

    for (int ms = 0; slow_to_poison && ms < 20 && !returned; ms++)
        nanosleep(&pause, NULL);
    __real_keg_poison(keg, what, segment, err);
}

/* The disk is full for all that is appended until the cut of it fails. */
static int full_until_struck(void *arg, enum hook_op op, const char *name)
{
    int err = strike(arg, op, name);

    return op == HOOK_APPEND && !victim.failed ? ENOSPC : err;
}

/* What a full disk left of an append is cut off, and the sync of that fails: those who wait until
 * they may sync the file themselves must not be let go before the store is poisoned. */
static void test_failed_cut_with_waiters(void **state)
{
    uint64_t lost = 0;

    (void)state;
    slow_to_poison = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin();
        aim(HOOK_SEAL, "00000001.data", false, seed);
        victim.before = begin_waiters;
        fixture.hook.fn = full_until_struck;
        assert_true(fixture_put(fixture.keg, PUT, 0) < 0);
        expect_failed_waiters();
        expect_poisoned();
        /* What could not be cut may be whole. */
        expect_prefix_of(PUT + 1, seed % 2, seed, &lost);
    }
    slow_to_poison = false;
    assert_true(lost > 0);
}

/* ---- After a restart ---- */

/* The publication of MANIFEST fails, though its new name is there: the store is poisoned. A new
 * process reads that MANIFEST; what it acknowledges may not rest on it alone. */
static void test_failed_publication_and_restart(void **state)
{
    const struct env_fault_plan cut = {ENV_FAULT_CUT, 1, true, 7};

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        begin();
        aim(HOOK_PUBLISH, SEGMENT_MANIFEST, false, seed);
        assert_int_equal(gate_roll(fixture.keg, false), -EIO);
        expect_poisoned();
        env_fault_set(fixture.disk, NULL);
        env_fault_revive(fixture.disk);
        assert_int_equal(fixture_reopen(&fixture), 0);
        assert_int_equal(fixture_put(fixture.keg, PUT, KEG_SYNC), 0);
        env_fault_set(fixture.disk, &cut);
        (void)!keg_close(fixture.keg);
        env_fault_restart(fixture.disk);
        assert_int_equal(fixture_reopen(&fixture), 0);
        assert_true(fixture_has(fixture.keg, PUT));
        assert_int_equal(keg_close(fixture.keg), 0);
        fixture_free(&fixture);
    }
}

/* ---- It costs one file ---- */

/* The file is given up, the call fails, and the next one does it with another file. */
static void give_up_one(enum hook_op op, const char *name, int (*act)(struct keg *keg))
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t lost = 0;

        begin();
        aim(op, name, true, seed);
        assert_int_equal(act(fixture.keg), -EIO);
        assert_true(victim.failed);
        assert_null(keg_readonly_reason(fixture.keg));
        fixture_want_all(fixture.keg, 0, PUT);
        if (seed % 2) {
            assert_int_equal(act(fixture.keg), 0);
            fixture_want_all(fixture.keg, 0, PUT);
        }
        assert_int_equal(keg_sync(fixture.keg), 0);
        assert_int_equal(victim.again, 0);
        cut_power(seed);
        assert_int_equal(come_back(true, seed, &lost), PUT);
        assert_int_equal(keg_close(fixture.keg), 0);
        fixture_free(&fixture);
    }
}

static void test_failed_sync_of_a_new_segment(void **state)
{
    (void)state;
    give_up_one(HOOK_SYNC, "00000002.data", roll);
}

static void test_failed_sync_of_a_new_manifest(void **state)
{
    (void)state;
    give_up_one(HOOK_SYNC, SEGMENT_MANIFEST_TMP, roll);
}

/* Half of what is there is put again, so that its first segment is worth it. */
static int compact_half(struct keg *keg)
{
    fixture_put_all(keg, 0, PUT / 2);
    return keg_compact(keg, NULL, NULL);
}

static void test_failed_seal_of_a_compacted_segment(void **state)
{
    (void)state;
    give_up_one(HOOK_SEAL, "00000003.data", compact_half);
}

/* ---- It succeeds ---- */

static unsigned syncs;

static int put_behind_the_sync(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    if (op == HOOK_SYNCED && !strcmp(name, "00000001.data") && ++syncs == 1)
        assert_int_equal(fixture_put(fixture.keg, PUT, 0), 0);
    return 0;
}

/* What is appended while a sync is under way needs another one. */
static void test_a_sync_covers_what_was_there(void **state)
{
    uint64_t lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin();
        syncs = 0;
        fixture.hook.fn = put_behind_the_sync;
        assert_int_equal(keg_sync(fixture.keg), 0);
        assert_int_equal(keg_sync(fixture.keg), 0);
        assert_int_equal(syncs, 2);
        fixture.hook.fn = NULL;
        cut_power(seed);
        assert_int_equal(come_back(true, seed, &lost), PUT + 1);
        assert_int_equal(keg_close(fixture.keg), 0);
        fixture_free(&fixture);
    }
}

/* What was acknowledged is there, however it was asked for, and in a segment that is new. */
static void test_acknowledged_survives(void **state)
{
    uint64_t lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        unsigned there;

        begin();
        if (seed % 3 == 0)
            assert_int_equal(gate_roll(fixture.keg, false), 0);
        assert_int_equal(fixture_put(fixture.keg, PUT, KEG_SYNC), 0);
        fixture_put_all(fixture.keg, PUT + 1, PUT + 5);
        if (seed % 2)
            assert_int_equal(keg_sync(fixture.keg), 0);
        cut_power(seed);
        there = come_back(true, seed, &lost);
        assert_in_range(there, seed % 2 ? PUT + 5 : PUT + 1, PUT + 5);
        lost += PUT + 5 - there;
        assert_int_equal(keg_close(fixture.keg), 0);
        fixture_free(&fixture);
    }
    assert_true(lost > 0);
}

static uint64_t segment_of(unsigned n)
{
    struct keg_info info;
    char buf[FIXTURE_NAME];

    assert_int_equal(keg_get(fixture.keg, fixture_name(n, buf), &info), 0);
    return info.segment;
}

static uint64_t size_of(const char *name)
{
    struct keg_file *file;
    uint64_t size;

    assert_int_equal(env_open(fixture.disk, name, ENV_READ, &file), 0);
    assert_int_equal(env_size(file, &size), 0);
    env_close(file);
    return size;
}

/* The log goes on in a new segment: nothing is appended to one whose tail was cut. */
static void test_a_cut_tail_is_left_alone(void **state)
{
    unsigned torn = 0;
    uint64_t lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        unsigned there;
        uint64_t size;

        begin();
        cut_power(seed);
        there = come_back(true, seed, &lost);
        torn += there < PUT;
        size = size_of("00000001.data");
        assert_int_equal(fixture_put(fixture.keg, there, KEG_SYNC), 0);
        assert_int_equal(segment_of(there - 1), 1);
        assert_true(segment_of(there) > 1);
        assert_int_equal(size_of("00000001.data"), size);
        cut_power(seed);
        assert_int_equal(come_back(true, ~seed, &lost), there + 1);
        assert_int_equal(keg_close(fixture.keg), 0);
        assert_int_equal(size_of("00000001.data"), size);
        fixture_free(&fixture);
    }
    assert_true(torn > 0);
}

/* ---- The timer's; its threads outlive a failing test, so it is the last ---- */

/* Nobody waits for the timer's sync: the next call must know of it all the same. */
static void test_failed_sync_of_the_timer(void **state)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT, .sync_interval_ms = 20};
    struct timespec pause = {0, 1000000};
    uint64_t lost = 0;

    (void)state;
    begin();
    assert_int_equal(keg_close(fixture.keg), 0);
    aim(HOOK_SYNC, "00000001.data", false, 3);
    assert_int_equal(keg_open(&fixture.hook.env, &options, &fixture.keg), 0);
    for (unsigned n = 0; !keg_readonly_reason(fixture.keg); n++) {
        assert_true(n < 20000 && victim.again == 0);    /* 20 s */
        int err = fixture_put(fixture.keg, n % PUT, 0); /* something to sync */

        assert_true(err == 0 || err == -EIO);
        nanosleep(&pause, NULL);
    }
    expect_poisoned();
    expect_prefix(true, 3, &lost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_sync),
        cmocka_unit_test(test_failed_seal),
        cmocka_unit_test(test_failed_publication),
        cmocka_unit_test(test_failed_sync_of_the_directory),
        cmocka_unit_test(test_failed_publication_of_a_hint),
        cmocka_unit_test(test_failed_sync_with_waiters),
        cmocka_unit_test(test_failed_cut_with_waiters),
        cmocka_unit_test(test_failed_publication_and_restart),
        cmocka_unit_test(test_failed_sync_of_a_new_segment),
        cmocka_unit_test(test_failed_sync_of_a_new_manifest),
        cmocka_unit_test(test_failed_seal_of_a_compacted_segment),
        cmocka_unit_test(test_a_sync_covers_what_was_there),
        cmocka_unit_test(test_acknowledged_survives),
        cmocka_unit_test(test_a_cut_tail_is_left_alone),
        cmocka_unit_test(test_failed_sync_of_the_timer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
