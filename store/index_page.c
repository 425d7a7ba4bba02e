/* SPDX-License-Identifier: MIT */
/*
 * A page: heads grow from the front, bodies from the end.
 *
 *   struct | head | head | ...          free          ... body | body | body
 *
 * Keys are front-coded: an entry stores how many bytes its key shares with the key before it, and
 * the rest. A head is 32 bits:
 *
 *   126 - min(shared, 254)  |  first byte that is not shared  |  where the body is (16 bits)
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
 * upper half of the head with a fixed value: everything below it is skipped, sixteen heads at a
 * time on x86-64. So a search runs over an array of four bytes an entry and looks at two or three
 * bodies, however long the keys are; no key is ever spelled out. From m = 254 on heads do not tell,
 * and the lengths in the bodies do.
 *
 * Room. Between two keys a new one can only raise what the second shares with its predecessor, so
 * an insert takes what the new entry itself takes (two bytes more when the second one's shared
 * length gets its own field), and to remove an entry never takes more than it gives.
 *
 * Rejected: a prefix common to the whole page (one stray key would make all others grow, and a page
 * at the border of two directories has none), and restart points (they cost their full keys and
 * save nothing over a scan of the heads).
 */
#include "index_entry.h"
#include <assert.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

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
    return page->count * (size_t)INDEX_ENTRY_HEAD + page->size - page->top - page->dead;
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
        struct index_entry entry;
        size_t at = index_entry_at(page->heads[i]);
        if (!at)
            continue;
        index_entry_get(&copy.page, i, &entry);
        top -= entry.size;
        memcpy(index_entry_bytes(page) + top, copy.room + at, entry.size);
        page->heads[i] = index_entry_moved(page->heads[i], top);
    }
    page->top = (uint16_t)top;
    page->dead = 0;
}

void index_page_widen(union index_scratch *wide, const struct index_page *page)
{
    size_t shift = INDEX_PAGE_SCRATCH - page->size;

    memcpy(wide->room, page, index_entry_heads_end(page));
    memcpy(wide->room + page->top + shift, index_entry_bytes_const(page) + page->top,
           (size_t)(page->size - page->top));
    wide->page.size = INDEX_PAGE_SCRATCH;
    wide->page.top = (uint16_t)(page->top + shift);
    for (size_t i = 0; i < page->count; i++)
        wide->page.heads[i] += (uint32_t)shift; /* a place, in the lower half */
}

/* Room for a body and, if asked for, a head; the caller knows that the page has it. */
static size_t take(struct index_page *page, size_t len, size_t head)
{
    if (page->top - index_entry_heads_end(page) < len + head)
        compact(page);
    assert(page->top - index_entry_heads_end(page) >= len + head);
    page->top = (uint16_t)(page->top - len);
    return page->top;
}

/* Gives entry pos another body, in the old one's place if that is long enough. */
static void set_body(struct index_page *page, size_t pos, uint32_t head, const uint8_t *body,
                     size_t len)
{
    struct index_entry old;
    size_t at = index_entry_at(page->heads[pos]);

    index_entry_get(page, pos, &old);
    page->dead = (uint16_t)(page->dead + old.size);
    if (len <= old.size) {
        page->dead = (uint16_t)(page->dead - len);
    } else {
        page->heads[pos] = 0;
        at = take(page, len, 0);
    }
    memcpy(index_entry_bytes(page) + at, body, len);
    page->heads[pos] = index_entry_moved(head, at);
}

#ifdef __SSE2__
enum { LANES = 16 };

/* Which of so many heads are not below the limit that `below` precedes; bit 0 is the first. The
 * page may end with fewer: what is read behind them is of the page as well, as the bodies of seven
 * entries fill that room. */
static unsigned not_below(const uint32_t *heads, __m128i below)
{
    const __m128i *at = (const __m128i *)heads;
    __m128i a = _mm_cmpgt_epi32(_mm_loadu_si128(at), below);
    __m128i b = _mm_cmpgt_epi32(_mm_loadu_si128(at + 1), below);
    __m128i c = _mm_cmpgt_epi32(_mm_loadu_si128(at + 2), below);
    __m128i d = _mm_cmpgt_epi32(_mm_loadu_si128(at + 3), below);

    return (unsigned)_mm_movemask_epi8(
        _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)));
}

/* The first entry from pos on whose head is not below limit. */
static size_t skip(const struct index_page *page, size_t pos, uint32_t limit)
{
    const __m128i below = _mm_set1_epi32((int32_t)(limit - 1));
    size_t count = page->count;
    unsigned hits;

    for (; pos + LANES <= count; pos += LANES) {
        hits = not_below(page->heads + pos, below);
        if (hits)
            return pos + (unsigned)__builtin_ctz(hits);
    }
    hits = not_below(page->heads + pos, below) | 1U << (count - pos);
    return pos + (unsigned)__builtin_ctz(hits);
}
#else
static size_t skip(const struct index_page *page, size_t pos, uint32_t limit)
{
    while (pos < page->count && (int32_t)page->heads[pos] < (int32_t)limit)
        pos++;
    return pos;
}
#endif

