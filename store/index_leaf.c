/* SPDX-License-Identifier: MIT */
#include "index_leaf.h"
#include <assert.h>

/* Numbers are little-endian, so that cutting one drops its zeros. All 8 bytes are written, whatever
 * its width: what follows is written later, or is not the payload any more. */
static uint8_t *put(uint8_t *out, uint64_t value, size_t width)
{
    value = htole64(value);
    memcpy(out, &value, sizeof value);
    return out + width;
}

/* With the sequence's code, control has all that the payload begins with. */
static uint8_t *put_sequence(uint8_t *out, unsigned control, uint64_t sequence, uint64_t base)
{
    size_t width = index_leaf_sequence_size(sequence, base);
    bool whole = sequence < base;

    out[0] = (uint8_t)(control | (whole ? INDEX_LEAF_WHOLE : (unsigned)width));
    return put(out + INDEX_LEAF_FIXED, whole ? sequence : sequence - base, width);
}

static size_t len_width(uint32_t len)
{
    return len ? len >> 24 ? 4 : len >> 16 ? 3 : 2 : 0;
}

size_t index_leaf_pack(uint8_t *out, uint64_t base, const struct index_place *place,
                       struct keg_bytes meta)
{
    size_t width = len_width(place->value_len);
    unsigned control = (unsigned)(width - (width != 0)) << INDEX_LEAF_LEN_SHIFT |
                       (place->crc ? INDEX_LEAF_CRC : 0U) |
                       (place->tombstone ? INDEX_LEAF_TOMBSTONE : 0U);

    assert(place->offset <= UINT32_MAX && meta.len <= KEG_META_MAX);
    out[1] = (uint8_t)meta.len;
    put(out + 2, place->slot | place->offset << 32, 8);
    uint8_t *p = put_sequence(out, control, place->sequence, base);
    p = put(p, place->value_len, width);
    p = put(p, place->crc, place->crc ? 4 : 0);
    if (meta.len)
        memcpy(p, meta.data, meta.len);
    return (size_t)(p - out) + meta.len;
}

size_t index_leaf_rebase(uint8_t *out, uint64_t base, const uint8_t *payload, uint64_t old_base)
{
    const uint8_t *behind = payload + INDEX_LEAF_FIXED + index_leaf_sequence_width(payload);
    size_t len = (size_t)(payload + index_leaf_size(payload) - behind);

    memcpy(out, payload, INDEX_LEAF_FIXED);
    uint8_t *p = put_sequence(out, payload[0] & ~(unsigned)INDEX_LEAF_SEQUENCE,
                              index_leaf_sequence(payload, old_base), base);
    memcpy(p, behind, len);
    return (size_t)(p - out) + len;
}

void index_leaf_unpack(const uint8_t *payload, uint64_t base, struct index_place *place,
                       struct keg_bytes *meta)
{
    const uint8_t *p = payload + INDEX_LEAF_FIXED + index_leaf_sequence_width(payload);
    size_t len = index_leaf_len_width(payload), crc = index_leaf_crc_width(payload);

    place->tombstone = index_leaf_is_tombstone(payload);
    uint64_t where = index_leaf_number(payload + 2, 8);
    place->slot = (uint32_t)where;
    place->offset = where >> 32;
    place->sequence = index_leaf_sequence(payload, base);
    place->value_len = (uint32_t)index_leaf_number(p, len);
    place->crc = (uint32_t)index_leaf_number(p + len, crc);
    if (meta)
        *meta = (struct keg_bytes){p + len + crc, payload[1]};
}

void index_leaf_move(uint8_t *payload, uint32_t slot, uint32_t offset)
{
    put(payload + 2, slot | (uint64_t)offset << 32, 8);
}
