/* SPDX-License-Identifier: MIT */
/*
 * What an entry of a leaf holds behind its key: place and meta, packed. Private to the index.
 *
 *   control | meta length | slot 4 | offset 4 | sequence 0..8 | value length 0,2,3,4 | crc 0,4 |
 * meta
 *
 * Slot and offset have a fixed width at a fixed spot, so that an entry can be repointed where it
 * stands. The sequence is the distance from the page's base in as few bytes as hold it; a sequence
 * below the base stands there whole. Names and inodes have no value: their length and CRC take no
 * room.
 */
#ifndef INDEX_LEAF_H
#define INDEX_LEAF_H

#include "index.h"
#include <endian.h>
#include <string.h>

enum {
    INDEX_LEAF_FIXED = 10, /* control, meta length, slot, offset */
    INDEX_LEAF_MAX = INDEX_LEAF_FIXED + 8 + 4 + 4 + KEG_META_MAX, /* bytes */
};

/* The control byte. A sequence code of up to 8 is the width of the distance; WHOLE is 8 bytes of
 * the sequence itself. A length code is one less than the width, but 0 for none. */
enum {
    INDEX_LEAF_SEQUENCE = 0x0f,
    INDEX_LEAF_WHOLE = 9,
    INDEX_LEAF_LEN_SHIFT = 4,
    INDEX_LEAF_LEN = 0x30,
    INDEX_LEAF_CRC = 0x40,
    INDEX_LEAF_TOMBSTONE = 0x80,
};

/* Returns the bytes written; out has room for INDEX_LEAF_MAX, and what of it is not the payload may
 * be written, too. place->offset is below 2^32. */
size_t index_leaf_pack(uint8_t *out, uint64_t base, const struct index_place *place,
                       struct keg_bytes meta);
/* The same payload for a page with another base; likewise. */
size_t index_leaf_rebase(uint8_t *out, uint64_t base, const uint8_t *payload, uint64_t old_base);
/* meta may be NULL; it points into the payload. */
void index_leaf_unpack(const uint8_t *payload, uint64_t base, struct index_place *place,
                       struct keg_bytes *meta);
void index_leaf_move(uint8_t *payload, uint32_t slot, uint32_t offset);

/* The number whose lowest `width` bytes (up to 8, the lowest first) are at `in`. Something precedes
 * it: the 8 bytes that end where it ends are read at once. */
static inline uint64_t index_leaf_number(const uint8_t *in, size_t width)
{
    uint64_t value;

    memcpy(&value, in + width - sizeof value, sizeof value);
    return width ? le64toh(value) >> (64 - 8 * width) : 0;
}

/* Bytes of a sequence in the page, */
static inline size_t index_leaf_sequence_width(const uint8_t *payload)
{
    size_t code = payload[0] & INDEX_LEAF_SEQUENCE;
    return code < INDEX_LEAF_WHOLE ? code : 8;
}

/* and with another base. */
static inline size_t index_leaf_sequence_size(uint64_t sequence, uint64_t base)
{
    uint64_t distance = sequence - base;
    if (sequence < base)
        return 8;
    return distance ? (size_t)(71 - __builtin_clzll(distance)) / 8 : 0;
}

static inline uint64_t index_leaf_sequence(const uint8_t *payload, uint64_t base)
{
    uint64_t value =
        index_leaf_number(payload + INDEX_LEAF_FIXED, index_leaf_sequence_width(payload));
    return (payload[0] & INDEX_LEAF_SEQUENCE) == INDEX_LEAF_WHOLE ? value : base + value;
}

static inline size_t index_leaf_len_width(const uint8_t *payload)
{
    size_t code = (payload[0] & INDEX_LEAF_LEN) >> INDEX_LEAF_LEN_SHIFT;
    return code + (code != 0);
}

static inline size_t index_leaf_crc_width(const uint8_t *payload)
{
    return payload[0] & INDEX_LEAF_CRC ? 4 : 0;
}

/* Bytes of the payload. */
static inline size_t index_leaf_size(const uint8_t *payload)
{
    return INDEX_LEAF_FIXED + index_leaf_sequence_width(payload) + index_leaf_len_width(payload) +
           index_leaf_crc_width(payload) + payload[1];
}

static inline uint8_t index_leaf_meta_len(const uint8_t *payload)
{
    return payload[1];
}

static inline bool index_leaf_is_tombstone(const uint8_t *payload)
{
    return payload[0] & INDEX_LEAF_TOMBSTONE;
}

#endif
