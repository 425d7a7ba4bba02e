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

/* ---- Records ---- */

static uint8_t key_bytes[KEG_KEY_MAX], meta_bytes[KEG_META_MAX];

static struct format_record put(size_t key_len, size_t meta_len, uint32_t value_len,
                                uint64_t sequence)
{
    return (struct format_record){
        .type = FORMAT_PUT,
        .value_len = value_len,
        .crc = value_len ? 0x01020304 : 0,
        .sequence = sequence,
        .key = {key_bytes, key_len},
        .meta = {meta_bytes, meta_len},
    };
}

static void assert_record_equal(const struct format_record *a, const struct format_record *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->value_len, b->value_len);
    assert_int_equal(a->crc, b->crc);
    assert_true(a->sequence == b->sequence);
    assert_int_equal(a->key.len, b->key.len);
    assert_memory_equal(a->key.data, b->key.data, a->key.len);
    assert_int_equal(a->meta.len, b->meta.len);
    if (a->meta.len)
        assert_memory_equal(a->meta.data, b->meta.data, a->meta.len);
}

/* Encodes, decodes, and sees every shorter piece refused, in memory that ends where it ends. */
static void round_trip(const struct format_record *record, uint64_t base)
{
    uint8_t out[FORMAT_HEAD_MAX];
    struct format_record back;
    size_t len = format_record_encode(out, record, base), at = 0;

    assert_int_equal(len, format_record_size(record, base));
    assert_in_range(len, 1, FORMAT_HEAD_MAX);
    assert_int_equal(format_record_decode(out, len, &at, base, &back), 0);
    assert_int_equal(at, len);
    assert_record_equal(record, &back);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *exact = malloc(cut ? cut : 1);
        assert_non_null(exact);
        memcpy(exact, out, cut);
        at = 0;
        assert_int_equal(format_record_decode(exact, cut, &at, base, &back), -EBADMSG);
        assert_int_equal(at, 0);
        free(exact);
    }
}

static void records_at_their_limits(void **state)
{
    (void)state;
    static const uint64_t deltas[] = {
        0, 1, 127, 128, 1ull << 31, 1ull << 32, (1ull << 63) - 1, UINT64_MAX - 1};
    static const uint32_t values[] = {0, 1, 127, 128, KEG_BLOCK, KEG_BLOCK + 1, KEG_VALUE_MAX};
    static const size_t keys[] = {1, 2, 255, 256, KEG_KEY_MAX};
    static const size_t metas[] = {0, 1, KEG_META_MAX};

    for (size_t i = 0; i < FORMAT_HEAD_MAX; i++) {
        key_bytes[i % KEG_KEY_MAX] = (uint8_t)(i * 7);
        meta_bytes[i % KEG_META_MAX] = (uint8_t)(i * 13);
    }
    for (size_t d = 0; d < sizeof(deltas) / sizeof(*deltas); d++)
        for (size_t v = 0; v < sizeof(values) / sizeof(*values); v++)
            for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
                struct format_record record =
                    put(keys[k], metas[(d + v + k) % 3], values[v], 1 + deltas[d]);
                round_trip(&record, 1);
            }
    struct format_record tombstone = {
        .type = FORMAT_TOMBSTONE, .sequence = UINT64_MAX, .key = {key_bytes, KEG_KEY_MAX}};
    round_trip(&tombstone, 1);
    round_trip(&tombstone, UINT64_MAX);
    struct format_record biggest = put(KEG_KEY_MAX, KEG_META_MAX, KEG_VALUE_MAX, UINT64_MAX);
    assert_in_range(format_record_size(&biggest, 1), FORMAT_HEAD_MAX - 1, FORMAT_HEAD_MAX);
}

