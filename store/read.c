/* SPDX-License-Identifier: MIT */
/*
 * Reading, in two steps. To find is to look the record's place up under the index lock, shared, and
 * to take a reference to the segment there. To fetch is to read and verify it with no lock held:
 * compaction may repoint the key meanwhile, a writer replace it, but the segment's file stays until
 * the reference is given back, and what was appended to it does not change. So what was found is a
 * snapshot, and a caller whose own lock keeps the writers of its keys out needs that for the first
 * step only (keg_find_many).
 *
 * Several values asked for at once are read in runs: those that stand behind one another in a
 * segment, with at most a frame's head and the small records of others in between, by one call.
 * Each value goes straight to where it is wanted, what is between them to nowhere; each is verified
 * by its own CRC, as ever.
 */
#include "read.h"
#include "crc.h"
#include "scan.h"
#include "segment.h"
#include "spin.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int keg_get(struct keg *keg, struct keg_bytes key, struct keg_info *info)
{
    struct index_place place;
    struct keg_bytes meta;
    int err;

    spin_rdlock(&keg->index_lock);
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
    struct spares *spares;
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
    whole = spare_take(source->spares);
    if (!whole)
        return -ENOMEM;
    err = read_piece(source, offset, whole, len, crc);
    if (!err)
        memcpy(buf, whole + from, want);
    spare_give(source->spares, whole);
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

/* ---- Keys ---- */

enum { GAP_MAX = 4096 }; /* bytes between two values that cost less to read than a call does */

/* result is set to the bytes that are wanted and there. */
static void find_locked(struct keg *keg, struct keg_reading *reading)
{
    struct index_place place;
    struct segment *segment;
    size_t len = 0;

    reading->found.segment = NULL;
    reading->result = index_get(keg->index, reading->key, &place, NULL);
    if (reading->result)
        return;
    segment = keg->slots[place.slot];
    segment_ref(segment);
    reading->found.segment = segment;
    reading->found.offset = place.offset;
    reading->found.value_len = place.value_len;
    reading->found.crc = place.crc;
    if (reading->offset < place.value_len)
        len = place.value_len - reading->offset;
    reading->result = (ssize_t)(len < reading->len ? len : reading->len);
}

static struct index_place place_of(const struct keg_reading *reading)
{
    return (struct index_place){.offset = reading->found.offset,
                                .value_len = reading->found.value_len,
                                .crc = reading->found.crc};
}

static void count_read(struct keg *keg, size_t bytes)
{
    static atomic_uint threads;
    static _Thread_local unsigned mine; /* + 1; 0: none so far */
    struct read_counters *counters;

    if (!mine)
        mine = atomic_fetch_add(&threads, 1) % READ_COUNTERS + 1;
    counters = &keg->read_counters[mine - 1];
    atomic_fetch_add_explicit(&counters->reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters->bytes, bytes, memory_order_relaxed);
}

/* Ends the reading: with as many bytes as were found to be there, or an error. */
static void answer(struct keg *keg, struct keg_reading *reading, int err)
{
    const struct segment *segment = reading->found.segment;
    const struct index_place place = place_of(reading);

    if (!err)
        count_read(keg, (size_t)reading->result);
    else
        reading->result = err;
    if (err != -EBADMSG)
        return;
    if (index_is_lost(&place))
        keg_say(keg, KEG_LOG_ERROR,
                "%08" PRIu64 ".data: a value of %" PRIu32 " bytes was lost before a repair",
                segment->id, place.value_len);
    else
        keg_say(keg, KEG_LOG_ERROR,
                "%08" PRIu64 ".data: a damaged value of %" PRIu32 " bytes at offset %" PRIu64,
                segment->id, place.value_len, place.offset);
    atomic_fetch_add(&keg->counters.damaged_reads, 1);
}

static void read_one(struct keg *keg, struct keg_reading *reading)
{
    struct source source = {.place = place_of(reading), .spares = &keg->spares};
    struct segment *segment = reading->found.segment;
    const size_t len = (size_t)reading->result;
    int err = 0;

    if (len && index_is_lost(&source.place)) {
        err = -EBADMSG;
    } else if (len) {
        err = segment_file(keg, segment, &source.file);
        if (!err) {
            err = read_value(&source, reading->offset, reading->buf, len);
            segment_release(segment);
        } else if (err == -ENOENT) {
            err = -EBADMSG; /* the segment's file is missing */
        }
    }
    answer(keg, reading, err);
}

static void give_back(struct keg *keg, struct keg_reading *reading)
{
    struct segment *segment = reading->found.segment;

    if (segment)
        segment_unref(keg, segment);
    reading->found.segment = NULL;
}

ssize_t keg_read(struct keg *keg, struct keg_bytes key, uint32_t offset, void *buf, size_t len)
{
    struct keg_reading reading = {.key = key, .offset = offset, .buf = buf, .len = len};

    spin_rdlock(&keg->index_lock);
    find_locked(keg, &reading);
    pthread_rwlock_unlock(&keg->index_lock);
    if (reading.found.segment) {
        read_one(keg, &reading);
        give_back(keg, &reading);
    }
    return reading.result;
}

/* ---- Many at a time ---- */

/* Whether a value is read whole and with no list of CRCs, so that it can be part of a run. */
static bool is_plain(const struct keg_reading *reading)
{
    const struct index_place place = place_of(reading);

    return reading->found.segment && reading->result && !index_is_lost(&place) &&
           place.value_len <= KEG_BLOCK;
}

/* Whether b's value stands so little behind a's that both are read at once. */
static bool is_next(const struct keg_reading *a, const struct keg_reading *b)
{
    uint64_t end = a->found.offset + a->found.value_len;

    return is_plain(a) && is_plain(b) && a->found.segment == b->found.segment &&
           b->found.offset >= end && b->found.offset - end <= GAP_MAX;
}

/* Values that are read by one call, of at most 2 MiB and the gaps. */
struct run {
    struct keg_reading *readings;
    size_t count;
    uint8_t *into[KEG_FIND_MAX]; /* where all of each value goes */
};

/* Of a value that is wanted in part all is read elsewhere, as it has to be verified. -ENOMEM. */
static int find_room(struct keg *keg, struct run *run)
{
    int err = 0;

    for (size_t i = 0; i < run->count; i++) {
        const struct keg_reading *reading = &run->readings[i];

        run->into[i] = reading->buf;
        if ((size_t)reading->result < reading->found.value_len)
            run->into[i] = spare_take(&keg->spares);
        if (!run->into[i])
            err = -ENOMEM;
    }
    return err;
}

static void free_room(struct keg *keg, const struct run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        if (run->into[i] != run->readings[i].buf)
            spare_give(&keg->spares, run->into[i]);
    }
}

