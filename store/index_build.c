/* SPDX-License-Identifier: MIT */
/*
 * Builds an index from the leaves up.
 *
 * Entries wait in a stage of one or two leaves' worth. When it is full, one leaf is written from
 * its front: only then is it known from which sequence on its entries' distances are short. Leaves
 * are left with a little room, so that what changes first does not split every one of them. Next to
 * the chain of leaves a part keeps the separators between them; when all parts are there, their
 * chains are linked and the inner pages built over them, level by level, each page being closed
 * when it is full.
 *
 * Threads: a part belongs to one; parts share nothing.
 */
#include "index_tree.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    STAGE_ENTRIES = 512,
    STAGE_BYTES = 2 * INDEX_PAGE_SIZE,    /* of keys and metas */
    LEAF_ROOM = INDEX_TREE_CAPACITY / 16, /* left free in a leaf */
    INNER_ROOM = INDEX_TREE_CAPACITY / 8, /* and in an inner page */
    LEN_SIZE = 2,                         /* before a separator */
};

struct staged {
    struct index_place place;
    uint32_t key, meta; /* where they begin in the stage's bytes */
    uint16_t key_len, meta_len;
};

struct index_build {
    struct index *index; /* its pool and counts; there is no root yet */
    struct index_page *first, *last;
    uint8_t *separators; /* before each leaf but the first: length and bytes */
    size_t separators_len, separators_size;
    size_t first_key_len;
    uint8_t first_key[KEG_KEY_MAX];
    struct index_writer writer; /* of the last leaf: its last key */
    size_t added_len;
    uint8_t added[KEG_KEY_MAX]; /* the last key added */
    size_t count, used;
    struct staged staged[STAGE_ENTRIES];
    uint8_t bytes[STAGE_BYTES];
};

int index_build_new(struct index_build **out)
{
    struct index_build *build = malloc(sizeof *build);

    if (!build)
        return -ENOMEM;
    build->index = calloc(1, sizeof *build->index);
    if (!build->index) {
        free(build);
        return -ENOMEM;
    }
    build->first = build->last = NULL;
    build->separators = NULL;
    build->separators_len = build->separators_size = 0;
    build->first_key_len = build->added_len = build->count = build->used = 0;
    *out = build;
    return 0;
}

void index_build_free(struct index_build *build)
{
    if (!build)
        return;
    index_free(build->index);
    free(build->separators);
    free(build);
}

/* ---- Leaves ---- */

static size_t common_len(struct keg_bytes a, struct keg_bytes b)
{
    const uint8_t *left = a.data, *right = b.data;
    size_t len = a.len < b.len ? a.len : b.len, i = 0;

    while (i < len && left[i] == right[i])
        i++;
    return i;
}

static bool is_above(struct keg_bytes key, struct keg_bytes last)
{
    size_t same = common_len(key, last);

    return same < key.len && (same == last.len || ((const uint8_t *)key.data)[same] >
                                                      ((const uint8_t *)last.data)[same]);
}

/* The shortest key that parts the two: above the first, not above the second. */
static struct keg_bytes separator_of(struct keg_bytes last, struct keg_bytes first)
{
    return (struct keg_bytes){first.data, common_len(last, first) + 1};
}

static int keep_separator(struct index_build *build, struct keg_bytes separator)
{
    size_t len = build->separators_len, size = build->separators_size;

    if (size - len < LEN_SIZE + separator.len) {
        size = size ? 2 * size : STAGE_BYTES;
        uint8_t *grown = realloc(build->separators, size);
        if (!grown)
            return -ENOMEM;
        build->separators = grown;
        build->separators_size = size;
    }
    uint8_t *p = build->separators + len;
    p[0] = (uint8_t)separator.len;
    p[1] = (uint8_t)(separator.len >> 8);
    memcpy(p + LEN_SIZE, separator.data, separator.len);
    build->separators_len += LEN_SIZE + separator.len;
    return 0;
}

static struct keg_bytes staged_key(const struct index_build *build, size_t i)
{
    return (struct keg_bytes){build->bytes + build->staged[i].key, build->staged[i].key_len};
}

/* A new leaf at the end of the chain, for the entries at the stage's front. */
static int begin_leaf(struct index_build *build)
{
    struct keg_bytes first = staged_key(build, 0);
    struct keg_bytes last = {build->writer.key, build->writer.key_len};
    struct index_page *leaf;
    uint64_t base = UINT64_MAX;
    int err = index_pool_fill(&build->index->pool, 1);

    if (!err && build->last)
        err = keep_separator(build, separator_of(last, first));
    if (err)
        return err;
    leaf = index_tree_take(build->index, 0);
    for (size_t i = 0; i < build->count; i++)
        if (build->staged[i].place.sequence < base)
            base = build->staged[i].place.sequence;
    leaf->base = base;
    if (build->last)
        build->last->next = leaf;
    else
        build->first = leaf;
    build->last = leaf;
    index_page_write(&build->writer, leaf);
    return 0;
}

/* The entries that are left move to the stage's front. */
static void drop_front(struct index_build *build, size_t count)
{
    uint32_t gone = count < build->count ? build->staged[count].key : (uint32_t)build->used;

    build->count -= count;
    build->used -= gone;
    memmove(build->bytes, build->bytes + gone, build->used);
    memmove(build->staged, build->staged + count, build->count * sizeof *build->staged);
    for (size_t i = 0; i < build->count; i++) {
        build->staged[i].key -= gone;
        build->staged[i].meta -= gone;
    }
}

