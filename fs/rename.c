/* SPDX-License-Identifier: MIT */
/*
 * Renames: up to four inodes (two directories, what moves, what it replaces) in one frame.
 *
 * A directory must not move below itself. The way up from a directory changes only when a
 * directory moves to another one, so every rename between two directories holds rename_lock while
 * it walks up and until it is done; renames within one directory need none of it.
 */
#include "volume_internal.h"
#include <errno.h>

enum { DEPTH_MAX = 1 << 20 }; /* no sound tree is deeper; a damaged one may be a circle */

struct rename {
    struct volume *volume;
    uint64_t from_dir, to_dir;
    struct keys_key from_name, to_name;
    unsigned flags;
    uint64_t moved, replaced; /* inodes; replaced is 0 if the new name is free */
    uint32_t moved_type, replaced_type;
};

static int find_names(struct rename *r)
{
    int error = dirs_find_key(r->volume, r->from_dir, &r->from_name, &r->moved, &r->moved_type);
    if (error)
        return error;
    error = dirs_find_key(r->volume, r->to_dir, &r->to_name, &r->replaced, &r->replaced_type);
    if (error == -ENOENT) {
        r->replaced = 0;
        r->replaced_type = 0;
        return r->flags & VOLUME_EXCHANGE ? -ENOENT : 0;
    }
    return !error && r->flags & VOLUME_NOREPLACE ? -EEXIST : error;
}

/* -EINVAL if `dir` is `above` or below it. rename_lock is held. */
static int check_not_below(struct volume *volume, uint64_t above, uint64_t dir)
{
    for (unsigned depth = 0; dir != above; depth++) {
        if (dir == VOLUME_ROOT)
            return 0;
        if (depth == DEPTH_MAX)
            return -ELOOP;
        int error = volume_parent(volume, dir, &dir);
        if (error)
            return error;
    }
    return -EINVAL;
}

static bool may_loop(const struct rename *r)
{
    return r->from_dir != r->to_dir &&
           (S_ISDIR(r->moved_type) || (r->flags & VOLUME_EXCHANGE && S_ISDIR(r->replaced_type)));
}

/* Takes locks of directories on the way, so none may be held. */
static int check_loops(const struct rename *r)
{
    int error = 0;
    if (S_ISDIR(r->moved_type))
        error = check_not_below(r->volume, r->moved, r->to_dir);
    if (!error && r->flags & VOLUME_EXCHANGE && S_ISDIR(r->replaced_type))
        error = check_not_below(r->volume, r->replaced, r->from_dir);
    return error;
}

static int check_replaced(const struct rename *r)
{
    if (!r->replaced || r->flags & VOLUME_EXCHANGE)
        return 0;
    bool moves_dir = S_ISDIR(r->moved_type), replaces_dir = S_ISDIR(r->replaced_type);
    if (moves_dir && !replaces_dir)
        return -ENOTDIR;
    if (!moves_dir && replaces_dir)
        return -EISDIR;
    return replaces_dir ? dirs_empty(r->volume, r->replaced) : 0;
}

/* Moves an inode from one directory to another, as far as link counts and parents go. */
static void move(struct inode *inode, struct inode *from, struct inode *to, struct timespec now)
{
    inode->ctime = now;
    if (!S_ISDIR(inode->mode) || from == to)
        return;
    from->nlink--;
    to->nlink++;
    inode->parent = to->ino;
}

/* What was replaced loses its name in `to`. */
static void replace(struct change *change, struct inode *inode, struct inode *to,
                    struct timespec now)
{
    if (S_ISDIR(inode->mode)) {
        to->nlink--;
        inode->nlink = 0;
    } else {
        inode->nlink--;
    }
    inode->ctime = now;
    if (inode->nlink == 0)
        change_orphan(change, KEYS_ORPHAN_INODE, inode->ino);
}

static int load_all(const struct rename *r, struct inode *from, struct inode *to,
                    struct inode *moved, struct inode *replaced)
{
    int error = inodes_load_dir(r->volume, r->from_dir, from);
    if (!error)
        error = inodes_load_dir(r->volume, r->to_dir, to);
    if (!error)
        error = inodes_load(r->volume, r->moved, moved);
    if (!error && r->replaced)
        error = inodes_load(r->volume, r->replaced, replaced);
    if (!error && S_ISDIR(moved->mode) && r->from_dir != r->to_dir && to->nlink == UINT32_MAX)
        error = -EMLINK;
    return error;
}

