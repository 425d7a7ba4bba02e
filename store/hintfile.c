/* SPDX-License-Identifier: MIT */
/*
 * A hint is an aid: whatever is wrong with it, the segment can be scanned instead. So the reader
 * refuses rather than repairs, and looks for reasons to refuse: the file must be exactly preamble,
 * blocks, index and trailer without a gap; the index must tile the blocks in ascending order of
 * key; each entry must lie within the part of the segment that the hint covers; and the entries
 * must be as many as the trailer says. No size from the file is used before a CRC and the file's
 * own length have confirmed it.
 */
#include "hintfile.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_SIZE = 256 << 10, CRC_SIZE = 4 };

_Static_assert(BUFFER_SIZE >= HINT_BLOCK_SIZE + HINT_PREAMBLE_SIZE, "a block fits the buffer");

void hintfile_name(uint64_t segment, char *out)
{
    snprintf(out, ENV_NAME_MAX + 1, "%08" PRIu64 ".hint", segment);
}

static void temporary_name(uint64_t segment, char *out)
{
    snprintf(out, ENV_NAME_MAX + 1, "%08" PRIu64 ".hint.tmp", segment);
}

static int compare(struct keg_bytes a, struct keg_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* ---- Writing ---- */

struct hintfile_writer {
    struct keg_env *env;
    struct keg_file *file;
    uint8_t store[FORMAT_ID_SIZE];
    uint64_t segment;
    struct format_salt salt;
    uint64_t written;  /* bytes given to the file; the buffer's follow */
    size_t buffered;   /* bytes */
    uint8_t *index;    /* the refs so far */
    size_t index_len;  /* bytes */
    size_t index_size; /* bytes allocated */
    uint64_t entries, blocks;
    int error; /* the first one; nothing is written after it */
    uint8_t first[KEG_KEY_MAX];
    size_t first_len; /* of the block's first key */
    struct hint_block block;
    uint8_t buffer[BUFFER_SIZE];
};

static int write_bytes(struct hintfile_writer *writer, void *data, size_t len)
{
    struct iovec iov = {data, len};
    int err = len ? env_append(writer->file, writer->written, &iov, 1) : 0;

    if (!err)
        writer->written += len;
    return err;
}

static int flush_buffer(struct hintfile_writer *writer)
{
    int err = write_bytes(writer, writer->buffer, writer->buffered);

    if (!err)
        writer->buffered = 0;
    return err;
}

/* Makes room for len more bytes of index. */
static int index_grow(struct hintfile_writer *writer, size_t len)
{
    if (writer->index_size - writer->index_len >= len)
        return 0;
    size_t size = writer->index_size ? 2 * writer->index_size : BUFFER_SIZE / 4;
    if (size < writer->index_size || size - writer->index_len < len)
        return -ENOMEM;
    uint8_t *index = realloc(writer->index, size);
    if (!index)
        return -ENOMEM;
    writer->index = index;
    writer->index_size = size;
    return 0;
}

/* The block is complete: into the buffer with it, and its ref into the index. */
static int end_block(struct hintfile_writer *writer)
{
    struct hint_block *block = &writer->block;
    int err = index_grow(writer, HINT_REF_MAX);

    if (!err && BUFFER_SIZE - writer->buffered < HINT_BLOCK_SIZE)
        err = flush_buffer(writer);
    if (err)
        return err;
    uint64_t offset = writer->written + writer->buffered;
    hint_block_finish(block, writer->salt, offset);
    struct hint_ref ref = {{writer->first, writer->first_len}, offset, (uint32_t)block->len};
    writer->index_len += hint_ref_encode(writer->index + writer->index_len, &ref);
    memcpy(writer->buffer + writer->buffered, block->bytes, block->len);
    writer->buffered += block->len;
    writer->blocks++;
    hint_block_init(block);
    return 0;
}

int hintfile_create(struct keg_env *env, const uint8_t store[FORMAT_ID_SIZE], uint64_t segment,
                    struct hintfile_writer **out)
{
    char name[ENV_NAME_MAX + 1];
    struct hintfile_writer *writer = malloc(sizeof(*writer));

    if (!writer)
        return -ENOMEM;
    memset(writer, 0, offsetof(struct hintfile_writer, first));
    writer->env = env;
    memcpy(writer->store, store, FORMAT_ID_SIZE);
    writer->segment = segment;
    writer->salt = format_salt(store, segment);
    hint_block_init(&writer->block);
    hint_preamble_encode(writer->buffer);
    writer->buffered = HINT_PREAMBLE_SIZE;

    temporary_name(segment, name);
    int err = env_remove(env, name); /* what a crash left */
    if (!err || err == -ENOENT)
        err = env_create(env, name, &writer->file);
    if (err) {
        free(writer);
        return err;
    }
    *out = writer;
    return 0;
}

static bool entry_allowed(const struct hintfile_writer *writer, const struct hint_entry *entry)
{
    const struct hint_block *block = &writer->block;

    if (entry->key.len == 0 || entry->key.len > KEG_KEY_MAX || entry->meta.len > KEG_META_MAX ||
        entry->value_len > KEG_VALUE_MAX || entry->sequence == 0)
        return false;
    return block->count == 0 ||
           compare(entry->key, (struct keg_bytes){block->last, block->last_len}) > 0;
}

int hintfile_add(struct hintfile_writer *writer, const struct hint_entry *entry)
{
    struct hint_block *block = &writer->block;

    if (!writer->error && !entry_allowed(writer, entry))
        writer->error = -EINVAL;
    if (!writer->error && !hint_block_add(block, entry)) {
        writer->error = end_block(writer);
        if (!writer->error && !hint_block_add(block, entry))
            writer->error = -EINVAL; /* never: an empty block takes any entry */
    }
    if (writer->error)
        return writer->error;
    if (block->count == 1) {
        memcpy(writer->first, entry->key.data, entry->key.len);
        writer->first_len = entry->key.len;
    }
    writer->entries++;
    return 0;
}

/* What follows the blocks. */
static int write_end(struct hintfile_writer *writer, const struct hint_info *info)
{
    int err = index_grow(writer, CRC_SIZE);

    if (!err)
        err = flush_buffer(writer);
    if (err)
        return err;
    struct hint_trailer trailer = {
        .info = *info,
        .index_offset = writer->written,
        .index_len = writer->index_len + CRC_SIZE,
        .entries = writer->entries,
        .blocks = writer->blocks,
    };
    format_put32(
        writer->index + writer->index_len,
        hint_index_crc(writer->salt, trailer.index_offset, writer->index, writer->index_len));
    err = write_bytes(writer, writer->index, writer->index_len + CRC_SIZE);
    if (err)
        return err;
    uint8_t bytes[HINT_TRAILER_SIZE];
    hint_trailer_encode(bytes, &trailer);
    return write_bytes(writer, bytes, sizeof(bytes));
}

int hintfile_finish(struct hintfile_writer *writer, const struct hint_info *info, uint64_t *size)
{
    char from[ENV_NAME_MAX + 1], to[ENV_NAME_MAX + 1];
    int err = writer->error;

    temporary_name(writer->segment, from);
    hintfile_name(writer->segment, to);
    if (!err && (info->segment != writer->segment ||
                 memcmp(info->store, writer->store, FORMAT_ID_SIZE) != 0))
        err = -EINVAL;
    if (!err && writer->block.count)
        err = end_block(writer);
    if (!err)
        err = write_end(writer, info);
    if (!err)
        err = env_sync(writer->file);
    env_close(writer->file);
    writer->file = NULL;
    if (!err)
        err = env_publish(writer->env, from, to);
    if (err) {
        hintfile_abandon(writer);
        return err;
    }
    *size = writer->written;
    free(writer->index);
    free(writer);
    return 0;
}

void hintfile_abandon(struct hintfile_writer *writer)
{
    char name[ENV_NAME_MAX + 1];

    if (!writer)
        return;
    env_close(writer->file);
    temporary_name(writer->segment, name);
    int err = env_remove(writer->env, name);
    (void)err; /* what stays behind is removed by the next writer of this hint or the next open */
    free(writer->index);
    free(writer);
}

/* ---- Opening ---- */

struct hintfile_reader {
    struct keg_file *file;
    uint64_t size; /* bytes of the file */
    struct hint_trailer trailer;
    struct format_salt salt;
    uint8_t *index;
    size_t refs_len; /* bytes of refs in it */
    uint32_t *refs;  /* where each block's ref begins in the index */
    size_t blocks;
    size_t next_block; /* the one behind that in the cursor */
    uint64_t met;      /* entries the cursor gave */
    bool sought;       /* so met says nothing */
    bool pending;      /* entry is still to be given out */
    int error;         /* the first one; sticks */
    struct hint_entry entry;
    struct hint_cursor cursor;
    uint8_t block[HINT_BLOCK_SIZE];
};

static int read_ends(struct hintfile_reader *reader, const uint8_t store[FORMAT_ID_SIZE],
                     uint64_t segment)
{
    const struct hint_trailer *trailer = &reader->trailer;
    uint8_t preamble[HINT_PREAMBLE_SIZE], bytes[HINT_TRAILER_SIZE];

    int err = env_size(reader->file, &reader->size);
    if (err)
        return err;
    if (reader->size < HINT_PREAMBLE_SIZE + CRC_SIZE + HINT_TRAILER_SIZE)
        return -EBADMSG;
    uint64_t end = reader->size - HINT_TRAILER_SIZE;
    err = env_read_all(reader->file, 0, preamble, sizeof(preamble));
    if (!err)
        err = env_read_all(reader->file, end, bytes, sizeof(bytes));
    if (err)
        return err;
    if (hint_preamble_decode(preamble) || hint_trailer_decode(bytes, &reader->trailer))
        return -EBADMSG;
    if (trailer->index_offset > end || trailer->index_len != end - trailer->index_offset ||
        trailer->index_len > UINT32_MAX || trailer->info.segment != segment ||
        memcmp(trailer->info.store, store, FORMAT_ID_SIZE) != 0)
        return -EBADMSG;
    return 0;
}

static int read_index(struct hintfile_reader *reader)
{
    const struct hint_trailer *trailer = &reader->trailer;
    size_t len = (size_t)trailer->index_len;

    reader->index = malloc(len);
    if (!reader->index)
        return -ENOMEM;
    int err = env_read_all(reader->file, trailer->index_offset, reader->index, len);
    if (err)
        return err;
    reader->refs_len = len - CRC_SIZE;
    if (format_get32(reader->index + reader->refs_len) !=
        hint_index_crc(reader->salt, trailer->index_offset, reader->index, reader->refs_len))
        return -EBADMSG;
    reader->blocks = (size_t)trailer->blocks; /* at most one for four bytes of index */
    if (reader->blocks) {
        reader->refs = calloc(reader->blocks, sizeof(*reader->refs));
        if (!reader->refs)
            return -ENOMEM;
    }
    return 0;
}

/* Finds where each ref begins; the blocks must follow one another without a gap, and their keys
 * ascend. */
static int check_refs(struct hintfile_reader *reader)
{
    struct hint_ref last = {.key = {"", 0}}, ref;
    uint64_t end = HINT_PREAMBLE_SIZE;
    size_t at = 0;

    for (size_t i = 0; i < reader->blocks; i++) {
        reader->refs[i] = (uint32_t)at;
        if (hint_ref_decode(reader->index, reader->refs_len, &at, &ref) || ref.offset != end ||
            compare(ref.key, last.key) <= 0)
            return -EBADMSG;
        end += ref.len;
        last = ref;
    }
    return at == reader->refs_len && end == reader->trailer.index_offset ? 0 : -EBADMSG;
}

int hintfile_open(struct keg_env *env, const uint8_t store[FORMAT_ID_SIZE], uint64_t segment,
                  struct hint_info *info, struct hintfile_reader **out)
{
    char name[ENV_NAME_MAX + 1];
    struct hintfile_reader *reader = malloc(sizeof(*reader));

    if (!reader)
        return -ENOMEM;
    memset(reader, 0, offsetof(struct hintfile_reader, block));
    reader->salt = format_salt(store, segment);
    hintfile_name(segment, name);
    int err = env_open(env, name, ENV_READ, &reader->file);
    if (!err)
        err = read_ends(reader, store, segment);
    if (!err)
        err = read_index(reader);
    if (!err)
        err = check_refs(reader);
    if (err) {
        hintfile_close(reader);
        return err;
    }
    *info = reader->trailer.info;
    *out = reader;
    return 0;
}

uint64_t hintfile_size(const struct hintfile_reader *reader)
{
    return reader->size;
}

void hintfile_close(struct hintfile_reader *reader)
{
    if (!reader)
        return;
    env_close(reader->file);
    free(reader->index);
    free(reader->refs);
    free(reader);
}

uint64_t hintfile_entries(const struct hintfile_reader *reader)
{
    return reader->trailer.entries;
}

size_t hintfile_blocks(const struct hintfile_reader *reader)
{
    return reader->blocks;
}

/* ---- Walking ---- */

/* The refs were checked when the hint was opened. */
static struct hint_ref ref_at(const struct hintfile_reader *reader, size_t block)
{
    struct hint_ref ref = {.key = {"", 0}};
    size_t at = reader->refs[block];

    if (hint_ref_decode(reader->index, reader->refs_len, &at, &ref))
        return (struct hint_ref){.key = {"", 0}};
    return ref;
}

struct keg_bytes hintfile_block_key(const struct hintfile_reader *reader, size_t block)
{
    return ref_at(reader, block).key;
}

static int load_block(struct hintfile_reader *reader, size_t block)
{
    struct hint_ref ref = ref_at(reader, block);

    if (ref.len > sizeof(reader->block))
        return -EBADMSG;
    int err = env_read_all(reader->file, ref.offset, reader->block, ref.len);
    if (err)
        return err;
    reader->next_block = block + 1;
    return hint_cursor_init(&reader->cursor, reader->block, ref.len, reader->salt, ref.offset);
}

/* Does the entry fit what the hint is a hint of? */
static bool entry_fits(const struct hintfile_reader *reader, const struct hint_entry *entry)
{
    const struct hint_info *info = &reader->trailer.info;
    uint32_t stored = format_stored_len(entry->value_len);

    if (entry->sequence < info->first_sequence || entry->sequence > info->last_sequence)
        return false;
    return entry->type != FORMAT_PUT ||
           (entry->offset >= FORMAT_SEGMENT_SIZE + FORMAT_FRAME_SIZE &&
            entry->offset <= info->length && info->length - entry->offset >= stored);
}

/* At the end of a block: its last key must lie before the next block's first. */
static int next_block(struct hintfile_reader *reader)
{
    if (reader->next_block) {
        struct keg_bytes last = {reader->cursor.key, reader->cursor.key_len};
        if (compare(last, ref_at(reader, reader->next_block).key) >= 0)
            return -EBADMSG;
    }
    return load_block(reader, reader->next_block);
}

/* The next entry, into reader->entry. 1, 0 or an error. */
static int advance(struct hintfile_reader *reader)
{
    struct hint_entry *entry = &reader->entry;

    if (reader->cursor.at == reader->cursor.len) {
        if (reader->next_block == reader->blocks)
            return reader->sought || reader->met == reader->trailer.entries ? 0 : -EBADMSG;
        int err = next_block(reader);
        if (err)
            return err;
    }
    bool first = reader->cursor.at == 0;
    int n = hint_cursor_next(&reader->cursor, entry);
    if (n != 1 || !entry_fits(reader, entry))
        return -EBADMSG;
    if (first && compare(entry->key, ref_at(reader, reader->next_block - 1).key) != 0)
        return -EBADMSG;
    reader->met++;
    return 1;
}

int hintfile_next(struct hintfile_reader *reader, struct hint_entry *entry)
{
    if (reader->error)
        return reader->error;
    int n = reader->pending ? 1 : advance(reader);
    reader->pending = false;
    if (n < 0)
        reader->error = n;
    if (n == 1)
        *entry = reader->entry;
    return n;
}

/* The last block whose first key is not above key; the first one if there is none such. */
static size_t find_block(const struct hintfile_reader *reader, struct keg_bytes key)
{
    size_t low = 0, high = reader->blocks;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (compare(ref_at(reader, middle).key, key) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int seek(struct hintfile_reader *reader, struct keg_bytes key)
{
    struct keg_bytes now = {reader->cursor.key, reader->cursor.key_len};
    size_t block = find_block(reader, key);

    if (reader->next_block != block + 1 || compare(now, key) >= 0) {
        int err = load_block(reader, block);
        if (err)
            return err;
    }
    int n;
    do
        n = advance(reader);
    while (n == 1 && compare(reader->entry.key, key) < 0);
    reader->pending = n == 1;
    return n < 0 ? n : 0;
}

int hintfile_seek(struct hintfile_reader *reader, struct keg_bytes key)
{
    if (reader->error || reader->blocks == 0)
        return reader->error;
    if (reader->pending && compare(reader->entry.key, key) >= 0)
        return 0;
    reader->pending = false;
    reader->sought = true;
    reader->error = seek(reader, key);
    return reader->error;
}
