/* SPDX-License-Identifier: MIT */
#include "crc.h"
#include "manifest.h"
#include "random.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENTS = 3 };

/* Out of order: the encoder sorts. */
static const struct manifest_segment some[SEGMENTS] = {
    {9, FORMAT_LOG, false, 4096, 80, 90},
    {3, FORMAT_COMPACTED, true, 1 << 20, 1, 60},
    {8, FORMAT_LOG, true, 64 << 20, 61, 79},
};

static uint8_t *encode(const struct manifest_segment *segments, size_t count, size_t *len)
{
    struct manifest_segment *copy = malloc((count + 1) * sizeof(*copy));
    struct manifest manifest = {
        .store = "0123456789abcdef",
        .next_segment = 10,
        .last_sequence = 99,
        .segments = copy,
        .count = count,
    };
    *len = manifest_size(count);
    uint8_t *out = malloc(*len);

    assert_non_null(copy);
    assert_non_null(out);
    if (count)
        memcpy(copy, segments, count * sizeof(*copy));
    memset(out, 0xa5, *len);
    manifest_encode(out, &manifest);
    free(copy);
    return out;
}

static void assert_is_some(const uint8_t *in, size_t len)
{
    struct manifest manifest;
    struct manifest_segment back[SEGMENTS];
    static const size_t order[SEGMENTS] = {1, 2, 0};
    size_t count = 0;

    assert_int_equal(manifest_decode(in, len, &manifest, &count), 0);
    assert_int_equal(count, SEGMENTS);
    assert_memory_equal(manifest.store, "0123456789abcdef", FORMAT_ID_SIZE);
    assert_true(manifest.next_segment == 10 && manifest.last_sequence == 99);
    manifest_segments(in, len, back);
    for (size_t i = 0; i < SEGMENTS; i++) {
        const struct manifest_segment *a = &some[order[i]], *b = &back[i];
        assert_true(a->id == b->id && a->kind == b->kind && a->sealed == b->sealed &&
                    a->length == b->length && a->first_sequence == b->first_sequence &&
                    a->last_sequence == b->last_sequence);
    }
}

static int decode(const uint8_t *in, size_t len)
{
    struct manifest manifest;
    size_t count;
    return manifest_decode(in, len, &manifest, &count);
}

static void round_trip(void **state)
{
    (void)state;
    size_t len;
    uint8_t *bytes = encode(some, SEGMENTS, &len);

    assert_int_equal(len, 2 * (64 + 40 * SEGMENTS));
    assert_memory_equal(bytes, bytes + len / 2, len / 2);
    assert_is_some(bytes, len);
    free(bytes);
}

static void an_empty_store(void **state)
{
    (void)state;
    struct manifest manifest;
    size_t len, count = 1;
    uint8_t *bytes = encode(NULL, 0, &len);

    assert_int_equal(manifest_decode(bytes, len, &manifest, &count), 0);
    assert_int_equal(count, 0);
    free(bytes);
}

static void many_segments(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    struct random random = random_seeded();
    struct manifest_segment *segments = calloc(MANY, sizeof(*segments)),
                            *back = calloc(MANY, sizeof(*back));
    struct manifest manifest = {.next_segment = UINT64_MAX,
                                .last_sequence = UINT64_MAX,
                                .segments = segments,
                                .count = MANY};
    size_t len = manifest_size(MANY), count;
    uint8_t *out = malloc(len), *again = malloc(len);

    assert_true(segments && back && out && again);
    for (size_t i = 0; i < MANY; i++) {
        uint64_t first = 1 + random_width(&random) / 2;
        /* A multiple of an odd number modulo 2^63: each once, in no order. */
        segments[i] = (struct manifest_segment){
            .id = 1 + ((uint64_t)i * 0x9e3779b97f4a7c15u & (uint64_t)INT64_MAX),
            .kind = i % 2 ? FORMAT_LOG : FORMAT_COMPACTED,
            .sealed = i % 3,
            .length = random_width(&random) / 2,
            .first_sequence = i % 5 ? first : 0,
            .last_sequence = i % 5 ? first + random_width(&random) / 2 : 0};
    }
    manifest_encode(out, &manifest);
    assert_int_equal(manifest_decode(out, len, &manifest, &count), 0);
    assert_int_equal(count, MANY);
    manifest_segments(out, len, back);
    manifest.segments = back;
    manifest.count = count;
    manifest_encode(again, &manifest);
    assert_memory_equal(out, again, len);
    free(segments);
    free(back);
    free(out);
    free(again);
}

