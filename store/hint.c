/* SPDX-License-Identifier: MIT */
/*
 * Keys are compressed against the key before them in their block. The decoder insists that the
 * shared prefix is as long as it can be, and gets two things for one comparison of two bytes: the
 * keys ascend, and there is only one encoding of a block's entries.
 */
#include "hint.h"
#include "crc.h"
#include <string.h>

enum {
    CRC_SIZE = 4,
    ENTRY_MIN = 6, /* shared, suffix length, type, meta length, sequence, one byte of key */
    REF_MIN = 4,   /* offset, length, key length, one byte of key */
};

static const char preamble_magic[8] = "KEGHINT\n";
static const char trailer_magic[8] = "KEGHEND\n";

_Static_assert(HINT_PREAMBLE_SIZE == sizeof(preamble_magic) + 4 + CRC_SIZE, "preamble");
_Static_assert(HINT_TRAILER_SIZE >= sizeof(trailer_magic) + 4 + 4 + FORMAT_ID_SIZE + 9 * 8 + 4,
               "trailer");
_Static_assert(HINT_ENTRY_MAX + CRC_SIZE <= HINT_BLOCK_SIZE, "an empty block takes any entry");

void hint_preamble_encode(uint8_t out[HINT_PREAMBLE_SIZE])
{
    memcpy(out, preamble_magic, 8);
    format_put32(out + 8, FORMAT_VERSION);
    format_put32(out + 12, crc_update(0, out, 12));
}

int hint_preamble_decode(const uint8_t in[HINT_PREAMBLE_SIZE])
{
    uint32_t version = format_get32(in + 8);

    if (memcmp(in, preamble_magic, 8) != 0 || format_get32(in + 12) != crc_update(0, in, 12))
        return -EBADMSG;
    if (version > FORMAT_VERSION)
        return -EPROTONOSUPPORT;
    return version == FORMAT_VERSION ? 0 : -EBADMSG;
}

/* ---- Trailer ---- */

void hint_trailer_encode(uint8_t out[HINT_TRAILER_SIZE], const struct hint_trailer *trailer)
{
    memset(out, 0, HINT_TRAILER_SIZE);
    memcpy(out, trailer_magic, 8);
    format_put32(out + 8, trailer->info.kind);
    memcpy(out + 16, trailer->info.store, FORMAT_ID_SIZE);
    format_put64(out + 32, trailer->info.segment);
    format_put64(out + 40, trailer->info.length);
    format_put64(out + 48, trailer->info.records);
    format_put64(out + 56, trailer->info.first_sequence);
    format_put64(out + 64, trailer->info.last_sequence);
    format_put64(out + 72, trailer->index_offset);
    format_put64(out + 80, trailer->index_len);
    format_put64(out + 88, trailer->entries);
    format_put64(out + 96, trailer->blocks);
    format_put32(out + 124, crc_update(0, out, 124));
}

static bool all_zero(const uint8_t *in, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (in[i])
            return false;
    return true;
}

/* What can be said of the numbers without knowing the file: no count exceeds what the bytes that it
 * counts can hold, so that a caller may size memory by any of them. */
static bool trailer_valid(const struct hint_trailer *trailer)
{
    const struct hint_info *info = &trailer->info;

    if (trailer->index_offset < HINT_PREAMBLE_SIZE || trailer->index_len < CRC_SIZE ||
        trailer->index_offset > (uint64_t)INT64_MAX / 2 ||
        trailer->index_len > (uint64_t)INT64_MAX / 2 || info->length > (uint64_t)INT64_MAX ||
        info->length < FORMAT_SEGMENT_SIZE || info->length % FORMAT_ALIGN)
        return false;
    return trailer->blocks <= (trailer->index_len - CRC_SIZE) / REF_MIN &&
           trailer->entries <= (trailer->index_offset - HINT_PREAMBLE_SIZE) / ENTRY_MIN &&
           trailer->blocks <= trailer->entries && trailer->entries <= info->records &&
           (trailer->blocks > 0) == (info->records > 0) &&
           format_sequences_valid(info->records > 0, info->first_sequence, info->last_sequence);
}

