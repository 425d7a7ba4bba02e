/* SPDX-License-Identifier: MIT */
/*
 * A page: heads grow from the front, bodies from the end.
 *
 *   struct | head | head | ...          free          ... body | body | body
 *
 * Keys are front-coded: an entry stores how many bytes its key shares with the key before it, and
 * the rest. A head is 32 bits:
 *
 *   254 - min(shared, 254)  |  first byte that is not shared  |  where the body is (16 bits)
 *
 * and a body is
 *
 *   rest length (1 byte, or 255 and 2 bytes) | shared (2 bytes, only if >= 254) | rest | payload
 *
 * where the rest is what follows the first byte that is not shared. Keys ascend and differ, so that
 * byte is always there.
 *
 * Search. Let the entry before have m bytes in common with the sought key and be smaller than it.
 * An entry that shares more than m with its predecessor is smaller, too, and still has m in common;
 * one that shares fewer is greater; of those that share exactly m the first byte decides, and if it
 * is the key's, the rest does (and m grows). The first two of these tests are one comparison of the
 * upper half of the head with a fixed value: everything below it is skipped. So a search runs over
 * an array of four bytes an entry and looks at two or three bodies, however long the keys are; no
 * key is ever spelled out. From m = 254 on heads do not tell, and the lengths in the bodies do.
 *
 * Room. Between two keys a new one can only raise what the second shares with its predecessor, so
 * an insert takes what the new entry itself takes (two bytes more when the second one's shared
 * length gets its own field), and to remove an entry never takes more than it gives.
 *
 * Rejected: a prefix common to the whole page (one stray key would make all others grow, and a page
 * at the border of two directories has none), and restart points (they cost their full keys and
 * save nothing over a scan of the heads).
 */
#include "index_page.h"
#include <assert.h>
#include <string.h>

enum {
    SHARED_CAP = 254,
    REST_CAP = 255,
    HEAD_SIZE = 4,
};

/* What an entry's head and body say. */
struct entry {
    size_t shared;
    const uint8_t *rest;
    size_t rest_len;
    const uint8_t *payload;
    size_t payload_len;
    size_t size; /* of the body */
    uint8_t first;
};

static uint32_t head_of(size_t shared, uint8_t first, size_t at)
{
    size_t capped = shared < SHARED_CAP ? shared : SHARED_CAP;
    return (uint32_t)(SHARED_CAP - capped) << 24 | (uint32_t)first << 16 | (uint32_t)at;
}

static size_t head_at(uint32_t head)
{
    return head & 0xffff;
}

static bool head_is_capped(uint32_t head)
{
    return head < 1U << 24;
}

static uint8_t *bytes(struct index_page *page)
{
    return (uint8_t *)page;
}

static const uint8_t *bytes_const(const struct index_page *page)
{
    return (const uint8_t *)page;
}

static size_t get16(const uint8_t *p)
{
    return (size_t)p[0] | (size_t)p[1] << 8;
}

static uint8_t *put16(uint8_t *p, size_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
    return p + 2;
}

/* The part of a body that the search needs. */
static const uint8_t *rest_of(const struct index_page *page, uint32_t head, size_t *shared,
                              size_t *rest_len)
{
    const uint8_t *p = bytes_const(page) + head_at(head);

    *rest_len = *p++;
    if (*rest_len == REST_CAP) {
        *rest_len = get16(p);
        p += 2;
    }
    *shared = SHARED_CAP - (head >> 24);
    if (head_is_capped(head)) {
        *shared = get16(p);
        p += 2;
    }
    return p;
}

static void entry_get(const struct index_page *page, size_t pos, struct entry *entry)
{
    uint32_t head = page->heads[pos];

    entry->first = (uint8_t)(head >> 16);
    entry->rest = rest_of(page, head, &entry->shared, &entry->rest_len);
    entry->payload = entry->rest + entry->rest_len;
    entry->payload_len = page->level ? sizeof(void *) : index_leaf_size(entry->payload);
    entry->size = (size_t)(entry->payload + entry->payload_len - bytes_const(page)) - head_at(head);
}

