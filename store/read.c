/* SPDX-License-Identifier: MIT */
/*
 * Reading. A reader finds the record's place under the index lock, shared, takes a reference to the
 * segment there, and reads and verifies with no lock held: compaction may repoint the key
 * meanwhile, but the segment's file stays until the reference is given back.
 */
#include "read.h"
#include "crc.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int keg_get(struct keg *keg, struct keg_bytes key, struct keg_info *info)
{
    struct index_place place;
    struct keg_bytes meta;
    int err;

    pthread_rwlock_rdlock(&keg->index_lock);
    err = index_get(keg->index, key, &place, &meta);
    if (!err) {
        info->sequence = place.sequence;
        info->segment = keg->slots[place.slot]->id;
        info->offset = place.offset;
        info->value_len = place.value_len;
        info->meta_len = (uint8_t)meta.len;
        if (meta.len)
            memcpy(info->meta, meta.data, meta.len);
    }
    pthread_rwlock_unlock(&keg->index_lock);
    return err;
}

/* ---- Values ---- */

struct source {
    struct keg_file *file;
    struct index_place place;
};

/* Reads a piece of the segment exactly and verifies it. A file that ends before it is damage. */
static int read_piece(const struct source *source, uint64_t offset, void *buf, size_t len,
                      uint32_t crc)
{
    int err = env_read_all(source->file, offset, buf, len);

    if (!err && crc_update(0, buf, len) != crc)
        err = -EBADMSG;
    return err;
}

/* The same, when only a part of the piece is wanted: it has to be read whole to be verified. */
static int read_part(const struct source *source, uint64_t offset, uint32_t len, uint32_t crc,
                     uint32_t from, uint8_t *buf, size_t want)
{
    uint8_t *whole;
    int err;

    if (from == 0 && want == len)
        return read_piece(source, offset, buf, len, crc);
    whole = malloc(len);
    if (!whole)
        return -ENOMEM;
    err = read_piece(source, offset, whole, len, crc);
    if (!err)
        memcpy(buf, whole + from, want);
    free(whole);
    return err;
}

/* A value with a list of CRCs: block by block. */
static int read_blocks(const struct source *source, uint32_t offset, uint8_t *buf, size_t len)
{
    const struct index_place *place = &source->place;
    uint32_t list_len = format_stored_len(place->value_len) - place->value_len;
    uint8_t list[4 * (KEG_VALUE_MAX / KEG_BLOCK)];
    uint64_t start = place->offset + list_len;
    int err = read_piece(source, place->offset, list, list_len, place->crc);

    while (!err && len) {
        uint32_t block = offset / KEG_BLOCK, at = block * (uint32_t)KEG_BLOCK, from = offset - at;
        uint32_t size =
            place->value_len - at < KEG_BLOCK ? place->value_len - at : (uint32_t)KEG_BLOCK;
        size_t want = len < size - from ? len : size - from;

        err = read_part(source, start + at, size, format_get32(list + (size_t)block * 4), from, buf,
                        want);
        buf += want;
        offset += (uint32_t)want;
        len -= want;
    }
    return err;
}

static int read_value(const struct source *source, uint32_t offset, uint8_t *buf, size_t len)
{
    const struct index_place *place = &source->place;

    if (place->value_len > KEG_BLOCK)
        return read_blocks(source, offset, buf, len);
    return read_part(source, place->offset, place->value_len, place->crc, offset, buf, len);
}

int read_whole(struct keg_file *file, const struct index_place *place, void *buf)
{
    struct source source = {.file = file, .place = *place};

    return read_value(&source, 0, buf, place->value_len);
}

/* The place of key, with a reference to its segment. */
static int find(struct keg *keg, struct keg_bytes key, struct index_place *place,
                struct segment **segment)
{
    int err;

    pthread_rwlock_rdlock(&keg->index_lock);
    err = index_get(keg->index, key, place, NULL);
    if (!err) {
        *segment = keg->slots[place->slot];
        segment_ref(*segment);
    }
    pthread_rwlock_unlock(&keg->index_lock);
    return err;
}

ssize_t keg_read(struct keg *keg, struct keg_bytes key, uint32_t offset, void *buf, size_t len)
{
    struct segment *segment;
    struct source source;
    int err = find(keg, key, &source.place, &segment);

    if (err)
        return err;
    if (offset >= source.place.value_len)
        len = 0;
    else if (len > source.place.value_len - offset)
        len = source.place.value_len - offset;
    if (len && index_is_lost(&source.place)) {
        err = -EBADMSG;
    } else if (len) {
        err = segment_file(keg, segment, &source.file);
        if (!err) {
            err = read_value(&source, offset, buf, len);
            segment_release(keg, segment);
        } else if (err == -ENOENT) {
            err = -EBADMSG; /* the segment's file is missing */
        }
    }
    if (err == -EBADMSG) {
        if (index_is_lost(&source.place))
            keg_say(keg, KEG_LOG_ERROR,
                    "%08" PRIu64 ".data: a value of %" PRIu32 " bytes was lost before a repair",
                    segment->id, source.place.value_len);
        else
            keg_say(keg, KEG_LOG_ERROR,
                    "%08" PRIu64 ".data: a damaged value of %" PRIu32 " bytes at offset %" PRIu64,
                    segment->id, source.place.value_len, source.place.offset);
        atomic_fetch_add(&keg->counters.damaged_reads, 1);
    }
    segment_unref(keg, segment);
    if (err)
        return err;
    atomic_fetch_add(&keg->counters.reads, 1);
    atomic_fetch_add(&keg->counters.read_bytes, len);
    return (ssize_t)len;
}

