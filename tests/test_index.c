/* SPDX-License-Identifier: MIT */
/*
 * The index against a naive model: a sorted array of entries. Every random test derives from one
 * seed, printed at the start and taken from TEST_SEED.
 */
#include "index.h"
#include "index_keys.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
/* cmocka wants the above first. */
#include <cmocka.h>

/* ---- Memory that fails on demand (the linker wraps these) ---- */

static long fail_after = -1; /* calls that still succeed; -1: all */

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
/* The name that mmap has in the library where file offsets are asked to be 64-bit. */
void *__real_mmap64(void *at, size_t len, int access, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int access, int flags, int fd, off_t offset);

static bool fails(void)
{
    if (fail_after > 0)
        fail_after--;
    else if (fail_after == 0)
        return true;
    return false;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_mmap64(void *at, size_t len, int access, int flags, int fd, off_t offset)
{
    return fails() ? MAP_FAILED : __real_mmap64(at, len, access, flags, fd, offset);
}

/* ---- The model ---- */

struct item {
    struct index_place place;
    size_t key_len;
    uint8_t meta_len;
    uint8_t meta[KEG_META_MAX];
    uint8_t key[KEG_KEY_MAX];
};

struct model {
    struct index *index;
    struct item **items;
    size_t count, capacity;
    uint64_t sequence;
    bool starved; /* puts find no memory */
};

static void model_init(struct model *model)
{
    *model = (struct model){0};
    assert_int_equal(index_new(&model->index), 0);
}

static void model_free(struct model *model)
{
    index_free(model->index);
    for (size_t i = 0; i < model->count; i++)
        free(model->items[i]);
    free(model->items);
}

static int compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* The first item >= key. */
static size_t model_find(const struct model *model, struct keg_bytes key, bool *exact)
{
    size_t low = 0, high = model->count;

    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct item *item = model->items[mid];
        if (compare(item->key, item->key_len, key.data, key.len) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *exact = low < model->count && model->items[low]->key_len == key.len &&
             memcmp(model->items[low]->key, key.data, key.len) == 0;
    return low;
}

static void assert_place(const struct index_place *a, const struct index_place *b)
{
    assert_int_equal(a->sequence, b->sequence);
    assert_int_equal(a->offset, b->offset);
    assert_int_equal(a->slot, b->slot);
    assert_int_equal(a->value_len, b->value_len);
    assert_int_equal(a->crc, b->crc);
    assert_int_equal(a->tombstone, b->tombstone);
}

static void assert_item(const struct item *item, struct keg_bytes meta,
                        const struct index_place *place)
{
    assert_place(&item->place, place);
    assert_int_equal(item->meta_len, meta.len);
    assert_memory_equal(item->meta, meta.data, meta.len);
}

static struct keg_bytes item_key(const struct item *item)
{
    return (struct keg_bytes){item->key, item->key_len};
}

static struct index_place random_place(struct model *model)
{
    static const uint32_t lens[] = {0, 0, 1, 200, 70000, 1 << 23, KEG_VALUE_MAX};
    struct index_place place = {
        .sequence = rnd(50) ? ++model->sequence : rnd(UINT64_MAX),
        .offset = rnd(3) ? rnd(1 << 26) : rnd(1ULL << 32),
        .slot = (uint32_t)(rnd(3) ? rnd(16) : rnd(1ULL << 32)),
        .value_len = lens[rnd(7)],
        .tombstone = rnd(4) == 0,
    };
    if (place.value_len)
        place.crc = (uint32_t)rnd(1ULL << 32);
    return place;
}

/* Only in the model. */
static void model_set(struct model *model, struct keg_bytes key, const struct index_place *place,
                      struct keg_bytes meta)
{
    bool exact;
    size_t at = model_find(model, key, &exact);

    if (!exact) {
        if (model->count == model->capacity) {
            model->capacity = 2 * model->capacity + 64;
            model->items = realloc(model->items, model->capacity * sizeof *model->items);
            assert_non_null(model->items);
        }
        memmove(model->items + at + 1, model->items + at,
                (model->count - at) * sizeof *model->items);
        model->items[at] = calloc(1, sizeof(struct item));
        assert_non_null(model->items[at]);
        memcpy(model->items[at]->key, key.data, key.len);
        model->items[at]->key_len = key.len;
        model->count++;
    }
    model->items[at]->place = *place;
    model->items[at]->meta_len = (uint8_t)meta.len;
    if (meta.len)
        memcpy(model->items[at]->meta, meta.data, meta.len);
}

/* In both, and they agree on what was there. */
static int model_put(struct model *model, struct keg_bytes key, const struct index_place *place,
                     struct keg_bytes meta)
{
    struct index_place old;
    uint8_t old_meta_len;
    bool exact;
    size_t at = model_find(model, key, &exact);

    fail_after = model->starved ? 0 : -1;
    int got = index_put(model->index, key, place, meta, &old, &old_meta_len);
    fail_after = -1;
    if (got == -ENOMEM)
        return got;
    assert_int_equal(got, exact);
    if (exact) {
        assert_place(&model->items[at]->place, &old);
        assert_int_equal(model->items[at]->meta_len, old_meta_len);
    }
    model_set(model, key, place, meta);
    return 0;
}

static void model_delete(struct model *model, struct keg_bytes key)
{
    struct index_place old;
    uint8_t old_meta_len;
    bool exact;
    size_t at = model_find(model, key, &exact);

    int got = index_delete(model->index, key, &old, &old_meta_len);
    assert_int_equal(got, exact ? 0 : -ENOENT);
    if (!exact)
        return;
    assert_place(&model->items[at]->place, &old);
    assert_int_equal(model->items[at]->meta_len, old_meta_len);
    free(model->items[at]);
    model->count--;
    memmove(model->items + at, model->items + at + 1, (model->count - at) * sizeof *model->items);
}

static void model_move(struct model *model, struct keg_bytes key)
{
    bool exact;
    size_t at = model_find(model, key, &exact);
    uint32_t slot = (uint32_t)rnd(1ULL << 32);
    uint64_t offset = rnd(1ULL << 32);

    assert_int_equal(index_move(model->index, key, slot, offset), exact ? 0 : -ENOENT);
    if (exact) {
        model->items[at]->place.slot = slot;
        model->items[at]->place.offset = offset;
    }
}

static void model_get(const struct model *model, struct keg_bytes key)
{
    struct index_place place;
    struct keg_bytes meta;
    bool exact;
    size_t at = model_find(model, key, &exact);

    assert_int_equal(index_get(model->index, key, &place, &meta), exact ? 0 : -ENOENT);
    if (exact)
        assert_item(model->items[at], meta, &place);
}

struct scan {
    const struct model *model;
    size_t at, left;
};

static bool scan_visit(void *arg, struct keg_bytes key, struct keg_bytes meta,
                       const struct index_place *place)
{
    struct scan *scan = arg;

    assert_true(scan->at < scan->model->count);
    const struct item *item = scan->model->items[scan->at++];
    assert_int_equal(item->key_len, key.len);
    assert_memory_equal(item->key, key.data, key.len);
    assert_item(item, meta, place);
    return --scan->left > 0;
}

static void model_scan(const struct model *model, struct keg_bytes from, size_t limit)
{
    bool exact;
    size_t begin = model_find(model, from, &exact);
    struct scan scan = {model, begin, limit};

    index_scan(model->index, from, scan_visit, &scan);
    size_t there = model->count - begin;
    assert_int_equal(scan.at - begin, there < limit ? there : limit);
}

static void model_check(const struct model *model)
{
    struct keg_bytes none = {"", 0};

    assert_int_equal(index_check(model->index), 0);
    assert_int_equal(index_count(model->index), model->count);
    model_scan(model, none, SIZE_MAX);
    for (size_t i = 0; i < model->count; i++)
        model_get(model, item_key(model->items[i]));
}

static struct keg_bytes random_meta(uint8_t *room)
{
    size_t len = rnd(3) ? rnd(20) : rnd(8) ? rnd(80) : rnd(KEG_META_MAX + 1);

    for (size_t i = 0; i < len; i++)
        room[i] = (uint8_t)rnd(256);
    return (struct keg_bytes){room, len};
}

static int try_random(struct model *model, const struct key *key)
{
    uint8_t room[KEG_META_MAX];
    struct index_place place = random_place(model);

    return model_put(model, key_of(key), &place, random_meta(room));
}

static void put_random(struct model *model, const struct key *key)
{
    assert_int_equal(try_random(model, key), 0);
}

static struct keg_bytes any_key(const struct model *model)
{
    return item_key(model->items[rnd(model->count)]);
}

/* ---- Tests ---- */

static void put_again(struct model *model, size_t at)
{
    struct key key = {.len = model->items[at]->key_len};

    memcpy(key.bytes, model->items[at]->key, key.len);
    put_random(model, &key);
}

static void model_step(struct model *model, key_fn *fn, uint64_t n)
{
    struct key key;

    fn(&key, n);
    put_random(model, &key);
    fn(&key, n + rnd(3));
    switch (rnd(8)) {
    case 0:
        model_delete(model, key_of(&key));
        break;
    case 1:
        model_delete(model, any_key(model));
        break;
    case 2:
        model_get(model, key_of(&key));
        break;
    case 3:
        model_scan(model, key_of(&key), 1 + rnd(20));
        break;
    case 4:
        if (model->count)
            model_move(model, any_key(model));
        break;
    case 5:
        if (model->count)
            put_again(model, rnd(model->count));
        break;
    default:
        break;
    }
}

/* Deletes nine of ten, and then the rest, in random order. */
static void delete_most(struct model *model)
{
    size_t goal = model->count / 10;
    uint64_t full;

    assert_int_equal(index_reserve(model->index, 0), 0);
    full = index_bytes(model->index);
    while (model->count > goal)
        model_delete(model, any_key(model));
    model_check(model);
    assert_true(index_bytes(model->index) < full / 3 + 80 * 4096);
    while (model->count)
        model_delete(model, any_key(model));
    model_check(model);
    assert_true(index_bytes(model->index) < 70 * 4096);
}

static void test_model(void **unused)
{
    (void)unused;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        struct model model;
        rnd_begin(shape);
        model_init(&model);
        for (size_t n = 0; n < shapes[shape].puts; n++) {
            model_step(&model, shapes[shape].fn, n);
            if (n % (shapes[shape].puts / 8) == 17)
                model_check(&model);
        }
        model_check(&model);
        delete_most(&model);
        model_free(&model);
    }
}

static void test_empty(void **unused)
{
    struct keg_bytes key = {"k", 1};
    struct index_place place;
    struct model model;

    (void)unused;
    model_init(&model);
    assert_int_equal(index_get(model.index, key, &place, NULL), -ENOENT);
    assert_int_equal(index_delete(model.index, key, NULL, NULL), -ENOENT);
    assert_int_equal(index_move(model.index, key, 1, 1), -ENOENT);
    index_drop_tombstones(model.index);
    model_check(&model);
    index_free(NULL);
    model_free(&model);
}

/* Numbers at their limits come back as they went in, and a move to the largest place fits. */
static void test_limits(void **unused)
{
    static const uint64_t sequences[] = {0, 1, 255, 256, 1ULL << 32, 1ULL << 63, UINT64_MAX};
    struct model model;
    uint8_t meta[KEG_META_MAX];
    struct key key;

    (void)unused;
    rnd_begin(1000);
    memset(meta, 'm', sizeof meta);
    model_init(&model);
    for (size_t round = 0; round < 400; round++) {
        key_longest(&key, 0);
        struct index_place place = {sequences[rnd(7)],       rnd(2) ? UINT32_MAX : 0,
                                    rnd(2) ? UINT32_MAX : 0, (uint32_t)(rnd(2) * KEG_VALUE_MAX),
                                    rnd(2) ? UINT32_MAX : 0, rnd(2)};
        struct keg_bytes some = {meta, rnd(2) ? 0 : 255};
        assert_int_equal(model_put(&model, key_of(&key), &place, some), 0);
        model_move(&model, any_key(&model));
        assert_int_equal(index_check(model.index), 0);
    }
    model_check(&model);
    model_free(&model);
}

static void test_tombstones(void **unused)
{
    (void)unused;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        struct model model;
        size_t kept = 0;
        rnd_begin(2000 + shape);
        model_init(&model);
        for (size_t n = 0; n < shapes[shape].puts / 4; n++) {
            struct key key;
            shapes[shape].fn(&key, n);
            put_random(&model, &key);
        }
        index_drop_tombstones(model.index);
        for (size_t i = 0; i < model.count; i++) {
            if (model.items[i]->place.tombstone)
                free(model.items[i]);
            else
                model.items[kept++] = model.items[i];
        }
        assert_true(kept < model.count);
        model.count = kept;
        model_check(&model);

        /* All of them: one empty page is left. */
        for (size_t i = 0; i < model.count; i++) {
            struct item *item = model.items[i];
            item->place.tombstone = true;
            assert_int_equal(index_put(model.index, item_key(item), &item->place,
                                       (struct keg_bytes){item->meta, item->meta_len}, NULL, NULL),
                             1);
            free(item);
        }
        model.count = 0;
        index_drop_tombstones(model.index);
        model_check(&model);
        assert_true(index_bytes(model.index) < 70 * 4096);
        model_free(&model);
    }
}

