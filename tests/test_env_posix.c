/* SPDX-License-Identifier: MIT */
/* What is true of the POSIX environment alone: modes, links, locks between processes, errors that
 * the kernel gives. In TEST_DIR, else /var/tmp. */
#include "env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char base[256];

/* Every path of the tests; the buffer is used again after four calls. */
static const char *path(const char *name)
{
    static char buf[4][400];
    static unsigned next;
    char *p = buf[next++ % 4];

    snprintf(p, sizeof buf[0], "%s/%s", base, name);
    return p;
}

static int setup(void **state)
{
    const char *dir = getenv("TEST_DIR");

    (void)state;
    snprintf(base, sizeof base, "%s/kegfs-posix-XXXXXX", dir ? dir : "/var/tmp");
    return mkdtemp(base) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[300];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    return system(command);
}

static struct keg_env *open_env(bool create)
{
    struct keg_env *env;

    assert_int_equal(keg_env_posix(path("store"), create, &env), 0);
    return env;
}

static void want_mode(const char *name, mode_t mode)
{
    struct stat st;

    assert_int_equal(lstat(path(name), &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
}

static int inheritable_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);

        count += flags >= 0 && !(flags & FD_CLOEXEC);
    }
    return count;
}

static void test_modes(void **state)
{
    int before = inheritable_fds();
    mode_t mask = umask(0);
    struct keg_env *env = open_env(true);
    struct keg_file *file;

    (void)state;
    assert_int_equal(env_create(env, "a", &file), 0);
    assert_int_equal(env_replace(env, "b", "b", 1), 0);
    assert_int_equal(env_lock(env, "me"), 0);
    umask(mask);
    want_mode("store", 0700);
    want_mode("store/a", 0600);
    want_mode("store/b", 0600);
    want_mode("store/LOCK", 0600);
    assert_int_equal(inheritable_fds(), before);
    env_close(file);
    keg_env_free(env);
    env = open_env(true); /* there already */
    keg_env_free(env);
}

static void test_directory(void **state)
{
    struct keg_env *env;
    struct keg_file *file;
    uint8_t *data;
    size_t len;

    (void)state;
    assert_int_equal(keg_env_posix(path("store"), false, &env), -ENOENT);
    assert_int_equal(keg_env_posix(path("no/store"), true, &env), -ENOENT);
    env = open_env(true);
    assert_int_equal(env_replace(env, "a", "aa", 2), 0);
    assert_int_equal(keg_env_posix(path("store/a"), false, &env), -ENOTDIR);
    assert_int_equal(keg_env_posix(path("store/a"), true, &env), -ENOTDIR);
    /* It never uses the path again. */
    assert_int_equal(rename(path("store"), path("moved")), 0);
    assert_int_equal(mkdir(path("store"), 0700), 0);
    assert_int_equal(env_replace(env, "b", "b", 1), 0);
    assert_int_equal(access(path("moved/b"), F_OK), 0);
    assert_int_equal(env_slurp(env, "a", 10, &data, &len), 0);
    free(data);
    keg_env_free(env);
    /* A link to the directory itself is followed; the parent that is synced is the real one. */
    assert_int_equal(symlink("moved", path("link")), 0);
    assert_int_equal(keg_env_posix(path("link"), true, &env), 0);
    assert_int_equal(env_open(env, "b", ENV_READ, &file), 0);
    env_close(file);
    keg_env_free(env);
}

static int never(void *arg, const char *name)
{
    (void)arg;
    fail_msg("met %s", name);
    return 0;
}

/* What is no regular file is neither followed, nor opened (a FIFO would block), nor listed. */
static void test_foreign_files(void **state)
{
    const char *bad[] = {"link", "fifo", "dir"};
    struct keg_env *env = open_env(true);
    struct keg_file *file;
    int fd = open(path("target"), O_CREAT | O_WRONLY, 0600);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(symlink("../target", path("store/link")), 0);
    assert_int_equal(mkfifo(path("store/fifo"), 0600), 0);
    assert_int_equal(mkdir(path("store/dir"), 0700), 0);
    fd = open(path("store/.swp"), O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(env_create(env, bad[i], &file), -EEXIST);
        for (enum env_how how = ENV_READ; how <= ENV_UNCACHED; how++)
            assert_true(env_open(env, bad[i], how, &file) < 0);
    }
    assert_int_equal(env_list(env, never, NULL), 0);
    assert_int_equal(symlink("../target", path("store/LOCK")), 0);
    assert_int_equal(env_lock(env, "me"), -ELOOP);
    assert_int_equal(unlink(path("store/LOCK")), 0);
    assert_int_equal(mkfifo(path("store/LOCK"), 0600), 0);
    assert_int_equal(env_lock(env, "me"), -EINVAL);
    keg_env_free(env);
}

