/* SPDX-License-Identifier: MIT */
/*
 * The daemon is the store's only writer, so the kernel may keep names, missing names, attributes
 * and pages for ever, and files are not opened as far as the daemon sees: OPEN and FLUSH are
 * answered ENOSYS once and never sent again (but with commit=close, see handles.c). The node id is
 * the inode number.
 *
 * Lookups: each entry in a reply counts one for its inode, but for "." and ".." in listings. A
 * reply that the kernel did not take counts nothing, so they are given back.
 */
#define FUSE_USE_VERSION 314
#include "fuse_ops.h"
#include "acl.h"
#include "handles.h"
#include "late.h"
#include "listing.h"
#include "reply.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static void init(void *user, struct fuse_conn_info *conn)
{
    const unsigned wanted = FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_READDIRPLUS |
                            FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS |
                            FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_ASYNC_READ |
                            FUSE_CAP_EXPLICIT_INVAL_DATA;
    const struct fuse_ops_daemon *d = user;
    /* With ATOMIC_O_TRUNC and no OPEN, O_TRUNC would be lost without a word. With ASYNC_DIO the
     * kernel keeps pages that were read while a direct write was under way, and they stay old. */
    conn->want = conn->capable & (wanted | (d->writeback ? FUSE_CAP_WRITEBACK_CACHE : 0));
    conn->max_write = 1 << 20;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
}

/* May a name be made, removed or replaced here? */
static int name_free(uint64_t dir, const char *name)
{
    return control_owns(dir) || control_reserved(dir, name) ? -EPERM : 0;
}

/* ---- Names ---- */

static void lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct volume_attr attr;
    uint64_t ino = dir;
    if (control_owns(dir) || control_reserved(dir, name)) {
        late_lookup(req, dir, name);
        return;
    }
    int err;
    if (!strcmp(name, ".") || !strcmp(name, "..")) { /* of a file handle, for NFS */
        err = name[1] ? volume_parent(d->volume, dir, &ino) : 0;
        err = err ? err : volume_lookup_ino(d->volume, ino, &attr);
    } else {
        err = volume_lookup(d->volume, dir, reply_name(name), &attr);
    }
    if (err == -ENOENT)
        reply_absent(req);
    else
        reply_entry_of(req, err, &attr);
}

static void make(fuse_req_t req, fuse_ino_t dir, const char *name, struct volume_new *new)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct volume_attr attr;
    new->uid = ctx->uid;
    new->gid = ctx->gid;
    new->umask = ctx->umask;
    int err = name_free(dir, name);
    if (!err)
        err = volume_make(d->volume, dir, reply_name(name), new, &attr);
    reply_entry_of(req, reply_durable_entry(d, err, &attr), &attr);
}

static void mknod_(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev)
{
    make(req, dir, name, &(struct volume_new){.mode = mode, .rdev = rdev});
}

static void mkdir_(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode)
{
    make(req, dir, name, &(struct volume_new){.mode = S_IFDIR | (mode & 07777)});
}

static void symlink_(fuse_req_t req, const char *target, fuse_ino_t dir, const char *name)
{
    make(req, dir, name,
         &(struct volume_new){.mode = S_IFLNK | 0777, .target = reply_name(target)});
}

static void create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode,
                   struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct volume_new new = {.mode = S_IFREG | (mode & 07777), .uid = ctx->uid, .gid = ctx->gid};
    new.umask = ctx->umask;
    struct volume_attr attr;
    int err = name_free(dir, name);
    if (!err)
        err = volume_make(d->volume, dir, reply_name(name), &new, &attr);
    err = reply_durable_entry(d, err, &attr);
    if (!err)
        err = handles_created(d, ctx->pid, attr.ino, fi);
    bool taken = reply_create_of(req, err, &attr, fi);
    if (!err && !taken)
        (void)handles_close(d, attr.ino, fi);
}

static void link_(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct volume_attr attr;
    int err = control_owns(ino) ? -EPERM : name_free(dir, name);
    if (!err)
        err = volume_link(d->volume, ino, dir, reply_name(name), &attr);
    reply_entry_of(req, reply_durable_entry(d, err, &attr), &attr);
}

