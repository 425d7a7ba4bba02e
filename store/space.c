/* SPDX-License-Identifier: MIT */
/*
 * A full disk must not trap anybody. Space comes back by compaction only, and compaction has to
 * write before it can remove: one segment, and its hint. That much is kept free (the floor). Puts
 * stop above it, at the reserve, which leaves 1/64 of the store for tombstones. When those have
 * reached the floor, each further one waits until compaction has made room.
 *
 * How much hints take depends on the values: next to nothing, or as much as the data if they are
 * empty. It is judged by the hints there are; those still to be written count as taken.
 *
 * The filesystem is asked now and then only; in between a credit is spent, an eighth of the reserve
 * at most (or one frame), so that what others write meanwhile (hints, compaction, other programs)
 * cannot eat it up.
 */
#include "space.h"
#include "compact.h"
#include "manifest.h"
#include "tender.h"
#include <errno.h>

enum {
    TOMBSTONE_SHARE = 64, /* of the store, for what frees space */
    CREDIT_SHARE = 8,     /* of the reserve */
    HINT_GUESS = 4,       /* one byte of hint for so many of data, as long as there is none */
    BLOCKS = 64 << 10,    /* what a few new files take */
};

static uint64_t find_floor(struct keg *keg)
{
    uint64_t hints = 1, hinted = HINT_GUESS, to_hint = keg->segment_size, manifest;

    pthread_mutex_lock(&keg->manifest_lock);
    manifest = manifest_size(keg->member_count + 1);
    for (size_t i = 0; i < keg->member_count; i++) {
        const struct segment *s = keg->members[i];
        uint64_t length = atomic_load(&s->length);

        hints += s->hint_bytes;
        hinted += s->hint_len;
        to_hint += length > s->hint_len ? length - s->hint_len : 0;
    }
    pthread_mutex_unlock(&keg->manifest_lock);
    return keg->segment_size + to_hint / 1024 * (hints * 1024 / hinted) + manifest + BLOCKS;
}

static uint64_t tombstones(const struct keg *keg)
{
    return atomic_load(&keg->data_bytes) / TOMBSTONE_SHARE;
}

uint64_t space_reserve(struct keg *keg)
{
    return find_floor(keg) + tombstones(keg);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int ask(struct keg *keg, uint64_t bytes)
{
    struct env_space space;
    uint64_t floor, reserve, credit;
    int err = env_space(keg->env, &space);

    if (err)
        return err;
    floor = find_floor(keg);
    reserve = floor + tombstones(keg);
    credit = reserve / CREDIT_SHARE > bytes ? reserve / CREDIT_SHARE : bytes;
    keg->room_for_puts = space.free > reserve ? least(space.free - reserve, credit) : 0;
    keg->room_to_free = space.free > floor ? least(space.free - floor, credit) : 0;
    return 0;
}

int space_take(struct keg *keg, uint64_t bytes, unsigned flags)
{
    bool frees = flags & KEG_FREEING;
    uint64_t *room = frees ? &keg->room_to_free : &keg->room_for_puts;

    if (bytes > *room) {
        int err = ask(keg, bytes);

        if (err)
            return err;
    }
    if (bytes > *room && frees)
        atomic_store(&keg->space_low, true);
    if (bytes > *room && !frees) {
        atomic_store(&keg->squeezed, true);
        tender_kick(keg);
        return -ENOSPC;
    }
    keg->room_for_puts -= least(bytes, keg->room_for_puts);
    keg->room_to_free -= least(bytes, keg->room_to_free);
    return 0;
}

/* Whether the floor is reached; some way above it, once it was. */
static bool is_low(struct keg *keg)
{
    struct env_space space;
    bool low = env_space(keg->env, &space) == 0 &&
               space.free < find_floor(keg) + tombstones(keg) / 2 + BLOCKS;

    if (!low)
        atomic_store(&keg->space_low, false);
    return low;
}

void space_wait(struct keg *keg)
{
    if (atomic_load(&keg->space_low))
        compact_while(keg, is_low);
}