/* The same where heads do not tell: more than INDEX_ENTRY_CAP bytes in common. */
static size_t skip_long(const struct index_page *page, size_t pos, size_t common, uint8_t byte)
{
    for (; pos < page->count; pos++) {
        uint32_t head = page->heads[pos];
        size_t shared, rest_len;
        index_entry_rest(page, head, &shared, &rest_len);
        if (shared < common || (shared == common && index_entry_first(head) >= byte))
            break;
    }
    return pos;
}

size_t index_page_shared(const struct index_page *page, size_t pos)
{
    size_t shared, rest_len;
    index_entry_rest(page, page->heads[pos], &shared, &rest_len);
    return shared;
}

_Static_assert(sizeof(struct index_page *) == 8,
               "a payload is at least as long as what is compared");

/* Bytes of a rest that the key has from `from` on, up to len. Eight at a time: behind a rest there
 * is a payload of at least as many. */
static size_t common_len(const uint8_t *rest, const struct index_key *key, size_t from, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t there, sought;
        memcpy(&there, rest + i, sizeof there);
        memcpy(&sought, key->data + from + i, sizeof sought);
        if (there != sought) {
            i += (unsigned)__builtin_ctzll(le64toh(there ^ sought)) / 8;
            return i < len ? i : len;
        }
    }
    return len;
}

void index_page_find(const struct index_page *page, const struct index_key *key,
                     struct index_spot *spot)
{
    size_t pos = 0, common = 0;

    *spot = (struct index_spot){0};
    while (common < key->len) {
        uint8_t byte = key->data[common];
        bool capped = __builtin_expect(common >= INDEX_ENTRY_CAP, false);
        uint32_t sought = index_entry_head_of(capped ? INDEX_ENTRY_CAP : common, byte);
        size_t rest_len, left = key->len - common - 1;

        pos = capped ? skip_long(page, pos, common, byte) : skip(page, pos, sought);
        spot->pos = pos;
        spot->before = common;
        if (pos == page->count)
            return;
        uint32_t head = page->heads[pos];
        if ((head ^ sought) >> 16 || (capped && index_page_shared(page, pos) != common)) {
            spot->after = index_page_shared(page, pos);
            return;
        }
        const uint8_t *rest = index_entry_body(page, head, capped, &rest_len);
        size_t same = common_len(rest, key, common + 1, left < rest_len ? left : rest_len);
        spot->after = common + 1 + same;
        if (same == left) {
            spot->exact = same == rest_len;
            return;
        }
        if (same < rest_len && rest[same] > key->data[spot->after])
            return;
        common = spot->after;
        pos++;
    }
}

uint8_t *index_page_payload(struct index_page *page, size_t pos)
{
    return index_entry_bytes(page) +
           (index_entry_payload(page, pos) - index_entry_bytes_const(page));
}

/* Makes entry pos share `shared` bytes with what will stand before it: fewer, and the missing ones
 * are given, or more. */
static void rekey(struct index_page *page, size_t pos, size_t shared, const uint8_t *missing)
{
    uint8_t body[INDEX_PAGE_BODY_MAX], *p;
    struct index_entry old;
    uint8_t first = index_entry_first(page->heads[pos]);

    index_entry_get(page, pos, &old);
    if (shared < old.shared) {
        size_t more = old.shared - shared;
        p = index_entry_begin(body, shared, old.rest_len + more);
        p = index_entry_add(p, missing + 1, more - 1);
        *p++ = first;
        first = missing[0];
        p = index_entry_add(p, old.rest, old.rest_len);
    } else {
        size_t less = shared - old.shared;
        first = less ? old.rest[less - 1] : first;
        p = index_entry_begin(body, shared, old.rest_len - less);
        p = index_entry_add(p, old.rest + less, old.rest_len - less);
    }
    p = index_entry_add(p, old.payload, old.payload_len);
    set_body(page, pos, index_entry_head(shared, first, 0), body, (size_t)(p - body));
}

/* Makes entry pos share more with what will stand before it: what it no longer spells out is cut
 * from its body's front. */
