/* SPDX-License-Identifier: MIT */
/*
 * What is done later: a queue of what is to be reclaimed, the logging of truncations held in
 * memory, and a thread for each. Without the threads (VOLUME_NO_BACKGROUND) the calls that add work
 * do it before they return, and what is held waits for the next change, sync or close.
 *
 * The queue only saves looking for orphan keys: losing it loses nothing but time. A truncation that
 * is logged late is lost by a crash that it was promised to survive, while reclaiming a large file,
 * or what a mount found, takes minutes. So they are two threads, and what logs takes no lock that
 * is held for longer than a frame of the other: not reclaim_lock. Rejected: one thread that looks
 * for truncations between two frames; somebody else may be reclaiming, or its frame wait for room.
 */
#include "volume_internal.h"
#include <errno.h>
#include <stdlib.h>

enum { RETRY_MS = 1000, GATHER_MS = 5 };

uint64_t tend_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- The queue ---- */

static int grow_locked(struct volume *volume)
{
    size_t capacity = volume->work_capacity ? volume->work_capacity * 2 : 64;
    struct work *work = malloc(capacity * sizeof *work);
    if (!work)
        return -ENOMEM;
    for (size_t i = 0; i < volume->work_count; i++)
        work[i] = volume->work[(volume->work_at + i) % volume->work_capacity];
    free(volume->work);
    volume->work = work;
    volume->work_at = 0;
    volume->work_capacity = capacity;
    return 0;
}

void tend_add(struct volume *volume, enum work_kind kind, uint64_t id)
{
    pthread_mutex_lock(&volume->tend_lock);
    if (volume->work_count < volume->work_capacity || grow_locked(volume) == 0) {
        size_t at = (volume->work_at + volume->work_count++) % volume->work_capacity;
        volume->work[at] = (struct work){kind, id};
        if (volume->work_count == 1 || volume->work_count == LOCK_MAX)
            pthread_cond_signal(&volume->work_wake);
    }
    pthread_mutex_unlock(&volume->tend_lock);
}

/* The first pieces of work; they stay in the queue. */
static size_t peek(struct volume *volume, struct work *work, size_t max)
{
    pthread_mutex_lock(&volume->tend_lock);
    size_t n = volume->work_count < max ? volume->work_count : max;
    for (size_t i = 0; i < n; i++)
        work[i] = volume->work[(volume->work_at + i) % volume->work_capacity];
    pthread_mutex_unlock(&volume->tend_lock);
    return n;
}

static void take_off(struct volume *volume, size_t n)
{
    pthread_mutex_lock(&volume->tend_lock);
    volume->work_at = (volume->work_at + n) % volume->work_capacity;
    volume->work_count -= n;
    pthread_mutex_unlock(&volume->tend_lock);
}

/* A frame's worth of it. *count: how much there was; *done of it needs no more. */
static int run_some(struct volume *volume, size_t *count, size_t *done)
{
    struct work work[LOCK_MAX];
    int error = 0;
    *done = 0;
    keg_make_room(volume->keg);
    pthread_mutex_lock(&volume->reclaim_lock);
    *count = peek(volume, work, LOCK_MAX);
    if (*count)
        error = orphans_reclaim(volume, work, *count, done);
    if (*done)
        take_off(volume, *done);
    pthread_mutex_unlock(&volume->reclaim_lock);
    return error;
}

int tend_run(struct volume *volume)
{
    size_t count, done;
    int error;
    do
        error = run_some(volume, &count, &done);
    while (!error && count);
    return error;
}

void tend_inline(struct volume *volume)
{
    if (volume->flags & VOLUME_NO_BACKGROUND && !(volume->flags & VOLUME_READONLY))
        (void)!tend_run(volume); /* what is left stays listed */
}

int volume_tend(struct volume *volume)
{
    return volume->flags & VOLUME_READONLY ? 0 : tend_run(volume);
}

/* ---- What is held ---- */

static int flush_locked(struct volume *volume, struct inode *inode, unsigned flags)
{
    struct change change;
    change_begin(&change, volume);
    int error = stage_commit(&change, inode);
    if (error) {
        change_drop(&change);
        return error;
    }
    change_inode(&change, inode);
    return change_commit(&change, flags);
}

/* A time of access is worth neither the reserve of a full disk nor waiting for a compaction: where
 * that keeps it from being logged, or anything else does, it is dropped. */