/* Bytes of a body without the payload. */
static size_t body_size(size_t shared, size_t rest_len)
{
    return (rest_len < REST_CAP ? 1U : 3U) + (shared < SHARED_CAP ? 0U : 2U) + rest_len;
}

/* Writes all of a body before the rest. */
static uint8_t *body_begin(uint8_t *out, size_t shared, size_t rest_len)
{
    if (rest_len < REST_CAP) {
        *out++ = (uint8_t)rest_len;
    } else {
        *out++ = REST_CAP;
        out = put16(out, rest_len);
    }
    return shared < SHARED_CAP ? out : put16(out, shared);
}

static uint8_t *add(uint8_t *out, const void *data, size_t len)
{
    if (len)
        memcpy(out, data, len);
    return out + len;
}

static size_t heads_end(const struct index_page *page)
{
    return sizeof *page + page->count * (size_t)HEAD_SIZE;
}

void index_page_init(struct index_page *page, uint16_t size, uint8_t level)
{
    page->size = page->top = size;
    page->count = page->dead = page->last = 0;
    page->level = level;
    page->run = 0;
    page->base = 0;
    page->next = NULL;
}

void index_page_assign(struct index_page *page, const union index_scratch *from)
{
    struct index_slab *slab = page->slab;

    memcpy(page, from->room, INDEX_PAGE_SIZE);
    page->slab = slab;
}

size_t index_page_live(const struct index_page *page)
{
    return page->count * (size_t)HEAD_SIZE + page->size - page->top - page->dead;
}

size_t index_page_room(const struct index_page *page)
{
    return page->size - sizeof *page - index_page_live(page);
}

/* Moves the bodies together at the end. A head that says 0 has no body. */
static void compact(struct index_page *page)
{
    union index_scratch copy;
    size_t top = page->size;

    memcpy(copy.room, page, page->size);
    for (size_t i = 0; i < page->count; i++) {
        struct entry entry;
        size_t at = head_at(copy.page.heads[i]);
        if (!at)
            continue;
        entry_get(&copy.page, i, &entry);
        top -= entry.size;
        memcpy(bytes(page) + top, copy.room + at, entry.size);
        page->heads[i] = (page->heads[i] & 0xffff0000U) | (uint32_t)top;
    }
    page->top = (uint16_t)top;
    page->dead = 0;
}

void index_page_widen(union index_scratch *wide, const struct index_page *page)
{
    size_t shift = INDEX_PAGE_SCRATCH - page->size;

    memcpy(wide->room, page, heads_end(page));
    memcpy(wide->room + page->top + shift, bytes_const(page) + page->top,
           (size_t)(page->size - page->top));
    wide->page.size = INDEX_PAGE_SCRATCH;
    wide->page.top = (uint16_t)(page->top + shift);
    for (size_t i = 0; i < page->count; i++)
        wide->page.heads[i] += (uint32_t)shift; /* a place, in the lower half */
}

/* Room for a body and, if asked for, a head; the caller knows that the page has it. */
static size_t take(struct index_page *page, size_t len, size_t head)
{
    if (page->top - heads_end(page) < len + head)
        compact(page);
    assert(page->top - heads_end(page) >= len + head);
    page->top = (uint16_t)(page->top - len);
    return page->top;
}

/* Gives entry pos another body, in the old one's place if that is long enough. */
static void set_body(struct index_page *page, size_t pos, uint32_t head, const uint8_t *body,
                     size_t len)
{
    struct entry old;
    size_t at = head_at(page->heads[pos]);

    entry_get(page, pos, &old);
    page->dead = (uint16_t)(page->dead + old.size);
    if (len <= old.size) {
        page->dead = (uint16_t)(page->dead - len);
    } else {
        page->heads[pos] = 0;
        at = take(page, len, 0);
    }
    memcpy(bytes(page) + at, body, len);
    page->heads[pos] = (head & 0xffff0000U) | (uint32_t)at;
}

