/* SPDX-License-Identifier: MIT */
#include "crc.h"
#include "format.h"
#include "random.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t store_id[FORMAT_ID_SIZE] = "0123456789abcdef";
static const uint8_t other_id[FORMAT_ID_SIZE] = "0123456789abcdeg";

static struct format_salt salt7(void)
{
    return format_salt(store_id, 7);
}

/* ---- Varints ---- */

static void varints_of_every_length(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        for (int step = -1; step <= 1; step++) {
            uint64_t v = ((uint64_t)1 << bit) + (uint64_t)(int64_t)step, back;
            uint8_t bytes[10];
            size_t at = 0, len = format_varint_put(bytes, v);
            assert_int_equal(len, format_varint_size(v));
            assert_int_equal(format_varint_get(bytes, len, &at, UINT64_MAX, &back), 0);
            assert_true(back == v && at == len);
            at = 0;
            assert_int_equal(format_varint_get(bytes, len - 1, &at, UINT64_MAX, &back), -EBADMSG);
            assert_int_equal(at, 0);
            if (v)
                assert_int_equal(format_varint_get(bytes, len, &at, v - 1, &back), -EBADMSG);
            assert_int_equal(format_varint_get(bytes, len, &at, v, &back), 0);
        }
    }
}

static void varints_have_one_form(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[11];
        size_t len;
    } bad[] = {
        {{0x80, 0x00}, 2},
        {{0xff, 0x80, 0x00}, 3},
        {{0x81, 0x80, 0x80, 0x00}, 4},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, 10},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0x00}, 11},
        {{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, 11},
        {{0x80}, 1},
        {{0}, 0},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        size_t at = 0;
        uint64_t v;
        assert_int_equal(format_varint_get(bad[i].bytes, bad[i].len, &at, UINT64_MAX, &v),
                         -EBADMSG);
    }
}

/* ---- Structures of a fixed size ---- */

static const struct format_segment a_segment = {
    .store = "0123456789abcdef",
    .id = 7,
    .kind = FORMAT_LOG,
    .predecessor = 5,
    .last_sequence = 1000,
};
static const struct format_frame a_frame = {
    .length = 40 + 30 + 100,
    .heads_len = 30,
    .count = 2,
    .heads_crc = 0xdeadbeef,
    .sequence = 1001,
    .durable = 64,
};
static const struct format_footer a_footer = {4096, 12, 1001, 1012};

static int decode_segment(const uint8_t *in)
{
    struct format_segment segment;
    return format_segment_decode(in, &segment);
}

static int decode_frame(const uint8_t *in)
{
    struct format_frame frame;
    return format_frame_decode(in, salt7(), 4096, &frame);
}

static int decode_footer(const uint8_t *in)
{
    struct format_footer footer;
    return format_footer_decode(in, salt7(), 4096, &footer);
}

/* One row for each structure of a fixed size; its last four bytes are its CRC. */
static struct fixed {
    const char *name;
    size_t size;
    int (*decode)(const uint8_t *in);
    bool salted;
    uint8_t bytes[FORMAT_SEGMENT_SIZE];
} fixed[] = {
    {"segment", FORMAT_SEGMENT_SIZE, decode_segment, false, {0}},
    {"frame", FORMAT_FRAME_SIZE, decode_frame, true, {0}},
    {"footer", FORMAT_FOOTER_SIZE, decode_footer, true, {0}},
};
enum { FIXED = sizeof(fixed) / sizeof(*fixed) };

static int encode_fixed(void **state)
{
    (void)state;
    format_segment_encode(fixed[0].bytes, &a_segment);
    format_frame_encode(fixed[1].bytes, salt7(), 4096, &a_frame);
    format_footer_encode(fixed[2].bytes, salt7(), &a_footer);
    return 0;
}

static void repair(const struct fixed *f, uint8_t *bytes)
{
    size_t len = f->size - 4;
    format_put32(bytes + len, f->salted ? format_salted_crc(salt7(), 4096, bytes, len)
                                        : crc_update(0, bytes, len));
}

static void fixed_ones_decode(void **state)
{
    (void)state;
    struct format_segment segment;
    assert_int_equal(format_segment_decode(fixed[0].bytes, &segment), 0);
    assert_memory_equal(segment.store, store_id, FORMAT_ID_SIZE);
    assert_true(segment.id == 7 && segment.kind == FORMAT_LOG && segment.predecessor == 5 &&
                segment.last_sequence == 1000);
    struct format_frame frame;
    assert_int_equal(format_frame_decode(fixed[1].bytes, salt7(), 4096, &frame), 0);
    assert_memory_equal(&frame, &a_frame, sizeof(frame));
    struct format_footer footer;
    assert_int_equal(format_footer_decode(fixed[2].bytes, salt7(), 4096, &footer), 0);
    assert_memory_equal(&footer, &a_footer, sizeof(footer));
}

