/* SPDX-License-Identifier: MIT */
#include "crc.h"
#include "format.h"
#include "random.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

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
    static const uint8_t lost_bytes[] = {3, 2, 3, 0, 1, 5, 'k', 'e', 'y', 'm', 't'};
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
    /* A lost one keeps its meta and its length. */
    record = (struct format_record){FORMAT_LOST, 5, 6, 1001, {"key", 3}, {"mt", 2}};
    assert_int_equal(format_record_encode(out, &record, 1000), sizeof(lost_bytes));
    assert_int_equal(format_record_size(&record, 1000), sizeof(lost_bytes));
    assert_memory_equal(out, lost_bytes, sizeof(lost_bytes));
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
        {"lost, of no bytes", {3, 0, 1, 0, 0, 0, 'k'}, 1},
        {"type 4", {4, 0, 1, 0, 0, 0, 'k'}, 1},
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
    else if (record.value_len && random_below(random, 8) == 0)
        record.type = FORMAT_LOST, record.crc = 0;
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
        assert_true(format_record_cost(100, 30, values[i], FORMAT_PUT) ==
                    format_record_size(&record, 77) + format_stored_len(values[i]));
        record.type = FORMAT_TOMBSTONE;
        assert_true(format_record_cost(100, 30, values[i], FORMAT_TOMBSTONE) ==
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_at_their_limits),       cmocka_unit_test(record_bytes_are_these),
        cmocka_unit_test(bad_records_are_refused),       cmocka_unit_test(random_heads),
        cmocka_unit_test(what_decodes_encodes_the_same), cmocka_unit_test(stored_lengths),
        cmocka_unit_test(cost_is_head_and_stored_value), cmocka_unit_test(each_block_has_its_crc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