/* The first entry from pos on whose head is not below limit. */
static size_t skip(const uint32_t *heads, size_t pos, size_t count, uint32_t limit)
{
    typedef uint32_t four __attribute__((vector_size(16)));

    for (; pos + 8 <= count; pos += 8) {
        four a, b;
        memcpy(&a, heads + pos, sizeof a);
        memcpy(&b, heads + pos + 4, sizeof b);
        four hit = (four)(a >= limit) | (four)(b >= limit);
        uint64_t half[2];
        memcpy(half, &hit, sizeof half);
        if (half[0] | half[1])
            break;
    }
    while (pos < count && heads[pos] < limit)
        pos++;
    return pos;
}

/* The same where heads do not tell: more than SHARED_CAP bytes in common. */
static size_t skip_long(const struct index_page *page, size_t pos, size_t common, uint8_t byte)
{
    for (; pos < page->count; pos++) {
        uint32_t head = page->heads[pos];
        size_t shared, rest_len;
        rest_of(page, head, &shared, &rest_len);
        if (shared < common || (shared == common && (uint8_t)(head >> 16) >= byte))
            break;
    }
    return pos;
}

static size_t common_len(const uint8_t *a, const uint8_t *b, size_t len)
{
    size_t i = 0;
    while (i < len && a[i] == b[i])
        i++;
    return i;
}

void index_page_find(const struct index_page *page, struct keg_bytes key, struct index_spot *spot)
{
    const uint8_t *data = key.data;
    size_t pos = 0, common = 0;

    *spot = (struct index_spot){0};
    while (common < key.len) {
        uint8_t byte = data[common];
        size_t shared, rest_len;

        if (common < SHARED_CAP)
            pos = skip(page->heads, pos, page->count, head_of(common, byte, 0));
        else
            pos = skip_long(page, pos, common, byte);
        spot->pos = pos;
        spot->before = common;
        if (pos == page->count)
            return;
        uint32_t head = page->heads[pos];
        const uint8_t *rest = rest_of(page, head, &shared, &rest_len);
        spot->after = shared;
        if (shared < common || (uint8_t)(head >> 16) != byte)
            return;

        size_t left = key.len - common - 1;
        size_t same = common_len(rest, data + common + 1, left < rest_len ? left : rest_len);
        spot->after = common + 1 + same;
        if (same == left) {
            spot->exact = same == rest_len;
            return;
        }
        if (same < rest_len && rest[same] > data[spot->after])
            return;
        common = spot->after;
        pos++;
    }
}

uint8_t *index_page_payload(struct index_page *page, size_t pos)
{
    return bytes(page) + (index_page_payload_const(page, pos) - bytes_const(page));
}

const uint8_t *index_page_payload_const(const struct index_page *page, size_t pos)
{
    size_t shared, rest_len;
    const uint8_t *rest = rest_of(page, page->heads[pos], &shared, &rest_len);
    return rest + rest_len;
}

/* Makes entry pos share `shared` bytes with what will stand before it: fewer, and the missing ones
 * are given, or more. */
static void rekey(struct index_page *page, size_t pos, size_t shared, const uint8_t *missing)
{
    uint8_t body[INDEX_PAGE_BODY_MAX], *p;
    struct entry old;
    uint8_t first;
    size_t len;

    entry_get(page, pos, &old);
    if (shared < old.shared) {
        size_t more = old.shared - shared;
        first = missing[0];
        p = body_begin(body, shared, old.rest_len + more);
        p = add(p, missing + 1, more - 1);
        *p++ = old.first;
        p = add(p, old.rest, old.rest_len);
    } else {
        size_t less = shared - old.shared;
        first = less ? old.rest[less - 1] : old.first;
        p = body_begin(body, shared, old.rest_len - less);
        p = add(p, old.rest + less, old.rest_len - less);
    }
    p = add(p, old.payload, old.payload_len);
    len = (size_t)(p - body);
    set_body(page, pos, head_of(shared, first, 0), body, len);
}

