/* SPDX-License-Identifier: MIT */
#include "control.h"
#include "check.h"
#include "dump.h"
#include <errno.h>
#include <linux/limits.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 1 << 20 };

struct node {
    struct node *next;
    uint64_t ino, lookups;
    const struct file *file;
    char *data;
    size_t size;
    struct timespec made;
};

struct control {
    struct report report;
    uint32_t uid, gid;
    struct timespec made;
    atomic_bool cancelled;
    pthread_mutex_t lock;
    uint64_t next;            /* lock; the inode number to give next */
    struct node *nodes;       /* lock; a handful: a node goes when its file is closed */
    struct check_result last; /* lock; of the last check */
    bool checked;             /* lock; there is one */
};

/* ---- Commands ---- */

static bool cancelled(void *arg, uint64_t done, uint64_t total)
{
    struct control *c = arg;
    (void)done, (void)total;
    return atomic_load_explicit(&c->cancelled, memory_order_relaxed);
}

static int compact(struct control *c)
{
    int err = volume_tend(c->report.volume);
    return err ? err : keg_compact(c->report.keg, cancelled, c);
}

static int hint(struct control *c)
{
    return keg_hint(c->report.keg);
}

static int sync_all(struct control *c)
{
    return volume_sync(c->report.volume, 0);
}

static int check(struct control *c)
{
    struct check_result result;
    int err = check_run(c->report.keg, c->report.volume, cancelled, c, &result);
    if (!err) {
        pthread_mutex_lock(&c->lock);
        struct check_result old = c->last;
        c->last = result;
        c->checked = true;
        pthread_mutex_unlock(&c->lock);
        result = old;
    }
    check_free(&result);
    return err;
}

static const struct command {
    const char *name;
    int (*run)(struct control *control);
} commands[] = {{"compact", compact}, {"hint", hint}, {"sync", sync_all}, {"check", check}};

int control_run(struct control *c, const char *command, size_t len)
{
    static const char blank[] = " \t\r\n";
    while (len && memchr(blank, command[0], 4))
        command++, len--;
    while (len && memchr(blank, command[len - 1], 4))
        len--;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strlen(commands[i].name) == len && !memcmp(commands[i].name, command, len)) {
            int err = commands[i].run(c);
            return err == -ECANCELED ? -EINTR : err;
        }
    return -EINVAL;
}

/* ---- Files ---- */

static int write_stats(struct control *c, FILE *out)
{
    report_stats(&c->report, out);
    return 0;
}

static int write_stats_json(struct control *c, FILE *out)
{
    report_stats_json(&c->report, out);
    return 0;
}

static int write_metrics(struct control *c, FILE *out)
{
    report_metrics(&c->report, out);
    return 0;
}

static int write_segments(struct control *c, FILE *out)
{
    return report_segments(&c->report, out);
}

static int write_segments_json(struct control *c, FILE *out)
{
    return report_segments_json(&c->report, out);
}

static int write_check_as(struct control *c, FILE *out,
                          void (*print)(const struct check_result *result, FILE *out))
{
    pthread_mutex_lock(&c->lock);
    bool checked = c->checked;
    if (checked)
        print(&c->last, out);
    pthread_mutex_unlock(&c->lock);
    return checked ? 0 : -ENODATA;
}

static int write_check(struct control *c, FILE *out)
{
    int err = write_check_as(c, out, check_print);
    if (err == -ENODATA)
        fputs("not checked since it was mounted; write \"check\" to .kegfs/control\n", out);
    return err == -ENODATA ? 0 : err;
}

static int write_check_json(struct control *c, FILE *out)
{
    int err = write_check_as(c, out, check_print_json);
    if (err == -ENODATA)
        fputs("null\n", out);
    return err == -ENODATA ? 0 : err;
}

static int write_dump(struct control *c, FILE *out)
{
    return dump_write(c->report.keg, cancelled, c, out);
}

static int write_dump_json(struct control *c, FILE *out)
{
    return dump_write_json(c->report.keg, cancelled, c, out);
}

/* Those without `listed` cost much to make: a walk through the directory must not make them. */
static const struct file {
    const char *name;
    mode_t mode;
    bool listed;
    int (*write)(struct control *control, FILE *out);
} files[] = {
    {"stats", 0444, true, write_stats},
    {"stats.json", 0444, true, write_stats_json},
    {"metrics", 0444, true, write_metrics},
    {"segments", 0444, true, write_segments},
    {"segments.json", 0444, true, write_segments_json},
    {"control", 0200, true, NULL},
    {"check", 0400, true, write_check},
    {"check.json", 0400, true, write_check_json},
    {"dump", 0400, false, write_dump},
    {"dump.json", 0400, false, write_dump_json},
};
enum { FILES = sizeof files / sizeof files[0] };

const char *control_list(size_t i)
{
    for (size_t k = 0; k < FILES; k++)
        if (files[k].listed && !i--)
            return files[k].name;
    return NULL;
}

static const struct file *find_file(const char *name)
{
    for (size_t i = 0; i < FILES; i++)
        if (!strcmp(files[i].name, name))
            return &files[i];
    return NULL;
}

static int contents(struct control *c, const struct file *file, char **data, size_t *size)
{
    *data = NULL;
    *size = 0;
    if (!file->write)
        return 0;
    FILE *out = open_memstream(data, size);
    if (!out)
        return -errno;
    int err = file->write(c, out);
    bool broken = ferror(out);
    if (fclose(out) || broken)
        err = err ? err : -ENOMEM;
    if (err) {
        free(*data);
        *data = NULL;
    }
    return err;
}

/* ---- Inodes ---- */

