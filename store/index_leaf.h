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

enum {
    INDEX_LEAF_FIXED = 10, /* control, meta length, slot, offset */
    INDEX_LEAF_MAX = INDEX_LEAF_FIXED + 8 + 4 + 4 + KEG_META_MAX, /* bytes */
};

/* Returns the bytes written. place->offset is below 2^32. */
size_t index_leaf_pack(uint8_t *out, uint64_t base, const struct index_place *place,
                       struct keg_bytes meta);
/* meta may be NULL; it points into the payload. */
void index_leaf_unpack(const uint8_t *payload, uint64_t base, struct index_place *place,
                       struct keg_bytes *meta);
size_t index_leaf_size(const uint8_t *payload); /* bytes */
uint64_t index_leaf_sequence(const uint8_t *payload, uint64_t base);
size_t index_leaf_sequence_size(uint64_t sequence, uint64_t base); /* bytes */
uint8_t index_leaf_meta_len(const uint8_t *payload);
bool index_leaf_is_tombstone(const uint8_t *payload);
void index_leaf_move(uint8_t *payload, uint32_t slot, uint32_t offset);

#endif
