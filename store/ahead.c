/* SPDX-License-Identifier: MIT */
/*
 * A sync of a file that has grown also commits its new size and the blocks it was given, which
 * costs as much again as the data. So while somebody asks for syncs of a few KiB each, the leader
 * writes zeros behind the log, enough for the next 64 of them: those then overwrite blocks that are
 * there.
 *
 * Nothing else needs to know of the zeros. They are behind the segment's length, so no reader comes
 * there; a roll and a clean close cut them off. After a crash they stand where the log ends, where
 * recovery takes nothing for granted anyway: zeros are never a valid frame, and an unsynced write
 * may have left anything. They are paid for out of the room for puts, so the reserve stays as it
 * is.
 *
 * Rejected: to zero the whole next segment in the background. It writes all data twice for those,
 * too, who never sync, and the disk is busy with it just when it is needed. And to allocate blocks
 * without writing them (fallocate): to convert them costs most of what it saves.
 */
#include "ahead.h"
#include "roll.h"
#include <errno.h>

enum {
    SYNCS = 64,           /* that the zeros are for */
    SYNC_MOST = 16 << 10, /* bytes of a sync, above which to write them twice costs more */
    PAGE = 4096,
    PIECE = 64 << 10,
    PIECES = SYNCS * SYNC_MOST / PIECE + 2,
};

static int append_zeros(struct keg *keg, uint64_t at, uint64_t len)
{
    static const uint8_t zeros[PIECE];
    struct iovec iov[PIECES];
    int count = 0;

    for (; len; count++) {
        size_t piece = len < PIECE ? (size_t)len : PIECE;

        iov[count] = (struct iovec){(void *)(uintptr_t)zeros, piece};
        len -= piece;
    }
    return env_append(keg->active->file, at, iov, count);
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

int ahead_write(struct keg *keg, uint64_t bytes)
{
    struct segment *active = keg->active;
    uint64_t at = atomic_load(&active->length), sync = atomic_load(&keg->sync_bytes), end, len;
    int err;

    if (!sync || at + bytes <= keg->ahead_end || active->id == keg->ahead_refused)
        return 0;
    /* Who asks for no further sync gets no further zeros. */
    atomic_store(&keg->sync_bytes, 0);
    if (sync > SYNC_MOST || bytes > SYNC_MOST)
        return 0;
    end = (at + bytes + sync * SYNCS + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    if (end - at > keg->room_for_puts || end + FORMAT_FOOTER_SIZE > keg->segment_size)
        return 0;
    len = end - at;
    err = append_zeros(keg, at, len);
    if (err == -ENOSPC || err == -EDQUOT) {
        /* A quota that free space says nothing of would refuse the next ones just so. */
        keg->ahead_refused = active->id;
        roll_cut(keg);
        err = keg_writable(keg);
    } else if (err) {
        keg_poison(keg, "appending to", active->id, err);
        err = -EIO;
    } else {
        keg->ahead_end = end;
        keg->room_for_puts = less(keg->room_for_puts, len);
        keg->room_to_free = less(keg->room_to_free, len);
    }
    return err;
}

void ahead_cut(struct keg *keg)
{
    if (keg->ahead_end > atomic_load(&keg->active->length))
        roll_cut(keg);
}
