/* SPDX-License-Identifier: MIT */
/*
 * Makes a sound tree of the keys that a repaired store has.
 *
 * When records are lost, what is left are keys of different moments: names without inodes, inodes
 * without names, counts that are too high. Keys say what is; counts, sizes and orphan keys follow
 * them. So everything is summed up beside the inodes in memory (as treecheck.c does), and what
 * differs is written. Nothing that has contents is dropped: what no name leads to goes to
 * lost+found. A name whose inode is gone is removed; one that leads to a directory, or a directory
 * that names are in, gets a new inode, and what is below it keeps its path.
 *
 * It works on the store's keys, before a volume is opened: opening one reclaims what orphan keys
 * list, and among these can be old ones, of what is in use again. Changes are committed in any
 * order and can be cut off: what is not yet right is found the next time.
 */
#include "treerepair.h"
#include "volume_internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_TRIED = 1000 };

static unsigned long long n(uint64_t v)
{
    return v;
}

/* ---- Directories that are not there ---- */

struct wanted {
    uint64_t *ids;
    size_t count, capacity;
};

static int want(struct treerepair *r, struct wanted *wanted, uint64_t ino)
{
    if (treerepair_find(r, ino) || !treerepair_id_ok(ino))
        return 0;
    uint64_t *grown =
        idlist_grow(wanted->ids, wanted->count, &wanted->capacity, sizeof *wanted->ids);
    if (!grown)
        return -ENOMEM;
    wanted->ids = grown;
    if (!wanted->count || wanted->ids[wanted->count - 1] != ino)
        wanted->ids[wanted->count++] = ino;
    return 0;
}

static int see_directories(struct treerepair *r, const struct keys_parsed *key,
                           const struct keg_entry *entry, void *arg)
{
    uint64_t ino;
    uint32_t type;
    int error = keys_name_decode(entry->meta, &ino, &type);
    if (error)
        return error == -EPROTO ? error : 0; /* removed later */
    error = want(r, arg, key->id);
    return !error && S_ISDIR(type) ? want(r, arg, ino) : error;
}

static int make_directories(struct treerepair *r)
{
    struct wanted wanted = {0};
    int error = want(r, &wanted, VOLUME_ROOT);
    if (!error)
        error = treerepair_pass(r, KEYS_NAME, see_directories, &wanted);
    idlist_sort(wanted.ids, wanted.count, sizeof *wanted.ids);
    for (size_t i = 0; i < wanted.count && !error; i++) {
        uint64_t ino = wanted.ids[i];
        if (i && wanted.ids[i - 1] == ino)
            continue;
        treerepair_tell(r, ino, "directory %llu: its inode is lost: made anew, mode 700", n(ino));
        error = treerepair_add(
            r, &(struct treerepair_node){.ino = ino,
                                         .mode = S_IFDIR | (ino == VOLUME_ROOT ? 0755 : 0700),
                                         .created = true,
                                         .changed = true});
    }
    free(wanted.ids);
    treerepair_sort(r);
    return error;
}

static int see_parents(struct treerepair *r, const struct keys_parsed *key,
                       const struct keg_entry *entry, void *arg)
{
    uint64_t ino;
    uint32_t type;
    (void)arg;
    if (keys_name_decode(entry->meta, &ino, &type) != 0)
        return 0;
    struct treerepair_node *node = treerepair_find(r, ino);
    if (node && S_ISDIR(node->mode) && node->parent == key->id)
        node->parent_named = true;
    return 0;
}

/* ---- Names ---- */

static int drop_name(struct treerepair *r, const struct keys_parsed *key,
                     const struct keg_entry *entry, const char *why)
{
    treerepair_tell(r, key->id, "the name '%.*s' is removed: %s", (int)key->name.len,
                    (const char *)key->name.data, why);
    return treerepair_delete(r, entry->key);
}

