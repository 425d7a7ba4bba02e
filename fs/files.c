/* SPDX-License-Identifier: MIT */
/*
 * Regular files: reading, writing, and the places that are data or holes. attrs.c has sizes.
 */
#include "volume_internal.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { DAY = 24 * 60 * 60 };

static int load_file(struct volume *volume, uint64_t ino, struct inode *inode)
{
    int error = inodes_load(volume, ino, inode);
    if (error)
        return error;
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    return S_ISREG(inode->mode) ? 0 : -EINVAL;
}

/* Contents for an inode that has none yet. */
static int begin_contents(struct change *change, struct inode *inode)
{
    if (inode->content)
        return 0;
    int error = volume_new_id(change->volume, &inode->content);
    if (!error && inode->staged)
        change_orphan(change, KEYS_ORPHAN_CONTENT, inode->content);
    return error;
}

/* ---- Reading ---- */

/* Finds what the extents have of [from, from + len), but for what was gathered of it before `at`,
 * and puts zeros between them, unless these may stand for what is lost. On failure nothing is
 * found. */
static int find_scan(struct volume *volume, const struct inode *inode, uint64_t from, uint8_t *buf,
                     size_t len, uint64_t at, struct extents_reads *reads)
{
    bool lost = false;
    struct extents it;
    struct extent e;
    uint64_t end = from + len;
    int error = extents_open(volume, inode->content, at, &it);
    if (error) {
        extents_drop(reads);
        return error;
    }
    int more;
    while ((more = extents_next(&it, &e)) > 0 && e.offset < end && !reads->error) {
        uint64_t a = e.offset > at ? e.offset : at;
        uint64_t b = e.offset + e.len < end ? e.offset + e.len : end;
        if (a >= b)
            continue;
        memset(buf + (at - from), 0, a - at);
        lost = lost || a > at;
        extents_gather(reads, &e, a, buf + (a - from), b - a);
        at = b;
    }
    extents_close(&it);
    error = extents_find(reads);
    if (error)
        return error;
    memset(buf + (at - from), 0, end - at);
    lost = lost || end > at;
    error = more < 0 ? more : lost && inode->flags & INODE_HOLES ? -EBADMSG : 0;
    if (error)
        extents_drop(reads);
    return error;
}

/*
 * Most files are one extent: found by its key, without a scan. So are most windows, of which large
 * reads take in many: the scan has those read together. What was found is what the file has now,
 * whatever becomes of it before extents_fetch; on failure nothing was.
 */
static int find_range(struct volume *volume, const struct inode *inode, uint64_t from, uint8_t *buf,
                      size_t len, struct extents_reads *reads)
{
    uint32_t skip = (uint32_t)(from % KEYS_WINDOW);
    size_t first = 0;
    extents_gather_begin(reads, volume, inode->content);
    if (!inode->content) {
        memset(buf, 0, len);
        return inode->flags & INODE_HOLES ? -EBADMSG : 0;
    }
    if (len <= KEYS_WINDOW - skip)
        first = extents_gather_first(reads, from - skip, from, buf, len);
    return first == len ? 0 : find_scan(volume, inode, from, buf, len, from + first, reads);
}

/* As mount(8) tells of relatime. */
static bool atime_is_due(const struct inode *inode, struct timespec now)
{
    struct timespec a = inode->atime, m = inode->mtime, c = inode->ctime;
    return a.tv_sec < m.tv_sec || (a.tv_sec == m.tv_sec && a.tv_nsec <= m.tv_nsec) ||
           a.tv_sec < c.tv_sec || (a.tv_sec == c.tv_sec && a.tv_nsec <= c.tv_nsec) ||
           now.tv_sec - a.tv_sec >= DAY;
}

/* atime is kept in memory until the inode changes; when that fails, it is only an atime. */
static void touch_atime(struct volume *volume, uint64_t ino)
{
    struct inode inode;
    struct timespec now = volume_now(volume);
    if (!inodes_is_held(volume, ino) && tend_make_room(volume, true) < 0)
        return;
    inodes_lock_memory(volume, ino);
    if (inodes_load(volume, ino, &inode) == 0 && atime_is_due(&inode, now)) {
        inode.atime = now;
        (void)!inodes_hold(volume, &inode, true);
    }
    inodes_unlock_memory(volume, ino);
}

/* The stripe is held while the inode and the places of its contents are looked up, in memory, but
 * not while the disk is read: a writer that waited for that would hold up all readers behind it. */
ssize_t volume_read(struct volume *volume, uint64_t ino, uint64_t offset, void *buf, size_t len)
{
    struct inode inode;
    struct extents_reads reads;
    bool due = false;
    inodes_lock_shared(volume, ino);
    int error = load_file(volume, ino, &inode);
    if (!error && offset >= inode.size)
        len = 0;
    else if (!error && len > inode.size - offset)
        len = (size_t)(inode.size - offset);
    if (!error && len) {
        error = find_range(volume, &inode, offset, buf, len, &reads);
        due = volume->flags & VOLUME_RELATIME && !(volume->flags & VOLUME_READONLY) &&
              atime_is_due(&inode, volume_now(volume));
    }
    inodes_unlock_shared(volume, ino);
    if (!error && len)
        error = extents_fetch(&reads);
    if (due && !error)
        touch_atime(volume, ino);
    return error ? volume_error(volume, ino, error) : (ssize_t)len;
}

