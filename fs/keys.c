/* SPDX-License-Identifier: MIT */
#include "keys.h"
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { INODE_VERSION = 1, NAME_VERSION = 1, SUPER_VERSION = 1, NS_PER_S = 1000000000 };

/* What a meta of an inode leaves out because it is 0 or the same as mtime. */
enum {
    HAS_RDEV = 1,
    HAS_CONTENT = 2,
    HAS_PARENT = 4,
    HAS_ATIME = 8,
    HAS_CTIME = 16,
    HAS_BTIME = 32,
    HAS_ALL = 63,
};

/* ---- Numbers ---- */

static void put_be64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
}

static uint64_t get_be64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static uint64_t get_le64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static uint8_t *put_le(uint8_t *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *p++ = (uint8_t)(v >> (8 * i));
    return p;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

/* What is left to be decoded; once something did not fit, bad, and every number is 0. */
struct reader {
    const uint8_t *at, *end;
    bool bad;
};

static uint64_t read_le(struct reader *r, int bytes)
{
    uint64_t v = 0;
    if (r->end - r->at < bytes) {
        r->bad = true;
        return 0;
    }
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)*r->at++ << (8 * i);
    return v;
}

static uint32_t read_le32(struct reader *r)
{
    uint32_t v;
    if (r->end - r->at < (ptrdiff_t)sizeof v) {
        r->bad = true;
        return 0;
    }
    memcpy(&v, r->at, sizeof v);
    r->at += sizeof v;
    return le32toh(v);
}

/* The shortest form only: a last byte of 0 behind others would be a second form of one number. */
static uint64_t read_long_varint(struct reader *r, uint64_t max)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        uint8_t b = *r->at++;
        if (shift == 63 && b > 1)
            break;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b & 0x80)
            continue;
        if ((b == 0 && shift > 0) || v > max)
            break;
        return v;
    }
    r->bad = true;
    return 0;
}

static inline uint64_t read_varint(struct reader *r, uint64_t max)
{
    if (r->at < r->end && *r->at < 0x80 && *r->at <= max)
        return *r->at++;
    return read_long_varint(r, max);
}

/* Signed numbers near 0 are short. */
static uint64_t zigzag(uint64_t v)
{
    return v << 1 ^ (v >> 63 ? UINT64_MAX : 0);
}

static uint64_t unzigzag(uint64_t v)
{
    return v >> 1 ^ (v & 1 ? UINT64_MAX : 0);
}

/* A time: seconds since base, then nanoseconds. Wraps around, so any seconds will do. */
static uint8_t *put_time(uint8_t *p, struct timespec t, time_t base)
{
    p = put_varint(p, zigzag((uint64_t)t.tv_sec - (uint64_t)base));
    return put_le(p, (uint64_t)t.tv_nsec, 4);
}

