/* SPDX-License-Identifier: MIT */
/*
 * Faults of the engine that were found by reading it, each with the moment at which it shows: an
 * operation that fails, or another thread that comes in between.
 */
#include "commit.h"
#include "compact.h"
#include "env_fault.h"
#include "hook.h"
#include "segment.h"
#include "store.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { SEGMENT = 64 << 10, WAIT_MS = 100 };

/* A store on a disk that can fail, with a hook in between. */
struct bench {
    struct keg_env *disk;
    struct hook hook;
    struct keg *keg;
};

static void print_log(void *arg, enum keg_level level, const char *line)
{
    (void)arg;
    (void)level;
    if (getenv("TEST_VERBOSE"))
        print_message("log: %s\n", line);
}

static int try_open(struct bench *bench, unsigned flags)
{
    struct keg_options options = {
        .flags = flags | KEG_CREATE | KEG_NO_BACKGROUND, .segment_size = SEGMENT, .log = print_log};

    return keg_open(&bench->hook.env, &options, &bench->keg);
}

static void open_bench(struct bench *bench)
{
    memset(bench, 0, sizeof *bench);
    assert_int_equal(env_fault(0, &bench->disk), 0);
    hook_init(&bench->hook, bench->disk);
    assert_int_equal(try_open(bench, 0), 0);
}

static void free_bench(struct bench *bench)
{
    assert_int_equal(env_fault_open_files(bench->disk), 0);
    keg_env_free(bench->disk);
}

/* Ends the store without a further write: as kill -9 does, or with a loss of power. */
static void stop(struct bench *bench, bool power)
{
    struct env_fault_plan plan = {power ? ENV_FAULT_CUT : ENV_FAULT_EIO, 1, true, 7};

    bench->hook.fn = NULL;
    env_fault_set(bench->disk, &plan);
    if (keg_close(bench->keg) == 0)
        print_message("nothing was left to write\n");
    env_fault_set(bench->disk, NULL);
    if (power)
        env_fault_restart(bench->disk);
}

static struct keg_bytes text(const char *s)
{
    return (struct keg_bytes){s, strlen(s)};
}

static struct keg_bytes name_of(unsigned n, char *buf)
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 40, "a key that has %06u as its name", n)};
}

static int put(struct keg *keg, unsigned n, unsigned flags)
{
    static const char value[300];
    char buf[40];

    return keg_put(keg, name_of(n, buf), text("m"), (struct keg_bytes){value, sizeof value}, flags);
}

static bool has(struct keg *keg, unsigned n)
{
    struct keg_info info;
    char value[300], buf[40];

    return keg_get(keg, name_of(n, buf), &info) == 0 &&
           keg_read(keg, name_of(n, buf), 0, value, sizeof value) == (ssize_t)info.value_len;
}

static void want_all(struct keg *keg, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++) {
        if (!has(keg, n))
            print_error("key %u is missing\n", n);
        assert_true(has(keg, n));
    }
}

static void put_all(struct keg *keg, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++)
        assert_int_equal(put(keg, n, 0), 0);
}

static void drop_all(struct keg *keg, unsigned from, unsigned to, unsigned step)
{
    char buf[40];

    for (unsigned n = from; n < to; n += step)
        assert_int_equal(keg_delete(keg, name_of(n, buf), 0), 0);
}

static int remove_hint(void *arg, const char *name)
{
    return strstr(name, ".hint") ? env_remove(arg, name) : 0;
}

static bool ends(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);

    return len >= n && strcmp(name + len - n, end) == 0;
}

/* ---- Compaction ---- */

/* Fails reading hints once the compaction has published its manifest. */
struct after_publish {
    bool published;
};

static int fail_hints_after_publish(void *arg, enum hook_op op, const char *name)
{
    struct after_publish *state = arg;

    if (op == HOOK_PUBLISH && strcmp(name, SEGMENT_MANIFEST) == 0)
        state->published = true;
    return state->published && op == HOOK_READ && ends(name, ".hint") ? -EIO : 0;
}

/* What a compaction copied and could not repoint must not be taken for dead by the next one. */
static void test_failed_repoint_loses_nothing(void **state)
{
    struct after_publish after = {false};
    struct bench bench;

    (void)state;
    open_bench(&bench);
    put_all(bench.keg, 0, 400);
    drop_all(bench.keg, 0, 400, 2);
    assert_int_equal(keg_hint(bench.keg), 0);
    assert_int_equal(commit_roll(bench.keg), 0);
    bench.hook.fn = fail_hints_after_publish;
    bench.hook.arg = &after;
    assert_int_not_equal(keg_compact(bench.keg, NULL, NULL), 0);
    bench.hook.fn = NULL;
    for (unsigned n = 1; n < 400; n += 2)
        assert_true(has(bench.keg, n));
    assert_int_equal(keg_compact(bench.keg, NULL, NULL), 0);
    for (unsigned n = 1; n < 400; n += 2)
        assert_true(has(bench.keg, n));
    assert_int_equal(keg_close(bench.keg), 0);
    assert_int_equal(try_open(&bench, 0), 0);
    for (unsigned n = 1; n < 400; n += 2)
        assert_true(has(bench.keg, n));
    assert_int_equal(keg_close(bench.keg), 0);
    free_bench(&bench);
}

