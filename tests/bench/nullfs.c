/* SPDX-License-Identifier: MIT */
/*
 * nullfs MNT [TRANSPORT [noxattr]]: a filesystem in memory behind kegfs's transports, with kegfs's
 * rules for what the kernel may keep. It stores nothing, so what an operation costs on it is what
 * FUSE costs here: the floor under every figure of kegfs. It answers for extended attributes and
 * POSIX ACLs as kegfs does for files that have none, so that the kernel makes the same requests;
 * with noxattr it refuses them once and for all, as kegfs does with that option.
 *
 * It stays in the foreground and ends with its mount or at SIGTERM. Then it prints how many
 * requests there were, by opcode.
 */
#define FUSE_USE_VERSION 314
#include "extra.h"
#include "nullfs_tree.h"
#include <errno.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const double forever = 1e9; /* seconds */

/* The transports ask for this; here it is libfuse that refuses what it does not know. */
bool extra_handle(struct fuse_ops_daemon *daemon, const void *request, size_t len,
                  extra_reply_fn *reply, void *arg)
{
    (void)daemon, (void)request, (void)len, (void)reply, (void)arg;
    return false;
}

static struct nullfs_tree_inode *inode_of(fuse_ino_t node)
{
    return node == FUSE_ROOT_ID ? nullfs_tree_root() : (struct nullfs_tree_inode *)(uintptr_t)node;
}

/* As kegfs has it: cp writes so much at once, and a listing is read with as much. */
static blksize_t block_size(const struct nullfs_tree_inode *inode)
{
    blksize_t size = S_ISDIR(inode->mode) ? 32 << 10 : 1 << 20;
    while (size < 1 << 20 && (size_t)size / 256 < inode->names_live + 2)
        size *= 2;
    return size;
}

static void fill_stat(const struct nullfs_tree_inode *inode, struct stat *st)
{
    *st = (struct stat){.st_ino = inode->number,
                        .st_mode = inode->mode,
                        .st_nlink = inode->links,
                        .st_uid = inode->uid,
                        .st_gid = inode->gid,
                        .st_rdev = inode->rdev,
                        .st_size = (off_t)inode->size,
                        .st_blksize = block_size(inode),
                        .st_blocks = (blkcnt_t)((inode->size + 511) / 512),
                        .st_atim = inode->atime,
                        .st_mtim = inode->mtime,
                        .st_ctim = inode->ctime};
}

/* Counts a lookup. */
static void fill_entry(struct nullfs_tree_inode *inode, struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){.ino = inode == nullfs_tree_root() ? FUSE_ROOT_ID
                                                                          : (uintptr_t)inode,
                                       .attr_timeout = forever,
                                       .entry_timeout = forever};
    fill_stat(inode, &entry->attr);
    inode->lookups++;
}

static void init(void *user, struct fuse_conn_info *conn)
{
    (void)user;
    conn->want = conn->capable &
                 (FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                  FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_ASYNC_READ |
                  FUSE_CAP_EXPLICIT_INVAL_DATA);
    conn->max_write = 1 << 20;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
}

/* ---- Names ---- */

static void lookup(fuse_req_t req, fuse_ino_t dir, const char *text)
{
    struct fuse_entry_param entry = {.entry_timeout = forever};
    pthread_mutex_lock(&lock);
    struct nullfs_tree_name *name = nullfs_tree_find(inode_of(dir), text);
    if (name)
        fill_entry(name->inode, &entry);
    pthread_mutex_unlock(&lock);
    fuse_reply_entry(req, &entry); /* number 0: not there, to be kept */
}

static void forget_one(fuse_ino_t node, uint64_t count)
{
    struct nullfs_tree_inode *inode = inode_of(node);
    inode->lookups -= count < inode->lookups ? count : inode->lookups;
    nullfs_tree_drop(inode);
}

static void forget(fuse_req_t req, fuse_ino_t node, uint64_t count)
{
    pthread_mutex_lock(&lock);
    forget_one(node, count);
    pthread_mutex_unlock(&lock);
    fuse_reply_none(req);
}

static void forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++)
        forget_one(forgets[i].ino, forgets[i].nlookup);
    pthread_mutex_unlock(&lock);
    fuse_reply_none(req);
}

