/* SPDX-License-Identifier: MIT */
#include "volume_internal.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { HOLD_MS = 500, HOLD_BYTES = 32 << 20 };

enum {
    BLOCK_SIZE = 1 << 20,
    /* glibc takes no smaller buffer for a listing. */
    LISTING_MIN = 32 << 10,
    /* An entry of a listing with attributes and a name of up to 104 bytes. */
    LISTED_ENTRY = 256,
};

_Static_assert((int)VOLUME_NAME_MAX == (int)KEYS_NAME_MAX, "names fit into keys");
_Static_assert((int)KEYS_MAX <= (int)KEG_KEY_MAX, "keys fit into the store");
_Static_assert((int)KEYS_INODE_META_MAX <= (int)KEG_META_MAX, "metas fit into the store");
_Static_assert(STRIPES == 256, "a stripe's number is a byte");

/* ---- Small helpers ---- */

struct timespec volume_now(struct volume *volume)
{
    struct timespec now;
    if (volume->now)
        return volume->now(volume->now_arg);
    clock_gettime(CLOCK_REALTIME, &now);
    return now;
}

void volume_log(struct volume *volume, enum keg_level level, const char *format, ...)
{
    char line[256];
    va_list args;
    if (!volume->log)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    volume->log(volume->log_arg, level, line);
}

int volume_error(struct volume *volume, uint64_t ino, int error)
{
    if (error != -EBADMSG && error != -EPROTO)
        return error;
    volume_log(volume, KEG_LOG_ERROR,
               error == -EBADMSG ? "inode %llu: what the store has of it is damaged"
                                 : "inode %llu: written by a newer version",
               (unsigned long long)ino);
    return -EIO;
}

bool volume_names_ok(struct keg_bytes name, int *error)
{
    const char *p = name.data;
    *error = -EINVAL;
    if (name.len == 0 || memchr(p, '/', name.len) || memchr(p, 0, name.len))
        return false;
    if (p[0] == '.' && (name.len == 1 || (name.len == 2 && p[1] == '.')))
        return false;
    *error = name.len > VOLUME_NAME_MAX ? -ENAMETOOLONG : 0;
    return *error == 0;
}

/*
 * readdir(3) reads with a buffer of this size, and the kernel gets pages for all of it with each
 * request. So it is what the directory needs to be listed at once, with attributes: a larger one
 * costs more than the request, a smaller one lookups, as only the first request asks for
 * attributes.
 */
static blksize_t listing_size(uint64_t entries)
{
    uint64_t size = LISTING_MIN;
    while (size < BLOCK_SIZE && size / LISTED_ENTRY < entries + 2) /* "." and ".." */
        size *= 2;
    return (blksize_t)size;
}

void volume_stat(const struct volume_attr *attr, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = attr->ino;
    st->st_mode = attr->mode;
    st->st_nlink = attr->nlink;
    st->st_uid = attr->uid;
    st->st_gid = attr->gid;
    st->st_rdev = attr->rdev;
    st->st_size = (off_t)attr->size;
    st->st_blksize = S_ISDIR(attr->mode) ? listing_size(attr->size / DIRENT_SIZE) : BLOCK_SIZE;
    st->st_blocks = (blkcnt_t)(attr->bytes / 512 + (attr->bytes % 512 != 0));
    st->st_atim = attr->atime;
    st->st_mtim = attr->mtime;
    st->st_ctim = attr->ctime;
}

/* ---- Ids ---- */

static int log_superblock(struct volume *volume, uint64_t next_id, struct change *change)
{
    struct keys_key key;
    uint8_t meta[KEYS_SUPER_META_SIZE];
    struct keys_superblock super = {.next_id = next_id};
    memcpy(super.secret, volume->secret, sizeof super.secret);
    keys_super(&key);
    keys_super_encode(meta, &super);
    change_put(change, &key, (struct keg_bytes){meta, sizeof meta}, (struct keg_bytes){0});
    return change->error;
}

