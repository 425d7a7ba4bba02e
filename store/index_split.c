/* SPDX-License-Identifier: MIT */
/* Splits pages; index.c has the essay. */
#include "index_entry.h"
#include "index_tree.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

enum {
    RUN_MIN = 3, /* inserts in a row that make a run */
    RUN_FULL = INDEX_TREE_CAPACITY * 9 / 10,
    ENTRIES_MAX = INDEX_PAGE_SCRATCH / 12,
};

_Static_assert(2 * INDEX_TREE_ENTRY + KEG_KEY_MAX <= INDEX_TREE_CAPACITY,
               "two pages must suffice for a split");
_Static_assert(3 * INDEX_TREE_SEPARATOR <= INDEX_TREE_CAPACITY, "a new root must last for a while");

/* The base for the entries from..to-1 of a leaf that makes them smallest: their lowest sequence or
 * the one they have, which is known to do. */
static uint64_t best_base(const struct index_page *leaf, size_t from, size_t to)
{
    uint64_t sequence[ENTRIES_MAX], lowest = UINT64_MAX;
    size_t now = 0, then = 0;

    for (size_t i = from; i < to; i++) {
        const uint8_t *payload = index_entry_payload(leaf, i);
        sequence[i] = index_leaf_sequence(payload, leaf->base);
        lowest = sequence[i] < lowest ? sequence[i] : lowest;
        now += index_leaf_sequence_width(payload);
    }
    for (size_t i = from; i < to; i++)
        then += index_leaf_sequence_size(sequence[i], lowest);
    return then < now ? lowest : leaf->base;
}

/* Where to part an overfull page so that both parts fit: before entry `wanted` if that does, else
 * as evenly as can be. Of an inner page the entry at the cut goes up, and is in neither part. */
static size_t choose_cut(const struct index_page *page, const struct index_cost *cost,
                         size_t wanted)
{
    size_t all = cost[page->count - 1U].upto, up = page->level ? 1 : 0;
    size_t best = 0, best_larger = SIZE_MAX;

    for (size_t cut = 1; cut + up < page->count; cut++) {
        size_t first = cut + up; /* of the right part */
        size_t left = cost[cut - 1].upto;
        size_t right = all - cost[first - 1].upto + cost[first].extra;
        size_t larger = left > right ? left : right;
        if (larger > INDEX_TREE_CAPACITY)
            continue;
        if (cut == wanted)
            return cut;
        if (larger < best_larger) {
            best_larger = larger;
            best = cut;
        }
    }
    assert(best);
    return best;
}

/* Where a run of ascending inserts, the newest of them at pos, wants its page parted; 0: nowhere.
 */
static size_t run_cut(const struct index_page *page, const struct index_cost *cost, size_t pos)
{
    if (page->run < RUN_MIN || pos != page->last)
        return 0;
    return cost[pos].upto <= RUN_FULL ? pos + 1 : pos;
}

/* Deals the overfull leaf `full`, whose newest entry is at pos, out to left and right; *key gets
 * the separator. */
static void deal_leaf(const struct index_page *full, size_t pos, struct index_page *left,
                      struct index_page *right, struct index_key *separator)
{
    struct index_cost cost[ENTRIES_MAX];
    struct index_writer writer;
    struct index_reader first;
    size_t cut;
    bool fits;

    index_page_costs(full, cost);
    cut = choose_cut(full, cost, run_cut(full, cost, pos));
    index_page_init(left, INDEX_PAGE_SIZE, 0);
    left->base = best_base(full, 0, cut);
    right->base = best_base(full, cut, full->count);
    right->next = full->next;
    left->next = right;
    index_page_write(&writer, left);
    fits = index_page_copy(&writer, full, 0, cut, true);
    index_page_write(&writer, right);
    fits = fits && index_page_copy(&writer, full, cut, full->count, true);
    assert(fits);
    (void)fits;

    index_page_read(&first, right, 1);
    index_key_set(separator, (struct keg_bytes){first.key, index_page_shared(full, cut) + 1});
}

/* Likewise an inner page; the separator is the one at the cut. */
static void deal_inner(const struct index_page *full, struct index_page *left,
                       struct index_page *right, struct index_key *separator)
{
    struct index_cost cost[ENTRIES_MAX];
    struct index_writer writer;
    struct index_reader reader;
    size_t cut;
    bool fits;

    index_page_costs(full, cost);
    cut = choose_cut(full, cost, 0);
    index_page_init(left, INDEX_PAGE_SIZE, full->level);
    left->first = full->first;
    right->first = index_entry_child(full, cut + 1);
    index_page_write(&writer, left);
    fits = index_page_copy(&writer, full, 0, cut, true);
    index_page_write(&writer, right);
    fits = fits && index_page_copy(&writer, full, cut + 1, full->count, true);
    assert(fits);
    (void)fits;

    index_page_read(&reader, full, cut + 1);
    index_key_set(separator, (struct keg_bytes){reader.key, reader.key_len});
}

static void grow_root(struct index *index, const struct index_key *separator,
                      struct index_page *right)
{
    struct index_page *root = index_tree_take(index, (uint8_t)(index->root->level + 1));
    struct index_spot spot = {0};
    struct keg_bytes payload = {&right, sizeof(struct index_page *)};
    bool fits;

    assert(root->level < INDEX_TREE_LEVELS);
    root->first = index->root;
    fits = index_page_insert(root, separator, &spot, payload);
    assert(fits);
    (void)fits;
    index->root = root;
}

/* Puts the separator and the page right of it in at `level` and above. */
static void insert_above(struct index *index, const struct index_path *path, size_t level,
                         struct index_key *separator, struct index_page *right)
{
    for (; level <= index->root->level; level++) {
        struct index_page *page = path->page[level];
        struct keg_bytes payload = {&right, sizeof(struct index_page *)};
        union index_scratch wide;
        struct index_spot spot;
        bool fits;

        index_page_find(page, separator, &spot);
        assert(!spot.exact && spot.pos == path->child[level]);
        if (index_page_insert(page, separator, &spot, payload))
            return;
        index_page_widen(&wide, page);
        fits = index_page_insert(&wide.page, separator, &spot, payload);
        assert(fits);
        (void)fits;
        right = index_tree_take(index, page->level);
        deal_inner(&wide.page, page, right, separator);
    }
    grow_root(index, separator, right);
}

/* Pages that a put may take when its leaf must be split. */
static size_t pages_needed(const struct index *index, const struct index_path *path)
{
    size_t pages = 1;

    for (size_t level = 1; level <= index->root->level; level++, pages++)
        if (index_page_room(path->page[level]) >= INDEX_TREE_SEPARATOR)
            return pages;
    return pages + 1;
}

/* Puts an entry in that its leaf has no room for. */
int index_split_put(struct index *index, const struct index_path *path, const struct index_key *key,
                    const struct index_spot *spot, struct keg_bytes payload)
{
    struct index_page *leaf = path->page[0], *right;
    struct index_key separator;
    union index_scratch wide;
    bool fits;
    int err = index_pool_fill(&index->pool, pages_needed(index, path));

    if (err < 0)
        return err;
    index_page_widen(&wide, leaf);
    fits = spot->exact ? index_page_replace(&wide.page, spot->pos, payload)
                       : index_page_insert(&wide.page, key, spot, payload);
    assert(fits);
    (void)fits;
    right = index_tree_take(index, 0);
    deal_leaf(&wide.page, spot->pos, leaf, right, &separator);
    insert_above(index, path, 1, &separator, right);
    return 0;
}
