/* SPDX-License-Identifier: MIT */
/*
 * A full disk must not trap anybody. Space comes back by compaction only, and compaction has to
 * write before it can remove: one segment, and its hint. That much is kept free (the floor). Puts
 * stop above it, at the reserve, which leaves 1/64 of the store for tombstones. When those have
 * reached the floor, each further one waits until compaction has made room.
 *
 * How much hints take depends on the values: next to nothing, or as much as the data if they are
 * empty. One store may have both kinds of segments, so the output's hint is taken to be as large as
 * the largest there is; and those still to be written count as taken, by their records.
 *
 * A compaction that frees too little, or fails, is not tried again at once: not before some more
 * has been deleted, a sixteenth of the tombstones' share. Deletes go on meanwhile, into the floor.
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
    HINT_GUESS = 96,      /* bytes of hint a record, as long as there is none */
    PAUSE_SHARE = 16,     /* of the tombstones' share */
    BLOCKS = 64 << 10,    /* what a few new files take */
};

/* What a hint of so many records takes, if `hints` bytes are those of `hinted` records. */
static uint64_t guess_hint(uint64_t records, uint64_t hints, uint64_t hinted)
{
    return records * (hinted ? hints / hinted + 1 : HINT_GUESS);
}

static uint64_t find_floor(struct keg *keg)
{
    uint64_t hints = 0, hinted = 0, unhinted = 0, most = 0, largest = 0, manifest, coming, floor;

    floor = atomic_load(&keg->floor);
    if (pthread_mutex_trylock(&keg->manifest_lock)) {
        /* MANIFEST is being published, for which no append shall wait. */
        if (floor)
            return floor;
        pthread_mutex_lock(&keg->manifest_lock);
    }
    manifest = manifest_size(keg->member_count + 1);
    pthread_mutex_lock(&keg->sync_lock);
    for (size_t i = 0; i < keg->member_count; i++) {
        const struct segment *s = keg->members[i];

        if (s->hint_bytes && s->hint_len == atomic_load(&s->length)) {
            hints += s->hint_bytes;
            hinted += s->records;
            largest = s->hint_bytes > largest ? s->hint_bytes : largest;
        } else {
            unhinted += s->records;
            most = s->records > most ? s->records : most;
        }
    }
    pthread_mutex_unlock(&keg->sync_lock);
    pthread_mutex_unlock(&keg->manifest_lock);
    coming = guess_hint(most, hints, hinted);
    floor = keg->segment_size + guess_hint(unhinted, hints, hinted) +
            (coming > largest ? coming : largest) + manifest + BLOCKS;
    atomic_store(&keg->floor, floor);
    return floor;
}

static uint64_t tombstones(const struct keg *keg)
{
    return atomic_load(&keg->data_bytes) / TOMBSTONE_SHARE;
}

uint64_t space_reserve(struct keg *keg)
{
    return find_floor(keg) + tombstones(keg);
}

uint64_t space_for_compaction(struct keg *keg)
{
    struct env_space space;

    if (env_space(keg->env, &space))
        return UINT64_MAX; /* trying will tell */
    return space.free > BLOCKS ? space.free - BLOCKS : 0;
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

/* What has been appended since the last try is too little to hope for more. */
static bool too_early(struct keg *keg)
{
    uint64_t appended = atomic_load(&keg->counters.append_bytes);

    return appended < atomic_load(&keg->space_pause);
}

void keg_make_room(struct keg *keg)
{
    if (!atomic_load(&keg->space_low) || keg_writable(keg) || too_early(keg))
        return;
    compact_while(keg, is_low);
    if (atomic_load(&keg->space_low))
        atomic_store(&keg->space_pause,
                     atomic_load(&keg->counters.append_bytes) + tombstones(keg) / PAUSE_SHARE);
}
