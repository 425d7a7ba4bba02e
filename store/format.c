/* SPDX-License-Identifier: MIT */
/*
 * The codec of segments. Every structure begins with a magic that has no zero byte and ends in a
 * CRC, so that neither a run of zeros nor a half-written structure decodes. Numbers are put
 * together byte by byte, never by laying a C struct over the bytes: the layout does not depend on
 * the compiler, and a decoder can be handed any address.
 *
 * Each decoder takes exactly the bytes that its encoder writes for some struct: one form for each
 * meaning. Varints are minimal, what is reserved is zero, what does not apply is absent. Two stores
 * with the same contents can then be compared as bytes, and a fuzzer has a property to check.
 *
 * The rejected alternative was a CRC for each record. One CRC over all the heads of a frame is what
 * makes a batch atomic, costs one pass, and lets recovery read heads without values; the values
 * have CRCs of their own, in their heads, so that each can be checked alone.
 */
#include "format.h"
#include "crc.h"
#include <string.h>

enum {
    FRAME_MAGIC = 0x4d52464b,  /* "KFRM" */
    FOOTER_MAGIC = 0x5254464b, /* "KFTR" */
    HEAD_FIXED = 4,            /* type, meta_len, key_len */
    HEAD_MIN = HEAD_FIXED + 1 + 1,
    CRC_SIZE = 4,
};

static const char segment_magic[8] = "KEGSEGM\n";

_Static_assert(FORMAT_SEGMENT_SIZE == sizeof(segment_magic) + 4 + 4 + FORMAT_ID_SIZE + 3 * 8 + 8,
               "segment header");
_Static_assert(FORMAT_FRAME_SIZE == 4 * 4 + 2 * 8 + 4 + CRC_SIZE, "frame header");
_Static_assert(FORMAT_FOOTER_SIZE == 4 + 4 + 5 * 8 + 4 + CRC_SIZE, "footer");
_Static_assert(FORMAT_SEGMENT_SIZE % FORMAT_ALIGN == 0 && FORMAT_FRAME_SIZE % FORMAT_ALIGN == 0 &&
                   FORMAT_FOOTER_SIZE % FORMAT_ALIGN == 0,
               "what is not padded is a multiple of the alignment");

struct format_salt format_salt(const uint8_t store[FORMAT_ID_SIZE], uint64_t segment)
{
    uint8_t id[8];
    format_put64(id, segment);
    struct format_salt salt = {crc_update(0, store, FORMAT_ID_SIZE)};
    salt.base = crc_update(salt.base, id, sizeof(id));
    return salt;
}

uint32_t format_salted_crc(struct format_salt salt, uint64_t offset, const void *data, size_t len)
{
    uint8_t at[8];
    format_put64(at, offset);
    return crc_update(crc_update(salt.base, at, sizeof(at)), data, len);
}

bool format_sequences_valid(bool any, uint64_t first, uint64_t last)
{
    return any ? first > 0 && first <= last : first == 0 && last == 0;
}

size_t format_varint_size(uint64_t value)
{
    size_t size = 1;
    for (; value > 0x7f; value >>= 7)
        size++;
    return size;
}

size_t format_varint_put(uint8_t *out, uint64_t value)
{
    size_t len = 0;
    for (; value > 0x7f; value >>= 7)
        out[len++] = (uint8_t)(value | 0x80);
    out[len++] = (uint8_t)value;
    return len;
}

int format_varint_get(const uint8_t *in, size_t len, size_t *at, uint64_t max, uint64_t *value)
{
    uint64_t v = 0;
    size_t i = *at;
    for (unsigned shift = 0; i < len && shift < 64; shift += 7) {
        uint8_t byte = in[i++];
        if (shift == 63 && byte > 1)
            return -EBADMSG;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte & 0x80)
            continue;
        if ((byte == 0 && shift > 0) || v > max)
            return -EBADMSG;
        *at = i;
        *value = v;
        return 0;
    }
    return -EBADMSG;
}

/* ---- Segment header ---- */

void format_segment_encode(uint8_t out[FORMAT_SEGMENT_SIZE], const struct format_segment *segment)
{
    bool log = segment->kind == FORMAT_LOG;

    memcpy(out, segment_magic, 8);
    format_put32(out + 8, FORMAT_VERSION);
    format_put32(out + 12, segment->kind);
    memcpy(out + 16, segment->store, FORMAT_ID_SIZE);
    format_put64(out + 32, segment->id);
    format_put64(out + 40, log ? segment->predecessor : 0);
    format_put64(out + 48, log ? segment->last_sequence : 0);
    format_put32(out + 56, 0);
    format_put32(out + 60, crc_update(0, out, 60));
}