/* Makes an inode and its name. EEXIST or 0. */
static int make(fuse_req_t req, fuse_ino_t dir, const char *text, mode_t mode, const char *target,
                dev_t rdev, struct fuse_entry_param *entry)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    const struct transport *t = fuse_req_userdata(req);
    int err = 0;
    if (t->acl && !S_ISLNK(mode)) /* the kernel leaves it to us */
        mode &= ~ctx->umask;
    pthread_mutex_lock(&lock);
    if (nullfs_tree_find(inode_of(dir), text)) {
        err = EEXIST;
    } else {
        struct nullfs_tree_inode *inode = nullfs_tree_new(mode, ctx->uid, ctx->gid);
        inode->rdev = rdev;
        if (target) {
            nullfs_tree_reserve(inode, strlen(target) + 1);
            memcpy(inode->data, target, strlen(target) + 1);
            inode->size = strlen(target);
        }
        nullfs_tree_add(inode_of(dir), text, inode);
        fill_entry(inode, entry);
    }
    pthread_mutex_unlock(&lock);
    return err;
}

static void reply_made(fuse_req_t req, int err, const struct fuse_entry_param *entry)
{
    if (err)
        fuse_reply_err(req, err);
    else
        fuse_reply_entry(req, entry);
}

static void mknod_(fuse_req_t req, fuse_ino_t dir, const char *text, mode_t mode, dev_t rdev)
{
    struct fuse_entry_param entry;
    reply_made(req, make(req, dir, text, mode, NULL, rdev, &entry), &entry);
}

static void mkdir_(fuse_req_t req, fuse_ino_t dir, const char *text, mode_t mode)
{
    struct fuse_entry_param entry;
    reply_made(req, make(req, dir, text, S_IFDIR | (mode & 07777), NULL, 0, &entry), &entry);
}

static void symlink_(fuse_req_t req, const char *target, fuse_ino_t dir, const char *text)
{
    struct fuse_entry_param entry;
    reply_made(req, make(req, dir, text, S_IFLNK | 0777, target, 0, &entry), &entry);
}

static void create(fuse_req_t req, fuse_ino_t dir, const char *text, mode_t mode,
                   struct fuse_file_info *fi)
{
    struct fuse_entry_param entry;
    int err = make(req, dir, text, S_IFREG | (mode & 07777), NULL, 0, &entry);
    fi->keep_cache = 1;
    if (err)
        fuse_reply_err(req, err);
    else
        fuse_reply_create(req, &entry, fi);
}

static void link_(fuse_req_t req, fuse_ino_t node, fuse_ino_t dir, const char *text)
{
    struct fuse_entry_param entry;
    int err = 0;
    pthread_mutex_lock(&lock);
    if (nullfs_tree_find(inode_of(dir), text)) {
        err = EEXIST;
    } else {
        nullfs_tree_add(inode_of(dir), text, inode_of(node));
        fill_entry(inode_of(node), &entry);
    }
    pthread_mutex_unlock(&lock);
    reply_made(req, err, &entry);
}

static void remove_name(fuse_req_t req, fuse_ino_t dir, const char *text)
{
    int err = 0;
    pthread_mutex_lock(&lock);
    struct nullfs_tree_name *name = nullfs_tree_find(inode_of(dir), text);
    if (!name)
        err = ENOENT;
    else if (name->inode->names_live)
        err = ENOTEMPTY;
    else
        nullfs_tree_remove(name);
    pthread_mutex_unlock(&lock);
    fuse_reply_err(req, err);
}

static void rename_(fuse_req_t req, fuse_ino_t from, const char *old, fuse_ino_t to,
                    const char *text, unsigned flags)
{
    int err = 0;
    pthread_mutex_lock(&lock);
    struct nullfs_tree_name *name = nullfs_tree_find(inode_of(from), old);
    struct nullfs_tree_name *target = nullfs_tree_find(inode_of(to), text);
    if (!name)
        err = ENOENT;
    else if (flags & ~1U) /* RENAME_NOREPLACE */
        err = EINVAL;
    else if (target && flags)
        err = EEXIST;
    else if (target && target->inode->names_live)
        err = ENOTEMPTY;
    if (!err && (!target || target->inode != name->inode)) {
        struct nullfs_tree_inode *inode = name->inode;
        inode->lookups++; /* keeps it while it has no name */
        if (target)
            nullfs_tree_remove(target);
        nullfs_tree_remove(name);
        nullfs_tree_add(inode_of(to), text, inode);
        inode->lookups--;
    }
    pthread_mutex_unlock(&lock);
    fuse_reply_err(req, err);
}

/* ---- Attributes ---- */

static void getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    struct stat st;
    (void)fi;
    pthread_mutex_lock(&lock);
    fill_stat(inode_of(node), &st);
    pthread_mutex_unlock(&lock);
    fuse_reply_attr(req, &st, forever);
}

static void set_times(struct nullfs_tree_inode *inode, const struct stat *attr, int what,
                      struct timespec now)
{
    if (what & FUSE_SET_ATTR_ATIME_NOW)
        inode->atime = now;
    else if (what & FUSE_SET_ATTR_ATIME)
        inode->atime = attr->st_atim;
    if (what & FUSE_SET_ATTR_MTIME_NOW)
        inode->mtime = now;
    else if (what & FUSE_SET_ATTR_MTIME)
        inode->mtime = attr->st_mtim;
}

