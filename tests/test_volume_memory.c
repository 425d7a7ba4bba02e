/* SPDX-License-Identifier: MIT */
/* What the volume keeps in memory of inodes is bounded, whatever is done to how many. */
#include "volume_case.h"

#include "requests.h"

#include <pthread.h>

enum { FILES = 300, MOST = 20, THREADS = 4, ROUNDS = 20 };

static uint64_t inos[FILES];

static void make_files(const char *text)
{
    for (unsigned i = 0; i < FILES; i++) {
        char name[20];
        snprintf(name, sizeof name, "file%u", i);
        inos[i] = make_file(name);
        write_text(inos[i], 0, text);
    }
}

static struct volume_memory measure(void)
{
    struct volume_memory memory;
    volume_memory(f.volume, &memory);
    return memory;
}

/* Reads each file once, and returns how many inodes were held at most. */
static uint64_t read_files(const char *text)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < FILES; i++) {
        expect_text(inos[i], 0, text);
        most = measure().held_inodes > most ? measure().held_inodes : most;
    }
    return most;
}

static bool was_read(const struct volume_attr *attr)
{
    return attr->atime.tv_sec > attr->mtime.tv_sec;
}

/* With relatime each file that was read stayed in memory until it changed. */
static void test_times_of_access_are_bounded(void **state)
{
    (void)state;
    make_files("text");
    f.volume->flags |= VOLUME_RELATIME;
    f.volume->hold_max = MOST;
    assert_in_range(read_files("text"), 1, MOST);
    for (unsigned i = 0; i < FILES; i++) {
        struct volume_attr attr = get(inos[i]);
        assert_true(was_read(&attr));
    }
    /* All but the last ones are logged. */
    crash_and_reopen();
    for (unsigned i = 0; i < FILES; i++) {
        struct volume_attr attr = get(inos[i]);
        assert_int_equal(was_read(&attr), i < FILES - MOST);
    }
}

static void test_the_default_is_mebibytes(void **state)
{
    (void)state;
    make_files("text");
    f.volume->flags |= VOLUME_RELATIME;
    assert_int_equal(read_files("text"), FILES);
    assert_in_range(f.volume->hold_max * sizeof(struct held), 31 << 20, 32 << 20);
    assert_in_range(measure().table_bytes, FILES * sizeof(struct held), 1 << 20);
}

static void test_truncations_are_bounded(void **state)
{
    (void)state;
    make_files("text");
    f.volume->hold_max = MOST;
    for (unsigned i = 0; i < FILES; i++) {
        set_size(inos[i], 0);
        assert_in_range(measure().held_inodes, 1, MOST);
    }
    crash_and_reopen();
    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(get(inos[i]).size, i < FILES - MOST ? 0 : 4);
}

/* Times of access go first: a truncation waits for its write. */
static void test_truncations_stay_longest(void **state)
{
    (void)state;
    make_files("text");
    f.volume->hold_max = MOST;
    set_size(inos[0], 0);
    f.volume->flags |= VOLUME_RELATIME;
    for (unsigned i = 1; i < FILES; i++)
        expect_text(inos[i], 0, "text");
    crash_and_reopen();
    assert_int_equal(get(inos[0]).size, 4);
}

static _Atomic time_t later = 1900000000;

static struct timespec now_of_threads(void *arg)
{
    (void)arg;
    return (struct timespec){later, 0};
}

static void *read_some(void *arg)
{
    const uint64_t *first = arg;
    char buf[4];
    for (const uint64_t *ino = first; ino < inos + FILES; ino += THREADS) {
        if (volume_read(f.volume, *ino, 0, buf, sizeof buf) != sizeof buf)
            return arg;
    }
    return NULL;
}

