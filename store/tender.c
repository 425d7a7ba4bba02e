/* SPDX-License-Identifier: MIT */
#include "tender.h"
#include "compact.h"
#include "durable.h"
#include "hints.h"
#include <errno.h>
#include <string.h>
#include <time.h>

enum { TEND_EVERY_MS = 1000 };

/* Waits so many milliseconds, or until the store is closed or *work (may be NULL). tender_lock
 * held. */
static void rest(struct keg *keg, unsigned ms, const bool *work)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    while (!atomic_load(&keg->stopping) && !(work && *work) &&
           pthread_cond_timedwait(&keg->tender_wake, &keg->tender_lock, &until) != ETIMEDOUT)
        ;
}

static void *run_syncer(void *arg)
{
    struct keg *keg = arg;
    int err;

    while (!atomic_load(&keg->stopping)) {
        pthread_mutex_lock(&keg->tender_lock);
        rest(keg, keg->sync_interval_ms, &keg->sync_work);
        keg->sync_work = false;
        pthread_mutex_unlock(&keg->tender_lock);
        err = durable_behind(keg);
        if (err)
            break; /* poisoned, and said so; there is nothing left to sync */
    }
    return NULL;
}

static void *run_tender(void *arg)
{
    struct keg *keg = arg;
    int err, said = 0;

    pthread_mutex_lock(&keg->tender_lock);
    while (!atomic_load(&keg->stopping)) {
        rest(keg, TEND_EVERY_MS, &keg->tender_work);
        keg->tender_work = false;
        pthread_mutex_unlock(&keg->tender_lock);
        if (!atomic_load(&keg->stopping) && !keg_writable(keg)) {
            hints_tend(keg);
            err = compact_background(keg);
            if (err && err != -ECANCELED && err != said) /* once, not every second */
                keg_say(keg, KEG_LOG_WARNING, "compaction in the background: %s", strerror(-err));
            said = err;
        }
        pthread_mutex_lock(&keg->tender_lock);
    }
    pthread_mutex_unlock(&keg->tender_lock);
    return NULL;
}

int tender_start(struct keg *keg)
{
    int err;

    if (keg->flags & (KEG_NO_BACKGROUND | KEG_READONLY) || keg_writable(keg))
        return 0;
    err = pthread_create(&keg->syncer, NULL, run_syncer, keg);
    if (err)
        return -err;
    err = pthread_create(&keg->tender, NULL, run_tender, keg);
    keg->have_threads = err == 0;
    if (err) {
        atomic_store(&keg->stopping, true);
        tender_kick(keg);
        pthread_join(keg->syncer, NULL);
    }
    return -err;
}

void tender_stop(struct keg *keg)
{
    atomic_store(&keg->stopping, true);
    if (!keg->have_threads)
        return;
    tender_kick(keg);
    pthread_join(keg->syncer, NULL);
    pthread_join(keg->tender, NULL);
    keg->have_threads = false;
}

void tender_kick(struct keg *keg)
{
    pthread_mutex_lock(&keg->tender_lock);
    keg->tender_work = true;
    pthread_cond_broadcast(&keg->tender_wake);
    pthread_mutex_unlock(&keg->tender_lock);
}

void tender_sync(struct keg *keg)
{
    pthread_mutex_lock(&keg->tender_lock);
    keg->sync_work = true;
    pthread_cond_broadcast(&keg->tender_wake);
    pthread_mutex_unlock(&keg->tender_lock);
}
