/* SPDX-License-Identifier: MIT */
/*
 * Far more segments than the process may have files open: hints are loaded some together and the
 * rest one by one, readers share what descriptors there are, and compaction merges and settles
 * tombstones all the same.
 */
#include "keg.h"
#include <dirent.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILES = 256, KEYS = 2600, VALUE = 8000, READERS = 4 }; /* 7 or 8 values fill a segment */

static char top[] = "/tmp/kegfs-descriptors.XXXXXX", *dir = top;
static struct keg_env *env;

static struct keg *open_store(void)
{
    struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                  .segment_size = 64 << 10};
    struct keg *keg;

    assert_int_equal(keg_env_posix(dir, false, &env), 0);
    assert_int_equal(keg_open(env, &options, &keg), 0);
    assert_null(keg_readonly_reason(keg));
    return keg;
}

static void close_store(struct keg *keg)
{
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static struct keg_bytes name(unsigned n, char *buf, size_t size)
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, size, "key %u", n)};
}

static struct keg_bytes value(unsigned n, char *buf)
{
    memset(buf, (int)(n % 251 + 1), VALUE);
    return (struct keg_bytes){buf, VALUE};
}

static void expect(struct keg *keg, unsigned every)
{
    static char want[VALUE], got[VALUE];
    char buf[20];

    for (unsigned n = 0; n < KEYS; n++) {
        ssize_t len = keg_read(keg, name(n, buf, sizeof buf), 0, got, sizeof got);

        assert_int_equal(len < 0, n % every != 0);
        if (n % every == 0)
            assert_memory_equal(got, value(n, want).data, VALUE);
    }
}

/* Readers that open and close one another's files all the time. */
struct reader {
    pthread_t thread;
    struct keg *keg;
    unsigned step; /* which of the keys is next */
    unsigned wrong;
};

static void *read_all(void *arg)
{
    struct reader *reader = arg;
    char buf[20], got[VALUE], want[VALUE];

    for (unsigned i = 0, n = 0; i < KEYS; i++, n = (n + reader->step) % KEYS) {
        ssize_t len = keg_read(reader->keg, name(n, buf, sizeof buf), 0, got, sizeof got);

        reader->wrong += len != VALUE || memcmp(got, value(n, want).data, VALUE) != 0;
    }
    return NULL;
}

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *fds = opendir("/proc/self/fd");

    assert_non_null(fds);
    while (readdir(fds))
        count++;
    closedir(fds);
    return count;
}

static void expect_shared_descriptors(struct keg *keg)
{
    struct reader readers[READERS];
    static const unsigned steps[READERS] = {1, 7, 31, 1009}; /* coprime to KEYS: each reads all */

    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.keg = keg, .step = steps[i]};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]), 0);
    }
    for (unsigned i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
        assert_int_equal(readers[i].wrong, 0);
    }
    /* A quarter, the store's own, the test's; readers may have added one each. */
    assert_in_range(open_files(), FILES / 8, FILES / 4 + 16);
}

static bool is_open(const char *file)
{
    char path[300], target[300];
    bool found = false;
    struct dirent *entry;
    DIR *fds = opendir("/proc/self/fd");

    assert_non_null(fds);
    while ((entry = readdir(fds))) {
        (void)snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        ssize_t len = readlink(path, target, sizeof target - 1);
        target[len < 0 ? 0 : len] = '\0';
        found = found || strstr(target, file);
    }
    closedir(fds);
    return found;
}

/* A segment that is read now and then outlives many that are read once. */
static void expect_hot_descriptor_stays(struct keg *keg)
{
    static char got[VALUE];
    char buf[20];

    assert_int_equal(keg_read(keg, name(0, buf, sizeof buf), 0, got, sizeof got), VALUE);
    for (unsigned n = 8, i = 1; n < KEYS; n += 8, i++) {
        assert_int_equal(keg_read(keg, name(n, buf, sizeof buf), 0, got, sizeof got), VALUE);
        if (i % 10)
            continue;
        assert_true(is_open("/00000001.data"));
        assert_int_equal(keg_read(keg, name(0, buf, sizeof buf), 0, got, sizeof got), VALUE);
    }
}

static int remove_hint(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return strstr(path, ".hint") ? unlink(path) : 0;
}

static void test_more_segments_than_descriptors(void **state)
{
    const struct rlimit limit = {FILES, FILES};
    struct keg *keg = open_store();
    struct keg_stats stats;
    char buf[20], bytes[VALUE];

    (void)state;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (unsigned n = 0; n < KEYS; n++)
        assert_int_equal(
            keg_put(keg, name(n, buf, sizeof buf), (struct keg_bytes){"", 0}, value(n, bytes), 0),
            0);
    assert_int_equal(keg_hint(keg), 0);
    keg_stats(keg, &stats);
    assert_true(stats.segments > FILES + 50);
    expect(keg, 1);
    expect_shared_descriptors(keg);
    expect_hot_descriptor_stays(keg);
    close_store(keg);
    keg = open_store();
    expect(keg, 1);
    for (unsigned n = 0; n < KEYS; n++)
        if (n % 5)
            assert_int_equal(keg_delete(keg, name(n, buf, sizeof buf), 0), 0);
    close_store(keg);
    assert_int_equal(nftw(dir, remove_hint, 8, FTW_PHYS), 0);
    keg = open_store();
    expect(keg, 5);
    assert_int_equal(keg_check(keg, NULL, NULL, NULL), 0);
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    keg_stats(keg, &stats);
    assert_true(stats.data_bytes < (uint64_t)KEYS * VALUE / 2);
    expect(keg, 5);
    assert_in_range(open_files(), FILES / 8, FILES / 4 + 16); /* those that went count no more */
    close_store(keg);
    keg = open_store();
    expect(keg, 5);
    close_store(keg);
}

static int remove_any(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_more_segments_than_descriptors)};
    int failed;

    if (!mkdtemp(top))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    return nftw(top, remove_any, 8, FTW_DEPTH | FTW_PHYS) || failed;
}
