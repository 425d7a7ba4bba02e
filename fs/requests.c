/* SPDX-License-Identifier: MIT */
#include "requests.h"
#include <linux/fuse.h>
#include <stddef.h>

static const char *const names[REQUESTS_MAX] = {
    [FUSE_LOOKUP] = "LOOKUP",
    [FUSE_FORGET] = "FORGET",
    [FUSE_GETATTR] = "GETATTR",
    [FUSE_SETATTR] = "SETATTR",
    [FUSE_READLINK] = "READLINK",
    [FUSE_SYMLINK] = "SYMLINK",
    [FUSE_MKNOD] = "MKNOD",
    [FUSE_MKDIR] = "MKDIR",
    [FUSE_UNLINK] = "UNLINK",
    [FUSE_RMDIR] = "RMDIR",
    [FUSE_RENAME] = "RENAME",
    [FUSE_LINK] = "LINK",
    [FUSE_OPEN] = "OPEN",
    [FUSE_READ] = "READ",
    [FUSE_WRITE] = "WRITE",
    [FUSE_STATFS] = "STATFS",
    [FUSE_RELEASE] = "RELEASE",
    [FUSE_FSYNC] = "FSYNC",
    [FUSE_SETXATTR] = "SETXATTR",
    [FUSE_GETXATTR] = "GETXATTR",
    [FUSE_LISTXATTR] = "LISTXATTR",
    [FUSE_REMOVEXATTR] = "REMOVEXATTR",
    [FUSE_FLUSH] = "FLUSH",
    [FUSE_INIT] = "INIT",
    [FUSE_OPENDIR] = "OPENDIR",
    [FUSE_READDIR] = "READDIR",
    [FUSE_RELEASEDIR] = "RELEASEDIR",
    [FUSE_FSYNCDIR] = "FSYNCDIR",
    [FUSE_GETLK] = "GETLK",
    [FUSE_SETLK] = "SETLK",
    [FUSE_SETLKW] = "SETLKW",
    [FUSE_ACCESS] = "ACCESS",
    [FUSE_CREATE] = "CREATE",
    [FUSE_INTERRUPT] = "INTERRUPT",
    [FUSE_BMAP] = "BMAP",
    [FUSE_DESTROY] = "DESTROY",
    [FUSE_IOCTL] = "IOCTL",
    [FUSE_POLL] = "POLL",
    [FUSE_NOTIFY_REPLY] = "NOTIFY_REPLY",
    [FUSE_BATCH_FORGET] = "BATCH_FORGET",
    [FUSE_FALLOCATE] = "FALLOCATE",
    [FUSE_READDIRPLUS] = "READDIRPLUS",
    [FUSE_RENAME2] = "RENAME2",
    [FUSE_LSEEK] = "LSEEK",
    [FUSE_COPY_FILE_RANGE] = "COPY_FILE_RANGE",
    [FUSE_SETUPMAPPING] = "SETUPMAPPING",
    [FUSE_REMOVEMAPPING] = "REMOVEMAPPING",
    [FUSE_SYNCFS] = "SYNCFS",
    [FUSE_TMPFILE] = "TMPFILE",
    [52] = "STATX", /* newer than the headers of some build machines */
};

void requests_count(struct requests *requests, uint32_t opcode)
{
    atomic_fetch_add_explicit(&requests->count[opcode < REQUESTS_MAX ? opcode : 0], 1,
                              memory_order_relaxed);
}

bool requests_may_wait(struct requests *requests, uint64_t len, uint64_t most)
{
    if (atomic_load(&requests->waiting) + len > most)
        return false;
    atomic_fetch_add(&requests->waiting, len);
    return true;
}

void requests_waited(struct requests *requests, uint64_t len)
{
    atomic_fetch_sub(&requests->waiting, len);
}

uint64_t requests_waiting(const struct requests *requests)
{
    return atomic_load(&requests->waiting);
}

uint64_t requests_get(const struct requests *requests, uint32_t opcode)
{
    return atomic_load_explicit(&requests->count[opcode], memory_order_relaxed);
}

const char *requests_name(uint32_t opcode)
{
    return opcode < REQUESTS_MAX && names[opcode] ? names[opcode] : "OTHER";
}
