/* SPDX-License-Identifier: MIT */
/* Paths, for the command line and for reports: from a path to an inode, and back. */
#include "paths.h"
#include "pathmap.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 1 << 16 };

bool paths_next(struct keg_bytes *path, struct keg_bytes *name)
{
    const char *p = path->data, *end = p ? p + path->len : p;
    for (;;) {
        while (p < end && *p == '/')
            p++;
        const char *start = p;
        while (p < end && *p != '/')
            p++;
        *name = (struct keg_bytes){start, (size_t)(p - start)};
        *path = (struct keg_bytes){p, (size_t)(end - p)};
        if (name->len == 0)
            return false;
        if (name->len != 1 || *start != '.')
            return true;
    }
}

/* Whether only slashes and dots are left. */
static bool is_last(struct keg_bytes path)
{
    struct keg_bytes name;
    return !paths_next(&path, &name);
}

static int look_up_root(struct volume *volume, struct volume_attr *out)
{
    int error = inodes_count_lookup(volume, VOLUME_ROOT);
    if (error)
        return error;
    error = volume_getattr(volume, VOLUME_ROOT, out);
    if (error)
        inodes_uncount_lookup(volume, VOLUME_ROOT);
    return error;
}

int volume_resolve(struct volume *volume, struct keg_bytes path, struct volume_attr *out)
{
    struct keg_bytes name;
    uint64_t dir = VOLUME_ROOT, ino;
    uint32_t type;
    while (paths_next(&path, &name)) {
        int error;
        if (!volume_names_ok(name, &error))
            return error;
        if (path.len == 0)
            return volume_lookup(volume, dir, name, out);
        error = dirs_find(volume, dir, name, &ino, &type);
        if (!error && !S_ISDIR(type))
            error = -ENOTDIR;
        if (error)
            return error;
        if (is_last(path))
            return volume_lookup(volume, dir, name, out);
        dir = ino;
    }
    return look_up_root(volume, out);
}

/* ---- Back ---- */

/* Some name of the inode, in any directory, or in one if dir is not 0. */
static int find_name(struct volume *volume, const struct pathmap *map, uint64_t dir, uint64_t ino,
                     struct keys_key *found)
{
    if (map)
        return pathmap_name(map, dir, ino, found);
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    if (dir)
        keys_prefix(&prefix, KEYS_NAME, dir);
    else
        keys_kind_prefix(&prefix, KEYS_NAME);
    int more = keg_iter_open(volume->keg, keys_bytes(&prefix), &iter);
    if (more)
        return more;
    while ((more = keg_iter_next(iter, &entry)) > 0) {
        uint64_t named;
        uint32_t type;
        if (keys_name_decode(entry.meta, &named, &type) == 0 && named == ino)
            break;
    }
    if (more > 0) {
        found->len = entry.key.len <= KEYS_MAX ? entry.key.len : KEYS_MAX;
        memcpy(found->bytes, entry.key.data, found->len);
    }
    keg_iter_close(iter);
    return more > 0 ? 0 : more < 0 ? more : -ENOENT;
}

/* Writes "/name" before *at. */
static int prepend(char *buf, size_t *at, struct keg_bytes name)
{
    if (name.len + 1 > *at)
        return -ENAMETOOLONG;
    *at -= name.len + 1;
    buf[*at] = '/';
    memcpy(buf + *at + 1, name.data, name.len);
    return 0;
}

/* Prepends the path of a directory. */
static int prepend_dir(struct volume *volume, const struct pathmap *map, uint64_t dir, char *buf,
                       size_t *at)
{
    for (int depth = 0; dir != VOLUME_ROOT; depth++) {
        struct keys_key key;
        struct keys_parsed parsed;
        uint64_t parent;
        int error = depth < DEPTH_MAX ? volume_parent(volume, dir, &parent) : -ELOOP;
        if (!error)
            error = find_name(volume, map, parent, dir, &key);
        if (!error)
            error = keys_parse(keys_bytes(&key), &parsed);
        if (!error)
            error = prepend(buf, at, parsed.name);
        if (error)
            return error;
        dir = parent;
    }
    return 0;
}

