/* SPDX-License-Identifier: MIT */
/*
 * What a damaged segment still gives, and what it does not.
 *
 * The index was loaded as at every open: from the segment's hint where that is sound, else from the
 * heads that are. So what is copied is what the index points at, tombstones included. What lies in
 * between sound frames, and no hint tells of, is a gap. In a log segment sequences say which
 * records a gap had: those between its neighbours. In a compacted one the order of keys does.
 */
#include "output.h"
#include "read.h"
#include "repair.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { GAPS_MAX = 1000 }; /* told apart; a store with more is judged as if it had one large one */

/* ---- Gaps ---- */

static bool copy_bytes(struct keg_bytes *to, struct keg_bytes from)
{
    void *data = from.len ? malloc(from.len) : NULL;

    *to = (struct keg_bytes){data, from.len};
    if (data)
        memcpy(data, from.data, from.len);
    return data || !from.len;
}

static int add_gap(struct repair *repair, const struct keg_loss *loss)
{
    struct repair_gap *gaps, *gap;

    repair->lost_records = true;
    repair_tell(repair, loss);
    if (repair->gap_count == GAPS_MAX) {
        gap = &repair->gaps[GAPS_MAX - 1];
        gap->before.len = 0; /* any key, from here on */
        gap->last = loss->last_sequence > gap->last ? loss->last_sequence : gap->last;
        return 0;
    }
    gaps = realloc(repair->gaps, (repair->gap_count + 1) * sizeof *gaps);
    if (!gaps)
        return -ENOMEM;
    repair->gaps = gaps;
    gap = &gaps[repair->gap_count++];
    gap->last = loss->last_sequence;
    gap->before = (struct keg_bytes){NULL, 0};
    if (copy_bytes(&gap->after, loss->after) && copy_bytes(&gap->before, loss->before))
        return 0;
    return -ENOMEM;
}

struct walk {
    struct repair *repair;
    const struct segment *segment;
    struct scan scan;
    uint64_t low;  /* the highest sequence known to come before */
    uint64_t high; /* the segment's highest, or UINT64_MAX */
    struct keg_bytes after;
    uint8_t key[KEG_KEY_MAX]; /* what `after` points to */
};

/* The bytes [from, to) hold no frame; `next` begins at to, if it is not NULL. */
static int gap_between(struct walk *walk, uint64_t from, uint64_t to, struct scan *next)
{
    bool log = walk->segment->kind == FORMAT_LOG;
    struct format_record record;
    uint64_t value_at;
    struct keg_loss loss = {.kind = KEG_LOSS_RECORDS,
                            .segment = walk->segment->id,
                            .offset = from,
                            .len = to - from,
                            .first_sequence = log ? walk->low + 1 : 1,
                            .last_sequence = log && next ? next->frame.sequence - 1 : walk->high,
                            .text = "records are lost"};

    if (from >= to || loss.last_sequence < loss.first_sequence) {
        repair_note(walk->repair, walk->segment->id,
                    "damaged bytes at offset %" PRIu64 " that held no record", from);
        return 0;
    }
    if (!log) {
        loss.after = walk->after;
        if (next && scan_record(next, &record, &value_at))
            loss.before = record.key;
    }
    return add_gap(walk->repair, &loss);
}

static void remember_frame(struct walk *walk)
{
    struct format_record record;
    uint64_t value_at;

    if (walk->segment->kind == FORMAT_LOG) {
        walk->low = walk->scan.last_sequence = walk->scan.highest;
        return;
    }
    scan_rewind(&walk->scan);
    while (scan_record(&walk->scan, &record, &value_at))
        walk->after = record.key;
    memcpy(walk->key, walk->after.data, walk->after.len);
    walk->after.data = walk->key;
}

/* Where the bad bytes at `at` end: at the next frame, or with the file. */
static int find_end(struct walk *walk, uint64_t at, uint64_t *to, enum scan_found *found)
{
    struct format_frame frame;
    int err;

    for (;;) {
        err = scan_search(&walk->scan, at + 1, to, &frame);
        if (err)
            return err;
        if (*to >= walk->scan.end) {
            *found = SCAN_END;
            return 0;
        }
        err = scan_look(&walk->scan, *to, found);
        if (err || *found == SCAN_FRAME)
            return err;
        at = *to;
    }
}