static void share_more(struct index_page *page, size_t pos, size_t shared)
{
    size_t old_shared, rest_len;
    uint32_t head = page->heads[pos];
    const uint8_t *rest = index_entry_rest(page, head, &old_shared, &rest_len);
    size_t less = shared - old_shared;

    if (!less)
        return;
    size_t prefix = index_entry_prefix(shared, rest_len - less);
    size_t at = (size_t)(rest - index_entry_bytes_const(page)) + less - prefix;
    if (at < index_entry_at(head)) { /* the shared length gets its own field */
        rekey(page, pos, shared, NULL);
        return;
    }
    page->heads[pos] = index_entry_head(shared, rest[less - 1], at);
    page->dead = (uint16_t)(page->dead + at - index_entry_at(head));
    index_entry_begin(index_entry_bytes(page) + at, shared, rest_len - less);
}

/* Which way the inserts go: a run of ascending keys is split at its end (index.c). */
static void note_insert(struct index_page *page, size_t pos)
{
    bool next = page->count && pos == page->last + 1U;
    page->run = next ? (uint8_t)(page->run + (page->run < UINT8_MAX)) : 0;
    page->last = (uint16_t)pos;
}

bool index_page_insert(struct index_page *page, const struct index_key *key,
                       const struct index_spot *spot, struct keg_bytes payload)
{
    const uint8_t *data = key->data;
    size_t shared = spot->before, rest_len = key->len - shared - 1, pos = spot->pos;
    size_t len = index_entry_prefix(shared, rest_len) + rest_len + payload.len;

    if (index_page_room(page) < INDEX_ENTRY_HEAD + len + 2)
        return false;
    note_insert(page, pos);
    if (pos < page->count)
        share_more(page, pos, spot->after);
    size_t at = take(page, len, INDEX_ENTRY_HEAD);
    uint8_t *p = index_entry_begin(index_entry_bytes(page) + at, shared, rest_len);
    p = index_entry_add(p, data + shared + 1, rest_len);
    index_entry_add(p, payload.data, payload.len);
    memmove(page->heads + pos + 1, page->heads + pos,
            (page->count - pos) * (size_t)INDEX_ENTRY_HEAD);
    page->heads[pos] = index_entry_head(shared, data[shared], at);
    page->count++;
    return true;
}

bool index_page_replace(struct index_page *page, size_t pos, struct keg_bytes payload)
{
    uint8_t body[INDEX_PAGE_BODY_MAX], *p;
    struct index_entry old;

    index_entry_get(page, pos, &old);
    if (payload.len == old.payload_len) {
        memcpy(index_page_payload(page, pos), payload.data, payload.len);
        return true;
    }
    if (payload.len > old.payload_len + index_page_room(page))
        return false;
    p = index_entry_begin(body, old.shared, old.rest_len);
    p = index_entry_add(p, old.rest, old.rest_len);
    p = index_entry_add(p, payload.data, payload.len);
    set_body(page, pos, page->heads[pos], body, (size_t)(p - body));
    return true;
}

void index_page_remove(struct index_page *page, size_t pos)
{
    uint8_t missing[KEG_KEY_MAX];
    struct index_entry entry, next;
    size_t shared = 0;
    bool grows = false;

    index_entry_get(page, pos, &entry);
    if (pos + 1U < page->count) {
        index_entry_get(page, pos + 1, &next);
        grows = next.shared > entry.shared;
        shared = entry.shared;
        missing[0] = index_entry_first(page->heads[pos]);
        if (grows)
            index_entry_add(missing + 1, entry.rest, next.shared - shared - 1);
    }
    page->dead = (uint16_t)(page->dead + entry.size);
    page->count--;
    memmove(page->heads + pos, page->heads + pos + 1,
            (page->count - pos) * (size_t)INDEX_ENTRY_HEAD);
    if (grows)
        rekey(page, pos, shared, missing);
    page->run = 0;
}

bool index_page_sound(const struct index_page *page)
{
    struct index_reader reader;
    uint8_t before[KEG_KEY_MAX];
    size_t before_len = 0, sum = 0;

    if (index_entry_heads_end(page) > page->top || page->top > page->size)
        return false;
    index_page_read(&reader, page, 0);
    for (size_t i = 0; i < page->count; i++) {
        struct index_entry entry;
        index_entry_get(page, i, &entry);
        sum += entry.size;
        if (index_entry_at(page->heads[i]) < page->top ||
            index_entry_at(page->heads[i]) + entry.size > page->size)
            return false;
        if (entry.shared > before_len || !index_page_next(&reader) || reader.key_len > KEG_KEY_MAX)
            return false;
        /* Front coding is exact, and keys ascend. */
        if (memcmp(before, reader.key, entry.shared) != 0)
            return false;
        if (entry.shared < before_len && before[entry.shared] >= index_entry_first(page->heads[i]))
            return false;
        memcpy(before, reader.key, reader.key_len);
        before_len = reader.key_len;
    }
    return sum + page->dead == (size_t)(page->size - page->top);
}
