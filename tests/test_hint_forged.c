/* SPDX-License-Identifier: MIT */
/* Hints that no writer of ours would write, behind CRCs that fit. */
#include "env_fault.h"
#include "hintfile.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t store_id[FORMAT_ID_SIZE] = "0123456789abcdef";
enum { SEGMENT = 7, LENGTH = 1 << 30 };

static struct hint_info info_of(unsigned count)
{
    struct hint_info info = {
        .segment = SEGMENT,
        .kind = FORMAT_LOG,
        .length = LENGTH,
        .records = count ? count + 5 : 0,
        .first_sequence = count ? 100 : 0,
        .last_sequence = count ? 1099 : 0,
    };
    memcpy(info.store, store_id, FORMAT_ID_SIZE);
    return info;
}

static int open_hint(struct keg_env *env, struct hintfile_reader **reader)
{
    struct hint_info info;
    return hintfile_open(env, store_id, SEGMENT, &info, reader);
}

static int walk_any(struct keg_env *env)
{
    struct hintfile_reader *reader;
    struct hint_entry entry;
    int n = open_hint(env, &reader);

    if (n == 0) {
        while ((n = hintfile_next(reader, &entry)) == 1)
            ;
        hintfile_close(reader);
    }
    return n;
}

/*
 * Two blocks, put together by hand: b and c in the first, d in the second, all tombstones; and
 * something wrong with them.
 */
struct forgery {
    const char *why;
    const char *keys[3], *ref_keys[2]; /* NULL: as above */
    size_t gap;                        /* bytes between preamble and first block */
    size_t junk;                       /* bytes between the last ref and the CRC of the index */
    size_t tail;                       /* bytes between index and trailer */
    uint64_t shift;                    /* added to the second ref's offset */
    bool swap;                         /* the second ref before the first */
    uint64_t entries, blocks;          /* added to the trailer's numbers */
    uint64_t sequence;                 /* of the entries; 0: a good one */
    uint64_t length;                   /* what it covers; 0: a good one */
    int expect_open, expect;           /* of opening, of walking */
};

struct forged_file {
    uint8_t bytes[3 * HINT_BLOCK_SIZE];
    size_t len;
};

static const char *or_else(const char *text, const char *otherwise)
{
    return text ? text : otherwise;
}

/* Adds block `i`; returns its ref. */
static struct hint_ref forge_block(const struct forgery *f, struct forged_file *file, size_t i)
{
    static const char *const keys[] = {"b", "c", "d"}, *const ref_keys[] = {"b", "d"};
    static struct hint_block block;
    const char *ref_key = or_else(f->ref_keys[i], ref_keys[i]);
    struct hint_ref ref = {{ref_key, strlen(ref_key)}, file->len + (i ? f->shift : 0), 0};

    hint_block_init(&block);
    for (size_t k = 2 * i; k < 2 + i; k++) {
        const char *key = or_else(f->keys[k], keys[k]);
        struct hint_entry entry = {.type = FORMAT_TOMBSTONE,
                                   .sequence = f->sequence ? f->sequence : 500,
                                   .key = {key, strlen(key)}};
        assert_true(hint_block_add(&block, &entry));
    }
    hint_block_finish(&block, format_salt(store_id, SEGMENT), file->len);
    memcpy(file->bytes + file->len, block.bytes, block.len);
    file->len += block.len;
    ref.len = (uint32_t)block.len;
    return ref;
}

static void forge(const struct forgery *f, struct keg_env *env)
{
    static struct forged_file file;
    struct hint_trailer trailer = {
        .info = info_of(3), .entries = 3 + f->entries, .blocks = 2 + f->blocks};

    if (f->length)
        trailer.info.length = f->length;
    memset(&file, 0, sizeof(file));
    hint_preamble_encode(file.bytes);
    file.len = HINT_PREAMBLE_SIZE + f->gap;
    struct hint_ref refs[2];
    for (size_t i = 0; i < 2; i++)
        refs[i] = forge_block(f, &file, i);
    trailer.index_offset = file.len;
    for (size_t i = 0; i < 2; i++)
        file.len += hint_ref_encode(file.bytes + file.len, &refs[f->swap ? 1 - i : i]);
    file.len += f->junk;
    uint8_t *index = file.bytes + trailer.index_offset;
    trailer.index_len = file.len - trailer.index_offset + 4;
    format_put32(file.bytes + file.len,
                 hint_index_crc(format_salt(store_id, SEGMENT), trailer.index_offset, index,
                                (size_t)trailer.index_len - 4));
    file.len += 4 + f->tail;
    hint_trailer_encode(file.bytes + file.len, &trailer);
    file.len += HINT_TRAILER_SIZE;
    assert_int_equal(env_replace(env, "00000007.hint", file.bytes, file.len), 0);
}