int files_fill(struct change *change, struct inode *inode, uint64_t from, uint64_t to)
{
    struct volume *volume = change->volume;
    const size_t len = (size_t)(to - from);
    struct extents_reads reads;
    uint8_t *buf = change_alloc(change, len); /* read and written whole: the holes become zeros */
    int error = buf ? find_range(volume, inode, from, buf, len, &reads) : -ENOMEM;
    if (!error)
        error = extents_fetch(&reads);
    if (!error)
        error = begin_contents(change, inode);
    if (!error)
        error = extents_write(change, inode, from, buf, len);
    return volume_error(volume, inode->ino, error);
}

ssize_t volume_readlink(struct volume *volume, uint64_t ino, char *buf, size_t size)
{
    struct inode inode;
    struct keys_key key;
    keys_inode(&key, ino);
    struct keg_reading text = {.key = keys_bytes(&key), .buf = buf, .len = size};
    inodes_lock_shared(volume, ino);
    int error = inodes_load(volume, ino, &inode);
    if (!error && !S_ISLNK(inode.mode))
        error = -EINVAL;
    else if (!error && inode.size == 0)
        error = -EIO; /* a name of it was removed while its text was damaged (change.c) */
    if (!error)
        keg_find_many(volume->keg, &text, 1);
    inodes_unlock_shared(volume, ino);
    if (error)
        return error;
    keg_fetch_many(volume->keg, &text, 1);
    return text.result < 0 ? volume_error(volume, ino, (int)text.result) : text.result;
}

/* ---- Writing ---- */

void files_kill_suid(struct inode *inode)
{
    inode->mode &= ~(uint32_t)S_ISUID;
    if (inode->mode & S_IXGRP)
        inode->mode &= ~(uint32_t)S_ISGID;
}

bool files_kill_capabilities(struct change *change, const struct inode *inode)
{
    static const char name[] = "security.capability";
    struct keys_key key;
    struct keg_info info;
    if (!(inode->flags & INODE_HAS_XATTRS))
        return false;
    keys_xattr(&key, inode->ino, (struct keg_bytes){name, sizeof name - 1});
    int error = keg_get(change->volume->keg, keys_bytes(&key), &info);
    if (error == -ENOENT)
        return false;
    if (error)
        change_fail(change, error);
    change_delete(change, &key);
    return true;
}

static int write_locked(struct volume *volume, uint64_t ino, uint64_t offset, const void *buf,
                        size_t len, unsigned flags)
{
    struct inode inode;
    int error = load_file(volume, ino, &inode);
    if (!error && offset + len > inode.size)
        error = files_trim(volume, &inode);
    if (error)
        return error;
    struct change change;
    change_begin(&change, volume);
    error = begin_contents(&change, &inode);
    if (!error)
        error = extents_write(&change, &inode, offset, buf, len);
    if (error) {
        change_drop(&change);
        return volume_error(volume, ino, error);
    }
    if (offset + len > inode.size)
        inode.size = offset + len;
    if (flags & VOLUME_KILL_SUID)
        files_kill_suid(&inode);
    files_kill_capabilities(&change, &inode);
    inode.mtime = inode.ctime = volume_now(volume);
    change_contents(&change, &inode);
    return change_commit(&change, 0);
}

ssize_t volume_write(struct volume *volume, uint64_t ino, uint64_t offset, const void *buf,
                     size_t len, unsigned flags)
{
    if (len > WRITE_MAX)
        return -EINVAL;
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EFBIG;
    if (len == 0)
        return 0;
    inodes_lock_one(volume, ino);
    int error = write_locked(volume, ino, offset, buf, len, flags);
    if (error)
        stage_break(volume, ino, error);
    inodes_unlock_one(volume, ino);
    tend_inline(volume);
    return error ? error : (ssize_t)len;
}

/* ---- Data and holes ---- */

/* The first byte of data, or the first that is none, at or behind offset. */
static int seek_locked(struct volume *volume, const struct inode *inode, uint64_t offset, bool data,
                       uint64_t *out)
{
    struct extents it;
    struct extent e;
    *out = data ? inode->size : offset;
    if (!inode->content)
        return 0;
    int error = extents_open(volume, inode->content, offset, &it);
    if (error)
        return error;
    int more;
    while ((more = extents_next(&it, &e)) > 0) {
        if (e.offset + e.len <= offset)
            continue;
        if (data) {
            *out = e.offset > offset ? e.offset : offset;
            break;
        }
        if (e.offset > *out)
            break;
        *out = e.offset + e.len;
    }
    extents_close(&it);
    if (*out > inode->size)
        *out = inode->size;
    return more < 0 ? more : 0;
}

int volume_seek(struct volume *volume, uint64_t ino, uint64_t offset, int whence, uint64_t *out)
{
    struct inode inode;
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    inodes_lock_shared(volume, ino);
    int error = load_file(volume, ino, &inode);
    if (!error && offset >= inode.size)
        error = -ENXIO;
    if (!error)
        error = seek_locked(volume, &inode, offset, whence == SEEK_DATA, out);
    if (!error && whence == SEEK_DATA && *out >= inode.size)
        error = -ENXIO;
    inodes_unlock_shared(volume, ino);
    return volume_error(volume, ino, error);
}
