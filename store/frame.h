/* SPDX-License-Identifier: MIT */
/* A frame in the making: a batch, encoded but for its place in the log. */
#ifndef FRAME_H
#define FRAME_H

#include "format.h"
#include <sys/uio.h>

/* Enough for a batch of 16 small records, whose values are a piece each, with the padding between.
 */
enum { FRAME_INLINE = 1536, FRAME_INLINE_IOV = 36 };

struct frame {
    const struct keg_op *ops;
    size_t count;
    struct format_frame header;
    uint8_t *bytes;    /* header, heads, lists of CRCs, padding */
    bool *skip;        /* operations that leave no record; NULL: none */
    struct iovec *iov; /* the whole frame, padding included */
    int iov_count;
    size_t puts; /* records that may grow the index */
    uint8_t inline_bytes[FRAME_INLINE];
    struct iovec inline_iov[FRAME_INLINE_IOV];
};

/*
 * Encodes ops, which must stay until frame_free. skip is as in the struct, and is freed by
 * frame_free. Values are checksummed here, outside any lock. -EINVAL, -E2BIG, -ENOMEM.
 */
KEG_CHECKED int frame_init(struct frame *frame, const struct keg_op *ops, size_t count, bool *skip);
void frame_free(struct frame *frame);

/* Fixes the frame's place: fills in the header. */
void frame_place(struct frame *frame, struct format_salt salt, uint64_t offset, uint64_t sequence,
                 uint64_t durable);

/* Whether an operation's key, meta and value are within the limits. */
bool frame_valid(const struct keg_op *op);

#endif