/* Why the name cannot stay; NULL: it can. */
static const char *judge_name(const struct treerepair_node *dir, const struct treerepair_node *node)
{
    if (!dir || !S_ISDIR(dir->mode))
        return "it is in no directory";
    if (!node)
        return "its inode is lost";
    if (!S_ISDIR(node->mode))
        return NULL;
    if (node->ino == VOLUME_ROOT)
        return "it leads to the root";
    if (node->named || (node->parent_named && node->parent != dir->ino))
        return "the directory has another one";
    return NULL;
}

/* Moves a name to where its hash says. Each by itself, so that a second one of the same name finds
 * the first; the pass may meet it again, and then it is right. */
static int see_place(struct treerepair *r, const struct keys_parsed *key,
                     const struct keg_entry *entry, void *arg)
{
    struct keys_key right;
    struct keg_info info;
    (void)arg;
    keys_name(&right, key->id, keys_hash(r->secret, key->name), key->name);
    if (right.len == entry->key.len && memcmp(right.bytes, entry->key.data, right.len) == 0)
        return 0;
    int error = keg_get(r->keg, keys_bytes(&right), &info);
    if (error == 0)
        return drop_name(r, key, entry, "it is there twice");
    error = treerepair_put(r, keys_bytes(&right), entry->meta, (struct keg_bytes){0});
    if (!error)
        error = treerepair_delete(r, entry->key);
    return error ? error : treerepair_commit(r);
}

/* A name says the type of its inode. */
static int write_type(struct treerepair *r, const struct keg_entry *entry,
                      const struct treerepair_node *node, uint32_t type)
{
    uint8_t meta[KEYS_NAME_META_MAX];
    if (type == (node->mode & S_IFMT))
        return 0;
    size_t len = keys_name_encode(meta, node->ino, node->mode & S_IFMT);
    return treerepair_put(r, entry->key, (struct keg_bytes){meta, len}, (struct keg_bytes){0});
}

static int see_name(struct treerepair *r, const struct keys_parsed *key,
                    const struct keg_entry *entry, void *arg)
{
    uint64_t ino;
    uint32_t type;
    (void)arg;
    int error = 0;
    if (!volume_names_ok(key->name, &error) || keys_name_decode(entry->meta, &ino, &type) != 0)
        return drop_name(r, key, entry, "its record makes no sense");
    struct treerepair_node *dir = treerepair_find(r, key->id), *node = treerepair_find(r, ino);
    const char *why = judge_name(dir, node);
    if (why)
        return drop_name(r, key, entry, why);
    node->names++;
    dir->entries++;
    if (S_ISDIR(node->mode)) {
        node->named = true;
        dir->subdirs++;
        node->changed = node->changed || node->parent != key->id;
        node->parent = key->id;
    }
    return write_type(r, entry, node, type);
}

/* ---- lost+found ---- */

/* Puts a name for node into dir that is free, if need be with a number. */
static int put_name(struct treerepair *r, uint64_t dir, const char *name, uint64_t ino, char *out,
                    size_t size)
{
    const struct treerepair_node *node = treerepair_find(r, ino);
    uint8_t meta[KEYS_NAME_META_MAX];
    struct keys_key key;
    struct keg_info info;
    for (int i = 1; i < NAMES_TRIED; i++) {
        (void)snprintf(out, size, i > 1 ? "%s-%d" : "%s", name, i);
        struct keg_bytes bytes = {out, strlen(out)};
        keys_name(&key, dir, keys_hash(r->secret, bytes), bytes);
        if (keg_get(r->keg, keys_bytes(&key), &info) == 0)
            continue;
        size_t len = keys_name_encode(meta, ino, node->mode & S_IFMT);
        return treerepair_put(r, keys_bytes(&key), (struct keg_bytes){meta, len},
                              (struct keg_bytes){0});
    }
    return -EEXIST;
}