/* What takes another's place must have its contents: a crash would find neither otherwise. */
static int commit_stages(const struct rename *r, struct change *change, struct inode *moved,
                         struct inode *replaced)
{
    int error = r->replaced ? stage_commit(change, moved) : 0;
    if (!error && r->flags & VOLUME_EXCHANGE)
        error = stage_commit(change, replaced);
    return error;
}

/* Everything is locked and the names are as they were found. */
static int rename_locked(const struct rename *r)
{
    struct inode from, other, moved, replaced;
    int error = check_replaced(r);
    if (!error)
        error = load_all(r, &from, &other, &moved, &replaced);
    if (error)
        return error;
    struct inode *to = r->from_dir == r->to_dir ? &from : &other;
    struct timespec now = volume_now(r->volume);
    struct change change;
    change_begin(&change, r->volume);
    error = commit_stages(r, &change, &moved, &replaced);
    if (error) {
        change_drop(&change);
        return error;
    }
    move(&moved, &from, to, now);
    change_name(&change, &r->to_name, r->moved, moved.mode);
    if (r->flags & VOLUME_EXCHANGE) {
        move(&replaced, to, &from, now);
        change_name(&change, &r->from_name, r->replaced, replaced.mode);
        dirs_touch(&from, 0, now);
        dirs_touch(to, 0, now);
    } else {
        change_delete(&change, &r->from_name);
        if (r->replaced)
            replace(&change, &replaced, to, now);
        dirs_touch(&from, -1, now);
        dirs_touch(to, r->replaced ? 0 : 1, now);
    }
    change_inode(&change, &moved);
    bool frees = r->replaced && !(r->flags & VOLUME_EXCHANGE);
    if (frees)
        change_unlinked(&change, &replaced);
    else if (r->replaced)
        change_inode(&change, &replaced);
    change_inode(&change, &from);
    if (to != &from)
        change_inode(&change, to);
    return change_commit(&change, frees ? KEG_FREEING | KEG_WAITED : 0);
}

static bool lock_found(const struct rename *r, struct lockset *set)
{
    return inodes_lock_also(r->volume, set, r->moved) &&
           (!r->replaced || inodes_lock_also(r->volume, set, r->replaced));
}

static int rename_names(struct rename *r)
{
    struct lockset set;
    uint64_t moved = 0, replaced = 0; /* of which it is known that they make no circle */
    int error;
    inodes_lock(r->volume, &set, (uint64_t[]){r->from_dir, r->to_dir}, 2);
    while (!(error = find_names(r)) && r->moved != r->replaced) {
        bool sound = !may_loop(r) || (r->moved == moved && r->replaced == replaced);
        if (sound && lock_found(r, &set)) {
            error = rename_locked(r);
            break;
        }
        inodes_unlock(r->volume, &set);
        error = sound ? 0 : check_loops(r);
        if (error)
            return error;
        moved = r->moved;
        replaced = r->replaced;
        uint64_t inos[] = {r->from_dir, r->to_dir, moved, replaced};
        inodes_lock(r->volume, &set, inos, replaced ? 4 : 3);
    }
    inodes_unlock(r->volume, &set);
    return error;
}

int volume_rename(struct volume *volume, uint64_t dir, struct keg_bytes name, uint64_t new_dir,
                  struct keg_bytes new_name, unsigned flags)
{
    struct rename r = {.volume = volume, .from_dir = dir, .to_dir = new_dir, .flags = flags};
    int error;
    if (!volume_names_ok(name, &error) || !volume_names_ok(new_name, &error))
        return error;
    if (flags & ~(unsigned)(VOLUME_NOREPLACE | VOLUME_EXCHANGE) ||
        flags == (VOLUME_NOREPLACE | VOLUME_EXCHANGE))
        return -EINVAL;
    dirs_key(volume, dir, name, &r.from_name);
    dirs_key(volume, new_dir, new_name, &r.to_name);
    keg_make_room(volume->keg);
    if (dir != new_dir)
        pthread_mutex_lock(&volume->rename_lock);
    error = rename_names(&r);
    if (dir != new_dir)
        pthread_mutex_unlock(&volume->rename_lock);
    if (!error)
        tend_inline(volume);
    return error;
}
