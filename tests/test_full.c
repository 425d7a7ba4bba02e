/* SPDX-License-Identifier: MIT */
/*
 * A full disk traps nobody: a store is filled, emptied and compacted again and again without being
 * opened anew, and takes as much each time; the disk is full at each I/O of a compaction, of the
 * writing of hints and of commits with their rolls, and later has space again; and a full volume of
 * empty files, whose deletion takes the most for what it frees, is deleted, alone and among files
 * that stay.
 *
 * TEST_CYCLES=N says how often it is filled, TEST_FULL_MIB=N how large the disk of empty files is,
 * TEST_MIXED_MIB=N the one with others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compact.h"
#include "sanitized.h"
#include "volume_fixture.h"
#include "workload.h"
#include <errno.h>

enum { DISK = 2 << 20, CYCLES = SANITIZED ? 15 : 150, FULL_MIB = SANITIZED ? 3 : 8 };

/* ---- Fill, delete, compact ---- */

static struct keg_bytes number_key(uint64_t n, char *buf)
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 24, "%012" PRIu64, n)};
}

static uint64_t fill(struct keg *keg, struct random *random)
{
    static const uint8_t value[8000];
    uint64_t n = 0, most = random_below(random, 3) ? 3000 : sizeof value;
    char buf[24];
    int err;

    do
        err = keg_put(keg, number_key(n++, buf), (struct keg_bytes){"m", 1},
                      (struct keg_bytes){value, (size_t)random_below(random, most)}, 0);
    while (!err);
    assert_int_equal(err, -ENOSPC);
    return n - 1;
}

static void empty(struct keg *keg, uint64_t count)
{
    uint8_t value[8000];
    char buf[24];

    for (uint64_t n = 0; n < count; n++) {
        assert_true(keg_read(keg, number_key(n, buf), 0, value, sizeof value) >= 0);
        assert_int_equal(keg_delete(keg, number_key(n, buf), KEG_FREEING), 0);
    }
}

static void test_fill_delete_compact_refill(void **state)
{
    const struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                        .segment_size = WORKLOAD_SEGMENT};
    uint64_t cycles = workload_number("TEST_CYCLES", CYCLES), bytes = 0, puts = 0;
    struct random random = random_seeded();
    struct keg_stats stats;
    struct keg_env *env;
    struct keg *keg;

    (void)state;
    assert_int_equal(env_mem(DISK, &env), 0);
    assert_int_equal(keg_open(env, &options, &keg), 0);
    for (uint64_t i = 0; i < cycles; i++) {
        uint64_t count = fill(keg, &random);

        keg_stats(keg, &stats);
        bytes += stats.live_bytes;
        puts += count;
        assert_true(stats.live_bytes > DISK / 2);
        empty(keg, count);
        assert_int_equal(keg_compact(keg, NULL, NULL), 0);
        assert_null(keg_readonly_reason(keg));
    }
    print_message("%" PRIu64 " cycles, %" PRIu64 " files, %" PRIu64 " MiB\n", cycles, puts,
                  bytes >> 20);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

/* ---- Full of somebody else's bytes ---- */

static struct keg_file *take_all(struct keg_env *env)
{
    static const uint8_t bytes[4096];
    struct keg_file *file;
    uint64_t at = 0;

    assert_int_equal(env_create(env, "other", &file), 0);
    for (size_t n = sizeof bytes; n;) {
        struct iovec iov = {(void *)(uintptr_t)bytes, n};

        if (env_append(file, at, &iov, 1) == 0)
            at += n;
        else
            n /= 2;
    }
    return file;
}

/* The reserve is only kept free, so others can take it (store/DESIGN.md): then deletes, too, are
 * refused, cleanly, until they give some back. */
static void test_another_program_fills_the_disk(void **state)
{
    const struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                        .segment_size = WORKLOAD_SEGMENT};
    unsigned refused = 0, count = 300;
    struct keg_env *env;
    struct keg *keg;
    uint8_t value[2000] = {0};
    char buf[24];

    (void)state;
    assert_int_equal(env_mem(DISK, &env), 0);
    assert_int_equal(keg_open(env, &options, &keg), 0);
    for (unsigned n = 0; n < count; n++)
        assert_int_equal(keg_put(keg, number_key(n, buf), (struct keg_bytes){"m", 1},
                                 (struct keg_bytes){value, sizeof value}, 0),
                         0);
    struct keg_file *other = take_all(env);
    for (unsigned n = 0; n < count; n++) {
        int err = keg_delete(keg, number_key(n, buf), KEG_FREEING);

        assert_true(!err || err == -ENOSPC);
        refused += err != 0;
        assert_int_equal(keg_read(keg, number_key(n, buf), 0, value, 10), err ? 10 : -ENOENT);
    }
    assert_true(refused > 0);
    assert_null(keg_readonly_reason(keg));
    env_close(other);
    assert_int_equal(env_remove(env, "other"), 0);
    for (unsigned n = 0; n < count; n++) {
        int err = keg_delete(keg, number_key(n, buf), KEG_FREEING);

        assert_true(!err || err == -ENOENT);
    }
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    assert_int_equal(keg_put(keg, number_key(1, buf), (struct keg_bytes){"m", 1},
                             (struct keg_bytes){value, sizeof value}, KEG_SYNC),
                     0);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