static void enter(struct treerepair *r, uint64_t dir_ino, uint64_t ino)
{
    struct treerepair_node *dir = treerepair_find(r, dir_ino), *node = treerepair_find(r, ino);
    dir->entries++;
    node->names++;
    node->changed = dir->changed = true;
    if (S_ISDIR(node->mode)) {
        node->parent = dir_ino;
        node->named = true;
        dir->subdirs++;
    }
}

/* The one that is there, or a new one. */
static int find_lost_found(struct treerepair *r)
{
    static const char name[] = "lost+found";
    struct keg_bytes bytes = {name, sizeof name - 1};
    struct keys_key key;
    struct keg_info info;
    uint64_t ino;
    uint32_t type;
    char text[64];
    if (r->lost_found)
        return 0;
    keys_name(&key, VOLUME_ROOT, keys_hash(r->secret, bytes), bytes);
    if (keg_get(r->keg, keys_bytes(&key), &info) == 0 &&
        keys_name_decode((struct keg_bytes){info.meta, info.meta_len}, &ino, &type) == 0) {
        const struct treerepair_node *node = treerepair_find(r, ino);
        if (node && S_ISDIR(node->mode) && node->parent == VOLUME_ROOT) {
            r->lost_found = ino;
            return 0;
        }
    }
    ino = treerepair_new_id(r);
    int error = treerepair_add(
        r, &(struct treerepair_node){.ino = ino, .mode = S_IFDIR | 0700, .created = true});
    if (!error)
        error = put_name(r, VOLUME_ROOT, name, ino, text, sizeof text);
    if (error)
        return error;
    r->lost_found = ino;
    enter(r, VOLUME_ROOT, ino);
    return 0;
}

int treerepair_attach(struct treerepair *r, uint64_t ino, const char *what)
{
    char name[64], text[80];
    int error = find_lost_found(r);
    if (error)
        return error;
    (void)snprintf(name, sizeof name, "%s-%llu", what, n(ino));
    error = put_name(r, r->lost_found, name, ino, text, sizeof text);
    if (error)
        return error;
    enter(r, r->lost_found, ino);
    treerepair_tell(r, ino, "no name led to it: it is %s in lost+found now", text);
    return 0;
}

/* ---- What no name leads to ---- */

/* The name of a directory in its parent goes. */
static int unname(struct treerepair *r, struct treerepair_node *node)
{
    struct treerepair_node *parent = treerepair_find(r, node->parent);
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_prefix(&prefix, KEYS_NAME, node->parent);
    int error = keg_iter_open(r->keg, keys_bytes(&prefix), &iter), more = 0;
    while (!error && (more = keg_iter_next(iter, &entry)) > 0) {
        uint64_t ino;
        uint32_t type;
        if (keys_name_decode(entry.meta, &ino, &type) == 0 && ino == node->ino) {
            error = treerepair_delete(r, entry.key);
            break;
        }
    }
    if (!error)
        keg_iter_close(iter);
    if (parent) {
        parent->entries--;
        parent->subdirs--;
        parent->changed = true;
    }
    node->names = 0;
    return error ? error : more < 0 ? more : 0;
}

/* Where the way up from a directory ends: the root or 0, or for a circle one that is in it. */
static uint64_t way_up(struct treerepair *r, struct treerepair_node *start)
{
    struct treerepair_node *node = start;
    for (size_t steps = 0; node && !node->leads_up && node->ino != VOLUME_ROOT; steps++) {
        if (steps > r->node_count)
            return node->ino;
        node = treerepair_find(r, node->parent);
    }
    if (!node)
        return 0;
    for (; start != node; start = treerepair_find(r, start->parent))
        start->leads_up = true;
    return VOLUME_ROOT;
}

static bool is_removed(const struct treerepair_node *node)
{
    return node->names == 0 && node->ino != VOLUME_ROOT && node->entries == 0 && !node->created &&
           (node->orphan || node->nlink == 0);
}

