/* SPDX-License-Identifier: MIT */
/* The namespace, call by call: names, directories, attributes, paths, and the check. */
#include "volume_case.h"
#include <stdlib.h>
#include <sys/xattr.h>

/* ---- Making and finding ---- */

static void test_root(void **state)
{
    (void)state;
    struct volume_attr root = get(VOLUME_ROOT);
    struct stat st;
    uint64_t parent;
    assert_int_equal(root.mode, S_IFDIR | 0755);
    assert_int_equal(root.nlink, 2);
    volume_stat(&root, &st);
    assert_int_equal(st.st_ino, VOLUME_ROOT);
    assert_int_equal(st.st_blksize, 32 << 10);
    assert_int_equal(volume_parent(f.volume, VOLUME_ROOT, &parent), 0);
    assert_int_equal(parent, VOLUME_ROOT);
}

/* What a listing is read with holds all entries of the directory, up to 1 MiB. */
static void test_a_block_of_a_directory_holds_its_entries(void **state)
{
    (void)state;
    const struct {
        mode_t type;
        uint64_t size;
        blksize_t block;
    } cases[] = {
        {S_IFDIR, 0, 32 << 10},
        {S_IFDIR, 126 * 32, 32 << 10},
        {S_IFDIR, 127 * 32, 64 << 10},
        {S_IFDIR, 4000 * 32, 1 << 20},
        {S_IFDIR, UINT64_MAX, 1 << 20},
        {S_IFREG, 0, 1 << 20},
        {S_IFREG, UINT64_MAX / 2, 1 << 20},
        {S_IFLNK, 5, 1 << 20},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stat st;
        volume_stat(&(struct volume_attr){.mode = cases[i].type, .size = cases[i].size}, &st);
        assert_int_equal(st.st_blksize, cases[i].block);
    }
    for (unsigned i = 0; i < 127; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        make_file(name);
    }
    struct volume_attr root = get(VOLUME_ROOT);
    struct stat st;
    volume_stat(&root, &st);
    assert_int_equal(st.st_blksize, 64 << 10);
}

static void test_a_file_is_found_after_reopening(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    write_text(ino, 0, "hello");
    reopen();
    struct volume_attr attr;
    assert_int_equal(volume_lookup(f.volume, VOLUME_ROOT, T("a"), &attr), 0);
    assert_int_equal(attr.ino, ino);
    assert_int_equal(attr.size, 5);
    assert_int_equal(attr.bytes, 5);
    assert_int_equal(attr.uid, 1);
    assert_int_equal(attr.gid, 2);
    expect_text(ino, 0, "hello");
    expect_text(ino, 5, "");
    expect_text(ino, 1ull << 62, "");
    assert_int_equal(find(VOLUME_ROOT, "b"), -ENOENT);
    assert_int_equal(volume_lookup_ino(f.volume, ino, &attr), 0);
    assert_int_equal(volume_lookup_ino(f.volume, 999, &attr), -ESTALE);
}

static void test_ids_are_never_used_again(void **state)
{
    (void)state;
    uint64_t first = make_file("a");
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    volume_forget(f.volume, first, 1);
    reopen();
    assert_true(make_file("a") > first);
}

static void test_names_have_limits(void **state)
{
    (void)state;
    char longest[257];
    const struct volume_new new = {.mode = S_IFREG};
    struct volume_attr attr;
    memset(longest, 'x', 256);
    struct keg_bytes name = {longest, 255};
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, name, &new, &attr), 0);
    name.len = 256;
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, name, &new, &attr), -ENAMETOOLONG);
    assert_int_equal(volume_lookup(f.volume, VOLUME_ROOT, name, &attr), -ENAMETOOLONG);
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, T(""), &new, &attr), -EINVAL);
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, T(".."), &new, &attr), -EINVAL);
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, T("a/b"), &new, &attr), -EINVAL);
    assert_int_equal(volume_make(f.volume, attr.ino, T("x"), &new, &attr), -ENOTDIR);
}