static void every_flipped_bit_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIXED; i++) {
        for (size_t bit = 0; bit < fixed[i].size * 8; bit++) {
            uint8_t bytes[FORMAT_SEGMENT_SIZE];
            memcpy(bytes, fixed[i].bytes, fixed[i].size);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(fixed[i].decode(bytes), -EBADMSG);
        }
    }
}

static void zeros_and_ones_never_decode(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIXED; i++) {
        uint8_t bytes[FORMAT_SEGMENT_SIZE] = {0};
        assert_int_equal(fixed[i].decode(bytes), -EBADMSG);
        repair(&fixed[i], bytes);
        assert_int_equal(fixed[i].decode(bytes), -EBADMSG);
        memset(bytes, 0xff, sizeof(bytes));
        assert_int_equal(fixed[i].decode(bytes), -EBADMSG);
        repair(&fixed[i], bytes);
        assert_int_equal(fixed[i].decode(bytes), -EBADMSG);
        /* Nor does a structure whose second part was never written. */
        for (size_t len = 0; len < fixed[i].size; len++) {
            memcpy(bytes, fixed[i].bytes, fixed[i].size);
            memset(bytes + len, 0, fixed[i].size - len);
            assert_int_equal(fixed[i].decode(bytes), -EBADMSG);
        }
    }
}

/* A structure behind a CRC that fits: field, value put there, what the decoder must say. */
static const struct {
    size_t of, at, width;
    uint64_t value;
    int expect;
} forged[] = {
    /* segment */
    {0, 8, 4, 0, -EBADMSG},
    {0, 8, 4, 1, 0},
    {0, 8, 4, 2, -EPROTONOSUPPORT},
    {0, 8, 4, 0xffffffff, -EPROTONOSUPPORT},
    {0, 12, 4, 0, -EBADMSG},
    {0, 12, 4, 3, -EBADMSG},
    {0, 12, 4, 0x101, -EBADMSG},
    {0, 12, 4, FORMAT_COMPACTED, -EBADMSG}, /* with a predecessor */
    {0, 40, 8, 6, 0},
    {0, 40, 8, 7, -EBADMSG},
    {0, 40, 8, UINT64_MAX, -EBADMSG},
    {0, 32, 8, UINT64_MAX, 0},
    {0, 48, 8, UINT64_MAX, 0},
    {0, 56, 1, 1, -EBADMSG},
    {0, 59, 1, 0x80, -EBADMSG},
    /* frame: length, count, heads_len, sequence, durable */
    {1, 4, 4, 70, 0},
    {1, 4, 4, 69, -EBADMSG},
    {1, 4, 4, FORMAT_FRAME_MAX, 0},
    {1, 4, 4, FORMAT_FRAME_MAX + 1, -EBADMSG},
    {1, 4, 4, 0x80000000u, -EBADMSG},
    {1, 4, 4, 0xffffffffu, -EBADMSG},
    {1, 8, 4, 0, -EBADMSG},
    {1, 8, 4, 5, 0},
    {1, 8, 4, 6, -EBADMSG},
    {1, 8, 4, 0xffffffffu, -EBADMSG},
    {1, 12, 4, 11, -EBADMSG},
    {1, 12, 4, 12, 0},
    {1, 12, 4, 0xffffffffu, -EBADMSG},
    {1, 12, 4, 0xffffffd8u, -EBADMSG}, /* + 40 is 0 in 32 bits */
    {1, 16, 8, 0, -EBADMSG},
    {1, 16, 8, UINT64_MAX, 0},
    {1, 24, 8, 4096, 0},
    {1, 24, 8, 4097, -EBADMSG},
    {1, 24, 8, UINT64_MAX, -EBADMSG},
    /* footer */
    {2, 4, 1, 1, -EBADMSG},
    {2, 8, 8, 4088, -EBADMSG},
    {2, 16, 8, 0, -EBADMSG}, /* no records, but sequences */
    {2, 24, 8, 0, -EBADMSG},
    {2, 24, 8, 1012, 0},
    {2, 24, 8, 1013, -EBADMSG},
    {2, 32, 8, 0, -EBADMSG},
    {2, 32, 8, UINT64_MAX, 0},
    {2, 40, 1, 1, -EBADMSG},
    {2, 47, 1, 1, -EBADMSG},
    {2, 48, 1, 1, -EBADMSG},
};

static void a_crc_that_fits_is_not_enough(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
        const struct fixed *f = &fixed[forged[i].of];
        uint8_t bytes[FORMAT_SEGMENT_SIZE];
        memcpy(bytes, f->bytes, f->size);
        for (size_t b = 0; b < forged[i].width; b++)
            bytes[forged[i].at + b] = (uint8_t)(forged[i].value >> (8 * b));
        repair(f, bytes);
        if (f->decode(bytes) != forged[i].expect)
            fail_msg("%s: %llu at byte %zu gives %d", f->name, (unsigned long long)forged[i].value,
                     forged[i].at, f->decode(bytes));
    }
}

