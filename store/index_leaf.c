/* SPDX-License-Identifier: MIT */
#include "index_leaf.h"
#include <assert.h>
#include <string.h>

/* The control byte. A sequence code of up to 8 is the width of the distance; WHOLE is 8 bytes of
 * the sequence itself. Bytes are little-endian, so that cutting a number drops its zeros. */
enum {
    SEQUENCE_BITS = 0x0f,
    SEQUENCE_WHOLE = 9,
    LEN_SHIFT = 4,
    LEN_BITS = 0x30,
    HAS_CRC = 0x40,
    TOMBSTONE = 0x80,
};

static const uint8_t len_width[4] = {0, 2, 3, 4};

static uint8_t *put(uint8_t *out, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        out[i] = (uint8_t)(value >> (8 * i));
    return out + width;
}

static uint64_t get(const uint8_t *in, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

static size_t bytes_of(uint64_t value)
{
    return value ? (size_t)(71 - __builtin_clzll(value)) / 8 : 0;
}

static size_t sequence_width(uint8_t control)
{
    unsigned code = control & SEQUENCE_BITS;
    return code == SEQUENCE_WHOLE ? 8 : code;
}

size_t index_leaf_sequence_size(uint64_t sequence, uint64_t base)
{
    return sequence < base ? 8 : bytes_of(sequence - base);
}

size_t index_leaf_pack(uint8_t *out, uint64_t base, const struct index_place *place,
                       struct keg_bytes meta)
{
    size_t width = index_leaf_sequence_size(place->sequence, base);
    bool whole = place->sequence < base;
    size_t len = bytes_of(place->value_len);
    unsigned len_code = len ? (len < 2 ? 1 : (unsigned)len - 1) : 0;

    assert(place->offset <= UINT32_MAX && meta.len <= KEG_META_MAX);
    out[0] = (uint8_t)((whole ? SEQUENCE_WHOLE : width) | len_code << LEN_SHIFT |
                       (place->crc ? HAS_CRC : 0) | (place->tombstone ? TOMBSTONE : 0));
    out[1] = (uint8_t)meta.len;
    uint8_t *p = put(out + 2, place->slot, 4);
    p = put(p, place->offset, 4);
    p = put(p, whole ? place->sequence : place->sequence - base, width);
    p = put(p, place->value_len, len_width[len_code]);
    p = put(p, place->crc, place->crc ? 4 : 0);
    if (meta.len)
        memcpy(p, meta.data, meta.len);
    return (size_t)(p - out) + meta.len;
}

void index_leaf_unpack(const uint8_t *payload, uint64_t base, struct index_place *place,
                       struct keg_bytes *meta)
{
    uint8_t control = payload[0];
    size_t len = len_width[(control & LEN_BITS) >> LEN_SHIFT];
    const uint8_t *p = payload + INDEX_LEAF_FIXED + sequence_width(control);

    place->tombstone = control & TOMBSTONE;
    place->slot = (uint32_t)get(payload + 2, 4);
    place->offset = get(payload + 6, 4);
    place->sequence = index_leaf_sequence(payload, base);
    place->value_len = (uint32_t)get(p, len);
    p += len;
    place->crc = control & HAS_CRC ? (uint32_t)get(p, 4) : 0;
    p += control & HAS_CRC ? 4 : 0;
    if (meta)
        *meta = (struct keg_bytes){p, payload[1]};
}

size_t index_leaf_size(const uint8_t *payload)
{
    uint8_t control = payload[0];
    return INDEX_LEAF_FIXED + sequence_width(control) +
           len_width[(control & LEN_BITS) >> LEN_SHIFT] + (control & HAS_CRC ? 4U : 0U) +
           payload[1];
}

uint64_t index_leaf_sequence(const uint8_t *payload, uint64_t base)
{
    uint64_t value = get(payload + INDEX_LEAF_FIXED, sequence_width(payload[0]));
    return (payload[0] & SEQUENCE_BITS) == SEQUENCE_WHOLE ? value : base + value;
}

uint8_t index_leaf_meta_len(const uint8_t *payload)
{
    return payload[1];
}

bool index_leaf_is_tombstone(const uint8_t *payload)
{
    return payload[0] & TOMBSTONE;
}

void index_leaf_move(uint8_t *payload, uint32_t slot, uint32_t offset)
{
    put(put(payload + 2, slot, 4), offset, 4);
}
