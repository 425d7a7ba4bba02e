/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of the namespace fails once, one after the other, over the same calls. A call
 * that fails for it has changed nothing: made again, it does what it should have done, and the end
 * is the same as without a failure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOMEM_ITSELF
#include "acl_text.h"
#include "nomem.h"
#include "volume_fixture.h"
#include <errno.h>
#include <linux/falloc.h>
#include <unistd.h>

static struct fixture f;
static unsigned long countdown; /* 1: the next one fails; 0: none */
static unsigned failures;

static bool fails(void)
{
    if (countdown == 0 || --countdown > 0)
        return false;
    failures++;
    return true;
}

void *nomem_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

void *nomem_calloc(size_t count, size_t size)
{
    return fails() ? NULL : calloc(count, size);
}

void *nomem_realloc(void *old, size_t size)
{
    return fails() ? NULL : realloc(old, size);
}

/* Makes the call again if memory was short; expects what it is to return at last. */
#define AGAIN(expected, call)                                                                      \
    do {                                                                                           \
        ssize_t result = (call);                                                                   \
        if (result == -ENOMEM)                                                                     \
            result = (call);                                                                       \
        assert_int_equal(result, expected);                                                        \
    } while (0)

static uint64_t make(uint64_t dir, const char *name, uint32_t mode, const char *target)
{
    struct volume_attr attr;
    const struct volume_new new = {.mode = mode, .target = fixture_text(target)};
    AGAIN(0, volume_make(f.volume, dir, fixture_text(name), &new, &attr));
    return attr.ino;
}

static bool take_all(void *arg, const struct volume_dirent *entry)
{
    ++*(unsigned *)arg;
    volume_forget(f.volume, entry->attr.ino, 1);
    return true;
}

static ssize_t fill(void *arg, void *buf, size_t size)
{
    size_t *left = arg, n = *left < size ? *left : size;
    memset(buf, 'p', n);
    *left -= n;
    return (ssize_t)n;
}

/* fill cannot be asked twice for the same, so volume_put is given all anew. */
static int put(size_t len)
{
    const struct volume_new new = {.mode = S_IFREG};
    return volume_put(f.volume, fixture_text("new/put"), &new, fill, &len);
}

static struct acl_text many;

static void use_files(uint64_t dir)
{
    static uint8_t buf[200000];
    struct volume_attr attr = {.size = 0};
    uint64_t a = make(dir, "a", S_IFREG | 0644, ""), b = make(dir, "b", S_IFREG | 0644, "");
    AGAIN(200000, volume_write(f.volume, a, 100, buf, sizeof buf, 0));
    AGAIN(10, volume_write(f.volume, a, 70000, buf, 10, 0));
    for (uint64_t i = 0; i < 20; i++)
        AGAIN(10, volume_write(f.volume, b, i * 10, buf, 10, 0));
    AGAIN(0, volume_setattr(f.volume, a, VOLUME_SET_SIZE, &attr, &attr));
    AGAIN(0, volume_sync(f.volume, 0));
    AGAIN(300, volume_write(f.volume, a, 0, buf, 300, 0));
    attr.size = 150;
    AGAIN(0, volume_setattr(f.volume, a, VOLUME_SET_SIZE, &attr, &attr));
    AGAIN(0, volume_fallocate(f.volume, a, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 10));
    AGAIN(0, volume_setxattr(f.volume, a, fixture_text("user.x"), "y", 1, 0));
    AGAIN(7, volume_listxattr(f.volume, a, NULL, 0));
    struct keg_bytes acl = acl_text_parse(&many, "u7 g5 m7 o5"), name = acl_name(ACL_ACCESS);
    AGAIN(0, volume_setxattr(f.volume, a, name, acl.data, acl.len, 0));
    AGAIN(0, volume_setattr(f.volume, a, VOLUME_SET_MODE, &attr, &attr));
    AGAIN(0, volume_removexattr(f.volume, a, name));
    AGAIN(150, volume_read(f.volume, a, 0, buf, 1000));
    uint64_t out;
    AGAIN(0, volume_seek(f.volume, a, 0, SEEK_HOLE, &out));
    assert_int_equal(out, 10);
}

/* One that does not fit into what a frame has on the stack. */
static void use_acls(uint64_t dir)
{
    acl_text_parse(&many, "u7");
    for (uint32_t user = 1; user < 300; user++)
        acl_text_add(&many, ACL_USER, 7, user);
    acl_text_add(&many, ACL_GROUP_OBJ, 5, UINT32_MAX);
    acl_text_add(&many, ACL_MASK, 7, UINT32_MAX);
    acl_text_add(&many, ACL_OTHER, 5, UINT32_MAX);
    AGAIN(0, volume_setxattr(f.volume, dir, acl_name(ACL_DEFAULT), many.bytes, many.len, 0));
    make(dir, "sub", S_IFDIR | 0755, "");
    AGAIN(0, volume_removexattr(f.volume, dir, acl_name(ACL_DEFAULT)));
}

static void use_names(uint64_t dir)
{
    struct volume_attr attr;
    uint64_t link = make(dir, "link", S_IFLNK | 0777, "over/there");
    AGAIN(0, volume_setattr(f.volume, link, VOLUME_SET_MTIME_NOW, NULL, &attr));
    AGAIN(0, volume_link(f.volume, link, dir, fixture_text("c"), &attr));
    AGAIN(0, volume_rename(f.volume, dir, fixture_text("a"), 1, fixture_text("b"), 0));
    AGAIN(0, volume_unlink(f.volume, dir, fixture_text("b")));
    AGAIN(0, put(10));
    AGAIN(0, put((2 << 20) + 5));
    for (int i = 0; i < 100; i++) { /* until the table of inodes grows */
        char name[8];
        snprintf(name, sizeof name, "n%d", i);
        make(1, name, S_IFREG, "");
    }
    unsigned count = 0;
    AGAIN(0, volume_readdir(f.volume, dir, 0, false, take_all, &count));
    AGAIN(0, volume_resolve(f.volume, fixture_text("new/put"), &attr));
    assert_int_equal(attr.size, (2 << 20) + 5);
}

static uint64_t run_once(unsigned long fail_at)
{
    struct keg_stats stats;
    f = (struct fixture){.volume_flags = VOLUME_NO_BACKGROUND,
                         .keg_flags = KEG_NO_BACKGROUND,
                         .seconds = 1790000000};
    assert_int_equal(env_mem(0, &f.env), 0);
    countdown = fail_at;
    AGAIN(0, fixture_open(&f));
    uint64_t dir = make(1, "dir", S_IFDIR | 0755, "");
    use_files(dir);
    use_acls(dir);
    use_names(dir);
    AGAIN(0, volume_check(f.volume, fixture_print, NULL));
    countdown = 0;
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    keg_stats(f.keg, &stats);
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(f.env);
    return stats.keys;
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    uint64_t keys = run_once(0);
    unsigned long at = 0;
    for (unsigned before = UINT32_MAX; before != failures;) {
        before = failures;
        assert_int_equal(run_once(++at), keys);
    }
    printf("%lu allocations failed\n", at - 1);
    assert_true(at > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_fails)};
    return cmocka_run_group_tests_name("volume_nomem", tests, NULL, NULL);
}
