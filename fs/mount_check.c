/* SPDX-License-Identifier: MIT */
#include "mount_check.h"
#include "log.h"
#include "mounts.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The daemon of a mount was killed: nothing is lost by taking the mount away, and only a person who
 * mounts it again should, for an empty directory in its place is a trap for backups. */
static bool clear_dead(const char *point)
{
    struct mounts_entry entry;
    for (int i = 0; i < 16; i++) {
        int err = mounts_at(point, &entry);
        if (err || strcmp(entry.type, MOUNTS_TYPE) || !mounts_is_dead(point))
            return true;
        err = mounts_unmount(point, false);
        if (err == -EBUSY)
            err = mounts_unmount(point, true);
        if (err) {
            log_error("dead mount: %s: cannot be cleared: %s; try \"fusermount3 -u %s\"", point,
                      strerror(-err), point);
            return false;
        }
        log_warning("cleared a dead mount of %s: %s: its daemon had been killed", entry.source,
                    point);
    }
    return true;
}

static bool is_empty(const char *point)
{
    DIR *dir = opendir(point);
    const struct dirent *entry;
    bool empty = true;
    while (dir && empty && (entry = readdir(dir)))
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    if (dir)
        closedir(dir);
    return empty;
}

static bool check_point(const struct mount_options *o, const struct mount_paths *paths)
{
    struct mounts_entry entry;
    struct stat st;
    const char *point = paths->mountpoint;
    if (stat(point, &st)) {
        log_error("cannot mount: %s: %s%s", point, strerror(errno),
                  errno == ENOENT ? "; make the directory first" : "");
        return false;
    }
    if (strchr(point, '\n')) {
        log_error("cannot mount: %s: a newline in the path, which is to be a line of LOCK", point);
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        log_error("cannot mount: %s: is not a directory", point);
        return false;
    }
    if (o->nonempty)
        return true;
    if (!mounts_at(point, &entry)) {
        log_error("already mounted: %s: %s is mounted there; unmount it, or use -o nonempty", point,
                  entry.source);
        return false;
    }
    if (!is_empty(point)) {
        log_error("cannot mount: %s: is not empty, its files would be hidden; use another "
                  "directory, or -o nonempty",
                  point);
        return false;
    }
    return true;
}

/* The daemon would wait for itself. */
static bool check_apart(const struct mount_paths *paths)
{
    if (mounts_inside(paths->store, paths->mountpoint))
        log_error("cannot mount: %s: the store %s lies inside the mountpoint", paths->mountpoint,
                  paths->store);
    else if (mounts_inside(paths->mountpoint, paths->store))
        log_error("cannot mount: %s: the mountpoint lies inside the store %s", paths->mountpoint,
                  paths->store);
    else
        return true;
    return false;
}

static bool check_device(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return true;
    }
    log_error("cannot use FUSE: /dev/fuse: %s; %s", strerror(errno),
              errno == EACCES || errno == EPERM ? "ask the administrator for access"
                                                : "load it with \"modprobe fuse\"");
    return false;
}

/* The rule of fusermount3, which would give no more than a hint of it. */
static bool check_allow_other(const struct mount_options *o)
{
    static const char conf[] = "/etc/fuse.conf", word[] = "user_allow_other";
    char line[256];
    bool allowed = !geteuid() || !o->allow_other;
    FILE *file = allowed ? NULL : fopen(conf, "re");
    while (!allowed && file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "#\n")] = '\0';
        const char *at = line + strspn(line, " \t");
        size_t len = strlen(word);
        allowed = !strncmp(at, word, len) && at[len + strspn(at + len, " \t\r")] == '\0';
    }
    if (file)
        fclose(file);
    if (!allowed)
        log_error("allow_other is for root alone, unless %s has the line %s; ask the "
                  "administrator, or mount without it",
                  conf, word);
    return allowed;
}

bool mount_check(const struct mount_options *o, struct mount_paths *paths)
{
    int err = mounts_realpath(o->mountpoint, paths->mountpoint);
    if (err) {
        log_error("cannot mount: %s: %s", o->mountpoint, strerror(-err));
        return false;
    }
    err = mounts_realpath(o->store, paths->store);
    if (err) {
        log_error("no store: %s: %s", o->store, strerror(-err));
        return false;
    }
    return clear_dead(paths->mountpoint) && check_apart(paths) && check_point(o, paths) &&
           check_device() && check_allow_other(o);
}
