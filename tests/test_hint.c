/* SPDX-License-Identifier: MIT */
#include "crc.h"
#include "hint.h"
#include "random.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t store_id[FORMAT_ID_SIZE] = "0123456789abcdef";
enum { OFFSET = 16 };

static struct format_salt salt7(void)
{
    return format_salt(store_id, 7);
}

/* ---- Preamble and trailer ---- */

static void preamble(void **state)
{
    (void)state;
    uint8_t bytes[HINT_PREAMBLE_SIZE], zero[HINT_PREAMBLE_SIZE] = {0};

    hint_preamble_encode(bytes);
    assert_int_equal(hint_preamble_decode(bytes), 0);
    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(hint_preamble_decode(bytes), -EBADMSG);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(hint_preamble_decode(zero), -EBADMSG);
    bytes[8] = 2;
    format_put32(bytes + 12, crc_update(0, bytes, 12));
    assert_int_equal(hint_preamble_decode(bytes), -EPROTONOSUPPORT);
    bytes[8] = 0;
    format_put32(bytes + 12, crc_update(0, bytes, 12));
    assert_int_equal(hint_preamble_decode(bytes), -EBADMSG);
}

static const struct hint_trailer a_trailer = {
    .info = {.store = "0123456789abcdef",
             .segment = 7,
             .kind = FORMAT_LOG,
             .length = 4096,
             .records = 20,
             .first_sequence = 100,
             .last_sequence = 119},
    .index_offset = 1000,
    .index_len = 64,
    .entries = 10,
    .blocks = 2,
};

static void trailer(void **state)
{
    (void)state;
    uint8_t bytes[HINT_TRAILER_SIZE], again[HINT_TRAILER_SIZE];
    struct hint_trailer back;

    hint_trailer_encode(bytes, &a_trailer);
    assert_int_equal(hint_trailer_decode(bytes, &back), 0);
    assert_memory_equal(back.info.store, store_id, FORMAT_ID_SIZE);
    assert_true(back.info.segment == 7 && back.info.kind == FORMAT_LOG &&
                back.info.length == 4096 && back.info.records == 20 &&
                back.info.first_sequence == 100 && back.info.last_sequence == 119);
    assert_true(back.index_offset == 1000 && back.index_len == 64 && back.entries == 10 &&
                back.blocks == 2);
    hint_trailer_encode(again, &back);
    assert_memory_equal(bytes, again, sizeof(bytes));
    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(hint_trailer_decode(bytes, &back), -EBADMSG);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(hint_trailer_decode(bytes, &back), -EBADMSG);
    format_put32(bytes + 124, crc_update(0, bytes, 124));
    assert_int_equal(hint_trailer_decode(bytes, &back), -EBADMSG);
}

/* Field, value put there behind a CRC that fits, what the decoder must say. */
static const struct {
    size_t at, width;
    uint64_t value;
    int expect;
} forged[] = {
    {8, 4, 0, -EBADMSG},
    {8, 4, 2, 0},
    {8, 4, 3, -EBADMSG},
    {12, 1, 1, -EBADMSG},
    {15, 1, 1, -EBADMSG},
    {40, 8, 1ull << 63, -EBADMSG},
    {40, 8, 4092, -EBADMSG}, /* no frame ends there */
    {48, 8, 0, -EBADMSG},
    {48, 8, 9, -EBADMSG}, /* fewer records than entries */
    {48, 8, 10, 0},
    {48, 8, UINT64_MAX, 0},
    {56, 8, 0, -EBADMSG},
    {56, 8, 119, 0},
    {56, 8, 120, -EBADMSG},
    {64, 8, UINT64_MAX, 0},
    {72, 8, 15, -EBADMSG},
    {72, 8, 16, -EBADMSG}, /* no room for the entries */
    {72, 8, 16 + 59, -EBADMSG},
    {72, 8, 16 + 60, 0},
    {72, 8, 1ull << 62, -EBADMSG},
    {72, 8, UINT64_MAX, -EBADMSG},
    {80, 8, 0, -EBADMSG},
    {80, 8, 3, -EBADMSG},
    {80, 8, 4 + 7, -EBADMSG}, /* no room for the refs */
    {80, 8, 4 + 8, 0},
    {80, 8, UINT64_MAX, -EBADMSG},
    {88, 8, 0, -EBADMSG},
    {88, 8, 1, -EBADMSG}, /* fewer than blocks */
    {88, 8, UINT64_MAX, -EBADMSG},
    {96, 8, 0, -EBADMSG},
    {96, 8, 15, -EBADMSG},
    {96, 8, UINT64_MAX, -EBADMSG},
    {104, 1, 1, -EBADMSG},
    {123, 1, 1, -EBADMSG},
};

