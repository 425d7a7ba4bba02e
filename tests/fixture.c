/* SPDX-License-Identifier: MIT */
#include "fixture.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VALUE = 300 }; /* bytes */

static void print_log(void *arg, enum keg_level level, const char *line)
{
    (void)arg;
    (void)level;
    if (getenv("TEST_VERBOSE"))
        print_message("log: %s\n", line);
}

int fixture_reopen(struct fixture *fixture)
{
    struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                  .segment_size = fixture->segment_size,
                                  .log = print_log};

    return keg_open(&fixture->hook.env, &options, &fixture->keg);
}

void fixture_open(struct fixture *fixture)
{
    fixture_open_sized(fixture, FIXTURE_SEGMENT);
}

void fixture_open_sized(struct fixture *fixture, uint64_t segment_size)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->segment_size = segment_size;
    assert_int_equal(env_fault(0, &fixture->disk), 0);
    hook_init(&fixture->hook, fixture->disk);
    assert_int_equal(fixture_reopen(fixture), 0);
}

void fixture_free(struct fixture *fixture)
{
    assert_int_equal(env_fault_open_files(fixture->disk), 0);
    keg_env_free(fixture->disk);
}

static int fail_changes(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    (void)name;
    return op == HOOK_OPEN || op == HOOK_READ ? 0 : -EIO;
}

void fixture_stop(struct fixture *fixture, bool power)
{
    struct env_fault_plan plan = {ENV_FAULT_CUT, 1, true, 7};

    fixture->hook.fn = power ? NULL : fail_changes;
    if (power)
        env_fault_set(fixture->disk, &plan);
    if (keg_close(fixture->keg) == 0)
        print_message("nothing was left to write\n");
    fixture->hook.fn = NULL;
    if (power)
        env_fault_restart(fixture->disk);
}

struct keg_bytes fixture_text(const char *s)
{
    return (struct keg_bytes){s, strlen(s)};
}

struct keg_bytes fixture_name(unsigned n, char *buf)
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 40, "a key that has %06u as its name", n)};
}

/* No zeros, and no other key's. */
static void fill_value(unsigned n, char value[VALUE])
{
    for (unsigned i = 0; i < VALUE; i++)
        value[i] = (char)(1 + (n * 2654435761u + i * 40503u) % 251);
}

int fixture_put(struct keg *keg, unsigned n, unsigned flags)
{
    char value[VALUE], buf[FIXTURE_NAME];

    fill_value(n, value);
    return keg_put(keg, fixture_name(n, buf), fixture_text("m"),
                   (struct keg_bytes){value, sizeof value}, flags);
}

bool fixture_has(struct keg *keg, unsigned n)
{
    char want[VALUE], value[VALUE + 1], buf[FIXTURE_NAME];

    fill_value(n, want);
    return keg_read(keg, fixture_name(n, buf), 0, value, sizeof value) == VALUE &&
           memcmp(value, want, sizeof want) == 0;
}

void fixture_want_all(struct keg *keg, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++) {
        if (!fixture_has(keg, n))
            print_error("key %u is missing\n", n);
        assert_true(fixture_has(keg, n));
    }
}

void fixture_put_all(struct keg *keg, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++)
        assert_int_equal(fixture_put(keg, n, 0), 0);
}

void fixture_drop_all(struct keg *keg, unsigned from, unsigned to)
{
    char buf[40];

    for (unsigned n = from; n < to; n++)
        assert_int_equal(keg_delete(keg, fixture_name(n, buf), 0), 0);
}

static int remove_hint(void *arg, const char *name)
{
    return strstr(name, ".hint") ? env_remove(arg, name) : 0;
}

bool fixture_ends(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);

    return len >= n && strcmp(name + len - n, end) == 0;
}

int fixture_fail_first(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    return op == HOOK_READ && strcmp(name, "00000001.data") == 0 ? -EIO : 0;
}

void fixture_remove_hints(struct fixture *fixture)
{
    assert_int_equal(env_list(fixture->disk, remove_hint, fixture->disk), 0);
}