/* One leaf from the stage's front. */
static int write_leaf(struct index_build *build)
{
    uint8_t packed[INDEX_LEAF_MAX];
    size_t done = 0;
    int err = begin_leaf(build);

    if (err)
        return err;
    for (; done < build->count && index_page_room(build->last) >= LEAF_ROOM; done++) {
        const struct staged *entry = &build->staged[done];
        struct keg_bytes meta = {build->bytes + entry->meta, entry->meta_len};
        struct keg_bytes payload = {
            packed, index_leaf_pack(packed, build->last->base, &entry->place, meta)};

        if (!index_page_append(&build->writer, staged_key(build, done), payload))
            break;
    }
    assert(done > 0); /* an empty leaf takes any entry */
    build->index->keys += done;
    drop_front(build, done);
    return 0;
}

int index_build_add(struct index_build *build, struct keg_bytes key,
                    const struct index_place *place, struct keg_bytes meta)
{
    struct staged *entry;
    int err;

    if (build->added_len && !is_above(key, (struct keg_bytes){build->added, build->added_len}))
        return -EINVAL;
    if (build->count == STAGE_ENTRIES || STAGE_BYTES - build->used < key.len + meta.len) {
        err = write_leaf(build);
        if (err)
            return err;
    }
    if (!build->added_len) {
        memcpy(build->first_key, key.data, key.len);
        build->first_key_len = key.len;
    }
    memcpy(build->added, key.data, key.len);
    build->added_len = key.len;
    entry = &build->staged[build->count++];
    *entry = (struct staged){.place = *place,
                             .key = (uint32_t)build->used,
                             .meta = (uint32_t)(build->used + key.len),
                             .key_len = (uint16_t)key.len,
                             .meta_len = (uint16_t)meta.len};
    memcpy(build->bytes + build->used, key.data, key.len);
    if (meta.len)
        memcpy(build->bytes + build->used + key.len, meta.data, meta.len);
    build->used += key.len + meta.len;
    return 0;
}

/* ---- Inner pages ---- */

/* The page of each level that is being filled; the highest one is the root in the end. */
struct tower {
    struct index *index;
    size_t height; /* levels above the leaves */
    struct index_writer writers[INDEX_TREE_LEVELS];
};

/* Puts `right` behind the child `left`, which is the last one so far, of the page at `level`. */
static int add_child(struct tower *tower, size_t level, struct keg_bytes separator,
                     struct index_page *left, struct index_page *right)
{
    struct keg_bytes payload = {&right, sizeof right};
    struct index_writer *writer = &tower->writers[level];
    struct index_page *full, *page;
    int err = index_pool_fill(&tower->index->pool, 1);

    if (err)
        return err;
    if (level > tower->height) {
        tower->height = level;
        page = index_tree_take(tower->index, (uint8_t)level);
        page->first = left;
        index_page_write(writer, page);
    }
    if (index_page_room(writer->page) >= INNER_ROOM &&
        index_page_append(writer, separator, payload))
        return 0;
    full = writer->page;
    page = index_tree_take(tower->index, (uint8_t)level);
    page->first = right;
    index_page_write(writer, page);
    return add_child(tower, level + 1, separator, full, page);
}

/* The leaves of one part, the first of which stands behind `before` (NULL: there is none). */
static int add_leaves(struct tower *tower, const struct index_build *part,
                      struct index_page *before, struct keg_bytes first_separator)
{
    struct index_page *leaf = part->first;
    const uint8_t *p = part->separators;
    int err = before ? add_child(tower, 1, first_separator, before, leaf) : 0;

    for (; !err && leaf != part->last; leaf = leaf->next) {
        struct keg_bytes separator = {p + LEN_SIZE, (size_t)p[0] | (size_t)p[1] << 8};

        err = add_child(tower, 1, separator, leaf, leaf->next);
        p += LEN_SIZE + separator.len;
    }
    return err;
}

/* Takes over what `part` has, behind what the index has already. */
static int append_part(struct tower *tower, struct index_build *before, struct index_build *part)
{
    struct keg_bytes first = {part->first_key, part->first_key_len}, separator = {0};
    struct index_page *last = NULL;

    if (before) {
        struct keg_bytes end = {before->added, before->added_len};
        if (!is_above(first, end))
            return -EINVAL;
        last = before->last;
        last->next = part->first;
        separator = separator_of(end, first);
    }
    if (part->index != tower->index) {
        index_pool_join(&tower->index->pool, &part->index->pool);
        tower->index->keys += part->index->keys;
        tower->index->pages += part->index->pages;
    }
    return add_leaves(tower, part, last, separator);
}

static int finish(struct index_build **parts, size_t count, struct index **out)
{
    struct index_build *before = NULL;
    struct tower tower = {0};
    int err = 0;

    for (size_t i = 0; i < count && !err; i++) {
        while (parts[i]->count && !err)
            err = write_leaf(parts[i]);
        if (err || !parts[i]->first)
            continue;
        if (!tower.index)
            tower.index = parts[i]->index;
        err = append_part(&tower, before, parts[i]);
        before = parts[i];
    }
    if (err)
        return err;
    if (!before)
        return index_new(out);
    tower.index->root = tower.height ? tower.writers[tower.height].page : before->first;
    *out = tower.index;
    return 0;
}

int index_build_finish(struct index_build **parts, size_t count, struct index **out)
{
    struct index *made = NULL;
    int err = finish(parts, count, &made);

    for (size_t i = 0; i < count; i++) {
        if (parts[i]->index == made)
            parts[i]->index = NULL;
        index_build_free(parts[i]);
    }
    if (!err)
        *out = made;
    return err;
}
