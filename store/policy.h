/* SPDX-License-Identifier: MIT */
/* Which segments to compact: a pure function, tested by table. */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct policy_segment {
    uint64_t bytes, live; /* of the file; of its live records */
    uint64_t age;         /* the lower, the older its newest record */
    bool usable;          /* sealed, readable, and not yet done in this run */
    uint64_t held;        /* bytes that are not live, and would have to be copied, too */
    uint64_t hint;        /* bytes of its hint */
};

enum policy_mode {
    POLICY_BACKGROUND, /* only what the promise on space needs */
    POLICY_SQUEEZED,   /* space is short: whatever frees some */
    POLICY_DEMAND,     /* somebody asked: all that is worth it */
};

enum { POLICY_GROUP_MAX = 32 };

/*
 * Chooses the next segments to compact together into about one segment of segment_size bytes:
 * indexes into segments, at most POLICY_GROUP_MAX of them, into chosen. Returns how many; 0:
 * nothing is worth it. active_bytes and active_live are those of the active segment. What they
 * become should fit room bytes, with its hint; where space is short, what might not fit is chosen
 * only if nothing else is there.
 */
size_t policy_choose(const struct policy_segment *segments, size_t count, uint64_t segment_size,
                     enum policy_mode mode, uint64_t active_bytes, uint64_t active_live,
                     uint64_t room, size_t *chosen);

/* Whether the active segment should be sealed, so that its dead bytes can be had. */
bool policy_seal_active(const struct policy_segment *segments, size_t count, uint64_t segment_size,
                        uint64_t active_bytes, uint64_t active_live);

#endif