int hint_trailer_decode(const uint8_t in[HINT_TRAILER_SIZE], struct hint_trailer *trailer)
{
    uint32_t kind = format_get32(in + 8);

    if (memcmp(in, trailer_magic, 8) != 0 || format_get32(in + 124) != crc_update(0, in, 124) ||
        !format_kind_valid(kind) || !all_zero(in + 12, 4) || !all_zero(in + 104, 20))
        return -EBADMSG;
    *trailer = (struct hint_trailer){
        .info = {.segment = format_get64(in + 32),
                 .kind = (enum format_kind)kind,
                 .length = format_get64(in + 40),
                 .records = format_get64(in + 48),
                 .first_sequence = format_get64(in + 56),
                 .last_sequence = format_get64(in + 64)},
        .index_offset = format_get64(in + 72),
        .index_len = format_get64(in + 80),
        .entries = format_get64(in + 88),
        .blocks = format_get64(in + 96),
    };
    memcpy(trailer->info.store, in + 16, FORMAT_ID_SIZE);
    return trailer_valid(trailer) ? 0 : -EBADMSG;
}

/* ---- Blocks, writing ---- */

void hint_block_init(struct hint_block *block)
{
    block->len = 0;
    block->count = 0;
    block->last_len = 0;
}

static size_t shared_prefix(const struct hint_block *block, struct keg_bytes key)
{
    const uint8_t *bytes = key.data;
    size_t max = block->last_len < key.len ? block->last_len : key.len, n = 0;

    while (n < max && bytes[n] == block->last[n])
        n++;
    return n;
}

static size_t entry_size(const struct hint_entry *entry, size_t shared)
{
    size_t suffix = entry->key.len - shared;
    size_t size = format_varint_size(shared) + format_varint_size(suffix) + 2 +
                  format_varint_size(entry->sequence) + suffix;

    if (entry->type == FORMAT_PUT)
        size += format_varint_size(entry->offset) + (entry->value_len ? CRC_SIZE : 0);
    if (entry->type != FORMAT_TOMBSTONE)
        size += format_varint_size(entry->value_len) + entry->meta.len;
    return size;
}

static void entry_encode(uint8_t *out, const struct hint_entry *entry, size_t shared)
{
    bool put = entry->type == FORMAT_PUT, tombstone = entry->type == FORMAT_TOMBSTONE;
    size_t suffix = entry->key.len - shared, meta_len = tombstone ? 0 : entry->meta.len;

    out += format_varint_put(out, shared);
    out += format_varint_put(out, suffix);
    *out++ = (uint8_t)entry->type;
    *out++ = (uint8_t)meta_len;
    out += format_varint_put(out, entry->sequence);
    if (put)
        out += format_varint_put(out, entry->offset);
    if (!tombstone)
        out += format_varint_put(out, entry->value_len);
    if (put && entry->value_len) {
        format_put32(out, entry->crc);
        out += CRC_SIZE;
    }
    memcpy(out, (const uint8_t *)entry->key.data + shared, suffix);
    if (meta_len)
        memcpy(out + suffix, entry->meta.data, meta_len);
}

bool hint_block_add(struct hint_block *block, const struct hint_entry *entry)
{
    size_t shared = shared_prefix(block, entry->key);
    size_t size = entry_size(entry, shared);

    if (block->count && block->len + size + CRC_SIZE > HINT_BLOCK_SIZE)
        return false;
    entry_encode(block->bytes + block->len, entry, shared);
    block->len += size;
    block->count++;
    memcpy(block->last + shared, (const uint8_t *)entry->key.data + shared,
           entry->key.len - shared);
    block->last_len = entry->key.len;
    return true;
}

void hint_block_finish(struct hint_block *block, struct format_salt salt, uint64_t offset)
{
    format_put32(block->bytes + block->len,
                 format_salted_crc(salt, offset, block->bytes, block->len));
    block->len += CRC_SIZE;
}

/* ---- Blocks, reading ---- */

int hint_cursor_init(struct hint_cursor *cursor, const uint8_t *bytes, size_t len,
                     struct format_salt salt, uint64_t offset)
{
    if (len < ENTRY_MIN + CRC_SIZE || len > HINT_BLOCK_SIZE)
        return -EBADMSG;
    len -= CRC_SIZE;
    if (format_get32(bytes + len) != format_salted_crc(salt, offset, bytes, len))
        return -EBADMSG;
    cursor->bytes = bytes;
    cursor->len = len;
    cursor->at = 0;
    cursor->key_len = 0;
    return 0;
}

