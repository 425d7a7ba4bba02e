/* SPDX-License-Identifier: MIT */
/*
 * Making the hints of segments from their heads. Memory: the heads of one segment. One at a time
 * (hint_lock).
 */
#ifndef HINTS_H
#define HINTS_H

#include "store.h"

/* Writes the hint of each sealed member that has none. The first error, after trying all. */
KEG_CHECKED int hints_sealed(struct keg *keg);
/* The same for one segment: -EBADMSG when its heads are damaged. */
KEG_CHECKED int hints_segment(struct keg *keg, struct segment *segment);
/* Syncs, writes the active segment's hint, and says so in the manifest. */
KEG_CHECKED int hints_active(struct keg *keg);

/* Compares a segment's hint with its heads: 0, -ENOENT (no sound hint), -EBADMSG (they differ, or
 * the heads are damaged), -EIO, -ENOMEM. */
KEG_CHECKED int hints_compare(struct keg *keg, struct segment *segment);

/* hints_sealed, for those to whom a missing hint is no failure: errors go to the log. */
void hints_tend(struct keg *keg);
/* The same, but only where there is no thread to do it. */
void hints_inline(struct keg *keg);

#endif
