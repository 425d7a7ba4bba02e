/* SPDX-License-Identifier: MIT */
/*
 * What env.h promises, asked of every environment: on a disk (TEST_DIR, else /var/tmp, which has a
 * page cache to get past), on tmpfs, in memory, and on the model of a disk with nothing failing.
 */
#include "env.h"
#include "env_fault.h"
#include "random.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum kind { DISK, TMPFS, MEMORY, MODEL };

struct world {
    enum kind kind;
    char dir[256];
    struct keg_env *env;
};

static struct random dice;

/* ---- Setting up ---- */

static int open_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void begin(struct world *world, enum kind kind)
{
    const char *base = getenv("TEST_DIR");

    *world = (struct world){.kind = kind};
    if (kind == MEMORY) {
        assert_int_equal(env_mem(0, &world->env), 0);
    } else if (kind == MODEL) {
        assert_int_equal(env_fault(0, &world->env), 0);
    } else {
        if (kind == TMPFS)
            base = "/dev/shm";
        snprintf(world->dir, sizeof world->dir, "%s/kegfs-env-XXXXXX", base ? base : "/var/tmp");
        assert_non_null(mkdtemp(world->dir));
        assert_int_equal(keg_env_posix(world->dir, false, &world->env), 0);
    }
}

static int remove_one(void *arg, const char *name)
{
    return env_remove(arg, name);
}

static void end(struct world *world)
{
    char path[300];

    if (world->kind == MODEL)
        assert_int_equal(env_fault_open_files(world->env), 0);
    assert_int_equal(env_list(world->env, remove_one, world->env), 0);
    keg_env_free(world->env);
    if (world->kind > TMPFS)
        return;
    snprintf(path, sizeof path, "%s/LOCK", world->dir);
    unlink(path);
    assert_int_equal(rmdir(world->dir), 0);
}

static void on_each(void (*test)(struct keg_env *env))
{
    for (enum kind kind = DISK; kind <= MODEL; kind++) {
        struct world world;
        int before = open_fds();

        begin(&world, kind);
        test(world.env);
        end(&world);
        assert_int_equal(open_fds(), before);
    }
}

static int append(struct keg_file *file, uint64_t at, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};

    return env_append(file, at, &iov, 1);
}

static struct keg_file *create(struct keg_env *env, const char *name)
{
    struct keg_file *file;

    assert_int_equal(env_create(env, name, &file), 0);
    return file;
}

static struct keg_file *reopen(struct keg_env *env, const char *name, enum env_how how)
{
    struct keg_file *file;

    assert_int_equal(env_open(env, name, how, &file), 0);
    return file;
}

static void want(struct keg_file *file, const char *text)
{
    char buf[256];
    uint64_t size;

    assert_int_equal(env_size(file, &size), 0);
    assert_int_equal(size, strlen(text));
    assert_int_equal(env_read(file, 0, buf, sizeof buf), strlen(text));
    assert_memory_equal(buf, text, strlen(text));
}

/* ---- The contract ---- */

static void names(struct keg_env *env)
{
    char longest[ENV_NAME_MAX + 1], too_long[ENV_NAME_MAX + 2];
    const char *bad[] = {"", ".", "..", ".hidden", "a/b", "/a", "a/", "LOCK", too_long};
    struct keg_file *file;

    memset(longest, 'n', sizeof longest);
    longest[ENV_NAME_MAX] = '\0';
    memset(too_long, 'n', sizeof too_long);
    too_long[ENV_NAME_MAX + 1] = '\0';
    env_close(create(env, longest));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(env_create(env, bad[i], &file), -EINVAL);
        assert_int_equal(env_open(env, bad[i], ENV_READ, &file), -EINVAL);
        assert_int_equal(env_remove(env, bad[i]), -EINVAL);
        assert_int_equal(env_publish(env, longest, bad[i]), -EINVAL);
        assert_int_equal(env_publish(env, bad[i], "good"), -EINVAL);
    }
    assert_int_equal(env_create(env, longest, &file), -EEXIST);
    for (enum env_how how = ENV_READ; how <= ENV_UNCACHED; how++)
        assert_int_equal(env_open(env, "none", how, &file), -ENOENT);
    assert_int_equal(env_remove(env, "none"), -ENOENT);
    assert_int_equal(env_publish(env, "none", "other"), -ENOENT);
    env_close(NULL);
}