/* One copy may be damaged in any bit, in all its bytes, or missing. */
static void one_copy_is_enough(void **state)
{
    (void)state;
    size_t len;
    uint8_t *bytes = encode(some, SEGMENTS, &len);

    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_is_some(bytes, len);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = len / 2; cut < len; cut++)
        assert_is_some(bytes, cut);
    uint8_t *kept = malloc(len);
    assert_non_null(kept);
    memcpy(kept, bytes, len);
    memset(bytes, 0, len / 2);
    assert_is_some(bytes, len);
    memset(bytes, 0xff, len / 2);
    assert_is_some(bytes, len);
    memset(kept + len / 2, 0, len / 2);
    assert_is_some(kept, len);
    free(kept);
    free(bytes);
}

static void two_damaged_copies_are_damage(void **state)
{
    (void)state;
    size_t len;
    uint8_t *bytes = encode(some, SEGMENTS, &len);
    struct random random = random_seeded();

    for (size_t bit = 0; bit < len / 2 * 8; bit++) {
        size_t other = random_below(&random, len / 2 * 8);
        uint8_t *second = bytes + len / 2 + other / 8;
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        *second ^= (uint8_t)(1 << other % 8);
        assert_int_equal(decode(bytes, len), -EBADMSG);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        *second ^= (uint8_t)(1 << other % 8);
    }
    for (size_t cut = 0; cut < len / 2; cut++) {
        uint8_t *exact = malloc(cut ? cut : 1);
        assert_non_null(exact);
        memcpy(exact, bytes, cut);
        assert_int_equal(decode(exact, cut), -EBADMSG);
        free(exact);
    }
    memset(bytes, 0, len);
    assert_int_equal(decode(bytes, len), -EBADMSG);
    free(bytes);
}

/* Field, value put into both copies, what the decoder must say. Segments follow from byte 56 on, 40
 * bytes each: ids 3, 8, 9. */
static const struct {
    size_t at, width;
    uint64_t value;
    int expect;
} forged[] = {
    {8, 4, 0, -EBADMSG},
    {8, 4, 2, -EPROTONOSUPPORT},
    {8, 4, 0xffffffff, -EPROTONOSUPPORT},
    {48, 4, 2, -EBADMSG},
    {48, 4, 4, -EBADMSG},
    {48, 4, 0xffffffff, -EBADMSG},
    {48, 4, SEGMENTS + 0x40000000u, -EBADMSG},
    {52, 1, 1, -EBADMSG},
    {32, 8, 9, -EBADMSG}, /* next segment is one of them */
    {32, 8, UINT64_MAX, 0},
    {56, 8, 0, -EBADMSG},
    {56, 8, 7, 0},
    {56, 8, 8, -EBADMSG},      /* twice */
    {56 + 40, 8, 2, -EBADMSG}, /* descending */
    {56 + 8, 4, 0, -EBADMSG},
    {56 + 8, 4, 3, -EBADMSG},
    {56 + 12, 4, 0, 0},
    {56 + 12, 4, 2, -EBADMSG},
    {56 + 12, 4, 0x101, -EBADMSG},
    {56 + 16, 8, INT64_MAX, 0},
    {56 + 16, 8, 1ull << 63, -EBADMSG},
    {56 + 24, 8, 0, -EBADMSG},
    {56 + 24, 8, 61, -EBADMSG},
    {56 + 32, 8, 0, -EBADMSG},
    {56 + 40 * SEGMENTS, 1, 1, -EBADMSG},
};

static void a_crc_that_fits_is_not_enough(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
        size_t len;
        uint8_t *bytes = encode(some, SEGMENTS, &len);
        size_t half = len / 2;
        for (size_t b = 0; b < forged[i].width; b++)
            bytes[forged[i].at + b] = (uint8_t)(forged[i].value >> (8 * b));
        format_put32(bytes + half - 4, crc_update(0, bytes, half - 4));
        memcpy(bytes + half, bytes, half);
        if (decode(bytes, len) != forged[i].expect)
            fail_msg("%llu at byte %zu gives %d", (unsigned long long)forged[i].value, forged[i].at,
                     decode(bytes, len));
        free(bytes);
    }
}

/* A copy's length is believed only within the file, and only with its CRC. */
static void lengths_are_bounded(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0,          1,           4,           63,
                                       0x7fffffff, 0x80000000u, 0xfffffffcu, 0xffffffffu};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        size_t len;
        uint8_t *bytes = encode(some, SEGMENTS, &len);
        format_put32(bytes + 12, lengths[i]);
        format_put32(bytes + len / 2 + 12, lengths[i]);
        assert_int_equal(decode(bytes, len), -EBADMSG);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(an_empty_store),
        cmocka_unit_test(many_segments),
        cmocka_unit_test(one_copy_is_enough),
        cmocka_unit_test(two_damaged_copies_are_damage),
        cmocka_unit_test(a_crc_that_fits_is_not_enough),
        cmocka_unit_test(lengths_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