/* Place, length and CRC of a put's value, at *at; of a lost one the length alone. */
static int value_part_decode(const struct hint_cursor *cursor, size_t *at, struct hint_entry *entry)
{
    bool put = entry->type == FORMAT_PUT;
    uint64_t value_len;

    if ((put &&
         format_varint_get(cursor->bytes, cursor->len, at, (uint64_t)INT64_MAX, &entry->offset)) ||
        format_varint_get(cursor->bytes, cursor->len, at, KEG_VALUE_MAX, &value_len))
        return -EBADMSG;
    entry->value_len = (uint32_t)value_len;
    if (!put)
        return value_len ? 0 : -EBADMSG;
    if (value_len == 0)
        return 0;
    if (cursor->len - *at < CRC_SIZE)
        return -EBADMSG;
    entry->crc = format_get32(cursor->bytes + *at);
    *at += CRC_SIZE;
    return 0;
}

/* The key follows the one before, and shares with it neither more nor less than said. */
static bool key_follows(const struct hint_cursor *cursor, size_t shared, const uint8_t *suffix,
                        size_t suffix_len)
{
    if (shared > cursor->key_len || suffix_len == 0 || shared + suffix_len > KEG_KEY_MAX)
        return false;
    return shared == cursor->key_len || suffix[0] > cursor->key[shared];
}

int hint_cursor_next(struct hint_cursor *cursor, struct hint_entry *entry)
{
    const uint8_t *in = cursor->bytes;
    size_t at = cursor->at, len = cursor->len;
    uint64_t shared, suffix_len;

    if (at == len)
        return 0;
    if (format_varint_get(in, len, &at, KEG_KEY_MAX, &shared) ||
        format_varint_get(in, len, &at, KEG_KEY_MAX, &suffix_len) || len - at < 2)
        return -EBADMSG;
    uint8_t type = in[at], meta_len = in[at + 1];
    at += 2;
    if (!format_type_valid(type) || (type == FORMAT_TOMBSTONE && meta_len))
        return -EBADMSG;
    *entry = (struct hint_entry){.type = (enum format_type)type};
    if (format_varint_get(in, len, &at, UINT64_MAX, &entry->sequence) || entry->sequence == 0)
        return -EBADMSG;
    if (type != FORMAT_TOMBSTONE && value_part_decode(cursor, &at, entry))
        return -EBADMSG;
    if (len - at < suffix_len + meta_len || !key_follows(cursor, shared, in + at, suffix_len))
        return -EBADMSG;
    memcpy(cursor->key + shared, in + at, suffix_len);
    cursor->key_len = shared + suffix_len;
    entry->key = (struct keg_bytes){cursor->key, cursor->key_len};
    entry->meta = (struct keg_bytes){in + at + suffix_len, meta_len};
    cursor->at = at + suffix_len + meta_len;
    return 1;
}

/* ---- Block index ---- */

size_t hint_ref_encode(uint8_t *out, const struct hint_ref *ref)
{
    size_t len = format_varint_put(out, ref->offset);

    len += format_varint_put(out + len, ref->len);
    len += format_varint_put(out + len, ref->key.len);
    memcpy(out + len, ref->key.data, ref->key.len);
    return len + ref->key.len;
}

uint32_t hint_index_crc(struct format_salt salt, uint64_t offset, const void *refs, size_t len)
{
    return format_salted_crc(salt, offset, refs, len);
}

int hint_ref_decode(const uint8_t *refs, size_t len, size_t *at, struct hint_ref *ref)
{
    uint64_t offset, block_len, key_len;
    size_t p = *at;

    if (format_varint_get(refs, len, &p, (uint64_t)INT64_MAX, &offset) ||
        format_varint_get(refs, len, &p, HINT_BLOCK_SIZE, &block_len) ||
        format_varint_get(refs, len, &p, KEG_KEY_MAX, &key_len))
        return -EBADMSG;
    if (offset < HINT_PREAMBLE_SIZE || block_len < ENTRY_MIN + CRC_SIZE || key_len == 0 ||
        len - p < key_len)
        return -EBADMSG;
    *ref = (struct hint_ref){{refs + p, key_len}, offset, (uint32_t)block_len};
    *at = p + key_len;
    return 0;
}