int tend_flush(struct volume *volume, uint64_t ino, bool stages)
{
    struct inode inode;
    int error = 0;
    inodes_lock_shared(volume, ino);
    bool lazy = inodes_is_lazy(volume, ino);
    inodes_unlock_shared(volume, ino);
    if (!lazy)
        keg_make_room(volume->keg);
    inodes_lock_one(volume, ino);
    if (inodes_is_held(volume, ino)) {
        lazy = inodes_is_lazy(volume, ino);
        error = inodes_load(volume, ino, &inode);
        if (!error && (stages || !inode.staged))
            error = flush_locked(volume, &inode, lazy ? 0 : KEG_FREEING | KEG_WAITED);
        if (error && lazy) {
            inodes_logged(volume, ino);
            error = 0;
        }
    }
    inodes_unlock_one(volume, ino);
    return error;
}

/* Those that are held since `before` or longer. */
static int flush_held(struct volume *volume, enum held_kind kind, uint64_t before)
{
    size_t left, now;
    uint64_t ino = inodes_first_held(volume, kind, before, &left);
    int error = 0;
    for (; !error && ino && left; left--) {
        error = tend_flush(volume, ino, false);
        ino = inodes_first_held(volume, kind, before, &now);
    }
    return error;
}

int tend_flush_all(struct volume *volume, enum held_kind kind)
{
    return flush_held(volume, kind, UINT64_MAX);
}

bool tend_has_room(struct volume *volume)
{
    pthread_mutex_lock(&volume->tend_lock);
    size_t held = volume->held[HELD_LAZY].count + volume->held[HELD_TRUNCATED].count;
    pthread_mutex_unlock(&volume->tend_lock);
    return held < volume->hold_max;
}

/* The oldest of another thread may be the same, and it holds one for each: so this goes on until
 * there is room, or as often as there were any at first: they are gone then, and what came is
 * others'. */
int tend_make_room(struct volume *volume, bool lazy)
{
    size_t times, truncations, tries = 0, most = 0;
    do {
        uint64_t oldest = inodes_first_held(volume, HELD_LAZY, UINT64_MAX, &times);
        uint64_t other = inodes_first_held(volume, HELD_TRUNCATED, UINT64_MAX, &truncations);
        most = most ? most : times + truncations;
        if (times + truncations < volume->hold_max)
            return 0;
        if (!oldest && lazy)
            return -EAGAIN;
        int error = tend_flush(volume, oldest ? oldest : other, false);
        if (error)
            return error;
    } while (++tries < most);
    return 0;
}

void tend_measure(struct volume *volume, struct volume_memory *out)
{
    pthread_mutex_lock(&volume->tend_lock);
    for (int i = 0; i < HELD_KINDS; i++)
        out->held_inodes += volume->held[i].count;
    out->queued += volume->work_count;
    out->table_bytes += volume->work_capacity * sizeof(struct work);
    out->table_bytes += (out->held_inodes + volume->spares) * sizeof(struct held);
    pthread_mutex_unlock(&volume->tend_lock);
}

void volume_sync_many(struct volume *volume, const uint64_t *inos, int *errors, size_t count)
{
    bool readonly = volume->flags & VOLUME_READONLY, wanted = false;
    for (size_t i = 0; i < count; i++) {
        /* What is not held is in the store, and the lock of one inode may be held for long. */
        bool held = !readonly && inodes_is_held(volume, inos[i]);
        errors[i] = held ? tend_flush(volume, inos[i], true) : 0;
        wanted |= !readonly && !errors[i];
    }
    int error = wanted ? keg_sync(volume->keg) : 0;
    for (size_t i = 0; i < count; i++)
        if (!errors[i])
            errors[i] = error;
    if (!readonly)
        tend_inline(volume);
}

int volume_sync(struct volume *volume, uint64_t ino)
{
    int error;
    if (ino) {
        volume_sync_many(volume, &ino, &error, 1);
        return error;
    }
    if (volume->flags & VOLUME_READONLY)
        return 0;
    error = tend_flush_all(volume, HELD_TRUNCATED);
    if (!error)
        error = tend_flush_all(volume, HELD_LAZY);
    if (!error)
        error = keg_sync(volume->keg);
    tend_inline(volume);
    return error;
}

/* ---- The threads ---- */

static void wait_until_locked(struct volume *volume, pthread_cond_t *wake, uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    pthread_cond_timedwait(wake, &volume->tend_lock, &t);
}