static void a_crc_that_fits_is_not_enough(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
        uint8_t bytes[HINT_TRAILER_SIZE];
        struct hint_trailer back;
        hint_trailer_encode(bytes, &a_trailer);
        for (size_t b = 0; b < forged[i].width; b++)
            bytes[forged[i].at + b] = (uint8_t)(forged[i].value >> (8 * b));
        format_put32(bytes + 124, crc_update(0, bytes, 124));
        int err = hint_trailer_decode(bytes, &back);
        if (err != forged[i].expect)
            fail_msg("%llu at byte %zu gives %d", (unsigned long long)forged[i].value, forged[i].at,
                     err);
    }
}

/* ---- Blocks ---- */

static int start(struct hint_cursor *cursor, const uint8_t *bytes, size_t len)
{
    return hint_cursor_init(cursor, bytes, len, salt7(), OFFSET);
}

static void assert_entry_equal(const struct hint_entry *a, const struct hint_entry *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->value_len, b->value_len);
    assert_int_equal(a->crc, b->crc);
    assert_true(a->sequence == b->sequence && a->offset == b->offset);
    assert_int_equal(a->key.len, b->key.len);
    assert_memory_equal(a->key.data, b->key.data, a->key.len);
    assert_int_equal(a->meta.len, b->meta.len);
    if (a->meta.len)
        assert_memory_equal(a->meta.data, b->meta.data, a->meta.len);
}

static struct hint_entry entry_of(const char *key, uint32_t value_len)
{
    return (struct hint_entry){
        .type = FORMAT_PUT,
        .value_len = value_len,
        .crc = value_len ? 0x01020304 : 0,
        .sequence = 300,
        .offset = 1000,
        .key = {key, strlen(key)},
        .meta = {"mt", 2},
    };
}

static void block_bytes_are_these(void **state)
{
    (void)state;
    static const uint8_t expect[] = {
        0, 3, 1, 2, 0xac, 2, 0xe8, 7, 5, 4,   3, 2,   1,   'k', 'e', 'y', 'm', 't', /* key */
        2, 2, 1, 2, 0xac, 2, 0xe8, 7, 0, 'z', 0, 'm', 't', /* "kez\0": an empty value */
        0, 1, 2, 0, 0xac, 2, 'x',                          /* a tombstone */
    };
    static struct hint_block block;
    struct hint_entry entry = entry_of("key", 5);

    hint_block_init(&block);
    assert_true(hint_block_add(&block, &entry));
    entry = entry_of("", 0);
    entry.key = (struct keg_bytes){"kez", 4};
    assert_true(hint_block_add(&block, &entry));
    entry = entry_of("x", 5);
    entry.type = FORMAT_TOMBSTONE; /* drops what it cannot have */
    assert_true(hint_block_add(&block, &entry));
    assert_int_equal(block.len, sizeof(expect));
    assert_memory_equal(block.bytes, expect, sizeof(expect));
    hint_block_finish(&block, salt7(), OFFSET);
    assert_int_equal(block.len, sizeof(expect) + 4);
    assert_int_equal(format_get32(block.bytes + sizeof(expect)),
                     format_salted_crc(salt7(), OFFSET, expect, sizeof(expect)));
}

/* Ascending keys with much in common, each the one before with its end changed. */
static size_t next_key(struct random *random, uint8_t *key, size_t len)
{
    size_t keep = random_below(random, len + 1), grow = random_width(random) % 60;

    if (random_below(random, 50) == 0)
        grow = KEG_KEY_MAX;
    if (keep == KEG_KEY_MAX)
        keep--;
    while (keep > 0 && keep < len && key[keep] == 0xff)
        keep--;
    if (keep < len) {
        key[keep] = (uint8_t)(key[keep] + 1);
        keep++;
    } else {
        grow++;
    }
    if (keep + grow > KEG_KEY_MAX)
        grow = KEG_KEY_MAX - keep;
    random_fill(random, key + keep, grow);
    return keep + grow;
}