/* Hints that go while the store is open are made again. */
static void test_compaction_makes_lost_hints(void **state)
{
    struct keg_stats before, after;
    struct bench bench;

    (void)state;
    open_bench(&bench);
    put_all(bench.keg, 0, 1000);
    drop_all(bench.keg, 0, 900, 1);
    assert_int_equal(keg_hint(bench.keg), 0);
    keg_stats(bench.keg, &before);
    assert_int_equal(env_list(bench.disk, remove_hint, bench.disk), 0);
    assert_int_equal(keg_compact(bench.keg, NULL, NULL), 0);
    keg_stats(bench.keg, &after);
    assert_true(after.data_bytes < before.data_bytes / 4);
    want_all(bench.keg, 900, 1000);
    assert_int_equal(keg_close(bench.keg), 0);
    free_bench(&bench);
}

static int fail_reading_first(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    return op == HOOK_READ && strcmp(name, "00000001.data") == 0 ? -EIO : 0;
}

/* A segment that cannot be read is left alone; the others are compacted all the same. */
static void test_unreadable_segment_stops_no_compaction(void **state)
{
    struct keg_stats before, after;
    struct bench bench;

    (void)state;
    open_bench(&bench);
    put_all(bench.keg, 0, 1000);
    drop_all(bench.keg, 50, 900, 1);
    assert_int_equal(keg_hint(bench.keg), 0);
    keg_stats(bench.keg, &before);
    bench.hook.fn = fail_reading_first;
    assert_int_equal(keg_compact(bench.keg, NULL, NULL), 0);
    bench.hook.fn = NULL;
    keg_stats(bench.keg, &after);
    assert_true(after.data_bytes < before.data_bytes / 2);
    want_all(bench.keg, 0, 50);
    want_all(bench.keg, 900, 1000);
    assert_int_equal(keg_close(bench.keg), 0);
    free_bench(&bench);
}

static int count_segments(void *arg, enum hook_op op, const char *name)
{
    unsigned *made = arg;

    if (op != HOOK_CREATE || !ends(name, ".data"))
        return 0;
    return ++*made > 200 ? -EIO : 0;
}

static void put_names(struct keg *keg, unsigned from, unsigned to, unsigned step, bool tombstone)
{
    struct keg_batch batch = {0};
    static char bufs[100][40];

    while (from < to) {
        keg_batch_clear(&batch);
        for (unsigned i = 0; i < 100 && from < to; i++, from += step) {
            struct keg_bytes key = name_of(from, bufs[i]);

            assert_int_equal(tombstone ? keg_batch_delete(&batch, key)
                                       : keg_batch_put(&batch, key, text(""), text("")),
                             0);
        }
        assert_int_equal(keg_commit(keg, &batch, 0), 0);
    }
    keg_batch_free(&batch);
}

/* Tombstones that have to stay are no reason to write them again and again. */
static void test_kept_tombstones_end_compaction(void **state)
{
    struct bench bench;
    unsigned made = 0;

    (void)state;
    open_bench(&bench);
    put_names(bench.keg, 0, 20000, 1, false);
    put_names(bench.keg, 0, 18000, 3, true);
    assert_int_equal(keg_hint(bench.keg), 0);
    bench.hook.fn = count_segments;
    bench.hook.arg = &made;
    for (int i = 0; i < 5; i++)
        assert_int_equal(compact_background(bench.keg), 0);
    print_message("%u segments made\n", made);
    assert_true(made < 60);
    bench.hook.fn = NULL;
    assert_int_equal(keg_close(bench.keg), 0);
    free_bench(&bench);
}

/* Sequence numbers are not used again when compaction has dropped the records that had them. */
static void test_sequence_goes_on_after_compaction(void **state)
{
    struct keg_stats before, after;
    struct bench bench;

    (void)state;
    open_bench(&bench);
    put_all(bench.keg, 0, 100);
    drop_all(bench.keg, 0, 100, 1);
    keg_stats(bench.keg, &before);
    assert_int_equal(before.sequence, 200);
    assert_int_equal(keg_compact(bench.keg, NULL, NULL), 0);
    keg_stats(bench.keg, &after);
    assert_int_equal(after.sequence, 200);
    assert_int_equal(keg_close(bench.keg), 0);
    assert_int_equal(try_open(&bench, 0), 0);
    assert_int_equal(put(bench.keg, 1, 0), 0);
    keg_stats(bench.keg, &after);
    assert_true(after.sequence > before.sequence);
    assert_int_equal(keg_close(bench.keg), 0);
    free_bench(&bench);
}

