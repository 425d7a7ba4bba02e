/* SPDX-License-Identifier: MIT */
/*
 * Walking the frames of a segment. Recovery, the making of hints, and check all stand on it.
 * One thread; memory: a window of SCAN_WINDOW bytes and the heads of the frame at hand.
 */
#ifndef SCAN_H
#define SCAN_H

#include "env.h"
#include "format.h"

enum {
    SCAN_WINDOW = 256 << 10,
    SCAN_SKIM = 4 << 10, /* bytes to read of a frame for its heads, */
    SCAN_LONG =
        32 << 10, /* where the one before was so long: to copy that costs more than a call */
};

struct scan {
    struct keg_file *file; /* the caller's */
    struct format_salt salt;
    uint64_t end;           /* bytes of the segment to walk */
    uint64_t last_sequence; /* log segments: the highest met; a frame must begin above it */
    bool ordered;           /* a log segment */
    bool salvage;           /* set behind scan_init: what cannot be read is read as zeros, */
    bool hurried;           /* but not for ever: after many, the rest is not tried */
    bool skims;             /* set behind scan_init: values are not looked at, nor read if long */
    bool unread;            /* set if there was any */
    uint64_t unread_at;     /* the first such byte at or behind the frame at hand; */
    uint64_t unread_end;    /* the end of the last one */

    /* The frame at hand */
    uint64_t offset; /* of its header */
    struct format_frame frame;
    const uint8_t *heads;
    uint64_t highest; /* sequence in it */

    struct format_footer footer; /* the sound one, if that was found */

    /* Iteration over its records, see scan_record */
    size_t at;
    uint64_t value_at;
    uint32_t left;

    /* private */
    uint8_t *window; /* of SCAN_WINDOW bytes, or of end + 1 */
    uint64_t window_at;
    unsigned unread_pieces;
    uint64_t span; /* bytes of the last sound frame */
    size_t window_len;
    uint8_t *big; /* heads that pass the window */
    size_t big_size;
};

/* -ENOMEM */
KEG_CHECKED int scan_init(struct scan *scan, struct keg_file *file, struct format_salt salt,
                          uint64_t end, bool ordered);
void scan_free(struct scan *scan);

/* What stands at offset. */
enum scan_found {
    SCAN_END,    /* nothing more: offset is end */
    SCAN_FRAME,  /* a frame whose header and heads are sound; values not looked at */
    SCAN_FOOTER, /* a sound footer */
    SCAN_BAD,    /* none of these; scan->frame is that of a sound header over unsound heads if
                    scan->heads is NULL and scan->frame.length is not 0 */
};
/* Looks at offset. 0, or -EIO, -ENOMEM: an error reading is never the end. */
KEG_CHECKED int scan_look(struct scan *scan, uint64_t offset, enum scan_found *found);
/* Offset of the frame behind the one at hand. */
uint64_t scan_next(const struct scan *scan);

/* The records of the frame at hand, in order. *value_offset: of the stored value. False: no more.
 */
void scan_rewind(struct scan *scan);
bool scan_record(struct scan *scan, struct format_record *record, uint64_t *value_offset);

/* Verifies a value's bytes. 0, -EBADMSG, -EIO. Uses the window, so the frame's heads are kept aside
 * for as long. */
KEG_CHECKED int scan_verify(struct scan *scan, const struct format_record *record,
                            uint64_t value_offset);

/* The first sound frame header at or behind `from` (8-byte aligned) and its offset; offset == end:
 * there is none. */
KEG_CHECKED int scan_search(struct scan *scan, uint64_t from, uint64_t *offset,
                            struct format_frame *frame);

/* Whether all of [from, to), to at most end, could be read and is zeros, as ahead.c writes them
 * behind the log. Uses the window. */
bool scan_only_zeros(struct scan *scan, uint64_t from, uint64_t to);

#endif
