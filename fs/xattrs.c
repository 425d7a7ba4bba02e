/* SPDX-License-Identifier: MIT */
/*
 * Extended attributes: a key each. The inode's flag INODE_HAS_XATTRS lets the many inodes without
 * any answer from their record alone.
 */
#include "volume_internal.h"
#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>

static int check_name(struct keg_bytes name)
{
    if (name.len == 0 || memchr(name.data, 0, name.len))
        return -EINVAL;
    return name.len > KEYS_NAME_MAX ? -ERANGE : 0;
}

static int find(struct volume *volume, uint64_t ino, struct keg_bytes name, struct keg_info *info)
{
    struct keys_key key;
    keys_xattr(&key, ino, name);
    int error = keg_get(volume->keg, keys_bytes(&key), info);
    return error == -ENOENT ? -ENODATA : error;
}

/* Names one behind the other, each closed by a NUL. */
static ssize_t list_locked(struct volume *volume, uint64_t ino, char *list, size_t size)
{
    struct inode inode;
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    size_t used = 0;
    int error = inodes_load(volume, ino, &inode);
    if (error || !(inode.flags & INODE_HAS_XATTRS))
        return error;
    keys_prefix(&prefix, KEYS_XATTR, ino);
    error = keg_iter_open(volume->keg, keys_bytes(&prefix), &iter);
    if (error)
        return error;
    int more;
    while ((more = keg_iter_next(iter, &entry)) > 0) {
        size_t len = entry.key.len - prefix.len;
        if (size && used + len + 1 > size) {
            more = -ERANGE;
            break;
        }
        if (size) {
            memcpy(list + used, (const char *)entry.key.data + prefix.len, len);
            list[used + len] = 0;
        }
        used += len + 1;
    }
    keg_iter_close(iter);
    return more < 0 ? more : (ssize_t)used;
}

int xattrs_check_room(struct volume *volume, uint64_t ino, struct keg_bytes name)
{
    ssize_t listed = list_locked(volume, ino, NULL, 0);
    if (listed < 0)
        return (int)listed;
    return (size_t)listed + name.len + 1 > XATTR_LIST_MAX ? -ENOSPC : 0;
}

static int set_locked(struct volume *volume, uint64_t ino, struct keg_bytes name,
                      struct keg_bytes value, int flags)
{
    struct inode inode;
    struct keg_info info;
    int error = inodes_load(volume, ino, &inode);
    if (error)
        return error;
    error = find(volume, ino, name, &info);
    if (error && error != -ENODATA)
        return error;
    if (!error && flags & XATTR_CREATE)
        return -EEXIST;
    if (error && flags & XATTR_REPLACE)
        return -ENODATA;
    error = error ? xattrs_check_room(volume, ino, name) : 0;
    if (error)
        return error;
    struct keys_key key;
    struct change change;
    keys_xattr(&key, ino, name);
    inode.flags |= INODE_HAS_XATTRS;
    inode.ctime = volume_now(volume);
    change_begin(&change, volume);
    change_put(&change, &key, (struct keg_bytes){0}, value);
    change_inode(&change, &inode);
    return change_commit(&change, 0);
}

int volume_setxattr(struct volume *volume, uint64_t ino, struct keg_bytes name, const void *value,
                    size_t size, int flags)
{
    int error = check_name(name);
    if (error)
        return error;
    if (flags & ~(XATTR_CREATE | XATTR_REPLACE | VOLUME_KILL_SGID))
        return -EINVAL;
    if (size > XATTR_VALUE_MAX)
        return -E2BIG;
    const struct keg_bytes bytes = {value, size};
    enum acl_kind kind = acl_kind_of(name);
    if (kind)
        keg_make_room(volume->keg); /* one that says no more than the mode is removed */
    inodes_lock_one(volume, ino);
    error = kind ? rights_set_locked(volume, ino, kind, bytes, flags & VOLUME_KILL_SGID)
                 : set_locked(volume, ino, name, bytes, flags);
    inodes_unlock_one(volume, ino);
    return error;
}

