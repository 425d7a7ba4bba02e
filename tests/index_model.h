/* SPDX-License-Identifier: MIT */
/* A sorted array of entries, and an index that has to agree with it. For one program that the
 * linker gives the wrappers of calloc and mmap. */
#ifndef INDEX_MODEL_H
#define INDEX_MODEL_H

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

/* What the model holds, built in parts, takes the place of the index. */
static int model_rebuild(struct model *model, size_t count)
{
    struct index_build *parts[4] = {NULL};
    struct index *built;
    int err = 0;

    for (size_t i = 0; i < count && !err; i++)
        err = index_build_new(&parts[i]);
    for (size_t i = 0; i < model->count && !err; i++) {
        const struct item *item = model->items[i];
        size_t part = i * count / model->count;

        err = index_build_add(parts[part], item_key(item), &item->place,
                              (struct keg_bytes){item->meta, item->meta_len});
    }
    if (err) {
        for (size_t i = 0; i < count; i++)
            index_build_free(parts[i]);
        return err;
    }
    err = index_build_finish(parts, count, &built);
    if (err)
        return err;
    index_free(model->index);
    model->index = built;
    return 0;
}

#endif