static void test_special_files_and_links(void **state)
{
    (void)state;
    struct volume_attr attr;
    char buf[16];
    struct volume_new new = {.mode = S_IFCHR | 0600, .rdev = 0x1234567890};
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, T("dev"), &new, &attr), 0);
    assert_true(attr.rdev == 0x1234567890);
    new = (struct volume_new){.mode = S_IFLNK | 0777, .target = T("the/target")};
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, T("link"), &new, &attr), 0);
    uint64_t ino = attr.ino;
    attr.uid = 77;
    assert_int_equal(volume_setattr(f.volume, ino, VOLUME_SET_UID, &attr, &attr), 0);
    reopen();
    assert_int_equal(get(ino).uid, 77);
    assert_int_equal(get(ino).size, 10);
    assert_int_equal(volume_readlink(f.volume, ino, buf, sizeof buf), 10);
    assert_memory_equal(buf, "the/target", 10);
    assert_int_equal(volume_readlink(f.volume, ino, buf, 3), 3);
    assert_int_equal(volume_readlink(f.volume, VOLUME_ROOT, buf, 3), -EINVAL);
}

static void test_directories_count(void **state)
{
    (void)state;
    uint64_t a = make(VOLUME_ROOT, "a", S_IFDIR | 02755);
    uint64_t b = make(a, "b", S_IFDIR | 0700);
    uint64_t file = make(a, "c", S_IFREG | 0600);
    assert_int_equal(get(VOLUME_ROOT).nlink, 3);
    assert_int_equal(get(a).nlink, 3);
    assert_int_equal(get(a).size, 64);
    assert_true(get(b).mode & S_ISGID);
    assert_false(get(file).mode & S_ISGID);
    assert_int_equal(get(b).gid, get(a).gid);
    assert_int_equal(volume_rmdir(f.volume, VOLUME_ROOT, T("a")), -ENOTEMPTY);
    assert_int_equal(volume_rmdir(f.volume, a, T("c")), -ENOTDIR);
    assert_int_equal(volume_unlink(f.volume, a, T("b")), -EISDIR);
    assert_int_equal(volume_unlink(f.volume, a, T("c")), 0);
    assert_int_equal(volume_rmdir(f.volume, a, T("b")), 0);
    assert_int_equal(get(a).nlink, 2);
    assert_int_equal(volume_rmdir(f.volume, VOLUME_ROOT, T("a")), 0);
    assert_int_equal(get(VOLUME_ROOT).nlink, 2);
    /* Removed, and still known to the caller: nothing can be made in it. */
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFREG};
    assert_int_equal(volume_make(f.volume, a, T("x"), &new, &attr), -ENOENT);
}

static void test_hard_links(void **state)
{
    (void)state;
    struct volume_attr attr;
    uint64_t ino = make_file("a");
    uint64_t dir = make(VOLUME_ROOT, "d", S_IFDIR | 0755);
    assert_int_equal(volume_link(f.volume, ino, dir, T("b"), &attr), 0);
    assert_int_equal(attr.nlink, 2);
    assert_int_equal(volume_link(f.volume, ino, dir, T("b"), &attr), -EEXIST);
    assert_int_equal(volume_link(f.volume, dir, VOLUME_ROOT, T("e"), &attr), -EPERM);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    assert_int_equal(get(ino).nlink, 1);
    assert_int_equal(find(dir, "b"), 0);
    assert_int_equal(volume_unlink(f.volume, dir, T("b")), 0);
    assert_int_equal(volume_link(f.volume, ino, dir, T("b"), &attr), -ENOENT);
}

/* ---- Unlinked files ---- */

static void test_an_unlinked_file_lives_until_it_is_forgotten(void **state)
{
    (void)state;
    uint64_t before = keys();
    uint64_t ino = make_file("a");
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.x"), "v", 1, 0), 0);
    write_text(ino, 0, "still here");
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    assert_int_equal(find(VOLUME_ROOT, "a"), -ENOENT);
    expect_text(ino, 0, "still here");
    write_text(ino, 6, "THERE");
    expect_text(ino, 0, "still THERE");
    assert_int_equal(volume_tend(f.volume), 0);
    expect_text(ino, 0, "still THERE");
    volume_forget(f.volume, ino, 1);
    struct volume_attr attr;
    assert_int_equal(volume_getattr(f.volume, ino, &attr), -ENOENT);
    assert_int_equal(keys(), before);
}

