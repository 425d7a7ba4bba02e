/* SPDX-License-Identifier: MIT */
/* The operations of volume_model.h. */
#include "volume_model.h"
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#define T fixture_text

#define verdict model_verdict

int model_verdict(struct model *m, const char *what, int expected, ssize_t got)
{
    if (m->verbose)
        printf("%s: %zd\n", what, got);
    if (got == expected)
        return 0;
    if (m->keep_history && (got == -EIO || got == -EROFS || got == -ENOSPC))
        return (int)got;
    printf("%s: the volume says %zd, the model %d\n", what, got, expected);
    return 1;
}

/* ---- Operations ---- */

static uint64_t below(struct model *m, uint64_t bound)
{
    return random_below(&m->random, bound);
}

/* A node that is there; of a kind if type is not 0. The root if there is no other. */
static int pick(struct model *m, uint32_t type)
{
    int start = (int)below(m, MODEL_NODES);
    for (int i = 0; i < MODEL_NODES; i++) {
        int at = (start + i) % MODEL_NODES;
        const struct model_node *n = &m->nodes[at];
        if (n->used && (type == 0 || (n->mode & S_IFMT) == type))
            return at;
    }
    return 0;
}

static void pick_name(struct model *m, char name[8])
{
    uint64_t n = below(m, 15);
    snprintf(name, 8, "%c%c", (char)('a' + n / 3), (char)('0' + n % 3));
}

/* A directory and a name; mostly one that is there. */
static int pick_entry(struct model *m, char name[8])
{
    if (below(m, 4)) {
        int start = (int)below(m, MODEL_NAMES);
        for (int i = 0; i < MODEL_NAMES; i++) {
            const struct model_name *n = &m->names[(start + i) % MODEL_NAMES];
            if (n->name[0]) {
                memcpy(name, n->name, 8);
                return n->dir;
            }
        }
    }
    pick_name(m, name);
    return pick(m, S_IFDIR);
}

static int step_make(struct model *m)
{
    static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO};
    char name[8];
    struct volume_attr attr;
    int dir = pick(m, S_IFDIR);
    pick_name(m, name);
    if (model_is_full(m))
        return 0;
    struct volume_new new = {.mode = types[below(m, 7)] | 0644};
    new.uid = (uint32_t)below(m, 3);
    if (S_ISLNK(new.mode))
        new.target = (struct keg_bytes){"some/where/else", 1 + below(m, 15)};
    int expected = m->nodes[dir].nlink == 0 ? -ENOENT : model_find_name(m, dir, name) ? -EEXIST : 0;
    int node = 0;
    if (!expected) {
        node = model_new_node(m, new.mode);
        struct model_node *n = &m->nodes[node];
        n->uid = new.uid;
        n->parent = dir;
        n->size = new.target.len;
        if (n->size)
            memcpy(n->data, new.target.data, n->size);
        model_add_name(m, dir, name, node);
        m->nodes[dir].nlink += S_ISDIR(new.mode);
        model_remember(m);
    }
    int got = volume_make(m->fixture->volume, m->nodes[dir].ino, T(name), &new, &attr);
    if (!got && !expected) {
        m->nodes[node].ino = attr.ino;
        if (below(m, 3) == 0)
            m->nodes[node].lookups = 1;
        else
            volume_forget(m->fixture->volume, attr.ino, 1);
        if (m->nodes[node].lookups && S_ISREG(new.mode) && below(m, 2))
            return model_created(m, node);
    }
    return verdict(m, "make", expected, got);
}

/* The last one to forget an inode has logged what is held of it. */
static void forget(struct model *m, int node, unsigned lookups)
{
    struct model_node *n = &m->nodes[node];
    uint64_t ino = n->ino;
    n->lookups -= lookups;
    if (!n->lookups && n->held && n->nlink) {
        model_drop_held(n);
        model_remember(m);
    }
    model_unuse(m, node);
    volume_forget(m->fixture->volume, ino, lookups);
}

static int step_lookup(struct model *m)
{
    char name[8];
    struct volume_attr attr = {0};
    int dir = pick_entry(m, name);
    const struct model_name *n = model_find_name(m, dir, name);
    int got = volume_lookup(m->fixture->volume, m->nodes[dir].ino, T(name), &attr);
    if (!got) {
        if (n && attr.ino != m->nodes[n->node].ino)
            return verdict(m, "lookup's inode", 0, 1);
        if (n) {
            m->nodes[n->node].lookups++;
            if (below(m, 3))
                forget(m, n->node, 1);
        }
    }
    return verdict(m, "lookup", n ? 0 : -ENOENT, got);
}

