/* SPDX-License-Identifier: MIT */
#include "hints.h"
#include "commit.h"
#include "durable.h"
#include "hintfile.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Collecting the heads of a segment ---- */

enum { CHUNK = 1 << 20 };

struct chunk {
    struct chunk *next;
    size_t used;
    uint8_t bytes[CHUNK];
};

struct heap {
    struct chunk *chunks;
    struct hint_entry *entries;
    size_t count, capacity;
    struct hint_info info;
};

static void heap_free(struct heap *heap)
{
    struct chunk *next;

    for (struct chunk *c = heap->chunks; c; c = next) {
        next = c->next;
        free(c);
    }
    free(heap->entries);
}

static const void *keep(struct heap *heap, struct keg_bytes bytes)
{
    struct chunk *c = heap->chunks;

    if (!c || CHUNK - c->used < bytes.len) {
        c = malloc(sizeof *c);
        if (!c)
            return NULL;
        c->used = 0;
        c->next = heap->chunks;
        heap->chunks = c;
    }
    if (bytes.len)
        memcpy(c->bytes + c->used, bytes.data, bytes.len);
    c->used += bytes.len;
    return c->bytes + c->used - bytes.len;
}

static int collect(struct heap *heap, const struct format_record *record, uint64_t value_offset)
{
    struct hint_entry *entry;

    if (heap->count == heap->capacity) {
        size_t capacity = heap->capacity ? 2 * heap->capacity : 1024;

        entry = realloc(heap->entries, capacity * sizeof *entry);
        if (!entry)
            return -ENOMEM;
        heap->entries = entry;
        heap->capacity = capacity;
    }
    entry = &heap->entries[heap->count];
    *entry = (struct hint_entry){.type = record->type,
                                 .value_len = record->value_len,
                                 .crc = record->crc,
                                 .sequence = record->sequence,
                                 .offset = value_offset,
                                 .key.len = record->key.len,
                                 .meta.len = record->meta.len};
    entry->key.data = keep(heap, record->key);
    entry->meta.data = keep(heap, record->meta);
    if (!entry->key.data || !entry->meta.data)
        return -ENOMEM;
    heap->count++;
    heap->info.records++;
    if (!heap->info.first_sequence || record->sequence < heap->info.first_sequence)
        heap->info.first_sequence = record->sequence;
    if (record->sequence > heap->info.last_sequence)
        heap->info.last_sequence = record->sequence;
    return 0;
}

/* All heads up to heap->info.length. -EBADMSG: something there is no frame. */
static int collect_all(struct heap *heap, struct scan *scan)
{
    struct format_record record;
    uint64_t at = FORMAT_SEGMENT_SIZE, value_offset;
    enum scan_found found;
    int err;

    for (;;) {
        err = scan_look(scan, at, &found);
        if (err)
            return err;
        if (found == SCAN_END || (found == SCAN_FOOTER && at + FORMAT_FOOTER_SIZE == scan->end))
            return 0;
        if (found != SCAN_FRAME)
            return -EBADMSG;
        while (scan_record(scan, &record, &value_offset)) {
            err = collect(heap, &record, value_offset);
            if (err)
                return err;
        }
        scan->last_sequence = scan->highest;
        at = scan_next(scan);
    }
}

static int by_key_then_newest(const void *left, const void *right)
{
    const struct hint_entry *a = left, *b = right;
    size_t len = a->key.len < b->key.len ? a->key.len : b->key.len;
    int order = memcmp(a->key.data, b->key.data, len);

    if (order)
        return order;
    if (a->key.len != b->key.len)
        return a->key.len < b->key.len ? -1 : 1;
    return a->sequence > b->sequence ? -1 : a->sequence < b->sequence;
}

static bool same_key(const struct hint_entry *a, const struct hint_entry *b)
{
    return a->key.len == b->key.len && memcmp(a->key.data, b->key.data, a->key.len) == 0;
}