/* Which way the inserts go: a run of ascending keys is split at its end (index.c). */
static void note_insert(struct index_page *page, size_t pos)
{
    bool next = page->count && pos == page->last + 1U;
    page->run = next ? (uint8_t)(page->run + (page->run < UINT8_MAX)) : 0;
    page->last = (uint16_t)pos;
}

bool index_page_insert(struct index_page *page, struct keg_bytes key, const struct index_spot *spot,
                       struct keg_bytes payload)
{
    const uint8_t *data = key.data;
    size_t shared = spot->before, rest_len = key.len - shared - 1, pos = spot->pos;
    size_t len = body_size(shared, rest_len) + payload.len;

    if (index_page_room(page) < HEAD_SIZE + len + 2)
        return false;
    note_insert(page, pos);
    if (pos < page->count) {
        struct entry next;
        entry_get(page, pos, &next);
        if (next.shared != spot->after)
            rekey(page, pos, spot->after, NULL);
    }
    size_t at = take(page, len, HEAD_SIZE);
    uint8_t *p = body_begin(bytes(page) + at, shared, rest_len);
    p = add(p, data + shared + 1, rest_len);
    add(p, payload.data, payload.len);
    memmove(page->heads + pos + 1, page->heads + pos, (page->count - pos) * (size_t)HEAD_SIZE);
    page->heads[pos] = head_of(shared, data[shared], at);
    page->count++;
    return true;
}

bool index_page_replace(struct index_page *page, size_t pos, struct keg_bytes payload)
{
    uint8_t body[INDEX_PAGE_BODY_MAX], *p;
    struct entry old;

    entry_get(page, pos, &old);
    if (payload.len == old.payload_len) {
        memcpy(index_page_payload(page, pos), payload.data, payload.len);
        return true;
    }
    if (payload.len > old.payload_len + index_page_room(page))
        return false;
    p = body_begin(body, old.shared, old.rest_len);
    p = add(p, old.rest, old.rest_len);
    p = add(p, payload.data, payload.len);
    set_body(page, pos, page->heads[pos], body, (size_t)(p - body));
    return true;
}

void index_page_remove(struct index_page *page, size_t pos)
{
    uint8_t missing[KEG_KEY_MAX];
    struct entry entry, next;
    size_t shared = 0;
    bool grows = false;

    entry_get(page, pos, &entry);
    if (pos + 1U < page->count) {
        entry_get(page, pos + 1, &next);
        grows = next.shared > entry.shared;
        shared = entry.shared;
        missing[0] = entry.first;
        if (grows)
            add(missing + 1, entry.rest, next.shared - shared - 1);
    }
    page->dead = (uint16_t)(page->dead + entry.size);
    page->count--;
    memmove(page->heads + pos, page->heads + pos + 1, (page->count - pos) * (size_t)HEAD_SIZE);
    if (grows)
        rekey(page, pos, shared, missing);
    page->run = 0;
}

void index_page_costs(const struct index_page *page, struct index_cost *cost)
{
    size_t sum = 0;

    for (size_t i = 0; i < page->count; i++) {
        struct entry entry;
        entry_get(page, i, &entry);
        sum += HEAD_SIZE + entry.size;
        cost[i].upto = sum;
        cost[i].extra =
            body_size(0, entry.rest_len + entry.shared) + entry.payload_len - entry.size;
    }
}

struct index_page *index_page_child(const struct index_page *page, size_t child)
{
    struct index_page *found = page->first;

    if (child)
        memcpy(&found, index_page_payload_const(page, child - 1), sizeof(struct index_page *));
    return found;
}