static void appending(struct keg_env *env)
{
    struct keg_file *file = create(env, "a"), *other;
    struct iovec iov[] = {{"one ", 4}, {NULL, 0}, {"two ", 4}, {"three", 5}, {NULL, 0}};
    uint64_t size;
    char c;

    want(file, "");
    assert_int_equal(env_append(file, 0, iov, 5), 0);
    want(file, "one two three");
    assert_int_equal(append(file, 13, " four", 5), 0);
    other = reopen(env, "a", ENV_READ);
    want(other, "one two three four");
    assert_int_equal(append(other, 18, "x", 1), -EBADF);
    assert_int_equal(append(file, 8, "THREE", 5), 0); /* as after a failed append */
    want(other, "one two THREE four");
    assert_int_equal(env_read(other, 18, &c, 1), 0);
    assert_int_equal(env_read(other, UINT64_C(1) << 40, &c, 1), 0);
    assert_int_equal(env_read(other, 17, &c, 1), 1);
    assert_int_equal(c, 'r');
    assert_int_equal(env_sync(file), 0);
    assert_int_equal(env_sync_names(env), 0);
    env_close(file);
    file = reopen(env, "a", ENV_APPEND);
    assert_int_equal(append(file, 18, "!", 1), 0);
    want(other, "one two THREE four!");
    assert_true(append(file, UINT64_MAX - 1, "xx", 2) < 0);
    assert_int_equal(env_size(file, &size), 0);
    assert_int_equal(size, 19);
    env_close(file);
    env_close(other);
}

static void many_pieces(struct keg_env *env)
{
    static uint8_t data[ENV_IOV_MAX * 40], back[sizeof data];
    static struct iovec iov[ENV_IOV_MAX];
    struct keg_file *file = create(env, "a");
    size_t len = 0;

    random_fill(&dice, data, sizeof data);
    for (size_t i = 0; i < ENV_IOV_MAX; i++) {
        iov[i] = (struct iovec){data + len, random_below(&dice, 40)};
        len += iov[i].iov_len;
    }
    assert_int_equal(env_append(file, 0, iov, ENV_IOV_MAX), 0);
    assert_int_equal(env_read(file, 0, back, sizeof back), len);
    assert_memory_equal(back, data, len);
    env_close(file);
}

static void sealing(struct keg_env *env)
{
    struct keg_file *file = create(env, "a"), *reader = reopen(env, "a", ENV_READ);

    assert_int_equal(append(file, 0, "segment, then zeros", 19), 0);
    assert_int_equal(env_seal(file, 20), -EINVAL);
    assert_int_equal(env_seal(reader, 3), -EINVAL);
    assert_int_equal(env_seal(file, 7), 0);
    want(file, "segment");
    want(reader, "segment");
    env_close(file);
    assert_int_equal(env_seal(reader, 7), -EINVAL);
    env_close(reader);
}