/*
 * Ids are used only after the superblock with the limit above them is in the log. It need not be
 * durable: the log is kept up to some point, so with the superblock a power cut takes everything
 * that used those ids.
 */
static int log_limit(struct volume *volume, uint64_t limit)
{
    struct change change;
    change_begin(&change, volume);
    int error = log_superblock(volume, limit, &change);
    if (error) {
        change_drop(&change);
        return error;
    }
    return change_commit(&change, 0);
}

/* Ids behind `used`, which was the limit. Those who wait for it have no id to go on with; whether
 * they have entered the store does not matter to a check, as no more of it changes. */
static int reserve(struct volume *volume, uint64_t used)
{
    int error = 0;
    uint64_t limit = used + IDS_RESERVED;
    pthread_mutex_lock(&volume->reserve_lock);
    if (volume->id_limit == used) {
        error = limit < used ? -ENOSPC : log_limit(volume, limit);
        pthread_mutex_lock(&volume->id_lock);
        if (!error)
            volume->id_limit = limit;
        pthread_mutex_unlock(&volume->id_lock);
    }
    pthread_mutex_unlock(&volume->reserve_lock);
    return error;
}

int volume_new_id(struct volume *volume, uint64_t *id)
{
    int error = 0;
    pthread_mutex_lock(&volume->id_lock);
    while (!error && volume->next_id == volume->id_limit) {
        uint64_t used = volume->id_limit;
        pthread_mutex_unlock(&volume->id_lock);
        error = reserve(volume, used);
        pthread_mutex_lock(&volume->id_lock);
    }
    if (!error)
        *id = volume->next_id++;
    pthread_mutex_unlock(&volume->id_lock);
    return error;
}

/* ---- Opening and closing ---- */