static struct timespec read_time(struct reader *r, time_t base)
{
    struct timespec t;
    t.tv_sec = (time_t)(unzigzag(read_varint(r, UINT64_MAX)) + (uint64_t)base);
    t.tv_nsec = (long)read_le32(r);
    if (t.tv_nsec >= NS_PER_S)
        r->bad = true;
    return t;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* ---- Keys ---- */

static void begin(struct keys_key *key, enum keys_kind kind)
{
    key->bytes[0] = (uint8_t)kind;
    key->len = 1;
}

static void add64(struct keys_key *key, uint64_t v)
{
    put_be64(key->bytes + key->len, v);
    key->len += 8;
}

static void add_name(struct keys_key *key, struct keg_bytes name)
{
    size_t len = name.len <= KEYS_NAME_MAX ? name.len : KEYS_NAME_MAX;
    memcpy(key->bytes + key->len, name.data, len);
    key->len += len;
}

void keys_super(struct keys_key *key)
{
    begin(key, KEYS_SUPER);
}

void keys_inode(struct keys_key *key, uint64_t ino)
{
    begin(key, KEYS_INODE);
    add64(key, ino);
}

void keys_name_from(struct keys_key *key, uint64_t dir, uint64_t hash)
{
    begin(key, KEYS_NAME);
    add64(key, dir);
    add64(key, hash);
}

void keys_name(struct keys_key *key, uint64_t dir, uint64_t hash, struct keg_bytes name)
{
    keys_name_from(key, dir, hash);
    add_name(key, name);
}

void keys_extent(struct keys_key *key, uint64_t content, uint64_t offset)
{
    begin(key, KEYS_EXTENT);
    add64(key, content);
    add64(key, offset);
}

void keys_xattr(struct keys_key *key, uint64_t ino, struct keg_bytes name)
{
    begin(key, KEYS_XATTR);
    add64(key, ino);
    add_name(key, name);
}

void keys_orphan(struct keys_key *key, enum keys_orphan orphan, uint64_t id)
{
    begin(key, KEYS_ORPHAN);
    key->bytes[key->len++] = (uint8_t)orphan;
    add64(key, id);
}

void keys_kind_prefix(struct keys_key *key, enum keys_kind kind)
{
    begin(key, kind);
}

void keys_prefix(struct keys_key *key, enum keys_kind kind, uint64_t id)
{
    begin(key, kind);
    add64(key, id);
}

static int parse_orphan(const uint8_t *p, size_t len, struct keys_parsed *out)
{
    if (len != 10)
        return -EBADMSG;
    out->orphan = (enum keys_orphan)p[1];
    out->id = get_be64(p + 2);
    if (p[1] == KEYS_ORPHAN_CONTENT || p[1] == KEYS_ORPHAN_INODE || p[1] == KEYS_ORPHAN_TAIL)
        return 0;
    return -EBADMSG;
}

int keys_parse(struct keg_bytes key, struct keys_parsed *out)
{
    const uint8_t *p = key.data;
    memset(out, 0, sizeof *out);
    if (key.len == 0)
        return -EBADMSG;
    out->kind = (enum keys_kind)p[0];
    if (p[0] == KEYS_SUPER)
        return key.len == 1 ? 0 : -EBADMSG;
    if (p[0] == KEYS_ORPHAN)
        return parse_orphan(p, key.len, out);
    if (key.len < 9)
        return -EBADMSG;
    out->id = get_be64(p + 1);
    size_t at = 9;
    if (p[0] == KEYS_INODE)
        return key.len == at ? 0 : -EBADMSG;
    if (p[0] == KEYS_EXTENT) {
        if (key.len != at + 8)
            return -EBADMSG;
        out->offset = get_be64(p + at);
        return 0;
    }
    if (p[0] == KEYS_NAME) {
        if (key.len < at + 8)
            return -EBADMSG;
        out->hash = get_be64(p + at);
        at += 8;
    } else if (p[0] != KEYS_XATTR) {
        return -EBADMSG;
    }
    out->name = (struct keg_bytes){p + at, key.len - at};
    return key.len > at && key.len - at <= KEYS_NAME_MAX ? 0 : -EBADMSG;
}

/* ---- The hash of names ---- */

static uint64_t rotate(uint64_t v, int bits)
{
    return v << bits | v >> (64 - bits);
}

static inline __attribute__((always_inline)) void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32) + v[3];
    v[2] += v[1];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

/* Keyed, so that nobody can prepare names that fall together. */
uint64_t keys_hash(const uint8_t secret[KEYS_SECRET_SIZE], struct keg_bytes name)
{
    uint64_t k0 = get_le64(secret), k1 = get_le64(secret + 8);
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
                     k1 ^ 0x7465646279746573};
    const uint8_t *p = name.data;
    size_t left = name.len;
    for (; left >= 8; left -= 8, p += 8)
        sip_word(v, get_le64(p));
    uint64_t last = (uint64_t)name.len << 56;
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)p[i] << (8 * i);
    sip_word(v, last);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    uint64_t hash = (v[0] ^ v[1] ^ v[2] ^ v[3]) >> 1;
    return hash < KEYS_COOKIE_MIN ? hash + KEYS_COOKIE_MIN : hash;
}

/* ---- Metas ---- */

size_t keys_inode_encode(uint8_t out[KEYS_INODE_META_MAX], const struct inode *inode)
{
    unsigned has = (inode->rdev ? HAS_RDEV : 0u) | (inode->content ? HAS_CONTENT : 0u) |
                   (inode->parent ? HAS_PARENT : 0u) |
                   (same_time(inode->atime, inode->mtime) ? 0u : HAS_ATIME) |
                   (same_time(inode->ctime, inode->mtime) ? 0u : HAS_CTIME) |
                   (same_time(inode->btime, inode->mtime) ? 0u : HAS_BTIME);
    uint8_t *p = out;
    *p++ = INODE_VERSION;
    *p++ = (uint8_t)inode->flags;
    *p++ = (uint8_t)has;
    p = put_le(p, inode->mode, 2);
    p = put_varint(p, inode->nlink);
    p = put_varint(p, inode->uid);
    p = put_varint(p, inode->gid);
    p = put_varint(p, inode->size);
    p = put_varint(p, inode->bytes);
    if (has & HAS_RDEV)
        p = put_varint(p, inode->rdev);
    if (has & HAS_CONTENT)
        p = put_varint(p, inode->content);
    if (has & HAS_PARENT)
        p = put_varint(p, inode->parent);
    p = put_time(p, inode->mtime, 0);
    if (has & HAS_ATIME)
        p = put_time(p, inode->atime, inode->mtime.tv_sec);
    if (has & HAS_CTIME)
        p = put_time(p, inode->ctime, inode->mtime.tv_sec);
    if (has & HAS_BTIME)
        p = put_time(p, inode->btime, inode->mtime.tv_sec);
    return (size_t)(p - out);
}

