/* SPDX-License-Identifier: MIT */
/*
 * The model of a disk under env_fault.c: files with what the page cache shows and what the medium
 * holds, and a directory with what is visible and what is durable. No threads, no faults of its
 * own: the caller locks, and says what goes wrong.
 *
 * A file has two images of its bytes, `now` (the page cache) and `disk`. Each 512-byte piece knows
 * which of its bytes were written since they last reached the disk. A sync copies the dirty pieces.
 * A failed one copies some and takes all for clean, as Linux does: the cache goes on showing what
 * the disk does not have, and no later sync will write it.
 *
 * A name has two meanings likewise, the file it stands for and the file that it stands for on the
 * disk; sync_names makes them one. A failed one does so for some names, and the others' changes are
 * lost for ever, as a file's pieces are: only a later change of the name can be made durable.
 */
#ifndef FAULTDISK_H
#define FAULTDISK_H

#include "env.h"

struct faultdisk_node;
struct faultdisk_name;

struct faultdisk {
    struct faultdisk_node *nodes; /* all of them */
    struct faultdisk_name *names;
    uint64_t used, limit; /* bytes of the files that are visible or open; limit 0: none */
};

/* The next number of a repeatable sequence. */
uint64_t faultdisk_dice(uint64_t *state);

void faultdisk_clear(struct faultdisk *disk); /* no node is held */

/* A node is there as long as it has a name, on the disk or in sight, or is held. */
struct faultdisk_node *faultdisk_find(struct faultdisk *disk, const char *name); /* NULL: none */
void faultdisk_hold(struct faultdisk_node *node);
void faultdisk_release(struct faultdisk *disk, struct faultdisk_node *node);

/* -EEXIST, -ENOSPC, -ENOMEM. The node is not held. */
KEG_CHECKED int faultdisk_create(struct faultdisk *disk, const char *name,
                                 struct faultdisk_node **out);
KEG_CHECKED int faultdisk_remove(struct faultdisk *disk, const char *name); /* -ENOENT */
/* -ENOENT, -ENOMEM (nothing changed). durable: the disk has it, too, else only the cache. */
KEG_CHECKED int faultdisk_rename(struct faultdisk *disk, const char *from, const char *to,
                                 bool durable);
void faultdisk_sync_names(struct faultdisk *disk);
void faultdisk_sync_names_failed(struct faultdisk *disk, uint64_t *dice);
/* The i-th visible name, or NULL. */
const char *faultdisk_name_at(const struct faultdisk *disk, size_t i);

uint64_t faultdisk_size(const struct faultdisk_node *node);
/* -ENOSPC: what fits was written; -EFBIG, -ENOMEM: nothing. */
KEG_CHECKED int faultdisk_write(struct faultdisk *disk, struct faultdisk_node *node, uint64_t at,
                                const void *data, size_t len);
KEG_CHECKED int faultdisk_truncate(struct faultdisk *disk, struct faultdisk_node *node,
                                   uint64_t length); /* -EINVAL: longer than the file */
/* What the cache shows, or past it: dirty pieces as they are (they would be written back first),
 * the others as the disk has them. */
size_t faultdisk_read(const struct faultdisk_node *node, uint64_t offset, void *buf, size_t len,
                      bool uncached);
void faultdisk_sync(struct faultdisk_node *node);
void faultdisk_sync_failed(struct faultdisk_node *node, uint64_t *dice);

/* The power goes, and the machine comes back. Returns the bytes visible before that are gone or
 * different now. No node is held. */
uint64_t faultdisk_cut(struct faultdisk *disk, uint64_t *dice);

/* Damage, in the cache and on the disk alike. -EINVAL: outside the file. */
KEG_CHECKED int faultdisk_flip(struct faultdisk_node *node, uint64_t offset, uint8_t mask);

#endif