static void setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int what,
                    struct fuse_file_info *fi)
{
    struct nullfs_tree_inode *inode = inode_of(node);
    struct timespec now = nullfs_tree_now();
    struct stat st;
    (void)fi;
    pthread_mutex_lock(&lock);
    if (what & FUSE_SET_ATTR_MODE)
        inode->mode = (inode->mode & S_IFMT) | (attr->st_mode & 07777);
    if (what & FUSE_SET_ATTR_UID)
        inode->uid = attr->st_uid;
    if (what & FUSE_SET_ATTR_GID)
        inode->gid = attr->st_gid;
    if (what & FUSE_SET_ATTR_SIZE) {
        nullfs_tree_resize(inode, (size_t)attr->st_size);
        inode->mtime = now;
    }
    set_times(inode, attr, what, now);
    inode->ctime = now;
    fill_stat(inode, &st);
    pthread_mutex_unlock(&lock);
    fuse_reply_attr(req, &st, forever);
}

static void readlink_(fuse_req_t req, fuse_ino_t node)
{
    fuse_reply_readlink(req, inode_of(node)->data);
}

static void statfs_(fuse_req_t req, fuse_ino_t node)
{
    const struct statvfs fs = {.f_bsize = 4096,
                               .f_frsize = 4096,
                               .f_blocks = 1 << 28,
                               .f_bfree = 1 << 28,
                               .f_bavail = 1 << 28,
                               .f_files = 1 << 28,
                               .f_ffree = 1 << 28,
                               .f_namemax = 255};
    (void)node;
    fuse_reply_statfs(req, &fs);
}

/* ---- Contents ---- */

static void refuse_node(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    (void)node, (void)fi;
    fuse_reply_err(req, ENOSYS);
}

static void read_(fuse_req_t req, fuse_ino_t node, size_t size, off_t at, struct fuse_file_info *fi)
{
    struct nullfs_tree_inode *inode = inode_of(node);
    size_t offset = (size_t)at, left = inode->size > offset ? inode->size - offset : 0;
    (void)fi;
    fuse_reply_buf(req, left ? inode->data + offset : NULL, left < size ? left : size);
}

static void write_(fuse_req_t req, fuse_ino_t node, const char *data, size_t size, off_t at,
                   struct fuse_file_info *fi)
{
    struct nullfs_tree_inode *inode = inode_of(node);
    (void)fi;
    pthread_mutex_lock(&lock);
    if ((size_t)at > inode->size)
        nullfs_tree_resize(inode, (size_t)at);
    nullfs_tree_reserve(inode, (size_t)at + size);
    memcpy(inode->data + at, data, size);
    if ((size_t)at + size > inode->size)
        inode->size = (size_t)at + size;
    inode->mtime = inode->ctime = nullfs_tree_now();
    pthread_mutex_unlock(&lock);
    fuse_reply_write(req, size);
}

static void fsync_(fuse_req_t req, fuse_ino_t node, int data, struct fuse_file_info *fi)
{
    (void)node, (void)data, (void)fi;
    fuse_reply_err(req, 0);
}

/* ---- Listings: "." and ".." have cookies 1 and 2, and each name its own and 2 ---- */

static void opendir_(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    (void)node;
    fi->keep_cache = fi->cache_readdir = 1;
    fuse_reply_open(req, fi);
}

static size_t add_entry(fuse_req_t req, char *buf, size_t room, bool plus, const char *text,
                        struct nullfs_tree_inode *inode, uint64_t cookie)
{
    struct fuse_entry_param entry = {0};
    const bool dots = cookie <= 2;
    size_t need;
    if (plus && !dots)
        fill_entry(inode, &entry);
    else
        fill_stat(inode, &entry.attr);
    need = plus ? fuse_add_direntry_plus(req, buf, room, text, &entry, (off_t)cookie)
                : fuse_add_direntry(req, buf, room, text, &entry.attr, (off_t)cookie);
    if (need > room && plus && !dots)
        inode->lookups--;
    return need > room ? 0 : need;
}

