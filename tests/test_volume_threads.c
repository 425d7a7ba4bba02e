/* SPDX-License-Identifier: MIT */
/*
 * The namespace from several threads at once, with its own thread and the store's: made for the
 * thread sanitizer. Whatever order they ran in, the tree is sound, and what only one thread has
 * written reads as it was written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "random.h"
#include "volume_fixture.h"
#include <errno.h>
#include <stdlib.h>

enum { THREADS = 4, ROUNDS = 6000, SHARED_DIRS = 3, OWN_SIZE = 5000 };

static struct fixture f;
static atomic_bool failed;

struct worker {
    pthread_t thread;
    struct random random;
    uint64_t own; /* inode that only this thread uses */
    uint8_t fill;
};

static void complain(const char *what, int error)
{
    printf("%s: %d\n", what, error);
    atomic_store(&failed, true);
}

/* What calls on names that others change meanwhile may return. */
static void expect_usual(const char *what, ssize_t result)
{
    if (result < 0 && result != -ENOENT && result != -EEXIST && result != -ENOTEMPTY &&
        result != -EISDIR && result != -ENOTDIR && result != -EINVAL && result != -EPERM)
        complain(what, (int)result);
}

static uint64_t below(struct worker *w, uint64_t bound)
{
    return random_below(&w->random, bound);
}

static struct keg_bytes some_name(struct worker *w, char buf[4])
{
    buf[0] = (char)('a' + below(w, 6));
    return (struct keg_bytes){buf, 1};
}

/* The root or one of the directories in it. */
static uint64_t some_dir(struct worker *w)
{
    static const char *const names[SHARED_DIRS] = {"a", "b", "c"};
    struct volume_attr attr;
    uint64_t which = below(w, SHARED_DIRS + 1);
    if (which == SHARED_DIRS ||
        volume_lookup(f.volume, VOLUME_ROOT, fixture_text(names[which]), &attr) != 0)
        return VOLUME_ROOT;
    volume_forget(f.volume, attr.ino, 1);
    return attr.ino;
}

static void make(struct worker *w)
{
    char buf[4];
    struct volume_attr attr;
    const struct volume_new new = {.mode = below(w, 2) ? S_IFREG | 0644 : S_IFDIR | 0755};
    int error = volume_make(f.volume, some_dir(w), some_name(w, buf), &new, &attr);
    expect_usual("make", error);
    if (error)
        return;
    if (S_ISREG(attr.mode))
        expect_usual("write", volume_write(f.volume, attr.ino, 0, "shared", 6, 0));
    volume_forget(f.volume, attr.ino, 1);
}

static void read_shared(struct worker *w)
{
    char name[4], buf[16];
    struct volume_attr attr;
    if (volume_lookup(f.volume, some_dir(w), some_name(w, name), &attr) != 0)
        return;
    ssize_t n = volume_read(f.volume, attr.ino, 0, buf, sizeof buf);
    expect_usual("read", n);
    if (n > 0 && (n != 6 || memcmp(buf, "shared", 6) != 0))
        complain("what was read", (int)n);
    struct volume_attr zero = {.size = 0};
    if (n > 0 && below(w, 2)) {
        expect_usual("truncate", volume_setattr(f.volume, attr.ino, VOLUME_SET_SIZE, &zero, &zero));
        expect_usual("write", volume_write(f.volume, attr.ino, 0, "shared", 6, 0));
    }
    volume_forget(f.volume, attr.ino, 1);
}

static void change_names(struct worker *w)
{
    char a[4], b[4];
    uint64_t dir = some_dir(w), to = some_dir(w);
    struct keg_bytes name = some_name(w, a), new = some_name(w, b);
    struct volume_attr attr;
    switch (below(w, 5)) {
    case 0:
        expect_usual("unlink", volume_unlink(f.volume, dir, name));
        break;
    case 1:
        expect_usual("rmdir", volume_rmdir(f.volume, dir, name));
        break;
    case 2:
        expect_usual("exchange", volume_rename(f.volume, dir, name, to, new, VOLUME_EXCHANGE));
        break;
    case 3:
        if (volume_lookup(f.volume, dir, name, &attr) == 0) {
            struct volume_attr linked;
            int error = volume_link(f.volume, attr.ino, to, new, &linked);
            expect_usual("link", error);
            volume_forget(f.volume, attr.ino, error ? 1 : 2);
        }
        break;
    default:
        expect_usual("rename", volume_rename(f.volume, dir, name, to, new, 0));
    }
}

static bool count(void *arg, const struct volume_dirent *entry)
{
    ++*(unsigned *)arg;
    volume_forget(f.volume, entry->attr.ino, 1);
    return true;
}

/* Its own file must be as it left it, also while it is truncated and written over. */
static void use_own(struct worker *w)
{
    static const struct volume_attr zero;
    uint8_t data[OWN_SIZE], read[OWN_SIZE];
    struct volume_attr attr;
    ssize_t n = volume_read(f.volume, w->own, 0, read, OWN_SIZE);
    for (ssize_t i = 0; i < n; i++) {
        if (read[i] != w->fill) {
            complain("own file", (int)i);
            return;
        }
    }
    if (n < 0)
        complain("own read", (int)n);
    memset(data, ++w->fill, sizeof data);
    int error = volume_setattr(f.volume, w->own, VOLUME_SET_SIZE, &zero, &attr);
    if (error)
        complain("own truncate", error);
    n = volume_write(f.volume, w->own, 0, data, 1 + below(w, OWN_SIZE), 0);
    if (n < 0)
        complain("own write", (int)n);
    if (below(w, 50) == 0)
        expect_usual("sync", volume_sync(f.volume, w->own));
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct volume_statfs st;
    unsigned entries = 0;
    for (int i = 0; i < ROUNDS && !atomic_load(&failed); i++) {
        switch (below(w, 8)) {
        case 0:
        case 1:
            make(w);
            break;
        case 2:
            read_shared(w);
            break;
        case 3:
        case 4:
            change_names(w);
            break;
        case 5:
            expect_usual("readdir",
                         volume_readdir(f.volume, some_dir(w), 0, true, count, &entries));
            break;
        default:
            use_own(w);
        }
        if (below(w, 300) == 0 && volume_check(f.volume, fixture_print, NULL) != 0)
            complain("check", i);
        if (below(w, 300) == 0)
            expect_usual("statfs", volume_statfs(f.volume, &st));
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct worker workers[THREADS] = {0};
    struct random random = random_seeded();
    const struct volume_new file = {.mode = S_IFREG | 0600};
    assert_int_equal(env_mem(0, &f.env), 0);
    f.volume_flags = VOLUME_RELATIME;
    assert_int_equal(fixture_open(&f), 0);
    for (int i = 0; i < THREADS; i++) {
        char name[8];
        struct volume_attr attr;
        snprintf(name, sizeof name, "own%d", i);
        assert_int_equal(volume_make(f.volume, 1, fixture_text(name), &file, &attr), 0);
        workers[i].own = attr.ino;
        workers[i].random.state = random_next(&random);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    assert_false(atomic_load(&failed));
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    assert_int_equal(f.damage_lines, 0);
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(f.env);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests_name("volume_threads", tests, NULL, NULL);
}
