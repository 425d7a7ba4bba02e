/* SPDX-License-Identifier: MIT */
/*
 * How an entry of a page is coded: its head and its body (index_page.c has the layout). Private to
 * the index; inline, as a search decodes some of them and a split hundreds.
 */
#ifndef INDEX_ENTRY_H
#define INDEX_ENTRY_H

#include "index_page.h"

enum {
    INDEX_ENTRY_CAP = 254,  /* a head says up to so many shared bytes exactly */
    INDEX_ENTRY_LONG = 255, /* a rest as long has its length in two more bytes */
    INDEX_ENTRY_HEAD = 4,   /* bytes of a head */
};

/* What a head and a body say. */
struct index_entry {
    size_t shared;
    const uint8_t *rest;
    size_t rest_len;
    const uint8_t *payload;
    size_t payload_len;
    size_t size; /* of the body */
};

/* Heads compare as signed numbers. shared is at most INDEX_ENTRY_CAP. */
static inline uint32_t index_entry_head_of(size_t shared, uint8_t first)
{
    return (uint32_t)(INDEX_ENTRY_CAP - 128 - (int)shared) << 24 | (uint32_t)first << 16;
}

static inline uint32_t index_entry_head(size_t shared, uint8_t first, size_t at)
{
    return index_entry_head_of(shared < INDEX_ENTRY_CAP ? shared : INDEX_ENTRY_CAP, first) |
           (uint32_t)at;
}

/* Where the body is. */
static inline size_t index_entry_at(uint32_t head)
{
    return head & 0xffff;
}

static inline uint32_t index_entry_moved(uint32_t head, size_t at)
{
    return (head & 0xffff0000U) | (uint32_t)at;
}

/* The first byte that is not shared. */
static inline uint8_t index_entry_first(uint32_t head)
{
    return (uint8_t)(head >> 16);
}

static inline size_t index_entry_get16(const uint8_t *p)
{
    return (size_t)p[0] | (size_t)p[1] << 8;
}

static inline uint8_t *index_entry_put16(uint8_t *p, size_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
    return p + 2;
}

static inline uint8_t *index_entry_bytes(struct index_page *page)
{
    return (uint8_t *)page;
}

static inline const uint8_t *index_entry_bytes_const(const struct index_page *page)
{
    return (const uint8_t *)page;
}

/* What a head says about the shared bytes. */
static inline size_t index_entry_shared(uint32_t head)
{
    return (size_t)(INDEX_ENTRY_CAP - 128 - ((int32_t)head >> 24));
}

/* What the body of an entry whose head says that it shares INDEX_ENTRY_CAP bytes or not has before
 * the payload. */
static inline const uint8_t *index_entry_body(const struct index_page *page, uint32_t head,
                                              bool capped, size_t *rest_len)
{
    const uint8_t *p = index_entry_bytes_const(page) + index_entry_at(head);

    *rest_len = *p++;
    if (__builtin_expect(*rest_len == INDEX_ENTRY_LONG, false)) {
        *rest_len = index_entry_get16(p);
        p += 2;
    }
    return capped ? p + 2 : p;
}

static inline const uint8_t *index_entry_rest(const struct index_page *page, uint32_t head,
                                              size_t *shared, size_t *rest_len)
{
    bool capped = index_entry_shared(head) == INDEX_ENTRY_CAP;
    const uint8_t *rest = index_entry_body(page, head, capped, rest_len);

    *shared = capped ? index_entry_get16(rest - 2) : index_entry_shared(head);
    return rest;
}

/* The payload of entry pos. */
static inline const uint8_t *index_entry_payload(const struct index_page *page, size_t pos)
{
    size_t shared, rest_len;
    const uint8_t *rest = index_entry_rest(page, page->heads[pos], &shared, &rest_len);
    return rest + rest_len;
}

/* Children of an inner page: 0..count. */
static inline struct index_page *index_entry_child(const struct index_page *page, size_t child)
{
    struct index_page *found = page->first;

    if (child)
        memcpy(&found, index_entry_payload(page, child - 1), sizeof found);
    return found;
}

static inline void index_entry_get(const struct index_page *page, size_t pos,
                                   struct index_entry *entry)
{
    uint32_t head = page->heads[pos];

    entry->rest = index_entry_rest(page, head, &entry->shared, &entry->rest_len);
    entry->payload = entry->rest + entry->rest_len;
    entry->payload_len = page->level ? sizeof(void *) : index_leaf_size(entry->payload);
    entry->size = (size_t)(entry->payload + entry->payload_len - index_entry_bytes_const(page)) -
                  index_entry_at(head);
}

/* Bytes of a body before the rest. */
static inline size_t index_entry_prefix(size_t shared, size_t rest_len)
{
    return (rest_len < INDEX_ENTRY_LONG ? 1U : 3U) + (shared < INDEX_ENTRY_CAP ? 0U : 2U);
}

/* Writes them. */
static inline uint8_t *index_entry_begin(uint8_t *out, size_t shared, size_t rest_len)
{
    if (rest_len < INDEX_ENTRY_LONG) {
        *out++ = (uint8_t)rest_len;
    } else {
        *out++ = INDEX_ENTRY_LONG;
        out = index_entry_put16(out, rest_len);
    }
    return shared < INDEX_ENTRY_CAP ? out : index_entry_put16(out, shared);
}

static inline uint8_t *index_entry_add(uint8_t *out, const void *data, size_t len)
{
    if (len)
        memcpy(out, data, len);
    return out + len;
}

static inline size_t index_entry_heads_end(const struct index_page *page)
{
    return sizeof *page + page->count * (size_t)INDEX_ENTRY_HEAD;
}

/* Bytes that two strings have in common at their front, of `len`. */
static inline size_t index_entry_common(const uint8_t *a, const uint8_t *b, size_t len)
{
    size_t i = 0;

    while (i < len && a[i] == b[i])
        i++;
    return i;
}

#endif
