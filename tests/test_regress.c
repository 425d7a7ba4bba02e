/* SPDX-License-Identifier: MIT */
/*
 * Faults of the engine at work that were found by reading it, each with the moment at which it
 * shows: an operation that fails, or another thread that comes in between.
 */
#include "compact.h"
#include "fixture.h"
#include "gate.h"
#include "segment.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

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
    return state->published && op == HOOK_READ && fixture_ends(name, ".hint") ? -EIO : 0;
}

/* What a compaction copied and could not repoint must not be taken for dead by the next one. */
static void test_failed_repoint_loses_nothing(void **state)
{
    struct after_publish after = {false};
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 400);
    fixture_drop_all(fixture.keg, 0, 200);
    assert_int_equal(keg_hint(fixture.keg), 0);
    assert_int_equal(gate_roll(fixture.keg, false), 0);
    fixture.hook.fn = fail_hints_after_publish;
    fixture.hook.arg = &after;
    assert_int_not_equal(keg_compact(fixture.keg, NULL, NULL), 0);
    fixture.hook.fn = NULL;
    fixture_want_all(fixture.keg, 200, 400);
    assert_int_equal(keg_compact(fixture.keg, NULL, NULL), 0);
    fixture_want_all(fixture.keg, 200, 400);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    fixture_want_all(fixture.keg, 200, 400);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* Hints that go while the store is open are made again. */
static void test_compaction_makes_lost_hints(void **state)
{
    struct keg_stats before, after;
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 1000);
    fixture_drop_all(fixture.keg, 0, 900);
    assert_int_equal(keg_hint(fixture.keg), 0);
    keg_stats(fixture.keg, &before);
    fixture_remove_hints(&fixture);
    assert_int_equal(keg_compact(fixture.keg, NULL, NULL), 0);
    keg_stats(fixture.keg, &after);
    assert_true(after.data_bytes < before.data_bytes / 4);
    fixture_want_all(fixture.keg, 900, 1000);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* A segment that cannot be read is left alone; the others are compacted all the same. */
static void test_unreadable_segment_stops_no_compaction(void **state)
{
    struct keg_stats before, after;
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 1000);
    fixture_drop_all(fixture.keg, 50, 900);
    assert_int_equal(keg_hint(fixture.keg), 0);
    keg_stats(fixture.keg, &before);
    fixture.hook.fn = fixture_fail_first;
    assert_int_equal(keg_compact(fixture.keg, NULL, NULL), 0);
    fixture.hook.fn = NULL;
    keg_stats(fixture.keg, &after);
    assert_true(after.data_bytes < before.data_bytes / 2);
    fixture_want_all(fixture.keg, 0, 50);
    fixture_want_all(fixture.keg, 900, 1000);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

static int count_segments(void *arg, enum hook_op op, const char *name)
{
    unsigned *made = arg;

    if (op != HOOK_CREATE || !fixture_ends(name, ".data"))
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
            struct keg_bytes key = fixture_name(from, bufs[i]);

            assert_int_equal(tombstone
                                 ? keg_batch_delete(&batch, key)
                                 : keg_batch_put(&batch, key, fixture_text(""), fixture_text("")),
                             0);
        }
        assert_int_equal(keg_commit(keg, &batch, 0), 0);
    }
    keg_batch_free(&batch);
}