/* After index_reserve puts work without memory, whatever the keys are. */
static void test_reserve(void **unused)
{
    (void)unused;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        struct model model;
        uint64_t n = 0;
        rnd_begin(3000 + shape);
        model_init(&model);
        while (n < shapes[shape].puts / 2) {
            uint64_t puts = 1 + rnd(rnd(10) ? 5 : 300);
            assert_int_equal(index_reserve(model.index, puts), 0);
            model.starved = true;
            for (; puts; puts--) {
                struct key key;
                shapes[shape].fn(&key, n++);
                put_random(&model, &key);
            }
            model.starved = false;
        }
        model_check(&model);
        delete_most(&model);
        model_free(&model);
    }
}

/* Without index_reserve a put that finds no memory changes nothing. */
static void test_no_memory(void **unused)
{
    struct index *none;
    size_t all = 0;

    (void)unused;
    for (long n = 0; n < 2; n++) {
        fail_after = n;
        assert_int_equal(index_new(&none), -ENOMEM);
    }
    fail_after = -1;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        struct model model;
        size_t refused = 0;
        rnd_begin(4000 + shape);
        model_init(&model);
        for (uint64_t n = 0; n < 5 * shapes[shape].puts && refused < 60; n++) {
            struct key key;
            shapes[shape].fn(&key, n);
            model.starved = rnd(64) != 0;
            int got = try_random(&model, &key);
            assert_true(got == 0 || (got == -ENOMEM && model.starved));
            refused += got < 0;
            model_get(&model, key_of(&key));
            if (got < 0 && refused % 6 == 0)
                assert_int_equal(index_check(model.index), 0);
        }
        model_check(&model);
        all += refused;
        fail_after = 1;
        assert_int_equal(index_reserve(model.index, 4000), -ENOMEM);
        fail_after = -1;
        assert_int_equal(index_reserve(model.index, SIZE_MAX), -ENOMEM);
        model_check(&model);
        model_free(&model);
    }
    assert_true(all > 200);
}