static int add_piece(struct iovec *iov, int pieces, uint8_t *into, size_t len)
{
    struct iovec *last = pieces ? &iov[pieces - 1] : NULL;

    if (last && (uint8_t *)last->iov_base + last->iov_len == into) {
        last->iov_len += len;
        return pieces;
    }
    iov[pieces] = (struct iovec){into, len};
    return pieces + 1;
}

/* All values of the run, and what is between them, by one call. */
static int read_through(struct keg *keg, const struct run *run)
{
    uint8_t gap[GAP_MAX]; /* for all of them, as nobody looks at it */
    struct iovec iov[2 * KEG_FIND_MAX];
    struct segment *segment = run->readings->found.segment;
    const uint64_t from = run->readings->found.offset;
    struct keg_file *file;
    uint64_t at = from;
    int pieces = 0;
    ssize_t got;
    int err = segment_file(keg, segment, &file);

    if (err)
        return err;
    for (size_t i = 0; i < run->count; i++) {
        const struct index_place place = place_of(&run->readings[i]);

        if (place.offset > at)
            pieces = add_piece(iov, pieces, gap, (size_t)(place.offset - at));
        pieces = add_piece(iov, pieces, run->into[i], place.value_len);
        at = place.offset + place.value_len;
    }
    got = env_readv(file, from, iov, pieces);
    segment_release(segment);
    if (got < 0)
        return (int)got;
    return (uint64_t)got == at - from ? 0 : -EBADMSG;
}

/* One value of a run that was read. */
static void take_value(struct keg *keg, struct keg_reading *reading, const uint8_t *value)
{
    int err = 0;

    if (crc_update(0, value, reading->found.value_len) != reading->found.crc)
        err = -EBADMSG;
    else if (value != reading->buf)
        memcpy(reading->buf, value + reading->offset, (size_t)reading->result);
    answer(keg, reading, err);
}

/* If they cannot be had together each is tried alone, so that one bad sector hurts but one. */
static void read_run(struct keg *keg, struct keg_reading *readings, size_t count)
{
    struct run run;
    int err;

    run.readings = readings;
    run.count = count;
    err = find_room(keg, &run);
    if (!err)
        err = read_through(keg, &run);
    for (size_t i = 0; i < count; i++) {
        if (err)
            read_one(keg, &readings[i]);
        else
            take_value(keg, &readings[i], run.into[i]);
    }
    free_room(keg, &run);
}

/* How many from the first on are read at once. */
static size_t run_of(const struct keg_reading *readings, size_t count)
{
    size_t n = 1;

    while (n < count && n < KEG_FIND_MAX && is_next(&readings[n - 1], &readings[n]))
        n++;
    return n;
}

void keg_find_many(struct keg *keg, struct keg_reading *readings, size_t count)
{
    for (size_t i = 0, end; i < count; i = end) {
        end = count - i < KEG_FIND_MAX ? count : i + KEG_FIND_MAX;
        spin_rdlock(&keg->index_lock);
        for (size_t k = i; k < end; k++)
            find_locked(keg, &readings[k]);
        pthread_rwlock_unlock(&keg->index_lock);
    }
}

void keg_fetch_many(struct keg *keg, struct keg_reading *readings, size_t count)
{
    for (size_t i = 0, n; i < count; i += n) {
        n = run_of(readings + i, count - i);
        if (n > 1)
            read_run(keg, readings + i, n);
        else if (readings[i].found.segment)
            read_one(keg, &readings[i]);
        for (size_t k = i; k < i + n; k++)
            give_back(keg, &readings[k]);
    }
}

void keg_drop_many(struct keg *keg, struct keg_reading *readings, size_t count)
{
    for (size_t i = 0; i < count; i++)
        give_back(keg, &readings[i]);
}

void keg_read_many(struct keg *keg, struct keg_reading *readings, size_t count)
{
    keg_find_many(keg, readings, count);
    keg_fetch_many(keg, readings, count);
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
_Static_assert(sizeof(struct keg_iter) <= SPARE_SIZE, "an iterator is a spare buffer");

int keg_iter_open(struct keg *keg, struct keg_bytes prefix, struct keg_iter **out)
{
    struct keg_iter *iter;

    if (prefix.len > KEG_KEY_MAX)
        return -EINVAL;
    iter = spare_take(&keg->spares);
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
    spin_rdlock(&keg->index_lock);
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
    if (iter)
        spare_give(&iter->keg->spares, iter);
}
