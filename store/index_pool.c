/* SPDX-License-Identifier: MIT */
#include "index_pool.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    WARM_MAX = 64, /* pages */
    HUGE_FROM = 4, /* slabs, behind which the unused part of a huge page hardly counts */
    WORDS = INDEX_POOL_PAGES / 64,
};

/* Page i is unused if bit i is set. Kept apart from the pages, to touch none. */
struct index_slab {
    struct index_slab *before, *next;
    uint8_t *pages;
    size_t unused;
    uint64_t bits[WORDS];
};

static void unlink_slab(struct index_pool *pool, struct index_slab *slab)
{
    *(slab->before ? &slab->before->next : &pool->first) = slab->next;
    *(slab->next ? &slab->next->before : &pool->last) = slab->before;
}

static void link_first(struct index_pool *pool, struct index_slab *slab)
{
    slab->before = NULL;
    slab->next = pool->first;
    *(slab->next ? &slab->next->before : &pool->last) = slab;
    pool->first = slab;
}

static void link_last(struct index_pool *pool, struct index_slab *slab)
{
    slab->next = NULL;
    slab->before = pool->last;
    *(slab->before ? &slab->before->next : &pool->first) = slab;
    pool->last = slab;
}

/* Address space of a slab's size, aligned to it. */
static uint8_t *map_aligned(void)
{
    uint8_t *got =
        mmap(NULL, 2 * INDEX_POOL_SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)got % INDEX_POOL_SLAB, behind = INDEX_POOL_SLAB - before;
    if (before)
        munmap(got, before);
    if (behind)
        munmap(got + before + INDEX_POOL_SLAB, behind);
    return got + before;
}

static int slab_add(struct index_pool *pool)
{
    struct index_slab *slab = calloc(1, sizeof *slab);

    if (!slab)
        return -ENOMEM;
    slab->pages = map_aligned();
    if (!slab->pages) {
        free(slab);
        return -ENOMEM;
    }
    slab->unused = INDEX_POOL_PAGES;
    memset(slab->bits, 0xff, sizeof slab->bits);
    link_first(pool, slab);
    pool->slabs++;
    pool->unused += INDEX_POOL_PAGES;
    return 0;
}

static void slab_free(struct index_slab *slab)
{
    munmap(slab->pages, INDEX_POOL_SLAB);
    free(slab);
}

static void slab_drop(struct index_pool *pool, struct index_slab *slab)
{
    unlink_slab(pool, slab);
    pool->slabs--;
    pool->unused -= INDEX_POOL_PAGES;
    slab_free(slab);
}

int index_pool_fill(struct index_pool *pool, size_t pages)
{
    while (pool->unused + pool->warm_count < pages)
        if (slab_add(pool) < 0)
            return -ENOMEM;
    return 0;
}

/* Whether one slab less would do. */
static bool has_spare(const struct index_pool *pool)
{
    return pool->unused >= pool->keep + INDEX_POOL_PAGES + WARM_MAX;
}

int index_pool_reserve(struct index_pool *pool, size_t pages)
{
    struct index_slab *next;

    pool->keep = pages;
    for (struct index_slab *slab = pool->first; slab && has_spare(pool); slab = next) {
        next = slab->next;
        if (slab->unused == INDEX_POOL_PAGES)
            slab_drop(pool, slab);
    }
    return index_pool_fill(pool, pages);
}

struct index_page *index_pool_take(struct index_pool *pool)
{
    struct index_page *page = pool->warm;
    struct index_slab *slab = pool->first;
    size_t word = 0;

    if (page) {
        pool->warm = page->next;
        pool->warm_count--;
        return page;
    }
    assert(slab && slab->unused);
    if (slab->unused == INDEX_POOL_PAGES && pool->slabs > HUGE_FROM)
        madvise(slab->pages, INDEX_POOL_SLAB, MADV_HUGEPAGE);
    while (!slab->bits[word])
        word++;
    size_t bit = (size_t)__builtin_ctzll(slab->bits[word]);
    slab->bits[word] &= slab->bits[word] - 1;
    pool->unused--;
    if (!--slab->unused) {
        unlink_slab(pool, slab);
        link_last(pool, slab);
    }
    void *at = slab->pages + (64 * word + bit) * INDEX_PAGE_SIZE;
    page = at;
    page->slab = slab;
    return page;
}

void index_pool_give(struct index_pool *pool, struct index_page *page)
{
    if (pool->warm_count < WARM_MAX) {
        page->next = pool->warm;
        pool->warm = page;
        pool->warm_count++;
        return;
    }
    struct index_slab *slab = page->slab;
    size_t i = (size_t)((uint8_t *)page - slab->pages) / INDEX_PAGE_SIZE;

    madvise(page, INDEX_PAGE_SIZE, MADV_DONTNEED);
    slab->bits[i / 64] |= 1ULL << i % 64;
    pool->unused++;
    if (!slab->unused++) {
        unlink_slab(pool, slab);
        link_first(pool, slab);
    }
    /* What is left of it is not worth a huge page, and the system must not make it one again. */
    if (slab->unused == INDEX_POOL_PAGES / 2)
        madvise(slab->pages, INDEX_POOL_SLAB, MADV_NOHUGEPAGE);
    if (slab->unused == INDEX_POOL_PAGES && has_spare(pool))
        slab_drop(pool, slab);
}

void index_pool_join(struct index_pool *pool, struct index_pool *from)
{
    while (from->first) {
        struct index_slab *slab = from->first;
        unlink_slab(from, slab);
        if (slab->unused)
            link_first(pool, slab);
        else
            link_last(pool, slab);
    }
    pool->slabs += from->slabs;
    pool->unused += from->unused;
    while (from->warm) {
        struct index_page *page = from->warm;
        from->warm = page->next;
        page->next = pool->warm;
        pool->warm = page;
    }
    pool->warm_count += from->warm_count;
    pool->keep += from->keep;
    *from = (struct index_pool){0};
}

void index_pool_free(struct index_pool *pool)
{
    while (pool->first) {
        struct index_slab *slab = pool->first;
        pool->first = slab->next;
        slab_free(slab);
    }
    *pool = (struct index_pool){0};
}

size_t index_pool_bytes(const struct index_pool *pool)
{
    return pool->slabs * sizeof(struct index_slab) + pool->warm_count * INDEX_PAGE_SIZE;
}
