/* SPDX-License-Identifier: MIT */
/* The codecs of keys and metas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "keys.h"
#include "random.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static struct keg_bytes text(const char *s)
{
    return (struct keg_bytes){s, strlen(s)};
}

static void check_key(const struct keys_key *key, enum keys_kind kind, uint64_t id)
{
    struct keys_parsed parsed;
    assert_int_equal(keys_parse(keys_bytes(key), &parsed), 0);
    assert_int_equal(parsed.kind, kind);
    assert_int_equal(parsed.id, id);
}

static void test_keys_parse_as_they_were_made(void **state)
{
    (void)state;
    struct keys_key key;
    struct keys_parsed parsed;
    keys_super(&key);
    check_key(&key, KEYS_SUPER, 0);
    keys_inode(&key, UINT64_MAX);
    check_key(&key, KEYS_INODE, UINT64_MAX);
    keys_extent(&key, 7, 1ull << 40);
    check_key(&key, KEYS_EXTENT, 7);
    assert_int_equal(keys_parse(keys_bytes(&key), &parsed), 0);
    assert_true(parsed.offset == 1ull << 40);
    keys_name(&key, 9, 77, text("name"));
    check_key(&key, KEYS_NAME, 9);
    assert_int_equal(keys_parse(keys_bytes(&key), &parsed), 0);
    assert_int_equal(parsed.hash, 77);
    assert_int_equal(parsed.name.len, 4);
    assert_memory_equal(parsed.name.data, "name", 4);
    keys_xattr(&key, 9, text("user.a"));
    check_key(&key, KEYS_XATTR, 9);
    keys_orphan(&key, KEYS_ORPHAN_TAIL, 5);
    check_key(&key, KEYS_ORPHAN, 5);
    assert_int_equal(keys_parse(keys_bytes(&key), &parsed), 0);
    assert_int_equal(parsed.orphan, KEYS_ORPHAN_TAIL);
}

/* Every shorter key, and one with a byte more, is refused where the length is fixed. */
static void test_keys_of_other_lengths_are_refused(void **state)
{
    (void)state;
    struct keys_key keys[4];
    struct keys_parsed parsed;
    keys_super(&keys[0]);
    keys_inode(&keys[1], 1);
    keys_extent(&keys[2], 1, 2);
    keys_orphan(&keys[3], KEYS_ORPHAN_INODE, 1);
    for (int i = 0; i < 4; i++) {
        for (size_t len = 0; len <= keys[i].len + 1; len++) {
            int expected = len == keys[i].len ? 0 : -EBADMSG;
            keys[i].bytes[keys[i].len] = 0;
            assert_int_equal(keys_parse((struct keg_bytes){keys[i].bytes, len}, &parsed), expected);
        }
    }
    uint8_t longest[KEYS_MAX + 1] = {'n'};
    assert_int_equal(keys_parse((struct keg_bytes){longest, 17}, &parsed), -EBADMSG);
    assert_int_equal(keys_parse((struct keg_bytes){longest, KEYS_MAX}, &parsed), 0);
    assert_int_equal(keys_parse((struct keg_bytes){longest, KEYS_MAX + 1}, &parsed), -EBADMSG);
    longest[0] = 'q';
    assert_int_equal(keys_parse((struct keg_bytes){longest, 20}, &parsed), -EBADMSG);
}

static void test_extents_sort_by_offset(void **state)
{
    (void)state;
    const uint64_t offsets[] = {0, 1, 255, 256, 65536, 1ull << 32, INT64_MAX};
    struct keys_key a, b;
    for (size_t i = 0; i + 1 < sizeof offsets / sizeof *offsets; i++) {
        keys_extent(&a, 3, offsets[i]);
        keys_extent(&b, 3, offsets[i + 1]);
        assert_true(memcmp(a.bytes, b.bytes, a.len) < 0);
    }
}

/* From the paper on SipHash: key 00..0f, message 00..0e gives a129ca6149be45e5. */
static void test_hash_is_siphash(void **state)
{
    (void)state;
    uint8_t secret[16], message[15];
    for (uint8_t i = 0; i < 16; i++)
        secret[i] = i;
    for (uint8_t i = 0; i < 15; i++)
        message[i] = i;
    struct keg_bytes bytes = {message, sizeof message};
    assert_true(keys_hash(secret, bytes) == 0xa129ca6149be45e5 >> 1);
    secret[0]++;
    assert_true(keys_hash(secret, bytes) != 0xa129ca6149be45e5 >> 1);
}

static struct inode sample_inode(void)
{
    return (struct inode){
        .size = 8192,
        .bytes = 8192,
        .content = 70000,
        .mode = S_IFREG | 0644,
        .nlink = 1,
        .uid = 1000,
        .gid = 1000,
        .atime = {1790000000, 123456789},
        .mtime = {1790000001, 999999999},
        .ctime = {1790000001, 999999999},
        .btime = {1790000000, 0},
    };
}