static void test_opening_finishes_what_was_unlinked(void **state)
{
    (void)state;
    uint64_t before = keys();
    uint64_t ino = make_file("a");
    write_text(ino, 0, "x");
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    assert_true(keys() > before);
    reopen();
    assert_int_equal(keys(), before);
}

static void test_a_held_truncation_of_an_unlinked_file(void **state)
{
    (void)state;
    uint64_t before = keys();
    uint64_t ino = make_file("a");
    write_text(ino, 0, "some contents");
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    set_size(ino, 0);
    volume_forget(f.volume, ino, 1);
    assert_int_equal(keys(), before);
    assert_null(f.volume->held[0].first);
}

/* More extents than one frame deletes. */
static void test_a_big_file_is_reclaimed_in_parts(void **state)
{
    (void)state;
    uint64_t before = keys();
    uint64_t ino = make_file("a");
    for (uint64_t i = 0; i < 9000; i++)
        assert_int_equal(volume_write(f.volume, ino, i << 16, "x", 1, 0), 1);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("a")), 0);
    uint64_t start = frames();
    volume_forget(f.volume, ino, 1);
    assert_int_equal(keys(), before);
    assert_in_range(frames() - start, 3, 4);
}

/* ---- Renames ---- */

static int rename_to(uint64_t dir, const char *name, uint64_t to, const char *new, unsigned flags)
{
    return volume_rename(f.volume, dir, T(name), to, T(new), flags);
}

static void test_rename_replaces(void **state)
{
    (void)state;
    uint64_t before = keys();
    uint64_t old = make_file("old"), new = make_file("new");
    write_text(old, 0, "old");
    write_text(new, 0, "new");
    assert_int_equal(rename_to(1, "new", 1, "old", VOLUME_NOREPLACE), -EEXIST);
    uint64_t start = frames();
    assert_int_equal(rename_to(1, "new", 1, "old", 0), 0);
    assert_int_equal(frames(), start + 1);
    assert_int_equal(find(1, "new"), -ENOENT);
    expect_text(old, 0, "old"); /* still open */
    volume_forget(f.volume, old, 1);
    volume_forget(f.volume, new, 1);
    reopen();
    assert_int_equal(keys(), before + 3);
    struct volume_attr attr;
    assert_int_equal(volume_lookup(f.volume, 1, T("old"), &attr), 0);
    assert_int_equal(attr.ino, new);
    expect_text(new, 0, "new");
    assert_int_equal(rename_to(1, "missing", 1, "old", 0), -ENOENT);
}

static void test_rename_of_directories(void **state)
{
    (void)state;
    uint64_t a = make(1, "a", S_IFDIR | 0755), b = make(1, "b", S_IFDIR | 0755);
    uint64_t c = make(a, "c", S_IFDIR | 0755), parent;
    make(c, "file", S_IFREG | 0644);
    assert_int_equal(rename_to(1, "a", c, "x", 0), -EINVAL);
    assert_int_equal(rename_to(1, "a", a, "x", 0), -EINVAL);
    assert_int_equal(rename_to(a, "c", 1, "a", 0), -ENOTEMPTY);
    assert_int_equal(rename_to(a, "c", b, "d", 0), 0);
    assert_int_equal(get(a).nlink, 2);
    assert_int_equal(get(b).nlink, 3);
    assert_int_equal(volume_parent(f.volume, c, &parent), 0);
    assert_int_equal(parent, b);
    assert_int_equal(rename_to(1, "a", b, "d", 0), -ENOTEMPTY);
    assert_int_equal(rename_to(c, "file", 1, "a", 0), -EISDIR);
    assert_int_equal(rename_to(1, "a", c, "file", 0), -ENOTDIR);
    assert_int_equal(volume_unlink(f.volume, c, T("file")), 0);
    assert_int_equal(rename_to(1, "a", b, "d", 0), 0);
    assert_int_equal(get(b).nlink, 3);
    assert_int_equal(get(VOLUME_ROOT).nlink, 3);
}