static int random_secret(uint8_t *secret)
{
    for (size_t got = 0; got < KEYS_SECRET_SIZE;) {
        ssize_t n = getrandom(secret + got, KEYS_SECRET_SIZE - got, 0);
        if (n < 0 && errno != EINTR)
            return -errno;
        got += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* One frame: the superblock and the root. */
static int create(struct volume *volume, const struct volume_options *options)
{
    struct keg_stats stats;
    keg_stats(volume->keg, &stats);
    if (stats.keys)
        return -EPROTO;
    if (!(options->flags & VOLUME_CREATE))
        return -ENOENT;
    if (options->secret)
        memcpy(volume->secret, options->secret, KEYS_SECRET_SIZE);
    int error = options->secret ? 0 : random_secret(volume->secret);
    if (error)
        return error;
    struct change change;
    struct inode root = {.ino = VOLUME_ROOT, .mode = S_IFDIR | 0755, .nlink = 2};
    root.parent = VOLUME_ROOT;
    root.uid = options->root_uid;
    root.gid = options->root_gid;
    root.atime = root.mtime = root.ctime = root.btime = volume_now(volume);
    volume->next_id = volume->id_limit = VOLUME_ROOT + 1;
    change_begin(&change, volume);
    (void)!log_superblock(volume, volume->id_limit, &change);
    change_new_inode(&change, &root, (struct keg_bytes){0});
    return change_commit(&change, 0);
}

static int load(struct volume *volume, const struct volume_options *options)
{
    struct keys_key key;
    struct keg_info info;
    struct keys_superblock super;
    keys_super(&key);
    int error = keg_get(volume->keg, keys_bytes(&key), &info);
    if (error == -ENOENT)
        return create(volume, options);
    if (!error)
        error = keys_super_decode((struct keg_bytes){info.meta, info.meta_len}, &super);
    if (error)
        return error == -EBADMSG ? -EPROTO : error;
    memcpy(volume->secret, super.secret, sizeof super.secret);
    volume->next_id = volume->id_limit = super.next_id;
    if (volume->flags & VOLUME_READONLY || keg_readonly_reason(volume->keg))
        return 0;
    error = orphans_scan(volume);
    tend_inline(volume);
    return error;
}

static int init_locks(struct volume *volume)
{
    int error = tend_init(volume);
    if (error)
        return error;
    error = inodes_init(volume);
    if (error) {
        tend_destroy(volume);
        return error;
    }
    pthread_mutex_init(&volume->rename_lock, NULL);
    pthread_mutex_init(&volume->reserve_lock, NULL);
    pthread_mutex_init(&volume->id_lock, NULL);
    pthread_mutex_init(&volume->count_lock, NULL);
    return 0;
}

static void destroy(struct volume *volume)
{
    tend_destroy(volume);
    inodes_destroy(volume);
    pthread_mutex_destroy(&volume->rename_lock);
    pthread_mutex_destroy(&volume->reserve_lock);
    pthread_mutex_destroy(&volume->id_lock);
    pthread_mutex_destroy(&volume->count_lock);
    change_free_spares(volume);
    free(volume);
}

int volume_open(struct keg *keg, const struct volume_options *options, struct volume **out)
{
    struct volume *volume = calloc(1, sizeof *volume);
    if (!volume)
        return -ENOMEM;
    volume->keg = keg;
    volume->flags = options->flags;
    volume->log = options->log;
    volume->log_arg = options->log_arg;
    volume->now = options->now;
    volume->now_arg = options->now_arg;
    volume->hold_ms = options->hold_ms ? options->hold_ms : HOLD_MS;
    volume->hold_max =
        (options->hold_bytes ? options->hold_bytes : HOLD_BYTES) / sizeof(struct held);
    volume->hash_mask = UINT64_MAX;
    int error = init_locks(volume);
    if (error) {
        free(volume);
        return error;
    }
    error = load(volume, options);
    if (!error)
        error = tend_start(volume);
    if (error) {
        destroy(volume);
        return error;
    }
    *out = volume;
    return 0;
}

void volume_drop_staged(struct volume *volume)
{
    if (!(volume->flags & VOLUME_READONLY))
        (void)!stage_close(volume, false);
}

int volume_close(struct volume *volume)
{
    int error = 0;
    if (!volume)
        return 0;
    tend_stop(volume);
    if (!(volume->flags & VOLUME_READONLY)) {
        error = stage_close(volume, true);
        int truncated = tend_flush_all(volume, HELD_TRUNCATED);
        int lazy = tend_flush_all(volume, HELD_LAZY);
        error = error ? error : truncated ? truncated : lazy;
    }
    destroy(volume);
    return error;
}

/* ---- statfs ---- */

static int count_inodes(struct volume *volume, int64_t *count)
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_kind_prefix(&prefix, KEYS_INODE);
    int more = keg_iter_open(volume->keg, keys_bytes(&prefix), &iter);
    if (more)
        return more;
    for (*count = 0; (more = keg_iter_next(iter, &entry)) > 0;)
        ++*count;
    keg_iter_close(iter);
    return more;
}

/* Counted when somebody asks for the first time, then kept: mounting need not wait for it. What
 * comes or goes while it is being counted may be missed. */
static int ensure_counted(struct volume *volume)
{
    int64_t count;
    int error = 0;
    pthread_mutex_lock(&volume->count_lock);
    if (!volume->counted) {
        int64_t changed = atomic_load(&volume->inodes);
        error = count_inodes(volume, &count);
        if (!error)
            atomic_fetch_add(&volume->inodes, count - changed);
        volume->counted = !error;
    }
    pthread_mutex_unlock(&volume->count_lock);
    return error;
}

int volume_statfs(struct volume *volume, struct volume_statfs *out)
{
    struct keg_stats stats;
    int error = ensure_counted(volume);
    if (error)
        return error;
    int64_t inodes = atomic_load(&volume->inodes);
    keg_stats(volume->keg, &stats);
    out->total = stats.total_bytes;
    out->free = stats.free_bytes;
    out->inodes = inodes > 0 ? (uint64_t)inodes : 0;
    return 0;
}

void volume_memory(struct volume *volume, struct volume_memory *out)
{
    *out = (struct volume_memory){0};
    inodes_measure(volume, out);
    tend_measure(volume, out);
}