void index_page_read(struct index_reader *reader, const struct index_page *page, size_t pos)
{
    reader->page = page;
    reader->pos = 0;
    reader->key_len = 0;
    reader->payload = NULL;
    while (reader->pos < pos && index_page_next(reader))
        ;
}

bool index_page_next(struct index_reader *reader)
{
    uint32_t head;
    size_t shared, rest_len;

    if (reader->pos >= reader->page->count)
        return false;
    head = reader->page->heads[reader->pos++];
    const uint8_t *rest = rest_of(reader->page, head, &shared, &rest_len);
    reader->key[shared] = (uint8_t)(head >> 16);
    add(reader->key + shared + 1, rest, rest_len);
    reader->key_len = shared + 1 + rest_len;
    reader->payload = rest + rest_len;
    return true;
}

void index_page_write(struct index_writer *writer, struct index_page *page)
{
    writer->page = page;
    writer->key_len = 0;
}

bool index_page_append(struct index_writer *writer, struct keg_bytes key, struct keg_bytes payload)
{
    struct index_page *page = writer->page;
    const uint8_t *data = key.data;
    size_t least = key.len < writer->key_len ? key.len : writer->key_len;
    size_t shared = common_len(writer->key, data, least);
    size_t rest_len = key.len - shared - 1;
    size_t len = body_size(shared, rest_len) + payload.len;

    assert(shared < key.len);
    if (page->top - heads_end(page) < len + HEAD_SIZE)
        return false;
    page->top = (uint16_t)(page->top - len);
    uint8_t *p = body_begin(bytes(page) + page->top, shared, rest_len);
    p = add(p, data + shared + 1, rest_len);
    add(p, payload.data, payload.len);
    page->heads[page->count++] = head_of(shared, data[shared], page->top);
    add(writer->key + shared, data + shared, key.len - shared);
    writer->key_len = key.len;
    return true;
}

bool index_page_copy(struct index_writer *writer, const struct index_page *source, size_t from,
                     size_t to, bool keep_tombstones)
{
    uint8_t packed[INDEX_LEAF_MAX];
    struct index_reader reader;

    index_page_read(&reader, source, from);
    while (reader.pos < to && index_page_next(&reader)) {
        struct keg_bytes payload = {reader.payload, sizeof(struct index_page *)};
        if (!source->level) {
            struct index_place place;
            struct keg_bytes meta;
            if (!keep_tombstones && index_leaf_is_tombstone(reader.payload))
                continue;
            index_leaf_unpack(reader.payload, source->base, &place, &meta);
            payload.data = packed;
            payload.len = index_leaf_pack(packed, writer->page->base, &place, meta);
        }
        if (!index_page_append(writer, (struct keg_bytes){reader.key, reader.key_len}, payload))
            return false;
    }
    return true;
}

bool index_page_sound(const struct index_page *page)
{
    struct index_reader reader;
    uint8_t before[KEG_KEY_MAX];
    size_t before_len = 0, sum = 0;

    if (heads_end(page) > page->top || page->top > page->size)
        return false;
    index_page_read(&reader, page, 0);
    for (size_t i = 0; i < page->count; i++) {
        struct entry entry;
        entry_get(page, i, &entry);
        sum += entry.size;
        if (head_at(page->heads[i]) < page->top ||
            head_at(page->heads[i]) + entry.size > page->size)
            return false;
        if (entry.shared > before_len || !index_page_next(&reader) || reader.key_len > KEG_KEY_MAX)
            return false;
        /* Front coding is exact, and keys ascend. */
        if (memcmp(before, reader.key, entry.shared) != 0)
            return false;
        if (entry.shared < before_len && before[entry.shared] >= entry.first)
            return false;
        memcpy(before, reader.key, reader.key_len);
        before_len = reader.key_len;
    }
    return sum + page->dead == (size_t)(page->size - page->top);
}