static void test_rename_exchanges(void **state)
{
    (void)state;
    uint64_t a = make(1, "a", S_IFDIR | 0755), b = make(a, "b", S_IFDIR | 0755);
    uint64_t file = make_file("file"), parent;
    assert_int_equal(rename_to(1, "file", a, "b", VOLUME_EXCHANGE), 0);
    assert_int_equal(get(a).nlink, 2);
    assert_int_equal(get(1).nlink, 4);
    assert_int_equal(volume_parent(f.volume, b, &parent), 0);
    assert_int_equal(parent, 1);
    struct volume_attr attr;
    assert_int_equal(volume_lookup(f.volume, a, T("b"), &attr), 0);
    assert_int_equal(attr.ino, file);
    assert_int_equal(rename_to(1, "a", a, "b", VOLUME_EXCHANGE), -EINVAL);
    assert_int_equal(rename_to(a, "b", 1, "a", VOLUME_EXCHANGE), -EINVAL);
    assert_int_equal(rename_to(1, "a", 1, "none", VOLUME_EXCHANGE), -ENOENT);
    assert_int_equal(rename_to(1, "a", 1, "x", VOLUME_EXCHANGE | VOLUME_NOREPLACE), -EINVAL);
}

static void test_rename_of_links_to_one_inode_does_nothing(void **state)
{
    (void)state;
    struct volume_attr attr;
    uint64_t ino = make_file("a");
    assert_int_equal(volume_link(f.volume, ino, 1, T("b"), &attr), 0);
    assert_int_equal(rename_to(1, "a", 1, "b", 0), 0);
    assert_int_equal(find(1, "a"), 0);
    assert_int_equal(find(1, "b"), 0);
}

/* ---- Listing ---- */

struct names {
    unsigned count, limit;
    uint64_t cookie;
    char seen[1000];
};

static bool take(void *arg, const struct volume_dirent *entry)
{
    struct names *names = arg;
    char text[16] = {0};
    if (names->limit-- == 0)
        return false;
    memcpy(text, entry->name.data, entry->name.len);
    names->seen[atoi(text)] = 1;
    names->count++;
    names->cookie = entry->cookie;
    return true;
}

static void list_all(unsigned count, unsigned at_a_time)
{
    struct names names = {0};
    unsigned last = UINT32_MAX;
    for (unsigned rounds = 0; last != 0 && rounds < 5000; rounds++) {
        unsigned before = names.count;
        names.limit = at_a_time;
        assert_int_equal(volume_readdir(f.volume, 1, names.cookie, false, take, &names), 0);
        last = names.count - before;
    }
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(names.seen[i], 1);
}

static void test_readdir_in_pieces(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        make_file(name);
    }
    list_all(300, 1000);
    list_all(300, 7);
    list_all(300, 1);
    reopen();
    struct names names = {.limit = 1000};
    assert_int_equal(volume_readdir(f.volume, 1, 0, true, take, &names), 0);
    assert_int_equal(names.count, 300);
    assert_true(names.cookie >= KEYS_COOKIE_MIN && names.cookie <= INT64_MAX);
}

static void test_readdir_loses_no_name_with_the_same_hash(void **state)
{
    (void)state;
    f.volume->hash_mask = 7;
    for (int i = 0; i < 60; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        make_file(name);
    }
    list_all(60, 1000);
    list_all(60, 40); /* some 12 names a hash */
    f.volume->hash_mask = UINT64_MAX;
    for (int i = 0; i < 60; i++) { /* the check would rightly complain of their hashes */
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        f.volume->hash_mask = 7;
        assert_int_equal(volume_unlink(f.volume, 1, T(name)), 0);
    }
    f.volume->hash_mask = UINT64_MAX;
}

/* ---- Attributes, paths ---- */

