/* SPDX-License-Identifier: MIT */
#include "volume_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of the usual size, which holds a window, a few are kept. */
enum { CHUNK_SIZE = KEYS_WINDOW };

struct chunk {
    struct chunk *next;
    size_t used, size;
    uint8_t bytes[];
};

void change_begin(struct change *change, struct volume *volume)
{
    change->volume = volume;
    keg_batch_lend(&change->batch, change->ops, CHANGE_OPS);
    change->error = 0;
    change->notes = 0;
    change->chunks = NULL;
    change->room_used = 0;
}

static struct chunk *take_chunk(struct volume *volume, size_t size)
{
    struct chunk *chunk = NULL;
    for (size_t i = 0; i < SPARE_CHUNKS && size == CHUNK_SIZE && !chunk; i++)
        chunk = atomic_exchange(&volume->spare_chunks[i], NULL);
    return chunk ? chunk : malloc(sizeof *chunk + size);
}

static void give_chunk(struct volume *volume, struct chunk *chunk)
{
    for (size_t i = 0; i < SPARE_CHUNKS && chunk->size == CHUNK_SIZE; i++) {
        struct chunk *none = NULL;
        if (atomic_compare_exchange_strong(&volume->spare_chunks[i], &none, chunk))
            return;
    }
    free(chunk);
}

void change_free_spares(struct volume *volume)
{
    for (size_t i = 0; i < SPARE_CHUNKS; i++)
        free(atomic_exchange(&volume->spare_chunks[i], NULL));
}

void change_drop(struct change *change)
{
    keg_batch_free(&change->batch);
    while (change->chunks) {
        struct chunk *next = change->chunks->next;
        give_chunk(change->volume, change->chunks);
        change->chunks = next;
    }
}

void change_fail(struct change *change, int error)
{
    if (!change->error)
        change->error = error;
}

void *change_alloc(struct change *change, size_t len)
{
    if (len <= sizeof change->room - change->room_used) {
        change->room_used += len;
        return change->room + change->room_used - len;
    }
    struct chunk *c = change->chunks;
    if (!c || c->size - c->used < len) {
        size_t size = len > CHUNK_SIZE ? len : CHUNK_SIZE;
        c = take_chunk(change->volume, size);
        if (!c) {
            change_fail(change, -ENOMEM);
            return NULL;
        }
        *c = (struct chunk){.next = change->chunks, .size = size};
        change->chunks = c;
    }
    c->used += len;
    return c->bytes + c->used - len;
}

static struct keg_bytes keep(struct change *change, struct keg_bytes bytes)
{
    void *copy = bytes.len ? change_alloc(change, bytes.len) : NULL;
    if (!copy)
        return (struct keg_bytes){0};
    memcpy(copy, bytes.data, bytes.len);
    return (struct keg_bytes){copy, bytes.len};
}

/* Key and meta are copied; the value has to last. */
void change_put(struct change *change, const struct keys_key *key, struct keg_bytes meta,
                struct keg_bytes value)
{
    struct keg_bytes kept_key = keep(change, keys_bytes(key));
    struct keg_bytes kept_meta = keep(change, meta);
    if (!change->error)
        change_fail(change, keg_batch_put(&change->batch, kept_key, kept_meta, value));
}

void change_delete(struct change *change, const struct keys_key *key)
{
    struct keg_bytes kept = keep(change, keys_bytes(key));
    if (!change->error)
        change_fail(change, keg_batch_delete(&change->batch, kept));
}

static void add_note(struct change *change, enum change_noted kind, struct work work)
{
    if (change->notes == CHANGE_NOTES) {
        change_fail(change, -EOVERFLOW);
        return;
    }
    change->note[change->notes++] = (struct change_note){.kind = kind, .work = work};
}

void change_new_inode(struct change *change, const struct inode *inode, struct keg_bytes target)
{
    struct keys_key key;
    uint8_t meta[KEYS_INODE_META_MAX];
    keys_inode(&key, inode->ino);
    size_t len = keys_inode_encode(meta, inode);
    change_put(change, &key, (struct keg_bytes){meta, len}, target);
}

/* The text of a symbolic link is the value of its inode, so it goes along with every change.
 * loses: a link whose text is damaged goes on without it, in which case nothing is returned. What
 * cannot be read today could be tomorrow, so it is kept for other names that the link has. */
static struct keg_bytes read_target(struct change *change, const struct inode *inode, bool loses)
{
    struct keys_key key;
    char *text = change_alloc(change, inode->size);
    if (!text)
        return (struct keg_bytes){0};
    keys_inode(&key, inode->ino);
    ssize_t n = keg_read(change->volume->keg, keys_bytes(&key), 0, text, inode->size);
    if (inode->nlink == 0 && (n == -EBADMSG || n == -EIO))
        return (struct keg_bytes){0};
    if (n < 0 || (uint64_t)n != inode->size) {
        int error = volume_error(change->volume, inode->ino, n < 0 ? (int)n : -EBADMSG);
        if (loses && n == -EBADMSG)
            return (struct keg_bytes){0};
        change_fail(change, error);
    }
    return (struct keg_bytes){text, inode->size};
}

