/* SPDX-License-Identifier: MIT */
/*
 * Attributes, and above all sizes.
 *
 * To zero: nothing is logged. The inode, with no contents and size 0, is held in memory, where
 * everyone sees it; the old content id stays in inode.stale. Whatever logs the inode next puts an
 * orphan key for the stale contents into the same frame: usually the write that follows, so that
 * after a crash the file has the whole old contents or the whole new.
 *
 * To another size below: the extent that is cut and the deletions of those behind it are in the
 * frame of the new size. When they are too many for a frame, that frame also sets INODE_TAIL and a
 * tail orphan; the rest is deleted in further frames, in the background. What is left of a tail is
 * out of reach as long as the file does not grow, so whatever would let it grow deletes the rest
 * first (files_trim). An alternative was to give what remains a new content id: it would rewrite
 * all that stays.
 */
#include "volume_internal.h"
#include <errno.h>
#include <linux/falloc.h>

int files_shrink(struct change *change, struct inode *inode, uint64_t size)
{
    uint64_t next = INT64_MAX;
    int error = extents_punch(change, inode, size, INT64_MAX, &next);
    if (error)
        return error;
    inode->size = size;
    if (next < INT64_MAX && !(inode->flags & INODE_TAIL)) {
        inode->flags |= INODE_TAIL;
        change_orphan(change, KEYS_ORPHAN_TAIL, inode->ino);
    } else if (next == INT64_MAX && inode->flags & INODE_TAIL) {
        inode->flags &= ~(uint32_t)INODE_TAIL;
        change_unorphan(change, KEYS_ORPHAN_TAIL, inode->ino);
    }
    return 0;
}

/* Ends a frame with the inode in it, which more may follow; error: of what came before. */
static int commit_part(struct change *change, struct inode *inode, int error)
{
    struct volume *volume = change->volume;
    if (error) {
        change_drop(change);
        return volume_error(volume, inode->ino, error);
    }
    change_contents(change, inode);
    error = change_commit(change, KEG_FREEING);
    if (!error)
        inode->stale = 0;
    return error;
}

int files_trim(struct volume *volume, struct inode *inode)
{
    int error = 0;
    while (!error && inode->flags & INODE_TAIL) {
        struct change change;
        change_begin(&change, volume);
        error = commit_part(&change, inode, files_shrink(&change, inode, inode->size));
    }
    return error;
}

static int punch(struct volume *volume, struct inode *inode, uint64_t from, uint64_t to);

/* Staged contents never have a tail: nothing would list it once they are committed. */
static int shrink_staged(struct volume *volume, struct inode *inode, uint64_t size)
{
    int error = punch(volume, inode, size, inode->size);
    if (!error)
        inode->size = size;
    return error;
}

static int set_size(struct change *change, struct inode *inode, uint64_t size)
{
    if (size == 0)
        return stage_truncate(change, inode);
    if (size < inode->size)
        return inode->staged ? shrink_staged(change->volume, inode, size)
                             : files_shrink(change, inode, size);
    if (size > inode->size) {
        int error = files_trim(change->volume, inode);
        if (error)
            return error;
    }
    inode->size = size;
    return 0;
}

static void set_times(struct inode *inode, unsigned set, const struct volume_attr *attr,
                      struct timespec now)
{
    if (set & VOLUME_SET_SIZE)
        inode->mtime = now;
    if (set & VOLUME_SET_ATIME_NOW)
        inode->atime = now;
    else if (set & VOLUME_SET_ATIME)
        inode->atime = attr->atime;
    if (set & VOLUME_SET_MTIME_NOW)
        inode->mtime = now;
    else if (set & VOLUME_SET_MTIME)
        inode->mtime = attr->mtime;
    inode->ctime = set & VOLUME_SET_CTIME ? attr->ctime : now;
}

