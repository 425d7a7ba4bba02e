/* SPDX-License-Identifier: MIT */
#include "ahead.h"
#include "commit.h"
#include "compact.h"
#include "durable.h"
#include "frame.h"
#include "gate.h"
#include "hints.h"
#include "recover.h"
#include "segment.h"
#include "space.h"
#include "spin.h"
#include "tender.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SEGMENT_DEFAULT = 64 << 20,
    SEGMENT_MIN = 64 << 10,
    SEGMENT_SMALLEST_DEFAULT = 1 << 20,
    SEGMENT_SHARE = 16, /* of the filesystem, at most one in so many */
    LOCK_POLL_MS = 20,
};

/* ---- State and log ---- */

void keg_say(struct keg *keg, enum keg_level level, const char *format, ...)
{
    char line[512];
    va_list args;

    if (level == KEG_LOG_ERROR)
        atomic_store(&keg->said_error, true);
    if (!keg->log)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    keg->log(keg->log_arg, level, line);
}

void keg_set_readonly(struct keg *keg, const char *format, ...)
{
    va_list args;

    pthread_mutex_lock(&keg->reason_lock);
    if (!atomic_load(&keg->readonly)) {
        va_start(args, format);
        vsnprintf(keg->reason, sizeof keg->reason, format, args);
        va_end(args);
        atomic_store(&keg->readonly, true);
    }
    pthread_mutex_unlock(&keg->reason_lock);
}

void keg_poison(struct keg *keg, const char *what, uint64_t segment, int err)
{
    char name[ENV_NAME_MAX + 1] = "the store";

    if (segment)
        segment_name(segment, name);
    if (!atomic_exchange(&keg->poisoned, true))
        keg_say(keg, KEG_LOG_ERROR,
                "%s %s failed: %s: read-only until the store is opened again; what was synced is "
                "safe",
                what, name, strerror(-err));
    keg_set_readonly(keg, "%s %s failed: %s: read-only until the store is opened again", what, name,
                     strerror(-err));
}

int keg_writable(const struct keg *keg)
{
    if (!atomic_load(&keg->readonly))
        return 0;
    return atomic_load(&keg->poisoned) ? -EIO : -EROFS;
}

const char *keg_readonly_reason(const struct keg *keg)
{
    return atomic_load(&keg->readonly) ? keg->reason : NULL;
}

/* ---- Opening and closing ---- */

static void free_keg(struct keg *keg)
{
    spare_free_all(&keg->spares);
    segment_free_all(keg);
    index_free(keg->index);
    pthread_mutex_destroy(&keg->compact_lock);
    pthread_mutex_destroy(&keg->hint_lock);
    pthread_mutex_destroy(&keg->manifest_lock);
    pthread_mutex_destroy(&keg->sync_lock);
    pthread_mutex_destroy(&keg->files_lock);
    pthread_mutex_destroy(&keg->commit_lock);
    pthread_mutex_destroy(&keg->reason_lock);
    pthread_mutex_destroy(&keg->tender_lock);
    pthread_rwlock_destroy(&keg->index_lock);
    gate_destroy(keg);
    pthread_cond_destroy(&keg->released);
    pthread_cond_destroy(&keg->tender_wake);
    free(keg);
}