/* The contents are to stay in memory as they are now. */
static void note_staged(struct change *change, const struct inode *inode)
{
    void *copy = change_alloc(change, sizeof *inode);
    if (!copy)
        return;
    memcpy(copy, inode, sizeof *inode);
    add_note(change, NOTE_STAGED, (struct work){WORK_FLUSH, inode->ino});
    if (!change->error)
        change->note[change->notes - 1].inode = copy;
}

/* The record goes on speaking of the old contents. Their time goes with them, else a backup would
 * take them for the new; where they were empty, nobody could. */
static void change_staged(struct change *change, const struct inode *inode)
{
    struct inode record = *inode;
    record.content = inode->old.content;
    record.size = inode->old.size;
    record.bytes = inode->old.bytes;
    record.flags = (inode->flags & ~(uint32_t)INODE_CONTENTS) | inode->old.flags;
    if (inode->old.size)
        record.mtime = inode->old.mtime;
    change_new_inode(change, &record, (struct keg_bytes){0});
    note_staged(change, inode);
}

void change_contents(struct change *change, const struct inode *inode)
{
    if (inode->staged)
        note_staged(change, inode);
    else
        change_inode(change, inode);
}

void change_work(struct change *change, enum work_kind kind, uint64_t id)
{
    add_note(change, NOTE_WORK, (struct work){kind, id});
}

static void log_inode(struct change *change, const struct inode *inode, bool loses)
{
    if (inode->staged) {
        change_staged(change, inode);
        return;
    }
    struct keg_bytes target = {0};
    struct inode record = *inode;
    if (S_ISLNK(inode->mode) && inode->size) {
        target = read_target(change, inode, loses);
        record.size = target.len; /* 0: it is lost, and nobody shall read it again */
    }
    change_new_inode(change, &record, target);
    if (inode->stale) {
        change_orphan(change, KEYS_ORPHAN_CONTENT, inode->stale);
        add_note(change, NOTE_WORK, (struct work){WORK_CONTENT, inode->stale});
    }
    add_note(change, NOTE_LOGGED, (struct work){WORK_FLUSH, inode->ino});
}

void change_inode(struct change *change, const struct inode *inode)
{
    log_inode(change, inode, false);
}

void change_unlinked(struct change *change, const struct inode *inode)
{
    log_inode(change, inode, true);
}

void change_name(struct change *change, const struct keys_key *name, uint64_t ino, uint32_t mode)
{
    uint8_t meta[KEYS_NAME_META_MAX];
    size_t len = keys_name_encode(meta, ino, mode);
    change_put(change, name, (struct keg_bytes){meta, len}, (struct keg_bytes){0});
}

void change_orphan(struct change *change, enum keys_orphan orphan, uint64_t id)
{
    struct keys_key key;
    keys_orphan(&key, orphan, id);
    change_put(change, &key, (struct keg_bytes){0}, (struct keg_bytes){0});
    if (orphan == KEYS_ORPHAN_INODE)
        add_note(change, NOTE_UNLINKED, (struct work){WORK_INODE, id});
    else if (orphan == KEYS_ORPHAN_TAIL)
        add_note(change, NOTE_WORK, (struct work){WORK_TAIL, id});
}

void change_unorphan(struct change *change, enum keys_orphan orphan, uint64_t id)
{
    struct keys_key key;
    keys_orphan(&key, orphan, id);
    change_delete(change, &key);
}

bool change_delete_all(struct change *change, enum keys_kind kind, uint64_t id)
{
    struct keys_key prefix;
    struct keg_iter *iter;
    struct keg_entry entry;
    keys_prefix(&prefix, kind, id);
    int more = keg_iter_open(change->volume->keg, keys_bytes(&prefix), &iter);
    if (more < 0) {
        change_fail(change, more);
        return false;
    }
    while (!change->error && (more = keg_iter_next(iter, &entry)) > 0) {
        if (change->batch.count >= RECLAIM_FULL)
            break;
        struct keg_bytes key = keep(change, entry.key);
        if (!change->error)
            change_fail(change, keg_batch_delete(&change->batch, key));
    }
    keg_iter_close(iter);
    if (more < 0)
        change_fail(change, more);
    return !change->error && more == 0;
}

/* A staged inode is held already, so that holding it as it is now cannot fail. */
static void hold_staged(struct volume *volume, const void *copy)
{
    struct inode inode;
    memcpy(&inode, copy, sizeof inode);
    (void)!inodes_hold(volume, &inode, false);
}

static void do_note(struct volume *volume, const struct change_note *note)
{
    if (note->kind == NOTE_LOGGED)
        inodes_logged(volume, note->work.id);
    else if (note->kind == NOTE_STAGED)
        hold_staged(volume, note->inode);
    else if (note->kind == NOTE_UNLINKED)
        inodes_unlinked(volume, note->work.id);
    else
        tend_add(volume, note->work.kind, note->work.id);
}

int change_commit(struct change *change, unsigned flags)
{
    int error = change->error;
    if (!error && change->volume->flags & VOLUME_READONLY)
        error = -EROFS;
    if (!error && change->batch.count)
        error = keg_commit(change->volume->keg, &change->batch, flags);
    for (unsigned i = 0; !error && i < change->notes; i++)
        do_note(change->volume, &change->note[i]);
    change_drop(change);
    return error;
}
