/* SPDX-License-Identifier: MIT */
/*
 * Verifies that the keys of a volume make up a sound tree.
 *
 * It looks at what is in the store, not at what is held in memory, with the gate shut: changes
 * wait, and of readers those whom a thread would serve that waits with a change. One pass over each
 * kind of key in order; what names and extents say is summed up beside the inodes, and compared at
 * the end. The store's own check reads the bytes; this one reads metas, and ACLs. It takes some 88
 * bytes of memory for each inode.
 */
#include "idlist.h"
#include "volume_internal.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    uint64_t ino, content, size, bytes, parent;
    uint64_t extent_bytes, entries; /* as found */
    uint32_t mode, nlink, names, subdirs, flags;
    uint32_t acls; /* flags of those that were found */
    bool orphan, has_xattrs, leads_up;
};

struct by_content {
    uint64_t content;
    size_t at;
};

struct treecheck {
    struct volume *volume;
    void (*found)(void *arg, const char *text);
    void *arg;
    ssize_t findings;
    struct seen *inodes; /* in order of their numbers */
    size_t count, capacity;
    struct by_content *contents; /* in order of content ids; 0 for none is not there */
    size_t contents_count;
    uint64_t *orphans; /* content ids, in order */
    size_t orphans_count, orphans_capacity;
    uint64_t next_id;
    /* The extent before the one looked at. */
    uint64_t last_content, last_end;
};

