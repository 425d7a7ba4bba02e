/* SPDX-License-Identifier: MIT */
/* The commands on keys: put, get, rm, ls. */
#include "access.h"
#include "commands.h"
#include "report.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *reason(int err)
{
    switch (err) {
    case -ENOENT:
        return "no such key";
    case -ENAMETOOLONG:
        return "a path would be longer than 4,095 bytes; use the mount, a directory at a time";
    case -EISDIR:
        return "is a directory";
    case -EINVAL:
    case -EEXIST:
        return "is not a regular file";
    case -ENOTDIR:
        return "a parent of it is not a directory";
    case -ENOTEMPTY:
        return "the directory is not empty";
    case -ENOSPC:
        return "no space is left in the store; remove something, or run \"kegfs compact\"";
    case -EROFS:
        return "the store is read-only; \"kegfs stats\" says why";
    case -EIO:
        return "damaged or unreadable; \"kegfs check\" says more";
    }
    return strerror(-err);
}

static int said(const char *what, const char *key, int err)
{
    if (err)
        log_error("%s: %s: %s", what, key, reason(err));
    return err ? COMMANDS_FAILED : COMMANDS_OK;
}

static bool take_key(const char *arg, char *key)
{
    switch (access_key(arg, key)) {
    case 0:
        return true;
    case -ENAMETOOLONG:
        log_error("key too long: %.60s...: a name has at most 255 bytes, a path 4,095", arg);
        return false;
    case -EPERM:
        log_error("reserved key: %s: .kegfs in the root is the control directory", arg);
        return false;
    }
    log_error("not a key: \"%s\": it is a path below the root, without . and ..", arg);
    return false;
}

/* ---- put ---- */

struct source {
    int fd;
    int err; /* of reading, to be told from the store's */
};

static ssize_t read_source(void *arg, void *buf, size_t size)
{
    struct source *source = arg;
    ssize_t n;
    while ((n = read(source->fd, buf, size)) < 0 && errno == EINTR)
        ;
    if (n < 0)
        source->err = -errno;
    return n < 0 ? source->err : n;
}

static int put_from(const char *store, const char *key, const char *file, struct source *source)
{
    struct access *access;
    if (access_open(store, ACCESS_MAKE, &access))
        return COMMANDS_FAILED;
    int err = access->ops->put(access, key, 0666, read_source, source);
    int code = COMMANDS_FAILED;
    if (source->err)
        log_error("cannot read %s: %s; nothing was changed", file, strerror(-source->err));
    else
        code = said("cannot put", key, err);
    return access_finish(access, code);
}

int commands_put(const struct commands_entry *self, int argc, char **argv)
{
    struct commands_options options = {.letters = "", .min = 2, .max = 3};
    struct source source = {.fd = STDIN_FILENO};
    char key[PATH_MAX];
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    if (!take_key(argv[1], key))
        return COMMANDS_FAILED;
    bool named = count == 3 && strcmp(argv[2], "-") != 0;
    const char *file = named ? argv[2] : "standard input";
    if (named && (source.fd = open(file, O_RDONLY | O_CLOEXEC)) < 0) {
        log_error("cannot read %s: %s", file, strerror(errno));
        return COMMANDS_FAILED;
    }
    code = put_from(argv[0], key, file, &source);
    if (named)
        close(source.fd);
    return code;
}

/* ---- get ---- */

struct target {
    const char *file;
    int fd;  /* -1: not opened yet */
    int err; /* of writing */
};