/* Many slabs of pages, and all of them come back. */
static void test_slabs(void **unused)
{
    enum { KEYS = 80000 };
    struct index_place place = {.sequence = 1};
    struct index *index;
    struct key key;

    (void)unused;
    assert_int_equal(index_new(&index), 0);
    assert_int_equal(index_reserve(index, 10000), 0);
    assert_true(index_bytes(index) < 64 * 1024); /* nothing of it is touched */
    for (int round = 0; round < 2; round++) {
        uint8_t meta[120] = {0};
        rnd_begin(6000);
        for (size_t n = 0; n < KEYS; n++) {
            key_random(&key, n);
            assert_int_equal(
                index_put(index, key_of(&key), &place, (struct keg_bytes){meta, 120}, NULL, NULL),
                0);
        }
        assert_true(index_bytes(index) > KEYS * 140);
        assert_int_equal(index_check(index), 0);
        rnd_begin(6000);
        for (size_t n = 0; n < KEYS; n++) {
            key_random(&key, n);
            assert_int_equal(index_delete(index, key_of(&key), NULL, NULL), 0);
        }
        assert_int_equal(index_check(index), 0);
        assert_int_equal(index_count(index), 0);
        assert_true(index_bytes(index) < 400 * 1024);
        assert_int_equal(index_reserve(index, 0), 0);
    }
    index_free(index);
}

