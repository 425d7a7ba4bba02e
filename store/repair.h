/* SPDX-License-Identifier: MIT */
/* What the parts of a repair share: repair.c (the whole), rebuild.c (a MANIFEST from segments),
 * salvage.c (what is lost, and copying what is not). One thread, no other user of the store. */
#ifndef REPAIR_H
#define REPAIR_H

#include "manifest.h"
#include "store.h"

/* A stretch of a damaged segment whose records nobody knows. */
struct repair_gap {
    uint64_t last;                  /* highest sequence that may have been in it */
    struct keg_bytes after, before; /* the keys in it lie between, if before is not empty; owned */
};

struct repair {
    struct keg *keg;
    keg_loss_fn *lost;
    keg_progress_fn *progress;
    void *arg;
    uint64_t done, total; /* bytes read, for progress */

    struct manifest manifest; /* as it was read or made up, with its segments */
    bool publish;             /* MANIFEST has to be written, even if no segment is damaged */
    bool *damaged;            /* by slot: the segment has to go */
    size_t damaged_count;
    uint64_t room; /* bytes at most that the copies take */

    struct repair_gap *gaps;
    size_t gap_count;
    bool lost_records;
};

/* Tells of a loss; repair_note: that nothing is lost by. */
void repair_tell(const struct repair *repair, const struct keg_loss *loss);
void repair_note(const struct repair *repair, uint64_t segment, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Renames a file to NAME.damaged (or .damaged-2, ...). -ENOENT. */
KEG_CHECKED int repair_set_aside(const struct repair *repair, uint64_t segment, const char *name);
/* The same for a segment and its hint, as far as they are there. */
KEG_CHECKED int repair_set_segment_aside(const struct repair *repair, uint64_t id);

/* rebuild.c: a MANIFEST from the segments in the directory, into repair->manifest; those that are
 * of no use for it are set aside. -EBADMSG: none is of any use. */
KEG_CHECKED int rebuild_manifest(struct repair *repair);
/* A log segment that the manifest cannot know, by its id: 1 if it is of this store and holds a
 * frame. It was in a manifest before it did, so the one at hand is an older one. 0, or an error;
 * -EIO: it cannot be read. */
KEG_CHECKED int rebuild_proves_newer(struct keg *keg, uint64_t id);
/* Whether segments are there that are newer than the manifest. 1, 0 or an error. If none is known
 * to be, those that cannot be read are set aside. */
KEG_CHECKED int rebuild_is_newer(struct repair *repair);

/* salvage.c: looks for the gaps of a damaged segment, as the manifest has it, and tells of them. */
KEG_CHECKED int salvage_gaps(struct repair *repair, struct segment *segment,
                             const struct manifest_segment *m);
/* Tells of the keys that the gaps cast a doubt on. */
void salvage_doubts(struct repair *repair);
/* Copies all that lives in damaged segments to new ones, which are in output->segments then. Values
 * that are lost are told of. The caller frees or abandons the output. */
struct output;
KEG_CHECKED int salvage_copy(struct repair *repair, struct output *output);

#endif
