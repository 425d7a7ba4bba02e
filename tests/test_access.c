/* SPDX-License-Identifier: MIT */
/* The way of a command to a store that is not mounted; tests/mounted has the other. */
#include "access.h"
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_key(void **state)
{
    static const char *const good[][2] = {{"a", "a"},
                                          {"/a", "a"},
                                          {"a/b", "a/b"},
                                          {"//a//b///", "a/b"},
                                          {".kegfsx", ".kegfsx"},
                                          {"a/.kegfs", "a/.kegfs"},
                                          {"...", "..."},
                                          {"a/..b", "a/..b"}};
    static const char *const bad[] = {"", "/", ".", "..", "a/..", "../a", "a/./b"};
    static const char *const reserved[] = {".kegfs", "/.kegfs/", ".kegfs/x"};
    static char key[PATH_MAX], longest[2 * PATH_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(access_key(good[i][0], key), 0);
        assert_string_equal(key, good[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(access_key(bad[i], key), -EINVAL);
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        assert_int_equal(access_key(reserved[i], key), -EPERM);
    memset(longest, 'x', 255);
    assert_int_equal(access_key(longest, key), 0);
    longest[255] = 'x';
    assert_int_equal(access_key(longest, key), -ENAMETOOLONG);
    memset(longest, 0, sizeof longest);
    for (size_t i = 0; i < PATH_MAX - 1; i++)
        longest[i] = i % 2 ? '/' : 'x';
    assert_int_equal(access_key(longest, key), 0);
    strcat(longest, "/x");
    assert_int_equal(access_key(longest, key), -ENAMETOOLONG);
}

static char dir[PATH_MAX];

static struct access *open_store(enum access_how how)
{
    struct access *access;
    assert_int_equal(access_open(dir, how, &access), 0);
    return access;
}

static void close_store(struct access *access)
{
    assert_int_equal(access->ops->close(access), 0);
}

struct text {
    const char *rest;
    int err; /* at the end */
};

static ssize_t fill(void *arg, void *buf, size_t size)
{
    struct text *t = arg;
    size_t len = strlen(t->rest);
    if (!len)
        return t->err;
    len = len < size ? len : size;
    memcpy(buf, t->rest, len);
    t->rest += len;
    return (ssize_t)len;
}

static int put(struct access *a, const char *key, const char *text, int err)
{
    return a->ops->put(a, key, 0644, fill, &(struct text){text, err});
}

static int gather(void *arg, const void *data, size_t len)
{
    strncat(arg, data, len);
    return 0;
}

static int gather_path(void *arg, const struct access_entry *entry)
{
    strcat(strcat(arg, entry->path), S_ISDIR(entry->st.st_mode) ? "/ " : " ");
    return 0;
}

static int get(struct access *a, const char *key, char *out)
{
    out[0] = '\0';
    return a->ops->get(a, key, gather, out);
}

static const char *walk(struct access *a, const char *prefix)
{
    static char paths[4096];
    paths[0] = '\0';
    assert_int_equal(a->ops->walk(a, prefix, true, gather_path, paths), 0);
    return paths;
}

static void test_values(void **state)
{
    char text[64];
    (void)state;
    struct access *a = open_store(ACCESS_MAKE);
    assert_int_equal(put(a, "d/e/f", "one", 0), 0);
    assert_int_equal(put(a, "d/e/f", "two", -EIO), -EIO); /* reading failed: nothing changed */
    assert_int_equal(put(a, "d/new", "two", -EIO), -EIO);
    close_store(a);
    a = open_store(ACCESS_LOOK);
    assert_int_equal(get(a, "d/e/f", text), 0);
    assert_string_equal(text, "one");
    assert_int_equal(get(a, "d/new", text), -ENOENT);
    assert_int_equal(get(a, "d/e", text), -EISDIR);
    assert_int_equal(get(a, "d/e/f/g", text), -ENOTDIR);
    assert_int_equal(put(a, "x", "one", 0), -EROFS);
    close_store(a);
    a = open_store(ACCESS_CHANGE);
    assert_int_equal(put(a, "d/e/f", "", 0), 0);
    assert_int_equal(get(a, "d/e/f", text), 0);
    assert_string_equal(text, "");
    assert_int_equal(put(a, "d/e", "x", 0), -EISDIR);
    assert_int_equal(a->ops->rm(a, "d"), -ENOTEMPTY);
    assert_int_equal(a->ops->rm(a, "d/e/f"), 0);
    assert_int_equal(a->ops->rm(a, "d/e/f"), -ENOENT);
    assert_int_equal(a->ops->rm(a, "d/e"), 0);
    assert_int_equal(a->ops->rm(a, "d"), 0);
    assert_string_equal(walk(a, ""), "");
    close_store(a);
}

static void test_walk(void **state)
{
    uint64_t findings;
    char key[32];
    (void)state;
    struct access *a = open_store(ACCESS_MAKE);
    assert_int_equal(put(a, "w/ab/c", "x", 0), 0);
    assert_int_equal(put(a, "w/abc", "x", 0), 0);
    assert_int_equal(put(a, "w/b", "x", 0), 0);
    assert_string_equal(walk(a, "w/b"), "w/b ");
    assert_string_equal(walk(a, "w/ab/"), "w/ab/c ");
    assert_string_equal(walk(a, "w/x"), "");
    assert_string_equal(walk(a, "nope/x"), "");
    assert_int_equal(strlen(walk(a, "w/ab")), strlen("w/ab/ w/abc w/ab/c "));
    assert_non_null(strstr(walk(a, "w/ab"), "w/abc "));
    /* More than a page. */
    for (int i = 0; i < 300; i++) {
        (void)snprintf(key, sizeof key, "many/%03d", i);
        assert_int_equal(put(a, key, "", 0), 0);
    }
    assert_int_equal(strlen(walk(a, "many/")), 300 * strlen("many/000 "));
    FILE *sink = fopen("/dev/null", "w");
    assert_non_null(sink);
    assert_int_equal(a->ops->check(a, false, sink, &findings, NULL, NULL), 0);
    assert_int_equal(findings, 0);
    for (int json = 0; json < 2; json++)
        for (int what = ACCESS_STATS; what <= ACCESS_DUMP; what++)
            assert_int_equal(a->ops->report(a, (enum access_what)what, json, sink), 0);
    fclose(sink);
    assert_int_equal(a->ops->task(a, ACCESS_COMPACT, NULL, NULL), 0);
    assert_int_equal(a->ops->task(a, ACCESS_HINT, NULL, NULL), 0);
    assert_string_equal(walk(a, "w/b"), "w/b ");
    close_store(a);
}

static void test_no_store(void **state)
{
    struct access *a;
    char path[PATH_MAX + 8];
    (void)state;
    (void)snprintf(path, sizeof path, "%s/no/no", dir);
    assert_int_equal(access_open(path, ACCESS_MAKE, &a), -ENOENT);
    (void)snprintf(path, sizeof path, "%s2", dir);
    assert_int_equal(access_open(path, ACCESS_LOOK, &a), -ENOENT);
    assert_int_equal(access_open("/dev/null", ACCESS_LOOK, &a), -ENOTDIR);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/kegfs-access-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[PATH_MAX + 16];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_no_store),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
