/* SPDX-License-Identifier: MIT */
/*
 * Contents that are replaced as a whole, over any number of writes.
 *
 * Who is going to write to a file says so (a writer). When a file with writers is created or
 * truncated to zero, its new contents are staged: they get a content id of their own, for which the
 * first frame that uses it also logs an orphan key, and their extents are logged as they are
 * written. The inode is held in memory, where everyone sees the new contents; its record goes on
 * speaking of the old ones. Committing is one frame: the inode with the new content id, an orphan
 * key for the old one, and the deletion of the staged one's. So at any moment a crash leaves the
 * old contents or the new, and an orphan key for the others.
 *
 * Invariants, for a staged inode: it is held, and has writers; inode.old is what its record has;
 * inode.stale is 0 (inode.old.content is not stale yet); it has no tail; there is an orphan key for
 * inode.content, unless that is 0, and nothing queues it.
 *
 * Other changes of a staged inode are logged at once, with the contents' part of the record as it
 * was (change_staged). Rejected: to commit first, which would let a chmod in the midst of the
 * writes bring out half a file; and to hold such changes back, too, which would break the promise
 * that they are logged. Only what puts a staged inode in another's place commits it, in its own
 * frame: else a crash would find neither the file that was replaced nor the new contents.
 *
 * Contents that a write is missing from (a full disk) are never committed: the last writer gets
 * that write's error, and the old contents are back. A truncation to zero begins anew.
 */
#include "volume_internal.h"
#include <errno.h>

/* ---- Beginning ---- */

/* Holding it as it is now changes nothing, and is what could fail for want of memory. */
static int begin(struct volume *volume, struct inode *inode)
{
    struct inode record;
    int error = inodes_load_record(volume, inode->ino, &record);
    if (!error)
        error = inodes_hold(volume, inode, true);
    if (error)
        return error;
    inode->staged = true;
    inode->stale = 0;
    inode->old = (struct inode_old){.content = record.content,
                                    .size = record.size,
                                    .bytes = record.bytes,
                                    .flags = record.flags & INODE_CONTENTS,
                                    .mtime = record.mtime};
    return 0;
}

int stage_truncate(struct change *change, struct inode *inode)
{
    if (inode->staged) {
        if (inode->content)
            change_work(change, WORK_CONTENT, inode->content);
    } else if (inodes_writers(change->volume, inode->ino)) {
        int error = begin(change->volume, inode);
        if (error)
            return error;
    } else if (inode->content) {
        inode->stale = inode->content;
    }
    inode->broken = 0;
    inode->content = 0;
    inode->bytes = inode->size = 0;
    inode->flags &= ~(uint32_t)INODE_CONTENTS;
    return 0;
}

void stage_break(struct volume *volume, uint64_t ino, int error)
{
    struct inode inode;
    if (!inodes_is_held(volume, ino) || inodes_load(volume, ino, &inode) < 0 || !inode.staged)
        return;
    inode.broken = error;
    (void)!inodes_hold(volume, &inode, false); /* held already, it cannot fail */
}

/* ---- Ending ---- */

static void end(struct inode *inode)
{
    inode->staged = false;
    inode->broken = 0;
    inode->stale = inode->old.content;
    inode->old = (struct inode_old){0};
}

int stage_commit(struct change *change, struct inode *inode)
{
    if (!inode->staged || inode->broken)
        return inode->broken;
    if (inode->content)
        change_unorphan(change, KEYS_ORPHAN_CONTENT, inode->content);
    end(inode);
    return 0;
}

void stage_replace(struct change *change, struct inode *inode)
{
    if (!inode->staged)
        return;
    if (inode->content)
        change_work(change, WORK_CONTENT, inode->content);
    end(inode);
    inode->content = inode->stale;
}

/* The old contents are the file's again: they are what its record has. */
static void give_up(struct volume *volume, const struct inode *inode)
{
    volume_log(volume, KEG_LOG_WARNING,
               "inode %llu: its new contents could not be kept, the old ones are back",
               (unsigned long long)inode->ino);
    inodes_logged(volume, inode->ino);
    if (inode->content)
        tend_add(volume, WORK_CONTENT, inode->content);
}

