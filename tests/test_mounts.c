/* SPDX-License-Identifier: MIT */
#include "mounts.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_inside(void **state)
{
    (void)state;
    assert_true(mounts_inside("/a/b", "/a/b"));
    assert_true(mounts_inside("/a/b/c", "/a/b"));
    assert_true(mounts_inside("/a", "/"));
    assert_false(mounts_inside("/a/bc", "/a/b"));
    assert_false(mounts_inside("/a", "/a/b"));
}

static void test_realpath(void **state)
{
    char dir[] = "/tmp/kegfs-mounts-XXXXXX", path[PATH_MAX], want[PATH_MAX], link[64];
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_non_null(realpath(dir, want));
    (void)snprintf(path, sizeof path, "%s//./", dir);
    assert_int_equal(mounts_realpath(path, path), 0);
    assert_string_equal(path, want);
    /* The last name need not exist; what is before it must. */
    (void)snprintf(path, sizeof path, "%s/new//", dir);
    strcat(want, "/new");
    char out[PATH_MAX];
    assert_int_equal(mounts_realpath(path, out), 0);
    assert_string_equal(out, want);
    (void)snprintf(path, sizeof path, "%s/no/new", dir);
    assert_int_equal(mounts_realpath(path, out), -ENOENT);
    (void)snprintf(link, sizeof link, "%s/link", dir);
    assert_int_equal(symlink("/", link), 0);
    (void)snprintf(path, sizeof path, "%s/link/no-such-name", dir);
    assert_int_equal(mounts_realpath(path, out), 0);
    assert_string_equal(out, "/no-such-name");
    unlink(link);
    rmdir(dir);
}

static void test_at(void **state)
{
    static struct mounts_entry entry;
    (void)state;
    assert_int_equal(mounts_at("/proc", &entry), 0);
    assert_string_equal(entry.type, "proc");
    assert_int_equal(mounts_at("/proc/self", &entry), -ENOENT);
    assert_false(mounts_is_ours("/proc", "proc"));
    assert_false(mounts_is_dead("/proc"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inside),
        cmocka_unit_test(test_realpath),
        cmocka_unit_test(test_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
