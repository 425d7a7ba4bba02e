/* SPDX-License-Identifier: MIT */
/*
 * The index against a naive model: a sorted array of entries. Every random test derives from one
 * seed, printed at the start and taken from TEST_SEED.
 */
#include "index_model.h"

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

/* An index that was built is like one that grew, and goes on growing and shrinking as one. */
static void test_build(void **unused)
{
    (void)unused;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        struct model model;
        size_t n = 0, puts = shapes[shape].puts / 4;
        rnd_begin(5000 + shape);
        model_init(&model);
        for (size_t parts = 1; parts <= 4; parts++) {
            assert_int_equal(model_rebuild(&model, parts), 0);
            model_check(&model);
            for (size_t end = n + puts / (5 - parts); n < end; n++)
                model_step(&model, shapes[shape].fn, n);
            model_check(&model);
        }
        assert_int_equal(model_rebuild(&model, 3), 0);
        model_check(&model);
        delete_most(&model);
        assert_int_equal(model_rebuild(&model, 2), 0);
        model_check(&model);
        model_free(&model);
    }
}

/* Full leaves, so less memory than an index that grew in random order. */
static void test_build_density(void **unused)
{
    struct model model;
    uint64_t grown;
    struct key key;

    (void)unused;
    rnd_begin(5100);
    model_init(&model);
    for (size_t n = 0; n < 30000; n++) {
        key_files(&key, n);
        put_random(&model, &key);
    }
    grown = index_bytes(model.index);
    assert_int_equal(model_rebuild(&model, 1), 0);
    print_message("grown: %.1f bytes a key, built: %.1f\n", (double)grown / (double)model.count,
                  (double)index_bytes(model.index) / (double)model.count);
    assert_true(index_bytes(model.index) < grown);
    model_free(&model);
}

static void test_build_order(void **unused)
{
    struct index_place place = {.sequence = 1};
    struct keg_bytes a = {"a", 1}, ab = {"ab", 2}, none = {NULL, 0};
    struct index_build *parts[2];
    struct index *index;

    (void)unused;
    assert_int_equal(index_build_new(&parts[0]), 0);
    assert_int_equal(index_build_add(parts[0], ab, &place, none), 0);
    assert_int_equal(index_build_add(parts[0], ab, &place, none), -EINVAL);
    assert_int_equal(index_build_add(parts[0], a, &place, none), -EINVAL);
    index_build_free(parts[0]);
    for (int swapped = 0; swapped < 2; swapped++) {
        for (int i = 0; i < 2; i++)
            assert_int_equal(index_build_new(&parts[i]), 0);
        assert_int_equal(index_build_add(parts[swapped], a, &place, none), 0);
        assert_int_equal(index_build_add(parts[!swapped], ab, &place, none), 0);
        assert_int_equal(index_build_finish(parts, 2, &index), swapped ? -EINVAL : 0);
        if (!swapped)
            index_free(index);
    }
}

static void test_build_no_memory(void **unused)
{
    struct model model;
    struct key key;
    int err = -ENOMEM;

    (void)unused;
    rnd_begin(5200);
    model_init(&model);
    for (size_t n = 0; n < 20000; n++) {
        key_files(&key, n);
        put_random(&model, &key);
    }
    for (long n = 0; err; n++) {
        fail_after = n;
        err = model_rebuild(&model, 3);
        fail_after = -1;
        assert_true(err == 0 || err == -ENOMEM);
    }
    model_check(&model);
    model_free(&model);
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
        cmocka_unit_test(test_empty),       cmocka_unit_test(test_limits),
        cmocka_unit_test(test_model),       cmocka_unit_test(test_tombstones),
        cmocka_unit_test(test_reserve),     cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_slabs),       cmocka_unit_test(test_density),
        cmocka_unit_test(test_build),       cmocka_unit_test(test_build_density),
        cmocka_unit_test(test_build_order), cmocka_unit_test(test_build_no_memory),
    };
    const char *given = getenv("TEST_SEED");

    test_seed = given ? strtoull(given, NULL, 0) : 1;
    print_message("TEST_SEED=%llu\n", (unsigned long long)test_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
