/* SPDX-License-Identifier: MIT */
/*
 * A page of the index: a sorted array of front-coded keys, each with a payload. Private to the
 * index. Nothing here allocates; index_page.c says how a page is laid out and searched.
 */
#ifndef INDEX_PAGE_H
#define INDEX_PAGE_H

#include "index_leaf.h"

enum {
    INDEX_PAGE_SIZE = 4096, /* bytes */
    INDEX_PAGE_SCRATCH = 2 * INDEX_PAGE_SIZE,
    INDEX_PAGE_BODY_MAX = 5 + KEG_KEY_MAX + INDEX_LEAF_MAX, /* bytes */
};

struct index_page {
    uint16_t size;  /* bytes of the page, this struct included */
    uint16_t count; /* entries */
    uint16_t top;   /* where the bodies begin; they end at size */
    uint16_t dead;  /* bytes from top on that belong to no entry any more */
    uint8_t level;  /* 0: a leaf */
    uint8_t run;    /* how many inserts in a row came each right behind the one before */
    uint16_t last;  /* where the last insert went */
    union {
        uint64_t base;            /* leaf: sequences are stored as distances from it */
        struct index_page *first; /* inner: the child below the first separator */
    };
    struct index_page *next; /* leaf: the next one in order; unused page: the next in the pool */
    struct index_slab *slab; /* that it is from (index_pool.c) */
    uint32_t heads[];
};

/* A page with room for what a full page and one more entry hold; on the stack. */
union index_scratch {
    struct index_page page;
    uint8_t room[INDEX_PAGE_SCRATCH];
};

/* A key to search for, which is compared eight bytes at a time. Of one that is too long to be there
 * it holds as much as makes it so, which sorts as the whole does. */
struct index_key {
    size_t len;
    uint8_t data[KEG_KEY_MAX + 1 + 8]; /* 8 more than len bytes have a value */
};
static inline void index_key_set(struct index_key *key, struct keg_bytes from)
{
    key->len = from.len <= KEG_KEY_MAX ? from.len : KEG_KEY_MAX + 1;
    if (key->len)
        memcpy(key->data, from.data, key->len);
    memset(key->data + key->len, 0, 8);
}

/* Where a key stands or would stand. */
struct index_spot {
    size_t pos;    /* of the first entry >= key */
    size_t before; /* bytes that the key has in common with the entry before pos, */
    size_t after;  /* and with the one at pos (if there is one) */
    bool exact;
};

/* Makes it an empty page; slab stays as it is. */
void index_page_init(struct index_page *page, uint16_t size, uint8_t level);
/* Copies a page of INDEX_PAGE_SIZE over this one; slab stays as it is. */
void index_page_assign(struct index_page *page, const union index_scratch *from);
/* A copy with room for one entry more. */
void index_page_widen(union index_scratch *wide, const struct index_page *page);
void index_page_find(const struct index_page *page, const struct index_key *key,
                     struct index_spot *spot);
size_t index_page_live(const struct index_page *page); /* bytes in use behind the struct */
size_t index_page_room(const struct index_page *page); /* bytes that can hold more */

/* The payload of entry pos. */
uint8_t *index_page_payload(struct index_page *page, size_t pos);

/* Bytes that entry pos has in common with the one before it. */
size_t index_page_shared(const struct index_page *page, size_t pos);

/* spot is what index_page_find said of key. False: no room, and nothing changed. */
bool index_page_insert(struct index_page *page, const struct index_key *key,
                       const struct index_spot *spot, struct keg_bytes payload);
bool index_page_replace(struct index_page *page, size_t pos, struct keg_bytes payload);
void index_page_remove(struct index_page *page, size_t pos); /* always fits */

/* Bytes that entries 0..pos take, and that pos would take more if it began a page. */
struct index_cost {
    uint32_t upto, extra;
};
/* Fills cost[count]. */
void index_page_costs(const struct index_page *page, struct index_cost *cost);

/* Walks the entries of a page and spells out their keys. At first it stands behind the entry before
 * pos, if there is one. */
struct index_reader {
    const struct index_page *page;
    size_t pos; /* of the entry that the next call gives; key and payload are of the one before */
    size_t key_len;
    const uint8_t *payload;
    uint8_t key[KEG_KEY_MAX];
};
void index_page_read(struct index_reader *reader, const struct index_page *page, size_t pos);
bool index_page_next(struct index_reader *reader); /* false: no more */

/* Fills an empty page with entries in ascending order. */
struct index_writer {
    struct index_page *page;
    size_t key_len;
    uint8_t key[KEG_KEY_MAX];
};
void index_page_write(struct index_writer *writer, struct index_page *page);
/* A leaf's payload is packed with the page's base. False: no room. */
bool index_page_append(struct index_writer *writer, struct keg_bytes key, struct keg_bytes payload);
/* Appends entries from..to-1 of source, repacked for the page's base. */
bool index_page_copy(struct index_writer *writer, const struct index_page *source, size_t from,
                     size_t to, bool keep_tombstones);

/* Whether the page is sound in itself. */
bool index_page_sound(const struct index_page *page);

#endif
