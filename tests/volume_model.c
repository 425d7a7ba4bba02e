/* SPDX-License-Identifier: MIT */
#include "volume_model.h"
#include <errno.h>
#include <stdlib.h>

const char *const model_xattrs[MODEL_XATTRS] = {"user.a", "user.b", "user.longer"};

/* ---- The tree ---- */

struct model_name *model_find_name(struct model *m, int dir, const char *name)
{
    for (int i = 0; i < MODEL_NAMES; i++) {
        if (m->names[i].name[0] && m->names[i].dir == dir && strcmp(m->names[i].name, name) == 0)
            return &m->names[i];
    }
    return NULL;
}

unsigned model_count_names(const struct model *m, int dir, bool dirs_only)
{
    unsigned count = 0;
    for (int i = 0; i < MODEL_NAMES; i++) {
        const struct model_name *n = &m->names[i];
        count += n->name[0] && n->dir == dir && (!dirs_only || S_ISDIR(m->nodes[n->node].mode));
    }
    return count;
}

void model_add_name(struct model *m, int dir, const char *name, int node)
{
    for (int i = 0; i < MODEL_NAMES; i++) {
        if (!m->names[i].name[0]) {
            snprintf(m->names[i].name, sizeof m->names[i].name, "%s", name);
            m->names[i].dir = dir;
            m->names[i].node = node;
            return;
        }
    }
    abort(); /* there are fewer nodes and links than names */
}

bool model_is_full(const struct model *m)
{
    int free_nodes = 0, free_names = 0;
    for (int i = 0; i < MODEL_NODES; i++)
        free_nodes += !m->nodes[i].used;
    for (int i = 0; i < MODEL_NAMES; i++)
        free_names += !m->names[i].name[0];
    return free_nodes < 2 || free_names < 2;
}

int model_new_node(struct model *m, uint32_t mode)
{
    int i = 1;
    while (m->nodes[i].used)
        i++;
    struct model_node *n = &m->nodes[i];
    *n = (struct model_node){.used = true, .mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1};
    for (int k = 0; k < MODEL_XATTRS; k++)
        n->xattrs[k] = -1;
    if (S_ISREG(mode) || S_ISLNK(mode))
        n->data = calloc(1, MODEL_SIZE_MAX);
    return i;
}

void model_commit(struct model_node *n)
{
    free(n->old_data);
    n->old_data = NULL;
    n->held = 0;
    n->staged = false;
}

void model_drop_held(struct model_node *n)
{
    if (!n->staged)
        model_commit(n);
}

void model_keep_old(struct model_node *n)
{
    if (n->old_data)
        return;
    n->old_data = malloc(MODEL_SIZE_MAX);
    if (!n->old_data)
        abort();
    memcpy(n->old_data, n->data, MODEL_SIZE_MAX);
    n->old_size = n->size;
    n->old_hash = n->hash;
}

static void free_node(struct model_node *n)
{
    free(n->data);
    model_commit(n);
    *n = (struct model_node){0};
}

void model_unuse(struct model *m, int node)
{
    if (m->nodes[node].nlink == 0 && m->nodes[node].lookups == 0)
        free_node(&m->nodes[node]);
}

void model_begin(struct model *m, struct fixture *fixture)
{
    struct random random = m->random;
    *m = (struct model){.fixture = fixture,
                        .random = random,
                        .verbose = getenv("TEST_VERBOSE"),
                        .size_most = MODEL_SIZE_MAX};
    struct model_node *root = &m->nodes[0];
    *root = (struct model_node){.used = true, .ino = VOLUME_ROOT, .mode = S_IFDIR | 0755};
    root->nlink = 2;
    for (int k = 0; k < MODEL_XATTRS; k++)
        root->xattrs[k] = -1;
}

void model_end(struct model *m)
{
    for (int i = 0; i < MODEL_NODES; i++)
        free_node(&m->nodes[i]);
    free(m->history);
}

/* ---- The trees as text ---- */

uint64_t model_hash(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3;
    return hash;
}

static uint64_t hash_bytes(const uint8_t *data, size_t len)
{
    uint64_t hash = len, word = 0;
    for (size_t i = 0; i < len; i += sizeof word) {
        memcpy(&word, data + i, len - i < sizeof word ? len - i : sizeof word);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

static void print_line(FILE *out, const char *path, uint32_t mode, uint32_t uid, unsigned nlink,
                       uint64_t hash, size_t size)
{
    fprintf(out, "%s %o %u %u %zu %llx", path, mode, uid, nlink, size, (unsigned long long)hash);
}

static uint64_t hash_node(const struct model_node *n, bool old)
{
    if (!n->data)
        return 0;
    if (old)
        return n->old_hash ? n->old_hash : hash_bytes(n->old_data, n->old_size);
    return n->hash ? n->hash : hash_bytes(n->data, n->size);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const struct model_name *const *)a)->name,
                  (*(const struct model_name *const *)b)->name);
}

static void print_node(const struct model *m, FILE *out, int node, const char *path, bool logged)
{
    const struct model_node *n = &m->nodes[node];
    bool old = logged && n->old_data;
    size_t size = old ? n->old_size : n->size;
    if (S_ISDIR(n->mode))
        size = (size_t)model_count_names(m, node, false) * DIRENT_SIZE;
    print_line(out, path, n->mode, n->uid, n->nlink, hash_node(n, old), size);
    for (int k = 0; k < MODEL_XATTRS; k++) {
        if (n->xattrs[k] >= 0)
            fprintf(out, " %s=%d", model_xattrs[k], n->xattrs[k]);
    }
    fprintf(out, "\n");
    if (!S_ISDIR(n->mode))
        return;
    const struct model_name *sorted[MODEL_NAMES];
    size_t count = 0;
    for (int i = 0; i < MODEL_NAMES; i++) {
        if (m->names[i].name[0] && m->names[i].dir == node)
            sorted[count++] = &m->names[i];
    }
    qsort(sorted, count, sizeof *sorted, compare_names);
    for (size_t i = 0; i < count; i++) {
        char below[1024];
        snprintf(below, sizeof below, "%s/%s", path, sorted[i]->name);
        print_node(m, out, sorted[i]->node, below, logged);
    }
}