static int step_forget(struct model *m)
{
    int node = pick(m, 0);
    if (m->nodes[node].lookups && !m->nodes[node].writers)
        forget(m, node, m->nodes[node].lookups);
    return 0;
}

static int step_link(struct model *m)
{
    char name[8];
    struct volume_attr attr;
    int dir = pick(m, S_IFDIR), node = pick(m, 0), expected = 0;
    struct model_node *n = &m->nodes[node];
    pick_name(m, name);
    if (model_is_full(m))
        return 0;
    if (S_ISDIR(n->mode)) {
        expected = dir == node || m->nodes[dir].nlink ? -EPERM : -ENOENT;
    } else if (m->nodes[dir].nlink == 0) {
        expected = -ENOENT;
    } else if (model_find_name(m, dir, name)) {
        expected = -EEXIST;
    } else if (n->nlink == 0) {
        expected = -ENOENT;
    }
    if (!expected) {
        model_drop_held(n);
        n->nlink++;
        model_add_name(m, dir, name, node);
        model_remember(m);
    }
    int got = volume_link(m->fixture->volume, n->ino, m->nodes[dir].ino, T(name), &attr);
    if (!got)
        volume_forget(m->fixture->volume, n->ino, 1);
    return verdict(m, "link", expected, got);
}

static int step_remove(struct model *m)
{
    char name[8];
    bool is_dir = below(m, 3) == 0;
    int dir = pick_entry(m, name), expected = 0;
    uint64_t dir_ino = m->nodes[dir].ino;
    struct model_name *entry = model_find_name(m, dir, name);
    if (!entry)
        expected = -ENOENT;
    else if (S_ISDIR(m->nodes[entry->node].mode) != is_dir)
        expected = is_dir ? -ENOTDIR : -EISDIR;
    else if (is_dir && model_count_names(m, entry->node, false))
        expected = -ENOTEMPTY;
    if (!expected) {
        struct model_node *n = &m->nodes[entry->node];
        entry->name[0] = 0;
        model_drop_held(n);
        n->nlink = is_dir ? 0 : n->nlink - 1;
        m->nodes[dir].nlink -= is_dir;
        model_unuse(m, entry->node);
        model_remember(m);
    }
    struct volume *v = m->fixture->volume;
    int got = is_dir ? volume_rmdir(v, dir_ino, T(name)) : volume_unlink(v, dir_ino, T(name));
    return verdict(m, is_dir ? "rmdir" : "unlink", expected, got);
}

static bool is_below(const struct model *m, int dir, int above)
{
    for (; dir != above; dir = m->nodes[dir].parent) {
        if (dir == 0)
            return false;
    }
    return true;
}

static int expect_rename(struct model *m, const struct model_name *from, int to_dir,
                         const struct model_name *to, unsigned flags)
{
    if (!from || (flags & VOLUME_EXCHANGE && !to))
        return -ENOENT;
    if (to && flags & VOLUME_NOREPLACE)
        return -EEXIST;
    if (to && to->node == from->node)
        return 1; /* nothing happens */
    bool from_dir = S_ISDIR(m->nodes[from->node].mode);
    bool onto_dir = to && S_ISDIR(m->nodes[to->node].mode);
    if (from_dir && is_below(m, to_dir, from->node))
        return -EINVAL;
    if (flags & VOLUME_EXCHANGE)
        return onto_dir && is_below(m, from->dir, to->node) ? -EINVAL : 0;
    if (to && from_dir != onto_dir)
        return from_dir ? -ENOTDIR : -EISDIR;
    if (onto_dir && model_count_names(m, to->node, false))
        return -ENOTEMPTY;
    return m->nodes[to_dir].nlink ? 0 : -ENOENT;
}

static void move_node(struct model *m, int node, int from_dir, int to_dir)
{
    model_drop_held(&m->nodes[node]);
    if (!S_ISDIR(m->nodes[node].mode))
        return;
    m->nodes[from_dir].nlink--;
    m->nodes[to_dir].nlink++;
    m->nodes[node].parent = to_dir;
}