/* end: where the frames end, at the latest. *from is then where they do. */
static int walk_gaps(struct walk *walk, uint64_t *from, uint64_t end)
{
    enum scan_found found;
    uint64_t to;
    int err;

    while (*from < end) {
        uint64_t at = *from;

        err = scan_look(&walk->scan, at, &found);
        if (err || found == SCAN_END || found == SCAN_FOOTER)
            return err;
        if (found == SCAN_BAD) {
            err = find_end(walk, at, &to, &found);
            if (!err)
                err = gap_between(walk, at, to, found == SCAN_FRAME ? &walk->scan : NULL);
            if (err || found != SCAN_FRAME)
                return err;
        }
        remember_frame(walk);
        *from = scan_next(&walk->scan);
    }
    return 0;
}

/* A log segment says what came before it. */
static uint64_t sequence_before(struct repair *repair, const struct segment *segment,
                                const struct manifest_segment *m, struct keg_file *file)
{
    uint8_t bytes[FORMAT_SEGMENT_SIZE];
    struct format_segment header;

    if (file && env_read_all(file, 0, bytes, sizeof bytes) == 0 &&
        format_segment_decode(bytes, &header) == 0 && header.id == segment->id &&
        memcmp(header.store, repair->keg->id, sizeof header.store) == 0)
        return header.last_sequence;
    return m->first_sequence ? m->first_sequence - 1 : 0;
}

/* A tail with a sector that cannot be read ends there, torn or not. Zeros that can be read are none
 * of it: they stand ahead of the log. */
static int gap_behind(struct walk *walk, struct keg_file *file, uint64_t end, uint64_t size)
{
    struct scan scan;
    bool zeros;
    int err;

    if (end >= size)
        return 0;
    err = scan_init(&scan, file, walk->scan.salt, size, true);
    if (err)
        return err;
    zeros = scan_only_zeros(&scan, end, size);
    scan_free(&scan);
    return zeros ? 0 : gap_between(walk, end, size, NULL);
}

static int file_gaps(struct walk *walk, const struct manifest_segment *m, struct keg_file *file)
{
    struct keg *keg = walk->repair->keg;
    uint64_t end = atomic_load(&walk->segment->length), size, from = FORMAT_SEGMENT_SIZE;
    int err = env_size(file, &size);

    if (err)
        return err;
    if (m->sealed && end >= FORMAT_SEGMENT_SIZE + FORMAT_FOOTER_SIZE)
        end -= FORMAT_FOOTER_SIZE;
    if (walk->segment->covered > end)
        end = walk->segment->covered;
    if (walk->segment->hint_len > from) {
        from = walk->segment->hint_len;
        walk->low = walk->segment->last_sequence;
    }
    err = scan_init(&walk->scan, file, segment_salt(keg, m->id), size < end ? size : end,
                    m->kind == FORMAT_LOG);
    if (err)
        return err;
    walk->scan.salvage = true;
    if (m->kind == FORMAT_LOG)
        walk->scan.last_sequence = walk->low;
    err = walk_gaps(walk, &from, end);
    if (!err && !m->sealed && atomic_load(&walk->segment->suspect))
        err = gap_behind(walk, file, end, size);
    if (!err && size < end && from < end && walk->low < walk->high)
        err = gap_between(walk, size > from ? size : from, end, NULL);
    scan_free(&walk->scan);
    return err;
}

int salvage_gaps(struct repair *repair, struct segment *segment, const struct manifest_segment *m)
{
    struct walk *walk = calloc(1, sizeof *walk);
    struct keg_file *file;
    int err;

    if (!walk)
        return -ENOMEM;
    walk->repair = repair;
    walk->segment = segment;
    walk->high = m->sealed && m->last_sequence ? m->last_sequence : UINT64_MAX;
    err = segment_file(repair->keg, segment, &file);
    if (!err) {
        walk->low = sequence_before(repair, segment, m, file);
        err = file_gaps(walk, m, file);
        segment_release(segment);
    } else if (err == -ENOENT) {
        walk->low = sequence_before(repair, segment, m, NULL);
        err = 0;
        if (segment->hint_len)
            walk->low = segment->last_sequence;
        /* How far one that was not sealed went, nothing says. */
        if (!m->sealed || (m->last_sequence && segment->hint_len < m->length))
            err = gap_between(walk, segment->hint_len, m->sealed ? m->length : UINT64_MAX, NULL);
    }
    free(walk);
    return err;
}

/* ---- Doubts ---- */

