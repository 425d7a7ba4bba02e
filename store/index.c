/* SPDX-License-Identifier: MIT */
/*
 * The index as a B+-tree of pages of 4 KiB (index_page.c). Entries are in the leaves;
 * inner pages hold separators, cut to the shortest key that parts two neighbours, and children.
 *
 * Invariants: the keys below child c of an inner page are >= separator c-1 and < separator c; all
 * leaves are at one depth and chained in order; a leaf is empty only if it is its parent's only
 * child; separators need not be keys that are there.
 *
 * Splits. A page that an entry does not fit into is copied to a scratch page of twice the size,
 * where it does, and dealt out to two pages. Random inserts split it in the middle. A run of
 * ascending ones splits behind the run, so that what stays behind is full: inode numbers and
 * content ids are counted up, each under a leading byte of its own, and their pages are never
 * entered again.
 *
 * Two pages always suffice. A page holds C bytes, an entry takes at most M, and the entry that
 * begins the second page must spell out at most 1023 bytes that it shared. Filling the first page
 * as far as it goes leaves at most (C + M) - (C - M) + 1023 = 2M + 1023 for the second: less than
 * C (asserted below).
 *
 * Memory. A put uses at most one new page for each level and one for a new root, so n puts use at
 * most n times that; a new root has room for more separators than any put needs before n of them
 * have paid for the next level. index_reserve sees to it that the pool has that many. A put first
 * counts the pages that it may need and takes none until it has them all, so it fails before it
 * changes anything.
 *
 * Removal never needs memory: separators are only taken out, never replaced by longer ones. A page
 * that gets too empty is merged with a neighbour below the same parent, if the two fit well into
 * one.
 *
 * Threads: none of its own; readers may be concurrent, as nothing is cached on the side.
 */
#include "index_entry.h"
#include "index_tree.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int index_new(struct index **out)
{
    struct index *index = calloc(1, sizeof *index);

    if (!index)
        return -ENOMEM;
    if (index_pool_fill(&index->pool, 1) < 0) {
        free(index);
        return -ENOMEM;
    }
    index->root = index_tree_take(index, 0);
    *out = index;
    return 0;
}

void index_free(struct index *index)
{
    if (!index)
        return;
    index_pool_free(&index->pool);
    free(index);
}

int index_reserve(struct index *index, size_t puts)
{
    size_t pages;

    if (__builtin_mul_overflow(puts, index->root->level + 2U, &pages))
        return -ENOMEM;
    return index_pool_reserve(&index->pool, pages);
}

/* ---- Reading ---- */

int index_get(const struct index *index, struct keg_bytes key, struct index_place *place,
              struct keg_bytes *meta)
{
    struct index_key sought;
    struct index_spot spot;

    index_key_set(&sought, key);
    const struct index_page *leaf = index_tree_leaf(index, &sought);
    index_page_find(leaf, &sought, &spot);
    if (!spot.exact)
        return -ENOENT;
    index_leaf_unpack(index_entry_payload(leaf, spot.pos), leaf->base, place, meta);
    return 0;
}

void index_scan(const struct index *index, struct keg_bytes from, index_visit_fn *fn, void *arg)
{
    struct index_key sought;
    struct index_reader reader;
    struct index_spot spot;

    index_key_set(&sought, from);
    const struct index_page *leaf = index_tree_leaf(index, &sought);
    index_page_find(leaf, &sought, &spot);
    for (size_t pos = spot.pos; leaf; leaf = leaf->next, pos = 0) {
        index_page_read(&reader, leaf, pos);
        while (index_page_next(&reader)) {
            struct index_place place;
            struct keg_bytes meta;
            index_leaf_unpack(reader.payload, leaf->base, &place, &meta);
            if (!fn(arg, (struct keg_bytes){reader.key, reader.key_len}, meta, &place))
                return;
        }
    }
}

/* ---- Changing ---- */

int index_put(struct index *index, struct keg_bytes key, const struct index_place *place,
              struct keg_bytes meta, struct index_place *old, uint8_t *old_meta_len)
{
    struct index_key sought;
    uint8_t packed[INDEX_LEAF_MAX];
    struct index_place was;
    struct index_spot spot;
    struct index_path path;
    uint8_t was_meta_len = 0;
    int err;

    index_key_set(&sought, key);
    struct index_page *leaf = index_tree_walk(index, &sought, &path);
    index_page_find(leaf, &sought, &spot);
    if (!leaf->count)
        leaf->base = place->sequence;
    struct keg_bytes payload = {packed, index_leaf_pack(packed, leaf->base, place, meta)};
    if (spot.exact) {
        const uint8_t *now = index_entry_payload(leaf, spot.pos);
        index_leaf_unpack(now, leaf->base, &was, NULL);
        was_meta_len = index_leaf_meta_len(now);
    }
    bool fits = spot.exact ? index_page_replace(leaf, spot.pos, payload)
                           : index_page_insert(leaf, &sought, &spot, payload);
    if (!fits) {
        err = index_split_put(index, &path, &sought, &spot, payload);
        if (err < 0)
            return err;
    }
    index->keys += !spot.exact;
    if (spot.exact && old)
        *old = was;
    if (spot.exact && old_meta_len)
        *old_meta_len = was_meta_len;
    return spot.exact;
}

int index_move(struct index *index, struct keg_bytes key, uint32_t slot, uint64_t offset)
{
    struct index_key sought;
    struct index_spot spot;
    struct index_path path;

    index_key_set(&sought, key);
    struct index_page *leaf = index_tree_walk(index, &sought, &path);
    index_page_find(leaf, &sought, &spot);
    if (!spot.exact)
        return -ENOENT;
    assert(offset <= UINT32_MAX);
    index_leaf_move(index_page_payload(leaf, spot.pos), slot, (uint32_t)offset);
    return 0;
}

int index_delete(struct index *index, struct keg_bytes key, struct index_place *old,
                 uint8_t *old_meta_len)
{
    struct index_key sought;
    struct index_place was;
    struct index_spot spot;
    struct index_path path;

    index_key_set(&sought, key);
    struct index_page *leaf = index_tree_walk(index, &sought, &path);
    index_page_find(leaf, &sought, &spot);
    if (!spot.exact)
        return -ENOENT;
    const uint8_t *payload = index_entry_payload(leaf, spot.pos);
    index_leaf_unpack(payload, leaf->base, &was, NULL);
    if (old)
        *old = was;
    if (old_meta_len)
        *old_meta_len = index_leaf_meta_len(payload);
    index_page_remove(leaf, spot.pos);
    index->keys--;
    index_merge_tidy(index, &path);
    return 0;
}

void index_drop_tombstones(struct index *index)
{
    index_merge_prune(index);
}

/* ---- Sums ---- */

uint64_t index_count(const struct index *index)
{
    return index->keys;
}

uint64_t index_bytes(const struct index *index)
{
    return sizeof *index + index->pages * INDEX_PAGE_SIZE + index_pool_bytes(&index->pool);
}
