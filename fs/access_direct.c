/* SPDX-License-Identifier: MIT */
#include "access.h"
#include "check.h"
#include "dump.h"
#include "openstore.h"
#include "report.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, PAGE = 128 };

struct direct {
    struct access access; /* first */
    struct openstore *store;
};

static struct direct *of(struct access *access)
{
    return (struct direct *)access;
}

static struct volume *volume_of(struct access *access)
{
    return of(access)->store->volume;
}

static struct keg_bytes text(const char *s)
{
    return (struct keg_bytes){s, strlen(s)};
}

static int put(struct access *a, const char *key, mode_t mode, access_fill_fn *fill, void *arg)
{
    mode_t mask = umask(0);
    umask(mask);
    struct volume_new new = {.mode = S_IFREG | mode, .umask = mask};
    new.uid = geteuid();
    new.gid = getegid();
    return volume_put(volume_of(a), text(key), &new, fill, arg);
}

static int pour(struct volume *volume, uint64_t ino, access_sink_fn *sink, void *arg)
{
    char *buf = malloc(CHUNK);
    uint64_t offset = 0;
    ssize_t n = buf ? 1 : -ENOMEM;
    while (n > 0) {
        n = volume_read(volume, ino, offset, buf, CHUNK);
        if (n > 0) {
            offset += (uint64_t)n;
            int err = sink(arg, buf, (size_t)n);
            if (err)
                n = err;
        }
    }
    free(buf);
    return (int)n;
}

static int get(struct access *a, const char *key, access_sink_fn *sink, void *arg)
{
    struct volume_attr attr;
    int err = volume_resolve(volume_of(a), text(key), &attr);
    if (err)
        return err;
    err = S_ISREG(attr.mode)   ? pour(volume_of(a), attr.ino, sink, arg)
          : S_ISDIR(attr.mode) ? -EISDIR
                               : -EINVAL;
    volume_forget(volume_of(a), attr.ino, 1);
    return err;
}

/* The directory a key's last name is in; counts a lookup. */
static int resolve_parent(struct volume *volume, const char *key, uint64_t *dir)
{
    struct volume_attr attr;
    size_t leaf = access_leaf(key);
    int err = volume_resolve(volume, (struct keg_bytes){key, leaf ? leaf - 1 : 0}, &attr);
    if (!err)
        *dir = attr.ino;
    return err;
}

static int rm(struct access *a, const char *key)
{
    struct volume *volume = volume_of(a);
    struct keg_bytes name = text(key + access_leaf(key));
    struct volume_attr attr;
    uint64_t dir;
    int err = resolve_parent(volume, key, &dir);
    if (err)
        return err;
    err = volume_lookup(volume, dir, name, &attr);
    if (!err) {
        err =
            S_ISDIR(attr.mode) ? volume_rmdir(volume, dir, name) : volume_unlink(volume, dir, name);
        volume_forget(volume, attr.ino, 1);
    }
    volume_forget(volume, dir, 1);
    return err ? err : volume_tend(volume);
}

/* ---- Walking ---- */

struct walk {
    struct volume *volume;
    bool targets;
    access_entry_fn *fn;
    void *arg;
    char path[PATH_MAX]; /* of the directory, with a slash behind unless it is the root */
};

/* A directory is read a page at a time: its entries are looked at between the calls, not in them.
 */
struct page {
    size_t count;
    struct volume_dirent entries[PAGE];
    char names[PAGE][VOLUME_NAME_MAX + 1];
};

static bool fill_page(void *arg, const struct volume_dirent *entry)
{
    struct page *page = arg;
    if (page->count == PAGE)
        return false;
    memcpy(page->names[page->count], entry->name.data, entry->name.len);
    page->names[page->count][entry->name.len] = '\0';
    page->entries[page->count++] = *entry;
    return true;
}