static void list(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, bool plus)
{
    /* As much as kegfs gives: of a READDIRPLUS the kernel makes an inode of each entry, and with
     * 128 KiB a floor of 2,000 names would have a third of them. */
    static _Thread_local char buf[1 << 20];
    struct nullfs_tree_inode *dir = inode_of(node);
    uint64_t at = (uint64_t)offset;
    size_t used = 0, n = 1;
    size = size < sizeof buf ? size : sizeof buf;
    pthread_mutex_lock(&lock);
    for (; at < 2 && n; at += n != 0, used += n)
        n = add_entry(req, buf + used, size - used, plus, at ? ".." : ".", at ? dir->parent : dir,
                      at + 1);
    while (n) {
        struct nullfs_tree_name *name = nullfs_tree_after(dir, at - 2);
        if (!name)
            break;
        n = add_entry(req, buf + used, size - used, plus, name->text, name->inode,
                      name->cookie + 2);
        used += n;
        at = n ? name->cookie + 2 : at;
    }
    pthread_mutex_unlock(&lock);
    fuse_reply_buf(req, buf, used);
}

static void readdir_(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    (void)fi;
    list(req, node, size, offset, false);
}

static void readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
                        struct fuse_file_info *fi)
{
    (void)fi;
    list(req, node, size, offset, true);
}

/* ---- Extended attributes: there are none ---- */

static void getxattr_(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
    (void)node, (void)size;
    fuse_reply_err(req, !strcmp(name, "security.selinux") ? EOPNOTSUPP : ENODATA);
}

static void listxattr_(fuse_req_t req, fuse_ino_t node, size_t size)
{
    (void)node;
    if (size)
        fuse_reply_buf(req, NULL, 0);
    else
        fuse_reply_xattr(req, 0);
}

static const struct fuse_lowlevel_ops ops = {
    .init = init,
    .lookup = lookup,
    .forget = forget,
    .forget_multi = forget_multi,
    .getattr = getattr,
    .setattr = setattr,
    .readlink = readlink_,
    .mknod = mknod_,
    .mkdir = mkdir_,
    .symlink = symlink_,
    .create = create,
    .link = link_,
    .unlink = remove_name,
    .rmdir = remove_name,
    .rename = rename_,
    .open = refuse_node,
    .flush = refuse_node,
    .read = read_,
    .write = write_,
    .fsync = fsync_,
    .fsyncdir = fsync_,
    .opendir = opendir_,
    .readdir = readdir_,
    .readdirplus = readdirplus,
    .statfs = statfs_,
    .getxattr = getxattr_,
    .listxattr = listxattr_,
};

/* ---- The mount ---- */

static bool parse_transport(const char *name, enum transport_kind *kind)
{
    for (*kind = TRANSPORT_AUTO; *kind <= TRANSPORT_LIBFUSE; ++*kind) {
        if (!strcmp(name, transport_choice_name(*kind)))
            return true;
    }
    return false;
}

static int serve(struct transport *t, const char *mountpoint)
{
    char *args[] = {"nullfs", "-o", "default_permissions,fsname=nullfs,subtype=nullfs"};
    struct fuse_args fuse_args = FUSE_ARGS_INIT(3, args);
    struct fuse_lowlevel_ops served = ops;
    if (!t->acl)
        served.getxattr = NULL, served.listxattr = NULL; /* ENOSYS, for all of the mount */
    struct fuse_session *session = fuse_session_new(&fuse_args, &served, sizeof served, t);
    int err = -EIO;
    if (!session)
        return -ENOMEM;
    if (!fuse_set_signal_handlers(session) && !fuse_session_mount(session, mountpoint)) {
        err = transport_attach(t, session);
        if (!err)
            err = transport_loop(t);
        transport_detach(t);
        fuse_session_unmount(session);
    }
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return err;
}

static void print_requests(const struct requests *requests)
{
    for (uint32_t op = 0; op < REQUESTS_MAX; op++)
        if (requests_get(requests, op))
            printf("%s %" PRIu64 "\n", requests_name(op), requests_get(requests, op));
}

int main(int argc, char **argv)
{
    struct fuse_ops_daemon daemon = {.transport.max_threads = 10,
                                     .transport.poll_us = TRANSPORT_POLL_AUTO,
                                     .transport.acl = true};
    struct transport *t = &daemon.transport;
    const bool noxattr = argc == 4 && !strcmp(argv[3], "noxattr");
    if (argc < 2 || argc > 3 + noxattr || !parse_transport(argc > 2 ? argv[2] : "auto", &t->kind)) {
        fputs("usage: nullfs MNT [auto|uring|spin|libfuse [noxattr]]\n", stderr);
        return 2;
    }
    t->acl = !noxattr;
    /* Memory that was touched once is used again. */
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_MMAP_MAX, 0);
    t->forced = t->kind == TRANSPORT_URING;
    int err = transport_choose(&t->kind);
    if (!err)
        err = workers_new(4, &t->workers);
    if (!err)
        err = serve(t, argv[1]);
    print_requests(&t->requests);
    workers_free(t->workers);
    return err ? 1 : 0;
}
