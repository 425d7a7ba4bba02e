/* SPDX-License-Identifier: MIT */
/*
 * Offsets: 0 begins, 1 is behind ".", 2 behind "..", and all above are the volume's cookies, which
 * never are that low; 2 is its 0.
 */
#define FUSE_USE_VERSION 314
#include "listing.h"
#include "reply.h"
#include <errno.h>
#include <linux/fuse.h>

enum { BEHIND_DOT = 1, BEHIND_DOTDOT = 2 };

struct listing {
    fuse_req_t req;
    char *buf;
    size_t size, used;
    bool plus;
};

static bool add(struct listing *l, const char *name, const struct fuse_entry_param *entry,
                uint64_t cookie)
{
    char *at = l->buf + l->used;
    size_t room = l->size - l->used;
    size_t need = l->plus ? fuse_add_direntry_plus(l->req, at, room, name, entry, (off_t)cookie)
                          : fuse_add_direntry(l->req, at, room, name, &entry->attr, (off_t)cookie);
    if (need > room)
        return false;
    l->used += need;
    return true;
}

/* A name that counts no lookup: only number and type are told. */
static bool add_plain(struct listing *l, const char *name, uint64_t ino, mode_t type,
                      uint64_t cookie)
{
    struct fuse_entry_param entry = {.attr = {.st_ino = ino, .st_mode = type}};
    return add(l, name, &entry, cookie);
}

static bool add_entry(void *arg, const struct volume_dirent *dirent)
{
    struct listing *l = arg;
    char name[VOLUME_NAME_MAX + 1];
    struct fuse_entry_param entry;
    memcpy(name, dirent->name.data, dirent->name.len);
    name[dirent->name.len] = '\0';
    if (!l->plus || dirent->attr.nlink == 0)
        return add_plain(l, name, dirent->attr.ino, dirent->attr.mode, dirent->cookie);
    reply_fill(&entry, &dirent->attr);
    return add(l, name, &entry, dirent->cookie);
}

static bool add_dots(struct listing *l, uint64_t ino, uint64_t parent, uint64_t *offset)
{
    if (*offset == 0) {
        if (!add_plain(l, ".", ino, S_IFDIR, BEHIND_DOT))
            return false;
        *offset = BEHIND_DOT;
    }
    if (*offset == BEHIND_DOT) {
        if (!add_plain(l, "..", parent, S_IFDIR, BEHIND_DOTDOT))
            return false;
        *offset = BEHIND_DOTDOT;
    }
    return true;
}

/* None of its entries counts a lookup, in a READDIRPLUS either: to list a file must not make it. */
static int list_control(struct listing *l, uint64_t offset)
{
    const char *name;
    if (!add_dots(l, CONTROL_DIR, VOLUME_ROOT, &offset))
        return 0;
    for (uint64_t i = offset - BEHIND_DOTDOT; (name = control_list(i)); i++)
        if (!add_plain(l, name, CONTROL_DIR + 1 + i, S_IFREG, BEHIND_DOTDOT + i + 1))
            break;
    return 0;
}

static int list_volume(struct listing *l, struct volume *volume, uint64_t ino, uint64_t offset)
{
    uint64_t parent = ino;
    if (offset < BEHIND_DOTDOT) {
        int err = volume_parent(volume, ino, &parent);
        if (err)
            return err;
    }
    if (!add_dots(l, ino, parent, &offset))
        return 0;
    return volume_readdir(volume, ino, offset == BEHIND_DOTDOT ? 0 : offset, l->plus, add_entry, l);
}

/* The kernel did not take the listing: the lookups counted in it are given back. */
static void give_back(const struct listing *l, struct volume *volume)
{
    size_t at = 0;
    while (l->plus && at < l->used) {
        struct fuse_direntplus entry;
        memcpy(&entry, l->buf + at, FUSE_NAME_OFFSET_DIRENTPLUS);
        if (entry.entry_out.nodeid)
            volume_forget(volume, entry.entry_out.nodeid, 1);
        at += FUSE_DIRENTPLUS_SIZE(&entry);
    }
}

static void list(fuse_req_t req, uint64_t ino, size_t size, uint64_t offset, bool plus)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct listing l = {.req = req, .buf = reply_buffer(size), .size = size, .plus = plus};
    int err = -ENOMEM;
    if (l.buf)
        err =
            control_owns(ino) ? list_control(&l, offset) : list_volume(&l, d->volume, ino, offset);
    if (err && !l.used) {
        fuse_reply_err(req, -err);
        return;
    }
    if (fuse_reply_buf(req, l.buf, l.used))
        give_back(&l, d->volume);
}

void listing_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fi->keep_cache = 1;
    fi->cache_readdir = 1;
    fuse_reply_open(req, fi);
}

void listing_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                  struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, (uint64_t)offset, false);
}

void listing_readplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                      struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, (uint64_t)offset, true);
}
