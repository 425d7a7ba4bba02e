/* SPDX-License-Identifier: MIT */
/*
 * The system calls of the POSIX environment, which a power cut would judge and no test without one
 * can see: which are made, in which order, and what becomes of short and interrupted ones. The
 * linker puts the __wrap_ functions below before the C library's.
 */
#include "env.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char journal[1000]; /* a letter for each call */
static char failing;       /* the call of that letter gives EIO */
static bool trouble;       /* reads and writes are short or interrupted in turn */
static unsigned disturbed; /* how many were */
static bool no_direct;     /* O_DIRECT can be opened, but not read */
static int read_error;     /* what every other read fails with, if not 0 */

/* Notes a call; whether it fails. */
static bool called(char letter)
{
    size_t len = strlen(journal);

    if (len + 1 < sizeof journal)
        journal[len] = letter;
    errno = EIO;
    return letter == failing;
}

static void want_calls(const char *letters)
{
    assert_string_equal(journal, letters);
    memset(journal, 0, sizeof journal);
}

/* One call in three is interrupted, one is cut to a third, one goes on. */
static bool interrupted(size_t *len)
{
    static unsigned turn;

    if (!trouble || ++turn % 3 == 0)
        return false;
    disturbed++;
    errno = EINTR;
    if (turn % 3 == 1)
        return true;
    *len = *len > 3 ? *len / 3 : *len;
    return false;
}

/* The linker's names, and the C library's own behind them. */
#define WRAP(type, name, parameters)                                                               \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters

WRAP(int, fsync, (int fd))
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return called(S_ISDIR(st.st_mode) ? 'd' : 'f') ? -1 : __real_fsync(fd);
}

WRAP(int, fdatasync, (int fd))
{
    return called('s') ? -1 : __real_fdatasync(fd);
}

WRAP(int, renameat, (int a, const char *from, int b, const char *to))
{
    return called('r') ? -1 : __real_renameat(a, from, b, to);
}

WRAP(int, ftruncate64, (int fd, off_t length))
{
    return called('t') ? -1 : __real_ftruncate64(fd, length);
}

WRAP(int, posix_fadvise64, (int fd, off_t offset, off_t len, int advice))
{
    return called(advice == POSIX_FADV_DONTNEED ? 'n' : '?')
               ? EIO
               : __real_posix_fadvise64(fd, offset, len, advice);
}

WRAP(ssize_t, pread64, (int fd, void *buf, size_t len, off_t at))
{
    bool direct = (fcntl(fd, F_GETFL) & O_DIRECT) != 0;

    if (direct && no_direct) {
        errno = EINVAL;
        return -1;
    }
    if (read_error) {
        errno = read_error;
        return -1;
    }
    if (!direct && interrupted(&len))
        return -1;
    return __real_pread64(fd, buf, len, at);
}

WRAP(ssize_t, preadv64, (int fd, const struct iovec *iov, int count, off_t at))
{
    size_t total = 0, done = 0;

    called('v');
    if (read_error) {
        errno = read_error;
        return -1;
    }
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (interrupted(&total))
        return -1;
    for (int i = 0; i < count && done < total; i++) {
        size_t len = iov[i].iov_len < total - done ? iov[i].iov_len : total - done;
        ssize_t n = __real_pread64(fd, iov[i].iov_base, len, at + (off_t)done);

        assert_true(n >= 0);
        done += (size_t)n;
    }
    return (ssize_t)done;
}

WRAP(ssize_t, pwrite64, (int fd, const void *buf, size_t len, off_t at))
{
    return interrupted(&len) ? -1 : __real_pwrite64(fd, buf, len, at);
}

WRAP(ssize_t, pwritev64, (int fd, const struct iovec *iov, int count, off_t at))
{
    size_t total = 0, done = 0;

    called('w');
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (interrupted(&total))
        return -1;
    for (int i = 0; i < count && done < total; i++) {
        size_t len = iov[i].iov_len < total - done ? iov[i].iov_len : total - done;

        assert_int_equal(__real_pwrite64(fd, iov[i].iov_base, len, at + (off_t)done), len);
        done += len;
    }
    return (ssize_t)done;
}

/* ---- The tests, each in a directory of its own ---- */

struct fixture {
    char dir[256];
    struct keg_env *env;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    const char *dir = getenv("TEST_DIR");
    char path[300];

