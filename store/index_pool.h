/* SPDX-License-Identifier: MIT */
/*
 * Pages for the index: handed out one by one from slabs of 2 MiB. Private to the index.
 *
 * A page never touched takes address space and no memory, so a reserve costs nothing until it is
 * used; a page given back returns its memory to the system at once (but for a few, kept warm),
 * wherever it lies. Pages are aligned, so that a search meets one entry of the TLB, and from the
 * fifth slab on the system is asked for huge ones.
 */
#ifndef INDEX_POOL_H
#define INDEX_POOL_H

#include "index_page.h"

enum {
    INDEX_POOL_SLAB = 2 << 20,                            /* bytes */
    INDEX_POOL_PAGES = INDEX_POOL_SLAB / INDEX_PAGE_SIZE, /* of a slab */
};

struct index_pool {
    struct index_slab *first, *last; /* all slabs; the full ones come last */
    size_t slabs;
    size_t unused;           /* pages in slabs that hold no memory */
    struct index_page *warm; /* pages given back that still do */
    size_t warm_count;
    size_t keep; /* pages promised by index_pool_reserve */
};

/* Sees to it that `pages` can be taken. -ENOMEM. Reserved ones, unlike filled ones, stay promised
 * whatever is given back before they are taken. */
KEG_CHECKED int index_pool_reserve(struct index_pool *pool, size_t pages);
KEG_CHECKED int index_pool_fill(struct index_pool *pool, size_t pages);
/* The pool has one; it is not initialized but for slab. */
struct index_page *index_pool_take(struct index_pool *pool);
void index_pool_give(struct index_pool *pool, struct index_page *page);
/* Moves all that `from` has, pages taken included, to pool. */
void index_pool_join(struct index_pool *pool, struct index_pool *from);
void index_pool_free(struct index_pool *pool);          /* with every page ever taken */
size_t index_pool_bytes(const struct index_pool *pool); /* memory of its own: all but pages taken */

#endif