static void heads_are_bounded_by_their_count(void **state)
{
    (void)state;
    struct format_frame frame = {.count = 1, .sequence = 1}, back;
    uint8_t bytes[FORMAT_FRAME_SIZE];

    for (uint32_t len = FORMAT_HEAD_MAX; len <= FORMAT_HEAD_MAX + 1; len++) {
        frame.heads_len = len;
        frame.length = FORMAT_FRAME_SIZE + len;
        format_frame_encode(bytes, salt7(), 64, &frame);
        assert_int_equal(format_frame_decode(bytes, salt7(), 64, &back),
                         len > FORMAT_HEAD_MAX ? -EBADMSG : 0);
    }
}

static void salt_ties_bytes_to_their_place(void **state)
{
    (void)state;
    struct format_frame frame;
    struct format_footer footer;
    const struct {
        struct format_salt salt;
        uint64_t offset;
    } elsewhere[] = {
        {format_salt(other_id, 7), 4096},
        {format_salt(store_id, 8), 4096},
        {format_salt(store_id, 7 | 1ull << 63), 4096},
        {salt7(), 4104},
        {salt7(), 4096 | 1ull << 32},
        {salt7(), 4096 | 1ull << 63},
    };
    for (size_t i = 0; i < sizeof(elsewhere) / sizeof(*elsewhere); i++) {
        struct format_salt salt = elsewhere[i].salt;
        uint64_t at = elsewhere[i].offset;
        assert_int_equal(format_frame_decode(fixed[1].bytes, salt, at, &frame), -EBADMSG);
        assert_int_equal(format_footer_decode(fixed[2].bytes, salt, at, &footer), -EBADMSG);
        assert_int_not_equal(format_heads_crc(salt, at, "heads", 5),
                             format_heads_crc(salt7(), 4096, "heads", 5));
    }
}

static void compacted_segments_do_not_chain(void **state)
{
    (void)state;
    struct format_segment segment = a_segment, back;
    uint8_t bytes[FORMAT_SEGMENT_SIZE];

    segment.kind = FORMAT_COMPACTED;
    format_segment_encode(bytes, &segment);
    assert_int_equal(format_segment_decode(bytes, &back), 0);
    assert_true(back.kind == FORMAT_COMPACTED && back.predecessor == 0 && back.last_sequence == 0);
}

static void an_empty_segment_has_a_footer(void **state)
{
    (void)state;
    struct format_footer footer = {FORMAT_SEGMENT_SIZE, 0, 0, 0}, back;
    uint8_t bytes[FORMAT_FOOTER_SIZE];

    format_footer_encode(bytes, salt7(), &footer);
    assert_int_equal(format_footer_decode(bytes, salt7(), FORMAT_SEGMENT_SIZE, &back), 0);
    footer.length = 0;
    format_footer_encode(bytes, salt7(), &footer);
    assert_int_equal(format_footer_decode(bytes, salt7(), 0, &back), -EBADMSG);
    footer.length = 4097;
    format_footer_encode(bytes, salt7(), &footer);
    assert_int_equal(format_footer_decode(bytes, salt7(), 4097, &back), -EBADMSG);
}

static void spans_are_aligned(void **state)
{
    (void)state;
    static const uint64_t rows[][2] = {
        {47, 48}, {48, 48}, {49, 56}, {0xfffffff8u, 0xfffffff8u}, {0xffffffffu, 0x100000000u}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct format_frame frame = {.length = (uint32_t)rows[i][0]};
        assert_true(format_frame_span(&frame) == rows[i][1]);
    }
}

static void the_polynomial_is_zlibs(void **state)
{
    (void)state;
    assert_int_equal(crc_update(0, "123456789", 9), 0xcbf43926u);
    assert_int_equal(crc_update(crc_update(0, "1234", 4), "56789", 5), 0xcbf43926u);
    assert_int_equal(crc_update(5, NULL, 0), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_polynomial_is_zlibs),
        cmocka_unit_test(varints_of_every_length),
        cmocka_unit_test(varints_have_one_form),
        cmocka_unit_test(fixed_ones_decode),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(zeros_and_ones_never_decode),
        cmocka_unit_test(a_crc_that_fits_is_not_enough),
        cmocka_unit_test(heads_are_bounded_by_their_count),
        cmocka_unit_test(salt_ties_bytes_to_their_place),
        cmocka_unit_test(compacted_segments_do_not_chain),
        cmocka_unit_test(an_empty_segment_has_a_footer),
        cmocka_unit_test(spans_are_aligned),
    };
    return cmocka_run_group_tests(tests, encode_fixed, NULL);
}
