/* SPDX-License-Identifier: MIT */
/*
 * The null filesystem's tree: inodes and names in memory, found by hash. It is the least that a
 * filesystem can do for a request, so that what is left is the price of FUSE. Not for any other
 * use: nothing is checked but what tools need, and memory that is short ends the program.
 *
 * One lock, the caller's, is held for every call.
 */
#ifndef NULLFS_TREE_H
#define NULLFS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct nullfs_tree_inode {
    uint64_t number; /* for stat; the node id is the address */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    dev_t rdev;
    nlink_t links;
    uint64_t lookups; /* that the kernel holds */
    struct timespec atime, mtime, ctime;
    char *data; /* a symlink's target, too */
    size_t size, room;
    /* Of a directory: its names in the order they came; removed ones leave holes. */
    struct nullfs_tree_name **names;
    size_t names_end, names_room, names_live;
    uint64_t next_cookie;
    struct nullfs_tree_inode *parent;
};

struct nullfs_tree_name {
    struct nullfs_tree_name *next; /* in the hash's chain */
    struct nullfs_tree_inode *dir, *inode;
    uint64_t hash, cookie; /* the cookie grows within a directory */
    char text[];
};

struct nullfs_tree_inode *nullfs_tree_root(void);
struct nullfs_tree_inode *nullfs_tree_new(mode_t mode, uid_t uid, gid_t gid);
/* Frees the inode if neither a name nor the kernel has it. */
void nullfs_tree_drop(struct nullfs_tree_inode *inode);

/* NULL: not there. */
struct nullfs_tree_name *nullfs_tree_find(struct nullfs_tree_inode *dir, const char *text);
void nullfs_tree_add(struct nullfs_tree_inode *dir, const char *text,
                     struct nullfs_tree_inode *inode);
/* Drops the inode as well. */
void nullfs_tree_remove(struct nullfs_tree_name *name);
/* The first name of the directory with a cookie over this one; NULL: no more. */
struct nullfs_tree_name *nullfs_tree_after(struct nullfs_tree_inode *dir, uint64_t cookie);

/* Makes room for `size` bytes of data; what is new is not cleared. */
void nullfs_tree_reserve(struct nullfs_tree_inode *inode, size_t size);
void nullfs_tree_resize(struct nullfs_tree_inode *inode, size_t size);
struct timespec nullfs_tree_now(void);

#endif
