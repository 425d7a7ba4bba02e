/* SPDX-License-Identifier: MIT */
/*
 * How a command reaches a store: directly, or through its mount when it is mounted. One interface,
 * two implementations (access_direct.c, access_mounted.c).
 *
 * Keys are paths below the root as access_key makes them. Functions return 0 or -errno and print
 * nothing, but access_open. One thread.
 */
#ifndef ACCESS_H
#define ACCESS_H

#include "keg.h"
#include <stdio.h>
#include <sys/stat.h>

struct access_entry {
    const char *path;   /* below the root */
    const char *target; /* of symbolic links, else NULL */
    struct stat st;
};
/* Both return 0 to go on, or a negative errno that ends the call. */
typedef int access_sink_fn(void *arg, const void *data, size_t len);
typedef int access_entry_fn(void *arg, const struct access_entry *entry);
/* As volume_fill_fn: bytes put into buf, 0 at the end, -errno. */
typedef ssize_t access_fill_fn(void *arg, void *buf, size_t size);

enum access_what {
    ACCESS_STATS,
    ACCESS_SEGMENTS,
    ACCESS_DUMP,
};
enum access_task { ACCESS_COMPACT, ACCESS_HINT };

struct access {
    const struct access_ops *ops;
};

struct access_ops {
    /* mode: of a new file; the umask, or the directory's default ACL, is still to be applied. */
    int (*put)(struct access *access, const char *key, mode_t mode, access_fill_fn *fill,
               void *arg);
    int (*get)(struct access *access, const char *key, access_sink_fn *sink, void *arg);
    int (*rm)(struct access *access, const char *key);
    /* Every path that begins with prefix, a directory before what is in it. */
    int (*walk)(struct access *access, const char *prefix, bool targets, access_entry_fn *fn,
                void *arg);
    int (*report)(struct access *access, enum access_what what, bool json, FILE *out);
    int (*task)(struct access *access, enum access_task task, keg_progress_fn *progress, void *arg);
    /* *findings: how many. */
    int (*check)(struct access *access, bool json, FILE *out, uint64_t *findings,
                 keg_progress_fn *progress, void *arg);
    /* Frees. An error of closing was said. */
    int (*close)(struct access *access);
};

enum access_how {
    ACCESS_LOOK,
    ACCESS_CHANGE,
    ACCESS_MAKE
}; /* MAKE: a new store if there is none */

/* store: the store's directory or, when mounted, its mountpoint. Says what is wrong in a line. */
KEG_CHECKED int access_open(const char *store, enum access_how how, struct access **out);

/* Closes; returns an exit code: `code`, or 1 when that was 0 and closing failed. */
KEG_CHECKED int access_finish(struct access *access, int code);

/* arg without needless slashes, into key (PATH_MAX bytes). -ENAMETOOLONG; -EINVAL: empty, or has
 * "." or ".." in it; -EPERM: in the control directory. */
KEG_CHECKED int access_key(const char *arg, char *key);

/* For walk: where the last name of a key or prefix begins. */
size_t access_leaf(const char *key);

/* A list of subdirectories still to be walked. */
struct access_todo {
    struct access_todo_item {
        uint64_t ino;
        char *name;
    } * items;
    size_t count, room;
};
KEG_CHECKED int access_todo_add(struct access_todo *todo, const char *name, uint64_t ino);
void access_todo_free(struct access_todo *todo);

/* The two implementations. */
struct openstore;
/* Takes over the store, its memory included. */
KEG_CHECKED int access_direct_new(struct openstore *store, struct access **out);
KEG_CHECKED int access_mounted_new(const char *mountpoint, struct access **out);

#endif