static void apply_rename(struct model *m, struct model_name *from, int to_dir, const char *name,
                         struct model_name *to, unsigned flags)
{
    int from_dir = from->dir, moved = from->node, other = to ? to->node : -1;
    /* What takes another's place must have its contents; what is replaced may have other names, and
     * goes on waiting for its own. */
    if (to)
        model_commit(&m->nodes[moved]);
    if (flags & VOLUME_EXCHANGE)
        model_commit(&m->nodes[other]);
    move_node(m, moved, from_dir, to_dir);
    if (flags & VOLUME_EXCHANGE) {
        move_node(m, other, to_dir, from_dir);
        from->node = other;
        to->node = moved;
        model_remember(m);
        return;
    }
    from->name[0] = 0;
    if (to) {
        struct model_node *n = &m->nodes[other];
        to->name[0] = 0;
        model_drop_held(n);
        m->nodes[to_dir].nlink -= S_ISDIR(n->mode);
        n->nlink = S_ISDIR(n->mode) ? 0 : n->nlink - 1;
        model_unuse(m, other);
    }
    model_add_name(m, to_dir, name, moved);
    model_remember(m);
}

static int step_rename(struct model *m)
{
    char name[8], new_name[8];
    int dir = pick_entry(m, name), new_dir = pick_entry(m, new_name);
    unsigned flags = (unsigned)(below(m, 4) == 0 ? 1 + below(m, 2) : 0);
    uint64_t ino = m->nodes[dir].ino, new_ino = m->nodes[new_dir].ino;
    struct model_name *from = model_find_name(m, dir, name),
                      *to = model_find_name(m, new_dir, new_name);
    int expected = expect_rename(m, from, new_dir, to, flags);
    if (expected == 0)
        apply_rename(m, from, new_dir, new_name, to, flags);
    else if (expected == 1)
        expected = 0;
    int got = volume_rename(m->fixture->volume, ino, T(name), new_ino, T(new_name), flags);
    /* Below itself, but only by way of directories that are removed: some may be reclaimed by now.
     */
    if (expected == -EINVAL && got == -ENOENT && m->nodes[new_dir].nlink == 0)
        expected = got;
    return verdict(m, "rename", expected, got);
}

static size_t pick_offset(struct model *m, const struct model_node *n)
{
    switch (below(m, 4)) {
    case 0:
        return n->size;
    case 1:
        return (size_t)below(m, m->size_most);
    case 2:
        return (size_t)below(m, 3) * KEYS_WINDOW;
    default:
        return (size_t)below(m, n->size + 1);
    }
}

static size_t pick_length(struct model *m)
{
    static const size_t limits[] = {20, 200, 5000, 70000, MODEL_SIZE_MAX};
    size_t limit = limits[below(m, 5)];
    return 1 + (size_t)below(m, limit < m->size_most ? limit : m->size_most);
}

static int step_write(struct model *m)
{
    int node = pick(m, S_IFREG);
    struct model_node *n = &m->nodes[node];
    if (node == 0)
        return 0;
    size_t offset = pick_offset(m, n), len = pick_length(m);
    if (offset >= m->size_most)
        return 0;
    if (len > m->size_most - offset)
        len = m->size_most - offset;
    uint8_t first = (uint8_t)below(m, 256);
    for (size_t i = 0; i < len; i++)
        n->data[offset + i] = (uint8_t)(first + i * 31 + i / 251);
    n->hash = 0;
    if (offset + len > n->size)
        n->size = offset + len;
    model_drop_held(n);
    model_remember(m);
    ssize_t got =
        volume_write(m->fixture->volume, n->ino, offset, n->data + offset, len, VOLUME_KILL_SUID);
    return verdict(m, "write", (int)len, got);
}

static int step_read(struct model *m)
{
    static uint8_t buf[MODEL_SIZE_MAX];
    int node = pick(m, S_IFREG);
    const struct model_node *n = &m->nodes[node];
    if (node == 0)
        return 0;
    size_t offset = pick_offset(m, n), len = pick_length(m), left = 0;
    if (offset < n->size)
        left = n->size - offset;
    ssize_t got = volume_read(m->fixture->volume, n->ino, offset, buf, len);
    int result = verdict(m, "read", (int)(len < left ? len : left), got);
    if (!result && memcmp(buf, n->data + offset, (size_t)got) != 0)
        result = verdict(m, "what was read", 0, 1);
    return result;
}

static void resize(struct model_node *n, size_t size)
{
    if (size < n->size)
        memset(n->data + size, 0, n->size - size);
    n->size = size;
    n->hash = 0;
}

static int step_truncate(struct model *m)
{
    int node = pick(m, S_IFREG);
    struct model_node *n = &m->nodes[node];
    if (node == 0)
        return 0;
    size_t size = below(m, 2) ? 0 : pick_offset(m, n);
    if (size > m->size_most)
        size = m->size_most;
    if (size)
        model_drop_held(n);
    else
        model_keep_old(n);
    if (size == 0 && n->writers)
        n->staged = true;
    if (size == 0 && !n->held)
        n->held = ++m->held_count; /* held again, it keeps its place */
    resize(n, size);
    model_remember(m);
    struct volume_attr attr = {.size = size};
    int got = volume_setattr(m->fixture->volume, n->ino, VOLUME_SET_SIZE, &attr, &attr);
    return verdict(m, "truncate", 0, got);
}

