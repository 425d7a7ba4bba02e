/* SPDX-License-Identifier: MIT */
/*
 * POSIX ACLs as extended attributes carry them: a header with version 2, then entries of 8 bytes
 * (tag, permissions, user or group), all little-endian. That is also how they are stored.
 *
 * Pure: bytes in, bytes out; no I/O, no allocation, every read bounded. An ACL that acl_check has
 * not passed must not be given to the functions below it. Any thread.
 */
#ifndef ACL_H
#define ACL_H

#include "keg.h"

enum acl_kind {
    ACL_NONE,    /* the attribute is no ACL */
    ACL_ACCESS,  /* who may do what with the inode */
    ACL_DEFAULT, /* of a directory: what is made in it begins with this one */
};
enum acl_kind acl_kind_of(struct keg_bytes name);
/* The attribute's name; of ACL_ACCESS and ACL_DEFAULT only. */
struct keg_bytes acl_name(enum acl_kind kind);

/* No bytes, or no entries: to set such a one means to remove what is there. */
bool acl_is_empty(struct keg_bytes acl);

/*
 * 0: an ACL as Linux takes it, with the entries that every ACL has, each tag in its place, and a
 * mask where users or groups are named. (Nor does Linux mind if one is named twice: the first
 * counts.) -EOPNOTSUPP: of another version; -EINVAL: none, or an empty one.
 */
KEG_CHECKED int acl_check(struct keg_bytes acl);

/* Makes equal what means the same: entries that name nobody have the id of nobody. */
void acl_normalize(uint8_t *acl, size_t len);

/* Puts the ACL's permissions into the low nine bits of mode; the mask, if there is one, is what the
 * group gets there. True: the mode then says all that the ACL does. */
KEG_CHECKED bool acl_to_mode(struct keg_bytes acl, uint32_t *mode);

/* The other way: what chmod does to an ACL. */
void acl_chmod(uint8_t *acl, size_t len, uint32_t mode);

/* Makes of a directory's default ACL the access ACL of what is made in it, and of the mode that was
 * asked for the one that it gets: both lose what the other has not. True: as acl_to_mode. */
KEG_CHECKED bool acl_inherit(uint8_t *acl, size_t len, uint32_t *mode);

#endif