static void test_xattrs(void **state)
{
    (void)state;
    uint64_t ino = make_file("a");
    char buf[64];
    uint64_t before = keys();
    assert_int_equal(volume_getxattr(f.volume, ino, T("user.a"), buf, 64), -ENODATA);
    assert_int_equal(volume_listxattr(f.volume, ino, buf, 64), 0);
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.a"), "x", 1, XATTR_REPLACE), -ENODATA);
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.a"), "value", 5, 0), 0);
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.a"), "x", 1, XATTR_CREATE), -EEXIST);
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.b"), "", 0, XATTR_CREATE), 0);
    assert_true(get(ino).has_xattrs);
    reopen();
    assert_int_equal(volume_getxattr(f.volume, ino, T("user.a"), buf, 0), 5);
    assert_int_equal(volume_getxattr(f.volume, ino, T("user.a"), buf, 4), -ERANGE);
    assert_int_equal(volume_getxattr(f.volume, ino, T("user.a"), buf, 64), 5);
    assert_memory_equal(buf, "value", 5);
    assert_int_equal(volume_getxattr(f.volume, ino, T("user.b"), buf, 64), 0);
    assert_int_equal(volume_listxattr(f.volume, ino, NULL, 0), 14);
    assert_int_equal(volume_listxattr(f.volume, ino, buf, 13), -ERANGE);
    assert_int_equal(volume_listxattr(f.volume, ino, buf, 14), 14);
    assert_memory_equal(buf, "user.a\0user.b\0", 14);
    assert_int_equal(volume_removexattr(f.volume, ino, T("user.c")), -ENODATA);
    assert_int_equal(volume_removexattr(f.volume, ino, T("user.a")), 0);
    assert_true(get(ino).has_xattrs);
    assert_int_equal(volume_removexattr(f.volume, ino, T("user.b")), 0);
    assert_false(get(ino).has_xattrs);
    assert_int_equal(keys(), before);
}

struct source {
    uint64_t left;
    int fails;
};

static ssize_t fill(void *arg, void *buf, size_t size)
{
    struct source *s = arg;
    size_t n = s->left < size ? (size_t)s->left : size;
    if (n > 100000)
        n = 100000;
    if (n == 0 && s->fails)
        return -EIO;
    memset(buf, 'f', n);
    s->left -= n;
    return (ssize_t)n;
}

static int put(const char *path, uint64_t len, int fails)
{
    struct source source = {len, fails};
    const struct volume_new new = {.mode = S_IFREG | 0640};
    return volume_put(f.volume, T(path), &new, fill, &source);
}

static void test_put_replaces_as_a_whole(void **state)
{
    (void)state;
    struct volume_attr attr;
    assert_int_equal(put("a/b//c", 10, 0), 0);
    assert_int_equal(volume_resolve(f.volume, T("/a/./b/c"), &attr), 0);
    uint64_t ino = attr.ino;
    assert_int_equal(attr.size, 10);
    assert_int_equal(attr.mode, S_IFREG | 0640);
    uint64_t before = keys();
    assert_int_equal(put("a/b/c", 3 << 20, 1), -EIO);
    assert_int_equal(get(ino).size, 10);
    assert_int_equal(keys(), before);
    assert_int_equal(put("a/b/c", (3 << 20) + 5, 0), 0);
    assert_int_equal(get(ino).size, (3 << 20) + 5);
    assert_int_equal(get(ino).bytes, (3 << 20) + 5);
    char buf[10];
    assert_int_equal(volume_read(f.volume, ino, (3 << 20) - 5, buf, 10), 10);
    assert_memory_equal(buf, "ffffffffff", 10);
    assert_int_equal(put("a/b/c", 0, 0), 0);
    assert_int_equal(get(ino).size, 0);
    assert_int_equal(keys(), before - 1);
    assert_int_equal(put("a/b", 1, 0), -EISDIR);
    assert_int_equal(put("a/b/c/d", 1, 0), -ENOTDIR);
    assert_int_equal(put("a/b/", 1, 0), -EISDIR);
    assert_int_equal(put("a/../b", 1, 0), -EINVAL);
    assert_int_equal(volume_resolve(f.volume, T("a/b/c/"), &attr), -ENOTDIR);
    assert_int_equal(volume_resolve(f.volume, T("a/b/c/d"), &attr), -ENOTDIR);
    assert_int_equal(volume_resolve(f.volume, T("a/x/c"), &attr), -ENOENT);
    assert_int_equal(volume_resolve(f.volume, T(""), &attr), 0);
    assert_int_equal(attr.ino, VOLUME_ROOT);
}

