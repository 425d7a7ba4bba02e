/* SPDX-License-Identifier: MIT */
/* The index's pages as a tree; private to the index. index.c has the essay. */
#ifndef INDEX_TREE_H
#define INDEX_TREE_H

#include "index_pool.h"

enum {
    INDEX_TREE_LEVELS = 40, /* at most: an inner page has two children when it comes to be */
    INDEX_TREE_CAPACITY = INDEX_PAGE_SIZE - (int)sizeof(struct index_page), /* bytes of a page */
    INDEX_TREE_ENTRY = 4 + INDEX_PAGE_BODY_MAX, /* bytes of the longest entry of a leaf, */
    INDEX_TREE_SEPARATOR = 4 + 5 + KEG_KEY_MAX + (int)sizeof(void *) + 2, /* and of a separator */
};

struct index {
    struct index_page *root;
    uint64_t keys;
    uint64_t pages;         /* in the tree */
    struct index_pool pool; /* of pages that are not */
};

/* The way from the root to a leaf: page[l] is at level l, and the next one its child child[l]. */
struct index_path {
    struct index_page *page[INDEX_TREE_LEVELS];
    size_t child[INDEX_TREE_LEVELS];
};

/* index_tree.c: a page of the pool, which has one, and back. */
struct index_page *index_tree_take(struct index *index, uint8_t level);
void index_tree_give(struct index *index, struct index_page *page);
/* The leaf where key is or belongs. */
const struct index_page *index_tree_leaf(const struct index *index, const struct index_key *key);
struct index_page *index_tree_walk(struct index *index, const struct index_key *key,
                                   struct index_path *path);

/* index_split.c: inserts an entry (or replaces its payload) that the leaf at the path's end has no
 * room for. -ENOMEM, and nothing changed. */
KEG_CHECKED int index_split_put(struct index *index, const struct index_path *path,
                                const struct index_key *key, const struct index_spot *spot,
                                struct keg_bytes payload);

/* index_merge.c: after a removal from the leaf at the path's end. */
void index_merge_tidy(struct index *index, const struct index_path *path);
/* Removes tombstones everywhere. */
void index_merge_prune(struct index *index);

#endif
