/* SPDX-License-Identifier: MIT */
#include "bench.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void print_log(void *arg, enum keg_level level, const char *line)
{
    (void)arg;
    (void)level;
    if (getenv("TEST_VERBOSE"))
        print_message("log: %s\n", line);
}

int bench_reopen(struct bench *bench)
{
    struct keg_options options = {
        .flags = KEG_CREATE | KEG_NO_BACKGROUND, .segment_size = BENCH_SEGMENT, .log = print_log};

    return keg_open(&bench->hook.env, &options, &bench->keg);
}

void bench_open(struct bench *bench)
{
    memset(bench, 0, sizeof *bench);
    assert_int_equal(env_fault(0, &bench->disk), 0);
    hook_init(&bench->hook, bench->disk);
    assert_int_equal(bench_reopen(bench), 0);
}

void bench_free(struct bench *bench)
{
    assert_int_equal(env_fault_open_files(bench->disk), 0);
    keg_env_free(bench->disk);
}

static int fail_changes(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    (void)name;
    return op == HOOK_OPEN || op == HOOK_READ ? 0 : -EIO;
}

void bench_stop(struct bench *bench, bool power)
{
    struct env_fault_plan plan = {ENV_FAULT_CUT, 1, true, 7};

    bench->hook.fn = power ? NULL : fail_changes;
    if (power)
        env_fault_set(bench->disk, &plan);
    if (keg_close(bench->keg) == 0)
        print_message("nothing was left to write\n");
    bench->hook.fn = NULL;
    if (power)
        env_fault_restart(bench->disk);
}

struct keg_bytes bench_text(const char *s)
{
    return (struct keg_bytes){s, strlen(s)};
}

struct keg_bytes bench_name(unsigned n, char *buf)
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 40, "a key that has %06u as its name", n)};
}

int bench_put(struct keg *keg, unsigned n, unsigned flags)
{
    static const char value[300];
    char buf[40];

    return keg_put(keg, bench_name(n, buf), bench_text("m"),
                   (struct keg_bytes){value, sizeof value}, flags);
}

bool bench_has(struct keg *keg, unsigned n)
{
    struct keg_info info;
    char value[300], buf[40];

    return keg_get(keg, bench_name(n, buf), &info) == 0 &&
           keg_read(keg, bench_name(n, buf), 0, value, sizeof value) == (ssize_t)info.value_len;
}

void bench_want_all(struct keg *keg, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++) {
        if (!bench_has(keg, n))
            print_error("key %u is missing\n", n);
        assert_true(bench_has(keg, n));
    }
}

void bench_put_all(struct keg *keg, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++)
        assert_int_equal(bench_put(keg, n, 0), 0);
}

void bench_drop_all(struct keg *keg, unsigned from, unsigned to)
{
    char buf[40];

    for (unsigned n = from; n < to; n++)
        assert_int_equal(keg_delete(keg, bench_name(n, buf), 0), 0);
}

static int remove_hint(void *arg, const char *name)
{
    return strstr(name, ".hint") ? env_remove(arg, name) : 0;
}

bool bench_ends(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);

    return len >= n && strcmp(name + len - n, end) == 0;
}

int bench_fail_first(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    return op == HOOK_READ && strcmp(name, "00000001.data") == 0 ? -EIO : 0;
}

void bench_remove_hints(struct bench *bench)
{
    assert_int_equal(env_list(bench->disk, remove_hint, bench->disk), 0);
}
