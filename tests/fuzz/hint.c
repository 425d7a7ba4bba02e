/* SPDX-License-Identifier: MIT */
/* The first byte's next two bits say what the bytes behind it are: a hint file, one block, the refs
 * of an index, or a trailer. */
#include "hint.h"
#include "crc.h"
#include "fuzz.h"
#include "hintfile.h"
#include "mend.h"

enum { AS_FILE, AS_BLOCK, AS_REFS, AS_TRAILER };
enum { OFFSET = 16 };

static const uint8_t zero_id[FORMAT_ID_SIZE];

static void check_entry(const struct hint_entry *entry)
{
    FUZZ_CHECK(entry->key.len >= 1 && entry->key.len <= KEG_KEY_MAX);
    FUZZ_CHECK(entry->value_len <= KEG_VALUE_MAX && entry->sequence > 0);
    FUZZ_CHECK(entry->offset <= INT64_MAX);
    FUZZ_CHECK(entry->type == FORMAT_PUT ||
               (entry->type == FORMAT_LOST && entry->offset == 0 && entry->value_len > 0 &&
                entry->crc == 0) ||
               (entry->type == FORMAT_TOMBSTONE && entry->offset == 0 && entry->value_len == 0 &&
                entry->crc == 0 && entry->meta.len == 0));
}

