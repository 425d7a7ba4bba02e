/* SPDX-License-Identifier: MIT */
#include "output.h"
#include "hintfile.h"
#include "segment.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_SIZE = OUTPUT_RECORDS * 256 + KEG_KEY_MAX + KEG_META_MAX };

int output_init(struct output *output, struct keg *keg)
{
    *output = (struct output){.keg = keg};
    output->entries = malloc(OUTPUT_RECORDS * sizeof *output->entries);
    output->keys = malloc(KEYS_SIZE);
    output->values_size = 2 * OUTPUT_FRAME;
    output->values = malloc(output->values_size);
    output->heads = malloc(FORMAT_FRAME_SIZE + KEYS_SIZE + OUTPUT_RECORDS * 32);
    if (output->entries && output->keys && output->values && output->heads)
        return 0;
    output_free(output);
    return -ENOMEM;
}

void output_free(struct output *output)
{
    free(output->entries);
    free(output->keys);
    free(output->values);
    free(output->heads);
    free(output->segments);
    output->entries = NULL;
    output->keys = output->values = output->heads = NULL;
    output->segments = NULL;
}

void output_abandon(struct output *output)
{
    if (output->hint)
        hintfile_abandon(output->hint);
    for (size_t i = 0; i < output->count; i++)
        segment_retire(output->keg, output->segments[i], true);
    output_free(output);
}

/* ---- Segments ---- */

static int begin_segment(struct output *output)
{
    struct keg *keg = output->keg;
    struct format_segment header = {.kind = FORMAT_COMPACTED};
    struct segment **segments =
        realloc(output->segments, (output->count + 1) * sizeof(struct segment *));
    int err;

    if (!segments)
        return -ENOMEM;
    output->segments = segments;
    pthread_mutex_lock(&keg->manifest_lock);
    header.id = keg->next_segment++;
    pthread_mutex_unlock(&keg->manifest_lock);
    memcpy(header.store, keg->id, sizeof header.store);
    err = segment_add(keg, header.id, FORMAT_COMPACTED, &output->segment);
    if (err)
        return err;
    err = segment_create(keg, &header, &output->file);
    if (err) {
        segment_retire(keg, output->segment, false);
        output->segment = NULL;
        return err;
    }
    segment_pin(keg, output->segment, output->file);
    atomic_store(&output->segment->length, FORMAT_SEGMENT_SIZE);
    output->segments[output->count++] = output->segment;
    return hintfile_create(keg->env, keg->id, header.id, &output->hint);
}

static int end_segment(struct output *output)
{
    struct segment *segment = output->segment;
    struct keg *keg = output->keg;
    struct hint_info info = {.segment = segment->id, .kind = FORMAT_COMPACTED};
    struct hintfile_writer *hint = output->hint;
    uint64_t size;
    int err = segment_write_footer(keg, segment, output->file);

    if (err)
        return err;
    segment_unpin(keg, segment);
    atomic_store(&segment->length, atomic_load(&segment->length) + FORMAT_FOOTER_SIZE);
    segment->overhead += FORMAT_SEGMENT_SIZE + FORMAT_FOOTER_SIZE;
    segment->sealed = true;
    memcpy(info.store, keg->id, sizeof info.store);
    info.length = atomic_load(&segment->length);
    info.records = segment->records;
    info.first_sequence = segment->first_sequence;
    info.last_sequence = segment->last_sequence;
    output->hint = NULL;
    output->segment = NULL;
    err = hintfile_finish(hint, &info, &size);
    if (err)
        return err;
    segment->hint_len = info.length;
    segment->hint_bytes = size;
    atomic_fetch_add(&keg->counters.hints_written, 1);
    return 0;
}

/* ---- Frames ---- */

static struct format_record as_record(const struct hint_entry *entry)
{
    return (struct format_record){.type = entry->type,
                                  .value_len = entry->value_len,
                                  .crc = entry->crc,
                                  .sequence = entry->sequence,
                                  .key = entry->key,
                                  .meta = entry->meta};
}

static uint64_t lowest_sequence(const struct output *output, uint64_t *highest)
{
    uint64_t low = UINT64_MAX;

    *highest = 0;
    for (size_t i = 0; i < output->entry_count; i++) {
        uint64_t sequence = output->entries[i].sequence;

        low = sequence < low ? sequence : low;
        *highest = sequence > *highest ? sequence : *highest;
    }
    return low;
}

static void count_frame(struct segment *segment, const struct format_frame *frame, uint64_t highest)
{
    segment->records += frame->count;
    segment->overhead += format_frame_span(frame);
    if (!segment->first_sequence || frame->sequence < segment->first_sequence)
        segment->first_sequence = frame->sequence;
    if (highest > segment->last_sequence)
        segment->last_sequence = highest;
    atomic_store(&segment->length, atomic_load(&segment->length) + format_frame_span(frame));
}