/* A time that may be left out; one that is there and the same as mtime was never written. */
static struct timespec read_other_time(struct reader *r, bool has, struct timespec mtime)
{
    if (!has)
        return mtime;
    struct timespec t = read_time(r, mtime.tv_sec);
    if (same_time(t, mtime))
        r->bad = true;
    return t;
}

static uint64_t read_nonzero(struct reader *r, bool has)
{
    if (!has)
        return 0;
    uint64_t v = read_varint(r, UINT64_MAX);
    if (v == 0)
        r->bad = true;
    return v;
}

int keys_inode_decode(struct keg_bytes meta, struct inode *inode)
{
    struct reader r = {meta.data, (const uint8_t *)meta.data + meta.len, false};
    memset(inode, 0, sizeof *inode);
    uint64_t version = read_le(&r, 1);
    if (version > INODE_VERSION)
        return -EPROTO;
    inode->flags = (uint32_t)read_le(&r, 1);
    unsigned has = (unsigned)read_le(&r, 1);
    inode->mode = (uint32_t)read_le(&r, 2);
    inode->nlink = (uint32_t)read_varint(&r, UINT32_MAX);
    inode->uid = (uint32_t)read_varint(&r, UINT32_MAX);
    inode->gid = (uint32_t)read_varint(&r, UINT32_MAX);
    inode->size = read_varint(&r, INT64_MAX);
    inode->bytes = read_varint(&r, INT64_MAX);
    inode->rdev = read_nonzero(&r, has & HAS_RDEV);
    inode->content = read_nonzero(&r, has & HAS_CONTENT);
    inode->parent = read_nonzero(&r, has & HAS_PARENT);
    inode->mtime = read_time(&r, 0);
    inode->atime = read_other_time(&r, has & HAS_ATIME, inode->mtime);
    inode->ctime = read_other_time(&r, has & HAS_CTIME, inode->mtime);
    inode->btime = read_other_time(&r, has & HAS_BTIME, inode->mtime);
    if (r.bad || r.at != r.end || version != INODE_VERSION || has & ~(unsigned)HAS_ALL ||
        inode->flags & ~(uint32_t)INODE_FLAGS)
        return -EBADMSG;
    return 0;
}

/* The type takes the four bits that S_IFMT has of a mode. */
size_t keys_name_encode(uint8_t out[KEYS_NAME_META_MAX], uint64_t ino, uint32_t mode)
{
    out[0] = (uint8_t)(NAME_VERSION << 4 | (mode & S_IFMT) >> 12);
    return (size_t)(put_varint(out + 1, ino) - out);
}

int keys_name_decode(struct keg_bytes meta, uint64_t *ino, uint32_t *type)
{
    struct reader r = {meta.data, (const uint8_t *)meta.data + meta.len, false};
    uint32_t first = (uint32_t)read_le(&r, 1);
    if (first >> 4 > NAME_VERSION)
        return -EPROTO;
    *type = (first & 15) << 12;
    *ino = read_varint(&r, UINT64_MAX);
    return r.bad || r.at != r.end || first >> 4 != NAME_VERSION || *ino == 0 ? -EBADMSG : 0;
}

void keys_super_encode(uint8_t out[KEYS_SUPER_META_SIZE], const struct keys_superblock *super)
{
    out[0] = SUPER_VERSION;
    out[1] = 0; /* flags */
    put_le(out + 2, super->next_id, 8);
    memcpy(out + 10, super->secret, KEYS_SECRET_SIZE);
}

int keys_super_decode(struct keg_bytes meta, struct keys_superblock *super)
{
    const uint8_t *p = meta.data;
    if (meta.len >= 1 && p[0] > SUPER_VERSION)
        return -EPROTO;
    if (meta.len != KEYS_SUPER_META_SIZE || p[0] != SUPER_VERSION || p[1] != 0)
        return -EBADMSG;
    super->next_id = get_le64(p + 2);
    memcpy(super->secret, p + 10, KEYS_SECRET_SIZE);
    return 0;
}
