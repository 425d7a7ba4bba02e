/* SPDX-License-Identifier: MIT */
/* What treerepair.c (which names, directories and counts are right) and treerepair_store.c (nodes,
 * passes over keys, and what is written) share. */
#ifndef TREEREPAIR_H
#define TREEREPAIR_H

#include "idlist.h"
#include "keys.h"
#include "volume.h"

/* An inode, and what names, extents and attributes say of it. */
struct treerepair_node {
    uint64_t ino;
    uint64_t content, size, bytes, parent;       /* as they are to be */
    uint64_t extent_bytes, extent_end, entries;  /* as found */
    uint32_t mode, nlink, flags, names, subdirs; /* nlink: as its record has it */
    uint32_t acls;                               /* flags of those that were found */
    bool created;                                /* there is no record */
    bool orphan, tail;                           /* has an orphan key of that kind */
    bool parent_named;                           /* a directory: a name in its parent leads to it */
    bool named;                                  /* a directory: that name was met */
    bool leads_up, changed;
};

struct treerepair_orphan {
    uint64_t id;
    enum keys_orphan kind;
};

struct treerepair {
    struct keg *keg;
    volume_repair_fn *told;
    void *arg;
    ssize_t count;   /* of what was told */
    uint64_t max_id; /* highest id in use */
    uint64_t next_id;
    uint8_t secret[KEYS_SECRET_SIZE];
    bool super_changed;
    struct timespec now;

    struct treerepair_node *nodes; /* in order of their numbers */
    size_t node_count, node_capacity;
    struct treerepair_orphan *orphans;
    size_t orphan_count, orphan_capacity;
    uint64_t lost_found; /* inode of lost+found; 0: not needed yet */

    struct keg_batch batch; /* what is to be changed, with the memory it refers to */
    void **memory;
    size_t memory_count, memory_capacity;
};

void treerepair_tell(struct treerepair *r, uint64_t ino, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The node holds until the next is added. NULL: there is none. */
struct treerepair_node *treerepair_find(const struct treerepair *r, uint64_t ino);
/* Behind all others, so its number has to be the highest. */
KEG_CHECKED int treerepair_add(struct treerepair *r, const struct treerepair_node *node);
bool treerepair_id_ok(uint64_t id);               /* such as a volume hands out */
uint64_t treerepair_new_id(struct treerepair *r); /* for a node that is added at once */
void treerepair_sort(struct treerepair *r);
bool treerepair_is_orphan(const struct treerepair *r, enum keys_orphan kind, uint64_t id);

/* Calls see for each key of a kind that can be parsed; others are removed. */
typedef int treerepair_see_fn(struct treerepair *r, const struct keys_parsed *key,
                              const struct keg_entry *entry, void *arg);
KEG_CHECKED int treerepair_pass(struct treerepair *r, enum keys_kind kind, treerepair_see_fn *see,
                                void *arg);

/* Changes are kept until they are committed, so that a pass does not meet them. All bytes are
 * copied. */
KEG_CHECKED int treerepair_put(struct treerepair *r, struct keg_bytes key, struct keg_bytes meta,
                               struct keg_bytes value);
KEG_CHECKED int treerepair_delete(struct treerepair *r, struct keg_bytes key);
KEG_CHECKED int treerepair_commit(struct treerepair *r);

/* Fill nodes, orphans and the superblock; write what has changed of them. */
KEG_CHECKED int treerepair_load(struct treerepair *r);
KEG_CHECKED int treerepair_store(struct treerepair *r);
void treerepair_free(struct treerepair *r);

/* treerepair_contents.c: extents and attributes, with the nodes in their final order. */
KEG_CHECKED int treerepair_contents(struct treerepair *r);
/* treerepair.c: gives the node a name in lost+found: WHAT-NUMBER. */
KEG_CHECKED int treerepair_attach(struct treerepair *r, uint64_t ino, const char *what);

#endif
