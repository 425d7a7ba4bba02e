/* SPDX-License-Identifier: MIT */
#include "acl.h"
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/xattr.h>
#include <string.h>

enum { HEADER = 4, ENTRY = 8, PERMISSIONS = ACL_READ | ACL_WRITE | ACL_EXECUTE };

_Static_assert(sizeof(struct posix_acl_xattr_header) == HEADER, "as the kernel has it");
_Static_assert(sizeof(struct posix_acl_xattr_entry) == ENTRY, "as the kernel has it");

static const struct keg_bytes names[] = {
    [ACL_ACCESS] = {XATTR_NAME_POSIX_ACL_ACCESS, sizeof XATTR_NAME_POSIX_ACL_ACCESS - 1},
    [ACL_DEFAULT] = {XATTR_NAME_POSIX_ACL_DEFAULT, sizeof XATTR_NAME_POSIX_ACL_DEFAULT - 1},
};

struct keg_bytes acl_name(enum acl_kind kind)
{
    return names[kind];
}

enum acl_kind acl_kind_of(struct keg_bytes name)
{
    for (enum acl_kind kind = ACL_ACCESS; kind <= ACL_DEFAULT; kind++)
        if (name.len == names[kind].len && memcmp(name.data, names[kind].data, name.len) == 0)
            return kind;
    return ACL_NONE;
}

/* ---- Bytes ---- */

static uint32_t get_le(const uint8_t *p, unsigned bytes)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint32_t)p[i] << (8 * i);
    return v;
}

static unsigned tag_of(const uint8_t *entry)
{
    return get_le(entry, 2);
}

static unsigned permissions_of(const uint8_t *entry)
{
    return get_le(entry + 2, 2);
}

static void set_permissions(uint8_t *entry, unsigned permissions)
{
    entry[2] = (uint8_t)permissions;
    entry[3] = 0;
}

/* NULL: there are not so many. */
static const uint8_t *entry_at(struct keg_bytes acl, size_t index)
{
    size_t count = acl.len < HEADER ? 0 : (acl.len - HEADER) / ENTRY;
    return index < count ? (const uint8_t *)acl.data + HEADER + index * ENTRY : NULL;
}

bool acl_is_empty(struct keg_bytes acl)
{
    return acl.len == 0 ||
           (acl.len == HEADER && get_le(acl.data, HEADER) == POSIX_ACL_XATTR_VERSION);
}

/* ---- Checking ---- */

/* The tags in the order in which they may come; of users and groups there may be many. */
enum place { AT_OWNER, AT_USERS, AT_GROUPS, AT_OTHER, AT_END, NOWHERE };

/* Where an ACL is after an entry with this tag. */
static enum place next_place(enum place place, unsigned tag, bool *needs_mask)
{
    switch (tag) {
    case ACL_USER_OBJ:
        return place == AT_OWNER ? AT_USERS : NOWHERE;
    case ACL_USER:
        *needs_mask = true;
        return place == AT_USERS ? AT_USERS : NOWHERE;
    case ACL_GROUP_OBJ:
        return place == AT_USERS ? AT_GROUPS : NOWHERE;
    case ACL_GROUP:
        *needs_mask = true;
        return place == AT_GROUPS ? AT_GROUPS : NOWHERE;
    case ACL_MASK:
        return place == AT_GROUPS ? AT_OTHER : NOWHERE;
    case ACL_OTHER:
        return place == AT_OTHER || (place == AT_GROUPS && !*needs_mask) ? AT_END : NOWHERE;
    default:
        return NOWHERE;
    }
}

int acl_check(struct keg_bytes acl)
{
    enum place place = AT_OWNER;
    bool needs_mask = false;
    const uint8_t *e;
    if (acl.len < HEADER)
        return -EINVAL;
    if (get_le(acl.data, HEADER) != POSIX_ACL_XATTR_VERSION)
        return -EOPNOTSUPP;
    if ((acl.len - HEADER) % ENTRY)
        return -EINVAL;
    for (size_t i = 0; (e = entry_at(acl, i)); i++) {
        unsigned tag = tag_of(e);
        place = next_place(place, tag, &needs_mask);
        if (place == NOWHERE || permissions_of(e) & ~(unsigned)PERMISSIONS)
            return -EINVAL;
        if ((tag == ACL_USER || tag == ACL_GROUP) && get_le(e + 4, 4) == (uint32_t)ACL_UNDEFINED_ID)
            return -EINVAL;
    }
    return place == AT_END ? 0 : -EINVAL;
}

void acl_normalize(uint8_t *acl, size_t len)
{
    for (size_t at = HEADER; at + ENTRY <= len; at += ENTRY) {
        unsigned tag = tag_of(acl + at);
        if (tag != ACL_USER && tag != ACL_GROUP)
            memset(acl + at + 4, 0xff, 4);
    }
}

/* ---- ACLs and modes ---- */

/* By how much to shift a mode for the permissions of this entry to be its lowest bits; -1: it has
 * no place in the mode. What the group has there is the mask, where there is one. */
static int shift_of(unsigned tag, bool has_mask)
{
    switch (tag) {
    case ACL_USER_OBJ:
        return 6;
    case ACL_GROUP_OBJ:
        return has_mask ? -1 : 3;
    case ACL_MASK:
        return 3;
    case ACL_OTHER:
        return 0;
    default:
        return -1;
    }
}

static bool has_mask(struct keg_bytes acl)
{
    const uint8_t *e;
    for (size_t i = 0; (e = entry_at(acl, i)); i++)
        if (tag_of(e) == ACL_MASK)
            return true;
    return false;
}

bool acl_to_mode(struct keg_bytes acl, uint32_t *mode)
{
    const uint8_t *e;
    bool mask = has_mask(acl);
    uint32_t bits = 0;
    for (size_t i = 0; (e = entry_at(acl, i)); i++) {
        int shift = shift_of(tag_of(e), mask);
        if (shift >= 0)
            bits |= (permissions_of(e) & PERMISSIONS) << shift;
    }
    *mode = (*mode & ~(uint32_t)0777) | bits;
    return !mask; /* a mask is there whenever anyone is named */
}

void acl_chmod(uint8_t *acl, size_t len, uint32_t mode)
{
    bool mask = has_mask((struct keg_bytes){acl, len});
    for (size_t at = HEADER; at + ENTRY <= len; at += ENTRY) {
        int shift = shift_of(tag_of(acl + at), mask);
        if (shift >= 0)
            set_permissions(acl + at, mode >> shift & PERMISSIONS);
    }
}

bool acl_inherit(uint8_t *acl, size_t len, uint32_t *mode)
{
    struct keg_bytes bytes = {acl, len};
    uint32_t most = 0;
    bool says_all = acl_to_mode(bytes, &most);
    *mode &= ~(uint32_t)0777 | most;
    acl_chmod(acl, len, *mode);
    return says_all;
}