static void expect_path(const struct keys_key *key, int error, const char *path)
{
    char buf[300];
    assert_int_equal(volume_describe(f.volume, NULL, keys_bytes(key), buf, sizeof buf), error);
    assert_string_equal(buf, path);
}

static void test_describe_finds_paths(void **state)
{
    (void)state;
    struct keys_key key;
    struct volume_attr attr;
    assert_int_equal(put("dir/sub/file", 5, 0), 0);
    assert_int_equal(volume_resolve(f.volume, T("dir/sub/file"), &attr), 0);
    struct inode inode;
    assert_int_equal(inodes_load(f.volume, attr.ino, &inode), 0);
    keys_inode(&key, attr.ino);
    expect_path(&key, 0, "/dir/sub/file");
    keys_extent(&key, inode.content, 0);
    expect_path(&key, 0, "/dir/sub/file");
    keys_extent(&key, 12345, 6);
    expect_path(&key, -ENOENT, "contents 12345 at 6");
    assert_int_equal(volume_resolve(f.volume, T("dir/sub"), &attr), 0);
    dirs_key(f.volume, attr.ino, T("file"), &key);
    expect_path(&key, 0, "/dir/sub/file");
    keys_inode(&key, attr.ino);
    expect_path(&key, 0, "/dir/sub");
    keys_inode(&key, VOLUME_ROOT);
    expect_path(&key, 0, "/");
    char small[8];
    keys_inode(&key, attr.ino);
    assert_int_equal(volume_describe(f.volume, NULL, keys_bytes(&key), small, 8), -ENAMETOOLONG);
}

static void test_statfs_counts_inodes(void **state)
{
    (void)state;
    struct volume_statfs st;
    make_file("a");
    assert_int_equal(volume_statfs(f.volume, &st), 0);
    assert_int_equal(st.inodes, 2);
    uint64_t ino = make_file("b");
    assert_int_equal(put("c", 5, 0), 0);
    assert_int_equal(volume_statfs(f.volume, &st), 0);
    assert_int_equal(st.inodes, 4);
    assert_int_equal(volume_unlink(f.volume, 1, T("b")), 0);
    volume_forget(f.volume, ino, 1);
    assert_int_equal(volume_statfs(f.volume, &st), 0);
    assert_int_equal(st.inodes, 3);
}

/* ---- Check ---- */

/* Puts or deletes a key behind the volume's back: the check must say so. */
static void expect_finding(const struct keys_key *key, const void *meta, size_t meta_len)
{
    struct keg_info info;
    char value[1] = {0};
    bool there = keg_get(f.keg, keys_bytes(key), &info) == 0;
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
    if (meta)
        assert_int_equal(keg_put(f.keg, keys_bytes(key), (struct keg_bytes){meta, meta_len},
                                 (struct keg_bytes){value, 1}, 0),
                         0);
    else
        assert_int_equal(keg_delete(f.keg, keys_bytes(key), 0), 0);
    assert_true(volume_check(f.volume, NULL, NULL) > 0);
    if (there)
        assert_int_equal(keg_put(f.keg, keys_bytes(key),
                                 (struct keg_bytes){info.meta, info.meta_len},
                                 (struct keg_bytes){value, info.value_len}, 0),
                         0);
    else
        assert_int_equal(keg_delete(f.keg, keys_bytes(key), 0), 0);
    assert_int_equal(volume_check(f.volume, fixture_print, NULL), 0);
}