/* Who removes one file often goes on to others, and they share a frame, a lock of each stripe and
 * the waking of this thread. */
static void gather_locked(struct volume *volume)
{
    uint64_t until = tend_clock() + GATHER_MS;
    while (!volume->stop && volume->work_count < LOCK_MAX && tend_clock() < until)
        wait_until_locked(volume, &volume->work_wake, until);
}

static void *reclaim_thread(void *arg)
{
    struct volume *volume = arg;
    size_t count, done = 1;
    pthread_mutex_lock(&volume->tend_lock);
    while (!volume->stop) {
        if (!volume->work_count) {
            pthread_cond_wait(&volume->work_wake, &volume->tend_lock);
            continue;
        }
        if (done) /* else it is one large piece, in the middle */
            gather_locked(volume);
        pthread_mutex_unlock(&volume->tend_lock);
        bool failed = run_some(volume, &count, &done) < 0;
        pthread_mutex_lock(&volume->tend_lock);
        if (failed && !volume->stop)
            wait_until_locked(volume, &volume->work_wake, tend_clock() + RETRY_MS);
    }
    pthread_mutex_unlock(&volume->tend_lock);
    return NULL;
}

/*
 * Each truncation waits its own time: one that came a moment ago is about to be joined by its
 * write, and to log it alone would let a crash find the file empty.
 */
static void *flush_thread(void *arg)
{
    struct volume *volume = arg;
    uint64_t retry = 0; /* not before; what failed stays held */
    pthread_mutex_lock(&volume->tend_lock);
    while (!volume->stop) {
        const struct held *first = volume->held[HELD_TRUNCATED].first;
        if (!first) {
            pthread_cond_wait(&volume->held_wake, &volume->tend_lock);
            continue;
        }
        uint64_t now = tend_clock(), due = first->since + volume->hold_ms;
        if (now < due || now < retry) {
            wait_until_locked(volume, &volume->held_wake, due > retry ? due : retry);
            continue;
        }
        pthread_mutex_unlock(&volume->tend_lock);
        bool failed = flush_held(volume, HELD_TRUNCATED, now - volume->hold_ms) < 0;
        pthread_mutex_lock(&volume->tend_lock);
        retry = failed ? tend_clock() + RETRY_MS : 0;
    }
    pthread_mutex_unlock(&volume->tend_lock);
    return NULL;
}

static int init_conds(struct volume *volume)
{
    pthread_condattr_t attr;
    int error = pthread_condattr_init(&attr);
    if (error)
        return -error;
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    error = pthread_cond_init(&volume->work_wake, &attr);
    if (!error) {
        error = pthread_cond_init(&volume->held_wake, &attr);
        if (error)
            pthread_cond_destroy(&volume->work_wake);
    }
    pthread_condattr_destroy(&attr);
    return -error;
}

int tend_init(struct volume *volume)
{
    int error = init_conds(volume);
    if (error)
        return error;
    pthread_mutex_init(&volume->tend_lock, NULL);
    pthread_mutex_init(&volume->reclaim_lock, NULL);
    return 0;
}

int tend_start(struct volume *volume)
{
    if (volume->flags & (VOLUME_NO_BACKGROUND | VOLUME_READONLY))
        return 0;
    int error = pthread_create(&volume->reclaimer, NULL, reclaim_thread, volume);
    volume->has_reclaimer = error == 0;
    if (!error) {
        error = pthread_create(&volume->flusher, NULL, flush_thread, volume);
        volume->has_flusher = error == 0;
    }
    if (error)
        tend_stop(volume);
    return -error;
}

void tend_stop(struct volume *volume)
{
    pthread_mutex_lock(&volume->tend_lock);
    volume->stop = true;
    pthread_cond_signal(&volume->work_wake);
    pthread_cond_signal(&volume->held_wake);
    pthread_mutex_unlock(&volume->tend_lock);
    if (volume->has_reclaimer)
        pthread_join(volume->reclaimer, NULL);
    if (volume->has_flusher)
        pthread_join(volume->flusher, NULL);
    volume->has_reclaimer = volume->has_flusher = false;
}

void tend_destroy(struct volume *volume)
{
    free(volume->work);
    pthread_cond_destroy(&volume->work_wake);
    pthread_cond_destroy(&volume->held_wake);
    pthread_mutex_destroy(&volume->tend_lock);
    pthread_mutex_destroy(&volume->reclaim_lock);
}