static struct hint_entry random_entry(struct random *random, const uint8_t *key, size_t key_len)
{
    static uint8_t meta[KEG_META_MAX];
    struct hint_entry entry = {
        .type = FORMAT_TOMBSTONE,
        .sequence = random_width(random) | 1,
        .key = {key, key_len},
    };
    if (random_below(random, 5) == 0)
        return entry;
    entry.type = FORMAT_PUT;
    entry.offset = random_width(random) / 2;
    entry.value_len = (uint32_t)(random_width(random) % (KEG_VALUE_MAX + 1));
    entry.crc = entry.value_len ? (uint32_t)random_next(random) : 0;
    entry.meta = (struct keg_bytes){meta, random_width(random) % (KEG_META_MAX + 1)};
    random_fill(random, meta, sizeof(meta));
    return entry;
}

/* Fills a block with what random_entry gives; the same random state gives the same again. */
static uint32_t fill_block(struct hint_block *block, struct random random)
{
    uint8_t key[KEG_KEY_MAX] = {0};
    size_t len = 1;
    struct hint_entry entry;

    hint_block_init(block);
    do {
        len = next_key(&random, key, len);
        entry = random_entry(&random, key, len);
    } while (key[0] != 0xff && hint_block_add(block, &entry));
    return block->count;
}

static void random_blocks(void **state)
{
    (void)state;
    static struct hint_block block;
    static struct hint_cursor cursor;
    struct random random = random_seeded();

    for (int round = 0; round < 500; round++) {
        random_next(&random);
        struct random replay = random;
        uint32_t count = fill_block(&block, random);
        uint8_t key[KEG_KEY_MAX] = {0};
        size_t len = 1;
        hint_block_finish(&block, salt7(), OFFSET);
        assert_in_range(block.len, 1, HINT_BLOCK_SIZE);
        uint8_t *exact = malloc(block.len);
        assert_non_null(exact);
        memcpy(exact, block.bytes, block.len);
        assert_int_equal(start(&cursor, exact, block.len), 0);
        struct hint_entry back;
        for (uint32_t i = 0; i < count; i++) {
            len = next_key(&replay, key, len);
            struct hint_entry entry = random_entry(&replay, key, len);
            assert_int_equal(hint_cursor_next(&cursor, &back), 1);
            assert_entry_equal(&entry, &back);
        }
        assert_int_equal(hint_cursor_next(&cursor, &back), 0);
        assert_int_equal(hint_cursor_next(&cursor, &back), 0);
        free(exact);
    }
}

static void the_biggest_entry_fits_an_empty_block(void **state)
{
    (void)state;
    static struct hint_block block;
    static struct hint_cursor cursor;
    static uint8_t key[KEG_KEY_MAX], meta[KEG_META_MAX];
    struct hint_entry back, entry = {
                                .type = FORMAT_PUT,
                                .value_len = KEG_VALUE_MAX,
                                .crc = 0xffffffff,
                                .sequence = UINT64_MAX,
                                .offset = INT64_MAX,
                                .key = {key, sizeof(key)},
                                .meta = {meta, sizeof(meta)},
                            };
    hint_block_init(&block);
    assert_true(hint_block_add(&block, &entry));
    assert_in_range(block.len, KEG_KEY_MAX, HINT_ENTRY_MAX);
    hint_block_finish(&block, salt7(), OFFSET);
    assert_int_equal(start(&cursor, block.bytes, block.len), 0);
    assert_int_equal(hint_cursor_next(&cursor, &back), 1);
    assert_entry_equal(&entry, &back);
}

static void a_full_block_is_left_as_it_was(void **state)
{
    (void)state;
    static struct hint_block block, before;
    struct random random = random_seeded();

    for (int round = 0; round < 100; round++) {
        static uint8_t key[KEG_KEY_MAX];
        random_next(&random);
        fill_block(&block, random);
        before = block;
        memset(key, 0xff, sizeof(key));
        struct hint_entry entry = random_entry(&random, key, sizeof(key));
        if (hint_block_add(&block, &entry))
            continue;
        assert_memory_equal(block.bytes, before.bytes, before.len);
        assert_true(block.len == before.len && block.count == before.count);
        assert_int_equal(block.last_len, before.last_len);
        assert_memory_equal(block.last, before.last, before.last_len);
    }
}

