/* SPDX-License-Identifier: MIT */
/* Whole runs of entries: read, written, and moved from page to page. */
#include "index_entry.h"
#include <assert.h>

void index_page_costs(const struct index_page *page, struct index_cost *cost)
{
    size_t sum = 0;

    for (size_t i = 0; i < page->count; i++) {
        struct index_entry entry;
        index_entry_get(page, i, &entry);
        sum += INDEX_ENTRY_HEAD + entry.size;
        cost[i].upto = (uint32_t)sum;
        cost[i].extra = (uint32_t)(index_entry_prefix(0, entry.rest_len + entry.shared) +
                                   entry.rest_len + entry.shared + entry.payload_len - entry.size);
    }
}

/* Spells out in key what entry pos has from its byte `shared` on, up to byte end. */
static void spell(uint8_t *key, uint32_t head, size_t shared, const uint8_t *rest, size_t end)
{
    key[shared] = index_entry_first(head);
    index_entry_add(key + shared + 1, rest, end - shared - 1);
}

/* What an entry shares is in the ones before it that share less. */
void index_page_read(struct index_reader *reader, const struct index_page *page, size_t pos)
{
    size_t begin = SIZE_MAX; /* of what is spelled out */

    reader->page = page;
    reader->pos = pos;
    reader->key_len = 0;
    reader->payload = NULL;
    while (pos && begin) {
        size_t shared, rest_len;
        uint32_t head = page->heads[--pos];
        const uint8_t *rest = index_entry_rest(page, head, &shared, &rest_len);
        if (begin == SIZE_MAX) {
            begin = reader->key_len = shared + 1 + rest_len;
            reader->payload = rest + rest_len;
        }
        if (shared < begin) {
            spell(reader->key, head, shared, rest, begin);
            begin = shared;
        }
    }
}

bool index_page_next(struct index_reader *reader)
{
    size_t shared, rest_len;

    if (reader->pos >= reader->page->count)
        return false;
    uint32_t head = reader->page->heads[reader->pos++];
    const uint8_t *rest = index_entry_rest(reader->page, head, &shared, &rest_len);
    reader->key_len = shared + 1 + rest_len;
    reader->payload = rest + rest_len;
    spell(reader->key, head, shared, rest, reader->key_len);
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
    size_t shared = index_entry_common(writer->key, data, least);
    size_t rest_len = key.len - shared - 1;
    size_t len = index_entry_prefix(shared, rest_len) + rest_len + payload.len;

    assert(shared < key.len);
    if (page->top - index_entry_heads_end(page) < len + INDEX_ENTRY_HEAD)
        return false;
    page->top = (uint16_t)(page->top - len);
    uint8_t *p = index_entry_begin(index_entry_bytes(page) + page->top, shared, rest_len);
    p = index_entry_add(p, data + shared + 1, rest_len);
    index_entry_add(p, payload.data, payload.len);
    page->heads[page->count++] = index_entry_head(shared, data[shared], page->top);
    index_entry_add(writer->key + shared, data + shared, key.len - shared);
    writer->key_len = key.len;
    return true;
}

/* Whether a payload of source has to be another in page. */
static bool rebases(const struct index_page *page, const struct index_page *source)
{
    return !source->level && source->base != page->base;
}

/* Appends an entry of source with its key spelled out, whatever the page ends with. */
static bool copy_spelled(struct index_writer *writer, const struct index_page *source, size_t pos)
{
    uint8_t packed[INDEX_LEAF_MAX];
    struct index_reader reader;
    struct index_page *page = writer->page;

    index_page_read(&reader, source, pos + 1);
    struct keg_bytes payload = {reader.payload, source->level ? sizeof(struct index_page *)
                                                              : index_leaf_size(reader.payload)};
    if (rebases(page, source))
        payload = (struct keg_bytes){
            packed, index_leaf_rebase(packed, page->base, reader.payload, source->base)};
    return index_page_append(writer, (struct keg_bytes){reader.key, reader.key_len}, payload);
}

/* Appends one behind the entry that it stands behind in source, too: its key's part of the body
 * stays as it is. */
static bool copy_next(struct index_page *page, const struct index_page *source, size_t pos)
{
    uint8_t packed[INDEX_LEAF_MAX];
    struct index_entry entry;
    uint32_t head = source->heads[pos];
    const uint8_t *body = index_entry_bytes_const(source) + index_entry_at(head);
    size_t same, changed = 0;

    index_entry_get(source, pos, &entry);
    same = entry.size;
    if (rebases(page, source)) {
        same -= entry.payload_len;
        changed = index_leaf_rebase(packed, page->base, entry.payload, source->base);
    }
    if (page->top - index_entry_heads_end(page) < same + changed + INDEX_ENTRY_HEAD)
        return false;
    page->top = (uint16_t)(page->top - same - changed);
    uint8_t *to = index_entry_bytes(page) + page->top;
    memcpy(to, body, same);
    if (changed)
        memcpy(to + same, packed, changed);
    page->heads[page->count++] = index_entry_moved(head, page->top);
    return true;
}

/* The writer's key is its page's last one again. */
static void catch_up(struct index_writer *writer)
{
    struct index_reader reader;

    index_page_read(&reader, writer->page, writer->page->count);
    index_entry_add(writer->key, reader.key, reader.key_len);
    writer->key_len = reader.key_len;
}

bool index_page_copy(struct index_writer *writer, const struct index_page *source, size_t from,
                     size_t to, bool keep_tombstones)
{
    bool follows = false, fits = true;

    for (size_t pos = from; pos < to && fits; pos++) {
        if (!keep_tombstones && !source->level &&
            index_leaf_is_tombstone(index_entry_payload(source, pos))) {
            follows = false;
        } else if (follows) {
            fits = copy_next(writer->page, source, pos);
        } else {
            catch_up(writer);
            fits = copy_spelled(writer, source, pos);
            follows = true;
        }
    }
    catch_up(writer);
    return fits;
}
