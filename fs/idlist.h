/* SPDX-License-Identifier: MIT */
/* Growing arrays of structs that begin with a 64-bit id (an inode's number, a content's), which are
 * filled in one pass over the keys and then searched. Size is that of one struct. */
#ifndef IDLIST_H
#define IDLIST_H

#include <stddef.h>
#include <stdint.h>

/* Makes room for one more behind count. Returns the array, which may have moved, or NULL when there
 * is no memory; the old one is then as it was. The caller frees it. */
void *idlist_grow(void *list, size_t count, size_t *capacity, size_t size);
/* Into ascending order. NULL is allowed when count is 0. */
void idlist_sort(void *list, size_t count, size_t size);
/* One with this id of a sorted list, or NULL. */
void *idlist_find(const void *list, size_t count, size_t size, uint64_t id);

#endif
