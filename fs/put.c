/* SPDX-License-Identifier: MIT */
/*
 * A whole file in one step, for the command line.
 *
 * What fits into one buffer is one frame with everything. More is streamed under a content id that
 * nothing points to; an orphan key for it is logged first, and deleted in the frame that gives the
 * contents to an inode. So over any crash and any failure the file is the old one or the new one,
 * and what was streamed in vain is reclaimed.
 */
#include "paths.h"
#include <errno.h>
#include <stdlib.h>

enum { BUFFER = 1 << 20 };

struct put {
    struct volume *volume;
    volume_fill_fn *fill;
    void *arg;
    uint8_t *buf;
    size_t filled;         /* bytes in buf, not logged yet */
    bool ended;            /* fill has no more */
    bool streamed;         /* an orphan key names the contents */
    struct inode contents; /* only content, size and bytes */
};

static int fill_buffer(struct put *p)
{
    for (p->filled = 0; p->filled < BUFFER && !p->ended;) {
        ssize_t n = p->fill(p->arg, p->buf + p->filled, BUFFER - p->filled);
        if (n < 0)
            return (int)n;
        p->ended = n == 0;
        p->filled += (size_t)n;
    }
    return 0;
}

/* Adds the buffer's bytes to the frame. */
static int add_buffer(struct put *p, struct change *change)
{
    if (!p->filled)
        return 0;
    if (p->contents.size + p->filled > INT64_MAX)
        return -EFBIG;
    int error = extents_write(change, &p->contents, p->contents.size, p->buf, p->filled);
    p->contents.size += p->filled;
    return error;
}

/* A frame with the buffer's bytes. Nobody can see them yet, so there is nothing to lock. */
static int log_buffer(struct put *p)
{
    struct change change;
    change_begin(&change, p->volume);
    if (!p->streamed)
        change_orphan(&change, KEYS_ORPHAN_CONTENT, p->contents.content);
    int error = add_buffer(p, &change);
    if (error) {
        change_drop(&change);
        return error;
    }
    return change_commit(&change, 0);
}

static int stream(struct put *p)
{
    while (!p->ended) {
        keg_enter(p->volume->keg);
        int error = log_buffer(p);
        keg_leave(p->volume->keg);
        if (error)
            return error;
        p->streamed = true;
        error = fill_buffer(p);
        if (error)
            return error;
    }
    return 0;
}

/* The file that is there gets the contents; it keeps the rest. */
static int replace(struct change *change, struct inode *inode, const struct put *p,
                   struct timespec now)
{
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    if (!S_ISREG(inode->mode))
        return -EEXIST;
    stage_replace(change, inode);
    files_kill_capabilities(change, inode);
    if (inode->content)
        inode->stale = inode->content;
    inode->content = p->contents.content;
    inode->flags &= ~(uint32_t)INODE_CONTENTS;
    inode->mtime = inode->ctime = now;
    return 0;
}

static int finish_locked(struct put *p, uint64_t dir, struct keg_bytes name, uint64_t old,
                         const struct volume_new *new)
{
    struct inode parent, inode;
    struct change change;
    struct volume *volume = p->volume;
    struct timespec now = volume_now(volume);
    uint64_t ino = old;
    change_begin(&change, volume);
    int error = inodes_load_dir(volume, dir, &parent);
    if (!error && old) {
        error = inodes_load(volume, old, &inode);
        if (!error)
            error = replace(&change, &inode, p, now);
    } else if (!error) {
        error = volume_new_id(volume, &ino);
        dirs_new_inode(&change, &inode, ino, &parent, new, now);
        inode.content = p->contents.content;
    }
    if (!error)
        error = add_buffer(p, &change);
    inode.size = p->contents.size;
    inode.bytes = p->contents.bytes;
    if (error) {
        change_drop(&change);
        return error;
    }
    change_inode(&change, &inode);
    if (p->streamed)
        change_unorphan(&change, KEYS_ORPHAN_CONTENT, inode.content);
    if (!old) {
        dirs_touch(&parent, 1, now);
        struct keys_key key;
        dirs_key(volume, dir, name, &key);
        change_name(&change, &key, ino, inode.mode);
        change_inode(&change, &parent);
    }
    error = change_commit(&change, 0);
    if (!error && !old)
        atomic_fetch_add(&volume->inodes, 1);
    return error;
}

static int finish(struct put *p, uint64_t dir, struct keg_bytes name, const struct volume_new *new)
{
    int error;
    for (;;) {
        struct lockset set;
        uint64_t old, again;
        uint32_t type;
        error = dirs_find(p->volume, dir, name, &old, &type);
        if (error == -ENOENT)
            old = 0;
        else if (error)
            return error;
        inodes_lock(p->volume, &set, (uint64_t[]){dir, old}, old ? 2 : 1);
        error = dirs_find(p->volume, dir, name, &again, &type);
        if (error == -ENOENT) {
            again = 0;
            error = 0;
        }
        bool changed = !error && again != old;
        if (!error && !changed)
            error = finish_locked(p, dir, name, old, new);
        inodes_unlock(p->volume, &set);
        if (!changed)
            return error;
    }
}

static int ensure_dir(struct volume *volume, uint64_t dir, struct keg_bytes name,
                      const struct volume_new *new, uint64_t *ino)
{
    uint32_t type;
    struct volume_attr attr;
    const struct volume_new new_dir = {
        .mode = S_IFDIR | 0777, .uid = new->uid, .gid = new->gid, .umask = new->umask};
    int error = dirs_find(volume, dir, name, ino, &type);
    if (error == -ENOENT) {
        error = volume_make(volume, dir, name, &new_dir, &attr);
        if (!error) {
            *ino = attr.ino;
            volume_forget(volume, attr.ino, 1);
            return 0;
        }
        if (error == -EEXIST)
            error = dirs_find(volume, dir, name, ino, &type);
    }
    return !error && !S_ISDIR(type) ? -ENOTDIR : error;
}

/* Finds, and makes, the directory of the path's last name. */
static int find_parent(struct volume *volume, struct keg_bytes path, const struct volume_new *new,
                       uint64_t *dir, struct keg_bytes *name)
{
    struct keg_bytes next;
    *dir = VOLUME_ROOT;
    if (!paths_next(&path, name))
        return -EISDIR;
    for (;;) {
        int error;
        if (!volume_names_ok(*name, &error))
            return error;
        bool slash = path.len > 0;
        if (!paths_next(&path, &next))
            return slash ? -EISDIR : 0;
        error = ensure_dir(volume, *dir, *name, new, dir);
        if (error)
            return error;
        *name = next;
    }
}

int volume_put(struct volume *volume, struct keg_bytes path, const struct volume_new *new,
               volume_fill_fn *fill, void *arg)
{
    struct put p = {.volume = volume, .fill = fill, .arg = arg};
    struct keg_bytes name;
    uint64_t dir;
    if (!S_ISREG(new->mode))
        return -EINVAL;
    p.buf = malloc(BUFFER);
    if (!p.buf)
        return -ENOMEM;
    int error = fill_buffer(&p);
    if (!error)
        error = find_parent(volume, path, new, &dir, &name);
    if (!error && p.filled)
        error = volume_new_id(volume, &p.contents.content);
    if (!error)
        error = stream(&p);
    if (!error)
        error = finish(&p, dir, name, new);
    free(p.buf);
    if (error && p.streamed)
        tend_add(volume, WORK_CONTENT, p.contents.content);
    tend_inline(volume);
    return error;
}