static void unlink_(fuse_req_t req, fuse_ino_t dir, const char *name)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    int err = name_free(dir, name);
    if (!err)
        err = volume_unlink(d->volume, dir, reply_name(name));
    reply_done(req, reply_durable(d, err, dir));
}

static void rmdir_(fuse_req_t req, fuse_ino_t dir, const char *name)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    int err = name_free(dir, name);
    if (!err)
        err = volume_rmdir(d->volume, dir, reply_name(name));
    reply_done(req, reply_durable(d, err, dir));
}

static void rename_(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t new_dir,
                    const char *new_name, unsigned flags)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    int err = name_free(dir, name);
    if (!err)
        err = name_free(new_dir, new_name);
    if (!err && flags & ~(unsigned)(VOLUME_NOREPLACE | VOLUME_EXCHANGE))
        err = -EINVAL;
    if (!err)
        err = volume_rename(d->volume, dir, reply_name(name), new_dir, reply_name(new_name), flags);
    reply_done(req, reply_durable(d, err, dir));
}

static void readlink_(fuse_req_t req, fuse_ino_t ino)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    char target[VOLUME_SYMLINK_MAX + 1];
    ssize_t n =
        control_owns(ino) ? -EINVAL : volume_readlink(d->volume, ino, target, VOLUME_SYMLINK_MAX);
    if (n >= 0)
        target[n] = '\0';
    reply_target(req, n, target);
}

/* ---- Inodes ---- */

static void give_back(struct fuse_ops_daemon *d, uint64_t ino, uint64_t n)
{
    if (control_owns(ino))
        control_forget(d->control, ino, n);
    else
        volume_forget(d->volume, ino, n);
}

static void forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    give_back(fuse_req_userdata(req), ino, n);
    fuse_reply_none(req);
}

static void forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        give_back(fuse_req_userdata(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct volume_attr attr;
    (void)fi;
    if (control_owns(ino)) {
        reply_control_attr(req, ino);
        return;
    }
    int err = volume_getattr(d->volume, ino, &attr);
    reply_attr_of(req, err, &attr);
}

/* The volume's bits for FUSE's. */
static unsigned set_bits(int to_set)
{
    static const struct {
        int fuse;
        unsigned volume;
    } bits[] = {
        {FUSE_SET_ATTR_MODE, VOLUME_SET_MODE},
        {FUSE_SET_ATTR_UID, VOLUME_SET_UID},
        {FUSE_SET_ATTR_GID, VOLUME_SET_GID},
        {FUSE_SET_ATTR_SIZE, VOLUME_SET_SIZE},
        {FUSE_SET_ATTR_ATIME, VOLUME_SET_ATIME},
        {FUSE_SET_ATTR_MTIME, VOLUME_SET_MTIME},
        {FUSE_SET_ATTR_ATIME_NOW, VOLUME_SET_ATIME_NOW},
        {FUSE_SET_ATTR_MTIME_NOW, VOLUME_SET_MTIME_NOW},
        {FUSE_SET_ATTR_CTIME, VOLUME_SET_CTIME},
        {FUSE_SET_ATTR_KILL_SUID, VOLUME_KILL_SUID}, /* FATTR_KILL_SUIDGID of the protocol */
    };
    unsigned set = 0;
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++)
        if (to_set & bits[i].fuse)
            set |= bits[i].volume;
    if (set & VOLUME_SET_ATIME_NOW)
        set &= ~(unsigned)VOLUME_SET_ATIME;
    if (set & VOLUME_SET_MTIME_NOW)
        set &= ~(unsigned)VOLUME_SET_MTIME;
    /* chown(-1, -1), and the kernel's own wish to have suid and sgid gone, set nothing. */
    if (!set)
        set = VOLUME_KILL_SUID;
    return set;
}

/* With -o sync, too, a truncation to zero waits for the write that follows, to be in one frame with
 * it. */
static bool is_emptied(const struct stat *st, int to_set)
{
    const int others = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
    return to_set & FUSE_SET_ATTR_SIZE && st->st_size == 0 && !(to_set & others);
}

