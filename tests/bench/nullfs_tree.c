/* SPDX-License-Identifier: MIT */
#include "nullfs_tree.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BUCKETS = 1 << 20 };

static struct nullfs_tree_name *buckets[BUCKETS];
static struct nullfs_tree_inode *root;
static uint64_t next_number = 1;

static void *must(void *memory)
{
    if (!memory) {
        fputs("nullfs: out of memory\n", stderr);
        abort();
    }
    return memory;
}

struct timespec nullfs_tree_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return now;
}

/* ---- Inodes ---- */

struct nullfs_tree_inode *nullfs_tree_new(mode_t mode, uid_t uid, gid_t gid)
{
    struct nullfs_tree_inode *inode = must(calloc(1, sizeof *inode));
    inode->number = next_number++;
    inode->mode = mode;
    inode->uid = uid;
    inode->gid = gid;
    inode->links = S_ISDIR(mode) ? 1 : 0; /* its "." */
    inode->atime = inode->mtime = inode->ctime = nullfs_tree_now();
    return inode;
}

struct nullfs_tree_inode *nullfs_tree_root(void)
{
    if (!root) {
        root = nullfs_tree_new(S_IFDIR | 0755, 0, 0);
        root->parent = root;
        root->links++;
    }
    return root;
}

void nullfs_tree_drop(struct nullfs_tree_inode *inode)
{
    const nlink_t own = S_ISDIR(inode->mode) ? 1 : 0;
    if (inode == root || inode->lookups || inode->links > own)
        return;
    free(inode->data);
    free(inode->names);
    free(inode);
}

void nullfs_tree_reserve(struct nullfs_tree_inode *inode, size_t size)
{
    if (size <= inode->room)
        return;
    size_t room = inode->room ? inode->room * 2 : 4096;
    inode->room = room > size ? room : size;
    inode->data = must(realloc(inode->data, inode->room));
}

void nullfs_tree_resize(struct nullfs_tree_inode *inode, size_t size)
{
    if (size > inode->size) {
        nullfs_tree_reserve(inode, size);
        memset(inode->data + inode->size, 0, size - inode->size);
    }
    inode->size = size;
}

/* ---- Names ---- */

/* FNV-1a over the directory's address and the name. */
static uint64_t hash_of(const struct nullfs_tree_inode *dir, const char *text)
{
    uint64_t hash = 14695981039346656037ULL ^ (uintptr_t)dir;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211ULL;
    return hash ^ hash >> 29;
}

struct nullfs_tree_name *nullfs_tree_find(struct nullfs_tree_inode *dir, const char *text)
{
    const uint64_t hash = hash_of(dir, text);
    struct nullfs_tree_name *name = buckets[hash % BUCKETS];
    while (name && (name->hash != hash || name->dir != dir || strcmp(name->text, text) != 0))
        name = name->next;
    return name;
}

/* Closes the holes in the list; the order and the cookies stay. */
static void squeeze(struct nullfs_tree_inode *dir)
{
    size_t live = 0;
    for (size_t i = 0; i < dir->names_end; i++) {
        if (dir->names[i])
            dir->names[live++] = dir->names[i];
    }
    dir->names_end = live;
}

void nullfs_tree_add(struct nullfs_tree_inode *dir, const char *text,
                     struct nullfs_tree_inode *inode)
{
    const size_t len = strlen(text) + 1;
    struct nullfs_tree_name *name = must(malloc(sizeof *name + len));
    *name = (struct nullfs_tree_name){.dir = dir, .inode = inode, .hash = hash_of(dir, text)};
    memcpy(name->text, text, len);
    name->cookie = ++dir->next_cookie;
    struct nullfs_tree_name **bucket = &buckets[name->hash % BUCKETS];
    name->next = *bucket;
    *bucket = name;
    if (dir->names_end == dir->names_room && dir->names_live < dir->names_end / 2)
        squeeze(dir);
    if (dir->names_end == dir->names_room) {
        dir->names_room = dir->names_room ? dir->names_room * 2 : 16;
        dir->names = must(realloc(dir->names, dir->names_room * sizeof(struct nullfs_tree_name *)));
    }
    dir->names[dir->names_end++] = name;
    dir->names_live++;
    inode->links++;
    if (S_ISDIR(inode->mode)) {
        inode->parent = dir;
        dir->links++;
    }
    dir->mtime = dir->ctime = inode->ctime = nullfs_tree_now();
}

/* Where the first name with a cookie over this one is, or the end; holes count as what follows. */
static size_t place_after(const struct nullfs_tree_inode *dir, uint64_t cookie)
{
    size_t low = 0, high = dir->names_end;
    while (low < high) {
        size_t middle = low + (high - low) / 2, at = middle;
        while (at < high && !dir->names[at])
            at++;
        if (at == high || dir->names[at]->cookie > cookie)
            high = middle;
        else
            low = at + 1;
    }
    while (low < dir->names_end && !dir->names[low])
        low++;
    return low;
}

struct nullfs_tree_name *nullfs_tree_after(struct nullfs_tree_inode *dir, uint64_t cookie)
{
    size_t at = place_after(dir, cookie);
    return at < dir->names_end ? dir->names[at] : NULL;
}

void nullfs_tree_remove(struct nullfs_tree_name *name)
{
    struct nullfs_tree_inode *dir = name->dir, *inode = name->inode;
    struct nullfs_tree_name **link = &buckets[name->hash % BUCKETS];
    while (*link != name)
        link = &(*link)->next;
    *link = name->next;
    dir->names[place_after(dir, name->cookie - 1)] = NULL;
    dir->names_live--;
    if (dir->names_live == 0)
        dir->names_end = 0;
    inode->links--;
    if (S_ISDIR(inode->mode))
        dir->links--;
    dir->mtime = dir->ctime = inode->ctime = nullfs_tree_now();
    free(name);
    nullfs_tree_drop(inode);
}