/* ---- Full at each I/O ---- */

static int try_compact(struct workload *w)
{
    return keg_compact(w->keg, NULL, NULL);
}

static int try_hint(struct workload *w)
{
    return keg_hint(w->keg);
}

static int try_commits(struct workload *w)
{
    int err = 0;

    for (int i = 0; !err && i < 40; i++)
        err = workload_commit(w, 6, i % 8 ? 0 : KEG_SYNC);
    return err;
}

/* What is there is what was put there. */
static void expect_all(struct workload *w)
{
    struct history_state state;

    assert_true(history_read(w->keg, &state));
    assert_true(history_same(&state, history_now(&w->history)));
}

struct outcomes {
    uint64_t refused, poisoned;
};

/* The disk is full from the at-th I/O of the call on. False: it has fewer. Only where MANIFEST
 * itself was being replaced, nobody knows by which, may the store have to be opened again. */
static bool full_at(int (*call)(struct workload *w), uint64_t at, struct outcomes *outcomes)
{
    const struct env_fault_plan plan = {ENV_FAULT_ENOSPC, at, true, at};
    struct workload w;
    bool struck;

    workload_begin(&w, 11, 0);
    assert_int_equal(workload_open(&w), 0);
    for (int i = 0; i < 150; i++)
        assert_int_equal(workload_commit(&w, 6, 0), 0);
    assert_int_equal(keg_sync(w.keg), 0);
    env_fault_set(w.env, &plan);
    int err = call(&w);
    struck = env_fault_struck(w.env);
    env_fault_set(w.env, NULL);
    expect_all(&w);
    if (keg_readonly_reason(w.keg)) {
        assert_non_null(strstr(keg_readonly_reason(w.keg), "publishing MANIFEST"));
        outcomes->poisoned++;
        assert_int_equal(workload_close(&w), -EIO);
        assert_int_equal(workload_open(&w), 0);
    } else {
        assert_true(!err || err == -ENOSPC);
        outcomes->refused += err != 0;
    }
    assert_int_equal(keg_compact(w.keg, NULL, NULL), 0);
    assert_int_equal(workload_commit(&w, 6, KEG_SYNC), 0);
    expect_all(&w);
    assert_int_equal(workload_close(&w), 0);
    assert_int_equal(workload_open(&w), 0);
    expect_all(&w);
    assert_int_equal(workload_close(&w), 0);
    workload_end(&w);
    return struck;
}

static void full_at_each(int (*call)(struct workload *w))
{
    struct outcomes outcomes = {0};
    uint64_t at = 1;

    while (full_at(call, at, &outcomes))
        at++;
    print_message("%" PRIu64 " I/Os, %" PRIu64 " calls refused, %" PRIu64 " times read-only\n",
                  at - 1, outcomes.refused, outcomes.poisoned);
    assert_true(at > 3 && outcomes.poisoned <= at / 4);
}

static void test_full_during_compaction(void **state)
{
    (void)state;
    full_at_each(try_compact);
}

static void test_full_during_hints(void **state)
{
    (void)state;
    full_at_each(try_hint);
}

static void test_full_during_commits(void **state)
{
    (void)state;
    full_at_each(try_commits);
}

/* ---- Empty files ---- */

static int make_file(struct volume *volume, uint64_t n)
{
    const struct volume_new new = {.mode = S_IFREG | 0644};
    struct volume_attr attr;
    char buf[24];
    int err = volume_make(volume, VOLUME_ROOT, number_key(n, buf), &new, &attr);

    if (!err)
        volume_forget(volume, attr.ino, 1);
    return err;
}