static int open_target(struct target *t)
{
    if (t->fd < 0)
        t->fd = open(t->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (t->fd < 0)
        t->err = -errno;
    return t->err;
}

static int write_target(void *arg, const void *data, size_t len)
{
    struct target *t = arg;
    const char *at = data;
    if (open_target(t))
        return t->err;
    while (len) {
        ssize_t n = write(t->fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return t->err = -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int commands_get(const struct commands_entry *self, int argc, char **argv)
{
    struct commands_options options = {.letters = "", .min = 2, .max = 3};
    struct target t = {.file = "standard output", .fd = STDOUT_FILENO};
    struct access *access;
    char key[PATH_MAX];
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    if (!take_key(argv[1], key) || access_open(argv[0], ACCESS_LOOK, &access))
        return COMMANDS_FAILED;
    if (count == 3 && strcmp(argv[2], "-") != 0)
        t = (struct target){.file = argv[2], .fd = -1};
    int err = access->ops->get(access, key, write_target, &t);
    if (!err)
        err = open_target(&t); /* of an empty value, too, there is a file */
    if (t.fd >= 0 && close(t.fd) && !t.err)
        err = t.err = -errno;
    if (t.err)
        log_error("cannot write %s: %s", t.file, strerror(-t.err));
    code = t.err ? COMMANDS_FAILED : said("cannot get", key, err);
    return access_finish(access, code);
}

/* ---- rm ---- */

int commands_rm(const struct commands_entry *self, int argc, char **argv)
{
    struct commands_options options = {.letters = "", .min = 2, .max = -1};
    struct access *access;
    char key[PATH_MAX];
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    if (access_open(argv[0], ACCESS_CHANGE, &access))
        return COMMANDS_FAILED;
    code = COMMANDS_OK;
    for (int i = 1; i < count; i++)
        if (!take_key(argv[i], key) || said("cannot remove", key, access->ops->rm(access, key)))
            code = COMMANDS_FAILED;
    return access_finish(access, code);
}

/* ---- ls ---- */

struct list {
    bool details, json;
    char end;
    const char *comma;
};

static void mode_text(mode_t mode, char text[11])
{
    static const char letters[] = "rwxrwxrwx";
    static const struct {
        mode_t type;
        char letter;
    } types[] = {{S_IFDIR, 'd'}, {S_IFLNK, 'l'}, {S_IFCHR, 'c'},
                 {S_IFBLK, 'b'}, {S_IFIFO, 'p'}, {S_IFSOCK, 's'}};
    text[0] = '-';
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if ((mode & S_IFMT) == types[i].type)
            text[0] = types[i].letter;
    for (int i = 0; i < 9; i++)
        text[i + 1] = mode & (0400u >> i) ? letters[i] : '-';
    if (mode & S_ISUID)
        text[3] = mode & S_IXUSR ? 's' : 'S';
    if (mode & S_ISGID)
        text[6] = mode & S_IXGRP ? 's' : 'S';
    if (mode & S_ISVTX)
        text[9] = mode & S_IXOTH ? 't' : 'T';
    text[10] = '\0';
}

static void list_details(const struct access_entry *e)
{
    char mode[11], when[32] = "?";
    struct tm tm;
    mode_text(e->st.st_mode, mode);
    if (localtime_r(&e->st.st_mtime, &tm))
        (void)strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    printf("%s %3ju %5u %5u %12jd %s ", mode, (uintmax_t)e->st.st_nlink, e->st.st_uid, e->st.st_gid,
           (intmax_t)e->st.st_size, when);
}

static void list_json(struct list *list, const struct access_entry *e)
{
    printf("%s\n  {\"path\": ", list->comma);
    report_json_string(stdout, e->path);
    if (e->target) {
        fputs(", \"target\": ", stdout);
        report_json_string(stdout, e->target);
    }
    printf(", \"ino\": %ju, \"mode\": \"%06o\", \"nlink\": %ju, \"uid\": %u, \"gid\": %u, "
           "\"size\": %jd, \"mtime\": %jd.%09ld}",
           (uintmax_t)e->st.st_ino, e->st.st_mode, (uintmax_t)e->st.st_nlink, e->st.st_uid,
           e->st.st_gid, (intmax_t)e->st.st_size, (intmax_t)e->st.st_mtim.tv_sec,
           e->st.st_mtim.tv_nsec);
    list->comma = ",";
}

static int list_entry(void *arg, const struct access_entry *e)
{
    struct list *list = arg;
    if (list->json) {
        list_json(list, e);
    } else {
        if (list->details)
            list_details(e);
        fputs(e->path, stdout);
        if (S_ISDIR(e->st.st_mode))
            putchar('/');
        if (list->details && e->target)
            printf(" -> %s", e->target);
        putchar(list->end);
    }
    return ferror(stdout) ? -EPIPE : 0;
}

/* A prefix may end with a slash: then it is all that is below a directory. */
static bool take_prefix(const char *arg, char *prefix)
{
    size_t len = strlen(arg);
    prefix[0] = '\0';
    if (strspn(arg, "/") == len)
        return true;
    if (!take_key(arg, prefix))
        return false;
    if (arg[len - 1] == '/' && strlen(prefix) + 1 < PATH_MAX)
        strcat(prefix, "/");
    return true;
}

int commands_ls(const struct commands_entry *self, int argc, char **argv)
{
    struct commands_options options = {.letters = "l0j", .min = 1, .max = 2};
    struct access *access;
    char prefix[PATH_MAX];
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    struct list list = {.details = options.given['l'],
                        .json = options.given['j'],
                        .end = options.given['0'] ? '\0' : '\n',
                        .comma = ""};
    if (!take_prefix(count == 2 ? argv[1] : "", prefix) ||
        access_open(argv[0], ACCESS_LOOK, &access))
        return COMMANDS_FAILED;
    if (list.json)
        putchar('[');
    int err = access->ops->walk(access, prefix, list.details || list.json, list_entry, &list);
    if (list.json)
        puts("\n]");
    code = commands_flush() ||
                   (err && err != -EPIPE && said("cannot list", prefix[0] ? prefix : "/", err))
               ? COMMANDS_FAILED
               : COMMANDS_OK;
    return access_finish(access, code);
}