static void record_bytes_are_these(void **state)
{
    (void)state;
    static const uint8_t put_bytes[] = {1, 2, 3, 0,   0xac, 0x02, 0x05, 4,
                                        3, 2, 1, 'k', 'e',  'y',  'm',  't'};
    static const uint8_t empty_bytes[] = {1, 0, 1, 0, 0, 0, 'k'};
    static const uint8_t tombstone_bytes[] = {2, 0, 3, 0, 1, 'k', 'e', 'y'};
    uint8_t out[FORMAT_HEAD_MAX];
    struct format_record record = {FORMAT_PUT, 5, 0x01020304, 1300, {"key", 3}, {"mt", 2}};

    assert_int_equal(format_record_encode(out, &record, 1000), sizeof(put_bytes));
    assert_memory_equal(out, put_bytes, sizeof(put_bytes));
    record = (struct format_record){FORMAT_PUT, 0, 0, 1000, {"key", 1}, {NULL, 0}};
    assert_int_equal(format_record_encode(out, &record, 1000), sizeof(empty_bytes));
    assert_memory_equal(out, empty_bytes, sizeof(empty_bytes));
    /* A tombstone drops what it cannot have. */
    record = (struct format_record){FORMAT_TOMBSTONE, 5, 6, 1001, {"key", 3}, {"mt", 2}};
    assert_int_equal(format_record_encode(out, &record, 1000), sizeof(tombstone_bytes));
    assert_int_equal(format_record_size(&record, 1000), sizeof(tombstone_bytes));
    assert_memory_equal(out, tombstone_bytes, sizeof(tombstone_bytes));
}

static void bad_records_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *why;
        uint8_t bytes[16];
        uint64_t base;
    } bad[] = {
        {"type 0", {0, 0, 1, 0, 0, 0, 'k'}, 1},
        {"type 3", {3, 0, 1, 0, 0, 0, 'k'}, 1},
        {"type 0x81", {0x81, 0, 1, 0, 0, 0, 'k'}, 1},
        {"key of no bytes", {1, 0, 0, 0, 0, 0, 'k'}, 1},
        {"key of 1025 bytes", {1, 0, 1, 4, 0, 0, 'k'}, 1},
        {"key past the heads", {1, 0, 11, 0, 0, 0, 'k'}, 1},
        {"meta past the heads", {1, 200, 1, 0, 0, 0, 'k'}, 1},
        {"tombstone with meta", {2, 1, 1, 0, 0, 'k', 'm'}, 1},
        {"delta not minimal", {2, 0, 1, 0, 0x80, 0, 'k'}, 1},
        {"sequence past 2^64", {2, 0, 1, 0, 2, 'k'}, UINT64_MAX - 1},
        {"value length not minimal", {1, 0, 1, 0, 0, 0x80, 0, 'k'}, 1},
        {"value of 16 MiB and a byte", {1, 0, 1, 0, 0, 0x81, 0x80, 0x80, 8, 1, 1, 1, 1, 'k'}, 1},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct format_record record;
        size_t at = 0;
        if (format_record_decode(bad[i].bytes, sizeof(bad[i].bytes), &at, bad[i].base, &record) !=
            -EBADMSG)
            fail_msg("taken: %s", bad[i].why);
    }
    struct format_record record;
    size_t at = 17;
    assert_int_equal(format_record_decode(bad[0].bytes, 16, &at, 1, &record), -EBADMSG);
}

static struct format_record random_record(struct random *random, uint64_t base)
{
    struct format_record record =
        put(1 + random_width(random) % KEG_KEY_MAX, random_width(random) % (KEG_META_MAX + 1),
            (uint32_t)(random_width(random) % (KEG_VALUE_MAX + 1)), 0);
    record.sequence = base + random_width(random) % (UINT64_MAX - base);
    if (record.value_len)
        record.crc = (uint32_t)random_next(random);
    if (random_below(random, 4) == 0)
        record = (struct format_record){
            .type = FORMAT_TOMBSTONE, .sequence = record.sequence, .key = record.key};
    return record;
}