static bool is_untouched(const struct inode *inode)
{
    return !inode->broken && !inode->content && !inode->old.content &&
           inode->size == inode->old.size && inode->mtime.tv_sec == inode->old.mtime.tv_sec &&
           inode->mtime.tv_nsec == inode->old.mtime.tv_nsec;
}

static int commit_locked(struct volume *volume, struct inode *inode)
{
    struct change change;
    if (is_untouched(inode)) {
        inodes_logged(volume, inode->ino);
        return 0;
    }
    change_begin(&change, volume);
    int error = stage_commit(&change, inode);
    if (error) {
        change_drop(&change);
        return error;
    }
    change_inode(&change, inode);
    return change_commit(&change, inode->stale ? KEG_FREEING | KEG_WAITED : 0);
}

/* Fills inode if its contents are staged. */
static bool load_staged(struct volume *volume, uint64_t ino, struct inode *inode)
{
    return inodes_is_held(volume, ino) && inodes_load(volume, ino, inode) == 0 && inode->staged;
}

static int close_locked(struct volume *volume, uint64_t ino)
{
    struct inode inode;
    if (!load_staged(volume, ino, &inode))
        return 0;
    struct inode committed = inode;
    int error = commit_locked(volume, &committed);
    if (error)
        give_up(volume, &inode);
    return error;
}

static int drop_locked(struct volume *volume, uint64_t ino)
{
    struct inode inode;
    if (load_staged(volume, ino, &inode))
        give_up(volume, &inode);
    return 0;
}

int stage_close(struct volume *volume, bool keep)
{
    int first = 0;
    uint64_t ino;
    size_t left;
    while ((ino = inodes_first_held(volume, HELD_STAGED, UINT64_MAX, &left)) != 0) {
        keg_make_room(volume->keg);
        inodes_lock_one(volume, ino);
        int error = keep ? close_locked(volume, ino) : drop_locked(volume, ino);
        inodes_unlock_one(volume, ino);
        first = first ? first : error;
    }
    return first;
}

/* ---- Writers ---- */

static int open_locked(struct volume *volume, uint64_t ino, bool created)
{
    struct inode inode;
    int error = inodes_load(volume, ino, &inode);
    if (!error && !S_ISREG(inode.mode))
        error = S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
    if (!error)
        error = inodes_add_writer(volume, ino);
    if (error || !created || inode.staged || inode.content || inode.size)
        return error;
    error = begin(volume, &inode);
    if (!error)
        error = inodes_hold(volume, &inode, false);
    if (error)
        inodes_drop_writer(volume, ino);
    return error;
}

int volume_writer_open(struct volume *volume, uint64_t ino, bool created)
{
    if (volume->flags & VOLUME_READONLY)
        return -EROFS;
    inodes_lock_memory(volume, ino);
    int error = open_locked(volume, ino, created);
    inodes_unlock_memory(volume, ino);
    return error;
}

int volume_writer_flush(struct volume *volume, uint64_t ino)
{
    struct inode inode;
    int error = 0;
    if (inodes_is_held(volume, ino))
        keg_make_room(volume->keg);
    inodes_lock_one(volume, ino);
    if (inodes_writers(volume, ino) == 1 && load_staged(volume, ino, &inode) &&
        (inode.content || inode.size || inode.broken))
        error = commit_locked(volume, &inode);
    inodes_unlock_one(volume, ino);
    tend_inline(volume);
    return error;
}

int volume_writer_close(struct volume *volume, uint64_t ino)
{
    int error = 0;
    if (inodes_is_held(volume, ino))
        keg_make_room(volume->keg);
    inodes_lock_one(volume, ino);
    if (inodes_writers(volume, ino) == 1)
        error = close_locked(volume, ino);
    inodes_drop_writer(volume, ino);
    inodes_unlock_one(volume, ino);
    tend_inline(volume);
    return error;
}