int control_new(const struct report *report, uint32_t uid, uint32_t gid, struct control **out)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->report = *report;
    c->uid = uid;
    c->gid = gid;
    c->next = CONTROL_DIR + 1;
    clock_gettime(CLOCK_REALTIME, &c->made);
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return 0;
}

void control_cancel(struct control *c)
{
    atomic_store_explicit(&c->cancelled, true, memory_order_relaxed);
}

static void node_free(struct node *node)
{
    const bool large = node->size > LARGE;
    free(node->data);
    free(node);
#ifdef __GLIBC__
    if (large) /* else a dump's memory stays with the allocator for good */
        malloc_trim(0);
#else
    (void)large;
#endif
}

void control_free(struct control *c)
{
    if (!c)
        return;
    for (struct node *node = c->nodes, *next; node; node = next) {
        next = node->next;
        node_free(node);
    }
    check_free(&c->last);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

bool control_reserved(uint64_t dir, const char *name)
{
    return dir == VOLUME_ROOT && !strcmp(name, CONTROL_NAME);
}

bool control_permits(const struct control *c, uint32_t uid)
{
    return uid == 0 || uid == c->uid;
}

static void stat_of(const struct control *c, const struct node *node, struct stat *st)
{
    *st = (struct stat){.st_uid = c->uid, .st_gid = c->gid, .st_blksize = 4096};
    st->st_ino = node ? node->ino : CONTROL_DIR;
    st->st_mode = node ? S_IFREG | node->file->mode : S_IFDIR | 0555;
    st->st_nlink = node ? 1 : 2;
    st->st_size = node ? (off_t)node->size : 0;
    st->st_atim = st->st_mtim = st->st_ctim = node ? node->made : c->made;
}

int control_lookup(struct control *c, uint64_t dir, const char *name, uint32_t uid, struct stat *st)
{
    if (control_reserved(dir, name)) {
        stat_of(c, NULL, st);
        return 0;
    }
    const struct file *file = dir == CONTROL_DIR ? find_file(name) : NULL;
    if (!file)
        return -ENOENT;
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return -ENOMEM;
    /* Looking at a file's mode needs no right to read it, and must not cost what reading it does.
     */
    const bool readable = file->mode & S_IROTH || control_permits(c, uid);
    int err = readable ? contents(c, file, &node->data, &node->size) : 0;
    if (err) {
        free(node);
        return err == -ECANCELED ? -EINTR : err;
    }
    node->file = file;
    node->lookups = 1;
    clock_gettime(CLOCK_REALTIME, &node->made);
    pthread_mutex_lock(&c->lock);
    node->ino = c->next++;
    node->next = c->nodes;
    c->nodes = node;
    stat_of(c, node, st);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

/* lock is held. */
static struct node **find_locked(struct control *c, uint64_t ino)
{
    struct node **at = &c->nodes;
    while (*at && (*at)->ino != ino)
        at = &(*at)->next;
    return at;
}

void control_forget(struct control *c, uint64_t ino, uint64_t n)
{
    pthread_mutex_lock(&c->lock);
    struct node **at = find_locked(c, ino), *node = *at;
    if (node && node->lookups > n) {
        node->lookups -= n;
        node = NULL;
    }
    if (node)
        *at = node->next;
    pthread_mutex_unlock(&c->lock);
    if (node)
        node_free(node);
}

int control_getattr(struct control *c, uint64_t ino, struct stat *st)
{
    pthread_mutex_lock(&c->lock);
    const struct node *node = ino == CONTROL_DIR ? NULL : *find_locked(c, ino);
    const int err = node || ino == CONTROL_DIR ? 0 : -ESTALE;
    if (!err)
        stat_of(c, node, st);
    pthread_mutex_unlock(&c->lock);
    return err;
}

int control_read(struct control *c, uint64_t ino, uint64_t offset, size_t size,
                 struct keg_bytes *data)
{
    pthread_mutex_lock(&c->lock);
    struct node *node = *find_locked(c, ino);
    if (node)
        node->lookups++;
    pthread_mutex_unlock(&c->lock);
    if (!node)
        return ino == CONTROL_DIR ? -EISDIR : -ESTALE;
    uint64_t rest = offset < node->size ? node->size - offset : 0;
    *data = (struct keg_bytes){rest ? node->data + offset : "", rest < size ? (size_t)rest : size};
    return 0;
}

int control_writable(struct control *c, uint64_t ino)
{
    if (ino == CONTROL_DIR)
        return -EISDIR;
    pthread_mutex_lock(&c->lock);
    const struct node *node = *find_locked(c, ino);
    const int err = !node ? -ESTALE : node->file->write ? -EACCES : 0;
    pthread_mutex_unlock(&c->lock);
    return err;
}

/* ---- Attributes of the root ---- */

int control_setxattr(struct control *c, const char *name)
{
    const char *command = name + strlen(CONTROL_ATTRIBUTES);
    int err = control_run(c, command, strlen(command));
    return err == -EINVAL ? -EOPNOTSUPP : err;
}

ssize_t control_getxattr(struct control *c, const char *name, void *value, size_t size)
{
    char *data;
    size_t len;
    const struct file *file = find_file(name + strlen(CONTROL_ATTRIBUTES));
    /* What only the owner may read as a file is not to be had by everyone here. */
    if (!file || !(file->mode & S_IROTH))
        return -ENODATA;
    int err = contents(c, file, &data, &len);
    if (err)
        return err;
    if (len > XATTR_SIZE_MAX || (size && len > size))
        err = len > XATTR_SIZE_MAX ? -E2BIG : -ERANGE;
    else if (size)
        memcpy(value, data, len);
    free(data);
    return err ? err : (ssize_t)len;
}