static void random_heads(void **state)
{
    (void)state;
    enum { RECORDS = 200 };
    static struct format_record records[RECORDS];
    static uint8_t heads[RECORDS * FORMAT_HEAD_MAX];
    struct random random = random_seeded();

    random_fill(&random, key_bytes, sizeof(key_bytes));
    random_fill(&random, meta_bytes, sizeof(meta_bytes));
    for (int round = 0; round < 50; round++) {
        uint64_t base = 1 + random_width(&random) / 2;
        size_t len = 0, at = 0;
        for (size_t i = 0; i < RECORDS; i++) {
            records[i] = random_record(&random, base);
            len += format_record_encode(heads + len, &records[i], base);
        }
        for (size_t i = 0; i < RECORDS; i++) {
            struct format_record back;
            assert_int_equal(format_record_decode(heads, len, &at, base, &back), 0);
            assert_record_equal(&records[i], &back);
        }
        assert_int_equal(at, len);
    }
}

/* Any byte of the heads changed: either refused, or a record that encodes to those bytes again. */
static void what_decodes_encodes_the_same(void **state)
{
    (void)state;
    struct random random = random_seeded();
    uint64_t taken = 0;

    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[FORMAT_HEAD_MAX], again[FORMAT_HEAD_MAX];
        struct format_record record = random_record(&random, 1);
        size_t len = format_record_encode(bytes, &record, 1), at = 0;
        bytes[random_below(&random, len < 16 ? len : 16)] = (uint8_t)random_next(&random);
        if (format_record_decode(bytes, len, &at, 1, &record))
            continue;
        taken++;
        assert_int_equal(format_record_encode(again, &record, 1), at);
        assert_memory_equal(again, bytes, at);
    }
    assert_true(taken > 1000);
}

/* ---- Values ---- */

static void stored_lengths(void **state)
{
    (void)state;
    static const uint32_t rows[][2] = {
        {0, 0},
        {1, 1},
        {KEG_BLOCK, KEG_BLOCK},
        {KEG_BLOCK + 1, KEG_BLOCK + 1 + 2 * 4},
        {2 * KEG_BLOCK, 2 * KEG_BLOCK + 2 * 4},
        {2 * KEG_BLOCK + 1, 2 * KEG_BLOCK + 1 + 3 * 4},
        {KEG_VALUE_MAX, KEG_VALUE_MAX + 256 * 4},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        assert_int_equal(format_stored_len(rows[i][0]), rows[i][1]);
}

static void cost_is_head_and_stored_value(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 1, 128, KEG_BLOCK, KEG_BLOCK + 1, KEG_VALUE_MAX};
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        struct format_record record = put(100, 30, values[i], 77);
        assert_true(format_record_cost(100, 30, values[i], false) ==
                    format_record_size(&record, 77) + format_stored_len(values[i]));
        record.type = FORMAT_TOMBSTONE;
        assert_true(format_record_cost(100, 30, values[i], true) ==
                    format_record_size(&record, 77));
    }
}

static void each_block_has_its_crc(void **state)
{
    (void)state;
    enum { LEN = 2 * KEG_BLOCK + 9 };
    uint8_t *value = malloc(LEN), list[3 * 4];
    struct random random = random_seeded();

    assert_non_null(value);
    random_fill(&random, value, LEN);
    assert_int_equal(format_value_crcs(value, LEN, list), 3);
    assert_int_equal(format_get32(list), crc_update(0, value, KEG_BLOCK));
    assert_int_equal(format_get32(list + 4), crc_update(0, value + KEG_BLOCK, KEG_BLOCK));
    assert_int_equal(format_get32(list + 8), crc_update(0, value + 2 * KEG_BLOCK, 9));
    assert_int_equal(format_value_crcs(value, 2 * KEG_BLOCK, list), 2);
    free(value);
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
        cmocka_unit_test(records_at_their_limits),
        cmocka_unit_test(record_bytes_are_these),
        cmocka_unit_test(bad_records_are_refused),
        cmocka_unit_test(random_heads),
        cmocka_unit_test(what_decodes_encodes_the_same),
        cmocka_unit_test(stored_lengths),
        cmocka_unit_test(cost_is_head_and_stored_value),
        cmocka_unit_test(each_block_has_its_crc),
    };
    return cmocka_run_group_tests(tests, encode_fixed, NULL);
}