/* ---- Scans ---- */

enum { ITER_BYTES = 16 << 10, ITER_ENTRIES = 256, ITER_FIRST = 8 };

/* Entries are copied out in chunks, under the lock; the next chunk begins behind the last key.
 * Chunks grow: who wants the few extents of one window does not pay for hundreds. */
struct keg_iter {
    struct keg *keg;
    uint8_t prefix[KEG_KEY_MAX];
    size_t prefix_len;
    uint8_t from[KEG_KEY_MAX + 1]; /* where the next chunk begins */
    size_t from_len;
    bool ended;
    size_t count, at, used, limit; /* limit: entries of the next chunk */
    struct keg_entry entries[ITER_ENTRIES];
    uint8_t bytes[ITER_BYTES];
};

int keg_iter_open(struct keg *keg, struct keg_bytes prefix, struct keg_iter **out)
{
    struct keg_iter *iter;

    if (prefix.len > KEG_KEY_MAX)
        return -EINVAL;
    iter = malloc(sizeof *iter);
    if (!iter)
        return -ENOMEM;
    iter->keg = keg;
    if (prefix.len)
        memcpy(iter->prefix, prefix.data, prefix.len);
    iter->prefix_len = prefix.len;
    *out = iter;
    return keg_iter_seek(iter, prefix);
}

int keg_iter_seek(struct keg_iter *iter, struct keg_bytes key)
{
    struct keg_bytes from = key;
    size_t len = key.len < iter->prefix_len ? key.len : iter->prefix_len;
    int order = len ? memcmp(key.data, iter->prefix, len) : 0;

    if (key.len > KEG_KEY_MAX)
        return -EINVAL;
    if (order < 0 || (order == 0 && key.len < iter->prefix_len))
        from = (struct keg_bytes){iter->prefix, iter->prefix_len};
    if (from.len)
        memmove(iter->from, from.data, from.len);
    iter->from_len = from.len;
    iter->ended = order > 0;
    iter->count = iter->at = 0;
    iter->limit = ITER_FIRST;
    return 0;
}

static bool take_entry(void *arg, struct keg_bytes key, struct keg_bytes meta,
                       const struct index_place *place)
{
    struct keg_iter *iter = arg;
    struct keg_entry *entry;
    uint8_t *p = iter->bytes + iter->used;

    if (key.len < iter->prefix_len ||
        (iter->prefix_len && memcmp(key.data, iter->prefix, iter->prefix_len) != 0)) {
        iter->ended = true;
        return false;
    }
    if (iter->count == iter->limit || key.len + meta.len > ITER_BYTES - iter->used)
        return false;
    entry = &iter->entries[iter->count++];
    memcpy(p, key.data, key.len);
    if (meta.len)
        memcpy(p + key.len, meta.data, meta.len);
    iter->used += key.len + meta.len;
    *entry = (struct keg_entry){.key = {p, key.len},
                                .meta = {p + key.len, meta.len},
                                .sequence = place->sequence,
                                .segment = iter->keg->slots[place->slot]->id,
                                .offset = place->offset,
                                .value_len = place->value_len};
    return true;
}

static void fill(struct keg_iter *iter)
{
    struct keg *keg = iter->keg;
    const struct keg_entry *last;

    iter->count = iter->at = iter->used = 0;
    pthread_rwlock_rdlock(&keg->index_lock);
    index_scan(keg->index, (struct keg_bytes){iter->from, iter->from_len}, take_entry, iter);
    pthread_rwlock_unlock(&keg->index_lock);
    if (iter->limit < ITER_ENTRIES)
        iter->limit *= 2;
    if (iter->count == 0) {
        iter->ended = true;
        return;
    }
    /* The least key above the last one taken. */
    last = &iter->entries[iter->count - 1];
    memcpy(iter->from, last->key.data, last->key.len);
    iter->from[last->key.len] = 0;
    iter->from_len = last->key.len + 1;
}

int keg_iter_next(struct keg_iter *iter, struct keg_entry *entry)
{
    if (iter->at == iter->count) {
        if (iter->ended)
            return 0;
        fill(iter);
        if (iter->count == 0)
            return 0;
    }
    *entry = iter->entries[iter->at++];
    return 1;
}

void keg_iter_close(struct keg_iter *iter)
{
    free(iter);
}
