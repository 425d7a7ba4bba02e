/* SPDX-License-Identifier: MIT */
/*
 * Who changes an inode holds its lock until the frame is in the log. What may take long is over
 * before that: whoever only reads goes on while the log rolls, and while a deletion on a full disk
 * waits for a compaction.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hook.h"
#include "volume_fixture.h"
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

enum {
    FILES = 2000, /* every stripe has some */
    WRITERS = 4,
    SIZE = 30000,
    PATIENCE = 15, /* seconds, for what takes milliseconds */
};

static struct fixture f;
static struct hook hook;
static uint64_t files[FILES];
static size_t file_count;

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

/* ---- The operation that does not return before it is let go ---- */

static struct {
    enum hook_op op;
    const char *end; /* of the file's name */
    atomic_bool armed;
    sem_t reached, go;
} stop;

/* Where writers take too long for a roll to wait for them it is one of these that rolls later. */
static _Thread_local bool at_the_entry;

int __real_commit_roll(struct keg *keg, bool due);
int __wrap_commit_roll(struct keg *keg, bool due);

int __wrap_commit_roll(struct keg *keg, bool due)
{
    at_the_entry = due;
    int err = __real_commit_roll(keg, due);
    at_the_entry = false;
    return err;
}

static int stop_there(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    if (!atomic_load(&stop.armed) || op != stop.op || (op == HOOK_PUBLISH && !at_the_entry))
        return 0;
    size_t len = strlen(name), end = strlen(stop.end);
    if (len < end || strcmp(name + len - end, stop.end) != 0)
        return 0;
    if (atomic_exchange(&stop.armed, false)) {
        sem_post(&stop.reached);
        sem_wait(&stop.go);
    }
    return 0;
}

static void stop_at(enum hook_op op, const char *end)
{
    stop.op = op;
    stop.end = end;
    sem_init(&stop.reached, 0, 0);
    sem_init(&stop.go, 0, 0);
    atomic_store(&stop.armed, true);
}

static bool wait_for(sem_t *semaphore)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    int err;
    while ((err = sem_timedwait(semaphore, &until)) != 0 && errno == EINTR)
        ;
    return err == 0;
}

/* ---- Reading all there is ---- */

static void *read_everything(void *arg)
{
    static uint8_t buf[SIZE];
    struct volume_attr attr;
    uintptr_t failures = volume_getattr(f.volume, VOLUME_ROOT, &attr) != 0;
    (void)arg;
    for (size_t i = 0; i < file_count; i++) {
        failures += volume_getattr(f.volume, files[i], &attr) != 0;
        failures += volume_read(f.volume, files[i], 0, buf, sizeof buf) < 0;
    }
    return (void *)failures;
}

/* Whether all can be read now. The threads outlive a failure, so the process ends with it. */
static void expect_readable(void)
{
    pthread_t reader;
    struct timespec until;
    void *failures;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    assert_int_equal(pthread_create(&reader, NULL, read_everything, NULL), 0);
    if (pthread_timedjoin_np(reader, &failures, &until) != 0) {
        print_error("a reader waits for what a writer waits for\n");
        _Exit(1);
    }
    assert_ptr_equal(failures, NULL);
}

static void open_volume(unsigned flags, uint64_t disk, uint64_t segment_size)
{
    struct keg_env *below;
    assert_int_equal(env_mem(disk, &below), 0);
    hook_init(&hook, below);
    hook.fn = stop_there;
    f = (struct fixture){.env = &hook.env,
                         .volume_flags = flags,
                         .keg_flags = KEG_NO_BACKGROUND,
                         .seconds = 1790000000,
                         .segment_size = segment_size};
    assert_int_equal(fixture_open(&f), 0);
    file_count = 0;
}