char *model_text(const struct model *m, bool logged)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        abort();
    print_node(m, out, 0, "", logged);
    fclose(out);
    return text;
}

struct listing {
    size_t count;
    struct {
        char name[8];
        uint64_t ino;
    } names[MODEL_NAMES];
};

static bool list_one(void *arg, const struct volume_dirent *entry)
{
    struct listing *l = arg;
    if (l->count == MODEL_NAMES || entry->name.len > 7)
        return false;
    memset(l->names[l->count].name, 0, 8);
    memcpy(l->names[l->count].name, entry->name.data, entry->name.len);
    l->names[l->count++].ino = entry->attr.ino;
    return true;
}

static int compare_listed(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int print_contents(struct volume *v, FILE *out, const struct volume_attr *attr,
                          const char *path)
{
    uint8_t *data = malloc(MODEL_SIZE_MAX);
    ssize_t n = 0;
    if (!data)
        abort();
    if (S_ISREG(attr->mode))
        n = volume_read(v, attr->ino, 0, data, MODEL_SIZE_MAX);
    else if (S_ISLNK(attr->mode))
        n = volume_readlink(v, attr->ino, (char *)data, MODEL_SIZE_MAX);
    bool has_data = S_ISREG(attr->mode) || S_ISLNK(attr->mode);
    if (has_data && n >= 0 && (uint64_t)n != attr->size)
        fprintf(out, "(read %zd of %llu) ", n, (unsigned long long)attr->size);
    print_line(out, path, attr->mode, attr->uid, attr->nlink,
               has_data && n >= 0 ? hash_bytes(data, (size_t)n) : 0, (size_t)attr->size);
    for (int k = 0; n >= 0 && k < MODEL_XATTRS; k++) {
        ssize_t len =
            volume_getxattr(v, attr->ino, fixture_text(model_xattrs[k]), data, MODEL_SIZE_MAX);
        if (len >= 0)
            fprintf(out, " %s=%zd", model_xattrs[k], len);
        else if (len != -ENODATA)
            n = len;
    }
    fprintf(out, "\n");
    free(data);
    return n < 0 ? (int)n : 0;
}

static int print_inode(struct volume *v, FILE *out, uint64_t ino, const char *path)
{
    struct volume_attr attr;
    int error = volume_getattr(v, ino, &attr);
    if (!error)
        error = print_contents(v, out, &attr, path);
    if (error || !S_ISDIR(attr.mode))
        return error;
    struct listing *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    error = volume_readdir(v, ino, 0, false, list_one, l);
    qsort(l->names, l->count, sizeof *l->names, compare_listed);
    for (size_t i = 0; !error && i < l->count; i++) {
        char below[1024];
        snprintf(below, sizeof below, "%s/%s", path, l->names[i].name);
        error = print_inode(v, out, l->names[i].ino, below);
    }
    free(l);
    return error;
}

char *model_volume_text(struct volume *volume)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        abort();
    int error = print_inode(volume, out, VOLUME_ROOT, "");
    if (error)
        fprintf(out, "error %d\n", error);
    fclose(out);
    return text;
}

int model_compare(struct model *m)
{
    char *expected = model_text(m, false), *found = model_volume_text(m->fixture->volume);
    int differ = strcmp(expected, found) != 0;
    if (differ && m->keep_history && strstr(found, "error -5"))
        differ = -EIO;
    else if (differ)
        printf("the model:\n%s\nthe volume:\n%s\n", expected, found);
    free(expected);
    free(found);
    if (!differ && volume_check(m->fixture->volume, fixture_print, NULL) != 0)
        differ = 1;
    return differ;
}

/* The tree, as a crash would leave it now, is one that may be found. */
void model_remember(struct model *m)
{
    if (!m->keep_history)
        return;
    for (int i = 0; i < MODEL_NODES; i++) {
        struct model_node *n = &m->nodes[i];
        if (n->used && n->data && !n->hash)
            n->hash = hash_bytes(n->data, n->size);
    }
    if (m->history_count == m->history_capacity) {
        m->history_capacity = m->history_capacity ? m->history_capacity * 2 : 256;
        m->history = realloc(m->history, m->history_capacity * sizeof *m->history);
        if (!m->history)
            abort();
    }
    char *text = model_text(m, true);
    uint64_t hash = model_hash(text);
    if (m->history_count == 0 || m->history[m->history_count - 1] != hash)
        m->history[m->history_count++] = hash;
    free(text);
}

void model_keep_history(struct model *m)
{
    m->keep_history = true;
    m->history_count = m->synced = m->done = 0;
    model_remember(m);
}

/* All that is held is logged, one by one, the oldest first. */
void model_flush_held(struct model *m)
{
    for (;;) {
        struct model_node *first = NULL;
        for (int i = 0; i < MODEL_NODES; i++) {
            struct model_node *n = &m->nodes[i];
            if (n->held && !n->staged && (!first || n->held < first->held))
                first = n;
        }
        if (!first)
            return;
        model_drop_held(first);
        model_remember(m);
    }
}