static void setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
                    struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct volume_attr new = {.mode = st->st_mode,
                              .uid = st->st_uid,
                              .gid = st->st_gid,
                              .size = (uint64_t)st->st_size,
                              .atime = st->st_atim,
                              .mtime = st->st_mtim,
                              .ctime = st->st_ctim};
    struct volume_attr attr;
    (void)fi;
    if (control_owns(ino)) {
        /* "echo compact > control" truncates first; a kernel that gathers writes tells their times.
         */
        if (to_set & ~(FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_KILL_SUID | FUSE_SET_ATTR_MTIME_NOW |
                       FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME))
            fuse_reply_err(req, EPERM);
        else
            reply_control_attr(req, ino);
        return;
    }
    int err = volume_setattr(d->volume, ino, set_bits(to_set), &new, &attr);
    reply_attr_of(req, is_emptied(st, to_set) ? err : reply_durable(d, err, ino), &attr);
}

/* ---- Contents ---- */

static void read_(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                  struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    (void)fi;
    if (control_owns(ino)) {
        reply_control_read(req, ino, (uint64_t)offset, size);
        return;
    }
    char *buf = reply_buffer(size);
    ssize_t n = buf ? volume_read(d->volume, ino, (uint64_t)offset, buf, size) : -ENOMEM;
    reply_data(req, n, buf);
}

static void write_(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                   struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    unsigned flags = transport_kills_suid() ? VOLUME_KILL_SUID : 0;
    if (control_owns(ino)) {
        late_write(req, ino, data, size);
        return;
    }
    handles_wrote(req, fi);
    ssize_t n = volume_write(d->volume, ino, (uint64_t)offset, data, size, flags);
    int err = reply_durable(d, n < 0 ? (int)n : 0, ino);
    reply_written(req, err ? err : n);
}

static void fsync_(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)datasync, (void)fi;
    late_sync(req, ino);
}

static void fallocate_(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                       struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    (void)fi;
    int err = control_owns(ino)
                  ? -EPERM
                  : volume_fallocate(d->volume, ino, mode, (uint64_t)offset, (uint64_t)length);
    reply_done(req, reply_durable(d, err, ino));
}

static void lseek_(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
                   struct fuse_file_info *fi)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    uint64_t found = 0;
    struct volume_attr attr = {0};
    (void)fi;
    /* Writes that the kernel holds may lie behind the end that the volume knows. So it shall answer
     * itself, by sizes alone: where all is data, nobody takes data for a hole. */
    if (d->writeback) {
        fuse_reply_err(req, ENOSYS);
        return;
    }
    int err =
        control_owns(ino) ? -EINVAL : volume_seek(d->volume, ino, (uint64_t)offset, whence, &found);
    if (!err && whence == SEEK_HOLE)
        err = volume_getattr(d->volume, ino, &attr);
    if (err && err != -ENXIO)
        fuse_reply_err(req, -err);
    else if (!err && found == (whence == SEEK_HOLE ? attr.size : (uint64_t)offset))
        fuse_reply_lseek(req, (off_t)found);
    else
        late_seek(req, ino, (uint64_t)offset, whence);
}

static void statfs_(fuse_req_t req, fuse_ino_t ino)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    struct volume_statfs fs;
    (void)ino;
    int err = volume_statfs(d->volume, &fs);
    reply_statfs_of(req, err, &fs);
}

/* ---- Extended attributes ---- */

/*
 * What an attribute's name allows: the control attributes are the root's; security.selinux would be
 * asked for at each stat, and POSIX ACLs, without the option, would be kept and not obeyed, so both
 * are "not supported", which the kernel and tools take for an answer once and for all. But of the
 * control directory the kernel asks for ACLs itself, and that answer would close it.
 */
enum attribute { ATTRIBUTE_PLAIN, ATTRIBUTE_CONTROL, ATTRIBUTE_ABSENT, ATTRIBUTE_REFUSED };

/* The kernel lets any name through to a FUSE file system. */
static bool is_in_a_namespace(const char *name)
{
    static const char *const spaces[] = {"user.", "trusted.", "security.", "system."};
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        if (!strncmp(name, spaces[i], strlen(spaces[i])))
            return name[strlen(spaces[i])] != '\0';
    return false;
}

