/* SPDX-License-Identifier: MIT */
#include "roll.h"
#include "durable.h"
#include "segment.h"
#include "tender.h"
#include <errno.h>
#include <string.h>

/* A segment that is new in the table and on disk, and not yet in the manifest. */
static int make_active(struct keg *keg, struct segment *old, struct segment **out)
{
    struct format_segment header = {.kind = FORMAT_LOG,
                                    .id = keg->next_segment,
                                    .predecessor = old ? old->id : 0,
                                    .last_sequence = keg->next_sequence - 1};
    struct keg_file *file;
    struct segment *segment;
    int err = segment_member_room(keg, 1);

    if (err)
        return err;
    memcpy(header.store, keg->id, sizeof header.store);
    err = segment_add(keg, header.id, FORMAT_LOG, &segment);
    if (err)
        return err;
    keg->next_segment++;
    err = segment_create(keg, &header, &file);
    if (err) {
        segment_retire(keg, segment, false);
        return err;
    }
    segment_pin(keg, segment, file);
    atomic_store(&segment->length, FORMAT_SEGMENT_SIZE);
    segment->durable = FORMAT_SEGMENT_SIZE;
    *out = segment;
    return 0;
}

/* Footer, and the segment's end made durable. */
static int seal_file(struct keg *keg, struct segment *segment)
{
    int err = segment_write_footer(keg, segment, segment->file);

    if (!err)
        keg->ahead_end = 0; /* the footer's end is the file's */
    if (err && err != -ENOSPC && err != -EDQUOT)
        keg_poison(keg, "sealing", segment->id, err);
    return err;
}

/* The manifest with `old` sealed and `new` in it. manifest_lock held. */
static int publish_roll(struct keg *keg, struct segment *old, struct segment *new)
{
    uint64_t length = atomic_load(&old->length);
    int err;

    old->sealed = true;
    atomic_store(&old->length, length + FORMAT_FOOTER_SIZE);
    segment_member_add_locked(keg, new);
    err = segment_publish_locked(keg);
    if (err) {
        segment_member_drop_locked(keg, new);
        old->sealed = false;
        atomic_store(&old->length, length);
    }
    return err;
}

/* Makes `new` the active segment; all before it is durable. */
static void switch_active(struct keg *keg, struct segment *new)
{
    pthread_mutex_lock(&keg->sync_lock);
    keg->active = new;
    keg->ahead_end = 0;
    atomic_store(&keg->roll_due, false);
    atomic_store(&keg->durable, keg->appended);
    pthread_mutex_unlock(&keg->sync_lock);
}

/*
 * Seals the active segment and begins the next. What fails before the manifest is published leaves
 * everything as it was: a footer that is not in the manifest is overwritten by the next frame.
 */
int roll_active(struct keg *keg)
{
    struct segment *old = keg->active, *new;
    int err;

    pthread_mutex_lock(&keg->manifest_lock);
    err = make_active(keg, old, &new);
    if (!err) {
        err = durable_hold(keg);
        if (!err)
            err = seal_file(keg, old);
        if (!err)
            err = publish_roll(keg, old, new);
        if (err)
            segment_retire(keg, new, !atomic_load(&keg->poisoned));
        else
            switch_active(keg, new);
        durable_release(keg);
    }
    if (!err) {
        atomic_fetch_add(&keg->data_bytes, atomic_load(&old->length));
        segment_unpin(keg, old);
    }
    pthread_mutex_unlock(&keg->manifest_lock); /* a compaction may take the old one, and free it */
    if (err)
        return err == -EDQUOT ? -ENOSPC : err;
    tender_kick(keg);
    return 0;
}

void roll_cut(struct keg *keg)
{
    struct segment *active = keg->active;
    uint64_t length = atomic_load(&active->length), size;
    int err = env_size(active->file, &size);

    keg->ahead_end = 0;
    if (err)
        keg_poison(keg, "cutting", active->id, err);
    if (err || size <= length)
        return;
    if (!durable_hold(keg)) {
        err = env_seal(active->file, length);
        /* Whoever is let go before that syncs the same file, and is told that all is well. */
        if (err)
            keg_poison(keg, "cutting", active->id, err);
    }
    durable_release(keg);
}

int roll_begin(struct keg *keg)
{
    struct segment *segment, *previous = NULL;
    int err;

    pthread_mutex_lock(&keg->manifest_lock);
    for (size_t i = 0; i < keg->member_count; i++) {
        struct segment *member = keg->members[i];

        if (member->kind == FORMAT_LOG && (!previous || member->id > previous->id))
            previous = member;
    }
    err = make_active(keg, previous, &segment);
    if (!err) {
        segment_member_add_locked(keg, segment);
        err = segment_publish_locked(keg);
        if (err) {
            segment_member_drop_locked(keg, segment);
            segment_retire(keg, segment, !atomic_load(&keg->poisoned));
        }
    }
    pthread_mutex_unlock(&keg->manifest_lock);
    if (!err)
        switch_active(keg, segment);
    return err;
}
