/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a hint: the sorted index of one segment up to a length. Every key of it stands there
 * once, with its newest record within that length, tombstones included. FORMAT.md has the layout.
 *
 *   preamble | block | block | ... | block index | trailer
 *
 * A block holds entries, prefix-compressed against the one before, and ends in its CRC; the block
 * index has each block's first key, offset and length, so that a key is found with one read of the
 * index and one of a block. Pure codecs, rules as in format.h; hintfile.h does the I/O.
 */
#ifndef HINT_H
#define HINT_H

#include "format.h"

enum {
    HINT_PREAMBLE_SIZE = 16, /* magic and version; blocks follow */
    HINT_TRAILER_SIZE = 128, /* the last bytes of the file */
    HINT_BLOCK_SIZE = 4096,  /* bytes of the longest block, its CRC included */
    HINT_ENTRY_MAX = 2 * 10 + 4 * 5 + 8 + KEG_KEY_MAX + KEG_META_MAX,
};

/* What a hint is a hint of. */
struct hint_info {
    uint8_t store[FORMAT_ID_SIZE];
    uint64_t segment;
    enum format_kind kind;
    uint64_t length;  /* bytes of the segment that it covers: up to the end of a frame, or of the
                         footer */
    uint64_t records; /* in those bytes, superseded ones included */
    uint64_t first_sequence, last_sequence; /* of those records; 0, 0: none */
};

struct hint_trailer {
    struct hint_info info;
    uint64_t index_offset; /* of the block index in the hint */
    uint64_t index_len;    /* bytes, its CRC included */
    uint64_t entries;
    uint64_t blocks;
};

struct hint_entry {
    enum format_type type;
    uint32_t value_len;
    uint32_t crc;
    uint64_t sequence;
    uint64_t offset; /* of the stored value in the segment; 0 for one that is not a put */
    struct keg_bytes key, meta;
};

void hint_preamble_encode(uint8_t out[HINT_PREAMBLE_SIZE]);
/* -EPROTONOSUPPORT: of a newer version. */
KEG_CHECKED int hint_preamble_decode(const uint8_t in[HINT_PREAMBLE_SIZE]);
void hint_trailer_encode(uint8_t out[HINT_TRAILER_SIZE], const struct hint_trailer *trailer);
KEG_CHECKED int hint_trailer_decode(const uint8_t in[HINT_TRAILER_SIZE],
                                    struct hint_trailer *trailer);

/* Builds blocks. Entries come in ascending order of key, each key once. */
struct hint_block {
    uint8_t bytes[HINT_BLOCK_SIZE];
    size_t len;
    uint32_t count;
    uint8_t last[KEG_KEY_MAX];
    size_t last_len;
};
void hint_block_init(struct hint_block *block);
/* False when the entry must begin the next block. An empty block takes any entry. */
bool hint_block_add(struct hint_block *block, const struct hint_entry *entry);
/* Appends the CRC (salted with the store, the segment and the block's offset in the hint); bytes
 * and len are then what goes to the file. */
void hint_block_finish(struct hint_block *block, struct format_salt salt, uint64_t offset);

/* Walks a block. The key of the entry lies in the cursor, its meta in the block. */
struct hint_cursor {
    const uint8_t *bytes;
    size_t len, at;
    uint8_t key[KEG_KEY_MAX];
    size_t key_len;
};
/* Verifies the CRC. */
KEG_CHECKED int hint_cursor_init(struct hint_cursor *cursor, const uint8_t *bytes, size_t len,
                                 struct format_salt salt, uint64_t offset);
/* 1: *entry is the next; 0: the end; -EBADMSG (also for keys out of order). */
KEG_CHECKED int hint_cursor_next(struct hint_cursor *cursor, struct hint_entry *entry);

/* The block index: entries one behind the other, then a CRC salted as a block's. */
struct hint_ref {
    struct keg_bytes key; /* the block's first; points into the index */
    uint64_t offset;
    uint32_t len;
};
enum { HINT_REF_MAX = 2 * 10 + 5 + KEG_KEY_MAX };
size_t hint_ref_encode(uint8_t *out, const struct hint_ref *ref);
uint32_t hint_index_crc(struct format_salt salt, uint64_t offset, const void *refs, size_t len);
/* Decodes the ref at *at of len bytes (the CRC not included, and checked by the caller). */
KEG_CHECKED int hint_ref_decode(const uint8_t *refs, size_t len, size_t *at, struct hint_ref *ref);

#endif