static void find(struct treecheck *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void find(struct treecheck *c, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->findings++;
    if (c->found)
        c->found(c->arg, text);
}

/* For printing. */
static unsigned long long n(uint64_t v)
{
    return v;
}

static struct seen *find_inode(const struct treecheck *c, uint64_t ino)
{
    return idlist_find(c->inodes, c->count, sizeof *c->inodes, ino);
}

static struct seen *find_content(const struct treecheck *c, uint64_t content)
{
    const struct by_content *found =
        idlist_find(c->contents, c->contents_count, sizeof *c->contents, content);
    return found ? &c->inodes[found->at] : NULL;
}

static bool is_orphan(const struct treecheck *c, uint64_t content)
{
    return idlist_find(c->orphans, c->orphans_count, sizeof *c->orphans, content);
}

/* ---- One key of each kind ---- */

static int see_inode(struct treecheck *c, const struct keys_parsed *key,
                     const struct keg_entry *entry)
{
    struct inode inode;
    if (keys_inode_decode(entry->meta, &inode) != 0) {
        find(c, "inode %llu: its record makes no sense", n(key->id));
        return 0;
    }
    struct seen *grown = idlist_grow(c->inodes, c->count, &c->capacity, sizeof *c->inodes);
    if (!grown)
        return -ENOMEM;
    c->inodes = grown;
    c->inodes[c->count++] = (struct seen){
        .ino = key->id,
        .content = inode.content,
        .size = inode.size,
        .bytes = inode.bytes,
        .parent = inode.parent,
        .mode = inode.mode,
        .nlink = inode.nlink,
        .flags = inode.flags,
    };
    if (key->id >= c->next_id || inode.content >= c->next_id)
        find(c, "inode %llu: an id was never handed out", n(key->id));
    if (S_ISLNK(inode.mode) && entry->value_len != inode.size)
        find(c, "inode %llu: the link's text is %u bytes long, not %llu", n(key->id),
             entry->value_len, n(inode.size));
    return 0;
}

static int see_orphan(struct treecheck *c, const struct keys_parsed *key,
                      const struct keg_entry *entry)
{
    (void)entry;
    if (key->orphan == KEYS_ORPHAN_INODE) {
        struct seen *s = find_inode(c, key->id);
        if (s)
            s->orphan = true;
    } else if (key->orphan == KEYS_ORPHAN_CONTENT) {
        uint64_t *grown =
            idlist_grow(c->orphans, c->orphans_count, &c->orphans_capacity, sizeof *c->orphans);
        if (!grown)
            return -ENOMEM;
        c->orphans = grown;
        c->orphans[c->orphans_count++] = key->id;
        if (find_content(c, key->id))
            find(c, "contents %llu are in use and to be reclaimed", n(key->id));
    }
    return 0;
}

static int see_name(struct treecheck *c, const struct keys_parsed *key,
                    const struct keg_entry *entry)
{
    uint64_t ino;
    uint32_t type;
    int len = (int)key->name.len;
    const char *name = key->name.data;
    struct keys_key expected;
    if (keys_name_decode(entry->meta, &ino, &type) != 0) {
        find(c, "name '%.*s' in %llu: its record makes no sense", len, name, n(key->id));
        return 0;
    }
    dirs_key(c->volume, key->id, key->name, &expected);
    if (expected.len != entry->key.len ||
        memcmp(expected.bytes, entry->key.data, expected.len) != 0)
        find(c, "name '%.*s' in %llu: its hash is wrong", len, name, n(key->id));
    struct seen *dir = find_inode(c, key->id), *s = find_inode(c, ino);
    if (!dir || !S_ISDIR(dir->mode))
        find(c, "name '%.*s': %llu is no directory", len, name, n(key->id));
    else
        dir->entries++;
    if (!s) {
        find(c, "name '%.*s' in %llu: there is no inode %llu", len, name, n(key->id), n(ino));
        return 0;
    }
    s->names++;
    if ((s->mode & S_IFMT) != type)
        find(c, "name '%.*s' in %llu: its type is not that of inode %llu", len, name, n(key->id),
             n(ino));
    if (!S_ISDIR(s->mode))
        return 0;
    if (dir)
        dir->subdirs++;
    if (s->parent != key->id)
        find(c, "directory %llu is in %llu, and says in %llu", n(ino), n(key->id), n(s->parent));
    return 0;
}

static int see_extent(struct treecheck *c, const struct keys_parsed *key,
                      const struct keg_entry *entry)
{
    uint64_t end = key->offset + entry->value_len;
    struct seen *s = find_content(c, key->id);
    if (!s && !is_orphan(c, key->id))
        find(c, "contents %llu belong to no file", n(key->id));
    if (entry->value_len == 0 || key->offset % KEYS_WINDOW + entry->value_len > KEYS_WINDOW)
        find(c, "contents %llu: %u bytes at %llu cannot be", n(key->id), entry->value_len,
             n(key->offset));
    if (key->id == c->last_content && key->offset < c->last_end)
        find(c, "contents %llu: extents overlap at %llu", n(key->id), n(key->offset));
    c->last_content = key->id;
    c->last_end = end;
    if (!s)
        return 0;
    s->extent_bytes += entry->value_len;
    if (end > s->size && !(s->flags & INODE_TAIL))
        find(c, "inode %llu: data behind its size", n(s->ino));
    return 0;
}

/* An ACL that the store can read is one, and says what the mode says. */
static int see_acl(struct treecheck *c, struct seen *s, enum acl_kind kind,
                   const struct keg_entry *entry)
{
    uint32_t mode = s->mode;
    s->acls |= rights_flag(kind);
    if (S_ISLNK(s->mode) || (kind == ACL_DEFAULT && !S_ISDIR(s->mode)))
        find(c, "inode %llu: an ACL where there can be none", n(s->ino));
    uint8_t *bytes = malloc(entry->value_len + 1);
    if (!bytes)
        return -ENOMEM;
    ssize_t len = keg_read(c->volume->keg, entry->key, 0, bytes, entry->value_len);
    struct keg_bytes acl = {bytes, len > 0 ? (size_t)len : 0};
    if (len >= 0 && acl_check(acl))
        find(c, "inode %llu: its ACL makes no sense", n(s->ino));
    else if (len > 0 && kind == ACL_ACCESS && (acl_to_mode(acl, &mode) || mode != s->mode))
        find(c, "inode %llu: its ACL and its mode do not fit", n(s->ino));
    free(bytes);
    return 0;
}

static int see_xattr(struct treecheck *c, const struct keys_parsed *key,
                     const struct keg_entry *entry)
{
    struct seen *s = find_inode(c, key->id);
    enum acl_kind kind = acl_kind_of(key->name);
    if (!s) {
        find(c, "an attribute belongs to no inode %llu", n(key->id));
        return 0;
    }
    s->has_xattrs = true;
    return kind ? see_acl(c, s, kind, entry) : 0;
}

/* ---- Passes ---- */

static int pass(struct treecheck *c, enum keys_kind kind,
                int (*see)(struct treecheck *c, const struct keys_parsed *key,
                           const struct keg_entry *entry))
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_kind_prefix(&prefix, kind);
    int error = keg_iter_open(c->volume->keg, keys_bytes(&prefix), &iter);
    if (error)
        return error;
    int more;
    while (!error && (more = keg_iter_next(iter, &entry)) != 0) {
        struct keys_parsed key;
        if (more < 0)
            error = more;
        else if (keys_parse(entry.key, &key) != 0)
            find(c, "a key of kind '%c' makes no sense", (char)kind);
        else
            error = see(c, &key, &entry);
    }
    keg_iter_close(iter);
    return error;
}

