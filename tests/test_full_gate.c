/* SPDX-License-Identifier: MIT */
/*
 * A segment ends at its end, whatever stands in the way of a roll: a full disk, no inode, no room
 * for MANIFEST, no descriptor, a long change that has entered. What deletions need is not given to
 * puts, rolls that fail are not tried at each change, and nobody waits for what takes long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hook.h"
#include "sanitized.h"
#include "store.h"
#include "volume_fixture.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

enum {
    SEGMENT = 1 << 20,
    PATIENCE = 10, /* seconds, for what takes milliseconds */
    ROLLS_TRIED = 8,
    APART = 64 << 10, /* bytes from one byte to the next: each is an extent */
};

static struct fixture f;
static struct hook hook;
static const uint8_t bytes[1 << 20];

static void open_volume(unsigned flags, uint64_t disk, uint64_t segment_size)
{
    struct keg_env *below;

    assert_int_equal(env_mem(disk, &below), 0);
    hook_init(&hook, below);
    f = (struct fixture){.env = &hook.env,
                         .volume_flags = flags,
                         .keg_flags = KEG_NO_BACKGROUND,
                         .seconds = 1790000000,
                         .segment_size = segment_size};
    assert_int_equal(fixture_open(&f), 0);
}

static void close_volume(void)
{
    assert_null(keg_readonly_reason(f.keg));
    assert_int_equal(volume_tend(f.volume), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(hook.below);
}

static struct keg_bytes name_of(uint64_t n, char buf[24])
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 24, "%012" PRIu64, n)};
}

static int make_file(uint64_t n, uint64_t *ino)
{
    const struct volume_new new = {.mode = S_IFREG | 0644};
    struct volume_attr attr;
    char buf[24];
    int err = volume_make(f.volume, VOLUME_ROOT, name_of(n, buf), &new, &attr);

    if (!err)
        *ino = attr.ino;
    return err;
}

static int unlink_file(uint64_t n)
{
    char buf[24];

    return volume_unlink(f.volume, VOLUME_ROOT, name_of(n, buf));
}

