/* SPDX-License-Identifier: MIT */
/*
 * Extents and attributes of a tree under repair. An extent whose value is lost is a key like any
 * other: reading it fails. Where an extent's key is lost, too, its place would read as a hole; the
 * inode's count of bytes tells that something is missing, and then every hole of the file fails to
 * be read (INODE_HOLES), until it is truncated to zero or replaced. Data behind the size is kept:
 * the inode is older than it.
 */
#include "treerepair.h"
#include "volume_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct owner {
    uint64_t content, ino;
};

/* Contents that belong to no inode. */
struct stray {
    uint64_t content, end, bytes;
};

struct contents {
    struct owner *owners; /* in order of contents */
    size_t owner_count;
    struct stray *strays;
    size_t stray_count, stray_capacity;
    /* The extent before the one at hand, of the same contents and not removed. */
    uint64_t content, from, end, sequence;
};

static unsigned long long n(uint64_t v)
{
    return v;
}

static int compare_owners(const void *a, const void *b)
{
    const struct owner *x = a, *y = b;
    if (x->content != y->content)
        return x->content < y->content ? -1 : 1;
    return (x->ino > y->ino) - (x->ino < y->ino);
}

static struct treerepair_node *find_owner(struct treerepair *r, const struct contents *c,
                                          uint64_t content)
{
    const struct owner *found = idlist_find(c->owners, c->owner_count, sizeof *c->owners, content);
    return found ? treerepair_find(r, found->ino) : NULL;
}

/* Each content id has one owner. */
static int list_owners(struct treerepair *r, struct contents *c)
{
    size_t kept = 0;
    c->owners = malloc((r->node_count + 1) * sizeof *c->owners);
    if (!c->owners)
        return -ENOMEM;
    for (size_t i = 0; i < r->node_count; i++) {
        struct treerepair_node *node = &r->nodes[i];
        if (!S_ISREG(node->mode) && (node->content || node->flags & INODE_CONTENTS)) {
            node->content = 0; /* no file: what it has of contents is somebody's */
            node->flags &= ~(uint32_t)INODE_CONTENTS;
            node->changed = true;
        }
        if (node->content)
            c->owners[c->owner_count++] = (struct owner){node->content, node->ino};
    }
    if (c->owner_count)
        qsort(c->owners, c->owner_count, sizeof *c->owners, compare_owners);
    for (size_t i = 0; i < c->owner_count; i++) {
        if (kept == 0 || c->owners[i].content != c->owners[kept - 1].content) {
            c->owners[kept++] = c->owners[i];
            continue;
        }
        struct treerepair_node *node = treerepair_find(r, c->owners[i].ino);
        treerepair_tell(r, node->ino, "inode %llu: its contents are those of inode %llu: lost",
                        n(node->ino), n(c->owners[kept - 1].ino));
        node->content = 0;
        node->flags = (node->flags & ~(uint32_t)INODE_TAIL) | INODE_HOLES;
        node->changed = true;
    }
    c->owner_count = kept;
    return 0;
}

/* ---- Extents ---- */

static int count_stray(struct contents *c, uint64_t content, uint64_t end, uint64_t bytes)
{
    struct stray *last = c->stray_count ? &c->strays[c->stray_count - 1] : NULL;
    if (!last || last->content != content) {
        struct stray *grown =
            idlist_grow(c->strays, c->stray_count, &c->stray_capacity, sizeof *c->strays);
        if (!grown)
            return -ENOMEM;
        c->strays = grown;
        last = &c->strays[c->stray_count++];
        *last = (struct stray){.content = content};
    }
    last->bytes += bytes;
    if (end > last->end)
        last->end = end;
    return 0;
}

/* Adds an extent to what is known of its contents, or takes it away again. */
static int count_extent(struct treerepair *r, struct contents *c, uint64_t content, uint64_t from,
                        uint64_t end, bool away)
{
    struct treerepair_node *node = find_owner(r, c, content);
    uint64_t bytes = away ? 0 - (end - from) : end - from;
    if (!node)
        return treerepair_is_orphan(r, KEYS_ORPHAN_CONTENT, content)
                   ? 0
                   : count_stray(c, content, away ? 0 : end, bytes);
    node->extent_bytes += bytes;
    if (!away && end > node->extent_end)
        node->extent_end = end;
    if (away) {
        node->flags |= INODE_HOLES;
        node->changed = true;
    }
    return 0;
}

