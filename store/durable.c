/* SPDX-License-Identifier: MIT */
/*
 * Durability: one sync for all that wait.
 *
 * A caller waits until `durable` has passed what was `appended` when it came. One of those waiting
 * syncs for all that was appended before its sync began; what is appended while it runs is covered
 * by the next one. Only bytes appended before are acknowledged, and a failure poisons the store
 * before anybody is let go.
 *
 * Waking. Syncs are numbered, and those that wait for one sleep on the word of its parity. When it
 * ends, all whom it covers are woken by one call, and find that they are done without any lock; of
 * those that wait for the next, one is, to make it. So nobody may wait for the next whom the one
 * under way covers: it would take that wake-up, and make no sync. Both words change at each end, so
 * whoever is about to sleep on either looks again. Who was woken to make the next sync and returns
 * with an error instead wakes everybody.
 *
 * Joining. Of many threads with a sync after each change, those let go by one sync would come back
 * while the next one runs, for the others: two halves that take turns. So before it begins, a sync
 * waits until as many have come as were in the last one or waiting at its end; at most for half of
 * what the last one took. Who is alone never waits. Where nobody has come the next few syncs do not
 * wait, and many where letting others run took so long that some program computes on this CPU: to
 * wait costs its slice of some ms.
 *
 * Rejected: a condition variable. Each thread that it wakes takes the lock again, so those let go
 * together wait once more, for each other: six calls of the kernel for each change that is synced.
 */
#include "durable.h"
#include "segment.h"
#include "spin.h"
#include <errno.h>
#include <limits.h>

enum {
    HURRY = 128,               /* syncs that do not wait, where a program computes */
    LULL = 4,                  /* and where nobody came */
    JOIN_SHARE = 2,            /* others may take one part in so many of a sync to come, */
    JOIN_NS_MOST = 200 * 1000, /* and so much */
};

static void wake_all(struct keg *keg)
{
    for (int i = 0; i < 2; i++) {
        atomic_fetch_add(&keg->synced[i], 1);
        spin_wake(&keg->synced[i], INT_MAX);
    }
}

/* sync_lock held, and let go in between. */
static void let_join(struct keg *keg)
{
    uint64_t begin = spin_now(), patience = keg->sync_ns / JOIN_SHARE;
    unsigned before = keg->joined;
    bool waited = false, brief = true;

    if (patience > JOIN_NS_MOST)
        patience = JOIN_NS_MOST;
    while (keg->joined + 1 < keg->expected && !keg->hurried && brief &&
           (!waited || spin_now() - begin < patience)) {
        pthread_mutex_unlock(&keg->sync_lock);
        brief = spin_yield();
        waited = true;
        pthread_mutex_lock(&keg->sync_lock);
    }
    if (waited && (!brief || keg->joined == before))
        keg->hurried = brief ? LULL : HURRY;
    else
        keg->hurried -= keg->hurried > 0;
}

/* One sync for all that wait. sync_lock held, and let go meanwhile. */
static void sync_once(struct keg *keg, bool asked)
{
    uint64_t appended, length, begin, round;
    unsigned riders;
    struct keg_file *file;
    struct segment *active;
    int err;

    keg->syncing = true;
    let_join(keg);
    round = keg->sync_round++;
    riders = keg->joined + asked;
    keg->joined = 0;
    active = keg->active;
    appended = keg->syncing_to = keg->appended;
    length = atomic_load(&active->length);
    if (asked)
        atomic_store(&keg->sync_bytes, appended - atomic_load(&keg->durable));
    segment_ref(active);
    pthread_mutex_unlock(&keg->sync_lock);

    begin = spin_now();
    err = segment_file(keg, active, &file);
    if (!err) {
        err = env_sync(file);
        segment_release(active);
    }
    if (err)
        keg_poison(keg, "syncing", active->id, err);
    atomic_fetch_add(&keg->counters.syncs, 1);

    pthread_mutex_lock(&keg->sync_lock);
    keg->sync_ns = spin_now() - begin;
    if (!err && appended > atomic_load(&keg->durable))
        atomic_store(&keg->durable, appended);
    if (!err && length > atomic_load(&active->durable))
        atomic_store(&active->durable, length);
    keg->syncing = false;
    keg->expected = riders + keg->joined;
    atomic_fetch_add(&keg->synced[0], 1);
    atomic_fetch_add(&keg->synced[1], 1);
    pthread_cond_broadcast(&keg->released);
    pthread_mutex_unlock(&keg->sync_lock);
    spin_wake(&keg->synced[round & 1], INT_MAX);
    spin_wake(&keg->synced[~round & 1], 1);
    segment_unref(keg, active);
    pthread_mutex_lock(&keg->sync_lock);
}

/* Sleeps until the sync of that number ends, or the one before it. Lets sync_lock go. */
static void await(struct keg *keg, uint64_t round)
{
    uint32_t seen = atomic_load(&keg->synced[round & 1]);

    pthread_mutex_unlock(&keg->sync_lock);
    spin_sleep(&keg->synced[round & 1], seen);
}

static int sync_all(struct keg *keg, bool asked)
{
    uint64_t target, joined = UINT64_MAX; /* the sync that this caller has been counted for */
    bool poisoned = atomic_load(&keg->poisoned);

    if (poisoned)
        return -EIO;
    atomic_fetch_add(&keg->counters.sync_waits, 1);
    pthread_mutex_lock(&keg->sync_lock);
    target = keg->appended;
    while (atomic_load(&keg->durable) < target && !(poisoned = atomic_load(&keg->poisoned))) {
        if (!keg->syncing) {
            keg->joined -= asked && joined == keg->sync_round;
            sync_once(keg, asked);
            continue;
        }
        bool covered = target <= keg->syncing_to; /* by the one under way */

        if (!covered && joined != keg->sync_round) {
            joined = keg->sync_round;
            keg->joined += asked;
        }
        await(keg, keg->sync_round - covered);
        if (atomic_load(&keg->durable) >= target)
            return 0;
        pthread_mutex_lock(&keg->sync_lock);
    }
    pthread_mutex_unlock(&keg->sync_lock);
    if (poisoned)
        wake_all(keg);
    return poisoned ? -EIO : 0;
}

int durable_sync(struct keg *keg)
{
    return sync_all(keg, true);
}

int durable_behind(struct keg *keg)
{
    return sync_all(keg, false);
}

int durable_hold(struct keg *keg)
{
    pthread_mutex_lock(&keg->sync_lock);
    while (keg->syncing)
        pthread_cond_wait(&keg->released, &keg->sync_lock);
    keg->syncing = true;
    pthread_mutex_unlock(&keg->sync_lock);
    return keg_writable(keg);
}

void durable_release(struct keg *keg)
{
    pthread_mutex_lock(&keg->sync_lock);
    keg->syncing = false;
    keg->sync_round++; /* who waited, and still has to, is counted anew */
    keg->joined = 0;
    pthread_cond_broadcast(&keg->released);
    pthread_mutex_unlock(&keg->sync_lock);
    wake_all(keg);
}
