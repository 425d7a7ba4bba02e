/* SPDX-License-Identifier: MIT */
#include "faultdisk.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 512 };

/* The bytes of a piece written since it last reached the disk; hi 0: none. */
struct piece {
    uint16_t lo, hi;
};

struct faultdisk_node {
    struct faultdisk_node *next;
    unsigned live;           /* visible names and holders: it takes space */
    unsigned kept;           /* names on the disk */
    uint8_t *now, *disk;     /* zero behind their sizes */
    struct piece *pieces;    /* capacity / PIECE of them */
    size_t capacity;         /* bytes, a multiple of PIECE */
    size_t size, disk_size;  /* bytes */
    size_t dirty, dirty_end; /* the pieces outside are clean */
};

struct faultdisk_name {
    struct faultdisk_name *next;
    struct faultdisk_node *now, *disk; /* NULL: not there */
    bool gap;                          /* it was not there for a while since the last sync */
    bool lost;                         /* no sync will make what it is now durable */
    char text[ENV_NAME_MAX + 1];
};

/* splitmix64 */
uint64_t faultdisk_dice(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- Nodes and names ---- */

static void free_if_unused(struct faultdisk *disk, struct faultdisk_node *node)
{
    struct faultdisk_node **link = &disk->nodes;

    if (node->live || node->kept)
        return;
    while (*link != node)
        link = &(*link)->next;
    *link = node->next;
    free(node->now);
    free(node->disk);
    free(node->pieces);
    free(node);
}

void faultdisk_hold(struct faultdisk_node *node)
{
    node->live++;
}

void faultdisk_release(struct faultdisk *disk, struct faultdisk_node *node)
{
    if (--node->live == 0)
        disk->used -= node->size;
    free_if_unused(disk, node);
}

static struct faultdisk_name *lookup(struct faultdisk *disk, const char *text)
{
    struct faultdisk_name *name = disk->names;

    while (name && strcmp(name->text, text) != 0)
        name = name->next;
    return name;
}

static struct faultdisk_name *lookup_or_add(struct faultdisk *disk, const char *text)
{
    struct faultdisk_name *name = lookup(disk, text);

    if (name)
        return name;
    name = calloc(1, sizeof *name);
    if (!name)
        return NULL;
    snprintf(name->text, sizeof name->text, "%s", text);
    name->next = disk->names;
    disk->names = name;
    return name;
}

/* What the name stands for from now on. It holds the new file before it lets the old one go. */
static void set_now(struct faultdisk *disk, struct faultdisk_name *name,
                    struct faultdisk_node *node)
{
    struct faultdisk_node *old = name->now;

    name->now = node;
    name->lost = false;
    if (node && node->live++ == 0)
        disk->used += node->size;
    if (old)
        faultdisk_release(disk, old);
}

static void set_disk(struct faultdisk *disk, struct faultdisk_name *name,
                     struct faultdisk_node *node)
{
    struct faultdisk_node *old = name->disk;

    name->disk = node;
    name->gap = name->lost = false;
    if (node)
        node->kept++;
    if (old) {
        old->kept--;
        free_if_unused(disk, old);
    }
}

/* Forgets the names that stand for nothing. */
static void sweep(struct faultdisk *disk)
{
    struct faultdisk_name **link = &disk->names;

    while (*link) {
        struct faultdisk_name *name = *link;

        if (name->now || name->disk) {
            link = &name->next;
        } else {
            *link = name->next;
            free(name);
        }
    }
}

void faultdisk_clear(struct faultdisk *disk)
{
    for (struct faultdisk_name *name = disk->names; name; name = name->next) {
        set_now(disk, name, NULL);
        set_disk(disk, name, NULL);
    }
    sweep(disk);
    assert(!disk->nodes);
}

struct faultdisk_node *faultdisk_find(struct faultdisk *disk, const char *text)
{
    struct faultdisk_name *name = lookup(disk, text);

    return name ? name->now : NULL;
}

int faultdisk_create(struct faultdisk *disk, const char *text, struct faultdisk_node **out)
{
    struct faultdisk_name *name;
    struct faultdisk_node *node;

    if (faultdisk_find(disk, text))
        return -EEXIST;
    if (disk->limit && disk->used >= disk->limit)
        return -ENOSPC;
    node = calloc(1, sizeof *node);
    name = node ? lookup_or_add(disk, text) : NULL;
    if (!name) {
        free(node);
        return -ENOMEM;
    }
    node->next = disk->nodes;
    disk->nodes = node;
    set_now(disk, name, node);
    *out = node;
    return 0;
}

int faultdisk_remove(struct faultdisk *disk, const char *text)
{
    struct faultdisk_name *name = lookup(disk, text);

    if (!name || !name->now)
        return -ENOENT;
    set_now(disk, name, NULL);
    name->gap = true;
    sweep(disk);
    return 0;
}

int faultdisk_rename(struct faultdisk *disk, const char *from, const char *to, bool durable)
{
    struct faultdisk_name *source = lookup(disk, from), *target;

    if (!source || !source->now)
        return -ENOENT;
    target = lookup_or_add(disk, to);
    if (!target)
        return -ENOMEM;
    if (source != target) {
        set_now(disk, target, source->now);
        set_now(disk, source, NULL);
    }
    if (durable) {
        set_disk(disk, target, target->now);
        set_disk(disk, source, source->now);
    }
    sweep(disk);
    return 0;
}

void faultdisk_sync_names(struct faultdisk *disk)
{
    for (struct faultdisk_name *name = disk->names; name; name = name->next)
        if (!name->lost)
            set_disk(disk, name, name->now);
    sweep(disk);
}

void faultdisk_sync_names_failed(struct faultdisk *disk, uint64_t *dice)
{
    for (struct faultdisk_name *name = disk->names; name; name = name->next) {
        if (name->lost || (name->now == name->disk && !name->gap))
            continue;
        if (faultdisk_dice(dice) % 2)
            set_disk(disk, name, name->now);
        else
            name->lost = true;
    }
    sweep(disk);
}

const char *faultdisk_name_at(const struct faultdisk *disk, size_t i)
{
    for (struct faultdisk_name *name = disk->names; name; name = name->next)
        if (name->now && i-- == 0)
            return name->text;
    return NULL;
}

/* ---- Bytes ---- */

uint64_t faultdisk_size(const struct faultdisk_node *node)
{
    return node->size;
}

/* Lengthens *array from old to new bytes, the new ones zero. */
static bool lengthen(void *array, size_t old, size_t new)
{
    void *p;

    memcpy(&p, array, sizeof p);
    p = realloc(p, new);
    if (!p)
        return false;
    memset((uint8_t *)p + old, 0, new - old);
    memcpy(array, &p, sizeof p);
    return true;
}

static int make_room(struct faultdisk_node *node, size_t size)
{
    size_t old = node->capacity, new;

    if (size <= old)
        return 0;
    new = (size + size / 2 + PIECE - 1) / PIECE *PIECE;
    if (!lengthen(&node->now, old, new) || !lengthen(&node->disk, old, new) ||
        !lengthen(&node->pieces, old / PIECE * sizeof(struct piece),
                  new / PIECE * sizeof(struct piece)))
        return -ENOMEM;
    node->capacity = new;
    return 0;
}

static void mark(struct faultdisk_node *node, size_t at, size_t len)
{
    size_t first = at / PIECE, end = (at + len - 1) / PIECE + 1;

    if (node->dirty == node->dirty_end)
        node->dirty = first;
    node->dirty = min(node->dirty, first);
    node->dirty_end = max(node->dirty_end, end);
    for (size_t i = first; i < end; i++) {
        struct piece *piece = &node->pieces[i];
        uint16_t lo = (uint16_t)(max(at, i * PIECE) - i * PIECE);
        uint16_t hi = (uint16_t)(min(at + len, (i + 1) * PIECE) - i * PIECE);

        if (!piece->hi || lo < piece->lo)
            piece->lo = lo;
        if (hi > piece->hi)
            piece->hi = hi;
    }
}

int faultdisk_write(struct faultdisk *disk, struct faultdisk_node *node, uint64_t at,
                    const void *data, size_t len)
{
    uint64_t room = disk->limit > disk->used ? disk->limit - disk->used : 0;
    uint64_t end = disk->limit ? node->size + room : SIZE_MAX / 4;
    size_t fits = len;
    int rc;

    if (len > SIZE_MAX / 4 || at > SIZE_MAX / 4 - len)
        return -EFBIG;
    if (at + len > end)
        fits = at < end ? (size_t)(end - at) : 0;
    if (fits) {
        rc = make_room(node, (size_t)at + fits);
        if (rc)
            return rc;
        memcpy(node->now + at, data, fits);
        mark(node, (size_t)at, fits);
        if (at + fits > node->size) {
            disk->used += at + fits - node->size;
            node->size = (size_t)at + fits;
        }
    }
    return fits < len ? -ENOSPC : 0;
}

int faultdisk_truncate(struct faultdisk *disk, struct faultdisk_node *node, uint64_t length)
{
    size_t size = node->size;

    if (length > size)
        return -EINVAL;
    if (length < size)
        memset(node->now + length, 0, size - (size_t)length);
    disk->used -= size - length;
    node->size = (size_t)length;
    return 0;
}

size_t faultdisk_read(const struct faultdisk_node *node, uint64_t offset, void *buf, size_t len,
                      bool uncached)
{
    size_t done = 0;

    if (offset >= node->size || len == 0)
        return 0;
    len = min(len, node->size - (size_t)offset);
    if (!uncached) {
        memcpy(buf, node->now + offset, len);
        return len;
    }
    while (done < len) {
        size_t at = (size_t)offset + done, i = at / PIECE;
        size_t n = min(len - done, (i + 1) * PIECE - at);

        memcpy((uint8_t *)buf + done, (node->pieces[i].hi ? node->now : node->disk) + at, n);
        done += n;
    }
    return len;
}

/* The disk gets the size, and what lay behind it is gone. */
static void settle_size(struct faultdisk_node *node)
{
    if (node->disk_size > node->size)
        memset(node->disk + node->size, 0, node->disk_size - node->size);
    node->disk_size = node->size;
}

static void clean(struct faultdisk_node *node)
{
    if (node->dirty_end > node->dirty)
        memset(&node->pieces[node->dirty], 0,
               (node->dirty_end - node->dirty) * sizeof(struct piece));
    node->dirty = node->dirty_end = 0;
}

/* A piece goes to the disk whole, as a sector does. */
static void write_back(struct faultdisk_node *node, size_t i)
{
    memcpy(node->disk + i * PIECE, node->now + i * PIECE, PIECE);
}

void faultdisk_sync(struct faultdisk_node *node)
{
    for (size_t i = node->dirty; i < node->dirty_end; i++)
        if (node->pieces[i].hi)
            write_back(node, i);
    clean(node);
    settle_size(node);
}

void faultdisk_sync_failed(struct faultdisk_node *node, uint64_t *dice)
{
    unsigned odds = (unsigned)(faultdisk_dice(dice) % 3); /* of 2: none, half, all but the size */

    for (size_t i = node->dirty; i < node->dirty_end; i++)
        if (node->pieces[i].hi && faultdisk_dice(dice) % 2 < odds)
            write_back(node, i);
    clean(node);
    if (faultdisk_dice(dice) % 2)
        settle_size(node);
}

/* ---- The cut ---- */

/* Not only any mixture: the pure cases, too, which a mixture would hardly ever give. */
enum mood { KEEP_ALL, DROP_ALL, ZERO_ALL, KEEP_MOST, MIX };

static enum mood choose_mood(uint64_t *dice)
{
    static const enum mood moods[] = {KEEP_ALL,  DROP_ALL, ZERO_ALL, KEEP_MOST,
                                      KEEP_MOST, MIX,      MIX,      MIX};

    return moods[faultdisk_dice(dice) % (sizeof moods / sizeof *moods)];
}

enum fate { KEPT, OLD, ZERO, GARBAGE };

static enum fate choose_fate(enum mood mood, uint64_t *dice)
{
    switch (mood) {
    case KEEP_ALL:
        return KEPT;
    case DROP_ALL:
        return OLD;
    case ZERO_ALL:
        return ZERO;
    case KEEP_MOST:
        if (faultdisk_dice(dice) % 8)
            return KEPT;
        break;
    case MIX:
        break;
    }
    return (enum fate)(faultdisk_dice(dice) % 4);
}

/* Only the bytes written since the last sync are at risk, not their neighbours in the sector. */
static void cut_piece(struct faultdisk_node *node, size_t i, enum fate fate, uint64_t *dice)
{
    size_t at = i * PIECE + node->pieces[i].lo, end = i * PIECE + node->pieces[i].hi;

    if (fate == KEPT)
        memcpy(node->disk + at, node->now + at, end - at);
    else if (fate == ZERO)
        memset(node->disk + at, 0, end - at);
    else if (fate == GARBAGE)
        for (; at < end; at++)
            node->disk[at] = (uint8_t)faultdisk_dice(dice);
}

static size_t cut_size(const struct faultdisk_node *node, enum mood mood, uint64_t *dice)
{
    size_t lo = min(node->size, node->disk_size), hi = max(node->size, node->disk_size);

    if (mood == KEEP_ALL)
        return node->size;
    if (mood == DROP_ALL)
        return node->disk_size;
    switch (faultdisk_dice(dice) % 3) {
    case 0:
        return node->size;
    case 1:
        return node->disk_size;
    default:
        return lo + (size_t)(faultdisk_dice(dice) % (hi - lo + 1));
    }
}

/* Bytes that could be read before and are gone or different. Most files differ nowhere. */
static uint64_t count_lost(const struct faultdisk_node *node, size_t size)
{
    size_t common = min(size, node->size);
    uint64_t lost = node->size - common;

    for (size_t at = 0; at < common; at += PIECE) {
        size_t end = min(at + PIECE, common);

        if (memcmp(node->now + at, node->disk + at, end - at) == 0)
            continue;
        for (size_t i = at; i < end; i++)
            lost += node->now[i] != node->disk[i];
    }
    return lost;
}

static uint64_t cut_node(struct faultdisk_node *node, uint64_t *dice)
{
    enum mood mood = choose_mood(dice);
    size_t size = cut_size(node, mood, dice), end = max(node->size, node->disk_size);
    uint64_t lost = 0;

    for (size_t i = node->dirty; i < node->dirty_end; i++)
        if (node->pieces[i].hi)
            cut_piece(node, i, choose_fate(mood, dice), dice);
    clean(node);
    if (end > size)
        memset(node->disk + size, 0, end - size);
    if (node->live)
        lost = count_lost(node, size);
    if (end)
        memcpy(node->now, node->disk, end);
    node->size = node->disk_size = size;
    return lost;
}

/* What a name stands for after the cut: the newer, the older, or nothing if that was between. */
static struct faultdisk_node *cut_name(const struct faultdisk_name *name, enum mood mood,
                                       uint64_t *dice)
{
    uint64_t chance = faultdisk_dice(dice);

    if (mood == DROP_ALL || name->lost)
        return name->disk;
    if (mood == KEEP_ALL || name->now == name->disk)
        return name->now;
    if (name->gap && chance % 4 == 0)
        return NULL;
    return chance & 1 << 4 ? name->now : name->disk;
}

uint64_t faultdisk_cut(struct faultdisk *disk, uint64_t *dice)
{
    enum mood mood = choose_mood(dice);
    uint64_t lost = 0;

    for (struct faultdisk_node *node = disk->nodes; node; node = node->next)
        lost += cut_node(node, dice);
    disk->used = 0;
    for (struct faultdisk_node *node = disk->nodes; node; node = node->next)
        disk->used += node->live ? node->size : 0;
    for (struct faultdisk_name *name = disk->names; name; name = name->next) {
        struct faultdisk_node *node = cut_name(name, mood, dice);

        if (name->now && name->now != node)
            lost += name->now->size;
        set_now(disk, name, node);
        set_disk(disk, name, node);
    }
    sweep(disk);
    return lost;
}

int faultdisk_flip(struct faultdisk_node *node, uint64_t offset, uint8_t mask)
{
    if (offset >= node->size)
        return -EINVAL;
    node->now[offset] ^= mask;
    node->disk[offset] ^= mask;
    return 0;
}