/* Tombstones that have to stay are no reason to write them again and again. */
static void test_kept_tombstones_end_compaction(void **state)
{
    struct fixture fixture;
    unsigned made = 0;

    (void)state;
    fixture_open(&fixture);
    put_names(fixture.keg, 0, 20000, 1, false);
    put_names(fixture.keg, 0, 18000, 3, true);
    assert_int_equal(keg_hint(fixture.keg), 0);
    fixture.hook.fn = count_segments;
    fixture.hook.arg = &made;
    for (int i = 0; i < 5; i++)
        assert_int_equal(compact_background(fixture.keg), 0);
    print_message("%u segments made\n", made);
    assert_true(made < 60);
    fixture.hook.fn = NULL;
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* Sequence numbers are not used again when compaction has dropped the records that had them. */
static void test_sequence_goes_on_after_compaction(void **state)
{
    struct keg_stats before, after;
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 100);
    fixture_drop_all(fixture.keg, 0, 100);
    keg_stats(fixture.keg, &before);
    assert_int_equal(before.sequence, 200);
    assert_int_equal(keg_compact(fixture.keg, NULL, NULL), 0);
    keg_stats(fixture.keg, &after);
    assert_int_equal(after.sequence, 200);
    assert_int_equal(keg_close(fixture.keg), 0);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_int_equal(fixture_put(fixture.keg, 1, 0), 0);
    keg_stats(fixture.keg, &after);
    assert_true(after.sequence > before.sequence);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* ---- A roll and what comes in between ---- */

struct visitor {
    struct fixture *fixture;
    int (*work)(struct keg *keg);
    int fail; /* what making the next MANIFEST gives */
    bool started, joined;
    pthread_t thread;
};

static void *visit(void *arg)
{
    struct visitor *visitor = arg;

    return (void *)(intptr_t)visitor->work(visitor->fixture->keg);
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
    until.tv_nsec += FIXTURE_WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    visitor->joined = pthread_timedjoin_np(visitor->thread, NULL, &until) == 0;
    return visitor->fail;
}

/* A roll that fails for want of space, with `work` in the middle of it; then a synced put and a
 * loss of power. */
static void roll_and_visit(int (*work)(struct keg *keg))
{
    struct fixture fixture;
    struct visitor visitor = {.fixture = &fixture, .work = work, .fail = -ENOSPC};

    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 10);
    fixture.hook.fn = visit_roll;
    fixture.hook.arg = &visitor;
    assert_int_equal(gate_roll(fixture.keg, false), -ENOSPC);
    assert_true(visitor.started);
    if (!visitor.joined)
        assert_int_equal(pthread_join(visitor.thread, NULL), 0);
    fixture.hook.fn = NULL;
    assert_int_equal(fixture_put(fixture.keg, 10, 0), 0);
    assert_int_equal(fixture_put(fixture.keg, 11, KEG_SYNC), 0);
    fixture_stop(&fixture, true);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_null(keg_readonly_reason(fixture.keg));
    fixture_want_all(fixture.keg, 0, 12);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
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
    struct fixture *fixture;
    struct visitor visitor;
    bool sealing;
    int result;
};

static int sync_while_sealing(void *arg, enum hook_op op, const char *name)
{
    struct race *race = arg;

    if (op == HOOK_SYNC && fixture_ends(name, ".data") && race->sealing)
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
    struct fixture fixture;
    struct race race = {.fixture = &fixture, .visitor = {.fixture = &fixture, .work = sync_store}};

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 10);
    fixture.hook.fn = sync_while_sealing;
    fixture.hook.arg = &race;
    assert_int_equal(gate_roll(fixture.keg, false), 0);
    if (!race.visitor.joined)
        assert_int_equal(pthread_join(race.visitor.thread, NULL), 0);
    assert_null(keg_readonly_reason(fixture.keg));
    fixture.hook.fn = NULL;
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* ---- A full disk ---- */

static int write_and_fail(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    return op == HOOK_APPEND && fixture_ends(name, ".data") ? ENOSPC : 0;
}

