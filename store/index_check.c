/* SPDX-License-Identifier: MIT */
/* Verifies the invariants that index.c states. */
#include "index_entry.h"
#include "index_tree.h"
#include <errno.h>
#include <string.h>

struct census {
    uint64_t keys, pages;
    const struct index_page *leaf; /* the next one that the chain says */
};

static int compare(struct keg_bytes a, struct keg_bytes b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Whether all keys are >= low and < high; a bound without data is none. */
static bool within(const struct index_page *page, struct keg_bytes low, struct keg_bytes high)
{
    struct index_reader reader;

    index_page_read(&reader, page, 0);
    while (index_page_next(&reader)) {
        struct keg_bytes key = {reader.key, reader.key_len};
        if ((low.data && compare(key, low) < 0) || (high.data && compare(key, high) >= 0))
            return false;
    }
    return true;
}

static bool sound(const struct index_page *page, struct keg_bytes low, struct keg_bytes high,
                  struct census *census);

static bool children_sound(const struct index_page *page, struct keg_bytes low,
                           struct keg_bytes high, struct census *census)
{
    struct index_reader reader;
    uint8_t before[KEG_KEY_MAX];

    index_page_read(&reader, page, 0);
    for (size_t i = 0; i <= page->count; i++) {
        const struct index_page *child = index_entry_child(page, i);
        struct keg_bytes end = high;
        if (index_page_next(&reader))
            end = (struct keg_bytes){reader.key, reader.key_len};
        if (child->level + 1 != page->level || (!child->level && !child->count && page->count) ||
            !sound(child, low, end, census))
            return false;
        if (i < page->count)
            memcpy(before, end.data, end.len);
        low = (struct keg_bytes){before, end.len};
    }
    return true;
}

static bool sound(const struct index_page *page, struct keg_bytes low, struct keg_bytes high,
                  struct census *census)
{
    if (page->size != INDEX_PAGE_SIZE || !index_page_sound(page) || !within(page, low, high))
        return false;
    census->pages++;
    if (page->level)
        return children_sound(page, low, high, census);
    if (census->leaf && census->leaf != page)
        return false;
    census->leaf = page->next;
    census->keys += page->count;
    return true;
}

int index_check(const struct index *index)
{
    struct keg_bytes none = {NULL, 0};
    struct census census = {0};

    if (!sound(index->root, none, none, &census) || census.leaf || census.keys != index->keys ||
        census.pages != index->pages)
        return -EBADMSG;
    return index->root->level && !index->root->count ? -EBADMSG : 0;
}
