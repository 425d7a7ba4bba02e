/* SPDX-License-Identifier: MIT */
/* The input behind its first byte is a MANIFEST. */
#include "manifest.h"
#include "crc.h"
#include "fuzz.h"

/* Makes the CRC fit of the copy at `at`, if its length can be believed. */
static void repair(uint8_t *bytes, size_t len, size_t at)
{
    if (len - at < 64)
        return;
    uint32_t size = format_get32(bytes + at + 12);
    if (size >= 64 && size <= len - at)
        format_put32(bytes + at + size - 4, crc_update(0, bytes + at, size - 4));
}

static void check_segments(const struct manifest *manifest)
{
    uint64_t last = 0;

    for (size_t i = 0; i < manifest->count; i++) {
        const struct manifest_segment *segment = &manifest->segments[i];
        FUZZ_CHECK(segment->id > last && segment->id < manifest->next_segment);
        FUZZ_CHECK(segment->first_sequence <= segment->last_sequence);
        FUZZ_CHECK((segment->first_sequence == 0) == (segment->last_sequence == 0));
        FUZZ_CHECK(segment->length <= INT64_MAX);
        last = segment->id;
    }
}

static void try_sound(const uint8_t *bytes, size_t len, struct manifest *manifest, size_t count)
{
    size_t size = manifest_size(count), half = size / 2;

    FUZZ_CHECK(half <= len && count <= len);
    manifest->count = count;
    manifest->segments = calloc(count + 1, sizeof(*manifest->segments));
    uint8_t *again = malloc(size);
    FUZZ_CHECK(manifest->segments && again);
    manifest_segments(bytes, len, manifest->segments);
    check_segments(manifest);
    manifest_encode(again, manifest);
    FUZZ_CHECK(memcmp(again, again + half, half) == 0);
    FUZZ_CHECK(memcmp(again, bytes, half) == 0 ||
               (half <= len - len / 2 && memcmp(again, bytes + len / 2, half) == 0));
    free(again);
    free(manifest->segments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1 || len > FUZZ_MAX)
        return 0;
    uint8_t *bytes = fuzz_copy(data + 1, len - 1);
    struct manifest manifest;
    size_t count;

    len--;
    if (data[0] & FUZZ_REPAIR) {
        repair(bytes, len, len / 2);
        repair(bytes, len, 0);
    }
    if (manifest_decode(bytes, len, &manifest, &count) == 0)
        try_sound(bytes, len, &manifest, count);
    free(bytes);
    return 0;
}