/* The entries get the places that their values have in the new segment. */
static int add_hints(struct output *output, uint64_t value_at)
{
    int err = 0;

    for (size_t i = 0; i < output->entry_count && !err; i++) {
        struct hint_entry *entry = &output->entries[i];

        entry->offset = entry->type == FORMAT_PUT ? value_at : 0;
        if (entry->type == FORMAT_PUT)
            value_at += format_stored_len(entry->value_len);
        err = hintfile_add(output->hint, entry);
    }
    return err;
}

static int flush(struct output *output)
{
    static const uint8_t zeros[FORMAT_ALIGN];
    struct segment *segment = output->segment;
    struct format_frame frame = {.count = (uint32_t)output->entry_count};
    uint64_t at = atomic_load(&segment->length), highest;
    uint8_t *head = output->heads + FORMAT_FRAME_SIZE;
    struct iovec iov[3];
    int err;

    frame.sequence = lowest_sequence(output, &highest);
    for (size_t i = 0; i < output->entry_count; i++) {
        struct format_record record = as_record(&output->entries[i]);

        head += format_record_encode(head, &record, frame.sequence);
    }
    frame.heads_len = (uint32_t)(head - output->heads - FORMAT_FRAME_SIZE);
    frame.length = (uint32_t)(FORMAT_FRAME_SIZE + frame.heads_len + output->values_len);
    frame.heads_crc = format_heads_crc(segment_salt(output->keg, segment->id), at,
                                       output->heads + FORMAT_FRAME_SIZE, frame.heads_len);
    format_frame_encode(output->heads, segment_salt(output->keg, segment->id), at, &frame);
    iov[0] = (struct iovec){output->heads, FORMAT_FRAME_SIZE + (size_t)frame.heads_len};
    iov[1] = (struct iovec){output->values, output->values_len};
    iov[2] = (struct iovec){(void *)(uintptr_t)zeros,
                            (size_t)(format_frame_span(&frame) - frame.length)};
    err = env_append(output->file, at, iov, 3);
    if (!err)
        err = add_hints(output, at + FORMAT_FRAME_SIZE + frame.heads_len);
    if (err)
        return err;
    count_frame(segment, &frame, highest);
    output->bytes += format_frame_span(&frame);
    output->entry_count = output->keys_len = output->values_len = 0;
    return 0;
}

/* What is left for one more frame. In a small segment that is less than the largest takes: else
 * each frame would have a segment of its own, and those would be merged again and again. */
static uint64_t frame_room(const struct output *output)
{
    uint64_t share = output->keg->segment_size / 4;

    return share < OUTPUT_FRAME ? share : OUTPUT_FRAME;
}

/* Whether a record still goes into the frame, and the frame into the segment. */
static int make_room(struct output *output, const struct hint_entry *entry, uint32_t stored)
{
    uint64_t segment_bytes;
    uint8_t *values;
    int err = 0;

    if (output->entry_count == OUTPUT_RECORDS ||
        (output->entry_count && output->values_len + stored > OUTPUT_FRAME) ||
        output->keys_len + entry->key.len + entry->meta.len > KEYS_SIZE) {
        err = flush(output);
        segment_bytes = err ? 0 : atomic_load(&output->segment->length);
        if (!err && segment_bytes + stored + frame_room(output) > output->keg->segment_size)
            err = end_segment(output);
    }
    if (!err && !output->segment)
        err = begin_segment(output);
    if (!err && output->values_len + stored > output->values_size) {
        values = realloc(output->values, output->values_len + stored);
        if (!values)
            return -ENOMEM;
        output->values = values;
        output->values_size = output->values_len + stored;
    }
    return err;
}

static struct keg_bytes keep(struct output *output, struct keg_bytes bytes)
{
    uint8_t *p = output->keys + output->keys_len;

    if (bytes.len)
        memcpy(p, bytes.data, bytes.len);
    output->keys_len += bytes.len;
    return (struct keg_bytes){p, bytes.len};
}

int output_add(struct output *output, const struct hint_entry *entry, struct keg_file *from)
{
    uint32_t stored = entry->type == FORMAT_PUT ? format_stored_len(entry->value_len) : 0;
    struct hint_entry *mine;
    uint64_t cost;
    int err = make_room(output, entry, stored);

    if (!err && stored) {
        err = env_read_all(from, entry->offset, output->values + output->values_len, stored);
        output->unreadable = err == -EBADMSG || err == -EIO;
    }
    if (err)
        return err;
    mine = &output->entries[output->entry_count++];
    *mine = *entry;
    mine->key = keep(output, entry->key);
    mine->meta = keep(output, entry->meta);
    output->values_len += stored;
    cost = format_record_cost(entry->key.len, entry->meta.len, entry->value_len, entry->type);
    output->segment->overhead -= cost; /* its frame is counted when it is written, as a whole */
    if (entry->type == FORMAT_TOMBSTONE)
        output->segment->held += cost;
    return 0;
}

int output_finish(struct output *output)
{
    int err = 0;

    if (output->entry_count)
        err = flush(output);
    if (!err && output->segment)
        err = end_segment(output);
    return err;
}