/* Bytes that one key takes, without those that cannot be had for less. */
static double overhead(key_fn *fn, size_t puts, size_t payload)
{
    struct index *index;
    uint8_t meta[KEG_META_MAX] = {0};

    assert_int_equal(index_new(&index), 0);
    for (size_t n = 0; n < puts; n++) {
        struct key key;
        fn(&key, n);
        struct index_place place = {.sequence = n, .offset = n * 100, .slot = 3};
        assert_true(
            index_put(index, key_of(&key), &place, (struct keg_bytes){meta, 0}, NULL, NULL) == 0);
    }
    assert_int_equal(index_check(index), 0);
    double each = (double)index_bytes(index) / (double)index_count(index);
    index_free(index);
    return each - (double)payload;
}

/* Pages are dense: nearly full after ascending inserts, also of streams that take turns. */
static void test_density(void **unused)
{
    (void)unused;
    rnd_begin(5000);
    double ascending = overhead(key_ascending, 50000, 1);
    double random = overhead(key_random, 50000, 15);
    print_message("bytes a key beside what parts it from its neighbour: ascending %.1f, "
                  "random %.1f\n",
                  ascending, random);
    assert_true(ascending < 20);
    assert_true(random < 36);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_model),   cmocka_unit_test(test_tombstones),
        cmocka_unit_test(test_reserve), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_slabs),   cmocka_unit_test(test_density),
    };
    const char *given = getenv("TEST_SEED");

    test_seed = given ? strtoull(given, NULL, 0) : 1;
    print_message("TEST_SEED=%llu\n", (unsigned long long)test_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
