/* SPDX-License-Identifier: MIT */
/* Opening what a directory holds. See recover.c. */
#ifndef RECOVER_H
#define RECOVER_H

#include "manifest.h"
#include "store.h"

/*
 * Fills members and index from MANIFEST, hints and segments, and begins an active segment unless
 * the store is (or turns out to be) read-only. The lock is held; no thread runs yet. Errors as
 * keg_open, the line to the log included.
 */
KEG_CHECKED int recover_store(struct keg *keg);

/* Before the lock is taken: whether there is a store at all, unless one may be made. A directory
 * that holds none is left without a LOCK. -ENOENT, -EBADMSG, both said. */
KEG_CHECKED int recover_look(struct keg *keg);

/* recover_members.c: adds the segments of a manifest to the members and what they hold to the
 * index. *continued as of recover_tail. An error was said. */
KEG_CHECKED int recover_members(struct keg *keg, const struct manifest_segment *segments,
                                size_t count, bool *continued);

/* No store has a longer segment. Bytes. */
enum { RECOVER_SEGMENT_MAX = 1 << 30 };

/* tail.c: reads the active segment behind what its hint covers, applies what is whole, and sees to
 * its end: *continued says whether it can go on as the active one (else it has been sealed). */
KEG_CHECKED int recover_tail(struct keg *keg, struct segment *segment, bool *continued);

/* One record found in a segment. The newest of each key stays. -ENOMEM. */
KEG_CHECKED int recover_record(struct keg *keg, const struct segment *segment,
                               enum format_type type, struct keg_bytes key, struct keg_bytes meta,
                               const struct index_place *place);
/* The records of the frame at hand, and the segment's counts. */
struct scan;
KEG_CHECKED int recover_frame(struct keg *keg, struct segment *segment, struct scan *scan);

/* Of the bytes at `at`, which are no frame: nothing is changed any more, and why so. */
void recover_say_damage(struct keg *keg, const struct segment *segment, const struct scan *scan,
                        uint64_t at);

/* The log is a chain: whether what the segment's predecessor holds, if that is still a member, came
 * before it. All members are loaded, and none was added since. */
bool recover_chain_fits(const struct keg *keg, const struct segment *segment);

/* Numbers that no store reaches, so that nothing overflows later. */
bool recover_plausible(const struct manifest *manifest, const struct manifest_segment *segments,
                       size_t count);

#endif
