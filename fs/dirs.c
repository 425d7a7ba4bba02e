/* SPDX-License-Identifier: MIT */
/*
 * Directories: what is made, linked, removed and listed. rename.c has renames.
 *
 * An operation that needs to know which inode a name stands for before it can lock it locks the
 * directory, looks, and locks the inode as well. Where the order of locks forbids that and somebody
 * has the inode's, it locks both in order, and looks again.
 */
#include "volume_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void dirs_key(const struct volume *volume, uint64_t dir, struct keg_bytes name,
              struct keys_key *key)
{
    uint64_t hash = keys_hash(volume->secret, name) & volume->hash_mask;
    keys_name(key, dir, hash < KEYS_COOKIE_MIN ? KEYS_COOKIE_MIN : hash, name);
}

int dirs_find_key(struct volume *volume, uint64_t dir, const struct keys_key *key, uint64_t *ino,
                  uint32_t *type)
{
    struct keg_info info;
    int error = keg_get(volume->keg, keys_bytes(key), &info);
    if (!error)
        error = keys_name_decode((struct keg_bytes){info.meta, info.meta_len}, ino, type);
    return volume_error(volume, dir, error);
}

int dirs_find(struct volume *volume, uint64_t dir, struct keg_bytes name, uint64_t *ino,
              uint32_t *type)
{
    struct keys_key key;
    dirs_key(volume, dir, name, &key);
    return dirs_find_key(volume, dir, &key, ino, type);
}

void dirs_touch(struct inode *dir, int entries, struct timespec now)
{
    dir->mtime = dir->ctime = now;
    if (entries > 0)
        dir->size += DIRENT_SIZE;
    else if (entries < 0 && dir->size >= DIRENT_SIZE)
        dir->size -= DIRENT_SIZE;
}

int dirs_empty(struct volume *volume, uint64_t dir)
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_prefix(&prefix, KEYS_NAME, dir);
    int error = keg_iter_open(volume->keg, keys_bytes(&prefix), &iter);
    if (error)
        return error;
    int more = keg_iter_next(iter, &entry);
    keg_iter_close(iter);
    return more > 0 ? -ENOTEMPTY : more;
}

/* ---- Looking up ---- */

int volume_lookup(struct volume *volume, uint64_t dir, struct keg_bytes name,
                  struct volume_attr *out)
{
    uint64_t ino;
    uint32_t type;
    int error;
    if (!volume_names_ok(name, &error))
        return error;
    /* An inode that has gone between the two steps had its name removed: look again. */
    for (;;) {
        struct inode inode;
        error = dirs_find(volume, dir, name, &ino, &type);
        if (error)
            return error;
        inodes_lock_shared(volume, ino);
        error = inodes_load(volume, ino, &inode);
        if (!error && inode.nlink) {
            inodes_attr(&inode, out);
            error = inodes_count_lookup(volume, ino);
            inodes_unlock_shared(volume, ino);
            return error;
        }
        inodes_unlock_shared(volume, ino);
        if (error && error != -ENOENT)
            return error;
        uint64_t again;
        if (dirs_find(volume, dir, name, &again, &type) == 0 && again == ino) {
            volume_log(volume, KEG_LOG_ERROR, "a name in directory %llu has no inode %llu",
                       (unsigned long long)dir, (unsigned long long)ino);
            return -EIO;
        }
    }
}

int volume_lookup_ino(struct volume *volume, uint64_t ino, struct volume_attr *out)
{
    struct inode inode;
    inodes_lock_shared(volume, ino);
    int error = inodes_load(volume, ino, &inode);
    if (error == -ENOENT || (!error && !inode.nlink && !inodes_lookups(volume, ino)))
        error = -ESTALE;
    if (!error)
        error = inodes_count_lookup(volume, ino);
    inodes_unlock_shared(volume, ino);
    if (!error)
        inodes_attr(&inode, out);
    return error;
}

int volume_getattr(struct volume *volume, uint64_t ino, struct volume_attr *out)
{
    struct inode inode;
    inodes_lock_shared(volume, ino);
    int error = inodes_load(volume, ino, &inode);
    inodes_unlock_shared(volume, ino);
    if (!error)
        inodes_attr(&inode, out);
    return error;
}

int volume_parent(struct volume *volume, uint64_t dir, uint64_t *parent)
{
    struct inode inode;
    inodes_lock_shared(volume, dir);
    int error = inodes_load(volume, dir, &inode);
    inodes_unlock_shared(volume, dir);
    if (!error && !S_ISDIR(inode.mode))
        error = -ENOTDIR;
    if (!error)
        *parent = inode.parent;
    return error;
}

/* ---- Making ---- */