static int compare(struct keg_bytes a, struct keg_bytes b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static bool in_gap(const struct repair_gap *gap, struct keg_bytes key, uint64_t sequence)
{
    if (sequence >= gap->last)
        return false;
    if (gap->after.len && compare(key, gap->after) <= 0)
        return false;
    return !gap->before.len || compare(key, gap->before) < 0;
}

static bool doubt(void *arg, struct keg_bytes key, struct keg_bytes meta,
                  const struct index_place *place)
{
    struct repair *repair = arg;

    (void)meta;
    for (size_t i = 0; i < repair->gap_count && !place->tombstone; i++) {
        if (!in_gap(&repair->gaps[i], key, place->sequence))
            continue;
        repair_tell(repair, &(struct keg_loss){
                                .kind = KEG_LOSS_DOUBT,
                                .key = key,
                                .segment = repair->keg->slots[place->slot]->id,
                                .text = "may have been replaced or deleted by what is lost"});
        break;
    }
    return true;
}

void salvage_doubts(struct repair *repair)
{
    if (repair->gap_count)
        index_scan(repair->keg->index, (struct keg_bytes){"", 0}, doubt, repair);
}

/* ---- Copying ---- */

struct copy {
    struct repair *repair;
    struct output *output;
    uint8_t *value; /* room for the longest value so far */
    size_t room;
    int err;
};

/* Whether the value is whole; *file then has it, and is to be released. */
static int open_value(struct copy *copy, struct segment *segment, const struct index_place *place,
                      struct keg_file **file)
{
    uint8_t *value = copy->value;
    int err;

    if (place->value_len > copy->room) {
        value = realloc(copy->value, place->value_len);
        if (!value)
            return -ENOMEM;
        copy->value = value;
        copy->room = place->value_len;
    }
    err = segment_file(copy->repair->keg, segment, file);
    if (err == -ENOENT)
        return -EBADMSG;
    if (err)
        return err;
    err = read_whole(*file, place, value);
    if (err)
        segment_release(segment);
    return err == -EIO ? -EBADMSG : err;
}

static int copy_entry(struct copy *copy, struct hint_entry *entry, const struct index_place *place)
{
    struct segment *segment = copy->repair->keg->slots[place->slot];
    struct keg_file *file;
    int err;

    if (entry->type != FORMAT_PUT || entry->value_len == 0)
        return output_add(copy->output, entry, NULL);
    err = open_value(copy, segment, place, &file);
    if (err == -EBADMSG) {
        repair_tell(copy->repair,
                    &(struct keg_loss){.kind = KEG_LOSS_VALUE,
                                       .key = entry->key,
                                       .segment = segment->id,
                                       .offset = entry->offset,
                                       .len = entry->value_len,
                                       .text = "its value is lost: reading it is an error"});
        entry->type = FORMAT_LOST;
        entry->offset = entry->crc = 0;
        return output_add(copy->output, entry, NULL);
    }
    if (err)
        return err;
    err = output_add(copy->output, entry, file);
    segment_release(segment);
    return err;
}

static bool copy_place(void *arg, struct keg_bytes key, struct keg_bytes meta,
                       const struct index_place *place)
{
    struct copy *copy = arg;
    struct repair *repair = copy->repair;
    struct hint_entry entry = {.type = place->tombstone       ? FORMAT_TOMBSTONE
                                       : index_is_lost(place) ? FORMAT_LOST
                                                              : FORMAT_PUT,
                               .value_len = place->value_len,
                               .crc = place->crc,
                               .sequence = place->sequence,
                               .offset = place->offset,
                               .key = key,
                               .meta = meta};

    if (!repair->damaged[place->slot])
        return true;
    if (place->sequence > INT64_MAX) {
        repair_note(repair, repair->keg->slots[place->slot]->id,
                    "a record with sequence %" PRIu64 ", which no store reaches: left out",
                    place->sequence);
        return true;
    }
    copy->err = copy_entry(copy, &entry, place);
    repair->done += format_record_cost(key.len, meta.len, entry.value_len, entry.type);
    if (!copy->err && repair->progress &&
        repair->progress(repair->arg, repair->done, repair->total))
        copy->err = -ECANCELED;
    return !copy->err;
}

int salvage_copy(struct repair *repair, struct output *output)
{
    struct copy copy = {.repair = repair, .output = output};

    index_scan(repair->keg->index, (struct keg_bytes){"", 0}, copy_place, &copy);
    free(copy.value);
    return copy.err ? copy.err : output_finish(output);
}