/* ---- A roll and what comes in between ---- */

struct visitor {
    struct bench *bench;
    int (*work)(struct keg *keg);
    int fail; /* what making the next MANIFEST gives */
    bool started, joined;
    pthread_t thread;
};

static void *visit(void *arg)
{
    struct visitor *visitor = arg;

    return (void *)(intptr_t)visitor->work(visitor->bench->keg);
}

/* Lets the visitor in while a roll publishes its manifest, and fails that. The visitor may end
 * meanwhile or have to wait: both is right. */
static int visit_roll(void *arg, enum hook_op op, const char *name)
{
    struct visitor *visitor = arg;
    struct timespec until;

    if (op != HOOK_CREATE || strcmp(name, SEGMENT_MANIFEST_TMP) != 0 || visitor->started)
        return 0;
    visitor->started = true;
    assert_int_equal(pthread_create(&visitor->thread, NULL, visit, visitor), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    visitor->joined = pthread_timedjoin_np(visitor->thread, NULL, &until) == 0;
    return visitor->fail;
}

/* A roll that fails for want of space, with `work` in the middle of it; then a synced put and a
 * loss of power. */
static void roll_and_visit(int (*work)(struct keg *keg))
{
    struct bench bench;
    struct visitor visitor = {.bench = &bench, .work = work, .fail = -ENOSPC};

    open_bench(&bench);
    put_all(bench.keg, 0, 10);
    bench.hook.fn = visit_roll;
    bench.hook.arg = &visitor;
    assert_int_equal(commit_roll(bench.keg), -ENOSPC);
    assert_true(visitor.started);
    if (!visitor.joined)
        assert_int_equal(pthread_join(visitor.thread, NULL), 0);
    bench.hook.fn = NULL;
    assert_int_equal(put(bench.keg, 10, 0), 0);
    assert_int_equal(put(bench.keg, 11, KEG_SYNC), 0);
    stop(&bench, true);
    assert_int_equal(try_open(&bench, 0), 0);
    assert_null(keg_readonly_reason(bench.keg));
    want_all(bench.keg, 0, 12);
    assert_int_equal(keg_close(bench.keg), 0);
    free_bench(&bench);
}

static void test_sync_during_failed_roll(void **state)
{
    (void)state;
    roll_and_visit(keg_sync);
}

static void test_hint_during_failed_roll(void **state)
{
    (void)state;
    roll_and_visit(keg_hint);
}

static int sync_store(struct keg *keg)
{
    return keg_sync(keg);
}

/* A sync that fails while a segment is sealed, whose own sync then says nothing any more. */
struct race {
    struct bench *bench;
    struct visitor visitor;
    bool sealing;
    int result;
};

static int sync_while_sealing(void *arg, enum hook_op op, const char *name)
{
    struct race *race = arg;

    if (op == HOOK_SYNC && ends(name, ".data") && race->sealing)
        return -EIO;
    if (op != HOOK_SEAL || race->sealing)
        return 0;
    race->sealing = true;
    race->visitor.started = false;
    (void)visit_roll(&race->visitor, HOOK_CREATE, SEGMENT_MANIFEST_TMP);
    race->sealing = false;
    return 0;
}

/* One file is sealed and synced by one thread at a time: the kernel says a failure only once. */
static void test_no_sync_beside_a_seal(void **state)
{
    struct bench bench;
    struct race race = {.bench = &bench, .visitor = {.bench = &bench, .work = sync_store}};

    (void)state;
    open_bench(&bench);
    put_all(bench.keg, 0, 10);
    bench.hook.fn = sync_while_sealing;
    bench.hook.arg = &race;
    assert_int_equal(commit_roll(bench.keg), 0);
    if (!race.visitor.joined)
        assert_int_equal(pthread_join(race.visitor.thread, NULL), 0);
    assert_null(keg_readonly_reason(bench.keg));
    bench.hook.fn = NULL;
    assert_int_equal(keg_close(bench.keg), 0);
    free_bench(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_repoint_loses_nothing),
        cmocka_unit_test(test_compaction_makes_lost_hints),
        cmocka_unit_test(test_unreadable_segment_stops_no_compaction),
        cmocka_unit_test(test_kept_tombstones_end_compaction),
        cmocka_unit_test(test_sequence_goes_on_after_compaction),
        cmocka_unit_test(test_sync_during_failed_roll),
        cmocka_unit_test(test_hint_during_failed_roll),
        cmocka_unit_test(test_no_sync_beside_a_seal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
