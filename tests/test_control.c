/* SPDX-License-Identifier: MIT */
#include "control.h"
#include "env.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static requests_transport transport = "none";

struct fixture {
    struct keg_env *env;
    struct report report;
    struct control *control;
};

static int setup(void **state)
{
    static struct fixture f;
    const struct keg_options keg = {.flags = KEG_CREATE | KEG_NO_BACKGROUND};
    const struct volume_options volume = {.flags = VOLUME_CREATE | VOLUME_NO_BACKGROUND};
    f = (struct fixture){.report = {.store = "/s", .mountpoint = "/m", .transport = &transport}};
    if (env_mem(0, &f.env) || keg_open(f.env, &keg, &f.report.keg) ||
        volume_open(f.report.keg, &volume, &f.report.volume) ||
        control_new(&f.report, 1, 2, &f.control))
        return -1;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    control_free(f->control);
    int err = volume_close(f->report.volume) | keg_close(f->report.keg);
    keg_env_free(f->env);
    return err;
}

static void make(struct fixture *f, const char *name)
{
    const struct volume_new new = {.mode = S_IFREG | 0644};
    struct volume_attr attr;
    assert_int_equal(volume_make(f->report.volume, VOLUME_ROOT,
                                 (struct keg_bytes){name, strlen(name)}, &new, &attr),
                     0);
    volume_forget(f->report.volume, attr.ino, 1);
}

static int run(struct fixture *f, const char *command)
{
    return control_run(f->control, command, strlen(command));
}

static void test_names(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    assert_true(control_reserved(VOLUME_ROOT, ".kegfs"));
    assert_false(control_reserved(VOLUME_ROOT, ".kegfs2"));
    assert_false(control_reserved(7, ".kegfs"));
    assert_int_equal(control_lookup(f->control, VOLUME_ROOT, ".kegfs", 0, &st), 0);
    assert_int_equal(st.st_ino, CONTROL_DIR);
    assert_true(S_ISDIR(st.st_mode));
    assert_true(control_owns(st.st_ino));
    assert_false(control_owns(VOLUME_ROOT));
    assert_int_equal(control_lookup(f->control, CONTROL_DIR, "nope", 0, &st), -ENOENT);
    assert_int_equal(control_lookup(f->control, CONTROL_DIR, ".kegfs", 0, &st), -ENOENT);
    for (size_t i = 0; control_list(i); i++) {
        assert_int_equal(control_lookup(f->control, CONTROL_DIR, control_list(i), 0, &st), 0);
        assert_true(S_ISREG(st.st_mode));
        assert_string_not_equal(control_list(i), "dump");
        control_forget(f->control, st.st_ino, 1);
    }
}

/* Contents and size are those of the lookup, whatever happens later. */
static void test_fixed_at_lookup(void **state)
{
    struct fixture *f = *state;
    struct stat first, second, again;
    struct keg_bytes data, part;
    assert_int_equal(control_lookup(f->control, CONTROL_DIR, "dump", 0, &first), 0);
    make(f, "a");
    assert_int_equal(control_lookup(f->control, CONTROL_DIR, "dump", 0, &second), 0);
    assert_int_not_equal(first.st_ino, second.st_ino);
    assert_true(second.st_size > first.st_size);
    assert_int_equal(first.st_uid, 1);
    assert_int_equal(control_getattr(f->control, first.st_ino, &again), 0);
    assert_int_equal(again.st_size, first.st_size);
    assert_int_equal(control_read(f->control, first.st_ino, 0, 1 << 20, &data), 0);
    assert_int_equal(data.len, first.st_size);
    assert_memory_equal(data.data, "inode ino=1 mode=040", 20);
    assert_int_equal(control_read(f->control, first.st_ino, 6, 5, &part), 0);
    assert_int_equal(part.len, 5);
    assert_memory_equal(part.data, "ino=1", 5);
    assert_int_equal(control_read(f->control, first.st_ino, UINT64_MAX, 7, &part), 0);
    assert_int_equal(part.len, 0);
    control_forget(f->control, first.st_ino, 4); /* the lookup and three reads */
    assert_int_equal(control_getattr(f->control, first.st_ino, &again), -ESTALE);
    assert_int_equal(control_read(f->control, first.st_ino, 0, 1, &part), -ESTALE);
    assert_int_equal(control_getattr(f->control, second.st_ino, &again), 0);
    control_forget(f->control, second.st_ino, 1);
}

