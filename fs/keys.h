/* SPDX-License-Identifier: MIT */
/*
 * The keys of a volume in its store, and the metas that go with them. DESIGN.md has the bytes.
 *
 * Pure: bytes in, structs out; no I/O, no allocation, every read bounded. Numbers in keys are
 * big-endian, so that keys sort as their numbers do; numbers in metas are little-endian or varints.
 * Decoders take exactly what encoders write: decoding and encoding again gives the same bytes.
 * They return 0, -EBADMSG for bytes that no encoder wrote, or -EPROTO where said.
 */
#ifndef KEYS_H
#define KEYS_H

#include "keg.h"
#include <time.h>

enum {
    KEYS_NAME_MAX = 255,
    KEYS_MAX = 17 + KEYS_NAME_MAX, /* bytes of the longest key */
    KEYS_INODE_META_MAX = 124,     /* bytes of the longest meta of an inode */
    KEYS_NAME_META_MAX = 11,       /* of a name */
    KEYS_SUPER_META_SIZE = 26,     /* of the superblock */
    KEYS_SECRET_SIZE = 16,         /* bytes of the secret behind the hash of names */
    KEYS_COOKIE_MIN = 3,           /* lowest hash of a name; below it are "", "." and ".." */
    KEYS_WINDOW = 64 << 10,        /* bytes; no extent crosses a multiple of it */
};

enum keys_kind {
    KEYS_SUPER = 's',  /* id and hash are 0 */
    KEYS_INODE = 'i',  /* id: inode */
    KEYS_NAME = 'n',   /* id: parent inode; hash; name */
    KEYS_EXTENT = 'e', /* id: content; offset */
    KEYS_XATTR = 'x',  /* id: inode; name */
    KEYS_ORPHAN = 'o', /* id: inode or content, as orphan says */
};

/* What a crash leaves to be reclaimed. */
enum keys_orphan {
    KEYS_ORPHAN_CONTENT = 'c', /* every extent of a content id */
    KEYS_ORPHAN_INODE = 'i',   /* an inode without a name, its contents and xattrs */
    KEYS_ORPHAN_TAIL = 't',    /* an inode whose contents have extents behind its size */
};

/* A key made; bytes[0..len). */
struct keys_key {
    size_t len;
    uint8_t bytes[KEYS_MAX];
};

static inline struct keg_bytes keys_bytes(const struct keys_key *key)
{
    return (struct keg_bytes){key->bytes, key->len};
}

struct keys_parsed {
    enum keys_kind kind;
    enum keys_orphan orphan; /* of KEYS_ORPHAN only */
    uint64_t id;
    uint64_t hash;         /* of KEYS_NAME */
    uint64_t offset;       /* of KEYS_EXTENT, bytes */
    struct keg_bytes name; /* of KEYS_NAME and KEYS_XATTR; points into the key */
};

void keys_super(struct keys_key *key);
void keys_inode(struct keys_key *key, uint64_t ino);
/* name: 1..255 bytes, here and below. */
void keys_name(struct keys_key *key, uint64_t dir, uint64_t hash, struct keg_bytes name);
/* What all names of a directory with at least this hash are not below. */
void keys_name_from(struct keys_key *key, uint64_t dir, uint64_t hash);
void keys_extent(struct keys_key *key, uint64_t content, uint64_t offset);
void keys_xattr(struct keys_key *key, uint64_t ino, struct keg_bytes name);
void keys_orphan(struct keys_key *key, enum keys_orphan orphan, uint64_t id);
/* What all keys of a kind that belong to id begin with (not for KEYS_SUPER, KEYS_ORPHAN). */
void keys_prefix(struct keys_key *key, enum keys_kind kind, uint64_t id);
/* What all keys of a kind begin with. */
void keys_kind_prefix(struct keys_key *key, enum keys_kind kind);

KEG_CHECKED int keys_parse(struct keg_bytes key, struct keys_parsed *parsed);

/* SipHash-2-4 of the name, cut to KEYS_COOKIE_MIN..2^63-1. */
uint64_t keys_hash(const uint8_t secret[KEYS_SECRET_SIZE], struct keg_bytes name);

/* ---- Metas ---- */

enum {
    INODE_HAS_XATTRS = 1,  /* has, or may have, extended attributes */
    INODE_TAIL = 2,        /* extents behind the size may be there; a tail orphan names it */
    INODE_ACCESS_ACL = 4,  /* among them is an access ACL, */
    INODE_DEFAULT_ACL = 8, /* a default ACL; they are there exactly if the flag is */
    INODE_HOLES = 16,      /* set by a repair: what no extent covers may be lost, not a hole */
    INODE_CONTENTS = INODE_TAIL | INODE_HOLES, /* these go with its contents */
    INODE_FLAGS = 31,
};

struct inode {
    uint64_t ino;     /* from the key; not in the meta */
    uint64_t size;    /* bytes; of a directory: 32 for each entry */
    uint64_t bytes;   /* sum of the lengths of its extents */
    uint64_t rdev;    /* of device files */
    uint64_t content; /* id under which its extents are, 0: there are none */
    uint64_t parent;  /* of a directory (its own number for the root), else 0 */
    uint32_t mode;    /* 16 bits */
    uint32_t nlink, uid, gid;
    uint32_t flags; /* INODE_ */
    struct timespec atime, mtime, ctime, btime;
    /* In memory only: content id that the next frame with this inode orphans, 0 for none. */
    uint64_t stale;
    /* In memory only, too: contents are staged (stage.c), and what its record keeps meanwhile. */
    bool staged;
    int broken; /* -errno of the write that is missing from them, or 0 */
    struct inode_old {
        uint64_t content, size, bytes;
        uint32_t flags; /* of INODE_CONTENTS */
        struct timespec mtime;
    } old;
};

/* Returns the bytes written. tv_nsec must be below 10^9, mode below 2^16. */
size_t keys_inode_encode(uint8_t out[KEYS_INODE_META_MAX], const struct inode *inode);
/* Fills all but ino; stale is 0. -EPROTO: a newer version. */
KEG_CHECKED int keys_inode_decode(struct keg_bytes meta, struct inode *inode);

/* A name's meta: the inode, and its type as S_IFMT has it. */
size_t keys_name_encode(uint8_t out[KEYS_NAME_META_MAX], uint64_t ino, uint32_t mode);
KEG_CHECKED int keys_name_decode(struct keg_bytes meta, uint64_t *ino, uint32_t *type);

struct keys_superblock {
    uint64_t next_id; /* no id from here on was ever used */
    uint8_t secret[KEYS_SECRET_SIZE];
};
void keys_super_encode(uint8_t out[KEYS_SUPER_META_SIZE], const struct keys_superblock *super);
/* -EPROTO: a newer version. */
KEG_CHECKED int keys_super_decode(struct keg_bytes meta, struct keys_superblock *super);

#endif
