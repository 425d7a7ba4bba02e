/* SPDX-License-Identifier: MIT */
#include "index_tree.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int index_tree_fill(struct index *index, size_t pages)
{
    while (index->pooled < pages) {
        struct index_page *page = malloc(INDEX_PAGE_SIZE);
        if (!page)
            return -ENOMEM;
        page->next = index->pool;
        index->pool = page;
        index->pooled++;
    }
    return 0;
}

struct index_page *index_tree_take(struct index *index, uint8_t level)
{
    struct index_page *page = index->pool;

    assert(page);
    index->pool = page->next;
    index->pooled--;
    index->pages++;
    index_page_init(page, INDEX_PAGE_SIZE, level);
    return page;
}

void index_tree_give(struct index *index, struct index_page *page)
{
    index->pages--;
    if (index->pooled >= INDEX_TREE_POOL) {
        free(page);
        return;
    }
    page->next = index->pool;
    index->pool = page;
    index->pooled++;
}

void index_tree_trim(struct index *index, size_t pages)
{
    while (index->pooled > pages) {
        struct index_page *page = index->pool;
        index->pool = page->next;
        index->pooled--;
        free(page);
    }
}

static const struct index_page *step(const struct index_page *page, struct keg_bytes key,
                                     size_t *child)
{
    struct index_spot spot;

    index_page_find(page, key, &spot);
    *child = spot.pos + spot.exact;
    return index_page_child(page, *child);
}

const struct index_page *index_tree_leaf(const struct index *index, struct keg_bytes key)
{
    const struct index_page *page = index->root;
    size_t child;

    while (page->level)
        page = step(page, key, &child);
    return page;
}

/* The same, with the way there. */
struct index_page *index_tree_walk(struct index *index, struct keg_bytes key,
                                   struct index_path *path)
{
    struct index_page *page = index->root;

    for (;;) {
        size_t level = page->level;
        path->page[level] = page;
        if (!level)
            return page;
        step(page, key, &path->child[level]);
        page = index_page_child(page, path->child[level]);
    }
}
