/* SPDX-License-Identifier: MIT */
/* Contents replaced as a whole (volume_model.h): writers that come, flush, fsync and go. */
#include "volume_model.h"
#include <errno.h>
#include <stdlib.h>

static int open_writer(struct model *m, struct model_node *n, bool created)
{
    int got = volume_writer_open(m->fixture->volume, n->ino, created);
    if (!got)
        n->writers++;
    return model_verdict(m, "writer_open", 0, got);
}

int model_created(struct model *m, int node)
{
    struct model_node *n = &m->nodes[node];
    model_keep_old(n);
    n->staged = true;
    n->held = ++m->held_count;
    return open_writer(m, n, true);
}

/* What is staged is committed, in a frame of its own. */
static void commit(struct model *m, struct model_node *n)
{
    model_commit(n);
    model_remember(m);
}

static int flush(struct model *m, struct model_node *n)
{
    if (n->writers == 1 && n->staged && n->size)
        commit(m, n);
    return model_verdict(m, "writer_flush", 0, volume_writer_flush(m->fixture->volume, n->ino));
}

static int close_writer(struct model *m, struct model_node *n)
{
    if (n->writers-- == 1 && n->staged)
        commit(m, n);
    return model_verdict(m, "writer_close", 0, volume_writer_close(m->fixture->volume, n->ino));
}

static int fsync_node(struct model *m, struct model_node *n)
{
    commit(m, n);
    int got = volume_sync(m->fixture->volume, n->ino);
    if (!got && m->keep_history)
        m->synced = m->history_count - 1;
    return model_verdict(m, "fsync", 0, got);
}

int model_step_writer(struct model *m)
{
    int at = (int)random_below(&m->random, MODEL_NODES);
    struct model_node *n = &m->nodes[at];
    for (int i = 0; i < MODEL_NODES && !(n->lookups && S_ISREG(n->mode)); i++)
        n = &m->nodes[(at + i) % MODEL_NODES];
    if (!n->lookups || !S_ISREG(n->mode))
        return 0;
    switch (random_below(&m->random, 6)) {
    case 0:
        return flush(m, n);
    case 1:
        return fsync_node(m, n);
    case 2:
    case 3:
        return n->writers ? close_writer(m, n) : open_writer(m, n, false);
    default:
        return open_writer(m, n, false);
    }
}

int model_close_writers(struct model *m)
{
    int result = 0;
    for (int i = 0; !result && i < MODEL_NODES; i++) {
        while (!result && m->nodes[i].writers)
            result = close_writer(m, &m->nodes[i]);
    }
    return result;
}

/* ---- From the volume ---- */

static int load_node(struct model *m, int parent, uint64_t ino)
{
    struct volume *v = m->fixture->volume;
    struct volume_attr attr;
    if (volume_getattr(v, ino, &attr) < 0)
        abort();
    int node = 0;
    for (int i = 1; i < MODEL_NODES; i++) {
        if (m->nodes[i].used && m->nodes[i].ino == ino)
            return i; /* another link */
    }
    if (ino != VOLUME_ROOT)
        node = model_new_node(m, attr.mode);
    struct model_node *n = &m->nodes[node];
    n->ino = ino;
    n->mode = attr.mode;
    n->uid = attr.uid;
    n->nlink = attr.nlink;
    n->parent = parent;
    n->size = S_ISREG(attr.mode) || S_ISLNK(attr.mode) ? (size_t)attr.size : 0;
    if (S_ISREG(attr.mode) && volume_read(v, ino, 0, n->data, n->size) != (ssize_t)n->size)
        abort();
    if (S_ISLNK(attr.mode) && volume_readlink(v, ino, (char *)n->data, n->size) < 0)
        abort();
    for (int k = 0; k < MODEL_XATTRS; k++) {
        ssize_t len = volume_getxattr(v, ino, fixture_text(model_xattrs[k]), NULL, 0);
        n->xattrs[k] = len < 0 ? -1 : (int)len;
    }
    return node;
}

struct loading {
    struct model *model;
    int dir;
};

static bool load_name(void *arg, const struct volume_dirent *entry)
{
    struct loading *l = arg;
    char name[8] = "";
    if (entry->name.len > 7)
        abort();
    memcpy(name, entry->name.data, entry->name.len);
    int node = load_node(l->model, l->dir, entry->attr.ino);
    model_add_name(l->model, l->dir, name, node);
    return true;
}

void model_load(struct model *m)
{
    struct fixture *fixture = m->fixture;
    size_t size_most = m->size_most;
    model_end(m);
    model_begin(m, fixture);
    m->size_most = size_most;
    load_node(m, 0, VOLUME_ROOT);
    /* Nodes are numbered as they are met: those found meanwhile are looked into, too. */
    for (int i = 0; i < MODEL_NODES && m->nodes[i].used; i++) {
        struct loading l = {m, i};
        if (S_ISDIR(m->nodes[i].mode) &&
            volume_readdir(fixture->volume, m->nodes[i].ino, 0, false, load_name, &l) < 0)
            abort();
    }
}