static void read_by_threads(void)
{
    pthread_t threads[THREADS];
    void *failed;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_some, &inos[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

/* Two that found the same one to be logged both held one more, and what was too many stayed. */
static void test_threads_keep_the_bound(void **state)
{
    (void)state;
    make_files("text");
    f.volume->now = now_of_threads;
    f.volume->flags |= VOLUME_RELATIME;
    f.volume->hold_max = MOST;
    for (int i = 0; i < ROUNDS; i++) {
        read_by_threads();
        assert_in_range(measure().held_inodes, 1, MOST + THREADS - 1);
        later += 200000;
        expect_text(inos[i], 0, "text"); /* the oldest are others */
        assert_in_range(measure().held_inodes, 1, MOST);
    }
}

static void test_what_is_too_much_is_logged_at_once(void **state)
{
    (void)state;
    make_files("text");
    f.volume->flags |= VOLUME_RELATIME;
    for (unsigned i = 1; i < FILES; i++)
        expect_text(inos[i], 0, "text");
    assert_int_equal(measure().held_inodes, FILES - 1);
    f.volume->hold_max = MOST;
    expect_text(inos[0], 0, "text");
    assert_int_equal(measure().held_inodes, MOST);
    f.volume->hold_max = MOST / 2;
    set_size(make_file("new"), 0);
    assert_int_equal(measure().held_inodes, MOST / 2);
}

/* A truncation that is refused, or needs no room, makes none. */
static void test_room_is_made_when_it_is_needed(void **state)
{
    struct volume_attr attr = {.size = 0}, out;
    (void)state;
    make_files("text");
    uint64_t dir = make(VOLUME_ROOT, "dir", S_IFDIR | 0755);
    f.volume->flags |= VOLUME_RELATIME;
    f.volume->hold_max = MOST;
    read_files("text");
    uint64_t before = frames();
    assert_int_equal(volume_setattr(f.volume, dir, VOLUME_SET_SIZE, &attr, &out), -EISDIR);
    assert_int_equal(volume_setattr(f.volume, UINT32_MAX, VOLUME_SET_SIZE, &attr, &out), -ENOENT);
    set_size(inos[FILES - 1], 0); /* held, for its time of access */
    assert_int_equal(frames(), before);
    assert_int_equal(measure().held_inodes, MOST);
    set_size(inos[0], 0);
    assert_int_equal(frames(), before + 1);
    assert_int_equal(measure().held_inodes, MOST);
}

/* Among truncations there is no room for a time of access: they wait for their writes. */
static void test_times_of_access_log_no_truncation(void **state)
{
    (void)state;
    make_files("text");
    f.volume->flags |= VOLUME_RELATIME;
    f.volume->hold_max = MOST;
    for (unsigned i = 0; i < MOST; i++)
        set_size(inos[i], 0);
    uint64_t before = frames();
    for (unsigned i = MOST; i < FILES; i++)
        expect_text(inos[i], 0, "text");
    assert_int_equal(frames(), before);
    assert_int_equal(measure().held_inodes, MOST);
}

static int setup_small(void **state)
{
    (void)state;
    f = (struct fixture){.volume_flags = VOLUME_NO_BACKGROUND,
                         .keg_flags = KEG_NO_BACKGROUND,
                         .seconds = 1790000000,
                         .segment_size = 1 << 20};
    return env_mem(16 << 20, &f.env) || fixture_open(&f) ? -1 : 0;
}

/* Until not even an inode can be logged. */
static void fill(void)
{
    static char buf[16384];
    struct volume_attr attr = {.mode = 0600}, out;
    uint64_t at = 0, ino = make_file("big");
    while (volume_write(f.volume, ino, at, buf, sizeof buf, 0) == sizeof buf)
        at += sizeof buf;
    int error = 0;
    while (!error)
        error = volume_setattr(f.volume, ino, VOLUME_SET_MODE, &attr, &out);
    assert_int_equal(error, -ENOSPC);
}

/* The reserve is for what frees space: reads on a full disk leave it alone. */
static void test_a_full_disk_drops_times_of_access(void **state)
{
    struct env_space before, after;
    (void)state;
    make_files("text");
    fill();
    f.volume->flags |= VOLUME_RELATIME;
    f.volume->hold_max = MOST;
    uint64_t logged = frames();
    assert_int_equal(env_space(f.env, &before), 0);
    for (int i = 0; i < ROUNDS; i++)
        assert_in_range(read_files("text"), 1, MOST);
    assert_int_equal(env_space(f.env, &after), 0);
    assert_int_equal(frames(), logged);
    assert_int_equal(after.free, before.free);
    for (unsigned i = 0; i < FILES; i++) {
        struct volume_attr attr = get(inos[i]);
        assert_int_equal(was_read(&attr), i >= FILES - MOST);
    }
    for (unsigned i = 0; i < FILES; i++) /* the truncations are logged nevertheless */
        set_size(inos[i], 0);
    assert_in_range(frames(), logged + FILES - MOST, UINT64_MAX);
    assert_int_equal(volume_sync(f.volume, 0), 0);
    assert_int_equal(measure().held_inodes, 0);
}

static void test_what_is_forgotten_takes_nothing(void **state)
{
    (void)state;
    make_files("text");
    assert_in_range(measure().known_inodes, FILES, FILES + 1);
    for (unsigned i = 0; i < FILES; i++)
        volume_forget(f.volume, inos[i], 1);
    assert_int_equal(measure().known_inodes, 0);
    assert_int_equal(measure().queued, 0);
}

static void test_requests_that_wait(void **state)
{
    struct requests requests = {0};
    (void)state;
    assert_true(requests_may_wait(&requests, 60, 100));
    assert_false(requests_may_wait(&requests, 41, 100));
    assert_true(requests_may_wait(&requests, 40, 100));
    assert_int_equal(requests_waiting(&requests), 100);
    requests_waited(&requests, 60);
    assert_int_equal(requests_waiting(&requests), 40);
    assert_false(requests_may_wait(&requests, UINT64_MAX - 40, 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_times_of_access_are_bounded),
        TEST(test_the_default_is_mebibytes),
        TEST(test_truncations_are_bounded),
        TEST(test_truncations_stay_longest),
        TEST(test_threads_keep_the_bound),
        TEST(test_what_is_too_much_is_logged_at_once),
        TEST(test_room_is_made_when_it_is_needed),
        TEST(test_times_of_access_log_no_truncation),
        cmocka_unit_test_setup_teardown(test_a_full_disk_drops_times_of_access, setup_small,
                                        teardown),
        TEST(test_what_is_forgotten_takes_nothing),
        cmocka_unit_test(test_requests_that_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