static void block_damage_is_found(void **state)
{
    (void)state;
    static struct hint_block block;
    static struct hint_cursor cursor;
    struct random random = random_seeded();

    fill_block(&block, random);
    hint_block_finish(&block, salt7(), OFFSET);
    for (size_t bit = 0; bit < block.len * 8; bit++) {
        block.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(start(&cursor, block.bytes, block.len), -EBADMSG);
        block.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t len = 0; len < block.len; len++)
        assert_int_equal(start(&cursor, block.bytes, len), -EBADMSG);
    assert_int_equal(hint_cursor_init(&cursor, block.bytes, block.len, salt7(), OFFSET + 1),
                     -EBADMSG);
    assert_int_equal(
        hint_cursor_init(&cursor, block.bytes, block.len, format_salt(store_id, 8), OFFSET),
        -EBADMSG);
    memset(block.bytes, 0, sizeof(block.bytes));
    assert_int_equal(start(&cursor, block.bytes, sizeof(block.bytes)), -EBADMSG);
}

/* Blocks of one or two entries that a sound CRC must not make acceptable. */
static void bad_entries_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *why;
        uint8_t bytes[24];
        size_t len;
    } bad[] = {
        {"shares with nothing", {1, 1, 2, 0, 1, 'k'}, 6},
        {"no suffix", {0, 0, 2, 0, 1, 'k'}, 6},
        {"type 0", {0, 1, 0, 0, 1, 'k'}, 6},
        {"type 3", {0, 1, 3, 0, 1, 'k'}, 6},
        {"tombstone with meta", {0, 1, 2, 1, 1, 'k', 'm'}, 7},
        {"sequence 0", {0, 1, 2, 0, 0, 'k'}, 6},
        {"suffix past the block", {0, 2, 2, 0, 1, 'k'}, 6},
        {"suffix of 1025 bytes", {0, 0x81, 8, 2, 0, 1, 'k'}, 7},
        {"suffix far past the block", {0, 0x7f, 2, 0, 1, 'k'}, 6},
        {"meta far past the block", {0, 1, 1, 0xff, 1, 99, 0, 'k', 'm'}, 9},
        {"meta past the block", {0, 1, 1, 2, 1, 99, 0, 'k', 'm'}, 9},
        {"offset of 2^63",
         {0, 1, 1, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0, 'k'},
         17},
        {"value of 16 MiB and a byte",
         {0, 1, 1, 0, 1, 99, 0x81, 0x80, 0x80, 8, 1, 1, 1, 1, 'k'},
         15},
        {"cut in the CRC of a value", {0, 1, 1, 0, 1, 99, 1, 1, 1}, 9},
        {"the same key twice", {0, 1, 2, 0, 1, 'k', 1, 0, 2, 0, 1}, 11},
        {"descending", {0, 1, 2, 0, 1, 'k', 0, 1, 2, 0, 1, 'j'}, 12},
        {"a shorter key behind", {0, 2, 2, 0, 1, 'k', 'k', 1, 0, 2, 0, 1}, 12},
        {"shares less than it could", {0, 1, 2, 0, 1, 'k', 0, 2, 2, 0, 1, 'k', 'l'}, 13},
        {"shares more than there is", {0, 1, 2, 0, 1, 'k', 2, 1, 2, 0, 1, 'k'}, 12},
        {"a byte behind", {0, 1, 2, 0, 1, 'k', 0}, 7},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct hint_cursor cursor;
        struct hint_entry entry;
        uint8_t *exact = malloc(bad[i].len + 4);
        assert_non_null(exact);
        memcpy(exact, bad[i].bytes, bad[i].len);
        format_put32(exact + bad[i].len, format_salted_crc(salt7(), OFFSET, exact, bad[i].len));
        assert_int_equal(start(&cursor, exact, bad[i].len + 4), 0);
        int n;
        do
            n = hint_cursor_next(&cursor, &entry);
        while (n == 1);
        if (n != -EBADMSG)
            fail_msg("taken: %s", bad[i].why);
        free(exact);
    }
}

