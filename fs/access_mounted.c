/* SPDX-License-Identifier: MIT */
/* Everything through the mount, as any program would do it: plain files, and the control directory.
 * Symbolic links in a key are not followed, as they are not without a mount. */
#include "access.h"
#include "control.h"
#include "mounts.h"
#include "temporary.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/xattr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

struct mounted {
    struct access access; /* first */
    int root;             /* O_PATH */
};

static int root_of(struct access *access)
{
    return ((struct mounted *)access)->root;
}

/* Opens the directory that a key's last name is in, making it if mode is not 0. */
static int open_parent(struct access *a, const char *key, mode_t mode)
{
    char name[VOLUME_NAME_MAX + 1];
    const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(root_of(a), ".", flags);
    const char *end = key + access_leaf(key);
    while (fd >= 0 && key < end) {
        size_t len = strcspn(key, "/");
        memcpy(name, key, len);
        name[len] = '\0';
        key += len + 1;
        int below = openat(fd, name, flags);
        if (below < 0 && errno == ENOENT && mode && (!mkdirat(fd, name, mode) || errno == EEXIST))
            below = openat(fd, name, flags);
        int err = errno;
        close(fd);
        errno = err;
        fd = below;
    }
    return fd < 0 ? -errno : fd;
}

/* ---- Putting ---- */

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int fill_file(int fd, access_fill_fn *fill, void *arg)
{
    char *buf = malloc(CHUNK);
    int err = buf ? 0 : -ENOMEM;
    while (!err) {
        ssize_t n = fill(arg, buf, CHUNK);
        if (n <= 0) {
            err = (int)n;
            break;
        }
        err = write_all(fd, buf, (size_t)n);
    }
    free(buf);
    return err;
}

/* The ACL of name's file, or none, instead of the one that fd's file inherited. -EOPNOTSUPP where
 * the mount serves none, so that nobody can tell. */
static int keep_acl(int dir, const char *name, int fd)
{
    static char acl[64 << 10]; /* as long as an attribute may be */
    static const char attribute[] = XATTR_NAME_POSIX_ACL_ACCESS;
    char path[64];
    int old = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC); /* it need not be readable */
    if (old < 0)
        return -errno;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", old);
    ssize_t n = getxattr(path, attribute, acl, sizeof acl);
    int err = n < 0 ? -errno : 0;
    close(old);
    if (err == -ENODATA) {
        err = fremovexattr(fd, attribute) ? -errno : 0;
        err = err == -ENODATA ? 0 : err;
    } else if (!err)
        err = fsetxattr(fd, attribute, acl, (size_t)n, 0) ? -errno : 0;
    return err;
}

/* An existing file keeps its mode, ACL and owner; what is no file is not replaced. Of an ACL that
 * cannot be seen the group bits may be the mask, which is more than the group has, and the mask of
 * the one that was inherited, which cannot be taken off: none is what widens nothing of either. */
static int keep_attributes(int dir, const char *name, int fd)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -EISDIR : -EEXIST;
    mode_t mode = st.st_mode & 07777;
    int err = keep_acl(dir, name, fd);
    if (err == -EOPNOTSUPP) {
        mode &= ~(mode_t)S_IRWXG;
        err = 0;
    }
    if (!err && (fchown(fd, st.st_uid, st.st_gid) || fchmod(fd, mode)))
        err = -errno;
    return err;
}

static int put_in(int dir, const char *name, mode_t mode, access_fill_fn *fill, void *arg)
{
    int fd = temporary_make(dir, mode);
    if (fd < 0)
        return fd;
    int err = fill_file(fd, fill, arg);
    if (!err)
        err = keep_attributes(dir, name, fd);
    if (!err && fsync(fd))
        err = -errno;
    if (close(fd) && !err)
        err = -errno;
    if (!err)
        err = temporary_rename(name);
    if (err)
        temporary_remove();
    return err;
}

/* A descriptor with O_PATH cannot be synced. */
static int sync_directory(int dir)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int err = fsync(fd) ? -errno : 0;
    close(fd);
    return err;
}

static int put(struct access *a, const char *key, mode_t mode, access_fill_fn *fill, void *arg)
{
    int dir = open_parent(a, key, 0777);
    if (dir < 0)
        return dir;
    int err = put_in(dir, key + access_leaf(key), mode, fill, arg);
    if (!err)
        err = sync_directory(dir);
    close(dir);
    return err;
}

/* ---- Getting, removing ---- */

static int pour(int fd, access_sink_fn *sink, void *arg)
{
    char *buf = malloc(CHUNK);
    int err = buf ? 0 : -ENOMEM;
    while (!err) {
        ssize_t n = read(fd, buf, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            err = n ? -errno : 0;
            break;
        }
        err = sink(arg, buf, (size_t)n);
    }
    free(buf);
    return err;
}