static int show(struct walk *w, size_t len, const char *name, const struct volume_attr *attr)
{
    char target[VOLUME_SYMLINK_MAX + 1];
    struct access_entry entry = {.path = w->path};
    if (len + strlen(name) + 1 >= sizeof w->path)
        return -ENAMETOOLONG;
    strcpy(w->path + len, name);
    volume_stat(attr, &entry.st);
    if (w->targets && S_ISLNK(attr->mode)) {
        ssize_t n = volume_readlink(w->volume, attr->ino, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        entry.target = target;
    }
    int err = w->fn(w->arg, &entry);
    w->path[len] = '\0';
    return err;
}

static int walk_page(struct walk *w, const struct page *page, const char *begin,
                     struct access_todo *todo)
{
    size_t len = strlen(w->path), begin_len = strlen(begin);
    int err = 0;
    for (size_t i = 0; i < page->count; i++) {
        const struct volume_attr *attr = &page->entries[i].attr;
        if (!err && !strncmp(page->names[i], begin, begin_len)) {
            err = show(w, len, page->names[i], attr);
            if (!err && S_ISDIR(attr->mode))
                err = access_todo_add(todo, page->names[i], attr->ino);
        }
        if (attr->nlink)
            volume_forget(w->volume, attr->ino, 1);
    }
    return err;
}

/* begin: what its names must begin with. */
static int walk_directory(struct walk *w, uint64_t dir, const char *begin)
{
    struct access_todo todo = {0};
    struct page *page = malloc(sizeof *page);
    uint64_t cookie = 0;
    size_t len = strlen(w->path);
    int err = page ? 0 : -ENOMEM;
    while (!err) {
        page->count = 0;
        err = volume_readdir(w->volume, dir, cookie, true, fill_page, page);
        if (err || !page->count)
            break;
        cookie = page->entries[page->count - 1].cookie;
        err = walk_page(w, page, begin, &todo);
    }
    free(page);
    for (size_t i = 0; i < todo.count && !err; i++) {
        if (len + strlen(todo.items[i].name) + 2 >= sizeof w->path) {
            err = -ENAMETOOLONG;
            break;
        }
        strcat(strcpy(w->path + len, todo.items[i].name), "/");
        err = walk_directory(w, todo.items[i].ino, "");
        w->path[len] = '\0';
    }
    access_todo_free(&todo);
    return err;
}

static int walk(struct access *a, const char *prefix, bool targets, access_entry_fn *fn, void *arg)
{
    struct walk w = {.volume = volume_of(a), .targets = targets, .fn = fn, .arg = arg};
    uint64_t dir;
    int err = resolve_parent(w.volume, prefix, &dir);
    if (err)
        return err == -ENOENT || err == -ENOTDIR ? 0 : err;
    memcpy(w.path, prefix, access_leaf(prefix));
    err = walk_directory(&w, dir, prefix + access_leaf(prefix));
    volume_forget(w.volume, dir, 1);
    return err;
}

/* ---- Tending ---- */

static int report(struct access *a, enum access_what what, bool json, FILE *out)
{
    const struct openstore *s = of(a)->store;
    struct report r = {.keg = s->keg, .volume = s->volume, .store = s->path};
    switch (what) {
    case ACCESS_STATS:
        (json ? report_stats_json : report_stats)(&r, out);
        return 0;
    case ACCESS_SEGMENTS:
        return (json ? report_segments_json : report_segments)(&r, out);
    case ACCESS_DUMP:
        return (json ? dump_write_json : dump_write)(s->keg, NULL, NULL, out);
    }
    return -EINVAL;
}

static int task(struct access *a, enum access_task what, keg_progress_fn *progress, void *arg)
{
    const struct openstore *s = of(a)->store;
    if (what == ACCESS_HINT)
        return keg_hint(s->keg);
    int err = volume_tend(s->volume);
    return err ? err : keg_compact(s->keg, progress, arg);
}

static int check(struct access *a, bool json, FILE *out, uint64_t *findings,
                 keg_progress_fn *progress, void *arg)
{
    const struct openstore *s = of(a)->store;
    struct check_result result;
    int err = check_run(s->keg, s->volume, progress, arg, &result);
    if (!err)
        (json ? check_print_json : check_print)(&result, out);
    *findings = result.total;
    check_free(&result);
    return err;
}

static int close_(struct access *a)
{
    int err = openstore_close(of(a)->store);
    free(of(a)->store);
    free(a);
    return err;
}

static const struct access_ops ops = {
    .put = put,
    .get = get,
    .rm = rm,
    .walk = walk,
    .report = report,
    .task = task,
    .check = check,
    .close = close_,
};

int access_direct_new(struct openstore *store, struct access **out)
{
    struct direct *d = malloc(sizeof *d);
    if (!d) {
        log_error("cannot open %s: %s", store->path, strerror(ENOMEM));
        int err = openstore_close(store);
        free(store);
        return err ? err : -ENOMEM;
    }
    d->access.ops = &ops;
    d->store = store;
    *out = &d->access;
    return 0;
}