static int drop_extent(struct treerepair *r, struct contents *c, uint64_t content, uint64_t from,
                       uint64_t end, const char *why)
{
    const struct treerepair_node *node = find_owner(r, c, content);
    struct keys_key key;
    treerepair_tell(r, node ? node->ino : 0, "contents %llu: bytes %llu to %llu are lost: %s",
                    n(content), n(from), n(end), why);
    keys_extent(&key, content, from);
    return treerepair_delete(r, keys_bytes(&key));
}

static int see_extent(struct treerepair *r, const struct keys_parsed *key,
                      const struct keg_entry *entry, void *arg)
{
    struct contents *c = arg;
    uint64_t from = key->offset, end = from + entry->value_len;
    int error = 0;
    if (key->id > r->max_id && treerepair_id_ok(key->id))
        r->max_id = key->id;
    if (!treerepair_id_ok(key->id) || entry->value_len == 0 ||
        from % KEYS_WINDOW + entry->value_len > KEYS_WINDOW || from > INT64_MAX - KEYS_WINDOW)
        return drop_extent(r, c, key->id, from, end, "no extent can be so");
    if (c->content == key->id && from < c->end) {
        bool older = entry->sequence < c->sequence;
        error = older ? drop_extent(r, c, key->id, from, end, "newer ones overlap them")
                      : drop_extent(r, c, key->id, c->from, c->end, "newer ones overlap them");
        if (!error)
            error = count_extent(r, c, key->id, from, end, false);
        if (!error)
            error = older ? count_extent(r, c, key->id, from, end, true)
                          : count_extent(r, c, key->id, c->from, c->end, true);
        if (older)
            return error;
    } else {
        error = count_extent(r, c, key->id, from, end, false);
    }
    c->content = key->id;
    c->from = from;
    c->end = end;
    c->sequence = entry->sequence;
    return error;
}

/* ---- What follows from them ---- */

static void settle(struct treerepair *r, struct treerepair_node *node)
{
    if (S_ISREG(node->mode) && node->extent_end > node->size && !(node->flags & INODE_TAIL)) {
        treerepair_tell(r, node->ino, "its size was %llu bytes; there are contents up to %llu",
                        n(node->size), n(node->extent_end));
        node->size = node->extent_end;
        node->changed = true;
    }
    if (node->bytes == node->extent_bytes)
        return;
    if (S_ISREG(node->mode) && node->bytes > node->extent_bytes &&
        node->size > node->extent_bytes) {
        treerepair_tell(r, node->ino,
                        "%llu bytes of its contents are lost: where it has no data, reading it "
                        "fails until it is replaced or truncated to zero",
                        n(node->bytes - node->extent_bytes));
        node->flags |= INODE_HOLES;
    }
    node->bytes = node->extent_bytes;
    node->changed = true;
}

static int adopt(struct treerepair *r, const struct stray *stray)
{
    if (stray->bytes == 0)
        return 0;
    uint64_t ino = treerepair_new_id(r);
    int error = treerepair_add(r, &(struct treerepair_node){.ino = ino,
                                                            .content = stray->content,
                                                            .size = stray->end,
                                                            .bytes = stray->bytes,
                                                            .extent_bytes = stray->bytes,
                                                            .extent_end = stray->end,
                                                            .mode = S_IFREG | 0600,
                                                            .flags = INODE_HOLES,
                                                            .created = true});
    return error ? error : treerepair_attach(r, ino, "contents");
}

/* ---- Attributes ---- */

/* Nobody gets a right that an ACL which is gone might have refused: what the mode has for the group
 * was the most that it allowed. */
static void shut_group(struct treerepair *r, struct treerepair_node *node)
{
    treerepair_tell(r, node->ino, "its access ACL is lost: the group has no rights any more");
    node->mode &= ~(uint32_t)S_IRWXG;
    node->changed = true;
}