/* Any offset and length, cached or not, against the bytes written. */
static void reading(struct keg_env *env)
{
    enum { LEN = 3 * (1 << 20) + 1234 };
    uint8_t *data = malloc(LEN), *back = malloc(LEN);
    struct keg_file *file = create(env, "a"), *readers[2];

    assert_non_null(data);
    assert_non_null(back);
    random_fill(&dice, data, LEN);
    assert_int_equal(append(file, 0, data, LEN), 0); /* not synced: uncached reads see it, too */
    readers[0] = reopen(env, "a", ENV_UNCACHED);
    readers[1] = reopen(env, "a", ENV_READ);
    for (int i = 0; i < 100; i++) {
        uint64_t offset = i % 4 ? random_below(&dice, LEN + 5000) : random_width(&dice) % LEN;
        size_t len = i % 10 ? random_width(&dice) % LEN : LEN;
        size_t left = offset < LEN ? LEN - (size_t)offset : 0, n = len < left ? len : left;
        size_t cut = random_below(&dice, len + 1), cut2 = cut + random_below(&dice, len - cut + 1);
        const struct iovec pieces[] = {
            {back, cut}, {NULL, 0}, {back + cut, cut2 - cut}, {back + cut2, len - cut2}};

        assert_int_equal(env_read(readers[i % 2], offset, back, len), n);
        assert_memory_equal(back, data + (n ? offset : 0), n);
        memset(back, 0, n);
        assert_int_equal(env_readv(readers[i % 2], offset, pieces, 4), n);
        assert_memory_equal(back, data + (n ? offset : 0), n);
    }
    /* What is written after the open is seen past the cache as well. */
    assert_int_equal(append(file, LEN, "tail", 4), 0);
    assert_int_equal(env_read(readers[0], LEN - 1, back, 100), 5);
    assert_memory_equal(back + 1, "tail", 4);
    env_close(readers[0]);
    env_close(readers[1]);
    env_close(file);
    free(data);
    free(back);
}

static void publishing(struct keg_env *env)
{
    struct keg_file *old = create(env, "name"), *new = create(env, "temp"), *file;

    assert_int_equal(append(old, 0, "old", 3), 0);
    assert_int_equal(append(new, 0, "new", 3), 0);
    assert_int_equal(env_sync(new), 0);
    assert_int_equal(env_publish(env, "temp", "name"), 0);
    want(old, "old"); /* an open file outlives its name */
    want(new, "new");
    file = reopen(env, "name", ENV_READ);
    want(file, "new");
    env_close(file);
    assert_int_equal(env_open(env, "temp", ENV_READ, &file), -ENOENT);
    assert_int_equal(env_publish(env, "name", "name"), 0);
    assert_int_equal(env_publish(env, "name", "elsewhere"), 0);
    file = reopen(env, "elsewhere", ENV_READ);
    assert_int_equal(env_remove(env, "elsewhere"), 0);
    want(file, "new");
    assert_int_equal(append(new, 3, "er", 2), 0);
    want(file, "newer");
    env_close(file);
    env_close(old);
    env_close(new);
}

struct seen {
    struct keg_env *env;
    unsigned count[10], total;
    bool removing;
};

static int note(void *arg, const char *name)
{
    struct seen *seen = arg;

    assert_true(strlen(name) == 2 && name[0] == 'f' && name[1] >= '0' && name[1] <= '9');
    seen->count[name[1] - '0']++;
    seen->total++;
    return seen->removing ? env_remove(seen->env, name) : 0;
}

static int stop(void *arg, const char *name)
{
    (void)name;
    return --*(int *)arg == 0 ? 77 : 0;
}

