/* SPDX-License-Identifier: MIT */
/*
 * The tree after losses: each key of a small tree, then pairs of keys, are taken out of the store;
 * afterwards volume_repair makes a tree with which volume_check is content, all of whose files
 * either read as they did, or not at all.
 */
#include "random.h"
#include "volume_case.h"

enum { KEYS_MOST = 64, LONG = 100000 };

static struct keys_key all[KEYS_MOST];
static size_t all_count;
static uint8_t pattern[LONG];

static void list_keys(void)
{
    struct keg_iter *iter;
    struct keg_entry entry;

    all_count = 0;
    assert_int_equal(keg_iter_open(f.keg, (struct keg_bytes){"", 0}, &iter), 0);
    while (keg_iter_next(iter, &entry) == 1) {
        assert_true(all_count < KEYS_MOST);
        all[all_count].len = entry.key.len;
        memcpy(all[all_count++].bytes, entry.key.data, entry.key.len);
    }
    keg_iter_close(iter);
}

static uint64_t make_dir(uint64_t dir, const char *name)
{
    struct volume_new new = {.mode = S_IFDIR | 0755};
    struct volume_attr attr;

    assert_int_equal(volume_make(f.volume, dir, fixture_text(name), &new, &attr), 0);
    volume_forget(f.volume, attr.ino, 1);
    return attr.ino;
}

static void make_tree(void)
{
    struct volume_new link = {.mode = S_IFLNK | 0777, .target = {"somewhere", 9}};
    struct volume_new file = {.mode = S_IFREG | 0644};
    struct volume_attr attr;
    uint64_t a = make_dir(VOLUME_ROOT, "a"), b = make_dir(a, "b");

    for (size_t i = 0; i < LONG; i++)
        pattern[i] = (uint8_t)(1 + i % 251);
    assert_int_equal(volume_make(f.volume, b, fixture_text("long"), &file, &attr), 0);
    assert_int_equal(volume_write(f.volume, attr.ino, 0, pattern, LONG, 0), LONG);
    assert_int_equal(volume_setxattr(f.volume, attr.ino, fixture_text("user.x"), "y", 1, 0), 0);
    volume_forget(f.volume, attr.ino, 1);
    assert_int_equal(volume_link(f.volume, attr.ino, a, fixture_text("again"), &attr), 0);
    volume_forget(f.volume, attr.ino, 1);
    assert_int_equal(volume_make(f.volume, a, fixture_text("short"), &file, &attr), 0);
    assert_int_equal(volume_write(f.volume, attr.ino, 0, pattern, 100, 0), 100);
    volume_forget(f.volume, attr.ino, 1);
    assert_int_equal(volume_make(f.volume, a, fixture_text("link"), &link, &attr), 0);
    volume_forget(f.volume, attr.ino, 1);
}

/* Nothing may read as zeros, or as what was never there. */
static bool read_entry(void *arg, const struct volume_dirent *entry)
{
    static uint8_t buf[LONG];
    uint64_t *inos = arg;

    if (S_ISREG(entry->attr.mode))
        for (uint64_t at = 0; at < entry->attr.size; at += KEYS_WINDOW) {
            ssize_t n = volume_read(f.volume, entry->attr.ino, at, buf, KEYS_WINDOW);

            assert_true(n == -EIO || (n > 0 && memcmp(buf, pattern + at, (size_t)n) == 0));
        }
    if (S_ISDIR(entry->attr.mode) && inos[0] < 15)
        inos[++inos[0]] = entry->attr.ino;
    return true;
}

/* Directory by directory; entries are read outside of the listing. */
struct listed {
    struct volume_dirent entries[32];
    size_t count;
};

static bool take(void *arg, const struct volume_dirent *entry)
{
    struct listed *listed = arg;

    if (listed->count == 32)
        return false;
    listed->entries[listed->count++] = *entry;
    return true;
}

static unsigned read_tree(void)
{
    uint64_t inos[16] = {1, VOLUME_ROOT};
    unsigned files = 0;

    for (uint64_t i = 1; i <= inos[0]; i++) {
        struct listed listed = {.count = 0};

        assert_int_equal(volume_readdir(f.volume, inos[i], 0, true, take, &listed), 0);
        for (size_t j = 0; j < listed.count; j++) {
            files += S_ISREG(listed.entries[j].attr.mode);
            read_entry(inos, &listed.entries[j]);
            volume_forget(f.volume, listed.entries[j].attr.ino, 1);
        }
    }
    return files;
}

static void lose_and_repair(const size_t *lost, size_t count)
{
    struct keg_options options = {.flags = KEG_NO_BACKGROUND};
    ssize_t found;

    f = (struct fixture){.volume_flags = VOLUME_NO_BACKGROUND, .keg_flags = KEG_NO_BACKGROUND};
    assert_int_equal(env_mem(0, &f.env), 0);
    assert_int_equal(fixture_open(&f), 0);
    make_tree();
    assert_int_equal(fixture_close(&f), 0);
    assert_int_equal(keg_open(f.env, &options, &f.keg), 0);
    list_keys();
    for (size_t i = 0; i < count; i++)
        assert_int_equal(keg_delete(f.keg, keys_bytes(&all[lost[i] % all_count]), 0), 0);
    assert_true(volume_repair(f.keg, NULL, NULL) >= 0);
    assert_int_equal(volume_repair(f.keg, NULL, NULL), 0); /* once is enough */
    assert_int_equal(keg_close(f.keg), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(volume_tend(f.volume), 0);
    found = volume_check(f.volume, fixture_print, NULL);
    if (found != 0) {
        for (size_t i = 0; i < count; i++)
            print_error("lost: key %zu, of kind %c\n", lost[i] % all_count,
                        all[lost[i] % all_count].bytes[0]);
        fail();
    }
    (void)read_tree();
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(f.env);
}

static void test_each_key_lost(void **state)
{
    (void)state;
    lose_and_repair(NULL, 0);
    assert_true(all_count > 15);
    for (size_t i = 0; i < all_count; i++)
        lose_and_repair(&i, 1);
}

static void test_many_keys_lost(void **state)
{
    struct random random = random_seeded();

    (void)state;
    for (int round = 0; round < 300; round++) {
        size_t lost[8], count = 2 + random_below(&random, 7), distinct = 0;

        for (size_t i = 0; i < count; i++) {
            size_t key = random_below(&random, all_count), j = 0;

            while (j < distinct && lost[j] != key)
                j++;
            if (j == distinct)
                lost[distinct++] = key;
        }
        lose_and_repair(lost, distinct);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_key_lost),
        cmocka_unit_test(test_many_keys_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
