/* SPDX-License-Identifier: MIT */
/* The input behind its first byte is a segment from its first byte on: a header, frames, a footer.
 * What does not decode is stepped over, eight bytes at a time, as a recovery does. */
#include "crc.h"
#include "format.h"
#include "fuzz.h"

struct segment {
    uint8_t *bytes;
    size_t len;
    bool repair;
    struct format_salt salt;
};

static void try_header(struct segment *s)
{
    uint8_t again[FORMAT_SEGMENT_SIZE], *in = s->bytes;
    struct format_segment header;

    if (s->repair)
        format_put32(in + 60, crc_update(0, in, 60));
    if (format_segment_decode(in, &header))
        return;
    format_segment_encode(again, &header);
    FUZZ_CHECK(memcmp(again, in, sizeof(again)) == 0);
    FUZZ_CHECK(header.predecessor == 0 || header.predecessor < header.id);
}

static void try_record(const uint8_t *heads, size_t start, size_t end, uint64_t base,
                       const struct format_record *record)
{
    uint8_t again[FORMAT_HEAD_MAX];
    bool tombstone = record->type == FORMAT_TOMBSTONE;
    size_t size = format_record_size(record, base);

    FUZZ_CHECK(size == end - start && size <= sizeof(again));
    FUZZ_CHECK(format_record_encode(again, record, base) == size);
    FUZZ_CHECK(memcmp(again, heads + start, size) == 0);
    FUZZ_CHECK(record->sequence >= base && record->value_len <= KEG_VALUE_MAX);
    FUZZ_CHECK(record->key.len >= 1 && record->key.len <= KEG_KEY_MAX);
    FUZZ_CHECK((const uint8_t *)record->meta.data + record->meta.len == heads + end);
    FUZZ_CHECK(!tombstone || (record->value_len == 0 && record->meta.len == 0));
    FUZZ_CHECK(
        format_record_size(record, record->sequence) +
            (record->type == FORMAT_PUT ? format_stored_len(record->value_len) : 0) ==
        format_record_cost(record->key.len, record->meta.len, record->value_len, record->type));
    FUZZ_CHECK(record->type != FORMAT_LOST || (record->value_len > 0 && record->crc == 0));
}

static void try_heads(const struct segment *s, size_t at, const struct format_frame *frame)
{
    /* In memory of their own, so that a read past them is seen. */
    uint8_t *heads = fuzz_copy(s->bytes + at + FORMAT_FRAME_SIZE, frame->heads_len);
    size_t p = 0;

    for (uint32_t i = 0; i < frame->count; i++) {
        struct format_record record;
        size_t start = p;
        if (format_record_decode(heads, frame->heads_len, &p, frame->sequence, &record)) {
            FUZZ_CHECK(p == start);
            break;
        }
        try_record(heads, start, p, frame->sequence, &record);
    }
    free(heads);
}

static void repair_frame(const struct segment *s, size_t at)
{
    uint8_t *in = s->bytes + at;

    format_put32(in + 36, format_salted_crc(s->salt, at, in, 36));
}

/* Bytes to the next frame, 0 if there is none at `at`. */
static size_t try_frame(const struct segment *s, size_t at)
{
    uint8_t again[FORMAT_FRAME_SIZE], *in = s->bytes + at;
    size_t left = s->len - at - FORMAT_FRAME_SIZE;
    struct format_frame frame;

    if (s->repair)
        repair_frame(s, at);
    if (format_frame_decode(in, s->salt, at, &frame))
        return 0;
    FUZZ_CHECK(frame.count >= 1 && frame.length <= FORMAT_FRAME_MAX);
    FUZZ_CHECK((uint64_t)frame.heads_len + FORMAT_FRAME_SIZE <= frame.length);
    if (frame.heads_len <= left) {
        uint32_t crc = format_heads_crc(s->salt, at, in + FORMAT_FRAME_SIZE, frame.heads_len);
        if (s->repair) {
            format_put32(in + 32, crc);
            repair_frame(s, at);
            FUZZ_CHECK(format_frame_decode(in, s->salt, at, &frame) == 0);
        }
        if (frame.heads_crc == crc)
            try_heads(s, at, &frame);
    }
    format_frame_encode(again, s->salt, at, &frame);
    FUZZ_CHECK(memcmp(again, in, sizeof(again)) == 0);
    uint64_t span = format_frame_span(&frame);
    FUZZ_CHECK(span >= frame.length && span % FORMAT_ALIGN == 0);
    return (size_t)span;
}

static size_t try_footer(const struct segment *s, size_t at)
{
    uint8_t again[FORMAT_FOOTER_SIZE], *in = s->bytes + at;
    struct format_footer footer;

    if (s->repair)
        format_put32(in + 52, format_salted_crc(s->salt, at, in, 52));
    if (format_footer_decode(in, s->salt, at, &footer))
        return 0;
    format_footer_encode(again, s->salt, &footer);
    FUZZ_CHECK(memcmp(again, in, sizeof(again)) == 0);
    FUZZ_CHECK(footer.length == at);
    return FORMAT_FOOTER_SIZE;
}

/* Both decoders may look at one place, and what one repairs the other does not see. */
static size_t try_place(const struct segment *s, size_t at)
{
    uint8_t before[FORMAT_FOOTER_SIZE];
    size_t left = s->len - at, keep = left < sizeof(before) ? left : sizeof(before);
    size_t span;

    memcpy(before, s->bytes + at, keep);
    span = left >= FORMAT_FRAME_SIZE ? try_frame(s, at) : 0;
    if (span)
        return span;
    memcpy(s->bytes + at, before, keep);
    span = left >= FORMAT_FOOTER_SIZE ? try_footer(s, at) : 0;
    if (!span)
        memcpy(s->bytes + at, before, keep);
    return span ? span : FORMAT_ALIGN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1 + FORMAT_SEGMENT_SIZE || len > FUZZ_MAX)
        return 0;
    struct segment s = {fuzz_copy(data + 1, len - 1), len - 1, data[0] & FUZZ_REPAIR, {0}};
    s.salt = format_salt(s.bytes + 16, format_get64(s.bytes + 32));
    try_header(&s);
    for (size_t at = FORMAT_SEGMENT_SIZE; at < s.len;) {
        size_t span = try_place(&s, at);
        at = span < s.len - at ? at + span : s.len;
    }
    free(s.bytes);
    return 0;
}
