/* SPDX-License-Identifier: MIT */
#include "log.h"
#include "mount_options.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static bool parse(struct mount_options *options, const char *list)
{
    char copy[256];
    strcpy(copy, list);
    mount_options_init(options);
    return mount_options_parse(options, copy);
}

static void test_flags(void **state)
{
    struct mount_options o;
    (void)state;
    assert_true(parse(&o, "ro,relatime,sync,allow_other,dev,suid,nonempty,noexec"));
    assert_true(o.readonly && o.relatime && o.sync && o.allow_other && o.dev && o.suid &&
                o.nonempty && o.noexec);
    assert_true(parse(&o, "ro,rw,dev,nodev,suid,nosuid,noexec,exec,sync,async"));
    assert_false(o.readonly || o.dev || o.suid || o.noexec || o.sync);
    assert_true(parse(&o, "ro,commit=close,sync") && o.commit_close && o.sync);
    assert_true(parse(&o, "user_id=0,remount,ro") && o.remount && o.readonly);
    assert_true(parse(&o, "commit=close,commit=write") && !o.commit_close);
    assert_true(parse(&o, "writeback") && o.writeback && mount_options_agree(&o));
    assert_true(parse(&o, "writeback,nowriteback") && !o.writeback);
    assert_true(parse(&o, "ro") && o.xattr == MOUNT_OPTIONS_XATTR_UNSAID &&
                o.acl == MOUNT_OPTIONS_ACL_UNSAID);
    assert_true(parse(&o, "noxattr,noacl") && o.xattr == MOUNT_OPTIONS_XATTR_OFF &&
                o.acl == MOUNT_OPTIONS_ACL_OFF);
    assert_true(parse(&o, "noxattr,noacl,xattr,acl") && o.xattr == MOUNT_OPTIONS_XATTR_ON &&
                o.acl == MOUNT_OPTIONS_ACL_ON);
    assert_true(parse(&o, "ro") && o.transport == TRANSPORT_AUTO);
    assert_true(parse(&o, "transport=spin,transport=uring,ro") && o.transport == TRANSPORT_URING);
    assert_true(parse(&o, "transport=libfuse") && o.transport == TRANSPORT_LIBFUSE);
    assert_true(parse(&o, "transport=uring,transport=auto") && o.transport == TRANSPORT_AUTO);
}

static void test_ignored(void **state)
{
    struct mount_options o, fresh;
    (void)state;
    mount_options_init(&fresh);
    assert_true(parse(&o,
                      "defaults,noauto,user,nofail,_netdev,x-systemd.automount,,noatime,"
                      "x-gvfs-show=1,comment=x,user_id=0,group_id=0,max_read=131072,blksize=4096"));
    assert_memory_equal(&o, &fresh, sizeof o);
}

static void test_numbers(void **state)
{
    struct mount_options o;
    (void)state;
    assert_true(parse(&o, "segment_size=64K,sync_interval=250,max_threads=3"));
    assert_int_equal(o.segment_size, 65536);
    assert_int_equal(o.sync_interval_ms, 250);
    assert_int_equal(o.max_threads, 3);
    assert_int_equal(o.memory, 64 << 20);
    assert_true(o.poll_us == TRANSPORT_POLL_AUTO);
    assert_true(parse(&o, "poll=0") && o.poll_us == 0);
    assert_true(parse(&o, "poll=1000") && o.poll_us == 1000);
    assert_true(parse(&o, "memory=4M") && o.memory == 4 << 20);
    assert_true(parse(&o, "segment_size=127M"));
    assert_int_equal(o.segment_size, 127 << 20);
    assert_true(parse(&o, "segment_size=134217727"));
    static const char *const wrong[] = {
        "segment_size",
        "segment_size=",
        "segment_size=-1",
        "segment_size=128M",
        "segment_size=63K",
        "segment_size=1G",
        "segment_size=64MM",
        "segment_size=134217728",
        "sync_interval=0",
        "sync_interval=1K",
        "max_threads=0",
        "memory=3M",
        "poll=1001",
        "poll",
        "memory=1025M",
        "max_threads=257",
        "segment_size=18446744073709551616",
        "segment_size=17592186044416M",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (parse(&o, wrong[i]))
            fail_msg("taken: %s", wrong[i]);
}

static void test_unknown(void **state)
{
    struct mount_options o;
    (void)state;
    assert_false(parse(&o, "rw,bogus"));
    assert_false(parse(&o, "ro=1"));
    assert_false(parse(&o, "bogus=1"));
    assert_false(parse(&o, "commit"));
    assert_false(parse(&o, "commit=never"));
    assert_false(parse(&o, "commit=close=1"));
    assert_false(parse(&o, "transport"));
    assert_false(parse(&o, "transport=dove"));
}

/* Each of them is refused whichever comes first. */
static void test_contradictions(void **state)
{
    struct mount_options o;
    (void)state;
    assert_true(parse(&o, "writeback,commit=close") && !mount_options_agree(&o));
    assert_true(parse(&o, "sync,writeback") && !mount_options_agree(&o));
    assert_true(parse(&o, "sync,writeback,async,commit=write") && mount_options_agree(&o));
    assert_true(parse(&o, "sync,commit=close") && mount_options_agree(&o));
    assert_true(parse(&o, "acl,noxattr") && !mount_options_agree(&o));
    assert_true(parse(&o, "noxattr,acl,noacl") && mount_options_agree(&o));
    assert_true(parse(&o, "noxattr") && mount_options_agree(&o));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags),          cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_contradictions), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
