/* SPDX-License-Identifier: MIT */
/* What the volume keeps in memory of inodes is bounded, whatever is done to how many. */
#include "volume_case.h"

#include "requests.h"

enum { FILES = 300, MOST = 20 };

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
        TEST(test_times_of_access_are_bounded),     TEST(test_the_default_is_mebibytes),
        TEST(test_truncations_are_bounded),         TEST(test_truncations_stay_longest),
        TEST(test_what_is_forgotten_takes_nothing), cmocka_unit_test(test_requests_that_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