static void test_empty_files_on_a_full_disk(void **state)
{
    uint64_t mib = workload_number("TEST_FULL_MIB", FULL_MIB), count = 0;
    struct fixture f = {.volume_flags = VOLUME_NO_BACKGROUND,
                        .keg_flags = KEG_NO_BACKGROUND,
                        .seconds = 1790000000,
                        .segment_size = mib << 20 >> 4};
    char buf[24];
    int err;

    (void)state;
    assert_int_equal(env_mem(mib << 20, &f.env), 0);
    assert_int_equal(fixture_open(&f), 0);
    while ((err = make_file(f.volume, count)) == 0)
        count++;
    assert_int_equal(err, -ENOSPC);
    print_message("%" PRIu64 " empty files on %" PRIu64 " MiB\n", count, mib);
    for (uint64_t n = 0; n < count; n++)
        assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, number_key(n, buf)), 0);
    assert_int_equal(volume_tend(f.volume), 0);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    for (uint64_t n = 0; n < count / 2; n++)
        assert_int_equal(make_file(f.volume, n), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(f.env);
}

/* ---- Small files among large ones ---- */

enum { VALUE = 32 << 10, MIXED_MIB = SANITIZED ? 16 : 32, REWRITTEN_MAX = 3 << 10 };

static int make_large(struct volume *volume, uint64_t n)
{
    static const uint8_t value[VALUE];
    const struct volume_new new = {.mode = S_IFREG | 0644};
    struct volume_attr attr;
    char buf[24];
    int err = volume_make(volume, VOLUME_ROOT, number_key(n, buf), &new, &attr);

    if (err)
        return err;
    ssize_t wrote = volume_write(volume, attr.ino, 0, value, sizeof value, 0);

    volume_forget(volume, attr.ino, 1);
    return wrote < 0 ? (int)wrote : 0;
}

/* Fills the volume with live values, and what then gives way to them with empty files, until the
 * background gains no room either. Returns how many, numbered from `first`. */
static uint64_t fill_mixed(struct fixture *f, uint64_t first)
{
    uint64_t large = 0, count = 0;
    char buf[24];

    while (make_large(f->volume, large) == 0)
        large++;
    for (uint64_t n = 0; n < large / 4; n++)
        assert_int_equal(volume_unlink(f->volume, VOLUME_ROOT, number_key(n, buf)), 0);
    assert_int_equal(keg_compact(f->keg, NULL, NULL), 0);
    for (int i = 0; i < 4; i++) {
        while (make_file(f->volume, first + count) == 0)
            count++;
        assert_int_equal(compact_background(f->keg), 0);
    }
    print_message("%" PRIu64 " files of 32 KiB, %" PRIu64 " removed, %" PRIu64 " empty files\n",
                  large, large / 4, count);
    return count;
}

/* What each delete frees lies among what is alive, or among tombstones. One compaction has to do
 * for many of them, and each has to fit the reserve with its hint, which is large here. */
static void delete_mixed(bool in_order)
{
    uint64_t mib = workload_number("TEST_MIXED_MIB", MIXED_MIB), first = 1000000;
    struct random random = random_seeded();
    struct fixture f = {.volume_flags = VOLUME_NO_BACKGROUND,
                        .keg_flags = KEG_NO_BACKGROUND,
                        .seconds = 1790000000,
                        .segment_size = mib << 20 >> 4};
    struct keg_stats before, after;
    char buf[24];

    assert_int_equal(env_mem(mib << 20, &f.env), 0);
    assert_int_equal(fixture_open(&f), 0);
    uint64_t count = fill_mixed(&f, first), *order = calloc(count, sizeof *order);
    assert_non_null(order);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t j = in_order ? i : random_below(&random, i + 1);

        order[i] = order[j];
        order[j] = first + i;
    }
    keg_stats(f.keg, &before);
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, number_key(order[i], buf)), 0);
    keg_stats(f.keg, &after);
    free(order);

    uint64_t bytes = after.compacted_bytes - before.compacted_bytes;
    print_message("%" PRIu64 " deletes: %" PRIu64 " compactions, %" PRIu64 " KiB rewritten\n",
                  count, after.compactions - before.compactions, bytes >> 10);
    assert_int_equal(f.store_lines, 0);
    assert_true(bytes < count * REWRITTEN_MAX);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    assert_int_equal(make_large(f.volume, 0), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(f.env);
}

static void test_small_files_among_large_ones(void **state)
{
    (void)state;
    delete_mixed(true);
    delete_mixed(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill_delete_compact_refill),
        cmocka_unit_test(test_another_program_fills_the_disk),
        cmocka_unit_test(test_full_during_compaction),
        cmocka_unit_test(test_full_during_hints),
        cmocka_unit_test(test_full_during_commits),
        cmocka_unit_test(test_empty_files_on_a_full_disk),
        cmocka_unit_test(test_small_files_among_large_ones),
    };

    setvbuf(stdout, NULL, _IOLBF, 0); /* the seed is printed whatever happens */
    return cmocka_run_group_tests_name("full", tests, NULL, NULL);
}