static int drop_acl(struct treerepair *r, struct treerepair_node *node, enum acl_kind kind,
                    const struct keg_entry *entry)
{
    treerepair_tell(r, node->ino, "an ACL that makes no sense is removed");
    if (kind == ACL_ACCESS && !S_ISLNK(node->mode))
        shut_group(r, node);
    return treerepair_delete(r, entry->key);
}

/* The mode counts: an ACL that says something else is older, or the other way round. */
static int fit_acl(struct treerepair *r, struct treerepair_node *node,
                   const struct keg_entry *entry, uint8_t *bytes, size_t len)
{
    struct keg_bytes acl = {bytes, len};
    uint32_t mode = node->mode;
    bool plain = acl_to_mode(acl, &mode);
    if (!plain && mode == node->mode) {
        node->acls |= INODE_ACCESS_ACL;
        return 0;
    }
    treerepair_tell(r, node->ino, "its ACL is set to what its mode says");
    if (plain)
        return treerepair_delete(r, entry->key);
    node->acls |= INODE_ACCESS_ACL;
    acl_chmod(bytes, len, node->mode);
    return treerepair_put(r, entry->key, entry->meta, acl);
}

static int see_acl(struct treerepair *r, struct treerepair_node *node, enum acl_kind kind,
                   const struct keg_entry *entry)
{
    uint8_t *bytes = malloc((size_t)entry->value_len + 1);
    if (!bytes)
        return -ENOMEM;
    ssize_t len = keg_read(r->keg, entry->key, 0, bytes, entry->value_len);
    struct keg_bytes acl = {bytes, len > 0 ? (size_t)len : 0};
    int error = 0;
    if (S_ISLNK(node->mode) || (kind == ACL_DEFAULT && !S_ISDIR(node->mode)) ||
        (len >= 0 && acl_check(acl)))
        error = drop_acl(r, node, kind, entry);
    else if (len < 0 || kind == ACL_DEFAULT)
        node->acls |= rights_flag(kind); /* one that is lost goes on refusing all */
    else
        error = fit_acl(r, node, entry, bytes, acl.len);
    free(bytes);
    return error;
}

static int see_xattr(struct treerepair *r, const struct keys_parsed *key,
                     const struct keg_entry *entry, void *arg)
{
    struct treerepair_node *node = treerepair_find(r, key->id);
    enum acl_kind kind = acl_kind_of(key->name);
    (void)arg;
    if (!node) {
        treerepair_tell(r, 0, "attribute %.*s of inode %llu, which is lost: removed",
                        (int)key->name.len, (const char *)key->name.data, n(key->id));
        return treerepair_delete(r, entry->key);
    }
    if (!(node->flags & INODE_HAS_XATTRS)) {
        node->flags |= INODE_HAS_XATTRS;
        node->changed = true;
    }
    return kind ? see_acl(r, node, kind, entry) : 0;
}

/* The flags say which ACLs there are. */
static void settle_acls(struct treerepair *r, struct treerepair_node *node)
{
    const uint32_t both = INODE_ACCESS_ACL | INODE_DEFAULT_ACL;
    uint32_t gone = node->flags & both & ~node->acls;
    if ((node->flags & both) == node->acls)
        return;
    if (gone & INODE_ACCESS_ACL)
        shut_group(r, node);
    if (gone & INODE_DEFAULT_ACL)
        treerepair_tell(r, node->ino, "its default ACL is lost");
    node->flags = (node->flags & ~both) | node->acls;
    node->changed = true;
}

int treerepair_contents(struct treerepair *r)
{
    struct contents c = {0};
    int error = list_owners(r, &c);
    if (!error)
        error = treerepair_pass(r, KEYS_EXTENT, see_extent, &c);
    for (size_t i = 0; i < r->node_count && !error; i++)
        settle(r, &r->nodes[i]);
    for (size_t i = 0; i < c.stray_count && !error; i++)
        error = adopt(r, &c.strays[i]);
    if (!error)
        error = treerepair_pass(r, KEYS_XATTR, see_xattr, NULL);
    for (size_t i = 0; i < r->node_count && !error; i++)
        settle_acls(r, &r->nodes[i]);
    free(c.owners);
    free(c.strays);
    return error;
}
