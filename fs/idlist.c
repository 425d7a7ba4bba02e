/* SPDX-License-Identifier: MIT */
#include "idlist.h"
#include <stdlib.h>
#include <string.h>

void *idlist_grow(void *list, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return list;
    size_t more = *capacity ? *capacity * 2 : 256;
    void *grown = more <= SIZE_MAX / size ? realloc(list, more * size) : NULL;
    if (grown)
        *capacity = more;
    return grown;
}

static int compare(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

void idlist_sort(void *list, size_t count, size_t size)
{
    if (count)
        qsort(list, count, size, compare);
}

void *idlist_find(const void *list, size_t count, size_t size, uint64_t id)
{
    return count ? bsearch(&id, list, count, size, compare) : NULL;
}