    if (!fixture)
        return -1;
    failing = 0;
    trouble = no_direct = false;
    read_error = 0;
    memset(journal, 0, sizeof journal);
    snprintf(fixture->dir, sizeof fixture->dir, "%s/kegfs-calls-XXXXXX", dir ? dir : "/var/tmp");
    if (!mkdtemp(fixture->dir))
        return -1;
    snprintf(path, sizeof path, "%s/store", fixture->dir);
    *state = fixture;
    return keg_env_posix(path, true, &fixture->env);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    char command[300];
    int rc;

    keg_env_free(fixture->env);
    snprintf(command, sizeof command, "rm -rf '%s'", fixture->dir);
    rc = system(command);
    free(fixture);
    return rc;
}

static struct keg_env *env_of(void **state)
{
    return ((struct fixture *)*state)->env;
}

static void test_directory(void **state)
{
    struct fixture *fixture = *state;
    struct keg_env *env;
    char path[300];

    want_calls("d"); /* setup made the directory: its parent is synced */
    snprintf(path, sizeof path, "%s/store", fixture->dir);
    assert_int_equal(keg_env_posix(path, true, &env), 0);
    want_calls("");
    keg_env_free(env);
    snprintf(path, sizeof path, "%s/other", fixture->dir);
    failing = 'd';
    assert_int_equal(keg_env_posix(path, true, &env), -EIO);
}

/* The contents before the name, the name before the return. */
static void test_order(void **state)
{
    struct keg_env *env = env_of(state);
    struct iovec iov = {"bytes", 5};
    struct keg_file *file;

    want_calls("d");
    assert_int_equal(env_replace(env, "m", "bytes", 5), 0);
    want_calls("wsrd");
    assert_int_equal(env_create(env, "a", &file), 0);
    want_calls("");
    assert_int_equal(env_append(file, 0, &iov, 1), 0);
    want_calls("w");
    assert_int_equal(env_sync(file), 0);
    want_calls("s");
    assert_int_equal(env_sync_names(env), 0);
    want_calls("d");
    assert_int_equal(env_seal(file, 3), 0);
    want_calls("tf");
    assert_int_equal(env_publish(env, "a", "b"), 0);
    want_calls("rd");
    env_close(file);
}

/* Every error is passed on, and nothing is tried again. */
static void test_errors(void **state)
{
    struct keg_env *env = env_of(state);
    struct keg_file *file;

    assert_int_equal(env_create(env, "a", &file), 0);
    want_calls("d");
    failing = 's';
    assert_int_equal(env_sync(file), -EIO);
    want_calls("s");
    assert_int_equal(env_replace(env, "m", "new", 3), -EIO);
    want_calls("ws");
    failing = 't';
    assert_int_equal(env_seal(file, 0), -EIO);
    want_calls("t");
    failing = 'f';
    assert_int_equal(env_seal(file, 0), -EIO);
    want_calls("tf");
    failing = 'r';
    assert_int_equal(env_publish(env, "a", "b"), -EIO);
    want_calls("r");
    failing = 0;
    assert_int_equal(env_publish(env, "a", "b"), 0); /* a rename says nothing of other names */
    want_calls("rd");
    env_close(file);
}

/* The kernel tells it once, and to whoever comes first: it is remembered for all the others. */
static void failed_directory(void **state, int (*act)(struct keg_env *env), const char *calls)
{
    struct keg_env *env = env_of(state);
    struct keg_file *file;

    assert_int_equal(env_create(env, "a", &file), 0);
    env_close(file);
    want_calls("d");
    failing = 'd';
    assert_int_equal(act(env), -EIO);
    want_calls(calls);
    failing = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(env_sync_names(env), -EIO);
        assert_int_equal(env_publish(env, "b", "c"), -EIO);
        assert_int_equal(env_publish(env, "a", "b"), -EIO);
    }
    want_calls("");
}

static int publish_it(struct keg_env *env)
{
    return env_publish(env, "a", "b");
}

static int sync_names(struct keg_env *env)
{
    return env_sync_names(env);
}

static void test_failed_directory_sync_sticks(void **state)
{
    failed_directory(state, sync_names, "d");
}

static void test_failed_publication_sticks(void **state)
{
    failed_directory(state, publish_it, "rd");
}

