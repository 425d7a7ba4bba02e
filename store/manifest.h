/* SPDX-License-Identifier: MIT */
/* MANIFEST: which segments count. Pure codec, see format.h for the rules; FORMAT.md for the bytes.
 */
#ifndef MANIFEST_H
#define MANIFEST_H

#include "format.h"

struct manifest_segment {
    uint64_t id;
    enum format_kind kind;
    bool sealed;
    uint64_t length;         /* sealed: the file's size. Else: bytes that count as sealed, because a
                                hint covers them and they are durable; 0 for none */
    uint64_t first_sequence; /* sealed: lowest and highest; 0, 0: no records. Else 0, 0 */
    uint64_t last_sequence;
};

struct manifest {
    uint8_t store[FORMAT_ID_SIZE];
    uint64_t next_segment;             /* an id never used so far, nor any above it */
    uint64_t last_sequence;            /* no record had a higher one when this was written */
    struct manifest_segment *segments; /* each id once, at least 1 and below next_segment */
    size_t count;
};

enum { MANIFEST_SEGMENTS_MAX = 1 << 22 };

/* Bytes that `count` segments take, both copies. */
size_t manifest_size(size_t count);
/* Sorts manifest->segments by id. */
void manifest_encode(uint8_t *out, const struct manifest *manifest);

/*
 * Looks for a sound copy. 0: *count segments follow, and *manifest is filled but for segments.
 * -EBADMSG: neither copy is sound; -EPROTONOSUPPORT: a sound one of a newer version.
 * Then manifest_segments fills *count structs from the same bytes, in ascending order of id. They
 * were checked; len bounds count, so that the caller may allocate by it.
 */
KEG_CHECKED int manifest_decode(const uint8_t *in, size_t len, struct manifest *manifest,
                                size_t *count);
void manifest_segments(const uint8_t *in, size_t len, struct manifest_segment *segments);

#endif
