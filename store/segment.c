/* SPDX-License-Identifier: MIT */
#include "segment.h"
#include "hintfile.h"
#include "manifest.h"
#include "spin.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void segment_name(uint64_t id, char *out)
{
    snprintf(out, ENV_NAME_MAX + 1, "%08" PRIu64 ".data", id);
}

bool segment_parse_name(const char *name, uint64_t *id)
{
    char *end;
    size_t digits = strspn(name, "0123456789");

    if (digits < 8 || digits > 20)
        return false;
    errno = 0;
    *id = strtoull(name, &end, 10);
    if (errno)
        return false;
    return strcmp(end, ".data") == 0 || strcmp(end, ".hint") == 0 || strcmp(end, ".hint.tmp") == 0;
}

struct format_salt segment_salt(const struct keg *keg, uint64_t id)
{
    return format_salt(keg->id, id);
}

static int free_slot(struct keg *keg, uint32_t *slot)
{
    struct segment **slots;
    uint32_t count = keg->slot_count ? 2 * keg->slot_count : 16;

    for (uint32_t i = keg->slots_used; i < keg->slot_count; i++) {
        if (!keg->slots[i]) {
            *slot = keg->slots_used = i;
            return 0;
        }
    }
    slots = realloc(keg->slots, count * sizeof(struct segment *));
    if (!slots)
        return -ENOMEM;
    for (uint32_t i = keg->slot_count; i < count; i++)
        slots[i] = NULL;
    *slot = keg->slots_used = keg->slot_count;
    keg->slots = slots;
    keg->slot_count = count;
    return 0;
}

int segment_add(struct keg *keg, uint64_t id, enum format_kind kind, struct segment **out)
{
    struct segment *segment = calloc(1, sizeof *segment);
    int err;

    if (!segment)
        return -ENOMEM;
    segment->id = id;
    segment->kind = kind;
    atomic_init(&segment->refs, 1);
    spin_wrlock(&keg->index_lock);
    err = free_slot(keg, &segment->slot);
    if (!err)
        keg->slots[segment->slot] = segment;
    pthread_rwlock_unlock(&keg->index_lock);
    if (err) {
        free(segment);
        return err;
    }
    *out = segment;
    return 0;
}

void segment_retire(struct keg *keg, struct segment *segment, bool doom)
{
    spin_wrlock(&keg->index_lock);
    keg->slots[segment->slot] = NULL;
    if (segment->slot < keg->slots_used)
        keg->slots_used = segment->slot;
    pthread_rwlock_unlock(&keg->index_lock);
    if (doom)
        atomic_store(&segment->doomed, true);
    segment_unref(keg, segment);
}

void segment_ref(struct segment *segment)
{
    atomic_fetch_add(&segment->refs, 1);
}

/* A file that stays behind holds nothing: the manifest does not list it, the next open removes it.
 */
static void remove_files(struct keg *keg, uint64_t id)
{
    char name[ENV_NAME_MAX + 1];
    int err;

    segment_name(id, name);
    err = env_remove(keg->env, name);
    if (err && err != -ENOENT)
        keg_say(keg, KEG_LOG_WARNING, "%s: cannot remove: %s", name, strerror(-err));
    hintfile_name(id, name);
    err = env_remove(keg->env, name);
    if (err && err != -ENOENT)
        keg_say(keg, KEG_LOG_WARNING, "%s: cannot remove: %s", name, strerror(-err));
}

void segment_unref(struct keg *keg, struct segment *segment)
{
    if (atomic_fetch_sub(&segment->refs, 1) != 1)
        return;
    segment_close(keg, segment);
    if (atomic_load(&segment->doomed))
        remove_files(keg, segment->id);
    free(segment);
}

void segment_free_all(struct keg *keg)
{
    for (uint32_t i = 0; i < keg->slot_count; i++) {
        if (keg->slots[i])
            segment_unref(keg, keg->slots[i]);
    }
    free(keg->slots);
    free(keg->members);
}

int segment_create(struct keg *keg, const struct format_segment *header, struct keg_file **out)
{
    uint8_t bytes[FORMAT_SEGMENT_SIZE];
    struct iovec iov = {bytes, sizeof bytes};
    char name[ENV_NAME_MAX + 1];
    struct keg_file *file;
    int err, removed;

    segment_name(header->id, name);
    format_segment_encode(bytes, header);
    err = segment_create_file(keg, name, &file);
    if (err)
        return err;
    err = env_append(file, 0, &iov, 1);
    if (!err)
        err = env_sync(file);
    if (!err) {
        /* This file can be given up. The directory cannot, and its next sync would succeed. */
        err = env_sync_names(keg->env);
        if (err) {
            keg_poison(keg, "syncing the directory for", header->id, err);
            err = -EIO;
        }
    }
    if (err) {
        env_close(file);
        removed = env_remove(keg->env, name);
        if (removed)
            keg_say(keg, KEG_LOG_WARNING, "%s: cannot remove: %s", name, strerror(-removed));
        return err;
    }
    *out = file;
    return 0;
}