/* Names are committed by now; numbers stand for nodes, which move when one is added. */
static int place_nodes(struct treerepair *r)
{
    int error = 0;
    for (size_t i = 0; i < r->node_count && !error; i++) {
        struct treerepair_node *node = &r->nodes[i];
        if (node->ino == VOLUME_ROOT || node->names || is_removed(node) ||
            node->ino == r->lost_found)
            continue;
        error = treerepair_attach(r, node->ino, S_ISDIR(node->mode) ? "directory" : "inode");
    }
    for (size_t i = 0; i < r->node_count && !error; i++) {
        if (!S_ISDIR(r->nodes[i].mode) || is_removed(&r->nodes[i]))
            continue;
        uint64_t end = way_up(r, &r->nodes[i]);
        if (end == VOLUME_ROOT || end == 0)
            continue;
        error = unname(r, treerepair_find(r, end));
        if (!error)
            error = treerepair_attach(r, end, "directory");
    }
    return error;
}

/* ---- Counts ---- */

static int set_orphan(struct treerepair *r, enum keys_orphan kind, uint64_t id, bool wanted)
{
    struct keys_key key;
    bool has = treerepair_is_orphan(r, kind, id);
    keys_orphan(&key, kind, id);
    if (has == wanted)
        return 0;
    return wanted
               ? treerepair_put(r, keys_bytes(&key), (struct keg_bytes){0}, (struct keg_bytes){0})
               : treerepair_delete(r, keys_bytes(&key));
}

static int settle(struct treerepair *r, struct treerepair_node *node)
{
    bool dir = S_ISDIR(node->mode), removed = is_removed(node);
    uint32_t nlink = removed ? 0 : dir ? node->subdirs + 2 : node->names;
    if (node->ino == VOLUME_ROOT && node->parent != VOLUME_ROOT) {
        node->parent = VOLUME_ROOT;
        node->changed = true;
    }
    if (dir && node->size != node->entries * DIRENT_SIZE) {
        node->size = node->entries * DIRENT_SIZE;
        node->changed = true;
    }
    if (nlink != node->nlink) {
        if (!node->created && !node->changed)
            treerepair_tell(r, removed ? 0 : node->ino, "link count of inode %llu: %u, was %u",
                            n(node->ino), nlink, node->nlink);
        node->nlink = nlink;
        node->changed = true;
    }
    int error = set_orphan(r, KEYS_ORPHAN_INODE, node->ino, removed);
    if (!error && node->content)
        error = set_orphan(r, KEYS_ORPHAN_CONTENT, node->content, false);
    if (!error && node->flags & INODE_TAIL)
        error = set_orphan(r, KEYS_ORPHAN_TAIL, node->ino, true);
    return error;
}

static int repair_tree(struct treerepair *r)
{
    int error = treerepair_load(r);
    if (!error)
        error = treerepair_pass(r, KEYS_NAME, see_place, NULL);
    if (!error)
        error = treerepair_commit(r);
    if (!error)
        error = make_directories(r);
    if (!error)
        error = treerepair_pass(r, KEYS_NAME, see_parents, NULL);
    if (!error)
        error = treerepair_pass(r, KEYS_NAME, see_name, NULL);
    if (!error)
        error = treerepair_commit(r);
    if (!error)
        error = place_nodes(r);
    if (!error)
        error = treerepair_contents(r);
    for (size_t i = 0; i < r->node_count && !error; i++)
        error = settle(r, &r->nodes[i]);
    return error ? error : treerepair_store(r);
}

ssize_t volume_repair(struct keg *keg, volume_repair_fn *told, void *arg)
{
    struct treerepair r = {.keg = keg, .told = told, .arg = arg};
    struct keg_stats stats;
    keg_stats(keg, &stats);
    if (stats.keys == 0)
        return 0; /* no volume */
    clock_gettime(CLOCK_REALTIME, &r.now);
    int error = repair_tree(&r);
    treerepair_free(&r);
    return error ? error : r.count;
}