static const struct forgery forged[] = {
    {.why = "nothing"},
    {.why = "a gap before the blocks", .gap = 8, .expect_open = -EBADMSG},
    {.why = "bytes behind the refs", .junk = 4, .expect_open = -EBADMSG},
    {.why = "bytes behind the index", .tail = 8, .expect_open = -EBADMSG},
    {.why = "a ref beside its block", .shift = 1, .expect_open = -EBADMSG},
    {.why = "a ref far away", .shift = 1ull << 62, .expect_open = -EBADMSG},
    {.why = "refs descend", .swap = true, .expect_open = -EBADMSG},
    {.why = "blocks in another order than their refs",
     .keys = {"d", "e", "b"},
     .ref_keys = {"d", "b"},
     .swap = true,
     .expect_open = -EBADMSG},
    {.why = "refs with one key", .ref_keys = {"d", "d"}, .expect_open = -EBADMSG},
    {.why = "fewer blocks said", .blocks = UINT64_MAX, .expect_open = -EBADMSG},
    {.why = "more blocks said", .blocks = 1, .expect_open = -EBADMSG},
    {.why = "more entries said", .entries = 1, .expect = -EBADMSG},
    {.why = "fewer entries said", .entries = UINT64_MAX, .expect = -EBADMSG},
    {.why = "a ref with another key", .ref_keys = {"b", "cc"}, .expect = -EBADMSG},
    {.why = "a first ref with another key", .ref_keys = {"a", "d"}, .expect = -EBADMSG},
    {.why = "a block reaches past the next", .keys = {"b", "e", "d"}, .expect = -EBADMSG},
    {.why = "a block reaches into the next", .keys = {"b", "d", "d"}, .expect = -EBADMSG},
    {.why = "less than a header", .length = FORMAT_SEGMENT_SIZE - 8, .expect_open = -EBADMSG},
    {.why = "no more than a header", .length = FORMAT_SEGMENT_SIZE},
    {.why = "a sequence below", .sequence = 99, .expect = -EBADMSG},
    {.why = "a sequence above", .sequence = 1100, .expect = -EBADMSG},
};

static void crcs_that_fit_are_not_enough(void **state)
{
    (void)state;
    struct keg_env *env;

    assert_int_equal(env_mem(0, &env), 0);
    for (size_t i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
        struct hintfile_reader *reader;
        forge(&forged[i], env);
        int err = open_hint(env, &reader);
        if (err == 0)
            hintfile_close(reader);
        if (err != forged[i].expect_open)
            fail_msg("%s: opening gives %d", forged[i].why, err);
        if (err == 0 && walk_any(env) != forged[i].expect)
            fail_msg("%s: walking gives %d", forged[i].why, walk_any(env));
    }
    keg_env_free(env);
}

static void values_lie_within_what_is_covered(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset;
        uint32_t len;
        int expect;
    } rows[] = {
        {104, 1000, 0},
        {103, 1000, -EBADMSG},
        {0, 0, -EBADMSG},
        {LENGTH, 0, 0},
        {LENGTH, 1, -EBADMSG},
        {LENGTH - 1000, 1000, 0},
        {LENGTH - 999, 1000, -EBADMSG},
        {LENGTH - KEG_BLOCK - 1 - 8, KEG_BLOCK + 1, 0},
        {LENGTH - KEG_BLOCK - 1 - 7, KEG_BLOCK + 1, -EBADMSG}, /* with its list of CRCs */
        {INT64_MAX, KEG_VALUE_MAX, -EBADMSG},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct hint_entry entry = {
            FORMAT_PUT, rows[i].len, rows[i].len ? 5 : 0, 500, rows[i].offset, {"k", 1}, {"", 0}};
        struct hint_info info = info_of(1);
        struct hintfile_writer *writer;
        struct keg_env *env;
        uint64_t size;
        assert_int_equal(env_mem(0, &env), 0);
        assert_int_equal(hintfile_create(env, store_id, SEGMENT, &writer), 0);
        assert_int_equal(hintfile_add(writer, &entry), 0);
        assert_int_equal(hintfile_finish(writer, &info, &size), 0);
        if (walk_any(env) != rows[i].expect)
            fail_msg("row %zu: %d", i, walk_any(env));
        keg_env_free(env);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crcs_that_fit_are_not_enough),
        cmocka_unit_test(values_lie_within_what_is_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