static void init_locks(struct keg *keg)
{
    pthread_condattr_t monotonic;

    pthread_mutex_init(&keg->compact_lock, NULL);
    pthread_mutex_init(&keg->hint_lock, NULL);
    pthread_mutex_init(&keg->manifest_lock, NULL);
    pthread_mutex_init(&keg->sync_lock, NULL);
    pthread_mutex_init(&keg->files_lock, NULL);
    pthread_mutex_init(&keg->commit_lock, NULL);
    pthread_mutex_init(&keg->reason_lock, NULL);
    pthread_mutex_init(&keg->tender_lock, NULL);
    pthread_rwlock_init(&keg->index_lock, NULL);
    gate_init(keg);
    pthread_cond_init(&keg->released, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&keg->tender_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static int take_lock(struct keg *keg, const struct keg_options *options)
{
    const char *owner = options->owner ? options->owner : "-";
    struct timespec pause = {0, LOCK_POLL_MS * 1000000L};
    unsigned waited = 0;
    char holder[256];
    int err;

    while ((err = env_lock(keg->env, owner)) == -EBUSY && waited < options->lock_wait_ms) {
        nanosleep(&pause, NULL);
        waited += LOCK_POLL_MS;
    }
    if (err == -EBUSY) {
        if (keg_holder(keg->env, holder, sizeof holder))
            snprintf(holder, sizeof holder, "another process");
        keg_say(keg, KEG_LOG_ERROR, "LOCK: the store is in use by %s", holder);
    } else if (err) {
        keg_say(keg, KEG_LOG_ERROR, "LOCK: cannot take the lock: %s", strerror(-err));
    }
    return err;
}

/* Segments are smaller on a small filesystem, so that compaction always has room to work in. */
static int choose_segment_size(struct keg *keg, uint64_t wanted)
{
    struct env_space space;
    int err;

    if (wanted) {
        if (wanted < SEGMENT_MIN || wanted >= 2 * (uint64_t)SEGMENT_DEFAULT) {
            keg_say(keg, KEG_LOG_ERROR,
                    "segment size %" PRIu64 ": must be from 64 KiB to below 128 MiB", wanted);
            return -EINVAL;
        }
        keg->segment_size = wanted;
        return 0;
    }
    err = env_space(keg->env, &space);
    if (err)
        return err;
    keg->segment_size = SEGMENT_DEFAULT;
    if (space.total / SEGMENT_SHARE < keg->segment_size)
        keg->segment_size = space.total / SEGMENT_SHARE;
    if (keg->segment_size < SEGMENT_SMALLEST_DEFAULT)
        keg->segment_size = SEGMENT_SMALLEST_DEFAULT;
    return 0;
}

int keg_begin(struct keg_env *env, const struct keg_options *options, struct keg **out)
{
    struct keg *keg = calloc(1, sizeof *keg);
    int err;

    if (!keg)
        return -ENOMEM;
    init_locks(keg);
    keg->env = env;
    keg->flags = options->flags;
    keg->salvage = options->flags & STORE_SALVAGE;
    keg->log = options->log;
    keg->log_arg = options->log_arg;
    keg->sync_interval_ms = options->sync_interval_ms ? options->sync_interval_ms : 1000;
    err = choose_segment_size(keg, options->segment_size);
    if (!err)
        err = index_new(&keg->index);
    if (!err)
        err = recover_look(keg);
    if (!err)
        err = take_lock(keg, options);
    if (err)
        free_keg(keg);
    else
        *out = keg;
    return err;
}

void keg_end(struct keg *keg)
{
    struct keg_env *env = keg->env;

    free_keg(keg);
    env_unlock(env);
}

int keg_open(struct keg_env *env, const struct keg_options *options, struct keg **out)
{
    struct keg *keg;
    int err = keg_begin(env, options, &keg);

    if (err)
        return err;
    err = recover_store(keg);
    if (!err)
        err = tender_start(keg);
    if (err) {
        if (!atomic_load(&keg->said_error))
            keg_say(keg, KEG_LOG_ERROR, "cannot open the store: %s", strerror(-err));
        keg_end(keg);
        return err;
    }
    *out = keg;
    return 0;
}

int keg_close(struct keg *keg)
{
    int err = 0, hint;

    if (!keg)
        return 0;
    tender_stop(keg);
    if (atomic_load(&keg->poisoned))
        err = -EIO;
    if (!keg_writable(keg)) {
        ahead_cut(keg);
        err = durable_sync(keg);
        hint = err ? 0 : hints_active(keg);
        if (!err && !hint)
            hint = hints_sealed(keg);
        err = err ? err : hint;
    }
    keg_end(keg);
    return err;
}

/* ---- Changing ---- */

static int batch_add(struct keg_batch *batch, const struct keg_op *op)
{
    if (!frame_valid(op))
        return -EINVAL;
    if (batch->count == batch->capacity) {
        size_t capacity = batch->capacity ? 2 * batch->capacity : 8;
        struct keg_op *ops = realloc(batch->lent ? NULL : batch->ops, capacity * sizeof *ops);

        if (!ops)
            return -ENOMEM;
        if (batch->lent)
            memcpy(ops, batch->ops, batch->count * sizeof *ops);
        batch->lent = false;
        batch->ops = ops;
        batch->capacity = capacity;
    }
    batch->ops[batch->count++] = *op;
    return 0;
}

int keg_batch_put(struct keg_batch *batch, struct keg_bytes key, struct keg_bytes meta,
                  struct keg_bytes value)
{
    return batch_add(batch, &(struct keg_op){.key = key, .meta = meta, .value = value});
}

int keg_batch_delete(struct keg_batch *batch, struct keg_bytes key)
{
    return batch_add(batch, &(struct keg_op){.key = key, .tombstone = true});
}

void keg_batch_lend(struct keg_batch *batch, struct keg_op *room, size_t capacity)
{
    *batch = (struct keg_batch){.ops = room, .capacity = capacity, .lent = true};
}

void keg_batch_clear(struct keg_batch *batch)
{
    batch->count = 0;
}

void keg_batch_free(struct keg_batch *batch)
{
    if (!batch->lent)
        free(batch->ops);
    *batch = (struct keg_batch){0};
}

int keg_commit(struct keg *keg, const struct keg_batch *batch, unsigned flags)
{
    return commit_ops(keg, batch->ops, batch->count, flags);
}

int keg_put(struct keg *keg, struct keg_bytes key, struct keg_bytes meta, struct keg_bytes value,
            unsigned flags)
{
    struct keg_op op = {.key = key, .meta = meta, .value = value};

    return commit_ops(keg, &op, 1, flags);
}

int keg_delete(struct keg *keg, struct keg_bytes key, unsigned flags)
{
    struct keg_op op = {.key = key, .tombstone = true};
    struct keg_info info;
    int err = keg_get(keg, key, &info);

    return err ? err : commit_ops(keg, &op, 1, flags);
}

int keg_sync(struct keg *keg)
{
    return durable_sync(keg);
}

/* ---- Tending ---- */

int keg_hint(struct keg *keg)
{
    int err = hints_active(keg);

    return err ? err : hints_sealed(keg);
}

int keg_compact(struct keg *keg, keg_progress_fn *progress, void *arg)
{
    return compact_demand(keg, progress, arg);
}

static void fill_counters(const struct keg *keg, struct keg_stats *stats)
{
    const struct counters *c = &keg->counters;

    stats->puts = atomic_load(&c->puts);
    stats->deletes = atomic_load(&c->deletes);
    stats->frames = atomic_load(&c->frames);
    stats->appends = atomic_load(&c->appends);
    stats->append_bytes = atomic_load(&c->append_bytes);
    stats->syncs = atomic_load(&c->syncs);
    stats->sync_waits = atomic_load(&c->sync_waits);
    for (size_t i = 0; i < READ_COUNTERS; i++) {
        stats->reads += atomic_load(&keg->read_counters[i].reads);
        stats->read_bytes += atomic_load(&keg->read_counters[i].bytes);
    }
    stats->damaged_reads = atomic_load(&c->damaged_reads);
    stats->compactions = atomic_load(&c->compactions);
    stats->compacted_bytes = atomic_load(&c->compacted_bytes);
    stats->hints_written = atomic_load(&c->hints_written);
}

void keg_stats(struct keg *keg, struct keg_stats *stats)
{
    struct env_space space = {0};
    uint64_t reserve;

    memset(stats, 0, sizeof *stats);
    fill_counters(keg, stats);
    stats->recovered_segments = keg->recovered_segments;
    /* One moment for both: live bytes never pass those of the segments, whose lengths grow before
     * the index does. */
    pthread_mutex_lock(&keg->manifest_lock);
    spin_rdlock(&keg->index_lock);
    stats->keys = index_count(keg->index);
    stats->index_bytes = index_bytes(keg->index);
    stats->live_bytes = keg->live_bytes;
    stats->segments = keg->member_count;
    for (size_t i = 0; i < keg->member_count; i++) {
        const struct segment *s = keg->members[i];

        stats->data_bytes += atomic_load(&s->length);
        stats->hint_bytes += s->hint_bytes;
    }
    pthread_rwlock_unlock(&keg->index_lock);
    stats->sequence = segment_last_sequence_locked(keg);
    pthread_mutex_unlock(&keg->manifest_lock);
    if (env_space(keg->env, &space))
        return;
    reserve = space_reserve(keg);
    stats->total_bytes = space.total;
    stats->free_bytes = space.free > reserve ? space.free - reserve : 0;
}

static void describe(struct keg *keg, const struct segment *s, struct keg_segment_info *info)
{
    *info = (struct keg_segment_info){.id = s->id,
                                      .bytes = atomic_load(&s->length),
                                      .hint_bytes = s->hint_bytes,
                                      .compacted = s->kind == FORMAT_COMPACTED,
                                      .sealed = s->sealed};
    pthread_mutex_lock(&keg->sync_lock);
    info->first_sequence = s->first_sequence;
    info->last_sequence = s->last_sequence;
    pthread_mutex_unlock(&keg->sync_lock);
    spin_rdlock(&keg->index_lock);
    info->live_bytes = s->live_bytes;
    pthread_rwlock_unlock(&keg->index_lock);
}

int keg_segments(struct keg *keg, int (*fn)(void *arg, const struct keg_segment_info *segment),
                 void *arg)
{
    struct keg_segment_info *infos;
    size_t count;
    int result = 0;

    pthread_mutex_lock(&keg->manifest_lock);
    count = keg->member_count;
    infos = calloc(count + 1, sizeof *infos);
    for (size_t i = 0; infos && i < count; i++)
        describe(keg, keg->members[i], &infos[i]);
    pthread_mutex_unlock(&keg->manifest_lock);
    if (!infos)
        return -ENOMEM;
    for (size_t i = 0; i < count && !result; i++)
        result = fn(arg, &infos[i]);
    free(infos);
    return result;
}
