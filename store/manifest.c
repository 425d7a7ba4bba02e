/* SPDX-License-Identifier: MIT */
/*
 * The file has two equal copies, one behind the other, so that one bad sector does not take the
 * store with it. Each says how long it is, in a place that no later version moves, so that the CRC
 * of a newer version's copy can be checked before it is called newer and not damaged. The second
 * copy begins at half the file's length, which needs nothing from the first.
 */
#include "manifest.h"
#include "crc.h"
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_SIZE = 56,
    ENTRY_SIZE = 40,
    TAIL_SIZE = 8, /* zero, CRC */
    COPY_MIN = HEADER_SIZE + TAIL_SIZE,
};

static const char magic[8] = "KEGMANI\n";

_Static_assert(HEADER_SIZE == sizeof(magic) + 4 + 4 + FORMAT_ID_SIZE + 2 * 8 + 4 + 4, "header");
_Static_assert((uint64_t)MANIFEST_SEGMENTS_MAX *ENTRY_SIZE + COPY_MIN <= INT32_MAX,
               "a copy's length fits its field");

static size_t copy_size(size_t count)
{
    return COPY_MIN + count * ENTRY_SIZE;
}

size_t manifest_size(size_t count)
{
    return 2 * copy_size(count);
}

/* ---- Encoding ---- */

static int by_id(const void *a, const void *b)
{
    const struct manifest_segment *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static void entry_encode(uint8_t *out, const struct manifest_segment *segment)
{
    format_put64(out, segment->id);
    format_put32(out + 8, segment->kind);
    format_put32(out + 12, segment->sealed);
    format_put64(out + 16, segment->length);
    format_put64(out + 24, segment->first_sequence);
    format_put64(out + 32, segment->last_sequence);
}

void manifest_encode(uint8_t *out, const struct manifest *manifest)
{
    size_t size = copy_size(manifest->count);

    if (manifest->count)
        qsort(manifest->segments, manifest->count, sizeof(*manifest->segments), by_id);
    memcpy(out, magic, 8);
    format_put32(out + 8, FORMAT_VERSION);
    format_put32(out + 12, (uint32_t)size);
    memcpy(out + 16, manifest->store, FORMAT_ID_SIZE);
    format_put64(out + 32, manifest->next_segment);
    format_put64(out + 40, manifest->last_sequence);
    format_put32(out + 48, (uint32_t)manifest->count);
    format_put32(out + 52, 0);
    for (size_t i = 0; i < manifest->count; i++)
        entry_encode(out + HEADER_SIZE + i * ENTRY_SIZE, &manifest->segments[i]);
    format_put32(out + size - 8, 0);
    format_put32(out + size - 4, crc_update(0, out, size - 4));
    memcpy(out + size, out, size);
}

/* ---- Decoding ---- */

static int entry_decode(const uint8_t *in, struct manifest_segment *segment)
{
    uint32_t kind = format_get32(in + 8), sealed = format_get32(in + 12);

    *segment = (struct manifest_segment){
        .id = format_get64(in),
        .kind = (enum format_kind)kind,
        .sealed = sealed == 1,
        .length = format_get64(in + 16),
        .first_sequence = format_get64(in + 24),
        .last_sequence = format_get64(in + 32),
    };
    bool any = segment->first_sequence || segment->last_sequence;
    if (!format_kind_valid(kind) || sealed > 1 || segment->id == 0 ||
        segment->length > (uint64_t)INT64_MAX ||
        !format_sequences_valid(any, segment->first_sequence, segment->last_sequence))
        return -EBADMSG;
    return 0;
}

static int entries_check(const uint8_t *in, size_t count, uint64_t next_segment)
{
    uint64_t last = 0;

    for (size_t i = 0; i < count; i++) {
        struct manifest_segment segment;
        if (entry_decode(in + i * ENTRY_SIZE, &segment) || segment.id <= last ||
            segment.id >= next_segment)
            return -EBADMSG;
        last = segment.id;
    }
    return 0;
}

/* The copy that begins at in; len bytes are there. */
static int copy_decode(const uint8_t *in, size_t len, struct manifest *manifest, size_t *count)
{
    if (len < COPY_MIN || memcmp(in, magic, 8) != 0)
        return -EBADMSG;
    uint32_t version = format_get32(in + 8), size = format_get32(in + 12);
    if (size < COPY_MIN || size > len || format_get32(in + size - 4) != crc_update(0, in, size - 4))
        return -EBADMSG;
    if (version > FORMAT_VERSION)
        return -EPROTONOSUPPORT;

    uint32_t n = format_get32(in + 48);
    if (version != FORMAT_VERSION || format_get32(in + 52) || format_get32(in + size - 8) ||
        n > MANIFEST_SEGMENTS_MAX || copy_size(n) != size)
        return -EBADMSG;
    *manifest = (struct manifest){
        .next_segment = format_get64(in + 32),
        .last_sequence = format_get64(in + 40),
    };
    memcpy(manifest->store, in + 16, FORMAT_ID_SIZE);
    *count = n;
    return entries_check(in + HEADER_SIZE, n, manifest->next_segment);
}

/* Finds the copy that counts: *at is where it begins. */
static int find(const uint8_t *in, size_t len, size_t *at, struct manifest *manifest, size_t *count)
{
    *at = 0;
    int err = copy_decode(in, len, manifest, count);
    if (err != -EBADMSG)
        return err;
    *at = len / 2;
    return copy_decode(in + *at, len - *at, manifest, count);
}

int manifest_decode(const uint8_t *in, size_t len, struct manifest *manifest, size_t *count)
{
    size_t at;
    return find(in, len, &at, manifest, count);
}

void manifest_segments(const uint8_t *in, size_t len, struct manifest_segment *segments)
{
    struct manifest manifest;
    size_t at, count;

    if (find(in, len, &at, &manifest, &count))
        return;
    for (size_t i = 0; i < count; i++)
        if (entry_decode(in + at + HEADER_SIZE + i * ENTRY_SIZE, &segments[i]))
            return;
}
