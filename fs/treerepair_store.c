/* SPDX-License-Identifier: MIT */
#include "treerepair.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { COMMIT_OPS = 4096, COMMIT_BYTES = 8 << 20 };

static unsigned long long n(uint64_t v)
{
    return v;
}

void treerepair_tell(struct treerepair *r, uint64_t ino, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->count++;
    if (r->told)
        r->told(r->arg, ino, text);
}

/* ---- Nodes ---- */

struct treerepair_node *treerepair_find(const struct treerepair *r, uint64_t ino)
{
    return idlist_find(r->nodes, r->node_count, sizeof *r->nodes, ino);
}

int treerepair_add(struct treerepair *r, const struct treerepair_node *node)
{
    struct treerepair_node *grown =
        idlist_grow(r->nodes, r->node_count, &r->node_capacity, sizeof *r->nodes);
    if (!grown)
        return -ENOMEM;
    r->nodes = grown;
    r->nodes[r->node_count++] = *node;
    if (node->ino > r->max_id)
        r->max_id = node->ino;
    return 0;
}

bool treerepair_id_ok(uint64_t id)
{
    return id > 0 && id < INT64_MAX;
}

uint64_t treerepair_new_id(struct treerepair *r)
{
    uint64_t id = r->next_id > r->max_id ? r->next_id : r->max_id + 1;
    r->next_id = id + 1;
    r->super_changed = true;
    return id;
}

void treerepair_sort(struct treerepair *r)
{
    idlist_sort(r->nodes, r->node_count, sizeof *r->nodes);
}

static int compare_orphans(const void *a, const void *b)
{
    const struct treerepair_orphan *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

bool treerepair_is_orphan(const struct treerepair *r, enum keys_orphan kind, uint64_t id)
{
    struct treerepair_orphan key = {id, kind};
    return r->orphan_count &&
           bsearch(&key, r->orphans, r->orphan_count, sizeof *r->orphans, compare_orphans);
}

/* ---- Changes ---- */

static int keep(struct treerepair *r, struct keg_bytes *bytes)
{
    if (!bytes->len)
        return 0;
    void **grown = idlist_grow(r->memory, r->memory_count, &r->memory_capacity, sizeof *r->memory);
    if (!grown)
        return -ENOMEM;
    r->memory = grown;
    void *copy = malloc(bytes->len);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, bytes->data, bytes->len);
    bytes->data = copy;
    r->memory[r->memory_count++] = copy;
    return 0;
}

int treerepair_put(struct treerepair *r, struct keg_bytes key, struct keg_bytes meta,
                   struct keg_bytes value)
{
    int error = keep(r, &key);
    if (!error)
        error = keep(r, &meta);
    if (!error)
        error = keep(r, &value);
    return error ? error : keg_batch_put(&r->batch, key, meta, value);
}

int treerepair_delete(struct treerepair *r, struct keg_bytes key)
{
    int error = keep(r, &key);
    return error ? error : keg_batch_delete(&r->batch, key);
}

/* Each change is right by itself, so frames may fall anywhere: a repair that is cut off is done
 * again. */
int treerepair_commit(struct treerepair *r)
{
    int error = 0;
    for (size_t at = 0; at < r->batch.count && !error;) {
        struct keg_batch part = {.ops = r->batch.ops + at};
        size_t bytes = 0;
        while (at + part.count < r->batch.count && part.count < COMMIT_OPS && bytes < COMMIT_BYTES)
            bytes += part.ops[part.count++].value.len;
        error = keg_commit(r->keg, &part, KEG_FREEING);
        at += part.count;
    }
    for (size_t i = 0; i < r->memory_count; i++)
        free(r->memory[i]);
    r->memory_count = 0;
    keg_batch_clear(&r->batch);
    return error;
}

/* ---- Passes ---- */

int treerepair_pass(struct treerepair *r, enum keys_kind kind, treerepair_see_fn *see, void *arg)
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_kind_prefix(&prefix, kind);
    int error = keg_iter_open(r->keg, keys_bytes(&prefix), &iter);
    if (error)
        return error;
    int more;
    while (!error && (more = keg_iter_next(iter, &entry)) != 0) {
        struct keys_parsed key;
        if (more < 0) {
            error = more;
        } else if (keys_parse(entry.key, &key) != 0) {
            treerepair_tell(r, 0, "a key of kind '%c' makes no sense: removed", (char)kind);
            error = treerepair_delete(r, entry.key);
        } else {
            error = see(r, &key, &entry, arg);
        }
    }
    keg_iter_close(iter);
    return error;
}

/* ---- Loading ---- */

static int load_super(struct treerepair *r)
{
    struct keys_key key;
    struct keg_info info;
    struct keys_superblock super;
    keys_super(&key);
    int error = keg_get(r->keg, keys_bytes(&key), &info);
    if (!error)
        error = keys_super_decode((struct keg_bytes){info.meta, info.meta_len}, &super);
    if (!error && treerepair_id_ok(super.next_id)) {
        r->next_id = super.next_id;
        memcpy(r->secret, super.secret, sizeof r->secret);
        return 0;
    }
    if (error && error != -ENOENT && error != -EBADMSG)
        return error;
    treerepair_tell(r, 0, "the superblock is lost: made anew, and with it the order of names");
    r->super_changed = true;
    return getrandom(r->secret, sizeof r->secret, 0) == sizeof r->secret ? 0 : -EIO;
}