void dirs_new_inode(struct change *change, struct inode *inode, uint64_t ino,
                    const struct inode *dir, const struct volume_new *new, struct timespec now)
{
    *inode = (struct inode){.ino = ino, .mode = new->mode & 0xffff, .nlink = 1, .uid = new->uid};
    inode->gid = new->gid;
    if (dir->mode & S_ISGID) {
        inode->gid = dir->gid;
        if (S_ISDIR(new->mode))
            inode->mode |= S_ISGID;
    }
    if (S_ISDIR(new->mode)) {
        inode->nlink = 2;
        inode->parent = dir->ino;
    } else if (S_ISBLK(new->mode) || S_ISCHR(new->mode)) {
        inode->rdev = new->rdev;
    } else if (S_ISLNK(new->mode)) {
        inode->size = new->target.len;
    }
    inode->atime = inode->mtime = inode->ctime = inode->btime = now;
    rights_inherit(change, dir, inode, new->umask);
}

static int check_new(const struct volume_new *new)
{
    switch (new->mode &S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
        return new->target.len ? -EINVAL : 0;
    case S_IFLNK:
        if (new->target.len > VOLUME_SYMLINK_MAX)
            return -ENAMETOOLONG;
        return new->target.len ? 0 : -ENOENT;
    default:
        return -EINVAL;
    }
}

static int make_locked(struct volume *volume, uint64_t dir, struct keg_bytes name,
                       const struct volume_new *new, struct inode *inode)
{
    struct inode parent;
    struct keys_key key;
    uint64_t ino;
    uint32_t type;
    int error = inodes_load_dir(volume, dir, &parent);
    if (error)
        return error;
    dirs_key(volume, dir, name, &key);
    error = dirs_find_key(volume, dir, &key, &ino, &type);
    if (error != -ENOENT)
        return error ? error : -EEXIST;
    if (S_ISDIR(new->mode) && parent.nlink == UINT32_MAX)
        return -EMLINK;
    error = volume_new_id(volume, &ino);
    if (error)
        return error;
    struct timespec now = volume_now(volume);
    struct change change;
    change_begin(&change, volume);
    dirs_new_inode(&change, inode, ino, &parent, new, now);
    dirs_touch(&parent, 1, now);
    parent.nlink += S_ISDIR(new->mode);
    change_name(&change, &key, ino, new->mode);
    change_new_inode(&change, inode, new->target);
    change_inode(&change, &parent);
    /* Counted first: once the frame is committed it must not fail. */
    error = inodes_count_lookup(volume, ino);
    if (error) {
        change_drop(&change);
        return error;
    }
    error = change_commit(&change, 0);
    if (error)
        inodes_uncount_lookup(volume, ino);
    return error;
}

int volume_make(struct volume *volume, uint64_t dir, struct keg_bytes name,
                const struct volume_new *new, struct volume_attr *out)
{
    struct inode inode;
    int error;
    if (!volume_names_ok(name, &error))
        return error;
    error = check_new(new);
    if (error)
        return error;
    inodes_lock_one(volume, dir);
    error = make_locked(volume, dir, name, new, &inode);
    inodes_unlock_one(volume, dir);
    if (error)
        return error;
    atomic_fetch_add(&volume->inodes, 1);
    inodes_attr(&inode, out);
    return 0;
}

static int unnamed_locked(struct volume *volume, uint64_t dir, uint64_t ino,
                          const struct volume_new *new, struct inode *inode)
{
    struct inode parent;
    int error = inodes_load_dir(volume, dir, &parent);
    if (!error)
        error = inodes_count_lookup(volume, ino);
    if (error)
        return error;
    struct change change;
    change_begin(&change, volume);
    dirs_new_inode(&change, inode, ino, &parent, new, volume_now(volume));
    inode->nlink = 0;
    change_new_inode(&change, inode, (struct keg_bytes){0});
    change_orphan(&change, KEYS_ORPHAN_INODE, ino);
    error = change_commit(&change, 0);
    if (error)
        inodes_uncount_lookup(volume, ino);
    else
        inodes_set_linkable(volume, ino);
    return error;
}

int volume_make_unnamed(struct volume *volume, uint64_t dir, const struct volume_new *new,
                        struct volume_attr *out)
{
    struct lockset set;
    struct inode inode;
    uint64_t ino;
    if (!S_ISREG(new->mode) || new->target.len)
        return -EINVAL;
    int error = volume_new_id(volume, &ino);
    if (error)
        return error;
    inodes_lock(volume, &set, (uint64_t[]){dir, ino}, 2);
    error = unnamed_locked(volume, dir, ino, new, &inode);
    inodes_unlock(volume, &set);
    if (error)
        return error;
    atomic_fetch_add(&volume->inodes, 1);
    inodes_attr(&inode, out);
    return 0;
}

