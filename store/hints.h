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
/* The same for one segment: -EBADMSG when its heads are damaged. One that cannot be read becomes
 * suspect. */
KEG_CHECKED int hints_segment(struct keg *keg, struct segment *segment);
/* Whether a segment is sealed, still a member, and its hint is to be made. */
bool hints_wanted(struct keg *keg, const struct segment *segment);
/* A hint cannot be read. If it was there, it is to be made again (true); a segment to which that
 * happens twice becomes suspect. */
bool hints_lose(struct keg *keg, struct segment *segment);
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
