/* SPDX-License-Identifier: MIT */
#include "index_tree.h"
#include "index_entry.h"

struct index_page *index_tree_take(struct index *index, uint8_t level)
{
    struct index_page *page = index_pool_take(&index->pool);

    index->pages++;
    index_page_init(page, INDEX_PAGE_SIZE, level);
    return page;
}

void index_tree_give(struct index *index, struct index_page *page)
{
    index->pages--;
    index_pool_give(&index->pool, page);
}

/* Fetches what a search will look at, all at once: the struct and the heads, and the end, where the
 * first entry's body usually is. */
static void prefetch(const struct index_page *page)
{
    enum { LINE = 64, HEADS = 7 };
    const char *bytes = (const char *)page;

    for (size_t i = 0; i < HEADS; i++)
        __builtin_prefetch(bytes + i * LINE);
    __builtin_prefetch(bytes + INDEX_PAGE_SIZE - 1);
    __builtin_prefetch(bytes + INDEX_PAGE_SIZE - 1 - LINE);
}

static struct index_page *step(const struct index_page *page, const struct index_key *key,
                               size_t *child)
{
    struct index_spot spot;

    index_page_find(page, key, &spot);
    *child = spot.pos + spot.exact;
    struct index_page *below = index_entry_child(page, *child);
    prefetch(below);
    return below;
}

const struct index_page *index_tree_leaf(const struct index *index, const struct index_key *key)
{
    const struct index_page *page = index->root;
    size_t child;

    while (page->level)
        page = step(page, key, &child);
    return page;
}

/* The same, with the way there. */
struct index_page *index_tree_walk(struct index *index, const struct index_key *key,
                                   struct index_path *path)
{
    struct index_page *page = index->root;

    for (size_t level = page->level; level; level--) {
        path->page[level] = page;
        page = step(page, key, &path->child[level]);
    }
    path->page[0] = page;
    return page;
}