static int punch(uint64_t ino, uint64_t offset, uint64_t len)
{
    return volume_fallocate(f.volume, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
}

static uint64_t make_unnumbered(uint64_t n)
{
    uint64_t ino;

    assert_int_equal(make_file(n, &ino), 0);
    volume_forget(f.volume, ino, 1);
    return ino;
}

/* ---- Frames as large as segments ---- */

enum { HOLE = 128 << 10 };

/* Of frames that would stand two in a segment if puts got more than that. What they leave of the
 * disk is filled with small ones. */
static uint64_t fill_with_large_frames(uint64_t ino, uint64_t small)
{
    uint64_t n = 0, at = 0;

    while (volume_write(f.volume, ino, n << 20, bytes, n % 2 ? 1 << 20 : 740 << 10, 0) > 0)
        n++;
    while (volume_write(f.volume, small, at, bytes, 4 << 10, 0) > 0)
        at += 4 << 10;
    return n;
}

static void test_what_was_deleted_is_room_again_with_frames_as_large_as_segments(void **state)
{
    uint64_t count, written = 0;

    (void)state;
    open_volume(VOLUME_NO_BACKGROUND, 16 << 20, SEGMENT);
    uint64_t ino = make_unnumbered(0), small = make_unnumbered(1), other = make_unnumbered(2);
    count = fill_with_large_frames(ino, small);
    assert_true(count > 8);
    for (uint64_t n = 0; n < count; n++)
        assert_int_equal(punch(ino, (n << 20) + HOLE, HOLE), 0);
    for (int tries = 0; tries < 3 * (int)count && written < count; tries++) {
        ssize_t n = volume_write(f.volume, other, written * HOLE, bytes, HOLE, 0);

        if (n < 0) {
            assert_int_equal(n, -ENOSPC);
            assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
        }
        written += n > 0;
    }
    print_message("%" PRIu64 " frames, a part of each deleted; %" PRIu64 " written again\n", count,
                  written);
    assert_int_equal(written, count);
    close_volume();
}

/* ---- One punch of more than what is kept free ---- */

static uint64_t fill_with_extents(uint64_t ino)
{
    uint64_t n = 0, before;

    do {
        before = n;
        while (volume_write(f.volume, ino, n * APART, "x", 1, 0) == 1)
            n++;
        assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    } while (n - before > 50);
    return n;
}

static void test_one_punch_empties_a_full_disk(void **state)
{
    enum { FILES = 100, DISK = SANITIZED ? 1 << 20 : 2 << 20 };
    uint64_t ino, count;

    (void)state;
    open_volume(VOLUME_NO_BACKGROUND, DISK, 128 << 10);
    for (uint64_t n = 0; n < FILES; n++)
        make_unnumbered(n);
    ino = make_unnumbered(FILES);
    count = fill_with_extents(ino);
    print_message("%" PRIu64 " extents\n", count);
    assert_int_equal(punch(ino, 0, count * APART), 0);
    for (uint64_t n = 0; n < FILES; n++)
        assert_int_equal(unlink_file(n), 0);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(fixture_open(&f), 0);
    for (uint64_t n = 0; n < FILES; n++)
        make_unnumbered(n);
    assert_int_equal(fill_with_extents(ino) > count * 9 / 10, true);
    close_volume();
}

/* ---- Rolls that fail ---- */

static struct {
    const char *end; /* of the names of files that cannot be made */
    int err;
    unsigned creates, syncs;
} refused;

static int refuse(void *arg, enum hook_op op, const char *name)
{
    size_t len = strlen(name), end = strlen(refused.end);

    (void)arg;
    refused.syncs += op == HOOK_SYNC;
    if (op != HOOK_CREATE || len < end || strcmp(name + len - end, refused.end) != 0)
        return 0;
    refused.creates++;
    return refused.err;
}

/* Files are made until one fails for that. Returns how many. */
static uint64_t make_until_refused(const char *end, int err)
{
    uint64_t made = 0, ino;
    struct keg_stats stats;
    int result;

    refused.end = end;
    refused.err = err;
    refused.creates = refused.syncs = 0;
    hook.fn = refuse;
    while ((result = make_file(made, &ino)) == 0) {
        volume_forget(f.volume, ino, 1);
        made++;
    }
    keg_stats(f.keg, &stats);
    print_message("%s: %" PRIu64 " files, %u attempts to roll, %u syncs\n", end, made,
                  refused.creates, refused.syncs);
    assert_int_equal(result, err);
    assert_true(stats.data_bytes <= SEGMENT);
    assert_true(refused.creates > 0 && refused.creates <= ROLLS_TRIED);
    assert_true(refused.syncs <= ROLLS_TRIED);
    return made;
}

/* There are bytes, so deletions go on: the segment gets as much again, all for them. */
static void delete_without_rolls(const char *end)
{
    uint64_t deleted = 0, ino;
    struct keg_stats stats;

    open_volume(VOLUME_NO_BACKGROUND, 0, SEGMENT);
    uint64_t made = make_until_refused(end, -ENOSPC);
    while (deleted < made && unlink_file(deleted) == 0)
        deleted++;
    print_message("%" PRIu64 " of %" PRIu64 " deleted\n", deleted, made);
    keg_stats(f.keg, &stats);
    assert_true(stats.data_bytes > 2 * SEGMENT - (4 << 10));
    assert_true(deleted > made / 2);
    assert_int_equal(make_file(made, &ino), -ENOSPC);
    hook.fn = NULL;
    for (; deleted < made; deleted++)
        assert_int_equal(unlink_file(deleted), 0);
    make_unnumbered(made);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    close_volume();
}

static void test_without_inodes_deletions_have_a_segment_to_go_on(void **state)
{
    (void)state;
    delete_without_rolls(".data");
}

static void test_without_room_for_the_manifest_deletions_have_a_segment_to_go_on(void **state)
{
    (void)state;
    delete_without_rolls("MANIFEST.tmp");
}

static void test_without_descriptors_a_segment_ends_at_its_end(void **state)
{
    (void)state;
    open_volume(VOLUME_NO_BACKGROUND, 0, SEGMENT);
    uint64_t made = make_until_refused(".data", -EMFILE);
    assert_int_equal(unlink_file(0), -EMFILE);
    hook.fn = NULL;
    make_unnumbered(made);
    assert_int_equal(unlink_file(0), 0);
    close_volume();
}

/* ---- A long change ---- */

static bool wait_for(sem_t *semaphore)
{
    struct timespec until;
    int err;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    while ((err = sem_timedwait(semaphore, &until)) != 0 && errno == EINTR)
        ;
    return err == 0;
}

enum { EXTENTS = SANITIZED ? 10000 : 20000 };

static struct {
    uint64_t ino, frames;
    sem_t next, written;
    bool alone; /* nobody wrote in time; of the one that punches, until it has ended */
    bool ended; /* before the last `next` */
} puncher;

static _Thread_local bool punching;

int __real_keg_commit(struct keg *keg, const struct keg_batch *batch, unsigned flags);
int __wrap_keg_commit(struct keg *keg, const struct keg_batch *batch, unsigned flags);

/* Before each of its frames the other file is written. */
int __wrap_keg_commit(struct keg *keg, const struct keg_batch *batch, unsigned flags)
{
    if (punching && !puncher.alone) {
        puncher.frames++;
        sem_post(&puncher.next);
        puncher.alone = !wait_for(&puncher.written);
    }
    return __real_keg_commit(keg, batch, flags);
}

static void *punch_all(void *arg)
{
    (void)arg;
    punching = true;
    intptr_t err = punch(puncher.ino, 0, (uint64_t)EXTENTS * APART);
    punching = false;
    puncher.ended = true;
    sem_post(&puncher.next);
    return (void *)err;
}

static uint8_t stripe_of(uint64_t ino)
{
    struct lockset set;

    inodes_lock(f.volume, &set, &ino, 1);
    inodes_unlock(f.volume, &set);
    return set.stripes[0];
}

static void test_a_long_punch_lets_another_file_be_written(void **state)
{
    uint64_t other, n = 0;
    struct keg_stats before, after;
    pthread_t thread;
    void *err;

    (void)state;
    open_volume(0, 0, 256 << 10);
    assert_int_equal(make_file(n++, &puncher.ino), 0);
    do
        assert_int_equal(make_file(n++, &other), 0);
    while (stripe_of(other) == stripe_of(puncher.ino));
    for (uint64_t i = 0; i < EXTENTS; i++)
        assert_int_equal(volume_write(f.volume, puncher.ino, i * APART, "x", 1, 0), 1);
    assert_int_equal(sem_init(&puncher.next, 0, 0), 0);
    assert_int_equal(sem_init(&puncher.written, 0, 0), 0);
    keg_stats(f.keg, &before);
    assert_int_equal(pthread_create(&thread, NULL, punch_all, NULL), 0);
    for (;;) {
        while (sem_wait(&puncher.next))
            ;
        if (puncher.ended)
            break;
        assert_int_equal(volume_write(f.volume, other, 0, bytes, 8 << 10, 0), 8 << 10);
        sem_post(&puncher.written);
    }
    assert_int_equal(pthread_join(thread, &err), 0);
    keg_stats(f.keg, &after);
    print_message("%" PRIu64 " frames of a punch, %" PRIu64 " rolls\n", puncher.frames,
                  after.segments - before.segments);
    assert_ptr_equal(err, NULL);
    assert_false(puncher.alone);
    assert_true(after.segments > before.segments);
    close_volume();
}

/* ---- A publication that hangs ---- */

enum { PIECE = 4 << 10, PIECES = 128 };

static struct {
    atomic_bool armed;
    sem_t reached, go;
} stop;

static int stop_at_manifest(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    if (op == HOOK_PUBLISH && strcmp(name, "MANIFEST") == 0 &&
        atomic_exchange(&stop.armed, false)) {
        sem_post(&stop.reached);
        sem_wait(&stop.go);
    }
    return 0;
}

static void *write_hint(void *arg)
{
    (void)arg;
    return (void *)(intptr_t)keg_hint(f.keg);
}

static void *put_pieces(void *arg)
{
    intptr_t err = 0;

    (void)arg;
    for (int i = 0; !err && i < PIECES; i++)
        err = keg_put(f.keg, fixture_text("x"), (struct keg_bytes){0},
                      (struct keg_bytes){bytes, PIECE}, 0);
    return (void *)err;
}

/* More is put than may be without a look at what is free, and at what has to stay so. */
static void test_an_append_does_not_wait_while_a_hint_is_published(void **state)
{
    struct timespec until;
    pthread_t hinter, putter;
    void *err;

    (void)state;
    open_volume(0, 64 << 20, SEGMENT);
    make_unnumbered(0);
    assert_int_equal(sem_init(&stop.reached, 0, 0), 0);
    assert_int_equal(sem_init(&stop.go, 0, 0), 0);
    atomic_store(&stop.armed, true);
    hook.fn = stop_at_manifest;
    assert_true(f.keg->room_for_puts < (uint64_t)PIECE * PIECES);
    assert_int_equal(pthread_create(&hinter, NULL, write_hint, NULL), 0);
    assert_true(wait_for(&stop.reached));
    assert_int_equal(pthread_create(&putter, NULL, put_pieces, NULL), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    if (pthread_timedjoin_np(putter, &err, &until) != 0) {
        print_error("an append waits for a publication\n");
        _Exit(1); /* the threads outlive a failure */
    }
    assert_ptr_equal(err, NULL);
    sem_post(&stop.go);
    assert_int_equal(pthread_join(hinter, &err), 0);
    assert_ptr_equal(err, NULL);
    hook.fn = NULL;
    assert_int_equal(keg_delete(f.keg, fixture_text("x"), 0), 0);
    close_volume();
}

/* ---- The end of a volume ---- */

enum { STAGED = 9000 };

/* New contents that wait for the end are committed then, one after another: more frames than the
 * floor has room for without a compaction between them. */
static void test_the_end_of_a_volume_on_a_full_disk_takes_no_more_than_there_is(void **state)
{
    static uint64_t staged[STAGED];
    const struct volume_attr empty = {.size = 0};
    struct volume_attr attr;
    uint64_t count = 0, ino;

    (void)state;
    open_volume(0, 8 << 20, 256 << 10);
    for (uint64_t i = 0; i < STAGED; i++) {
        assert_int_equal(make_file(2000000 + i, &staged[i]), 0);
        assert_int_equal(volume_write(f.volume, staged[i], 0, "old", 3, 0), 3);
        assert_int_equal(volume_writer_open(f.volume, staged[i], false), 0);
        assert_int_equal(volume_setattr(f.volume, staged[i], VOLUME_SET_SIZE, &empty, &attr), 0);
        assert_int_equal(volume_write(f.volume, staged[i], 0, "new!", 4, 0), 4);
    }
    for (; make_file(count, &ino) == 0; count++)
        volume_forget(f.volume, ino, 1);
    for (uint64_t n = 0; n < count && !atomic_load(&f.keg->space_low); n++)
        assert_int_equal(unlink_file(n), 0);
    assert_true(atomic_load(&f.keg->space_low));
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    for (uint64_t i = 0; i < STAGED; i++) {
        assert_int_equal(volume_getattr(f.volume, staged[i], &attr), 0);
        assert_int_equal(attr.size, 4);
    }
    close_volume();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_end_of_a_volume_on_a_full_disk_takes_no_more_than_there_is),
        cmocka_unit_test(test_what_was_deleted_is_room_again_with_frames_as_large_as_segments),
        cmocka_unit_test(test_one_punch_empties_a_full_disk),
        cmocka_unit_test(test_without_inodes_deletions_have_a_segment_to_go_on),
        cmocka_unit_test(test_without_room_for_the_manifest_deletions_have_a_segment_to_go_on),
        cmocka_unit_test(test_without_descriptors_a_segment_ends_at_its_end),
        cmocka_unit_test(test_a_long_punch_lets_another_file_be_written),
        cmocka_unit_test(test_an_append_does_not_wait_while_a_hint_is_published),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests_name("full_gate", tests, NULL, NULL);
}