static void listing(struct keg_env *env)
{
    struct seen seen = {.env = env};
    int left = 3;

    assert_int_equal(env_lock(env, "me"), 0); /* LOCK is there now, and never listed */
    assert_int_equal(env_list(env, note, &seen), 0);
    assert_int_equal(seen.total, 0);
    for (int i = 0; i < 10; i++)
        env_close(create(env, (char[]){'f', (char)('0' + i), '\0'}));
    assert_int_equal(env_list(env, note, &seen), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(seen.count[i], 1);
    assert_int_equal(env_list(env, stop, &left), 77);
    assert_int_equal(left, 0);
    seen.removing = true;
    assert_int_equal(env_list(env, note, &seen), 0);
    assert_int_equal(seen.total, 20);
    assert_int_equal(env_list(env, note, &seen), 0);
    assert_int_equal(seen.total, 20);
    env_unlock(env);
}

static void locking(struct keg_env *env)
{
    char text[300], path[260], small[4];

    assert_int_equal(keg_holder(env, text, sizeof text), -ENOENT);
    for (int i = 0; i < 2; i++) {
        memset(path, 'p', sizeof path);
        path[i ? 3 : 200] = '\0'; /* the second text is shorter */
        assert_int_equal(env_lock(env, path), 0);
        assert_int_equal(env_lock(env, "other"), -EBUSY);
        assert_int_equal(keg_holder(env, text, sizeof text), 0);
        assert_true(strtol(text, NULL, 10) > 0);
        assert_string_equal(strchr(text, ' ') + 1, path);
        assert_int_equal(keg_holder(env, small, sizeof small), 0);
        assert_int_equal(strlen(small), 3);
        assert_memory_equal(small, text, 3);
        env_unlock(env);
        assert_int_equal(keg_holder(env, text, sizeof text), -ENOENT);
        env_unlock(env);
    }
    assert_int_equal(env_lock(env, NULL), 0);
    assert_int_equal(keg_holder(env, text, sizeof text), 0);
    assert_string_equal(strchr(text, ' ') + 1, "-");
    env_unlock(env);
    assert_int_equal(env_lock(env, "two\nlines"), 0);
    assert_int_equal(keg_holder(env, text, sizeof text), 0);
    assert_string_equal(strchr(text, ' ') + 1, "two");
}

static void together(struct keg_env *env)
{
    uint8_t *data;
    size_t len;
    struct keg_file *file;
    char longest[ENV_NAME_MAX + 1];
    char buf[8];

    memset(longest, 'n', sizeof longest);
    longest[ENV_NAME_MAX - 4] = '\0';
    assert_int_equal(env_replace(env, longest, "", 0), 0);
    assert_int_equal(env_slurp(env, longest, 0, &data, &len), 0);
    assert_int_equal(len, 0);
    free(data);
    env_close(create(env, "M.tmp")); /* what a crash left */
    assert_int_equal(env_replace(env, "M", "first", 5), 0);
    assert_int_equal(env_replace(env, "M", "second", 6), 0);
    assert_int_equal(env_open(env, "M.tmp", ENV_READ, &file), -ENOENT);
    assert_int_equal(env_slurp(env, "M", 5, &data, &len), -EFBIG);
    assert_int_equal(env_slurp(env, "none", 5, &data, &len), -ENOENT);
    assert_int_equal(env_slurp(env, "M", 6, &data, &len), 0);
    assert_int_equal(len, 6);
    assert_memory_equal(data, "second", 6);
    free(data);
    longest[ENV_NAME_MAX - 4] = 'n';
    longest[ENV_NAME_MAX] = '\0';
    assert_int_equal(env_replace(env, longest, "x", 1), -ENAMETOOLONG);
    file = reopen(env, "M", ENV_READ);
    assert_int_equal(env_read_all(file, 1, buf, 5), 0);
    assert_memory_equal(buf, "econd", 5);
    assert_int_equal(env_read_all(file, 2, buf, 5), -EBADMSG);
    assert_int_equal(env_read_all(file, 7, buf, 1), -EBADMSG);
    assert_int_equal(env_read_all(file, 7, buf, 0), 0);
    env_close(file);
}

static void the_world(struct keg_env *env)
{
    uint8_t a[64] = {0}, b[64] = {0};
    uint64_t before = env_clock(env), after;
    struct env_space space;

    for (int i = 0; i < 1000; i++, before = after) {
        after = env_clock(env);
        assert_true(after >= before);
    }
    assert_int_equal(env_random(env, a, sizeof a), 0);
    assert_int_equal(env_random(env, b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(env_space(env, &space), 0);
    assert_true(space.free > 0 && space.free <= space.total);
}

/* One thread appends and syncs, others read what is there, and open and list. */
struct race {
    struct keg_env *env;
    struct keg_file *file;
};

static void *race_reader(void *arg)
{
    struct race *race = arg;
    static _Thread_local uint8_t buf[2000];
    uint64_t size = 0;
    int left = 1;

    while (size < 100 * sizeof buf) {
        struct keg_file *file = reopen(race->env, "a", ENV_READ);
        ssize_t n;

        assert_int_equal(env_size(file, &size), 0);
        n = env_read(race->file, size / 2, buf, sizeof buf);
        assert_true(n >= 0);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(buf[i], (uint8_t)((size / 2 + (uint64_t)i) / sizeof buf));
        env_close(file);
        assert_int_equal(env_list(race->env, stop, &left), 77);
        left = 1;
    }
    return NULL;
}

static void threads(struct keg_env *env)
{
    struct race race = {env, create(env, "a")};
    pthread_t readers[2];
    uint8_t block[2000];

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, race_reader, &race), 0);
    for (unsigned i = 0; i < 100; i++) {
        memset(block, (int)i, sizeof block);
        assert_int_equal(append(race.file, i * sizeof block, block, sizeof block), 0);
        if (i % 16 == 0)
            assert_int_equal(env_sync(race.file), 0);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    env_close(race.file);
}

#define CONTRACT(test)                                                                             \
    static void test_##test(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        on_each(test);                                                                             \
    }
CONTRACT(names)
CONTRACT(appending)
CONTRACT(many_pieces)
CONTRACT(sealing)
CONTRACT(reading)
CONTRACT(publishing)
CONTRACT(listing)
CONTRACT(locking)
CONTRACT(together)
CONTRACT(the_world)
CONTRACT(threads)

/* What both small disks do when they are full. */
static void fill(struct keg_env *env)
{
    struct keg_file *a = create(env, "a"), *b = create(env, "b"), *c;
    struct iovec iov[] = {{"0123456789", 10}, {"0123456789", 10}};
    struct env_space space;
    char buf[100] = "";

    assert_int_equal(append(a, 0, buf, 80), 0);
    assert_int_equal(env_space(env, &space), 0);
    assert_int_equal(space.total, 100);
    assert_int_equal(space.free, 20);
    assert_int_equal(append(a, 60, buf, 20), 0); /* takes nothing new */
    assert_int_equal(env_append(b, 0, iov, 1), 0);
    assert_int_equal(env_append(b, 10, iov, 2), -ENOSPC);
    assert_int_equal(env_read(b, 0, buf, 100), 20); /* what fits is there */
    assert_memory_equal(buf + 10, "0123456789", 10);
    assert_int_equal(env_create(env, "c", &c), -ENOSPC);
    assert_int_equal(env_publish(env, "b", "d"), 0);
    assert_int_equal(env_remove(env, "a"), 0);
    assert_int_equal(append(b, 20, "x", 1), -ENOSPC); /* a is still open */
    env_close(a);
    assert_int_equal(append(b, 20, "x", 1), 0);
    assert_int_equal(env_seal(b, 5), 0);
    env_close(b);
    assert_int_equal(env_space(env, &space), 0);
    assert_int_equal(space.free, 95);
    keg_env_free(env);
}

static void test_full(void **state)
{
    struct keg_env *env;

    (void)state;
    assert_int_equal(env_mem(100, &env), 0);
    fill(env);
    assert_int_equal(env_fault(100, &env), 0);
    fill(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),       cmocka_unit_test(test_appending),
        cmocka_unit_test(test_many_pieces), cmocka_unit_test(test_sealing),
        cmocka_unit_test(test_reading),     cmocka_unit_test(test_publishing),
        cmocka_unit_test(test_listing),     cmocka_unit_test(test_locking),
        cmocka_unit_test(test_together),    cmocka_unit_test(test_the_world),
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_full),
    };

    dice = random_seeded();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