int format_segment_decode(const uint8_t in[FORMAT_SEGMENT_SIZE], struct format_segment *segment)
{
    uint32_t version = format_get32(in + 8), kind = format_get32(in + 12);

    if (memcmp(in, segment_magic, 8) != 0 || format_get32(in + 60) != crc_update(0, in, 60))
        return -EBADMSG;
    if (version > FORMAT_VERSION)
        return -EPROTONOSUPPORT;
    if (version != FORMAT_VERSION || !format_kind_valid(kind) || format_get32(in + 56) != 0)
        return -EBADMSG;
    *segment = (struct format_segment){
        .id = format_get64(in + 32),
        .kind = (enum format_kind)kind,
        .predecessor = format_get64(in + 40),
        .last_sequence = format_get64(in + 48),
    };
    memcpy(segment->store, in + 16, FORMAT_ID_SIZE);
    if (kind == FORMAT_COMPACTED && (segment->predecessor || segment->last_sequence))
        return -EBADMSG;
    return segment->predecessor && segment->predecessor >= segment->id ? -EBADMSG : 0;
}

/* ---- Frame header ---- */

void format_frame_encode(uint8_t out[FORMAT_FRAME_SIZE], struct format_salt salt, uint64_t offset,
                         const struct format_frame *frame)
{
    format_put32(out, FRAME_MAGIC);
    format_put32(out + 4, frame->length);
    format_put32(out + 8, frame->count);
    format_put32(out + 12, frame->heads_len);
    format_put64(out + 16, frame->sequence);
    format_put64(out + 24, frame->durable);
    format_put32(out + 32, frame->heads_crc);
    format_put32(out + 36, format_salted_crc(salt, offset, out, 36));
}

static bool frame_valid(const struct format_frame *frame, uint64_t offset)
{
    return frame->count > 0 && frame->heads_len >= (uint64_t)frame->count * HEAD_MIN &&
           frame->heads_len <= (uint64_t)frame->count * FORMAT_HEAD_MAX &&
           frame->length <= FORMAT_FRAME_MAX &&
           frame->length >= FORMAT_FRAME_SIZE + (uint64_t)frame->heads_len && frame->sequence > 0 &&
           frame->durable <= offset;
}

int format_frame_decode(const uint8_t in[FORMAT_FRAME_SIZE], struct format_salt salt,
                        uint64_t offset, struct format_frame *frame)
{
    if (format_get32(in) != FRAME_MAGIC ||
        format_get32(in + 36) != format_salted_crc(salt, offset, in, 36))
        return -EBADMSG;
    *frame = (struct format_frame){
        .length = format_get32(in + 4),
        .count = format_get32(in + 8),
        .heads_len = format_get32(in + 12),
        .sequence = format_get64(in + 16),
        .durable = format_get64(in + 24),
        .heads_crc = format_get32(in + 32),
    };
    return frame_valid(frame, offset) ? 0 : -EBADMSG;
}

uint32_t format_heads_crc(struct format_salt salt, uint64_t offset, const void *heads, size_t len)
{
    return format_salted_crc(salt, offset, heads, len);
}

uint64_t format_frame_span(const struct format_frame *frame)
{
    return ((uint64_t)frame->length + FORMAT_ALIGN - 1) & ~(uint64_t)(FORMAT_ALIGN - 1);
}

/* ---- Record head ---- */

static uint32_t blocks_of(uint32_t value_len)
{
    return value_len / KEG_BLOCK + (value_len % KEG_BLOCK != 0);
}

uint32_t format_stored_len(uint32_t value_len)
{
    return value_len > KEG_BLOCK ? value_len + CRC_SIZE * blocks_of(value_len) : value_len;
}

/* What follows the delta: the length of a value, and the CRC of one that is there. */
static size_t value_part_size(enum format_type type, uint32_t value_len)
{
    bool crc = type == FORMAT_PUT && value_len;

    return type == FORMAT_TOMBSTONE ? 0 : format_varint_size(value_len) + (crc ? CRC_SIZE : 0);
}

size_t format_record_size(const struct format_record *record, uint64_t base)
{
    return HEAD_FIXED + format_varint_size(record->sequence - base) +
           value_part_size(record->type, record->value_len) + record->key.len +
           (record->type == FORMAT_TOMBSTONE ? 0 : record->meta.len);
}

uint64_t format_record_cost(size_t key_len, size_t meta_len, uint32_t value_len,
                            enum format_type type)
{
    uint64_t head = HEAD_FIXED + 1 + value_part_size(type, value_len) + key_len;

    if (type == FORMAT_TOMBSTONE)
        return head;
    return head + meta_len + (type == FORMAT_PUT ? format_stored_len(value_len) : 0);
}