static int sort_contents(struct treecheck *c)
{
    c->contents = malloc((c->count + 1) * sizeof *c->contents);
    if (!c->contents)
        return -ENOMEM;
    for (size_t i = 0; i < c->count; i++) {
        if (c->inodes[i].content)
            c->contents[c->contents_count++] = (struct by_content){c->inodes[i].content, i};
    }
    idlist_sort(c->contents, c->contents_count, sizeof *c->contents);
    for (size_t i = 1; i < c->contents_count; i++) {
        if (c->contents[i].content == c->contents[i - 1].content)
            find(c, "inodes %llu and %llu share contents", n(c->inodes[c->contents[i - 1].at].ino),
                 n(c->inodes[c->contents[i].at].ino));
    }
    return 0;
}

/* Does it lead up to the root? Marks what does on the way, so that each step is taken once. */
static bool leads_up(struct treecheck *c, struct seen *start)
{
    struct seen *s = start;
    for (size_t steps = 0; s && !s->leads_up && s->ino != VOLUME_ROOT; steps++)
        s = steps < c->count ? find_inode(c, s->parent) : NULL;
    if (!s)
        return false;
    for (; start != s; start = find_inode(c, start->parent))
        start->leads_up = true;
    return true;
}

static void check_reachable(struct treecheck *c)
{
    for (size_t i = 0; i < c->count; i++) {
        struct seen *s = &c->inodes[i];
        if (S_ISDIR(s->mode) && s->nlink != 0 && !leads_up(c, s))
            find(c, "directory %llu does not lead up to the root", n(s->ino));
    }
}

static void check_dir(struct treecheck *c, const struct seen *s)
{
    if (s->nlink != 0 && s->nlink != s->subdirs + 2)
        find(c, "directory %llu: link count %u, and %u directories in it", n(s->ino), s->nlink,
             s->subdirs);
    if (s->size != s->entries * DIRENT_SIZE)
        find(c, "directory %llu: size %llu with %llu entries", n(s->ino), n(s->size),
             n(s->entries));
    if (s->ino != VOLUME_ROOT && s->names != (s->nlink != 0))
        find(c, "directory %llu has %u names", n(s->ino), s->names);
}

static void check_inode(struct treecheck *c, const struct seen *s)
{
    if (S_ISDIR(s->mode))
        check_dir(c, s);
    else if (s->names != s->nlink)
        find(c, "inode %llu: link count %u, and %u names", n(s->ino), s->nlink, s->names);
    if (s->nlink == 0 && !s->orphan)
        find(c, "inode %llu has no name and no orphan key", n(s->ino));
    if (s->nlink != 0 && s->orphan)
        find(c, "inode %llu has names and an orphan key", n(s->ino));
    if (s->bytes != s->extent_bytes)
        find(c, "inode %llu: %llu bytes allocated, and extents of %llu", n(s->ino), n(s->bytes),
             n(s->extent_bytes));
    if (s->has_xattrs && !(s->flags & INODE_HAS_XATTRS))
        find(c, "inode %llu: attributes that it does not know of", n(s->ino));
    if (s->acls != (s->flags & (INODE_ACCESS_ACL | INODE_DEFAULT_ACL)))
        find(c, "inode %llu: its ACLs are not those that it knows of", n(s->ino));
}

static int load_super(struct treecheck *c)
{
    struct keys_key key;
    struct keg_info info;
    struct keys_superblock super;
    keys_super(&key);
    int error = keg_get(c->volume->keg, keys_bytes(&key), &info);
    if (!error)
        error = keys_super_decode((struct keg_bytes){info.meta, info.meta_len}, &super);
    c->next_id = error ? UINT64_MAX : super.next_id;
    if (error)
        find(c, "the superblock is missing or makes no sense");
    return 0;
}

static int check_all(struct treecheck *c)
{
    int error = load_super(c);
    if (!error)
        error = pass(c, KEYS_INODE, see_inode);
    if (!error)
        error = sort_contents(c);
    if (!error)
        error = pass(c, KEYS_ORPHAN, see_orphan);
    if (!error)
        error = pass(c, KEYS_NAME, see_name);
    if (!error)
        error = pass(c, KEYS_EXTENT, see_extent);
    if (!error)
        error = pass(c, KEYS_XATTR, see_xattr);
    if (error)
        return error;
    if (!find_inode(c, VOLUME_ROOT))
        find(c, "there is no root");
    for (size_t i = 0; i < c->count; i++)
        check_inode(c, &c->inodes[i]);
    check_reachable(c);
    return 0;
}

ssize_t volume_check(struct volume *volume, void (*found)(void *arg, const char *text), void *arg)
{
    struct treecheck c = {.volume = volume, .found = found, .arg = arg};
    keg_quiesce(volume->keg);
    int error = check_all(&c);
    keg_resume(volume->keg);
    free(c.inodes);
    free(c.contents);
    free(c.orphans);
    return error ? error : c.findings;
}
