/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a segment: header, frames of records, footer. FORMAT.md has the layout.
 *
 * Pure: bytes in, structs out; no I/O, no allocation, every read bounded. Numbers are
 * little-endian. Encoders write what decoders accept and nothing else: decoding and encoding again
 * gives the same bytes. Decoders return 0 or -EBADMSG (also -EPROTONOSUPPORT where said).
 *
 * A segment:  segment header | frame | frame | ... | footer (once sealed)
 * A frame:    frame header | record heads | value areas | zero bytes up to a multiple of 8
 */
#ifndef FORMAT_H
#define FORMAT_H

#include "keg.h"
#include <errno.h>

enum {
    FORMAT_VERSION = 1,
    FORMAT_ID_SIZE = 16,      /* a store's id */
    FORMAT_SEGMENT_SIZE = 64, /* bytes of a segment header */
    FORMAT_FRAME_SIZE = 40,   /* bytes of a frame header */
    FORMAT_FOOTER_SIZE = 56,
    FORMAT_ALIGN = 8,
    FORMAT_HEAD_MAX = 4 + 10 + 5 + 4 + KEG_KEY_MAX + KEG_META_MAX, /* bytes of one record head */
    FORMAT_FRAME_MAX = KEG_BATCH_MAX + (1 << 20),                  /* bytes of a frame */
};

enum format_kind { FORMAT_LOG = 1, FORMAT_COMPACTED = 2 };

struct format_segment {
    uint8_t store[FORMAT_ID_SIZE];
    uint64_t id;
    enum format_kind kind;
    uint64_t predecessor;   /* log: the log segment before this one, of a lower id; 0 for none */
    uint64_t last_sequence; /* log: the last sequence used before this segment */
                            /* compacted: both are written as 0 */
};

struct format_frame {
    uint32_t length;    /* bytes in all, header, heads and values, without the padding */
    uint32_t heads_len; /* bytes */
    uint32_t count;     /* records, at least 1 */
    uint32_t heads_crc; /* salted, of the heads */
    uint64_t sequence;  /* the lowest of its records, at least 1 */
    uint64_t durable;   /* bytes of this segment known durable when it was written; never more
                           than the frame's own offset */
};

enum format_type {
    FORMAT_PUT = 1,
    FORMAT_TOMBSTONE = 2,
    FORMAT_LOST = 3, /* a put whose value is known to be lost; only a repair writes it */
};

/*
 * A record head. A value of up to KEG_BLOCK bytes is stored as it is, and crc is its CRC (0 when
 * empty). A longer one is stored as a list of one CRC for each KEG_BLOCK bytes of it and then the
 * bytes, and crc is the CRC of the list. A tombstone has neither meta nor value. A lost record has
 * the meta and the length of its value, and nothing is stored of it.
 */
struct format_record {
    enum format_type type;
    uint32_t value_len; /* bytes of the value, without the list; of a lost one at least 1 */
    uint32_t crc;
    uint64_t sequence;
    struct keg_bytes key, meta; /* decoded ones point into the heads */
};

/* What closes a sealed segment; it stands at the end of the frames. */
struct format_footer {
    uint64_t length; /* bytes before the footer, a multiple of FORMAT_ALIGN */
    uint64_t records;
    uint64_t first_sequence, last_sequence; /* lowest and highest of its records; 0, 0: none */
};

/* The salt of CRCs in a segment. */
struct format_salt {
    uint32_t base;
};
struct format_salt format_salt(const uint8_t store[FORMAT_ID_SIZE], uint64_t segment);

void format_segment_encode(uint8_t out[FORMAT_SEGMENT_SIZE], const struct format_segment *segment);
/* -EPROTONOSUPPORT: sound, and of a newer version. Any store and segment id is taken; compare. */
KEG_CHECKED int format_segment_decode(const uint8_t in[FORMAT_SEGMENT_SIZE],
                                      struct format_segment *segment);

/* offset: of the frame's header in its segment. A decoded header has 1 <= count, heads that can
 * hold count records, and FORMAT_FRAME_SIZE + heads_len <= length <= FORMAT_FRAME_MAX. */
void format_frame_encode(uint8_t out[FORMAT_FRAME_SIZE], struct format_salt salt, uint64_t offset,
                         const struct format_frame *frame);
KEG_CHECKED int format_frame_decode(const uint8_t in[FORMAT_FRAME_SIZE], struct format_salt salt,
                                    uint64_t offset, struct format_frame *frame);
/* The salted CRC of a frame's heads. */
uint32_t format_heads_crc(struct format_salt salt, uint64_t offset, const void *heads, size_t len);
/* Bytes from a frame's start to the next frame's. */
uint64_t format_frame_span(const struct format_frame *frame);

/* Bytes that the value takes in the log: with its list of CRCs, if it has one. */
uint32_t format_stored_len(uint32_t value_len);
/* Bytes of the head, with `base` the frame's sequence. */
size_t format_record_size(const struct format_record *record, uint64_t base);
/* What counts as live bytes: head (with a sequence delta of 0) and stored value. */
uint64_t format_record_cost(size_t key_len, size_t meta_len, uint32_t value_len,
                            enum format_type type);
/* Returns the bytes written, format_record_size of them. sequence >= base. */
size_t format_record_encode(uint8_t *out, const struct format_record *record, uint64_t base);
/* Decodes the head at *at of heads_len bytes and moves *at behind it. */
KEG_CHECKED int format_record_decode(const uint8_t *heads, size_t heads_len, size_t *at,
                                     uint64_t base, struct format_record *record);

void format_footer_encode(uint8_t out[FORMAT_FOOTER_SIZE], struct format_salt salt,
                          const struct format_footer *footer);
/* offset: where it stands; its length must say the same. */
KEG_CHECKED int format_footer_decode(const uint8_t in[FORMAT_FOOTER_SIZE], struct format_salt salt,
                                     uint64_t offset, struct format_footer *footer);

/* Fills list with the CRCs of each KEG_BLOCK of a value; returns how many. */
uint32_t format_value_crcs(const void *value, uint32_t len, uint8_t *list);

/* ---- For the codecs beside this one ---- */

/* CRC over the salt, the offset and the data. */
uint32_t format_salted_crc(struct format_salt salt, uint64_t offset, const void *data, size_t len);

/* The lowest and highest sequence of some records, or 0 and 0 of none. */
bool format_sequences_valid(bool any, uint64_t first, uint64_t last);

/* LEB128, minimal: up to 10 bytes. put returns how many it wrote. get decodes at *at of len bytes,
 * takes nothing above max, and moves *at behind it. */
size_t format_varint_size(uint64_t value);
size_t format_varint_put(uint8_t *out, uint64_t value);
KEG_CHECKED int format_varint_get(const uint8_t *in, size_t len, size_t *at, uint64_t max,
                                  uint64_t *value);

static inline bool format_kind_valid(uint32_t kind)
{
    return kind == FORMAT_LOG || kind == FORMAT_COMPACTED;
}

static inline bool format_type_valid(uint8_t type)
{
    return type >= FORMAT_PUT && type <= FORMAT_LOST;
}

/* Little-endian numbers. */
static inline void format_put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void format_put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint32_t format_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t format_get64(const uint8_t *p)
{
    return (uint64_t)format_get32(p) | (uint64_t)format_get32(p + 4) << 32;
}

#endif