static void set_owner(struct inode *inode, unsigned set, const struct volume_attr *attr)
{
    bool chown = set & (VOLUME_SET_UID | VOLUME_SET_GID);
    if (set & VOLUME_SET_UID)
        inode->uid = attr->uid;
    if (set & VOLUME_SET_GID)
        inode->gid = attr->gid;
    if (!S_ISDIR(inode->mode) && (chown || set & VOLUME_KILL_SUID))
        files_kill_suid(inode);
    if (set & VOLUME_SET_MODE)
        inode->mode = (inode->mode & S_IFMT) | (attr->mode & 07777);
}

static int check_set(const struct inode *inode, unsigned set, const struct volume_attr *attr)
{
    if (set & VOLUME_SET_SIZE && S_ISDIR(inode->mode))
        return -EISDIR;
    if (set & VOLUME_SET_SIZE && !S_ISREG(inode->mode))
        return -EINVAL;
    if (set & VOLUME_SET_SIZE && attr->size > INT64_MAX)
        return -EFBIG;
    struct {
        unsigned bit;
        long ns;
    } times[] = {{VOLUME_SET_ATIME, attr->atime.tv_nsec},
                 {VOLUME_SET_MTIME, attr->mtime.tv_nsec},
                 {VOLUME_SET_CTIME, attr->ctime.tv_nsec}};
    for (int i = 0; i < 3; i++) {
        if (set & times[i].bit && (times[i].ns < 0 || times[i].ns > 999999999))
            return -EINVAL;
    }
    return 0;
}

/* It brings nothing but what open(O_TRUNC) and ftruncate bring. */
static bool only_size(unsigned set)
{
    return set & VOLUME_SET_SIZE && !(set & (VOLUME_SET_MODE | VOLUME_SET_UID | VOLUME_SET_GID));
}

enum { KILLS = VOLUME_SET_SIZE | VOLUME_SET_UID | VOLUME_SET_GID | VOLUME_KILL_SUID };

/* Such a truncation to zero can wait for the write after it. */
static bool may_wait(unsigned set, const struct volume_attr *attr)
{
    return only_size(set) && attr->size == 0;
}

static int setattr_locked(struct volume *volume, uint64_t ino, unsigned set,
                          const struct volume_attr *attr, struct inode *inode)
{
    static const struct volume_attr none;
    attr = attr ? attr : &none;
    int error = inodes_load(volume, ino, inode);
    if (!error)
        error = check_set(inode, set, attr);
    if (error || set == 0)
        return error;
    if (volume->flags & VOLUME_READONLY || keg_readonly_reason(volume->keg))
        return -EROFS;
    struct change change;
    change_begin(&change, volume);
    bool shrinks = set & VOLUME_SET_SIZE && attr->size < inode->size;
    if (set & VOLUME_SET_SIZE)
        error = set_size(&change, inode, attr->size);
    set_owner(inode, set, attr);
    if (set & VOLUME_SET_MODE)
        rights_chmod(&change, inode);
    set_times(inode, set, attr, volume_now(volume));
    bool killed = set & KILLS && files_kill_capabilities(&change, inode);
    if (error || (may_wait(set, attr) && !inode->staged && !killed)) {
        change_drop(&change);
        return error ? volume_error(volume, ino, error) : inodes_hold(volume, inode, false);
    }
    if (only_size(set))
        change_contents(&change, inode);
    else
        change_inode(&change, inode);
    return change_commit(&change, shrinks ? KEG_FREEING | KEG_WAITED : 0);
}

/* Before a truncation that will be held, where the inode is not held already. */
static int make_room(struct volume *volume, uint64_t ino, unsigned set,
                     const struct volume_attr *attr)
{
    struct inode inode;
    if (tend_has_room(volume))
        return 0;
    inodes_lock_shared(volume, ino);
    int error = inodes_load(volume, ino, &inode);
    if (!error)
        error = check_set(&inode, set, attr);
    bool held = inodes_is_held(volume, ino) || inodes_writers(volume, ino);
    inodes_unlock_shared(volume, ino);
    if (error || held || volume->flags & VOLUME_READONLY || keg_readonly_reason(volume->keg))
        return error; /* read-only: the call itself will say so */
    return tend_make_room(volume, false);
}