static void close_volume(void)
{
    struct keg_env *below = hook.below;
    assert_int_equal(volume_tend(f.volume), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(below);
}

/* ---- The tests ---- */

static atomic_bool enough;

static void *write_own(void *arg)
{
    static const uint8_t bytes[SIZE];
    const uint64_t first = (uintptr_t)arg;
    uintptr_t failures = 0;
    for (uint64_t i = first; !atomic_load(&enough); i = i + WRITERS < FILES ? i + WRITERS : first)
        failures += volume_write(f.volume, files[i], 0, bytes, sizeof bytes, 0) != SIZE;
    return (void *)failures;
}

static void test_reads_go_on_while_the_log_rolls(void **state)
{
    pthread_t writers[WRITERS];
    void *failures;
    (void)state;
    open_volume(VOLUME_RELATIME, 0, 1 << 20);
    for (file_count = 0; file_count < FILES; file_count++)
        assert_int_equal(make_file(file_count, &files[file_count]), 0);
    for (int round = 0; round < 3; round++) {
        atomic_store(&enough, false);
        stop_at(HOOK_PUBLISH, "MANIFEST");
        for (uintptr_t i = 0; i < WRITERS; i++)
            assert_int_equal(pthread_create(&writers[i], NULL, write_own, (void *)i), 0);
        assert_true(wait_for(&stop.reached));
        expect_readable();
        atomic_store(&enough, true);
        sem_post(&stop.go);
        for (int i = 0; i < WRITERS; i++) {
            assert_int_equal(pthread_join(writers[i], &failures), 0);
            assert_ptr_equal(failures, NULL);
        }
    }
    close_volume();
}

static void *unlink_all(void *arg)
{
    uintptr_t failures = 0;
    char buf[24];
    (void)arg;
    for (uint64_t n = FILES; n < (uint64_t)(uintptr_t)arg; n++)
        failures += volume_unlink(f.volume, VOLUME_ROOT, name_of(n, buf)) != 0;
    return (void *)failures;
}

static void test_reads_go_on_while_a_deletion_waits_for_space(void **state)
{
    uint64_t count = 0, ino;
    pthread_t deleter;
    void *failures;
    int err;
    (void)state;
    open_volume(VOLUME_RELATIME, 4 << 20, 256 << 10);
    while ((err = make_file(count, &ino)) == 0) {
        if (count < FILES)
            files[file_count++] = ino;
        else
            volume_forget(f.volume, ino, 1);
        count++;
    }
    assert_int_equal(err, -ENOSPC);
    assert_true(count > 2 * FILES);
    /* Only a compaction removes segments, and nobody asks for one. */
    stop_at(HOOK_REMOVE, ".data");
    assert_int_equal(pthread_create(&deleter, NULL, unlink_all, (void *)(uintptr_t)count), 0);
    assert_true(wait_for(&stop.reached));
    expect_readable();
    sem_post(&stop.go);
    assert_int_equal(pthread_join(deleter, &failures), 0);
    assert_ptr_equal(failures, NULL);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    close_volume();
}

static void test_reads_go_on_while_the_store_is_checked(void **state)
{
    (void)state;
    open_volume(VOLUME_RELATIME, 0, 1 << 20);
    for (file_count = 0; file_count < FILES; file_count++)
        assert_int_equal(make_file(file_count, &files[file_count]), 0);
    keg_quiesce(f.keg);
    expect_readable();
    keg_resume(f.keg);
    close_volume();
}

static sem_t written;

static void *write_one(void *arg)
{
    (void)arg;
    assert_int_equal(volume_write(f.volume, files[0], 0, "x", 1, 0), 1);
    sem_post(&written);
    return NULL;
}

/* Of what does not happen a tenth of a second is seen. */
static void test_nothing_changes_while_the_store_is_checked(void **state)
{
    pthread_t writer;
    struct timespec until;
    struct keg_stats before, after;
    (void)state;
    open_volume(0, 0, 1 << 20);
    assert_int_equal(make_file(0, &files[0]), 0);
    assert_int_equal(sem_init(&written, 0, 0), 0);
    keg_quiesce(f.keg);
    keg_stats(f.keg, &before);
    assert_int_equal(pthread_create(&writer, NULL, write_one, NULL), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    assert_int_equal(sem_timedwait(&written, &until), -1);
    keg_stats(f.keg, &after);
    assert_int_equal(before.sequence, after.sequence);
    keg_resume(f.keg);
    assert_true(wait_for(&written));
    assert_int_equal(pthread_join(writer, NULL), 0);
    close_volume();
}

/* ---- When the log rolls ---- */

enum { SEGMENT = 256 << 10, DUE = SEGMENT * 3 / 4, VALUE = 4000 };

static uint64_t segments(void)
{
    struct keg_stats stats;
    keg_stats(f.keg, &stats);
    return stats.segments;
}

/* Appends to the active segment, of which `bytes` are used: returns how much are then. */
static uint64_t put_one(uint64_t bytes)
{
    static const uint8_t value[VALUE];
    struct keg_stats before, after;
    keg_stats(f.keg, &before);
    assert_int_equal(keg_put(f.keg, fixture_text("x"), (struct keg_bytes){0},
                             (struct keg_bytes){value, sizeof value}, 0),
                     0);
    keg_stats(f.keg, &after);
    return bytes + after.append_bytes - before.append_bytes;
}

static void enter_and_leave(void)
{
    keg_enter(f.keg);
    keg_leave(f.keg);
}

static uint64_t open_for_rolls(void)
{
    struct keg_stats stats;
    open_volume(VOLUME_NO_BACKGROUND, 0, SEGMENT);
    keg_stats(f.keg, &stats);
    return stats.data_bytes;
}

static void close_after_rolls(void)
{
    assert_int_equal(keg_delete(f.keg, fixture_text("x"), 0), 0);
    close_volume();
}

/* Before it is full, and not before it is nearly full. */
static void test_the_log_rolls_at_the_entry(void **state)
{
    (void)state;
    uint64_t used = open_for_rolls(), count = segments();
    while (used < DUE - VALUE) {
        used = put_one(used);
        enter_and_leave();
        assert_int_equal(segments(), count);
    }
    while (used <= DUE)
        used = put_one(used);
    assert_int_equal(segments(), count);
    enter_and_leave();
    assert_int_equal(segments(), count + 1);
    close_after_rolls();
}

static sem_t inside, outside;

static void *stay_inside(void *arg)
{
    (void)arg;
    keg_enter(f.keg);
    sem_post(&inside);
    sem_wait(&outside);
    keg_leave(f.keg);
    return NULL;
}

/* With somebody inside who takes long, the others go on; the log rolls when it has to, and before
 * that when he is gone. */
static void test_who_stays_inside_holds_nobody_up(void **state)
{
    pthread_t thread;
    (void)state;
    for (int gone = 0; gone < 2; gone++) {
        uint64_t used = open_for_rolls(), count = segments();
        assert_int_equal(sem_init(&inside, 0, 0), 0);
        assert_int_equal(sem_init(&outside, 0, 0), 0);
        assert_int_equal(pthread_create(&thread, NULL, stay_inside, NULL), 0);
        assert_true(wait_for(&inside));
        while (used < (gone ? DUE + 6 * VALUE : SEGMENT - 6 * VALUE)) {
            used = put_one(used);
            enter_and_leave();
            assert_int_equal(segments(), count);
        }
        if (gone) {
            sem_post(&outside);
            assert_int_equal(pthread_join(thread, NULL), 0);
        }
        while (segments() == count && used < 2 * SEGMENT) {
            used = put_one(used);
            enter_and_leave();
        }
        assert_int_equal(segments(), count + 1);
        assert_true(gone ? used < SEGMENT - 2 * VALUE : used > SEGMENT - VALUE);
        if (!gone) {
            sem_post(&outside);
            assert_int_equal(pthread_join(thread, NULL), 0);
        }
        close_after_rolls();
    }
}

/* ---- Stripes that come in the wrong order ---- */

static sem_t refused;

int __real_pthread_rwlock_trywrlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_trywrlock(pthread_rwlock_t *lock);

int __wrap_pthread_rwlock_trywrlock(pthread_rwlock_t *lock)
{
    int err = __real_pthread_rwlock_trywrlock(lock);
    if (err == EBUSY && lock >= &f.volume->stripes[0].lock &&
        lock <= &f.volume->stripes[STRIPES - 1].lock)
        sem_post(&refused);
    return err;
}

static uint8_t stripe_of(uint64_t ino)
{
    struct lockset set;
    inodes_lock(f.volume, &set, &ino, 1);
    inodes_unlock(f.volume, &set);
    return set.stripes[0];
}

static uint64_t make_in(uint64_t dir, const char *name, uint32_t mode)
{
    const struct volume_new new = {.mode = mode};
    struct volume_attr attr;
    assert_int_equal(volume_make(f.volume, dir, fixture_text(name), &new, &attr), 0);
    return attr.ino;
}

static void *unlink_in(void *dir)
{
    return (void *)(intptr_t)volume_unlink(f.volume, *(uint64_t *)dir, fixture_text("file"));
}

/* A file's stripe is taken, and comes before its directory's: who unlinks it waits with none. */
static void test_who_waits_against_the_order_lets_go(void **state)
{
    uint64_t dir, file;
    char buf[24];
    pthread_t deleter;
    struct timespec until;
    void *result;
    (void)state;
    open_volume(0, 0, 1 << 20);
    assert_int_equal(sem_init(&refused, 0, 0), 0);
    for (unsigned n = 0;; n++) {
        snprintf(buf, sizeof buf, "%u", n);
        dir = make_in(VOLUME_ROOT, buf, S_IFDIR | 0755);
        file = make_in(dir, "file", S_IFREG | 0644);
        if (stripe_of(file) < stripe_of(dir))
            break;
    }
    pthread_rwlock_t *held = &f.volume->stripes[stripe_of(dir)].lock;
    inodes_lock_one(f.volume, file);
    assert_int_equal(pthread_create(&deleter, NULL, unlink_in, &dir), 0);
    assert_true(wait_for(&refused));
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    assert_int_equal(pthread_rwlock_timedwrlock(held, &until), 0);
    pthread_rwlock_unlock(held);
    inodes_unlock_one(f.volume, file);
    assert_int_equal(pthread_join(deleter, &result), 0);
    assert_ptr_equal(result, NULL);
    close_volume();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_waits_against_the_order_lets_go),
        cmocka_unit_test(test_the_log_rolls_at_the_entry),
        cmocka_unit_test(test_who_stays_inside_holds_nobody_up),
        cmocka_unit_test(test_nothing_changes_while_the_store_is_checked),
        cmocka_unit_test(test_reads_go_on_while_the_store_is_checked),
        cmocka_unit_test(test_reads_go_on_while_the_log_rolls),
        cmocka_unit_test(test_reads_go_on_while_a_deletion_waits_for_space),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests_name("volume_gate", tests, NULL, NULL);
}
