/* SPDX-License-Identifier: MIT */
/*
 * What a repair has found lost and kept as such: records whose value is gone, and holes in the
 * contents of files that have no others; and symbolic links that have lost a damaged text along
 * with one of several names. Reading it gives EIO; a check finds nothing wrong with it, but nobody
 * shall take such a volume for whole.
 */
#include "volume_internal.h"
#include <string.h>

struct losses {
    struct volume *volume;
    volume_lost_fn *lost;
    void *arg;
    ssize_t count;
};

static void tell(struct losses *l, struct keg_bytes key, const char *text)
{
    l->count++;
    if (l->lost)
        l->lost(l->arg, key, text);
}

/* Whether extents leave something of the contents out. */
static int has_gap(struct volume *volume, const struct inode *inode, bool *gap)
{
    struct extents it;
    struct extent e;
    uint64_t at = 0;
    int more, error = extents_open(volume, inode->content, 0, &it);
    if (error)
        return error;
    while ((more = extents_next(&it, &e)) > 0 && e.offset <= at && at < inode->size)
        at = e.offset + e.len;
    extents_close(&it);
    *gap = at < inode->size;
    return more < 0 ? more : 0;
}

static int look_at_inode(struct losses *l, const struct keg_entry *entry)
{
    struct inode inode;
    bool gap = false;
    int error = 0;
    if (keys_inode_decode(entry->meta, &inode) != 0)
        return 0;
    if (S_ISLNK(inode.mode) && inode.size == 0 && inode.nlink) /* change.c */
        tell(l, entry->key, "lost");
    if (!S_ISREG(inode.mode))
        return 0;
    if (inode.flags & INODE_HOLES)
        error = has_gap(l->volume, &inode, &gap);
    if (gap)
        tell(l, entry->key, "a part of its contents is lost");
    return error;
}

static int look_at(struct losses *l, const struct keg_entry *entry)
{
    struct keys_parsed key;
    if (keys_parse(entry->key, &key) != 0)
        return 0;
    if (entry->offset == 0 && entry->value_len)
        tell(l, entry->key, key.kind == KEYS_EXTENT ? "a part of its contents is lost" : "lost");
    return key.kind == KEYS_INODE ? look_at_inode(l, entry) : 0;
}

static int look_at_all(struct losses *l)
{
    struct keg_iter *iter;
    struct keg_entry entry;
    int more = 0, error = keg_iter_open(l->volume->keg, (struct keg_bytes){"", 0}, &iter);
    if (error)
        return error;
    while (!error && (more = keg_iter_next(iter, &entry)) > 0)
        error = look_at(l, &entry);
    keg_iter_close(iter);
    return error ? error : more;
}

ssize_t volume_lost(struct volume *volume, volume_lost_fn *lost, void *arg)
{
    struct losses l = {.volume = volume, .lost = lost, .arg = arg};
    keg_quiesce(volume->keg);
    int error = look_at_all(&l);
    keg_resume(volume->keg);
    return error ? error : l.count;
}