/* A put that was refused does not come back after its key was deleted. */
static void test_refused_put_stays_away(void **state)
{
    struct fixture fixture;
    char buf[40];

    (void)state;
    for (int crash = 0; crash < 2; crash++) {
        fixture_open(&fixture);
        fixture_put_all(fixture.keg, 0, 3);
        fixture.hook.fn = write_and_fail;
        assert_int_equal(fixture_put(fixture.keg, 3, 0), -ENOSPC);
        fixture.hook.fn = NULL;
        assert_int_equal(keg_delete(fixture.keg, fixture_name(3, buf), 0), -ENOENT);
        if (crash)
            fixture_stop(&fixture, false);
        else
            assert_int_equal(keg_close(fixture.keg), 0);
        assert_int_equal(fixture_reopen(&fixture), 0);
        fixture_want_all(fixture.keg, 0, 3);
        assert_false(fixture_has(fixture.keg, 3));
        assert_int_equal(keg_close(fixture.keg), 0);
        fixture_free(&fixture);
    }
}

/* Several writers; the first one's append waits until the others are in the queue behind it. */
struct crowd {
    struct fixture *fixture;
    pthread_t writers[3];
    int results[3];
    _Atomic unsigned begun;
    bool waited, full;
};

struct writer {
    struct crowd *crowd;
    unsigned n;
};

static void *write_one(void *arg)
{
    const struct writer *writer = arg;
    struct crowd *crowd = writer->crowd;
    char buf[40];

    atomic_fetch_add(&crowd->begun, 1);
    crowd->results[writer->n] =
        writer->n == 2 ? keg_delete(crowd->fixture->keg, fixture_name(0, buf), KEG_FREEING)
                       : fixture_put(crowd->fixture->keg, 100 + writer->n, 0);
    return NULL;
}

/* The disk is full for whoever wants to append more than a tombstone, or to begin a segment. */
static int crowd_append(void *arg, enum hook_op op, const char *name)
{
    struct crowd *crowd = arg;
    struct timespec pause = {0, FIXTURE_WAIT_MS * 1000000L};

    if (op == HOOK_CREATE && fixture_ends(name, ".data") && crowd->full)
        return -ENOSPC;
    if (op != HOOK_APPEND || !fixture_ends(name, ".data") || crowd->waited)
        return 0;
    crowd->waited = true;
    while (atomic_load(&crowd->begun) < 3)
        nanosleep(&pause, NULL);
    nanosleep(&pause, NULL);
    return 0;
}

/* What frees space does not fail for the put that shares a write with it. */
static void test_delete_beside_a_refused_put(void **state)
{
    struct fixture fixture;
    struct crowd crowd = {.fixture = &fixture};
    struct writer writers[3];
    unsigned n = 0;

    (void)state;
    fixture_open(&fixture);
    /* The active segment is full but for one frame. */
    while (atomic_load(&fixture.keg->active->length) + 2 * 420 + FORMAT_FOOTER_SIZE <
           FIXTURE_SEGMENT)
        assert_int_equal(fixture_put(fixture.keg, n++, 0), 0);
    crowd.full = true;
    fixture.hook.fn = crowd_append;
    fixture.hook.arg = &crowd;
    for (unsigned i = 0; i < 3; i++) {
        struct timespec pause = {0, 20000000};

        writers[i] = (struct writer){&crowd, i};
        assert_int_equal(pthread_create(&crowd.writers[i], NULL, write_one, &writers[i]), 0);
        nanosleep(&pause, NULL);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_join(crowd.writers[i], NULL), 0);
    assert_int_equal(crowd.results[2], 0);
    assert_false(fixture_has(fixture.keg, 0));
    fixture.hook.fn = NULL;
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* Fills the disk with values of one size and deletes them all; how many there were. */
static unsigned fill_and_delete(struct keg *keg, size_t len)
{
    static const char value[5000];
    struct keg_bytes bytes = {value, len};
    char buf[FIXTURE_NAME];
    unsigned n = 0;
    int err;

    while ((err = keg_put(keg, fixture_name(n, buf), fixture_text(""), bytes, 0)) == 0)
        n++;
    assert_int_equal(err, -ENOSPC);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(keg_delete(keg, fixture_name(i, buf), KEG_FREEING), 0);
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    return n;
}

/* With values so small that tombstones and hints take as much as they do. */
static void test_full_disk_traps_nobody(void **state)
{
    static const size_t sizes[] = {0, 10, 300, 5000};
    struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                  .segment_size = FIXTURE_SEGMENT};
    struct keg_env *env;
    struct keg *keg;

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned first, again;

        assert_int_equal(env_mem(2 << 20, &env), 0);
        assert_int_equal(keg_open(env, &options, &keg), 0);
        first = fill_and_delete(keg, sizes[i]);
        again = fill_and_delete(keg, sizes[i]);
        assert_true(first > 100 && again > first - first / 10);
        assert_int_equal(keg_close(keg), 0);
        keg_env_free(env);
    }
}