static int step_setattr(struct model *m)
{
    struct model_node *n = &m->nodes[pick(m, 0)];
    struct volume_attr attr = {.mode = (uint32_t)below(m, 0777)};
    attr.uid = (uint32_t)below(m, 3);
    n->mode = (n->mode & S_IFMT) | attr.mode;
    n->uid = attr.uid;
    model_drop_held(n);
    model_remember(m);
    int got =
        volume_setattr(m->fixture->volume, n->ino, VOLUME_SET_MODE | VOLUME_SET_UID, &attr, &attr);
    return verdict(m, "setattr", 0, got);
}

static int step_fallocate(struct model *m)
{
    static const int modes[] = {0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    int node = pick(m, S_IFREG), mode = modes[below(m, 4)];
    struct model_node *n = &m->nodes[node];
    if (node == 0)
        return 0;
    size_t offset = pick_offset(m, n), len = pick_length(m);
    if (offset >= m->size_most)
        return 0;
    if (len > m->size_most - offset)
        len = m->size_most - offset;
    model_drop_held(n);
    if (mode && offset < n->size) {
        size_t end = offset + len < n->size ? offset + len : n->size;
        memset(n->data + offset, 0, end - offset);
        n->hash = 0;
        model_remember(m);
    }
    if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + len > n->size)
        resize(n, offset + len);
    model_remember(m);
    int got = volume_fallocate(m->fixture->volume, n->ino, mode, offset, len);
    return verdict(m, "fallocate", 0, got);
}

/* What it finds need not be what the model has: zeros may be data. But data is never missed. */
static int step_seek(struct model *m)
{
    int node = pick(m, S_IFREG);
    const struct model_node *n = &m->nodes[node];
    if (node == 0 || n->size == 0)
        return 0;
    uint64_t from = below(m, n->size), to = 0;
    bool data = below(m, 2);
    int got = volume_seek(m->fixture->volume, n->ino, from, data ? SEEK_DATA : SEEK_HOLE, &to);
    if (data && got == -ENXIO) {
        to = n->size;
        got = 0;
    }
    if (!got && (to < from || to > n->size))
        return verdict(m, "where it sought", 0, 1);
    for (uint64_t i = from; !got && data && i < to; i++) {
        if (n->data[i])
            return verdict(m, "what it sought past", 0, n->data[i]);
    }
    return verdict(m, "seek", 0, got);
}

static int step_xattr(struct model *m)
{
    static char value[XATTR_VALUE_MAX];
    struct model_node *n = &m->nodes[pick(m, 0)];
    int which = (int)below(m, MODEL_XATTRS), expected = 0;
    struct keg_bytes name = T(model_xattrs[which]);
    if (below(m, 3)) {
        static const int flags[] = {0, 0, XATTR_CREATE, XATTR_REPLACE};
        int flag = flags[below(m, 4)], len = (int)below(m, below(m, 10) ? 50 : XATTR_VALUE_MAX);
        if (flag == XATTR_CREATE && n->xattrs[which] >= 0)
            expected = -EEXIST;
        else if (flag == XATTR_REPLACE && n->xattrs[which] < 0)
            expected = -ENODATA;
        if (!expected) {
            n->xattrs[which] = len;
            model_drop_held(n);
            model_remember(m);
        }
        int got = volume_setxattr(m->fixture->volume, n->ino, name, value, (size_t)len, flag);
        return verdict(m, "setxattr", expected, got);
    }
    expected = n->xattrs[which] < 0 ? -ENODATA : 0;
    if (!expected) {
        n->xattrs[which] = -1;
        model_drop_held(n);
        model_remember(m);
    }
    int got = volume_removexattr(m->fixture->volume, n->ino, name);
    return verdict(m, "removexattr", expected, got);
}

static void path_of(const struct model *m, int dir, char *path, size_t size)
{
    char above[512] = "";
    if (dir == 0) {
        path[0] = 0;
        return;
    }
    for (int i = 0; i < MODEL_NAMES; i++) {
        const struct model_name *n = &m->names[i];
        if (n->name[0] && n->node == dir) {
            path_of(m, n->dir, above, sizeof above);
            snprintf(path, size, "%s/%s", above, n->name);
        }
    }
}

struct source {
    const struct model_node *node;
    size_t at;
};

