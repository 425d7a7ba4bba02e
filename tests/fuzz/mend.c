/* SPDX-License-Identifier: MIT */
#include "mend.h"
#include "crc.h"
#include "hint.h"

/* Makes the CRCs of the index and of the blocks fit that the trailer and the refs lead to. */
static void mend_inside(uint8_t *bytes, size_t end, const struct hint_trailer *trailer)
{
    struct format_salt salt = format_salt(trailer->info.store, trailer->info.segment);
    struct hint_ref ref;

    if (trailer->index_offset > end || trailer->index_len > end - trailer->index_offset)
        return;
    uint8_t *refs = bytes + trailer->index_offset;
    size_t len = (size_t)trailer->index_len - 4, at = 0, next = HINT_PREAMBLE_SIZE;
    format_put32(refs + len, hint_index_crc(salt, trailer->index_offset, refs, len));
    while (at < len && hint_ref_decode(refs, len, &at, &ref) == 0) {
        if (ref.offset != next || ref.len > trailer->index_offset - next)
            return;
        uint8_t *block = bytes + next;
        format_put32(block + ref.len - 4, format_salted_crc(salt, next, block, ref.len - 4));
        next += ref.len;
    }
}

void mend_hint(uint8_t *bytes, size_t len)
{
    if (len < HINT_PREAMBLE_SIZE + HINT_TRAILER_SIZE)
        return;
    uint8_t *in = bytes + len - HINT_TRAILER_SIZE;
    struct hint_trailer trailer;

    format_put32(bytes + 12, crc_update(0, bytes, 12));
    format_put32(in + 124, crc_update(0, in, 124));
    if (hint_trailer_decode(in, &trailer) == 0)
        mend_inside(bytes, len - HINT_TRAILER_SIZE, &trailer);
}

/* A footer may stand where a frame could; what says which it is, is the magic. */
static size_t mend_frame(uint8_t *bytes, size_t at, size_t len, struct format_salt salt)
{
    uint8_t *in = bytes + at;
    size_t left = len - at;
    struct format_frame frame;

    if (left >= FORMAT_FOOTER_SIZE && in[1] == 'F' && in[2] == 'T') {
        format_put32(in + 52, format_salted_crc(salt, at, in, 52));
        return FORMAT_FOOTER_SIZE;
    }
    if (left < FORMAT_FRAME_SIZE)
        return left;
    uint32_t heads_len = format_get32(in + 12);
    if (in[0] != 'K' || heads_len > left - FORMAT_FRAME_SIZE)
        return FORMAT_ALIGN;
    format_put32(in + 32, format_heads_crc(salt, at, in + FORMAT_FRAME_SIZE, heads_len));
    format_put32(in + 36, format_salted_crc(salt, at, in, 36));
    if (format_frame_decode(in, salt, at, &frame))
        return FORMAT_ALIGN;
    return (size_t)format_frame_span(&frame);
}

void mend_segment(uint8_t *bytes, size_t len)
{
    if (len < FORMAT_SEGMENT_SIZE)
        return;
    struct format_salt salt = format_salt(bytes + 16, format_get64(bytes + 32));
    format_put32(bytes + 60, crc_update(0, bytes, 60));
    for (size_t at = FORMAT_SEGMENT_SIZE; at < len;) {
        size_t span = mend_frame(bytes, at, len, salt);
        at = span < len - at ? at + span : len;
    }
}

static void mend_copy(uint8_t *bytes, size_t len)
{
    if (len < 16)
        return;
    uint32_t size = format_get32(bytes + 12);
    if (size >= 16 && size <= len)
        format_put32(bytes + size - 4, crc_update(0, bytes, size - 4));
}

void mend_manifest(uint8_t *bytes, size_t len)
{
    mend_copy(bytes, len);
    mend_copy(bytes + len / 2, len - len / 2);
}