/* The path was built at the end of buf: moves it to the front. */
static int finish(char *buf, size_t size, size_t at)
{
    if (at == size - 1) /* the root */
        buf[--at] = '/';
    memmove(buf, buf + at, size - 1 - at);
    buf[size - 1 - at] = 0;
    return 0;
}

static int path_of_name(struct volume *volume, const struct pathmap *map,
                        const struct keys_parsed *parsed, char *buf, size_t size)
{
    size_t at = size - 1;
    int error = prepend(buf, &at, parsed->name);
    if (!error)
        error = prepend_dir(volume, map, parsed->id, buf, &at);
    return error ? error : finish(buf, size, at);
}

static int path_of(struct volume *volume, const struct pathmap *map, uint64_t ino, char *buf,
                   size_t size)
{
    struct inode inode;
    struct keys_key key;
    struct keys_parsed parsed;
    size_t at = size - 1;
    if (size < 2)
        return -ENAMETOOLONG;
    inodes_lock_shared(volume, ino);
    int error = inodes_load(volume, ino, &inode);
    inodes_unlock_shared(volume, ino);
    if (!error && inode.nlink == 0)
        error = -ENOENT;
    if (error)
        return error;
    if (S_ISDIR(inode.mode)) {
        error = prepend_dir(volume, map, ino, buf, &at);
        return error ? error : finish(buf, size, at);
    }
    error = find_name(volume, map, 0, ino, &key);
    if (!error)
        error = keys_parse(keys_bytes(&key), &parsed);
    return error ? error : path_of_name(volume, map, &parsed, buf, size);
}

int paths_of(struct volume *volume, uint64_t ino, char *buf, size_t size)
{
    return path_of(volume, NULL, ino, buf, size);
}

/* The inode whose contents have this id. */
static int find_content(struct volume *volume, const struct pathmap *map, uint64_t content,
                        uint64_t *ino)
{
    if (map)
        return pathmap_content(map, content, ino);
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_kind_prefix(&prefix, KEYS_INODE);
    int more = keg_iter_open(volume->keg, keys_bytes(&prefix), &iter);
    if (more)
        return more;
    while ((more = keg_iter_next(iter, &entry)) > 0) {
        struct inode inode;
        struct keys_parsed parsed;
        if (keys_inode_decode(entry.meta, &inode) == 0 && inode.content == content &&
            keys_parse(entry.key, &parsed) == 0) {
            *ino = parsed.id;
            break;
        }
    }
    keg_iter_close(iter);
    return more > 0 ? 0 : more < 0 ? more : -ENOENT;
}

static void name_key(const struct keys_parsed *parsed, char *buf, size_t size)
{
    unsigned long long id = parsed->id;
    switch (parsed->kind) {
    case KEYS_SUPER:
        snprintf(buf, size, "superblock");
        break;
    case KEYS_NAME:
        snprintf(buf, size, "a name in directory %llu", id);
        break;
    case KEYS_EXTENT:
        snprintf(buf, size, "contents %llu at %llu", id, (unsigned long long)parsed->offset);
        break;
    case KEYS_XATTR:
        snprintf(buf, size, "an attribute of inode %llu", id);
        break;
    case KEYS_ORPHAN:
        snprintf(buf, size, "orphan %c %llu", parsed->orphan, id);
        break;
    case KEYS_INODE:
        snprintf(buf, size, "inode %llu", id);
        break;
    }
}

int volume_describe(struct volume *volume, const struct pathmap *map, struct keg_bytes key,
                    char *buf, size_t size)
{
    struct keys_parsed parsed;
    int error = -ENOENT;
    if (size < 2)
        return -ENAMETOOLONG;
    if (keys_parse(key, &parsed) != 0) {
        snprintf(buf, size, "unknown key");
        return -ENOENT;
    }
    uint64_t ino = parsed.id;
    if (parsed.kind == KEYS_NAME)
        error = path_of_name(volume, map, &parsed, buf, size);
    else if (parsed.kind == KEYS_EXTENT)
        error = find_content(volume, map, parsed.id, &ino);
    else if (parsed.kind == KEYS_INODE || parsed.kind == KEYS_XATTR)
        error = 0;
    if (!error && parsed.kind != KEYS_NAME)
        error = path_of(volume, map, ino, buf, size);
    if (error)
        name_key(&parsed, buf, size);
    return error;
}
