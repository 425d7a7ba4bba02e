/* SPDX-License-Identifier: MIT */
/* POSIX ACLs: as bytes, by hand-worked cases; and in the namespace, with modes and inheritance. */
#include "acl_text.h"
#include "random.h"
#include "volume_case.h"
#include <sys/xattr.h>

static struct acl_text buffer;

static struct keg_bytes parse(const char *text)
{
    return acl_text_parse(&buffer, text);
}

/* ---- Bytes ---- */

static void test_what_is_an_acl(void **state)
{
    static const struct {
        const char *text;
        int expected;
    } cases[] = {
        {"u7 g5 o0", 0},
        {"u7 g5 m7 o0", 0},
        {"u7 u:5:5 g5 m7 o0", 0},
        {"u7 u:5:5 u:5:7 u:4:0 g5 g:9:6 g:9:1 m0 o7", 0},
        {"u7 g5 g:4294967294:6 m0 o7", 0},
        {"", -EINVAL},
        {"u7", -EINVAL},
        {"u7 g5", -EINVAL},
        {"u7 o0", -EINVAL},
        {"g5 o0", -EINVAL},
        {"g5 u7 o0", -EINVAL},
        {"u7 o0 g5", -EINVAL},
        {"u7 u7 g5 o0", -EINVAL},
        {"u7 g5 g5 o0", -EINVAL},
        {"u7 g5 o0 o0", -EINVAL},
        {"u7 g5 m7 m7 o0", -EINVAL},
        {"u7 g5 o0 m7", -EINVAL},
        {"u7 m7 g5 o0", -EINVAL},
        {"u7 u:5:5 g5 o0", -EINVAL}, /* no mask */
        {"u7 g5 g:5:5 o0", -EINVAL},
        {"u7 g5 u:5:5 m7 o0", -EINVAL},
        {"u7 g:5:5 g5 m7 o0", -EINVAL},
        {"u:5:5 u7 g5 m7 o0", -EINVAL},
        {"u7 g5 o10", -EINVAL}, /* a permission that is none */
        {"u400 g5 o0", -EINVAL},
        {"u7 u:4294967295:7 g5 m7 o0", -EINVAL}, /* nobody */
        {"u7 g5 g:4294967295:7 m7 o0", -EINVAL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (acl_check(parse(cases[i].text)) != cases[i].expected)
            fail_msg("%s", cases[i].text);
    }
}

static void test_headers_and_lengths(void **state)
{
    (void)state;
    struct keg_bytes acl = parse("u7 u:5:5 g5 m7 o0");
    for (size_t len = 0; len < acl.len; len++)
        assert_int_equal(acl_check((struct keg_bytes){acl.data, len}), -EINVAL);
    buffer.bytes[0] = 1;
    assert_int_equal(acl_check(acl), -EOPNOTSUPP);
    assert_int_equal(acl_is_empty((struct keg_bytes){acl.data, 4}), false);
    buffer.bytes[0] = 2;
    assert_int_equal(acl_is_empty((struct keg_bytes){acl.data, 4}), true);
    assert_int_equal(acl_is_empty((struct keg_bytes){NULL, 0}), true);
    assert_int_equal(acl_is_empty((struct keg_bytes){acl.data, 3}), false);
    assert_int_equal(acl_is_empty(acl), false);
    buffer.bytes[4] = 0x40; /* a tag that is none */
    assert_int_equal(acl_check(acl), -EINVAL);
    assert_int_equal(acl_kind_of(T("system.posix_acl_access")), ACL_ACCESS);
    assert_int_equal(acl_kind_of(T("system.posix_acl_default")), ACL_DEFAULT);
    assert_int_equal(acl_kind_of(T("system.posix_acl_")), ACL_NONE);
    assert_int_equal(acl_kind_of(T("system.posix_acl_access2")), ACL_NONE);
    assert_int_equal(acl_kind_of(T("")), ACL_NONE);
}

static void test_ids_that_mean_nothing_are_made_equal(void **state)
{
    (void)state;
    struct keg_bytes acl = parse("u7 u:5:5 g5 g:6:1 m7 o0");
    uint8_t expected[64];
    memcpy(expected, acl.data, acl.len);
    memset(buffer.bytes + 4 + 4, 0, 4);      /* the owner's */
    memset(buffer.bytes + 4 + 32 + 4, 7, 4); /* the mask's */
    acl_normalize(buffer.bytes, acl.len);
    assert_memory_equal(acl.data, expected, acl.len);
}

static void test_modes_and_chmod(void **state)
{
    static const struct {
        const char *acl;
        uint32_t mode; /* that it gives */
        bool says_all;
        uint32_t chmod;
        const char *then;
    } cases[] = {
        {"u7 g5 o0", 0750, true, 0641, "u6 g4 o1"},
        {"u0 g0 o7", 0007, true, 0000, "u0 g0 o0"},
        {"u6 g4 m7 o1", 0671, false, 0705, "u7 g4 m0 o5"},
        {"u7 u:5:7 g5 m4 o0", 0740, false, 0777, "u7 u:5:7 g5 m7 o7"},
        {"u4 g1 g:3:7 m6 o2", 0462, false, 0620, "u6 g1 g:3:7 m2 o0"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct keg_bytes acl = parse(cases[i].acl);
        uint32_t mode = S_IFREG | S_ISUID | 0123;
        assert_int_equal(acl_to_mode(acl, &mode), cases[i].says_all);
        assert_int_equal(mode, S_IFREG | S_ISUID | cases[i].mode);
        acl_chmod(buffer.bytes, acl.len, S_IFDIR | S_ISVTX | cases[i].chmod);
        assert_string_equal(acl_text_print(&buffer), cases[i].then);
    }
}

static void test_inheriting(void **state)
{
    static const struct {
        const char *from;
        uint32_t asked, gets;
        bool says_all;
        const char *then;
    } cases[] = {
        {"u7 g7 o7", 0644, 0644, true, "u6 g4 o4"},
        {"u7 g5 o0", 0666, 0640, true, "u6 g4 o0"},
        {"u5 g5 o5", 0777, 0555, true, "u5 g5 o5"},
        {"u7 u:5:7 g5 m7 o0", 0666, 0660, false, "u6 u:5:7 g5 m6 o0"},
        {"u7 u:5:7 g5 m5 o5", 0700, 0700, false, "u7 u:5:7 g5 m0 o0"},
        {"u7 g7 g:8:6 m6 o1", 01777, 01761, false, "u7 g7 g:8:6 m6 o1"},
        {"u0 u:5:7 g0 m7 o0", 0666, 0060, false, "u0 u:5:7 g0 m6 o0"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct keg_bytes acl = parse(cases[i].from);
        uint32_t mode = S_IFREG | cases[i].asked;
        assert_int_equal(acl_inherit(buffer.bytes, acl.len, &mode), cases[i].says_all);
        assert_int_equal(mode, S_IFREG | cases[i].gets);
        assert_string_equal(acl_text_print(&buffer), cases[i].then);
    }
}

/* Sound, but for a byte that is changed in every other one. */
static void random_acl(struct random *random, struct acl_text *acl)
{
    uint64_t users = random_below(random, 3), groups = random_below(random, 3);
    acl_text_parse(acl, "");
    acl_text_add(acl, ACL_USER_OBJ, (unsigned)random_below(random, 8), UINT32_MAX);
    for (uint64_t i = 0; i < users; i++)
        acl_text_add(acl, ACL_USER, (unsigned)random_below(random, 8), (uint32_t)i);
    acl_text_add(acl, ACL_GROUP_OBJ, (unsigned)random_below(random, 8), UINT32_MAX);
    for (uint64_t i = 0; i < groups; i++)
        acl_text_add(acl, ACL_GROUP, (unsigned)random_below(random, 8), (uint32_t)i);
    if (users + groups || random_below(random, 2))
        acl_text_add(acl, ACL_MASK, (unsigned)random_below(random, 8), UINT32_MAX);
    acl_text_add(acl, ACL_OTHER, (unsigned)random_below(random, 8), UINT32_MAX);
    if (random_below(random, 2))
        acl->bytes[random_below(random, acl->len)] ^= (uint8_t)(1u << random_below(random, 8));
    if (random_below(random, 20) == 0)
        acl->len = random_below(random, acl->len);
}

/* Whatever is taken for an ACL has a mode, and chmod makes it the mode's. */
static void test_random_bytes(void **state)
{
    struct random random = random_seeded();
    static struct acl_text copy;
    unsigned taken = 0, refused = 0;
    (void)state;
    for (int round = 0; round < 100000; round++) {
        random_acl(&random, &buffer);
        struct keg_bytes acl = {buffer.bytes, buffer.len};
        if (acl_check(acl) != 0) {
            refused++;
            continue;
        }
        uint32_t mode = 0, wanted = (uint32_t)random_below(&random, 01000), asked = wanted;
        taken++;
        copy = buffer;
        bool says_all = acl_to_mode(acl, &mode);
        assert_int_equal(acl_inherit(copy.bytes, copy.len, &asked), says_all);
        assert_int_equal(asked, mode & wanted);
        acl_chmod(buffer.bytes, buffer.len, wanted);
        assert_int_equal(acl_check(acl), 0);
        assert_int_equal(acl_to_mode(acl, &mode), says_all);
        assert_int_equal(mode, wanted);
    }
    assert_true(taken > 10000 && refused > 10000);
}

/* ---- In the namespace ---- */

static int set(uint64_t ino, enum acl_kind kind, const char *text)
{
    struct keg_bytes acl = parse(text);
    return volume_setxattr(f.volume, ino, acl_name(kind), acl.data, acl.len, 0);
}

static const char *got(uint64_t ino, enum acl_kind kind)
{
    ssize_t n = volume_getxattr(f.volume, ino, acl_name(kind), buffer.bytes, sizeof buffer.bytes);
    if (n == -ENODATA)
        return "none";
    assert_true(n > 0);
    assert_int_equal(volume_getxattr(f.volume, ino, acl_name(kind), NULL, 0), n);
    buffer.len = (size_t)n;
    return acl_text_print(&buffer);
}

static uint64_t make_with(uint64_t dir, const char *name, uint32_t mode, uint32_t umask)
{
    struct volume_attr attr;
    struct volume_new new = {.mode = mode, .uid = 1, .gid = 2, .umask = umask};
    if (S_ISLNK(mode))
        new.target = T("target");
    assert_int_equal(volume_make(f.volume, dir, T(name), &new, &attr), 0);
    assert_int_equal(get(attr.ino).mode, attr.mode);
    return attr.ino;
}

static int set_mode(uint64_t ino, uint32_t mode)
{
    struct volume_attr attr = {.mode = mode};
    return volume_setattr(f.volume, ino, VOLUME_SET_MODE, &attr, &attr);
}

static void test_mode_and_acl_go_together(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    uint64_t before = frames();
    assert_string_equal(got(ino, ACL_ACCESS), "none");
    assert_int_equal(set(ino, ACL_ACCESS, "u7 u:5:7 g4 m5 o1"), 0);
    assert_int_equal(frames(), before + 1);
    assert_int_equal(get(ino).mode, S_IFREG | 0751);
    assert_int_equal(set_mode(ino, 0620), 0);
    assert_int_equal(frames(), before + 2);
    assert_string_equal(got(ino, ACL_ACCESS), "u6 u:5:7 g4 m2 o0");
    crash_and_reopen();
    assert_string_equal(got(ino, ACL_ACCESS), "u6 u:5:7 g4 m2 o0");
    assert_int_equal(get(ino).mode, S_IFREG | 0620);
    uint64_t had = keys();
    assert_int_equal(set(ino, ACL_ACCESS, "u7 g1 o1"), 0); /* what a mode says */
    assert_int_equal(keys(), had - 1);
    assert_int_equal(get(ino).mode, S_IFREG | 0711);
    assert_string_equal(got(ino, ACL_ACCESS), "none");
    assert_false(get(ino).has_xattrs);
    assert_int_equal(set(ino, ACL_ACCESS, "u7 g4 m5 o1"), 0); /* a mask alone is kept */
    assert_string_equal(got(ino, ACL_ACCESS), "u7 g4 m5 o1");
    assert_int_equal(volume_removexattr(f.volume, ino, acl_name(ACL_ACCESS)), 0);
    assert_int_equal(get(ino).mode, S_IFREG | 0751); /* the mode stays as it is */
    before = frames();
    assert_int_equal(volume_removexattr(f.volume, ino, acl_name(ACL_ACCESS)), 0);
    assert_int_equal(frames(), before);
}

static void test_other_attributes_stay(void **state)
{
    char list[256];
    (void)state;
    uint64_t dir = make(VOLUME_ROOT, "d", S_IFDIR | 0755);
    assert_int_equal(set(dir, ACL_ACCESS, "u7 u:5:7 g4 m5 o1"), 0);
    assert_int_equal(set(dir, ACL_DEFAULT, "u7 g1 o0"), 0);
    assert_int_equal(volume_setxattr(f.volume, dir, T("user.x"), "y", 1, XATTR_CREATE), 0);
    assert_int_equal(volume_listxattr(f.volume, dir, list, sizeof list), 24 + 25 + 7);
    assert_memory_equal(list, "system.posix_acl_access\0system.posix_acl_default\0user.x", 56);
    assert_int_equal(volume_setxattr(f.volume, dir, acl_name(ACL_ACCESS), NULL, 0, 0), 0);
    assert_string_equal(got(dir, ACL_DEFAULT), "u7 g1 o0"); /* kept, though a mode says as much */
    assert_int_equal(volume_setxattr(f.volume, dir, acl_name(ACL_DEFAULT), "\2\0\0", 4, 0), 0);
    assert_int_equal(volume_listxattr(f.volume, dir, list, sizeof list), 7);
    assert_int_equal(volume_removexattr(f.volume, dir, T("user.x")), 0);
    assert_false(get(dir).has_xattrs);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    uint64_t file = make_file("a"), link = make_with(VOLUME_ROOT, "l", S_IFLNK | 0777, 0);
    assert_int_equal(set(file, ACL_ACCESS, "u7 u:5:5 g5 o0"), -EINVAL);
    assert_int_equal(set(file, ACL_DEFAULT, "u7 g5 o0"), -EACCES);
    assert_int_equal(set(link, ACL_ACCESS, "u7 g5 o0"), -EOPNOTSUPP);
    assert_int_equal(set(999, ACL_ACCESS, "u7 g5 o0"), -ENOENT);
    assert_int_equal(volume_removexattr(f.volume, file, acl_name(ACL_DEFAULT)), 0);
    assert_int_equal(get(file).mode, S_IFREG | 0644);
    assert_int_equal(volume_setxattr(f.volume, file, acl_name(ACL_ACCESS), "\1\0\0", 4, 0),
                     -EOPNOTSUPP);
}

static void test_sgid_goes_when_asked(void **state)
{
    (void)state;
    uint64_t ino = make(VOLUME_ROOT, "d", S_IFDIR | S_ISGID | 0755);
    assert_int_equal(set(ino, ACL_ACCESS, "u7 u:5:5 g5 m7 o0"), 0);
    assert_int_equal(get(ino).mode, S_IFDIR | S_ISGID | 0770);
    struct keg_bytes acl = parse("u7 g5 o0"), name = acl_name(ACL_ACCESS);
    assert_int_equal(volume_setxattr(f.volume, ino, name, acl.data, acl.len, VOLUME_KILL_SGID), 0);
    assert_int_equal(get(ino).mode, S_IFDIR | 0750);
}

static void test_what_is_made_inherits(void **state)
{
    (void)state;
    uint64_t dir = make(VOLUME_ROOT, "d", S_IFDIR | 0755), before = frames();
    uint64_t plain = make_with(dir, "plain", S_IFREG | 0666, 027);
    assert_int_equal(get(plain).mode, S_IFREG | 0640);
    assert_int_equal(get(make_with(dir, "dir", S_IFDIR | 01777, 022)).mode, S_IFDIR | 01755);
    assert_int_equal(set(dir, ACL_DEFAULT, "u7 u:5:6 g5 m7 o1"), 0);
    uint64_t file = make_with(dir, "file", S_IFREG | 0666, 077);
    uint64_t sub = make_with(dir, "sub", S_IFDIR | 0777, 077);
    uint64_t fifo = make_with(dir, "fifo", S_IFIFO | 0600, 077);
    uint64_t link = make_with(dir, "link", S_IFLNK | 0777, 077);
    assert_int_equal(frames(), before + 7);
    crash_and_reopen();
    assert_int_equal(get(file).mode, S_IFREG | 0660);
    assert_string_equal(got(file, ACL_ACCESS), "u6 u:5:6 g5 m6 o0");
    assert_string_equal(got(file, ACL_DEFAULT), "none");
    assert_int_equal(get(sub).mode, S_IFDIR | 0771);
    assert_string_equal(got(sub, ACL_ACCESS), "u7 u:5:6 g5 m7 o1");
    assert_string_equal(got(sub, ACL_DEFAULT), "u7 u:5:6 g5 m7 o1");
    assert_int_equal(get(fifo).mode, S_IFIFO | 0600);
    assert_string_equal(got(fifo, ACL_ACCESS), "u6 u:5:6 g5 m0 o0");
    assert_int_equal(get(link).mode, S_IFLNK | 0777);
    assert_string_equal(got(link, ACL_ACCESS), "none");
    struct volume_attr attr;
    const struct volume_new unnamed = {.mode = S_IFREG | 0640, .umask = 077};
    assert_int_equal(volume_make_unnamed(f.volume, dir, &unnamed, &attr), 0);
    assert_int_equal(attr.mode, S_IFREG | 0640);
    assert_string_equal(got(attr.ino, ACL_ACCESS), "u6 u:5:6 g5 m4 o0");
    volume_forget(f.volume, attr.ino, 1);
    /* A default ACL that a mode can say is inherited, and leaves no access ACL. */
    assert_int_equal(set(sub, ACL_DEFAULT, "u7 g5 o0"), 0);
    uint64_t last = make_with(sub, "last", S_IFDIR | 0777, 077);
    assert_int_equal(get(last).mode, S_IFDIR | 0750);
    assert_string_equal(got(last, ACL_ACCESS), "none");
    assert_string_equal(got(last, ACL_DEFAULT), "u7 g5 o0");
}

static ssize_t fill(void *arg, void *buf, size_t size)
{
    (void)arg, (void)buf, (void)size;
    return 0;
}

static void test_what_is_put_inherits(void **state)
{
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFREG | 0666, .umask = 077};
    (void)state;
    uint64_t dir = make(VOLUME_ROOT, "d", S_IFDIR | 0755);
    assert_int_equal(volume_put(f.volume, T("d/plain"), &new, fill, NULL), 0);
    assert_int_equal(set(dir, ACL_DEFAULT, "u7 u:5:6 g5 m7 o4"), 0);
    assert_int_equal(volume_put(f.volume, T("d/e/new"), &new, fill, NULL), 0);
    assert_int_equal(volume_put(f.volume, T("d/e/new"), &new, fill, NULL), 0); /* keeps it */
    assert_int_equal(volume_resolve(f.volume, T("d/plain"), &attr), 0);
    assert_int_equal(attr.mode, S_IFREG | 0600);
    assert_int_equal(volume_resolve(f.volume, T("d/e/new"), &attr), 0);
    assert_int_equal(attr.mode, S_IFREG | 0664);
    assert_string_equal(got(attr.ino, ACL_ACCESS), "u6 u:5:6 g5 m6 o4");
}

/* An ACL says more than its file, which may be staged or truncated just now. */
static void test_acls_of_contents_that_are_held(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    write_text(ino, 0, "old");
    assert_int_equal(set(ino, ACL_ACCESS, "u7 u:5:6 g5 m7 o4"), 0);
    assert_int_equal(volume_writer_open(f.volume, ino, false), 0);
    set_size(ino, 0);
    write_text(ino, 0, "newer");
    assert_int_equal(set_mode(ino, 0600), 0);
    assert_string_equal(got(ino, ACL_ACCESS), "u6 u:5:6 g5 m0 o0");
    assert_int_equal(volume_writer_close(f.volume, ino), 0);
    assert_string_equal(got(ino, ACL_ACCESS), "u6 u:5:6 g5 m0 o0");
    expect_text(ino, 0, "newer");
    set_size(ino, 0);
    assert_int_equal(set(ino, ACL_ACCESS, "u7 g5 o4"), 0);
    crash_and_reopen();
    assert_string_equal(got(ino, ACL_ACCESS), "none");
    assert_int_equal(get(ino).mode, S_IFREG | 0754);
}

static void test_acls_go_with_their_inode(void **state)
{
    (void)state;
    uint64_t had = keys(), ino = make(VOLUME_ROOT, "d", S_IFDIR | 0755);
    assert_int_equal(set(ino, ACL_ACCESS, "u7 u:5:6 g5 m7 o4"), 0);
    assert_int_equal(set(ino, ACL_DEFAULT, "u7 u:5:6 g5 m7 o4"), 0);
    assert_int_equal(volume_rmdir(f.volume, VOLUME_ROOT, T("d")), 0);
    volume_forget(f.volume, ino, 1);
    assert_int_equal(volume_tend(f.volume), 0);
    assert_int_equal(keys(), had);
}

/* ---- Damage ---- */

static void store(uint64_t ino, enum acl_kind kind, struct keg_bytes value)
{
    struct keys_key key;
    keys_xattr(&key, ino, acl_name(kind));
    assert_int_equal(keg_put(f.keg, keys_bytes(&key), (struct keg_bytes){0}, value, 0), 0);
}

static void test_damaged_acls_grant_nothing(void **state)
{
    static const char *const texts[] = {"u7 u:5:5 g5 o0", "u7 g5", ""};
    char bytes[64];
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFREG | 0666};
    (void)state;
    uint64_t dir = make(VOLUME_ROOT, "d", S_IFDIR | 0755);
    for (size_t i = 0; i <= sizeof texts / sizeof *texts; i++) {
        assert_int_equal(set(dir, ACL_ACCESS, "u7 u:5:6 g5 m7 o4"), 0);
        assert_int_equal(set(dir, ACL_DEFAULT, "u7 u:5:6 g5 m7 o4"), 0);
        struct keg_bytes bad = {"", 0};
        if (i < sizeof texts / sizeof *texts)
            bad = parse(texts[i]);
        store(dir, ACL_ACCESS, bad);
        store(dir, ACL_DEFAULT, bad);
        assert_int_equal(volume_getxattr(f.volume, dir, acl_name(ACL_ACCESS), bytes, 64), -EIO);
        assert_int_equal(volume_getxattr(f.volume, dir, acl_name(ACL_DEFAULT), bytes, 64), -EIO);
        assert_int_equal(set_mode(dir, 0700), -EIO);
        assert_int_equal(volume_make(f.volume, dir, T("x"), &new, &attr), -EIO);
        assert_int_equal(find(dir, "x"), -ENOENT);
        assert_int_equal(volume_check(f.volume, NULL, NULL), 2);
        assert_int_equal(volume_removexattr(f.volume, dir, acl_name(ACL_ACCESS)), 0);
        assert_int_equal(volume_removexattr(f.volume, dir, acl_name(ACL_DEFAULT)), 0);
    }
    assert_true(f.damage_lines > 0);
}

static void test_flags_and_records_have_to_fit(void **state)
{
    struct inode inode;
    struct keys_key key;
    char bytes[64];
    uint8_t meta[KEYS_INODE_META_MAX];
    (void)state;
    uint64_t ino = make_file("a");
    store(ino, ACL_ACCESS, parse("u6 u:5:6 g4 m4 o4"));
    assert_int_equal(volume_check(f.volume, NULL, NULL), 2); /* an attribute, and an ACL */
    keys_xattr(&key, ino, acl_name(ACL_ACCESS));
    assert_int_equal(keg_delete(f.keg, keys_bytes(&key), 0), 0);
    assert_int_equal(inodes_load(f.volume, ino, &inode), 0);
    inode.flags |= INODE_ACCESS_ACL;
    keys_inode(&key, ino);
    struct keg_bytes bad = {meta, keys_inode_encode(meta, &inode)};
    assert_int_equal(keg_put(f.keg, keys_bytes(&key), bad, (struct keg_bytes){0}, 0), 0);
    assert_int_equal(volume_check(f.volume, NULL, NULL), 1);
    assert_int_equal(volume_getxattr(f.volume, ino, acl_name(ACL_ACCESS), bytes, 64), -EIO);
    assert_int_equal(volume_getxattr(f.volume, ino, acl_name(ACL_ACCESS), NULL, 0), -EIO);
    assert_int_equal(set(ino, ACL_ACCESS, "u7 u:5:6 g5 m7 o4"), 0); /* makes it sound again */
    store(ino, ACL_ACCESS, parse("u6 u:5:6 g4 m4 o4"));
    assert_int_equal(volume_check(f.volume, NULL, NULL), 1); /* not what the mode says */
    store(ino, ACL_DEFAULT, parse("u7 g5 o4"));
    assert_int_equal(volume_check(f.volume, NULL, NULL), 3); /* a file has no default one */
    keys_xattr(&key, ino, acl_name(ACL_DEFAULT));
    assert_int_equal(keg_delete(f.keg, keys_bytes(&key), 0), 0);
    assert_int_equal(volume_removexattr(f.volume, ino, acl_name(ACL_ACCESS)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_an_acl),
        cmocka_unit_test(test_headers_and_lengths),
        cmocka_unit_test(test_ids_that_mean_nothing_are_made_equal),
        cmocka_unit_test(test_modes_and_chmod),
        cmocka_unit_test(test_inheriting),
        cmocka_unit_test(test_random_bytes),
        TEST(test_mode_and_acl_go_together),
        TEST(test_other_attributes_stay),
        TEST(test_what_is_refused),
        TEST(test_sgid_goes_when_asked),
        TEST(test_what_is_made_inherits),
        TEST(test_what_is_put_inherits),
        TEST(test_acls_of_contents_that_are_held),
        TEST(test_acls_go_with_their_inode),
        TEST(test_damaged_acls_grant_nothing),
        TEST(test_flags_and_records_have_to_fit),
    };
    return cmocka_run_group_tests_name("acl", tests, NULL, NULL);
}
