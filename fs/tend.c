/* SPDX-License-Identifier: MIT */
/*
 * What is done later: a queue of what is to be reclaimed, the logging of what is held in memory,
 * and the thread that does both. Without the thread (VOLUME_NO_BACKGROUND) the calls that add work
 * do it before they return, and what is held waits for the next change, sync or close.
 *
 * The queue only saves looking for orphan keys: losing it loses nothing but time.
 */
#include "volume_internal.h"
#include <errno.h>
#include <stdlib.h>

enum { RETRY_MS = 1000 };

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
        pthread_cond_signal(&volume->tend_wake);
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

int tend_run(struct volume *volume)
{
    struct work work[LOCK_MAX];
    size_t count;
    int error = 0;
    pthread_mutex_lock(&volume->reclaim_lock);
    while (!error && (count = peek(volume, work, LOCK_MAX)) > 0) {
        size_t done = 0;
        error = orphans_reclaim(volume, work, count, &done);
        if (done)
            take_off(volume, done);
    }
    pthread_mutex_unlock(&volume->reclaim_lock);
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

static int flush_locked(struct volume *volume, struct inode *inode)
{
    struct change change;
    change_begin(&change, volume);
    int error = stage_commit(&change, inode);
    if (error) {
        change_drop(&change);
        return error;
    }
    change_inode(&change, inode);
    return change_commit(&change, KEG_FREEING);
}

int tend_flush(struct volume *volume, uint64_t ino, bool stages)
{
    struct inode inode;
    int error = 0;
    inodes_lock_one(volume, ino);
    if (inodes_is_held(volume, ino)) {
        error = inodes_load(volume, ino, &inode);
        if (!error && (stages || !inode.staged))
            error = flush_locked(volume, &inode);
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

int tend_make_room(struct volume *volume)
{
    size_t lazy, truncated;
    uint64_t oldest = inodes_first_held(volume, HELD_LAZY, UINT64_MAX, &lazy);
    uint64_t other = inodes_first_held(volume, HELD_TRUNCATED, UINT64_MAX, &truncated);
    if (lazy + truncated < volume->hold_max)
        return 0;
    return tend_flush(volume, oldest ? oldest : other, false);
}

void tend_measure(struct volume *volume, struct volume_memory *out)
{
    pthread_mutex_lock(&volume->tend_lock);
    for (int i = 0; i < HELD_KINDS; i++)
        out->held_inodes += volume->held[i].count;
    out->queued += volume->work_count;
    out->table_bytes += volume->work_capacity * sizeof(struct work);
    pthread_mutex_unlock(&volume->tend_lock);
    out->table_bytes += out->held_inodes * sizeof(struct held);
}

int volume_sync(struct volume *volume, uint64_t ino)
{
    if (volume->flags & VOLUME_READONLY)
        return 0;
    int error = ino ? tend_flush(volume, ino, true) : tend_flush_all(volume, HELD_TRUNCATED);
    if (!error && !ino)
        error = tend_flush_all(volume, HELD_LAZY);
    if (!error)
        error = keg_sync(volume->keg);
    tend_inline(volume);
    return error;
}

/* ---- The thread ---- */

static void wait_until_locked(struct volume *volume, uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    pthread_cond_timedwait(&volume->tend_wake, &volume->tend_lock, &t);
}

/*
 * Each truncation waits its own time: one that came a moment ago is about to be joined by its
 * write, and to log it alone would let a crash find the file empty.
 */
static void *tend_thread(void *arg)
{
    struct volume *volume = arg;
    bool failed = false;
    pthread_mutex_lock(&volume->tend_lock);
    while (!volume->stop) {
        uint64_t now = tend_clock();
        const struct held *first = volume->held[HELD_TRUNCATED].first;
        uint64_t due = first ? first->since + volume->hold_ms : UINT64_MAX;
        if (!failed && (now >= due || volume->work_count)) {
            pthread_mutex_unlock(&volume->tend_lock);
            /* What failed stays held. */
            failed = now >= due && flush_held(volume, HELD_TRUNCATED, now - volume->hold_ms) < 0;
            failed = tend_run(volume) < 0 || failed;
            pthread_mutex_lock(&volume->tend_lock);
        } else if (failed || first) {
            wait_until_locked(volume, failed ? now + RETRY_MS : due);
            failed = false;
        } else {
            pthread_cond_wait(&volume->tend_wake, &volume->tend_lock);
        }
    }
    pthread_mutex_unlock(&volume->tend_lock);
    return NULL;
}

int tend_init(struct volume *volume)
{
    pthread_condattr_t attr;
    int error = pthread_condattr_init(&attr);
    if (error)
        return -error;
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    error = pthread_cond_init(&volume->tend_wake, &attr);
    pthread_condattr_destroy(&attr);
    if (error)
        return -error;
    pthread_mutex_init(&volume->tend_lock, NULL);
    pthread_mutex_init(&volume->reclaim_lock, NULL);
    return 0;
}

int tend_start(struct volume *volume)
{
    if (volume->flags & (VOLUME_NO_BACKGROUND | VOLUME_READONLY))
        return 0;
    int error = pthread_create(&volume->tender, NULL, tend_thread, volume);
    volume->has_tender = error == 0;
    return -error;
}

void tend_stop(struct volume *volume)
{
    if (!volume->has_tender)
        return;
    pthread_mutex_lock(&volume->tend_lock);
    volume->stop = true;
    pthread_cond_signal(&volume->tend_wake);
    pthread_mutex_unlock(&volume->tend_lock);
    pthread_join(volume->tender, NULL);
    volume->has_tender = false;
}

void tend_destroy(struct volume *volume)
{
    free(volume->work);
    pthread_cond_destroy(&volume->tend_wake);
    pthread_mutex_destroy(&volume->tend_lock);
    pthread_mutex_destroy(&volume->reclaim_lock);
}