static void check_inode(const struct inode *inode)
{
    uint8_t meta[KEYS_INODE_META_MAX], again[KEYS_INODE_META_MAX];
    struct inode decoded;
    size_t len = keys_inode_encode(meta, inode);
    assert_in_range(len, 1, KEYS_INODE_META_MAX);
    assert_int_equal(keys_inode_decode((struct keg_bytes){meta, len}, &decoded), 0);
    assert_int_equal(keys_inode_encode(again, &decoded), len);
    assert_memory_equal(meta, again, len);
    assert_true(decoded.size == inode->size && decoded.content == inode->content);
    assert_true(decoded.mtime.tv_sec == inode->mtime.tv_sec);
    assert_true(decoded.atime.tv_sec == inode->atime.tv_sec);
    assert_true(decoded.btime.tv_nsec == inode->btime.tv_nsec);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(keys_inode_decode((struct keg_bytes){meta, cut}, &decoded), -EBADMSG);
}

static void test_inodes_survive(void **state)
{
    (void)state;
    struct inode inode = sample_inode();
    check_inode(&inode);
    inode.atime.tv_sec = -1;
    inode.btime.tv_sec = INT64_MAX;
    inode.ctime.tv_sec = INT64_MIN;
    inode.size = inode.bytes = INT64_MAX;
    inode.rdev = inode.content = inode.parent = UINT64_MAX;
    inode.nlink = inode.uid = inode.gid = UINT32_MAX;
    inode.flags = INODE_FLAGS;
    inode.mode = 0xffff;
    check_inode(&inode);
}

/* What a directory with many files costs in memory depends on it. */
static void test_a_new_file_is_small(void **state)
{
    (void)state;
    uint8_t meta[KEYS_INODE_META_MAX];
    struct inode inode = sample_inode();
    inode.atime = inode.ctime = inode.btime = inode.mtime;
    assert_in_range(keys_inode_encode(meta, &inode), 1, 32);
}

static void test_newer_versions_are_told_from_damage(void **state)
{
    (void)state;
    uint8_t meta[KEYS_INODE_META_MAX];
    struct inode inode = sample_inode();
    size_t len = keys_inode_encode(meta, &inode);
    meta[0]++;
    assert_int_equal(keys_inode_decode((struct keg_bytes){meta, len}, &inode), -EPROTO);
    meta[0] = 0;
    assert_int_equal(keys_inode_decode((struct keg_bytes){meta, len}, &inode), -EBADMSG);

    struct keys_superblock super = {.next_id = 99, .secret = {1, 2, 3}}, read;
    uint8_t bytes[KEYS_SUPER_META_SIZE];
    keys_super_encode(bytes, &super);
    assert_int_equal(keys_super_decode((struct keg_bytes){bytes, sizeof bytes}, &read), 0);
    assert_int_equal(read.next_id, 99);
    assert_memory_equal(read.secret, super.secret, sizeof read.secret);
    assert_int_equal(keys_super_decode((struct keg_bytes){bytes, sizeof bytes - 1}, &read),
                     -EBADMSG);
    bytes[0]++;
    assert_int_equal(keys_super_decode((struct keg_bytes){bytes, sizeof bytes}, &read), -EPROTO);
}

static void test_names_survive(void **state)
{
    (void)state;
    uint8_t meta[KEYS_NAME_META_MAX];
    const uint64_t inos[] = {1, 127, 128, 1ull << 32, UINT64_MAX};
    for (size_t i = 0; i < 5; i++) {
        uint64_t ino;
        uint32_t type;
        size_t len = keys_name_encode(meta, inos[i], S_IFSOCK | 0644);
        assert_int_equal(keys_name_decode((struct keg_bytes){meta, len}, &ino, &type), 0);
        assert_true(ino == inos[i]);
        assert_int_equal(type, S_IFSOCK);
        assert_int_equal(keys_name_decode((struct keg_bytes){meta, len - 1}, &ino, &type),
                         -EBADMSG);
    }
}

/* Random and mutated bytes: whatever is taken must be what an encoder writes. */
static void test_decoders_take_only_what_encoders_write(void **state)
{
    (void)state;
    struct random random = random_seeded();
    unsigned taken = 0;
    for (int i = 0; i < 200000; i++) {
        uint8_t meta[KEYS_INODE_META_MAX + 8], again[KEYS_INODE_META_MAX];
        struct inode inode = sample_inode();
        inode.size = random_next(&random) >> random_below(&random, 64);
        inode.size &= INT64_MAX;
        size_t len = keys_inode_encode(meta, &inode);
        meta[random_below(&random, len)] ^= (uint8_t)(1 << random_below(&random, 8));
        if (keys_inode_decode((struct keg_bytes){meta, len}, &inode) != 0)
            continue;
        taken++;
        assert_int_equal(keys_inode_encode(again, &inode), len);
        assert_memory_equal(meta, again, len);
    }
    assert_true(taken > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_parse_as_they_were_made),
        cmocka_unit_test(test_keys_of_other_lengths_are_refused),
        cmocka_unit_test(test_extents_sort_by_offset),
        cmocka_unit_test(test_hash_is_siphash),
        cmocka_unit_test(test_inodes_survive),
        cmocka_unit_test(test_a_new_file_is_small),
        cmocka_unit_test(test_newer_versions_are_told_from_damage),
        cmocka_unit_test(test_names_survive),
        cmocka_unit_test(test_decoders_take_only_what_encoders_write),
    };
    return cmocka_run_group_tests_name("keys", tests, NULL, NULL);
}