/* Its first name: what is staged becomes its contents, else a crash would find an empty file where
 * the name was given to a whole one. */
static int link_first(struct change *change, struct inode *inode)
{
    change_unorphan(change, KEYS_ORPHAN_INODE, inode->ino);
    return stage_commit(change, inode);
}

static int link_locked(struct volume *volume, uint64_t ino, uint64_t dir, struct keg_bytes name,
                       struct volume_attr *out)
{
    struct inode parent, inode;
    struct keys_key key;
    uint64_t there;
    uint32_t type;
    int error = inodes_load_dir(volume, dir, &parent);
    if (!error)
        error = inodes_load(volume, ino, &inode);
    if (error)
        return error;
    if (S_ISDIR(inode.mode))
        return -EPERM;
    dirs_key(volume, dir, name, &key);
    error = dirs_find_key(volume, dir, &key, &there, &type);
    if (error != -ENOENT)
        return error ? error : -EEXIST;
    bool first = inode.nlink == 0;
    if (first && !inodes_linkable(volume, ino))
        return -ENOENT;
    if (inode.nlink == UINT32_MAX)
        return -EMLINK;
    struct timespec now = volume_now(volume);
    dirs_touch(&parent, 1, now);
    struct change change;
    change_begin(&change, volume);
    error = first ? link_first(&change, &inode) : 0;
    if (error) {
        change_drop(&change);
        return error;
    }
    inode.nlink++;
    inode.ctime = now;
    change_name(&change, &key, ino, inode.mode);
    change_inode(&change, &inode);
    change_inode(&change, &parent);
    error = change_commit(&change, 0);
    if (error)
        return error;
    if (first)
        inodes_named(volume, ino);
    inodes_attr(&inode, out);
    return 0;
}

int volume_link(struct volume *volume, uint64_t ino, uint64_t dir, struct keg_bytes name,
                struct volume_attr *out)
{
    struct lockset set;
    int error;
    if (!volume_names_ok(name, &error))
        return error;
    if (ino == dir)
        return -EPERM;
    error = inodes_count_lookup(volume, ino);
    if (error)
        return error;
    inodes_lock(volume, &set, (uint64_t[]){ino, dir}, 2);
    error = link_locked(volume, ino, dir, name, out);
    inodes_unlock(volume, &set);
    if (error)
        inodes_uncount_lookup(volume, ino);
    return error;
}

/* ---- Removing ---- */

static int remove_locked(struct volume *volume, uint64_t dir, const struct keys_key *name,
                         uint64_t ino, bool is_dir)
{
    struct inode parent, inode;
    int error = inodes_load_dir(volume, dir, &parent);
    if (!error)
        error = inodes_load(volume, ino, &inode);
    if (error)
        return error;
    if (is_dir != S_ISDIR(inode.mode))
        return is_dir ? -ENOTDIR : -EISDIR;
    if (is_dir) {
        error = dirs_empty(volume, ino);
        if (error)
            return error;
    }
    struct timespec now = volume_now(volume);
    dirs_touch(&parent, -1, now);
    parent.nlink -= is_dir;
    inode.nlink = is_dir ? 0 : inode.nlink - 1;
    inode.ctime = now;
    struct change change;
    change_begin(&change, volume);
    change_delete(&change, name);
    change_unlinked(&change, &inode);
    if (inode.nlink == 0)
        change_orphan(&change, KEYS_ORPHAN_INODE, ino);
    change_inode(&change, &parent);
    return change_commit(&change, KEG_FREEING | KEG_WAITED);
}

static int remove_name(struct volume *volume, uint64_t dir, struct keg_bytes name, bool is_dir)
{
    struct lockset set;
    struct keys_key key;
    uint64_t ino;
    uint32_t type;
    int error;
    if (!volume_names_ok(name, &error))
        return error;
    dirs_key(volume, dir, name, &key);
    keg_make_room(volume->keg);
    inodes_lock(volume, &set, &dir, 1);
    while (!(error = dirs_find_key(volume, dir, &key, &ino, &type))) {
        if (inodes_lock_also(volume, &set, ino)) {
            error = remove_locked(volume, dir, &key, ino, is_dir);
            break;
        }
        inodes_unlock(volume, &set);
        inodes_lock(volume, &set, (uint64_t[]){dir, ino}, 2);
    }
    inodes_unlock(volume, &set);
    if (!error)
        tend_inline(volume);
    return error;
}

int volume_unlink(struct volume *volume, uint64_t dir, struct keg_bytes name)
{
    return remove_name(volume, dir, name, false);
}

int volume_rmdir(struct volume *volume, uint64_t dir, struct keg_bytes name)
{
    return remove_name(volume, dir, name, true);
}