size_t format_record_encode(uint8_t *out, const struct format_record *record, uint64_t base)
{
    bool tombstone = record->type == FORMAT_TOMBSTONE;
    size_t meta_len = tombstone ? 0 : record->meta.len, len = HEAD_FIXED;

    out[0] = (uint8_t)record->type;
    out[1] = (uint8_t)meta_len;
    out[2] = (uint8_t)record->key.len;
    out[3] = (uint8_t)(record->key.len >> 8);
    len += format_varint_put(out + len, record->sequence - base);
    if (!tombstone)
        len += format_varint_put(out + len, record->value_len);
    if (record->type == FORMAT_PUT && record->value_len) {
        format_put32(out + len, record->crc);
        len += CRC_SIZE;
    }
    memcpy(out + len, record->key.data, record->key.len);
    len += record->key.len;
    if (meta_len)
        memcpy(out + len, record->meta.data, meta_len);
    return len + meta_len;
}

/* The value's length and CRC, at *at of len bytes. */
static int value_part_decode(const uint8_t *in, size_t len, size_t *at,
                             struct format_record *record)
{
    uint64_t value_len;

    if (format_varint_get(in, len, at, KEG_VALUE_MAX, &value_len))
        return -EBADMSG;
    record->value_len = (uint32_t)value_len;
    if (record->type == FORMAT_LOST)
        return value_len ? 0 : -EBADMSG;
    if (value_len == 0)
        return 0;
    if (len - *at < CRC_SIZE)
        return -EBADMSG;
    record->crc = format_get32(in + *at);
    *at += CRC_SIZE;
    return 0;
}

int format_record_decode(const uint8_t *heads, size_t heads_len, size_t *at, uint64_t base,
                         struct format_record *record)
{
    size_t p = *at;

    if (p > heads_len || heads_len - p < HEAD_MIN)
        return -EBADMSG;
    uint8_t type = heads[p], meta_len = heads[p + 1];
    size_t key_len = (size_t)heads[p + 2] | (size_t)heads[p + 3] << 8;
    if (!format_type_valid(type) || (type == FORMAT_TOMBSTONE && meta_len) || key_len == 0 ||
        key_len > KEG_KEY_MAX)
        return -EBADMSG;
    p += HEAD_FIXED;

    uint64_t delta;
    if (format_varint_get(heads, heads_len, &p, UINT64_MAX - base, &delta))
        return -EBADMSG;
    *record = (struct format_record){.type = (enum format_type)type, .sequence = base + delta};
    if (type != FORMAT_TOMBSTONE && value_part_decode(heads, heads_len, &p, record))
        return -EBADMSG;
    if (heads_len - p < key_len + meta_len)
        return -EBADMSG;
    record->key = (struct keg_bytes){heads + p, key_len};
    record->meta = (struct keg_bytes){heads + p + key_len, meta_len};
    *at = p + key_len + meta_len;
    return 0;
}

uint32_t format_value_crcs(const void *value, uint32_t len, uint8_t *list)
{
    const uint8_t *bytes = value;
    uint32_t blocks = blocks_of(len);

    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t at = i * KEG_BLOCK;
        uint32_t part = len - at < KEG_BLOCK ? len - at : KEG_BLOCK;
        format_put32(list + (size_t)i * CRC_SIZE, crc_update(0, bytes + at, part));
    }
    return blocks;
}

/* ---- Footer ---- */

void format_footer_encode(uint8_t out[FORMAT_FOOTER_SIZE], struct format_salt salt,
                          const struct format_footer *footer)
{
    memset(out, 0, FORMAT_FOOTER_SIZE);
    format_put32(out, FOOTER_MAGIC);
    format_put64(out + 8, footer->length);
    format_put64(out + 16, footer->records);
    format_put64(out + 24, footer->first_sequence);
    format_put64(out + 32, footer->last_sequence);
    format_put32(out + 52, format_salted_crc(salt, footer->length, out, 52));
}

int format_footer_decode(const uint8_t in[FORMAT_FOOTER_SIZE], struct format_salt salt,
                         uint64_t offset, struct format_footer *footer)
{
    if (format_get32(in) != FOOTER_MAGIC ||
        format_get32(in + 52) != format_salted_crc(salt, offset, in, 52))
        return -EBADMSG;
    *footer = (struct format_footer){
        .length = format_get64(in + 8),
        .records = format_get64(in + 16),
        .first_sequence = format_get64(in + 24),
        .last_sequence = format_get64(in + 32),
    };
    if (format_get32(in + 4) || format_get64(in + 40) || format_get32(in + 48) ||
        footer->length != offset || offset < FORMAT_SEGMENT_SIZE || offset % FORMAT_ALIGN)
        return -EBADMSG;
    return format_sequences_valid(footer->records > 0, footer->first_sequence,
                                  footer->last_sequence)
               ? 0
               : -EBADMSG;
}