static int get(struct access *a, const char *key, access_sink_fn *sink, void *arg)
{
    struct stat st;
    int dir = open_parent(a, key, 0);
    if (dir < 0)
        return dir;
    const char *name = key + access_leaf(key);
    int fd = -1, err = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
    if (!err && !S_ISREG(st.st_mode))
        err = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    if (!err && (fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        err = -errno;
    if (!err) {
        err = pour(fd, sink, arg);
        close(fd);
    }
    close(dir);
    return err;
}

static int rm(struct access *a, const char *key)
{
    int dir = open_parent(a, key, 0);
    if (dir < 0)
        return dir;
    const char *name = key + access_leaf(key);
    int err = unlinkat(dir, name, 0) ? -errno : 0;
    if (err == -EISDIR)
        err = unlinkat(dir, name, AT_REMOVEDIR) ? -errno : 0;
    if (!err)
        err = sync_directory(dir);
    close(dir);
    return err;
}

/* ---- Walking ---- */

struct walk {
    int root;
    bool targets;
    access_entry_fn *fn;
    void *arg;
    char path[PATH_MAX]; /* of the directory, with a slash behind unless it is the root */
};

/* The entry's path is in w->path. */
static int show(struct walk *w, int dir, const char *name, struct stat *st)
{
    char target[VOLUME_SYMLINK_MAX + 1];
    struct access_entry entry = {.path = w->path};
    if (fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW)) {
        st->st_mode = 0;
        return errno == ENOENT ? 0 : -errno; /* removed meanwhile */
    }
    entry.st = *st;
    if (w->targets && S_ISLNK(st->st_mode)) {
        ssize_t n = readlinkat(dir, name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        entry.target = target;
    }
    return w->fn(w->arg, &entry);
}

static int walk_names(struct walk *w, DIR *dir, const char *begin, struct access_todo *todo)
{
    const struct dirent *d;
    size_t len = strlen(w->path), begin_len = strlen(begin);
    int err = 0;
    while (!err && (errno = 0, d = readdir(dir))) {
        struct stat st;
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") ||
            strncmp(d->d_name, begin, begin_len) != 0)
            continue;
        if (len + strlen(d->d_name) + 2 >= sizeof w->path)
            return -ENAMETOOLONG;
        strcpy(w->path + len, d->d_name);
        err = show(w, dirfd(dir), d->d_name, &st);
        w->path[len] = '\0';
        if (!err && S_ISDIR(st.st_mode))
            err = access_todo_add(todo, d->d_name, st.st_ino);
    }
    return err ? err : -errno;
}

/* Opened by its whole path, so that a deep tree needs no more than one descriptor. */
static int walk_directory(struct walk *w, const char *begin)
{
    struct access_todo todo = {0};
    size_t len = strlen(w->path);
    int fd = openat(w->root, len ? w->path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int err = -errno;
        close(fd);
        return err;
    }
    int err = walk_names(w, dir, begin, &todo);
    closedir(dir);
    for (size_t i = 0; i < todo.count && !err; i++) {
        strcat(strcpy(w->path + len, todo.items[i].name), "/");
        err = walk_directory(w, "");
        if (err == -ENOENT)
            err = 0;
        w->path[len] = '\0';
    }
    access_todo_free(&todo);
    return err;
}

static int walk(struct access *a, const char *prefix, bool targets, access_entry_fn *fn, void *arg)
{
    struct walk w = {.root = root_of(a), .targets = targets, .fn = fn, .arg = arg};
    memcpy(w.path, prefix, access_leaf(prefix));
    int err = walk_directory(&w, prefix + access_leaf(prefix));
    return err == -ENOENT || err == -ENOTDIR ? 0 : err;
}

/* ---- Tending ---- */

static int command(struct access *a, const char *word)
{
    int fd = mounts_open_control(root_of(a), CONTROL_NAME "/control");
    return fd < 0 ? fd : mounts_tell(fd, word);
}

static int to_stream(void *arg, const void *data, size_t len)
{
    fwrite(data, 1, len, arg);
    return 0;
}

static int copy_control(struct access *a, const char *name, bool json, FILE *out)
{
    char path[64];
    (void)snprintf(path, sizeof path, CONTROL_NAME "/%s%s", name, json ? ".json" : "");
    int fd = openat(root_of(a), path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int err = pour(fd, to_stream, out);
    close(fd);
    return err;
}

static int report(struct access *a, enum access_what what, bool json, FILE *out)
{
    static const char *const names[] = {
        [ACCESS_STATS] = "stats", [ACCESS_SEGMENTS] = "segments", [ACCESS_DUMP] = "dump"};
    return copy_control(a, names[what], json, out);
}

static int task(struct access *a, enum access_task what, keg_progress_fn *progress, void *arg)
{
    (void)progress, (void)arg; /* the daemon does not say how far it is */
    return command(a, what == ACCESS_HINT ? "hint" : "compact");
}

static int check(struct access *a, bool json, FILE *out, uint64_t *findings,
                 keg_progress_fn *progress, void *arg)
{
    char *data = NULL;
    size_t len;
    (void)progress, (void)arg;
    *findings = 0;
    int err = command(a, "check");
    FILE *memory = err ? NULL : open_memstream(&data, &len);
    if (!err && !memory)
        err = -errno;
    if (!err) {
        err = copy_control(a, "check", true, memory);
        if (fclose(memory) && !err)
            err = -errno;
    }
    /* The report begins with how many. */
    if (!err && sscanf(data, "{\"total\": %" SCNu64, findings) != 1)
        err = -EPROTO;
    free(data);
    return err ? err : copy_control(a, "check", json, out);
}

static int close_(struct access *a)
{
    close(root_of(a));
    free(a);
    return 0;
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

int access_mounted_new(const char *mountpoint, struct access **out)
{
    struct stat st;
    struct mounted *m = malloc(sizeof *m);
    if (!m)
        return -ENOMEM;
    m->access.ops = &ops;
    m->root = open(mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (m->root < 0 || fstatat(m->root, CONTROL_NAME, &st, 0)) {
        int err = -errno;
        if (m->root >= 0)
            close(m->root);
        free(m);
        return err;
    }
    *out = &m->access;
    return 0;
}
