/* SPDX-License-Identifier: MIT */
#include "frame.h"
#include "crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool frame_valid(const struct keg_op *op)
{
    return op->key.len >= 1 && op->key.len <= KEG_KEY_MAX && op->meta.len <= KEG_META_MAX &&
           op->value.len <= KEG_VALUE_MAX;
}

static struct format_record as_record(const struct keg_op *op, uint64_t sequence)
{
    struct format_record record = {.type = FORMAT_TOMBSTONE, .sequence = sequence, .key = op->key};

    if (!op->tombstone) {
        record.type = FORMAT_PUT;
        record.meta = op->meta;
        record.value_len = (uint32_t)op->value.len;
    }
    return record;
}

struct sizes {
    uint64_t heads, lists, values;
    size_t pieces; /* of iov */
};

static int measure(struct frame *frame, struct sizes *sizes)
{
    uint64_t total;

    *sizes = (struct sizes){.pieces = 2};
    for (size_t i = 0; i < frame->count; i++) {
        const struct keg_op *op = &frame->ops[i];
        struct format_record record = as_record(op, frame->header.count);

        if (!frame_valid(op))
            return -EINVAL;
        if (frame->skip && frame->skip[i])
            continue;
        frame->header.count++;
        sizes->heads += format_record_size(&record, 0);
        if (record.type != FORMAT_PUT)
            continue;
        frame->puts++;
        sizes->values += op->value.len;
        sizes->lists += format_stored_len(record.value_len) - record.value_len;
        sizes->pieces += op->value.len > KEG_BLOCK ? 2 : op->value.len > 0;
        total = sizes->heads + sizes->lists + sizes->values + FORMAT_FRAME_SIZE;
        if (total > KEG_BATCH_MAX)
            return -E2BIG;
    }
    total = sizes->heads + sizes->lists + sizes->values + FORMAT_FRAME_SIZE;
    return total > KEG_BATCH_MAX ? -E2BIG : 0;
}

static int make_room(struct frame *frame, const struct sizes *sizes)
{
    size_t bytes = FORMAT_FRAME_SIZE + sizes->heads + sizes->lists + FORMAT_ALIGN;

    frame->bytes = frame->inline_bytes;
    frame->iov = frame->inline_iov;
    if (bytes > FRAME_INLINE)
        frame->bytes = malloc(bytes);
    if (sizes->pieces > FRAME_INLINE_IOV)
        frame->iov = calloc(sizes->pieces, sizeof *frame->iov);
    return frame->bytes && frame->iov ? 0 : -ENOMEM;
}

static void add_piece(struct frame *frame, const void *data, size_t len)
{
    if (len)
        frame->iov[frame->iov_count++] = (struct iovec){(void *)(uintptr_t)data, len};
}

/* Heads go behind the header, lists behind the heads; values stay where they are. */
static void encode(struct frame *frame, const struct sizes *sizes)
{
    uint8_t *head = frame->bytes + FORMAT_FRAME_SIZE;
    uint8_t *list = head + sizes->heads, *pad = list + sizes->lists;
    uint64_t sequence = 0;
    uint32_t crcs;

    add_piece(frame, frame->bytes, FORMAT_FRAME_SIZE + sizes->heads);
    for (size_t i = 0; i < frame->count; i++) {
        const struct keg_op *op = &frame->ops[i];
        struct format_record record = as_record(op, sequence);

        if (frame->skip && frame->skip[i])
            continue;
        sequence++;
        if (record.value_len > KEG_BLOCK) {
            crcs = format_value_crcs(op->value.data, record.value_len, list);
            record.crc = crc_update(0, list, (size_t)crcs * 4);
            add_piece(frame, list, (size_t)crcs * 4);
            list += (size_t)crcs * 4;
        } else if (record.value_len) {
            record.crc = crc_update(0, op->value.data, op->value.len);
        }
        if (record.type == FORMAT_PUT)
            add_piece(frame, op->value.data, op->value.len);
        head += format_record_encode(head, &record, 0);
    }
    frame->header.heads_len = (uint32_t)sizes->heads;
    frame->header.length =
        (uint32_t)(FORMAT_FRAME_SIZE + sizes->heads + sizes->lists + sizes->values);
    memset(pad, 0, FORMAT_ALIGN);
    add_piece(frame, pad, (size_t)(format_frame_span(&frame->header) - frame->header.length));
}

int frame_init(struct frame *frame, const struct keg_op *ops, size_t count, bool *skip)
{
    struct sizes sizes;
    int err;

    frame->ops = ops;
    frame->count = count;
    frame->skip = skip;
    frame->header = (struct format_frame){0};
    frame->bytes = NULL;
    frame->iov = NULL;
    frame->iov_count = 0;
    frame->puts = 0;
    err = measure(frame, &sizes);
    if (!err)
        err = make_room(frame, &sizes);
    if (err) {
        frame_free(frame);
        return err;
    }
    encode(frame, &sizes);
    return 0;
}

void frame_free(struct frame *frame)
{
    if (frame->bytes != frame->inline_bytes)
        free(frame->bytes);
    if (frame->iov != frame->inline_iov)
        free(frame->iov);
    free(frame->skip);
    frame->bytes = NULL;
    frame->iov = NULL;
    frame->skip = NULL;
}

void frame_place(struct frame *frame, struct format_salt salt, uint64_t offset, uint64_t sequence,
                 uint64_t durable)
{
    struct format_frame *header = &frame->header;

    header->sequence = sequence;
    header->durable = durable;
    header->heads_crc =
        format_heads_crc(salt, offset, frame->bytes + FORMAT_FRAME_SIZE, header->heads_len);
    format_frame_encode(frame->bytes, salt, offset, header);
}
