/* SPDX-License-Identifier: MIT */
/* Takes out what is gone; index.c has the essay. */
#include "index_entry.h"
#include "index_tree.h"
#include <assert.h>

enum {
    /* A page with fewer bytes looks for a neighbour to merge with, and finds it if the two have no
     * more than so many. */
    SPARSE = INDEX_TREE_CAPACITY * 2 / 5,
    MERGED_MAX = INDEX_TREE_CAPACITY * 4 / 5,
};

static bool writer_copy_inner(struct index_writer *writer, const struct index_page *parent,
                              size_t child, const struct index_page *right)
{
    struct index_reader reader;
    struct keg_bytes first = {&right->first, sizeof(struct index_page *)};

    index_page_read(&reader, parent, child + 1);
    return index_page_append(writer, (struct keg_bytes){reader.key, reader.key_len}, first) &&
           index_page_copy(writer, right, 0, right->count, true);
}

/* Fills `wide` with what is in the children `child` and `child + 1` of parent. */
static bool join(union index_scratch *wide, const struct index_page *parent, size_t child)
{
    const struct index_page *left = index_entry_child(parent, child);
    const struct index_page *right = index_entry_child(parent, child + 1);
    struct index_writer writer;

    index_page_init(&wide->page, INDEX_PAGE_SIZE, left->level);
    index_page_write(&writer, &wide->page);
    if (left->level) {
        wide->page.first = left->first;
        return index_page_copy(&writer, left, 0, left->count, true) &&
               writer_copy_inner(&writer, parent, child, right);
    }
    wide->page.next = right->next;
    wide->page.base =
        !left->count || (right->count && right->base < left->base) ? right->base : left->base;
    return index_page_copy(&writer, left, 0, left->count, true) &&
           index_page_copy(&writer, right, 0, right->count, true);
}

/* Makes one page of two neighbours, if they fit well into it. */
static bool merge(struct index *index, struct index_page *parent, size_t child)
{
    struct index_page *left, *right;
    union index_scratch wide;

    if (child >= parent->count)
        return false;
    left = index_entry_child(parent, child);
    right = index_entry_child(parent, child + 1);
    if (left->count && right->count && index_page_live(left) + index_page_live(right) > MERGED_MAX)
        return false;
    if (!join(&wide, parent, child))
        return false;
    index_page_assign(left, &wide);
    index_page_remove(parent, child);
    index_tree_give(index, right);
    return true;
}

static void shrink_root(struct index *index)
{
    while (index->root->level && !index->root->count) {
        struct index_page *root = index->root;
        index->root = root->first;
        index_tree_give(index, root);
    }
}

/* Merges sparse pages on the way up. */
void index_merge_tidy(struct index *index, const struct index_path *path)
{
    for (size_t level = 0; level < index->root->level; level++) {
        struct index_page *parent = path->page[level + 1];
        size_t child = path->child[level + 1];
        if (index_page_live(path->page[level]) >= SPARSE)
            break;
        if (!merge(index, parent, child) && !(child && merge(index, parent, child - 1)))
            break;
    }
    shrink_root(index);
}

static void prune_leaf(struct index *index, struct index_page *leaf)
{
    union index_scratch wide;
    struct index_writer writer;
    bool fits;

    index_page_init(&wide.page, INDEX_PAGE_SIZE, 0);
    wide.page.base = leaf->base;
    wide.page.next = leaf->next;
    index_page_write(&writer, &wide.page);
    fits = index_page_copy(&writer, leaf, 0, leaf->count, false);
    assert(fits);
    (void)fits;
    if (wide.page.count == leaf->count)
        return;
    index->keys -= (uint64_t)(leaf->count - wide.page.count);
    index_page_assign(leaf, &wide);
}

static void prune(struct index *index, struct index_page *page)
{
    if (!page->level) {
        prune_leaf(index, page);
        return;
    }
    for (size_t i = 0; i <= page->count; i++)
        prune(index, index_entry_child(page, i));
    for (size_t i = 0; i < page->count;)
        if (!merge(index, page, i))
            i++;
}

void index_merge_prune(struct index *index)
{
    prune(index, index->root);
    shrink_root(index);
}
