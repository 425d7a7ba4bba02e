/* SPDX-License-Identifier: MIT */
/*
 * From inodes and contents back to names, for reports of many findings: one pass over all names and
 * inodes in place of one for each finding. 24 bytes of memory a name, 16 a file. A picture of one
 * moment; what was renamed since is not found.
 */
#ifndef PATHMAP_H
#define PATHMAP_H

#include "volume_internal.h"

struct pathmap;
KEG_CHECKED int pathmap_new(struct volume *volume, struct pathmap **out); /* -ENOMEM */
void pathmap_free(struct pathmap *map);                                   /* NULL is allowed */

/* Some name of the inode, in any directory, or in one if dir is not 0. 0, -ENOENT, -ENOMEM. */
KEG_CHECKED int pathmap_name(const struct pathmap *map, uint64_t dir, uint64_t ino,
                             struct keys_key *found);
/* The inode whose contents have this id. 0, -ENOENT. */
KEG_CHECKED int pathmap_content(const struct pathmap *map, uint64_t content, uint64_t *ino);

#endif