static void test_short_and_interrupted(void **state)
{
    enum { PIECES = 50, PIECE = 997 };
    static uint8_t data[PIECES * PIECE], back[sizeof data + 1];
    struct iovec iov[PIECES];
    struct keg_file *file;
    unsigned writes = 0, reads = 0;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 9);
    for (size_t i = 0; i < PIECES; i++)
        iov[i] = (struct iovec){data + i * PIECE, i == 7 ? 0 : PIECE};
    memmove(data + 7 * PIECE, data + 8 * PIECE, sizeof data - 8 * PIECE);
    for (size_t i = 8; i < PIECES; i++)
        iov[i].iov_base = data + (i - 1) * PIECE;
    assert_int_equal(env_create(env_of(state), "a", &file), 0);
    trouble = true;
    for (int round = 0; round < 6; round++) {
        unsigned before = disturbed;

        assert_int_equal(env_append(file, 0, iov, PIECES), 0);
        writes += disturbed - before;
        memset(back, 0, sizeof back);
        before = disturbed;
        assert_int_equal(env_read(file, 0, back, sizeof back), sizeof data - PIECE);
        reads += disturbed - before;
        assert_memory_equal(back, data, sizeof data - PIECE);
    }
    assert_true(writes >= 6 && reads >= 6);
    env_close(file);
}

/* Several pieces are one call, which is not given up when it is short or interrupted. */
static void test_pieces_are_read_at_once(void **state)
{
    enum { PIECES = 20, PIECE = 997 };
    static uint8_t data[PIECES * PIECE], back[sizeof data];
    struct keg_env *env = env_of(state);
    struct iovec iov[PIECES];
    struct keg_file *file;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 9);
    for (size_t i = 0; i < PIECES; i++)
        iov[i] = (struct iovec){back + i * PIECE, PIECE};
    assert_int_equal(env_replace(env, "a", data, sizeof data - 1), 0);
    assert_int_equal(env_open(env, "a", ENV_READ, &file), 0);
    want_calls("dwsrd");
    assert_int_equal(env_readv(file, 0, iov, PIECES - 1), sizeof data - PIECE);
    want_calls("v");
    trouble = true;
    for (int round = 0; round < 6; round++) {
        memset(back, 0, sizeof back);
        assert_int_equal(env_readv(file, 0, iov, PIECES), sizeof data - 1);
        assert_memory_equal(back, data, sizeof data - 1);
    }
    assert_true(disturbed >= 6);
    trouble = false;
    read_error = ENODATA;
    assert_int_equal(env_readv(file, 0, iov, PIECES), -EIO);
    env_close(file);
}

/* Without O_DIRECT: written back first, and its error is the open's; then dropped. */
static void test_uncached_without_direct(void **state)
{
    struct keg_env *env = env_of(state);
    struct keg_file *file;
    char buf[10];

    assert_int_equal(env_replace(env, "m", "bytes", 5), 0);
    want_calls("dwsrd");
    no_direct = true;
    assert_int_equal(env_open(env, "m", ENV_UNCACHED, &file), 0);
    want_calls("sn");
    assert_int_equal(env_read(file, 1, buf, sizeof buf), 4);
    assert_memory_equal(buf, "ytes", 4);
    env_close(file);
    failing = 's';
    assert_int_equal(env_open(env, "m", ENV_UNCACHED, &file), -EIO);
    want_calls("s");
}

/* What O_DIRECT gives for a medium that fails is one code to all above; what is no such failure
 * stays what it is. */
static void test_unreadable(void **state)
{
    static const int errors[] = {EIO,     ENODATA, EILSEQ,    EREMOTEIO, EBADE,
                                 ENOLINK, EBADMSG, ETIMEDOUT, EUCLEAN};
    struct keg_env *env = env_of(state);
    struct keg_file *files[3];
    char buf[5];

    assert_int_equal(env_replace(env, "m", "bytes", 5), 0);
    assert_int_equal(env_open(env, "m", ENV_READ, &files[0]), 0);
    assert_int_equal(env_open(env, "m", ENV_UNCACHED, &files[1]), 0);
    no_direct = true;
    assert_int_equal(env_open(env, "m", ENV_UNCACHED, &files[2]), 0);
    no_direct = false;
    for (size_t f = 0; f < 3; f++) {
        for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
            read_error = errors[i];
            assert_int_equal(env_read(files[f], 0, buf, sizeof buf), -EIO);
            assert_int_equal(env_read_all(files[f], 0, buf, sizeof buf), -EIO);
        }
        read_error = ENOMEM;
        assert_int_equal(env_read(files[f], 0, buf, sizeof buf), -ENOMEM);
        read_error = 0;
        assert_int_equal(env_read(files[f], 0, buf, sizeof buf), sizeof buf);
        env_close(files[f]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(directory),
        TEST(order),
        TEST(errors),
        TEST(failed_directory_sync_sticks),
        TEST(failed_publication_sticks),
        TEST(short_and_interrupted),
        TEST(pieces_are_read_at_once),
        TEST(uncached_without_direct),
        TEST(unreadable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