int volume_setattr(struct volume *volume, uint64_t ino, unsigned set,
                   const struct volume_attr *attr, struct volume_attr *out)
{
    struct inode inode;
    int error = attr && may_wait(set, attr) ? make_room(volume, ino, set, attr) : 0;
    if (error)
        return error;
    if (set & VOLUME_SET_SIZE)
        keg_make_room(volume->keg);
    inodes_lock_one(volume, ino);
    error = setattr_locked(volume, ino, set, attr, &inode);
    inodes_unlock_one(volume, ino);
    if (error)
        return error;
    inodes_attr(&inode, out);
    tend_inline(volume);
    return 0;
}

/* ---- fallocate ---- */

/* In a log, space cannot be set aside for a file: this only says whether there is some now, for
 * what is behind the end and at least so much of the range as the file has not got anywhere. Small
 * reservations become data, so that what stat says a file takes does not grow when it is filled. */
static int check_space(struct volume *volume, const struct inode *inode, uint64_t from, uint64_t to)
{
    struct keg_stats stats;
    uint64_t size = inode->size > from ? inode->size : from;
    uint64_t behind = to > size ? to - size : 0;
    uint64_t missing = to - from > inode->bytes ? to - from - inode->bytes : 0;
    keg_stats(volume->keg, &stats);
    return stats.free_bytes < (behind > missing ? behind : missing) ? -ENOSPC : 0;
}

/* Each frame leaves a sound file with a part of the hole; usually there is one frame. */
static int punch(struct volume *volume, struct inode *inode, uint64_t from, uint64_t to)
{
    if (to > inode->size)
        to = inode->size;
    int error = 0;
    while (!error && from < to) {
        struct change change;
        change_begin(&change, volume);
        files_kill_capabilities(&change, inode);
        error = commit_part(&change, inode, extents_punch(&change, inode, from, to, &from));
    }
    return error;
}

static int fallocate_locked(struct volume *volume, uint64_t ino, int mode, uint64_t offset,
                            uint64_t len)
{
    struct inode inode;
    uint64_t end = offset + len;
    int error = inodes_load(volume, ino, &inode);
    if (error)
        return error;
    if (!S_ISREG(inode.mode))
        return S_ISDIR(inode.mode) ? -EISDIR : -ENODEV;
    bool grows = !(mode & FALLOC_FL_KEEP_SIZE) && end > inode.size;
    if (!(mode & FALLOC_FL_PUNCH_HOLE))
        error = check_space(volume, &inode, offset, end);
    if (!error && grows)
        error = files_trim(volume, &inode);
    if (error)
        return error;
    inode.mtime = inode.ctime = volume_now(volume);
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        error = punch(volume, &inode, offset, end);
        if (error || (!grows && offset < inode.size))
            return error;
    }
    if (grows)
        inode.size = end;
    struct change change;
    change_begin(&change, volume);
    files_kill_capabilities(&change, &inode);
    end = end < inode.size ? end : inode.size;
    if (!(mode & ~FALLOC_FL_KEEP_SIZE) && offset < end && end - offset <= KEYS_WINDOW)
        error = files_fill(&change, &inode, offset, end);
    if (error) {
        change_drop(&change);
        return error;
    }
    change_contents(&change, &inode);
    return change_commit(&change, mode & FALLOC_FL_PUNCH_HOLE ? KEG_FREEING : 0);
}

int volume_fallocate(struct volume *volume, uint64_t ino, int mode, uint64_t offset, uint64_t len)
{
    const int keep = FALLOC_FL_KEEP_SIZE;
    if (mode != 0 && mode != keep && mode != (FALLOC_FL_PUNCH_HOLE | keep) &&
        (mode | keep) != (FALLOC_FL_ZERO_RANGE | keep))
        return -EOPNOTSUPP;
    if (len == 0)
        return -EINVAL;
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EFBIG;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        keg_make_room(volume->keg);
    inodes_lock_one(volume, ino);
    int error = fallocate_locked(volume, ino, mode, offset, len);
    inodes_unlock_one(volume, ino);
    tend_inline(volume);
    return error;
}