/* A write that meets a limit half-way: the kernel writes what fits, then gives the error. */
static void test_short_write(void **state)
{
    static uint8_t data[3][5000], back[15000];
    struct iovec iov[] = {{data[0], 5000}, {data[1], 5000}, {data[2], 5000}};
    struct rlimit old, limit;
    struct keg_env *env = open_env(true);
    struct keg_file *file;

    (void)state;
    for (int i = 0; i < 3; i++)
        memset(data[i], 'a' + i, 5000);
    assert_int_equal(env_create(env, "a", &file), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = (struct rlimit){.rlim_cur = 7000, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(env_append(file, 0, iov, 3), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(env_read(file, 0, back, sizeof back), 7000);
    assert_memory_equal(back, data[0], 5000);
    assert_memory_equal(back + 5000, data[1], 2000);
    /* The next append overwrites what the failed one left. */
    assert_int_equal(env_append(file, 100, iov + 2, 1), 0);
    assert_int_equal(env_read(file, 100, back, 5000), 5000);
    assert_memory_equal(back, data[2], 5000);
    env_close(file);
    keg_env_free(env);
}

/* ---- The lock ---- */

static void test_lock_in_one_process(void **state)
{
    struct keg_env *one = open_env(true), *two = open_env(false), *three = open_env(false);
    char text[100], mine[100];

    (void)state;
    assert_int_equal(env_lock(one, "/mnt/one"), 0);
    assert_int_equal(env_lock(two, "/mnt/two"), -EBUSY);
    snprintf(mine, sizeof mine, "%ld /mnt/one", (long)getpid());
    assert_int_equal(keg_holder(two, text, sizeof text), 0);
    assert_string_equal(text, mine);
    /* Closing another descriptor of LOCK drops nothing. */
    keg_env_free(two);
    assert_int_equal(keg_holder(three, text, sizeof text), 0);
    assert_int_equal(env_lock(three, NULL), -EBUSY);
    keg_env_free(one);
    assert_int_equal(keg_holder(three, text, sizeof text), -ENOENT);
    assert_int_equal(env_lock(three, NULL), 0);
    keg_env_free(three);
}

/* A process that holds the lock until it is killed; *ready says that it has it. */
static pid_t hold(void)
{
    int ready[2];
    char c;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct keg_env *env;

        if (!keg_env_posix(path("store"), false, &env) && !env_lock(env, "/mnt") &&
            write(ready[1], "", 1) == 1)
            pause();
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}

static void test_lock_dies_with_process(void **state)
{
    struct keg_env *env = open_env(true);
    char text[100], theirs[100];
    pid_t pid = hold();

    (void)state;
    assert_int_equal(env_lock(env, "me"), -EBUSY);
    snprintf(theirs, sizeof theirs, "%ld /mnt", (long)pid);
    assert_int_equal(keg_holder(env, text, sizeof text), 0);
    assert_string_equal(text, theirs);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(keg_holder(env, text, sizeof text), -ENOENT);
    assert_int_equal(env_lock(env, "me"), 0);
    keg_env_free(env);
}

/* A descriptor that a child inherits keeps the lock: a daemon may fork after taking it. */
static void test_lock_survives_fork(void **state)
{
    struct keg_env *env = open_env(true), *other = open_env(false);
    int gate[2];
    pid_t pid;

    (void)state;
    assert_int_equal(env_lock(env, "me"), 0);
    assert_int_equal(pipe(gate), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char c;

        close(gate[1]);
        _exit(read(gate[0], &c, 1) == 0 ? 0 : 1);
    }
    keg_env_free(env);
    assert_int_equal(env_lock(other, "you"), -EBUSY);
    close(gate[0]);
    close(gate[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(env_lock(other, "you"), 0);
    keg_env_free(other);
}

/* Where LOCK may only be read: shared by readers, who may then change nothing, against writers. */
static void shared_lock(struct keg_env *one, struct keg_env *two)
{
    struct keg_file *file;
    char text[100];
    uint8_t *data;
    size_t len;

    assert_int_equal(env_lock(one, "me"), 0);
    assert_int_equal(env_lock(one, "me"), -EBUSY);
    assert_int_equal(env_lock(two, "you"), 0);
    assert_int_equal(keg_holder(two, text, sizeof text), 0);
    assert_string_equal(text, "0 -");
    assert_int_equal(env_create(one, "b", &file), -EROFS);
    assert_int_equal(env_open(one, "a", ENV_APPEND, &file), -EROFS);
    assert_int_equal(env_remove(one, "a"), -EROFS);
    assert_int_equal(env_publish(one, "a", "b"), -EROFS);
    assert_int_equal(env_replace(one, "a", "x", 1), -EROFS);
    assert_int_equal(env_slurp(one, "a", 10, &data, &len), 0);
    assert_memory_equal(data, "aa", 2);
    free(data);
}

static void test_lock_shared(void **state)
{
    struct keg_env *one = open_env(true), *two = open_env(false), *writer = open_env(false);
    uid_t uid = geteuid();

    (void)state;
    assert_int_equal(env_replace(one, "a", "aa", 2), 0);
    assert_int_equal(env_lock(one, "me"), 0);
    env_unlock(one);
    /* Root may write whatever the mode says, so it acts as somebody else. */
    assert_int_equal(chmod(base, 0755), 0);
    assert_int_equal(chmod(path("store"), 0755), 0);
    assert_int_equal(chmod(path("store/LOCK"), uid ? 0400 : 0444), 0);
    assert_int_equal(chmod(path("store/a"), uid ? 0600 : 0666), 0);
    if (uid == 0)
        assert_int_equal(seteuid(65534), 0);
    shared_lock(one, two);
    if (uid == 0) {
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(env_lock(writer, "root"), -EBUSY);
        env_unlock(one);
        assert_int_equal(env_lock(writer, "root"), -EBUSY);
        env_unlock(two);
        assert_int_equal(env_lock(writer, "root"), 0);
        assert_int_equal(seteuid(65534), 0);
        assert_int_equal(env_lock(one, "me"), -EBUSY);
        assert_int_equal(seteuid(0), 0);
    }
    keg_env_free(one);
    keg_env_free(two);
    keg_env_free(writer);
}

static void test_lock_cannot_be_made(void **state)
{
    struct keg_env *env = open_env(true);
    uid_t uid = geteuid();

    (void)state;
    assert_int_equal(chmod(path("store"), 0555), 0);
    assert_int_equal(chmod(base, 0755), 0);
    if (uid == 0)
        assert_int_equal(seteuid(65534), 0);
    assert_int_equal(env_lock(env, "me"), -EACCES);
    if (uid == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(path("store"), 0700), 0);
    keg_env_free(env);
}

/* The name of a file removed while locked: the next one to lock does not take the old file's. */
static void test_lock_removed(void **state)
{
    struct keg_env *env = open_env(true), *other = open_env(false);
    char text[100];

    (void)state;
    assert_int_equal(env_lock(env, "me"), 0);
    assert_int_equal(unlink(path("store/LOCK")), 0);
    env_unlock(env);
    assert_int_equal(keg_holder(env, text, sizeof text), -ENOENT);
    assert_int_equal(env_lock(other, "you"), 0);
    assert_int_equal(env_lock(env, "me"), -EBUSY);
    keg_env_free(env);
    keg_env_free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(modes),
        TEST(directory),
        TEST(foreign_files),
        TEST(short_write),
        TEST(lock_in_one_process),
        TEST(lock_dies_with_process),
        TEST(lock_survives_fork),
        TEST(lock_shared),
        TEST(lock_cannot_be_made),
        TEST(lock_removed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