int segment_write_footer(struct keg *keg, const struct segment *segment, struct keg_file *file)
{
    uint64_t length = atomic_load(&segment->length);
    struct format_footer footer = {.length = length,
                                   .records = segment->records,
                                   .first_sequence = segment->first_sequence,
                                   .last_sequence = segment->last_sequence};
    uint8_t bytes[FORMAT_FOOTER_SIZE];
    struct iovec iov = {bytes, sizeof bytes};
    int err;

    format_footer_encode(bytes, segment_salt(keg, segment->id), &footer);
    err = env_append(file, length, &iov, 1);
    if (err)
        return err;
    err = env_seal(file, length + FORMAT_FOOTER_SIZE);
    return err == -ENOSPC || err == -EDQUOT ? -EIO : err;
}

int segment_member_room(struct keg *keg, size_t more)
{
    size_t need = keg->member_count + more, capacity = 2 * need;
    struct segment **members;

    if (need <= keg->member_capacity)
        return 0;
    members = realloc(keg->members, capacity * sizeof(struct segment *));
    if (!members)
        return -ENOMEM;
    keg->members = members;
    keg->member_capacity = capacity;
    return 0;
}

void segment_member_add_locked(struct keg *keg, struct segment *segment)
{
    keg->members[keg->member_count++] = segment;
}

void segment_member_drop_locked(struct keg *keg, struct segment *segment)
{
    size_t n = 0;

    for (size_t i = 0; i < keg->member_count; i++) {
        if (keg->members[i] != segment)
            keg->members[n++] = keg->members[i];
    }
    keg->member_count = n;
}

int segment_get_members(struct keg *keg, struct segment ***out, size_t *count)
{
    struct segment **copy;

    pthread_mutex_lock(&keg->manifest_lock);
    copy = calloc(keg->member_count + 1, sizeof(struct segment *));
    if (copy) {
        *count = keg->member_count;
        for (size_t i = 0; i < *count; i++) {
            copy[i] = keg->members[i];
            segment_ref(copy[i]);
        }
    }
    pthread_mutex_unlock(&keg->manifest_lock);
    *out = copy;
    return copy ? 0 : -ENOMEM;
}

void segment_put_members(struct keg *keg, struct segment **members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        segment_unref(keg, members[i]);
    free(members);
}

/* Compaction drops records, but a sequence that was used stays used. */
uint64_t segment_last_sequence_locked(struct keg *keg)
{
    uint64_t last = keg->last_sequence;

    pthread_mutex_lock(&keg->sync_lock);
    for (size_t i = 0; i < keg->member_count; i++) {
        const struct segment *s = keg->members[i];

        last = s->last_sequence > last ? s->last_sequence : last;
        last = s->before > last ? s->before : last; /* its first frame must lie above */
    }
    pthread_mutex_unlock(&keg->sync_lock);
    return last;
}

static void fill_manifest(struct keg *keg, struct manifest *manifest)
{
    manifest->last_sequence = segment_last_sequence_locked(keg);
    keg->last_sequence = manifest->last_sequence;
    for (size_t i = 0; i < manifest->count; i++) {
        const struct segment *s = keg->members[i];
        struct manifest_segment *m = &manifest->segments[i];

        m->id = s->id;
        m->kind = s->kind;
        m->sealed = s->sealed;
        m->length = s->sealed ? atomic_load(&s->length) : s->covered;
        if (s->sealed) {
            m->first_sequence = s->first_sequence;
            m->last_sequence = s->last_sequence;
        }
    }
}

/* The part of a publication that can fail without any doubt about what is on disk. */
static int write_temporary(struct keg *keg, const uint8_t *bytes, size_t size)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, size};
    struct keg_file *file;
    int err = env_remove(keg->env, SEGMENT_MANIFEST_TMP);

    if (err && err != -ENOENT)
        return err;
    err = segment_create_file(keg, SEGMENT_MANIFEST_TMP, &file);
    if (err)
        return err;
    err = env_append(file, 0, &iov, 1);
    if (!err)
        err = env_sync(file);
    env_close(file);
    if (err && env_remove(keg->env, SEGMENT_MANIFEST_TMP))
        keg_say(keg, KEG_LOG_WARNING, SEGMENT_MANIFEST_TMP ": cannot remove it");
    return err;
}

int segment_publish_locked(struct keg *keg)
{
    struct manifest manifest = {.next_segment = keg->next_segment, .count = keg->member_count};
    size_t size = manifest_size(manifest.count);
    uint8_t *bytes = malloc(size);
    int err = -ENOMEM;

    memcpy(manifest.store, keg->id, sizeof manifest.store);
    manifest.segments = calloc(manifest.count + 1, sizeof *manifest.segments);
    if (bytes && manifest.segments) {
        fill_manifest(keg, &manifest);
        manifest_encode(bytes, &manifest);
        err = write_temporary(keg, bytes, size);
        if (!err) {
            err = env_publish(keg->env, SEGMENT_MANIFEST_TMP, SEGMENT_MANIFEST);
            if (err) {
                keg_poison(keg, "publishing MANIFEST", 0, err);
                err = -EIO;
            }
        }
    }
    free(manifest.segments);
    free(bytes);
    return err;
}