static void test_check_finds(void **state)
{
    (void)state;
    struct keys_key key;
    struct inode inode;
    uint8_t meta[KEYS_INODE_META_MAX];
    uint64_t ino = make_file("a");
    uint64_t dir = make(1, "d", S_IFDIR | 0755);
    write_text(ino, 0, "x");
    assert_int_equal(volume_setxattr(f.volume, ino, T("user.a"), "", 0, 0), 0);
    assert_int_equal(inodes_load(f.volume, ino, &inode), 0);
    keys_inode(&key, ino);
    expect_finding(&key, NULL, 0);
    expect_finding(&key, "junk", 4);
    inode.nlink = 2;
    expect_finding(&key, meta, keys_inode_encode(meta, &inode));
    inode.nlink = 1;
    inode.size = 0;
    expect_finding(&key, meta, keys_inode_encode(meta, &inode));
    inode.size = 1;
    inode.flags = 0;
    expect_finding(&key, meta, keys_inode_encode(meta, &inode));
    dirs_key(f.volume, 1, T("a"), &key);
    expect_finding(&key, NULL, 0);
    keys_name(&key, 1, 77, T("wrong hash"));
    expect_finding(&key, meta, keys_name_encode(meta, ino, S_IFREG));
    keys_extent(&key, inode.content, 0);
    expect_finding(&key, NULL, 0);
    keys_extent(&key, inode.content, 1);
    expect_finding(&key, "", 0);
    keys_extent(&key, 999, 0);
    expect_finding(&key, "", 0);
    keys_xattr(&key, 999, T("user.x"));
    expect_finding(&key, "", 0);
    keys_orphan(&key, KEYS_ORPHAN_INODE, ino);
    expect_finding(&key, "", 0);
    assert_int_equal(inodes_load(f.volume, dir, &inode), 0);
    inode.parent = dir;
    keys_inode(&key, dir);
    expect_finding(&key, meta, keys_inode_encode(meta, &inode));
}

static void test_other_stores_are_refused(void **state)
{
    (void)state;
    struct volume *other;
    struct keys_key key;
    struct volume_options options = {.flags = VOLUME_NO_BACKGROUND | VOLUME_CREATE};
    struct keg_info info;
    keys_super(&key);
    assert_int_equal(keg_get(f.keg, keys_bytes(&key), &info), 0);
    assert_int_equal(keg_delete(f.keg, keys_bytes(&key), 0), 0);
    assert_int_equal(volume_open(f.keg, &options, &other), -EPROTO);
    info.meta[0]++;
    struct keg_bytes meta = {info.meta, info.meta_len}, none = {0};
    assert_int_equal(keg_put(f.keg, keys_bytes(&key), meta, none, 0), 0);
    assert_int_equal(volume_open(f.keg, &options, &other), -EPROTO);
    info.meta[0]--;
    assert_int_equal(keg_put(f.keg, keys_bytes(&key), meta, none, 0), 0);
    options.flags = VOLUME_READONLY;
    assert_int_equal(volume_open(f.keg, &options, &other), 0);
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFREG};
    assert_int_equal(volume_make(other, 1, T("x"), &new, &attr), -EROFS);
    assert_int_equal(volume_setattr(other, 1, VOLUME_SET_MODE, &attr, &attr), -EROFS);
    assert_int_equal(volume_close(other), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_root),
        TEST(test_a_block_of_a_directory_holds_its_entries),
        TEST(test_a_file_is_found_after_reopening),
        TEST(test_ids_are_never_used_again),
        TEST(test_names_have_limits),
        TEST(test_special_files_and_links),
        TEST(test_directories_count),
        TEST(test_hard_links),
        TEST(test_an_unlinked_file_lives_until_it_is_forgotten),
        TEST(test_opening_finishes_what_was_unlinked),
        TEST(test_a_held_truncation_of_an_unlinked_file),
        TEST(test_a_big_file_is_reclaimed_in_parts),
        TEST(test_rename_replaces),
        TEST(test_rename_of_directories),
        TEST(test_rename_exchanges),
        TEST(test_rename_of_links_to_one_inode_does_nothing),
        TEST(test_readdir_in_pieces),
        TEST(test_readdir_loses_no_name_with_the_same_hash),
        TEST(test_xattrs),
        TEST(test_put_replaces_as_a_whole),
        TEST(test_describe_finds_paths),
        TEST(test_statfs_counts_inodes),
        TEST(test_check_finds),
        TEST(test_other_stores_are_refused),
    };
    return cmocka_run_group_tests_name("volume", tests, NULL, NULL);
}