static int no_descriptors(void *arg, enum hook_op op, const char *name)
{
    unsigned *times = arg;

    if (op != HOOK_CREATE || !fixture_ends(name, ".data") || *times == 0)
        return 0;
    --*times;
    return -EMFILE;
}

/* Descriptors kept for reading make room for the next segment's. */
static void test_roll_without_descriptors(void **state)
{
    struct fixture fixture;
    unsigned times = 3;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 900);
    fixture.hook.fn = no_descriptors;
    fixture.hook.arg = &times;
    fixture_put_all(fixture.keg, 900, 1200);
    assert_int_equal(times, 0);
    fixture.hook.fn = NULL;
    fixture_want_all(fixture.keg, 0, 1200);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
}

/* ---- A log of two histories ---- */

struct saved {
    uint8_t *data;
    size_t len;
};

static struct saved save(struct fixture *fixture, const char *name)
{
    struct saved saved;

    assert_int_equal(env_slurp(fixture->disk, name, 1 << 20, &saved.data, &saved.len), 0);
    return saved;
}

static void restore(struct fixture *fixture, const char *name, struct saved saved)
{
    assert_int_equal(env_replace(fixture->disk, name, saved.data, saved.len), 0);
    free(saved.data);
}

/* From where it stands the store puts keys, rolls and puts one more. */
static void live_on(struct fixture *fixture, unsigned from, unsigned to)
{
    assert_int_equal(fixture_reopen(fixture), 0);
    fixture_put_all(fixture->keg, from, to);
    assert_int_equal(gate_roll(fixture->keg, false), 0);
    fixture_put_all(fixture->keg, to, to + 1);
    assert_int_equal(keg_close(fixture->keg), 0);
    fixture_remove_hints(fixture);
}

/* The second segment is from a backup that went on otherwise: it follows on fewer records than the
 * first one has, and whose records are newer cannot be told. */
static void test_segment_of_another_history(void **state)
{
    struct saved manifest, first, second;
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_put_all(fixture.keg, 0, 10);
    assert_int_equal(keg_close(fixture.keg), 0);
    manifest = save(&fixture, SEGMENT_MANIFEST);
    first = save(&fixture, "00000001.data");
    live_on(&fixture, 10, 10);
    second = save(&fixture, "00000002.data");
    assert_int_equal(env_remove(fixture.disk, "00000002.data"), 0);
    restore(&fixture, "00000001.data", first);
    restore(&fixture, SEGMENT_MANIFEST, manifest);
    live_on(&fixture, 20, 25);
    restore(&fixture, "00000002.data", second);
    assert_int_equal(fixture_reopen(&fixture), 0);
    assert_non_null(keg_readonly_reason(fixture.keg));
    assert_non_null(strstr(keg_readonly_reason(fixture.keg), "another history"));
    assert_int_equal(fixture_put(fixture.keg, 50, 0), -EROFS);
    fixture_want_all(fixture.keg, 0, 10);
    assert_int_equal(keg_close(fixture.keg), 0);
    fixture_free(&fixture);
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
        cmocka_unit_test(test_refused_put_stays_away),
        cmocka_unit_test(test_delete_beside_a_refused_put),
        cmocka_unit_test(test_full_disk_traps_nobody),
        cmocka_unit_test(test_roll_without_descriptors),
        cmocka_unit_test(test_segment_of_another_history),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