static ssize_t fill(void *arg, void *buf, size_t size)
{
    struct source *s = arg;
    size_t left = s->node->size - s->at, len = left < size ? left : size;
    if (len)
        memcpy(buf, s->node->data + s->at, len);
    s->at += len;
    return (ssize_t)len;
}

static int step_put(struct model *m)
{
    char name[8], path[600], dir_path[512];
    int dir = pick(m, S_IFDIR), expected = 0;
    pick_name(m, name);
    struct model_name *entry = model_find_name(m, dir, name);
    if (m->nodes[dir].nlink == 0 || model_is_full(m))
        return 0;
    path_of(m, dir, dir_path, sizeof dir_path);
    if (strlen(dir_path) > 500)
        return 0;
    snprintf(path, sizeof path, "%s/%s", dir_path, name);
    const struct volume_new new = {.mode = S_IFREG | 0600};
    struct model_node *n = entry ? &m->nodes[entry->node] : NULL;
    if (n && !S_ISREG(n->mode))
        expected = S_ISDIR(n->mode) ? -EISDIR : -EEXIST;
    struct model_node nothing = {0};
    struct source source = {&nothing, 0};
    if (!expected) {
        if (!n) {
            int node = model_new_node(m, new.mode);
            n = &m->nodes[node];
            model_add_name(m, dir, name, node);
        }
        size_t len = pick_length(m);
        resize(n, len);
        random_fill(&m->random, n->data, len);
        n->hash = 0;
        model_commit(n);
        model_remember(m);
        source.node = n;
    }
    int got = volume_put(m->fixture->volume, T(path), &new, fill, &source);
    struct volume_attr attr;
    if (!got && !expected) {
        got = volume_resolve(m->fixture->volume, T(path), &attr);
        if (!got) {
            n->ino = attr.ino;
            volume_forget(m->fixture->volume, attr.ino, 1);
        }
    }
    return verdict(m, "put", expected, got);
}

static int step_sync(struct model *m)
{
    model_flush_held(m);
    model_remember(m);
    int got = volume_sync(m->fixture->volume, 0);
    if (!got && m->keep_history)
        m->synced = m->history_count - 1;
    return verdict(m, "sync", 0, got);
}

static int step_compact(struct model *m)
{
    return verdict(m, "compact", 0, keg_compact(m->fixture->keg, NULL, NULL));
}

/* What is held is logged already, or lost. */
static int reopen(struct model *m)
{
    for (int i = 0; i < MODEL_NODES; i++) {
        m->nodes[i].lookups = m->nodes[i].writers = 0;
        if (m->nodes[i].used)
            model_unuse(m, i);
    }
    model_remember(m);
    int got = fixture_close(m->fixture);
    if (!got && m->keep_history)
        m->synced = m->history_count - 1;
    if (!got)
        got = fixture_open(m->fixture);
    int result = verdict(m, "reopen", 0, got);
    return result ? result : model_compare(m);
}

/* The process dies: what is held is lost, and so are the unlinked files. */
static int step_crash(struct model *m)
{
    struct volume *v = m->fixture->volume;
    for (int i = 0; i < HELD_KINDS; i++) {
        while (v->held[i].first)
            inodes_logged(v, v->held[i].first->inode.ino);
    }
    for (int i = 0; i < MODEL_NODES; i++) {
        struct model_node *n = &m->nodes[i];
        if (!n->held)
            continue;
        memcpy(n->data, n->old_data, MODEL_SIZE_MAX);
        n->size = n->old_size;
        n->hash = 0;
        model_commit(n);
    }
    return reopen(m);
}

int model_reopen(struct model *m)
{
    int result = model_close_writers(m);
    if (result)
        return result;
    model_flush_held(m);
    return reopen(m);
}

int model_step(struct model *m)
{
    static const struct {
        int (*step)(struct model *m);
        unsigned weight;
    } steps[] = {
        {step_make, 14},    {step_lookup, 6},  {step_forget, 6},    {step_link, 4},
        {step_remove, 12},  {step_rename, 10}, {step_write, 20},    {step_read, 10},
        {step_truncate, 8}, {step_setattr, 4}, {step_fallocate, 4}, {step_seek, 4},
        {step_xattr, 6},    {step_put, 3},     {step_sync, 1},      {model_step_writer, 10},
    };
    if (below(m, 400) == 0)
        return model_reopen(m);
    if (below(m, 400) == 0)
        return step_crash(m);
    if (below(m, 1000) == 0)
        return step_compact(m);
    unsigned total = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        total += steps[i].weight;
    unsigned at = (unsigned)below(m, total);
    for (size_t i = 0;; i++) {
        if (at < steps[i].weight)
            return steps[i].step(m);
        at -= steps[i].weight;
    }
}