static int write_sorted(struct keg *keg, struct heap *heap, uint64_t *size)
{
    struct hintfile_writer *writer;
    int err = hintfile_create(keg->env, keg->id, heap->info.segment, &writer);

    if (err)
        return err;
    for (size_t i = 0; i < heap->count && !err; i++) {
        if (i == 0 || !same_key(&heap->entries[i], &heap->entries[i - 1]))
            err = hintfile_add(writer, &heap->entries[i]);
    }
    if (err) {
        hintfile_abandon(writer);
        return err;
    }
    return hintfile_finish(writer, &heap->info, size);
}

static int collect_segment(struct keg *keg, struct segment *segment, uint64_t length,
                           struct heap *heap)
{
    struct keg_file *file;
    struct scan scan;
    int err;

    *heap =
        (struct heap){.info = {.segment = segment->id, .kind = segment->kind, .length = length}};
    memcpy(heap->info.store, keg->id, sizeof heap->info.store);
    err = segment_file(keg, segment, &file);
    if (err)
        return err;
    err =
        scan_init(&scan, file, segment_salt(keg, segment->id), length, segment->kind == FORMAT_LOG);
    if (!err) {
        scan.skims = true;
        err = collect_all(heap, &scan);
        scan_free(&scan);
    }
    segment_release(segment);
    if (!err && heap->count)
        qsort(heap->entries, heap->count, sizeof *heap->entries, by_key_then_newest);
    return err;
}

/* Makes the hint of the segment's first `length` bytes, which are durable. hint_lock held. */
static int make_hint_locked(struct keg *keg, struct segment *segment, uint64_t length)
{
    struct heap heap;
    uint64_t size;
    int err = collect_segment(keg, segment, length, &heap);

    if (err == -EBADMSG || err == -EIO || err == -ENOENT)
        atomic_store(&segment->suspect, true);
    if (!err)
        err = write_sorted(keg, &heap, &size);
    heap_free(&heap);
    if (err)
        return err;
    pthread_mutex_lock(&keg->manifest_lock);
    segment->hint_bytes = size;
    segment->hint_len = length;
    pthread_mutex_unlock(&keg->manifest_lock);
    atomic_fetch_add(&keg->counters.hints_written, 1);
    return 0;
}

/* ---- Comparing ---- */

static bool same_entry(const struct hint_entry *a, const struct hint_entry *b)
{
    return same_key(a, b) && a->type == b->type && a->sequence == b->sequence &&
           a->offset == b->offset && a->value_len == b->value_len && a->crc == b->crc &&
           a->meta.len == b->meta.len && memcmp(a->meta.data, b->meta.data, a->meta.len) == 0;
}

static int compare_sorted(const struct heap *heap, struct hintfile_reader *reader)
{
    struct hint_entry entry;
    int more;

    for (size_t i = 0; i < heap->count; i++) {
        if (i > 0 && same_key(&heap->entries[i], &heap->entries[i - 1]))
            continue;
        more = hintfile_next(reader, &entry);
        if (more < 0)
            return more;
        if (more == 0 || !same_entry(&heap->entries[i], &entry))
            return -EBADMSG;
    }
    more = hintfile_next(reader, &entry);
    return more == 1 ? -EBADMSG : more;
}

int hints_compare(struct keg *keg, struct segment *segment)
{
    struct hintfile_reader *reader;
    struct hint_info info;
    struct heap heap = {0};
    int err;

    pthread_mutex_lock(&keg->hint_lock);
    err = hintfile_open(keg->env, keg->id, segment->id, &info, &reader);
    if (!err) {
        err = info.length > atomic_load(&segment->length)
                  ? -EBADMSG
                  : collect_segment(keg, segment, info.length, &heap);
        if (!err)
            err = compare_sorted(&heap, reader);
        heap_free(&heap);
        hintfile_close(reader);
    } else if (err == -EBADMSG) {
        err = -ENOENT;
    }
    pthread_mutex_unlock(&keg->hint_lock);
    return err;
}

/* ---- Entry ---- */

