/* SPDX-License-Identifier: MIT */
/* Loading the index from hints, all at once. See load.c. */
#ifndef LOAD_H
#define LOAD_H

#include "store.h"

/* One hint that fits its segment as far as its trailer tells. */
struct load_hint {
    struct segment *segment;
    uint64_t live_bytes; /* out: of the records that are the newest of their keys */
    bool unsound;        /* out: it must be done without */
};

/* How many hints one call should be given: as many files as this process may well hold open. */
size_t load_hints_max(void);

/*
 * Builds an index of the newest record of each key in the hints; tombstones stay in it if keep is
 * set, and *tombstones says whether there were any. -EBADMSG: some hints turned out unsound, and
 * say so; nothing was built. -EIO, -ENOMEM, -EMFILE.
 */
KEG_CHECKED int load_hints(struct keg *keg, struct load_hint *hints, size_t count, bool keep,
                           struct index **out, bool *tombstones);

#endif
