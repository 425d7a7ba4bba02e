/* SPDX-License-Identifier: MIT */
/*
 * Listing a directory: a scan of its names in the order of their hashes, which are the cookies.
 *
 * Of names with one and the same hash only the last gives that hash as its cookie; those before it
 * give the cookie from before all of them. So whoever goes on from any cookie misses nothing, and
 * whoever stops among equal hashes meets the first ones again: with 63 bits that is a case for
 * tests, but it must not lose a name. It needs each name to know whether the next one has the same
 * hash, so the scan runs one name ahead.
 */
#include "volume_internal.h"
#include <errno.h>
#include <string.h>

struct listing {
    struct volume *volume;
    uint64_t dir;
    bool attrs;
    bool (*fn)(void *arg, const struct volume_dirent *entry);
    void *arg;
    /* The name that waits to be offered. */
    bool waiting;
    size_t name_len;
    char name[KEYS_NAME_MAX];
    uint64_t hash, ino;
    uint32_t type;
    uint64_t before; /* the cookie from before all names with this hash */
};

/* Fills attr and counts the lookup; 1: done, 0: the inode is gone, or an error. */
static int look_up(struct listing *l, struct volume_attr *attr)
{
    struct inode inode;
    inodes_lock_shared(l->volume, l->ino);
    int error = inodes_load(l->volume, l->ino, &inode);
    bool gone = error == -ENOENT || (!error && inode.nlink == 0);
    if (!error && !gone)
        error = inodes_count_lookup(l->volume, l->ino);
    inodes_unlock_shared(l->volume, l->ino);
    if (gone)
        return 0;
    if (!error)
        inodes_attr(&inode, attr);
    return error ? error : 1;
}

/* Offers the waiting name. 1: taken, 0: refused, or an error. */
static int offer(struct listing *l, bool same_follows)
{
    struct volume_dirent entry = {
        .name = {l->name, l->name_len},
        .cookie = same_follows ? l->before : l->hash,
        .attr = {.ino = l->ino, .mode = l->type},
    };
    l->waiting = false;
    bool counted = false;
    if (l->attrs) {
        int found = volume_error(l->volume, l->ino, look_up(l, &entry.attr));
        if (found == 0)
            return 1;
        if (found < 0 && found != -EIO)
            return found;
        counted = found > 0; /* one damaged inode must not hide all names behind it */
    }
    if (l->fn(l->arg, &entry))
        return 1;
    if (counted)
        inodes_uncount_lookup(l->volume, l->ino);
    return 0;
}

static int set_waiting(struct listing *l, const struct keys_parsed *name, struct keg_bytes meta)
{
    int error = keys_name_decode(meta, &l->ino, &l->type);
    if (error)
        return volume_error(l->volume, l->dir, error);
    if (name->hash != l->hash)
        l->before = l->hash;
    l->hash = name->hash;
    l->name_len = name->name.len;
    memcpy(l->name, name->name.data, name->name.len);
    l->waiting = true;
    return 0;
}

static int list(struct listing *l, struct keg_iter *iter)
{
    struct keg_entry entry;
    for (;;) {
        int more = keg_iter_next(iter, &entry);
        if (more < 0)
            return more;
        struct keys_parsed next;
        if (more) {
            int error = volume_error(l->volume, l->dir, keys_parse(entry.key, &next));
            if (error)
                return error;
        }
        if (l->waiting) {
            int taken = offer(l, more && next.hash == l->hash);
            if (taken <= 0)
                return taken;
        }
        if (!more)
            return 0;
        int error = set_waiting(l, &next, entry.meta);
        if (error)
            return error;
    }
}

int volume_readdir(struct volume *volume, uint64_t dir, uint64_t cookie, bool attrs,
                   bool (*fn)(void *arg, const struct volume_dirent *entry), void *arg)
{
    struct inode inode;
    struct keys_key key;
    struct keg_iter *iter;
    inodes_lock_shared(volume, dir);
    int error = inodes_load(volume, dir, &inode);
    inodes_unlock_shared(volume, dir);
    if (!error && !S_ISDIR(inode.mode))
        error = -ENOTDIR;
    if (error || cookie > INT64_MAX)
        return error;
    keys_prefix(&key, KEYS_NAME, dir);
    error = keg_iter_open(volume->keg, keys_bytes(&key), &iter);
    if (error)
        return error;
    if (cookie) {
        keys_name_from(&key, dir, cookie + 1);
        error = keg_iter_seek(iter, keys_bytes(&key));
    }
    struct listing l = {.volume = volume, .dir = dir, .attrs = attrs, .fn = fn, .arg = arg};
    l.hash = cookie;
    if (!error)
        error = list(&l, iter);
    keg_iter_close(iter);
    return error;
}