/* Anybody may stat a file, and few files may be read by anybody. */
static void test_not_made_for_others(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    for (uint32_t uid = 0; uid < 3; uid++) {
        assert_int_equal(control_permits(f->control, uid), uid < 2);
        assert_int_equal(control_lookup(f->control, CONTROL_DIR, "dump", uid, &st), 0);
        assert_int_equal(st.st_mode, S_IFREG | 0400);
        assert_int_equal(st.st_size > 0, uid < 2);
        control_forget(f->control, st.st_ino, 1);
        assert_int_equal(control_lookup(f->control, CONTROL_DIR, "stats", uid, &st), 0);
        assert_true(st.st_size > 0);
        control_forget(f->control, st.st_ino, 1);
    }
}

/* Who was sent the bytes may close and forget while the one who sends them is still at it. */
static void test_forgotten_while_read(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    struct keg_bytes data;
    assert_int_equal(control_lookup(f->control, CONTROL_DIR, "dump", 0, &st), 0);
    assert_int_equal(control_read(f->control, st.st_ino, 0, 1 << 20, &data), 0);
    control_forget(f->control, st.st_ino, 1);
    assert_memory_equal(data.data, "inode ino=1 mode=040", 20);
    assert_int_equal(control_getattr(f->control, st.st_ino, &st), 0);
    control_forget(f->control, st.st_ino, 1);
    assert_int_equal(control_getattr(f->control, st.st_ino, &st), -ESTALE);
}

static void test_commands(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    struct keg_bytes data;
    make(f, "a");
    assert_int_equal(run(f, "sync"), 0);
    assert_int_equal(run(f, " hint\n"), 0);
    assert_int_equal(run(f, "compact\n"), 0);
    assert_int_equal(run(f, "check"), 0);
    assert_int_equal(run(f, ""), -EINVAL);
    assert_int_equal(run(f, "\n"), -EINVAL);
    assert_int_equal(run(f, "checks"), -EINVAL);
    assert_int_equal(run(f, "chec"), -EINVAL);
    assert_int_equal(run(f, "sync sync"), -EINVAL);
    assert_int_equal(control_lookup(f->control, CONTROL_DIR, "check", 0, &st), 0);
    assert_int_equal(control_read(f->control, st.st_ino, 0, 100, &data), 0);
    assert_int_equal(data.len, 6);
    assert_memory_equal(data.data, "sound\n", 6);
    control_forget(f->control, st.st_ino, 1);
    assert_int_equal(control_writable(f->control, st.st_ino), -EACCES);
    assert_int_equal(control_writable(f->control, CONTROL_DIR), -EISDIR);
    assert_int_equal(control_lookup(f->control, CONTROL_DIR, "control", 0, &st), 0);
    assert_int_equal(control_writable(f->control, st.st_ino), 0);
}

static void test_cancelled(void **state)
{
    struct fixture *f = *state;
    make(f, "a");
    control_cancel(f->control);
    assert_int_equal(run(f, "check"), -EINTR);
    assert_int_equal(run(f, "sync"), 0);
}

static void test_attributes(void **state)
{
    struct fixture *f = *state;
    char value[4096];
    ssize_t n = control_getxattr(f->control, "user.kegfs.stats", NULL, 0);
    assert_true(n > 0 && n < (ssize_t)sizeof value);
    assert_int_equal(control_getxattr(f->control, "user.kegfs.stats", value, sizeof value), n);
    assert_memory_equal(value, "store ", 6);
    assert_int_equal(control_getxattr(f->control, "user.kegfs.stats", value, 3), -ERANGE);
    assert_int_equal(control_getxattr(f->control, "user.kegfs.nope", value, 3), -ENODATA);
    /* Only the owner may read that one as a file. */
    assert_int_equal(control_getxattr(f->control, "user.kegfs.dump", NULL, 0), -ENODATA);
    assert_int_equal(control_setxattr(f->control, "user.kegfs.sync"), 0);
    assert_int_equal(control_setxattr(f->control, "user.kegfs.stats"), -EOPNOTSUPP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fixed_at_lookup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_made_for_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgotten_while_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attributes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