bool hints_wanted(struct keg *keg, const struct segment *segment)
{
    bool wants;

    pthread_mutex_lock(&keg->manifest_lock);
    wants = segment->sealed && segment->hint_len != atomic_load(&segment->length);
    pthread_mutex_unlock(&keg->manifest_lock);
    return wants && !atomic_load(&segment->doomed);
}

int hints_segment(struct keg *keg, struct segment *segment)
{
    int err = 0;

    pthread_mutex_lock(&keg->hint_lock);
    if (hints_wanted(keg, segment))
        err = make_hint_locked(keg, segment, atomic_load(&segment->length));
    pthread_mutex_unlock(&keg->hint_lock);
    return err;
}

bool hints_lose(struct keg *keg, struct segment *segment)
{
    bool had;

    pthread_mutex_lock(&keg->manifest_lock);
    had = segment->hint_len == atomic_load(&segment->length);
    if (had)
        segment->hint_len = segment->hint_bytes = 0;
    pthread_mutex_unlock(&keg->manifest_lock);
    if (!had)
        return false;
    keg_say(keg, KEG_LOG_WARNING, "%08" PRIu64 ".hint: cannot be read any more: made again",
            segment->id);
    if (atomic_exchange(&segment->hint_lost, true))
        atomic_store(&segment->suspect, true);
    return true;
}

int hints_sealed(struct keg *keg)
{
    struct segment **members;
    size_t count;
    int err = segment_get_members(keg, &members, &count), result = err;

    if (err)
        return err;
    for (size_t i = 0; i < count; i++) {
        if (atomic_load(&members[i]->suspect) || !hints_wanted(keg, members[i]))
            continue;
        err = hints_segment(keg, members[i]);
        if (!err)
            continue;
        keg_say(keg, KEG_LOG_WARNING, "%08" PRIu64 ".hint: cannot write it: %s", members[i]->id,
                err == -EBADMSG ? "damaged record heads" : strerror(-err));
        result = result ? result : err;
    }
    segment_put_members(keg, members, count);
    return result;
}

/* The manifest says how far the hint goes, so that what lies below counts as sealed. */
static int cover_active(struct keg *keg, struct segment *segment, uint64_t length)
{
    int err = 0;

    pthread_mutex_lock(&keg->manifest_lock);
    if (!segment->sealed && segment->covered != length) {
        uint64_t before = segment->covered;

        segment->covered = length;
        err = segment_publish_locked(keg);
        if (err)
            segment->covered = before;
    }
    pthread_mutex_unlock(&keg->manifest_lock);
    return err;
}

int hints_active(struct keg *keg)
{
    struct segment *active;
    uint64_t length;
    bool wants;
    int err;

    err = keg_writable(keg);
    if (err)
        return err;
    pthread_mutex_lock(&keg->hint_lock);
    /* While a roll is under way the length is not settled; manifest_lock keeps it out. */
    pthread_mutex_lock(&keg->manifest_lock);
    pthread_mutex_lock(&keg->sync_lock);
    active = keg->active;
    length = atomic_load(&active->length);
    segment_ref(active);
    pthread_mutex_unlock(&keg->sync_lock);
    pthread_mutex_unlock(&keg->manifest_lock);
    err = durable_sync(keg);
    pthread_mutex_lock(&keg->manifest_lock);
    wants = length > FORMAT_SEGMENT_SIZE && active->hint_len < length;
    pthread_mutex_unlock(&keg->manifest_lock);
    if (!err && wants)
        err = make_hint_locked(keg, active, length);
    if (!err && length > FORMAT_SEGMENT_SIZE)
        err = cover_active(keg, active, length);
    pthread_mutex_unlock(&keg->hint_lock);
    segment_unref(keg, active);
    return err;
}

void hints_tend(struct keg *keg)
{
    if (hints_sealed(keg))
        return; /* said, and tried again later: a hint saves time, it holds nothing */
}

void hints_inline(struct keg *keg)
{
    if (keg->flags & KEG_NO_BACKGROUND)
        hints_tend(keg);
}