static enum attribute attribute_of(const struct fuse_ops_daemon *d, uint64_t ino, const char *name)
{
    if (!is_in_a_namespace(name))
        return ATTRIBUTE_REFUSED;
    bool acl = d->transport.acl && acl_kind_of(reply_name(name));
    if (control_owns(ino))
        return acl ? ATTRIBUTE_ABSENT : ATTRIBUTE_REFUSED;
    if (!strcmp(name, "security.selinux"))
        return ATTRIBUTE_REFUSED;
    if (!strncmp(name, "system.", 7)) /* no others mean anything here */
        return acl ? ATTRIBUTE_PLAIN : ATTRIBUTE_REFUSED;
    if (ino == VOLUME_ROOT && !strncmp(name, CONTROL_ATTRIBUTES, strlen(CONTROL_ATTRIBUTES)))
        return ATTRIBUTE_CONTROL;
    return ATTRIBUTE_PLAIN;
}

static void setxattr_(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                      size_t size, int flags)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    if (transport_kills_sgid(fuse_req_ctx(req)->uid))
        flags |= VOLUME_KILL_SGID;
    switch (attribute_of(d, ino, name)) {
    case ATTRIBUTE_ABSENT:
    case ATTRIBUTE_REFUSED:
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    case ATTRIBUTE_CONTROL: /* the kernel lets in who may write to the root */
        if (control_permits(d->control, fuse_req_ctx(req)->uid))
            late_setxattr(req, name);
        else
            fuse_reply_err(req, EPERM);
        return;
    case ATTRIBUTE_PLAIN:;
        int err = volume_setxattr(d->volume, ino, reply_name(name), value, size, flags);
        reply_done(req, reply_durable(d, err, ino));
    }
}

static void getxattr_(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    enum attribute what = attribute_of(d, ino, name);
    if (what == ATTRIBUTE_REFUSED || what == ATTRIBUTE_ABSENT) {
        fuse_reply_err(req, what == ATTRIBUTE_ABSENT ? ENODATA : EOPNOTSUPP);
        return;
    }
    char *buf = reply_buffer(size);
    ssize_t n = !buf ? -ENOMEM
                : what == ATTRIBUTE_CONTROL
                    ? control_getxattr(d->control, name, buf, size)
                    : volume_getxattr(d->volume, ino, reply_name(name), buf, size);
    reply_sized(req, n, buf, size);
}

/* What is not supported must not be listed either. Returns the new length. */
static size_t drop_acls(char *list, size_t size)
{
    size_t kept = 0, len;
    for (size_t at = 0; at < size; at += len) {
        len = strlen(list + at) + 1;
        if (acl_kind_of(reply_name(list + at)))
            continue;
        memmove(list + kept, list + at, len);
        kept += len;
    }
    return kept;
}

static void listxattr_(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    char *buf = reply_buffer(size);
    ssize_t n = !buf                ? -ENOMEM
                : control_owns(ino) ? 0
                                    : volume_listxattr(d->volume, ino, buf, size);
    if (n > 0 && size && !d->transport.acl)
        n = (ssize_t)drop_acls(buf, (size_t)n);
    reply_sized(req, n, buf, size);
}

static void removexattr_(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct fuse_ops_daemon *d = fuse_req_userdata(req);
    enum attribute what = attribute_of(d, ino, name);
    int err = what == ATTRIBUTE_REFUSED ? -EOPNOTSUPP
              : what != ATTRIBUTE_PLAIN ? -ENODATA
                                        : volume_removexattr(d->volume, ino, reply_name(name));
    reply_done(req, reply_durable(d, err, ino));
}

const struct fuse_lowlevel_ops fuse_ops_table = {
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
    .unlink = unlink_,
    .rmdir = rmdir_,
    .rename = rename_,
    .open = handles_open,
    .flush = handles_flush,
    .release = handles_release,
    .read = read_,
    .write = write_,
    .fsync = fsync_,
    .fsyncdir = fsync_,
    .opendir = listing_open,
    .readdir = listing_read,
    .readdirplus = listing_readplus,
    .statfs = statfs_,
    .setxattr = setxattr_,
    .getxattr = getxattr_,
    .listxattr = listxattr_,
    .removexattr = removexattr_,
    .fallocate = fallocate_,
    .lseek = lseek_,
};