static int see_inode(struct treerepair *r, const struct keys_parsed *key,
                     const struct keg_entry *entry, void *arg)
{
    struct inode inode;
    int error = keys_inode_decode(entry->meta, &inode);
    (void)arg;
    if (error == -EPROTO)
        return error;
    if (error || !treerepair_id_ok(key->id) ||
        (inode.content && !treerepair_id_ok(inode.content)) ||
        (key->id == VOLUME_ROOT && !S_ISDIR(inode.mode))) {
        treerepair_tell(r, 0, "inode %llu: its record makes no sense: removed", n(key->id));
        return treerepair_delete(r, entry->key);
    }
    if (S_ISLNK(inode.mode) && (entry->offset == 0 || entry->value_len != inode.size)) {
        treerepair_tell(r, 0, "inode %llu: the text of the symbolic link is lost: removed",
                        n(key->id));
        return treerepair_delete(r, entry->key);
    }
    if (inode.content > r->max_id)
        r->max_id = inode.content;
    return treerepair_add(r, &(struct treerepair_node){.ino = key->id,
                                                       .content = inode.content,
                                                       .size = inode.size,
                                                       .bytes = inode.bytes,
                                                       .parent = inode.parent,
                                                       .mode = inode.mode,
                                                       .nlink = inode.nlink,
                                                       .flags = inode.flags});
}

static int see_orphan(struct treerepair *r, const struct keys_parsed *key,
                      const struct keg_entry *entry, void *arg)
{
    (void)arg;
    if (!treerepair_id_ok(key->id))
        return treerepair_delete(r, entry->key);
    struct treerepair_orphan *grown =
        idlist_grow(r->orphans, r->orphan_count, &r->orphan_capacity, sizeof *r->orphans);
    if (!grown)
        return -ENOMEM;
    r->orphans = grown;
    r->orphans[r->orphan_count++] = (struct treerepair_orphan){key->id, key->orphan};
    struct treerepair_node *node = treerepair_find(r, key->id);
    if (node && key->orphan == KEYS_ORPHAN_INODE)
        node->orphan = true;
    if (node && key->orphan == KEYS_ORPHAN_TAIL)
        node->tail = true;
    if (key->id > r->max_id)
        r->max_id = key->id;
    return 0;
}

int treerepair_load(struct treerepair *r)
{
    int error = load_super(r);
    if (!error)
        error = treerepair_pass(r, KEYS_INODE, see_inode, NULL);
    if (!error)
        error = treerepair_pass(r, KEYS_ORPHAN, see_orphan, NULL);
    if (r->orphan_count)
        qsort(r->orphans, r->orphan_count, sizeof *r->orphans, compare_orphans);
    return error;
}

/* ---- Storing ---- */

static int load_record(struct treerepair *r, const struct treerepair_node *node,
                       const struct keys_key *key, struct inode *inode)
{
    struct keg_info info;
    if (node->created) {
        *inode = (struct inode){.mode = node->mode};
        inode->atime = inode->mtime = inode->ctime = inode->btime = r->now;
        return 0;
    }
    int error = keg_get(r->keg, keys_bytes(key), &info);
    return error ? error : keys_inode_decode((struct keg_bytes){info.meta, info.meta_len}, inode);
}

static int store_node(struct treerepair *r, const struct treerepair_node *node)
{
    uint8_t meta[KEYS_INODE_META_MAX];
    char text[VOLUME_SYMLINK_MAX + 1];
    struct keg_bytes target = {0};
    struct keys_key key;
    struct inode inode;
    keys_inode(&key, node->ino);
    int error = load_record(r, node, &key, &inode);
    if (!error && S_ISLNK(inode.mode)) {
        ssize_t len = keg_read(r->keg, keys_bytes(&key), 0, text, sizeof text);
        error = len < 0 ? (int)len : 0;
        target = (struct keg_bytes){text, len > 0 ? (size_t)len : 0};
    }
    if (error)
        return error;
    inode.mode = node->mode;
    inode.content = node->content;
    inode.size = node->size;
    inode.bytes = node->bytes;
    inode.parent = node->parent;
    inode.nlink = node->nlink;
    inode.flags = node->flags;
    size_t len = keys_inode_encode(meta, &inode);
    return treerepair_put(r, keys_bytes(&key), (struct keg_bytes){meta, len}, target);
}

int treerepair_store(struct treerepair *r)
{
    struct keys_key key;
    uint8_t meta[KEYS_SUPER_META_SIZE];
    struct keys_superblock super = {.next_id = r->next_id};
    int error = 0;
    if (r->next_id <= r->max_id) {
        if (r->next_id)
            treerepair_tell(r, 0, "ids up to %llu are in use, and %llu was to be the next",
                            n(r->max_id), n(r->next_id));
        super.next_id = r->max_id + 1;
        r->super_changed = true;
    }
    if (r->super_changed) {
        memcpy(super.secret, r->secret, sizeof super.secret);
        keys_super(&key);
        keys_super_encode(meta, &super);
        error = treerepair_put(r, keys_bytes(&key), (struct keg_bytes){meta, sizeof meta},
                               (struct keg_bytes){0});
    }
    for (size_t i = 0; i < r->node_count && !error; i++) {
        if (r->nodes[i].changed)
            error = store_node(r, &r->nodes[i]);
    }
    return error ? error : treerepair_commit(r);
}

void treerepair_free(struct treerepair *r)
{
    for (size_t i = 0; i < r->memory_count; i++)
        free(r->memory[i]);
    free(r->memory);
    free(r->nodes);
    free(r->orphans);
    keg_batch_free(&r->batch);
}
