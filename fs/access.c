/* SPDX-License-Identifier: MIT */
#include "access.h"
#include "control.h"
#include "mounts.h"
#include "openstore.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_mounted(const char *mountpoint, struct access **out)
{
    int err = mounts_is_dead(mountpoint) ? -ENOTCONN : access_mounted_new(mountpoint, out);
    if (err == -ENOTCONN)
        log_error("the daemon of a mount has died: %s: clear it with \"kegfs umount %s\"",
                  mountpoint, mountpoint);
    else if (err)
        log_error("cannot reach the mount: %s: %s", mountpoint, strerror(-err));
    return err;
}

static int open_direct(const char *dir, enum access_how how, struct access **out)
{
    struct openstore *s = malloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    struct keg_options keg = {.flags =
                                  KEG_NO_BACKGROUND | (how == ACCESS_LOOK   ? (unsigned)KEG_READONLY
                                                       : how == ACCESS_MAKE ? (unsigned)KEG_CREATE
                                                                            : 0),
                              .owner = "-"};
    struct volume_options volume = {.flags = VOLUME_NO_BACKGROUND |
                                             (how == ACCESS_LOOK   ? (unsigned)VOLUME_READONLY
                                              : how == ACCESS_MAKE ? (unsigned)VOLUME_CREATE
                                                                   : 0),
                                    .root_uid = geteuid(),
                                    .root_gid = getegid()};
    int err = openstore_open(dir, &keg, &volume, s);
    if (err == -EBUSY) {
        if (s->mountpoint[0])
            err = open_mounted(s->mountpoint, out);
        else
            log_error("the store is in use: %s: by process %s, and not mounted where this process "
                      "could see it; try again when it has ended",
                      dir, s->holder);
    } else if (!err) {
        return access_direct_new(s, out);
    }
    free(s);
    return err;
}

int access_open(const char *store, enum access_how how, struct access **out)
{
    char path[PATH_MAX];
    struct mounts_entry *entry = malloc(sizeof *entry);
    int err;
    if (entry && !mounts_realpath(store, path) && !mounts_at(path, entry) &&
        !strcmp(entry->type, MOUNTS_TYPE))
        err = open_mounted(path, out);
    else
        err = open_direct(store, how, out);
    free(entry);
    return err;
}

int access_finish(struct access *access, int code)
{
    return access->ops->close(access) && !code ? 1 : code;
}

int access_key(const char *arg, char *key)
{
    size_t used = 0;
    while (*arg) {
        size_t len = strcspn(arg, "/");
        if (len > VOLUME_NAME_MAX || used + len + 2 > PATH_MAX)
            return -ENAMETOOLONG;
        if ((len == 1 && arg[0] == '.') || (len == 2 && arg[0] == '.' && arg[1] == '.'))
            return -EINVAL;
        if (len && used)
            key[used++] = '/';
        memcpy(key + used, arg, len);
        used += len;
        arg += len;
        while (*arg == '/')
            arg++;
    }
    key[used] = '\0';
    if (strcspn(key, "/") == strlen(CONTROL_NAME) &&
        !memcmp(key, CONTROL_NAME, strlen(CONTROL_NAME)))
        return -EPERM;
    return used ? 0 : -EINVAL;
}

size_t access_leaf(const char *key)
{
    const char *slash = strrchr(key, '/');
    return slash ? (size_t)(slash - key) + 1 : 0;
}

int access_todo_add(struct access_todo *todo, const char *name, uint64_t ino)
{
    if (todo->count == todo->room) {
        size_t room = todo->room ? todo->room * 2 : 16;
        struct access_todo_item *items = realloc(todo->items, room * sizeof *items);
        if (!items)
            return -ENOMEM;
        todo->items = items;
        todo->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    todo->items[todo->count++] = (struct access_todo_item){ino, copy};
    return 0;
}

void access_todo_free(struct access_todo *todo)
{
    for (size_t i = 0; i < todo->count; i++)
        free(todo->items[i].name);
    free(todo->items);
    *todo = (struct access_todo){0};
}