static int compare(struct keg_bytes a, struct keg_bytes b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* ---- One block ---- */

static void try_block(uint8_t *bytes, size_t len, struct format_salt salt, uint64_t offset)
{
    static struct hint_cursor cursors[1];
    static struct hint_block blocks[1];
    struct hint_cursor *cursor = cursors;
    struct hint_block *block = blocks;
    struct hint_entry entry;
    int n;

    hint_block_init(block);
    if (hint_cursor_init(cursor, bytes, len, salt, offset) == 0) {
        while ((n = hint_cursor_next(cursor, &entry)) == 1) {
            check_entry(&entry);
            struct keg_bytes last = {block->last, block->last_len};
            FUZZ_CHECK(block->count == 0 || compare(entry.key, last) > 0);
            FUZZ_CHECK(hint_block_add(block, &entry));
        }
        /* As far as it was sound, it was the only encoding. */
        FUZZ_CHECK(block->len == cursor->at && memcmp(block->bytes, bytes, block->len) == 0);
        if (n == 0) {
            hint_block_finish(block, salt, offset);
            FUZZ_CHECK(block->len == len && memcmp(block->bytes, bytes, len) == 0);
        }
    }
}

static void as_block(uint8_t *bytes, size_t len, bool repair)
{
    struct format_salt salt = format_salt(zero_id, 1);

    if (repair && len >= 4)
        format_put32(bytes + len - 4, format_salted_crc(salt, OFFSET, bytes, len - 4));
    try_block(bytes, len, salt, OFFSET);
}

/* ---- Refs ---- */

static void as_refs(const uint8_t *bytes, size_t len)
{
    struct hint_ref ref;
    size_t at = 0, start = 0;

    while (at < len && hint_ref_decode(bytes, len, &at, &ref) == 0) {
        uint8_t again[HINT_REF_MAX];
        FUZZ_CHECK(at > start && at <= len && at - start <= sizeof(again));
        FUZZ_CHECK(ref.key.len >= 1 && ref.key.len <= KEG_KEY_MAX);
        FUZZ_CHECK(ref.len <= HINT_BLOCK_SIZE && ref.offset <= INT64_MAX);
        FUZZ_CHECK(hint_ref_encode(again, &ref) == at - start);
        FUZZ_CHECK(memcmp(again, bytes + start, at - start) == 0);
        start = at;
    }
    FUZZ_CHECK(at == start);
}

/* ---- Trailer ---- */

/* Whether it is sound. */
static bool try_trailer(const uint8_t *bytes, struct hint_trailer *trailer)
{
    uint8_t again[HINT_TRAILER_SIZE];

    if (hint_trailer_decode(bytes, trailer))
        return false;
    hint_trailer_encode(again, trailer);
    FUZZ_CHECK(memcmp(again, bytes, sizeof(again)) == 0);
    return true;
}

static void as_trailer(uint8_t *bytes, size_t len, bool repair)
{
    struct hint_trailer trailer;

    if (len < HINT_TRAILER_SIZE)
        return;
    if (repair)
        format_put32(bytes + 124, crc_update(0, bytes, 124));
    try_trailer(bytes, &trailer);
}

/* ---- A whole file ---- */

/* Looks the key up with a reader of its own: it must be met there, and in the same place. */
static void check_seek(struct keg_env *env, const struct hint_info *info,
                       const struct hint_entry *entry)
{
    struct hintfile_reader *reader;
    struct hint_info again;
    struct hint_entry found;

    FUZZ_CHECK(hintfile_open(env, info->store, info->segment, &again, &reader) == 0);
    FUZZ_CHECK(hintfile_seek(reader, entry->key) == 0);
    FUZZ_CHECK(hintfile_next(reader, &found) == 1);
    FUZZ_CHECK(compare(found.key, entry->key) == 0 && found.sequence == entry->sequence);
    hintfile_close(reader);
}

static void walk(struct keg_env *env, const struct hint_info *info, struct hintfile_reader *reader)
{
    uint8_t last[KEG_KEY_MAX];
    size_t last_len = 0;
    struct hint_entry entry;
    unsigned met = 0;

    while (hintfile_next(reader, &entry) == 1) {
        check_entry(&entry);
        FUZZ_CHECK(compare(entry.key, (struct keg_bytes){last, last_len}) > 0);
        FUZZ_CHECK(entry.sequence >= info->first_sequence && entry.sequence <= info->last_sequence);
        FUZZ_CHECK(entry.offset <= info->length);
        if (met++ % 64 == 0)
            check_seek(env, info, &entry);
        memcpy(last, entry.key.data, entry.key.len);
        last_len = entry.key.len;
    }
}

static void try_file(const uint8_t *bytes, size_t len, const uint8_t *store, uint64_t segment)
{
    char name[ENV_NAME_MAX + 1];
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    struct keg_env *env;
    struct keg_file *file;
    struct hintfile_reader *reader;
    struct hint_info info;

    hintfile_name(segment, name);
    FUZZ_CHECK(env_mem(0, &env) == 0 && env_create(env, name, &file) == 0);
    FUZZ_CHECK(env_append(file, 0, &iov, 1) == 0);
    env_close(file);
    int err = hintfile_open(env, store, segment, &info, &reader);
    FUZZ_CHECK(err == 0 || err == -EBADMSG);
    if (err == 0) {
        FUZZ_CHECK(hintfile_size(reader) == len && info.segment == segment);
        walk(env, &info, reader);
        hintfile_close(reader);
    }
    keg_env_free(env);
}

static void as_file(uint8_t *bytes, size_t len, bool repair)
{
    if (len < HINT_PREAMBLE_SIZE + HINT_TRAILER_SIZE)
        return;
    if (repair)
        mend_hint(bytes, len);
    const uint8_t *trailer = bytes + len - HINT_TRAILER_SIZE;
    try_file(bytes, len, trailer + 16, format_get64(trailer + 32));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1 || len > FUZZ_MAX)
        return 0;
    uint8_t *bytes = fuzz_copy(data + 1, len - 1);
    bool repair = data[0] & FUZZ_REPAIR;

    switch (data[0] >> 1 & 3) {
    case AS_FILE:
        as_file(bytes, len - 1, repair);
        break;
    case AS_BLOCK:
        as_block(bytes, len - 1, repair);
        break;
    case AS_REFS:
        as_refs(bytes, len - 1);
        break;
    default:
        as_trailer(bytes, len - 1, repair);
        break;
    }
    free(bytes);
    return 0;
}
