/* SPDX-License-Identifier: MIT */
#include "mounts.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* The table writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
    char *to = s;
    while (*s) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 4;
        } else {
            *to++ = *s++;
        }
    }
    *to = '\0';
}

static void copy_field(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from);
    unescape(to);
}

/* "ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS" */
static bool parse(char *line, struct mounts_entry *out)
{
    char *field[6], *save = NULL;
    char *tail = strstr(line, " - ");
    if (!tail)
        return false;
    *tail = '\0';
    for (int i = 0; i < 6; i++)
        if (!(field[i] = strtok_r(i ? NULL : line, " ", &save)))
            return false;
    char *type = strtok_r(tail + 3, " \n", &save);
    char *source = strtok_r(NULL, " \n", &save);
    char *options = strtok_r(NULL, " \n", &save);
    if (!type || !source)
        return false;
    char *user = options ? strstr(options, "user_id=") : NULL;
    out->user = user ? (uint32_t)strtoul(user + 8, NULL, 10) : 0;
    copy_field(out->point, sizeof out->point, field[4]);
    copy_field(out->type, sizeof out->type, type);
    copy_field(out->source, sizeof out->source, source);
    return true;
}

int mounts_at(const char *path, struct mounts_entry *out)
{
    FILE *table = fopen("/proc/self/mountinfo", "re");
    struct mounts_entry *entry = malloc(sizeof *entry);
    char *line = NULL;
    size_t size = 0;
    int err = !table ? -errno : !entry ? -ENOMEM : -ENOENT;
    /* A later line is mounted over an earlier one. */
    while (table && entry && getline(&line, &size, table) > 0)
        if (parse(line, entry) && !strcmp(entry->point, path)) {
            *out = *entry;
            err = 0;
        }
    if (table) {
        if (ferror(table))
            err = -EIO;
        fclose(table);
    }
    free(line);
    free(entry);
    return err;
}

bool mounts_is_ours(const char *path, const char *store)
{
    struct mounts_entry *entry = malloc(sizeof *entry);
    bool ours = entry && !mounts_at(path, entry) && !strcmp(entry->type, MOUNTS_TYPE) &&
                !strcmp(entry->source, store);
    free(entry);
    return ours;
}

bool mounts_is_dead(const char *path)
{
    struct statfs fs;
    return statfs(path, &fs) && (errno == ENOTCONN || errno == ECONNABORTED);
}

/* The last component, and the path without it ("." and "/" where that is empty). */
static int split(const char *path, char *dir, char *base)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    size_t at = len;
    while (at && path[at - 1] != '/')
        at--;
    if (len - at > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(base, path + at, len - at);
    base[len - at] = '\0';
    if (!*base || !strcmp(base, ".") || !strcmp(base, ".."))
        return -ENOENT;
    while (at > 1 && path[at - 1] == '/')
        at--;
    if (at >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(dir, at ? path : ".", at ? at : 1);
    dir[at ? at : 1] = '\0';
    return 0;
}

int mounts_realpath(const char *path, char *buf)
{
    char dir[PATH_MAX], base[NAME_MAX + 1];
    if (realpath(path, buf))
        return 0;
    if (errno != ENOENT && errno != ENOTCONN && errno != ECONNABORTED)
        return -errno;
    int err = split(path, dir, base);
    if (err)
        return err;
    if (!realpath(dir, buf))
        return -errno;
    size_t len = strlen(buf);
    if (len == 1)
        len = 0;
    if (len + 1 + strlen(base) >= PATH_MAX)
        return -ENAMETOOLONG;
    buf[len] = '/';
    memcpy(buf + len + 1, base, strlen(base) + 1);
    return 0;
}

bool mounts_inside(const char *a, const char *b)
{
    size_t len = strlen(b);
    if (len == 1)
        return true;
    return !strncmp(a, b, len) && (a[len] == '/' || !a[len]);
}

/* fusermount3 says what is wrong itself only when the caller does not. */
static int run_fusermount(const char *path, bool lazy)
{
    int status;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (!pid) {
        execlp("fusermount3", "fusermount3", "-u", "-q", lazy ? "-z" : "--", lazy ? "--" : path,
               lazy ? path : (char *)NULL, (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (!WIFEXITED(status) || WEXITSTATUS(status) == 127)
        return -ENOSYS;
    return WEXITSTATUS(status) ? -EBUSY : 0;
}

int mounts_unmount(const char *path, bool lazy)
{
    if (!umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
        return 0;
    return errno == EPERM ? run_fusermount(path, lazy) : -errno;
}

int mounts_remount(const char *path, unsigned long flags)
{
    return mount(NULL, path, NULL, MS_REMOUNT | flags, NULL) ? -errno : 0;
}

/* ---- Commands ---- */

/* O_DIRECT, as with -o writeback any other write would end in the kernel's cache: the command would
 * be sent by close(2), which knows its error as EIO or ENOSPC. */
int mounts_open_control(int root, const char *path)
{
    int fd = openat(root, path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int mounts_tell(int control, const char *command)
{
    int err = write(control, command, strlen(command)) < 0 ? -errno : 0;
    return close(control) && !err ? -errno : err;
}