/* Finds the value, of which all is wanted. On failure nothing is found. */
static int find_locked(struct volume *volume, uint64_t ino, struct keg_bytes name,
                       struct keg_reading *value)
{
    struct inode inode;
    struct keys_key key;
    int error = inodes_load(volume, ino, &inode);
    enum acl_kind kind = acl_kind_of(name);
    if (error)
        return error;
    if (!(inode.flags & (kind ? rights_flag(kind) : (uint32_t)INODE_HAS_XATTRS)))
        return -ENODATA;
    keys_xattr(&key, ino, name);
    *value = (struct keg_reading){.key = keys_bytes(&key), .len = KEG_VALUE_MAX};
    keg_find_many(volume->keg, value, 1);
    value->key = (struct keg_bytes){0};
    if (value->result == -ENOENT && kind)
        return -EBADMSG; /* it has to be there */
    return value->result == -ENOENT ? -ENODATA : 0;
}

/* As getxattr(2) has it, with what was found. No lock is held. */
static ssize_t fetch(struct volume *volume, struct keg_bytes name, struct keg_reading *found,
                     void *value, size_t size)
{
    size_t len = (size_t)found->result;
    if (len > size || !len) {
        keg_drop_many(volume->keg, found, 1);
        if (size && len)
            return -ERANGE;
    } else {
        found->buf = value;
        keg_fetch_many(volume->keg, found, 1);
        if (found->result < 0)
            return found->result;
    }
    if (acl_kind_of(name) && (size || !len) && acl_check((struct keg_bytes){value, len}))
        return -EBADMSG;
    return (ssize_t)len;
}

ssize_t volume_getxattr(struct volume *volume, uint64_t ino, struct keg_bytes name, void *value,
                        size_t size)
{
    struct keg_reading found;
    int error = check_name(name);
    if (error)
        return error;
    inodes_lock_shared(volume, ino);
    error = find_locked(volume, ino, name, &found);
    inodes_unlock_shared(volume, ino);
    ssize_t n = error ? error : fetch(volume, name, &found, value, size);
    return n < 0 ? volume_error(volume, ino, (int)n) : n;
}

ssize_t volume_listxattr(struct volume *volume, uint64_t ino, char *list, size_t size)
{
    inodes_lock_shared(volume, ino);
    ssize_t n = list_locked(volume, ino, list, size);
    inodes_unlock_shared(volume, ino);
    return n;
}

int xattrs_has_others(struct volume *volume, uint64_t ino, struct keg_bytes name)
{
    struct keys_key prefix, key;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_prefix(&prefix, KEYS_XATTR, ino);
    keys_xattr(&key, ino, name);
    int more = keg_iter_open(volume->keg, keys_bytes(&prefix), &iter);
    if (more)
        return more;
    while ((more = keg_iter_next(iter, &entry)) > 0) {
        if (entry.key.len != key.len || memcmp(entry.key.data, key.bytes, key.len) != 0)
            break;
    }
    keg_iter_close(iter);
    return more;
}

static int remove_locked(struct volume *volume, uint64_t ino, struct keg_bytes name)
{
    struct inode inode;
    struct keg_info info;
    struct keys_key key;
    struct change change;
    int error = inodes_load(volume, ino, &inode);
    if (!error)
        error = find(volume, ino, name, &info);
    if (error)
        return error;
    int others = xattrs_has_others(volume, ino, name);
    if (others < 0)
        return others;
    if (!others)
        inode.flags &= ~(uint32_t)INODE_HAS_XATTRS;
    inode.ctime = volume_now(volume);
    keys_xattr(&key, ino, name);
    change_begin(&change, volume);
    change_delete(&change, &key);
    change_inode(&change, &inode);
    return change_commit(&change, KEG_FREEING | KEG_WAITED);
}

int volume_removexattr(struct volume *volume, uint64_t ino, struct keg_bytes name)
{
    int error = check_name(name);
    if (error)
        return error;
    enum acl_kind kind = acl_kind_of(name);
    keg_make_room(volume->keg);
    inodes_lock_one(volume, ino);
    error = kind ? rights_set_locked(volume, ino, kind, (struct keg_bytes){0}, false)
                 : remove_locked(volume, ino, name);
    inodes_unlock_one(volume, ino);
    return error;
}
