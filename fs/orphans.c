/* SPDX-License-Identifier: MIT */
/*
 * Reclaiming what has become unreachable.
 *
 * What frees much logs only a change and an orphan key. The data is deleted here, in frames of at
 * most RECLAIM_MAX records, the last of which also deletes the orphan key: over any crash, what is
 * not deleted yet is still listed. Deleting again what is deleted already does no harm, so opening
 * a volume just puts every orphan key into the queue.
 *
 * An inode goes only when nobody has it any more: no name (its orphan key says so) and no lookups.
 */
#include "volume_internal.h"
#include <errno.h>

int orphans_scan(struct volume *volume)
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_kind_prefix(&prefix, KEYS_ORPHAN);
    int error = keg_iter_open(volume->keg, keys_bytes(&prefix), &iter);
    if (error)
        return error;
    int more;
    while ((more = keg_iter_next(iter, &entry)) > 0) {
        struct keys_parsed parsed;
        error = keys_parse(entry.key, &parsed);
        if (error)
            break;
        enum work_kind kind = parsed.orphan == KEYS_ORPHAN_INODE  ? WORK_INODE
                              : parsed.orphan == KEYS_ORPHAN_TAIL ? WORK_TAIL
                                                                  : WORK_CONTENT;
        tend_add(volume, kind, parsed.id);
    }
    keg_iter_close(iter);
    return volume_error(volume, 0, more < 0 ? more : error);
}

/*
 * Contents of an inode. Most files are one extent, whose length the inode tells: it is found by its
 * key, without a scan. 1: all deletions are in the frame.
 */
static int delete_contents(struct change *change, uint64_t content, uint64_t bytes, uint32_t flags)
{
    struct keys_key key;
    struct keg_info info;
    if (!content)
        return 1;
    keys_extent(&key, content, 0);
    if (!(flags & INODE_CONTENTS) && bytes && bytes <= KEYS_WINDOW &&
        keg_get(change->volume->keg, keys_bytes(&key), &info) == 0 && info.value_len == bytes) {
        change_delete(change, &key);
        return !change->error;
    }
    return change_delete_all(change, KEYS_EXTENT, content);
}

/* These return 1 when the frame holds all that is to be done for the work, 0 when it is full, or an
 * error. */

static int reclaim_content(struct change *change, uint64_t content)
{
    if (!change_delete_all(change, KEYS_EXTENT, content))
        return change->error;
    change_unorphan(change, KEYS_ORPHAN_CONTENT, content);
    return 1;
}

static int reclaim_inode(struct change *change, uint64_t ino)
{
    struct inode inode;
    struct keys_key key;
    int error = inodes_load(change->volume, ino, &inode);
    if (error == -ENOENT) {
        change_unorphan(change, KEYS_ORPHAN_INODE, ino);
        return 1;
    }
    if (error)
        return error;
    if (inode.nlink > 0)
        return 1;
    if (inodes_lookups(change->volume, ino)) {
        inodes_unlinked(change->volume, ino); /* the last one to forget it brings it here again */
        return 1;
    }
    if (!delete_contents(change, inode.content, inode.bytes, inode.flags) ||
        (inode.stale && !change_delete_all(change, KEYS_EXTENT, inode.stale)) ||
        !delete_contents(change, inode.old.content, inode.old.bytes, inode.old.flags) ||
        (inode.flags & INODE_HAS_XATTRS && !change_delete_all(change, KEYS_XATTR, ino)))
        return change->error;
    if (inode.staged && inode.content)
        change_unorphan(change, KEYS_ORPHAN_CONTENT, inode.content);
    keys_inode(&key, ino);
    change_delete(change, &key);
    change_unorphan(change, KEYS_ORPHAN_INODE, ino);
    return 1;
}

static int reclaim_tail(struct change *change, uint64_t ino)
{
    struct inode inode;
    int error = inodes_load(change->volume, ino, &inode);
    if (error && error != -ENOENT)
        return error;
    /* The record may still speak of a tail that a truncation held in memory does not: the key stays
     * with it, and the next open looks again. */
    if (!error && !(inode.flags & INODE_TAIL) && inodes_is_held(change->volume, ino))
        return 1;
    if (error || !(inode.flags & INODE_TAIL)) {
        change_unorphan(change, KEYS_ORPHAN_TAIL, ino);
        return 1;
    }
    error = files_shrink(change, &inode, inode.size);
    if (error)
        return error;
    change_inode(change, &inode);
    return !(inode.flags & INODE_TAIL);
}

static int reclaim_one(struct change *change, const struct work *work)
{
    if (work->kind == WORK_CONTENT)
        return reclaim_content(change, work->id);
    if (work->kind == WORK_INODE)
        return reclaim_inode(change, work->id);
    return reclaim_tail(change, work->id);
}

/* What one frame takes: any number of inodes and contents, or one tail. */
static size_t run_length(const struct work *work, size_t count)
{
    size_t n = 0;
    while (n < count && n < LOCK_MAX &&
           (work[n].kind == WORK_INODE || work[n].kind == WORK_CONTENT))
        n++;
    return n ? n : 1;
}

static int reclaim_run(struct volume *volume, const struct work *work, size_t count, size_t *done)
{
    struct change change;
    uint64_t gone[LOCK_MAX];
    unsigned inodes = 0;
    change_begin(&change, volume);
    for (*done = 0; *done < count && change.batch.count < RECLAIM_FULL; ++*done) {
        size_t before = change.batch.count;
        int all = reclaim_one(&change, &work[*done]);
        if (change.error || all == 0)
            break;
        /* One that cannot be read stays for the next open; it must not keep up the others. */
        if (all < 0 && all != -EIO) {
            change_fail(&change, all);
            break;
        }
        /* More than an orphan key that was left alone. */
        if (work[*done].kind == WORK_INODE && change.batch.count > before + 1)
            gone[inodes++] = work[*done].id;
    }
    int error = change_commit(&change, KEG_FREEING | KEG_WAITED);
    if (error) {
        *done = 0;
        return error;
    }
    for (unsigned i = 0; i < inodes; i++)
        inodes_logged(volume, gone[i]);
    atomic_fetch_sub(&volume->inodes, inodes);
    return 0;
}

int orphans_reclaim(struct volume *volume, const struct work *work, size_t count, size_t *done)
{
    struct lockset set;
    uint64_t inos[LOCK_MAX];
    unsigned locks = 0;
    if (work->kind == WORK_FLUSH) {
        *done = 1;
        return tend_flush(volume, work->id, false);
    }
    count = run_length(work, count);
    for (size_t i = 0; i < count; i++) {
        if (work[i].kind != WORK_CONTENT)
            inos[locks++] = work[i].id;
    }
    inodes_lock(volume, &set, inos, locks);
    int error = reclaim_run(volume, work, count, done);
    inodes_unlock(volume, &set);
    return error;
}
