/* SPDX-License-Identifier: MIT */
/*
 * POSIX ACLs of inodes. Each is an attribute (xattrs.c) with a flag of the inode for it, so that
 * the many inodes without any, and the directories that hand none down, say so from their record
 * alone. The kernel decides by them who may do what; here they are kept in step:
 *
 * - The low nine bits of a mode are what the access ACL says, in the frame of any change of either.
 *   An access ACL that says no more than a mode is not kept.
 * - What is made in a directory with a default ACL begins with that one, in the frame that makes
 *   it, and the umask does not count. Where there is none, it does: the kernel cannot know which,
 *   and leaves it to us.
 *
 * An ACL that cannot be read, or makes no sense, is -EIO for whatever depends on it: nobody gets a
 * right that it might have refused. To set another one, or to remove it, it need not be read.
 */
#include "volume_internal.h"
#include <errno.h>
#include <string.h>

uint32_t rights_flag(enum acl_kind kind)
{
    return kind == ACL_ACCESS ? INODE_ACCESS_ACL : kind == ACL_DEFAULT ? INODE_DEFAULT_ACL : 0;
}

static void put_acl(struct change *change, struct inode *inode, enum acl_kind kind,
                    struct keg_bytes acl)
{
    struct keys_key key;
    keys_xattr(&key, inode->ino, acl_name(kind));
    change_put(change, &key, (struct keg_bytes){0}, acl);
    inode->flags |= rights_flag(kind) | INODE_HAS_XATTRS;
}

/* A copy of the inode's ACL, that lasts as long as the frame and may be changed; what fails fails
 * the frame. The inode has the flag for it. */
static bool read_acl(struct change *change, const struct inode *inode, enum acl_kind kind,
                     uint8_t **bytes, size_t *len)
{
    struct keg *keg = change->volume->keg;
    struct keys_key key;
    struct keg_info info;
    keys_xattr(&key, inode->ino, acl_name(kind));
    int error = keg_get(keg, keys_bytes(&key), &info);
    *len = error ? 0 : info.value_len;
    *bytes = *len ? change_alloc(change, *len) : NULL;
    if (*bytes) {
        ssize_t n = keg_read(keg, keys_bytes(&key), 0, *bytes, *len);
        error = n < 0 ? (int)n : (size_t)n < *len ? -EBADMSG : 0;
    } else if (*len) {
        return false;
    }
    if (error == -ENOENT || (!error && acl_check((struct keg_bytes){*bytes, *len})))
        error = -EBADMSG;
    if (error)
        change_fail(change, volume_error(change->volume, inode->ino, error));
    return !error;
}

/* ---- In step with the mode ---- */

void rights_chmod(struct change *change, struct inode *inode)
{
    uint8_t *acl;
    size_t len;
    if (!(inode->flags & INODE_ACCESS_ACL) || !read_acl(change, inode, ACL_ACCESS, &acl, &len))
        return;
    acl_chmod(acl, len, inode->mode);
    put_acl(change, inode, ACL_ACCESS, (struct keg_bytes){acl, len});
}

void rights_inherit(struct change *change, const struct inode *dir, struct inode *inode,
                    uint32_t umask)
{
    uint8_t *acl, *copy;
    size_t len;
    if (S_ISLNK(inode->mode))
        return;
    if (!(dir->flags & INODE_DEFAULT_ACL)) {
        inode->mode &= ~(umask & 0777);
        return;
    }
    if (!read_acl(change, dir, ACL_DEFAULT, &acl, &len))
        return;
    copy = change_alloc(change, len);
    if (!copy)
        return;
    memcpy(copy, acl, len);
    if (!acl_inherit(copy, len, &inode->mode))
        put_acl(change, inode, ACL_ACCESS, (struct keg_bytes){copy, len});
    if (S_ISDIR(inode->mode))
        put_acl(change, inode, ACL_DEFAULT, (struct keg_bytes){acl, len});
}

/* ---- Set by somebody ---- */

static void set_acl(struct change *change, struct inode *inode, enum acl_kind kind,
                    struct keg_bytes acl)
{
    uint8_t *copy = change_alloc(change, acl.len);
    if (!copy)
        return;
    memcpy(copy, acl.data, acl.len);
    acl_normalize(copy, acl.len);
    put_acl(change, inode, kind, (struct keg_bytes){copy, acl.len});
}

static void remove_acl(struct change *change, struct inode *inode, enum acl_kind kind)
{
    struct keys_key key;
    int others = xattrs_has_others(change->volume, inode->ino, acl_name(kind));
    if (others < 0)
        change_fail(change, others);
    if (!others)
        inode->flags &= ~(uint32_t)INODE_HAS_XATTRS;
    inode->flags &= ~rights_flag(kind);
    keys_xattr(&key, inode->ino, acl_name(kind));
    change_delete(change, &key);
}

/* May the inode have one? */
static int check_place(const struct inode *inode, enum acl_kind kind, bool sets)
{
    if (S_ISLNK(inode->mode))
        return -EOPNOTSUPP;
    return sets && kind == ACL_DEFAULT && !S_ISDIR(inode->mode) ? -EACCES : 0;
}

int rights_set_locked(struct volume *volume, uint64_t ino, enum acl_kind kind, struct keg_bytes acl,
                      bool kill_sgid)
{
    struct inode inode;
    struct change change;
    bool sets = !acl_is_empty(acl), keeps = sets;
    int error = sets ? acl_check(acl) : 0;
    if (!error)
        error = inodes_load(volume, ino, &inode);
    if (!error)
        error = check_place(&inode, kind, sets);
    if (error)
        return error;
    bool has = inode.flags & rights_flag(kind);
    if (!sets && !has)
        return 0;
    if (sets && kind == ACL_ACCESS) {
        keeps = !acl_to_mode(acl, &inode.mode);
        if (kill_sgid)
            inode.mode &= ~(uint32_t)S_ISGID;
    }
    error = keeps && !has ? xattrs_check_room(volume, ino, acl_name(kind)) : 0;
    if (error)
        return error;
    inode.ctime = volume_now(volume);
    change_begin(&change, volume);
    if (keeps)
        set_acl(&change, &inode, kind, acl);
    else if (has)
        remove_acl(&change, &inode, kind);
    change_inode(&change, &inode);
    return change_commit(&change, keeps ? 0 : KEG_FREEING | KEG_WAITED);
}