/* A prefix and a rest that are each within the limit, and together a byte above it. */
static void keys_do_not_grow_past_their_limit(void **state)
{
    (void)state;
    enum { PREFIX = 1000, REST = KEG_KEY_MAX - PREFIX };

    for (size_t rest = REST; rest <= REST + 1; rest++) {
        uint8_t bytes[PREFIX + REST + 64];
        struct hint_cursor cursor;
        struct hint_entry entry;
        size_t len = 0;
        for (int i = 0; i < 2; i++) {
            size_t own = i ? rest : PREFIX;
            len += format_varint_put(bytes + len, i ? PREFIX : 0);
            len += format_varint_put(bytes + len, own);
            bytes[len++] = FORMAT_TOMBSTONE;
            bytes[len++] = 0;
            bytes[len++] = 1; /* sequence */
            memset(bytes + len, 'k', own);
            len += own;
        }
        format_put32(bytes + len, format_salted_crc(salt7(), OFFSET, bytes, len));
        assert_int_equal(start(&cursor, bytes, len + 4), 0);
        assert_int_equal(hint_cursor_next(&cursor, &entry), 1);
        assert_int_equal(hint_cursor_next(&cursor, &entry), rest == REST ? 1 : -EBADMSG);
    }
}

/* ---- Block index ---- */

static void refs_round_trip(void **state)
{
    (void)state;
    struct random random = random_seeded();
    static uint8_t key[KEG_KEY_MAX];

    random_fill(&random, key, sizeof(key));
    for (int round = 0; round < 5000; round++) {
        uint8_t bytes[HINT_REF_MAX];
        struct hint_ref back, ref = {{key, 1 + random_width(&random) % KEG_KEY_MAX},
                                     HINT_PREAMBLE_SIZE + random_width(&random) / 4,
                                     10 + (uint32_t)random_below(&random, HINT_BLOCK_SIZE - 9)};
        size_t len = hint_ref_encode(bytes, &ref), at = 0;
        assert_in_range(len, 4, HINT_REF_MAX);
        uint8_t *exact = malloc(len);
        assert_non_null(exact);
        memcpy(exact, bytes, len);
        for (size_t cut = 0; cut < len; cut += 1 + cut / 8)
            assert_int_equal(hint_ref_decode(exact, cut, &at, &back), -EBADMSG);
        assert_int_equal(hint_ref_decode(exact, len, &at, &back), 0);
        assert_int_equal(at, len);
        assert_true(back.offset == ref.offset && back.len == ref.len);
        assert_int_equal(back.key.len, ref.key.len);
        assert_memory_equal(back.key.data, key, ref.key.len);
        free(exact);
    }
}

static void bad_refs_are_refused(void **state)
{
    (void)state;
    static const uint8_t bad[][8] = {
        {15, 10, 1, 'k'},         /* in the preamble */
        {16, 9, 1, 'k'},          /* a block of no entry */
        {16, 0x81, 0x20, 1, 'k'}, /* a block of 4097 bytes */
        {16, 10, 0, 'k'},         /* no key */
        {16, 10, 0x81, 8, 'k'},   /* a key of 1025 bytes */
        {16, 10, 6, 'k'},         /* a key past the end */
        {0x90, 0, 10, 1, 'k'},    /* not minimal */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct hint_ref ref;
        size_t at = 0;
        assert_int_equal(hint_ref_decode(bad[i], sizeof(bad[i]), &at, &ref), -EBADMSG);
        assert_int_equal(at, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preamble),
        cmocka_unit_test(trailer),
        cmocka_unit_test(a_crc_that_fits_is_not_enough),
        cmocka_unit_test(block_bytes_are_these),
        cmocka_unit_test(random_blocks),
        cmocka_unit_test(the_biggest_entry_fits_an_empty_block),
        cmocka_unit_test(a_full_block_is_left_as_it_was),
        cmocka_unit_test(block_damage_is_found),
        cmocka_unit_test(bad_entries_are_refused),
        cmocka_unit_test(keys_do_not_grow_past_their_limit),
        cmocka_unit_test(refs_round_trip),
        cmocka_unit_test(bad_refs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
