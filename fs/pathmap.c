/* SPDX-License-Identifier: MIT */
#include "pathmap.h"
#include "idlist.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct name {
    uint64_t ino, dir, hash;
};

struct content {
    uint64_t id, ino;
};

struct pathmap {
    struct volume *volume;
    struct name *names; /* in order of inodes */
    size_t name_count, name_capacity;
    struct content *contents; /* in order of ids */
    size_t content_count, content_capacity;
};

static int add_name(struct pathmap *map, const struct keys_parsed *key,
                    const struct keg_entry *entry)
{
    uint64_t ino;
    uint32_t type;
    if (keys_name_decode(entry->meta, &ino, &type) != 0)
        return 0;
    struct name *grown =
        idlist_grow(map->names, map->name_count, &map->name_capacity, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    map->names = grown;
    map->names[map->name_count++] = (struct name){ino, key->id, key->hash};
    return 0;
}

static int add_content(struct pathmap *map, const struct keys_parsed *key,
                       const struct keg_entry *entry)
{
    struct inode inode;
    if (keys_inode_decode(entry->meta, &inode) != 0 || !inode.content)
        return 0;
    struct content *grown =
        idlist_grow(map->contents, map->content_count, &map->content_capacity, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    map->contents = grown;
    map->contents[map->content_count++] = (struct content){inode.content, key->id};
    return 0;
}

static int pass(struct pathmap *map, enum keys_kind kind,
                int (*add)(struct pathmap *map, const struct keys_parsed *key,
                           const struct keg_entry *entry))
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_kind_prefix(&prefix, kind);
    int error = keg_iter_open(map->volume->keg, keys_bytes(&prefix), &iter), more;
    if (error)
        return error;
    while (!error && (more = keg_iter_next(iter, &entry)) != 0) {
        struct keys_parsed key;
        error = more < 0 ? more : keys_parse(entry.key, &key) ? 0 : add(map, &key, &entry);
    }
    keg_iter_close(iter);
    return error;
}

int pathmap_new(struct volume *volume, struct pathmap **out)
{
    struct pathmap *map = calloc(1, sizeof *map);
    if (!map)
        return -ENOMEM;
    map->volume = volume;
    int error = pass(map, KEYS_NAME, add_name);
    if (!error)
        error = pass(map, KEYS_INODE, add_content);
    if (error) {
        pathmap_free(map);
        return error;
    }
    idlist_sort(map->names, map->name_count, sizeof *map->names);
    idlist_sort(map->contents, map->content_count, sizeof *map->contents);
    *out = map;
    return 0;
}

void pathmap_free(struct pathmap *map)
{
    if (!map)
        return;
    free(map->names);
    free(map->contents);
    free(map);
}

/* Several names may have one hash: the one that leads to the inode. */
static int fetch(const struct pathmap *map, const struct name *name, struct keys_key *found)
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    uint64_t ino = 0;
    uint32_t type;
    keys_name_from(&prefix, name->dir, name->hash);
    int more = keg_iter_open(map->volume->keg, keys_bytes(&prefix), &iter);
    if (more)
        return more;
    while ((more = keg_iter_next(iter, &entry)) > 0) {
        if (keys_name_decode(entry.meta, &ino, &type) == 0 && ino == name->ino)
            break;
    }
    if (more > 0) {
        found->len = entry.key.len <= KEYS_MAX ? entry.key.len : KEYS_MAX;
        memcpy(found->bytes, entry.key.data, found->len);
    }
    keg_iter_close(iter);
    return more > 0 ? 0 : more < 0 ? more : -ENOENT;
}

int pathmap_name(const struct pathmap *map, uint64_t dir, uint64_t ino, struct keys_key *found)
{
    size_t low = 0, high = map->name_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->names[middle].ino < ino)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < map->name_count && map->names[low].ino == ino; low++) {
        if (!dir || map->names[low].dir == dir)
            return fetch(map, &map->names[low], found);
    }
    return -ENOENT;
}

int pathmap_content(const struct pathmap *map, uint64_t content, uint64_t *ino)
{
    const struct content *found =
        idlist_find(map->contents, map->content_count, sizeof *found, content);
    if (!found)
        return -ENOENT;
    *ino = found->ino;
    return 0;
}
