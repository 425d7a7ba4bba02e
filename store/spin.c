/* SPDX-License-Identifier: MIT */
#include "spin.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { BRIEF_NS = 1000 * 1000 }; /* a slice of one that computes is longer */

int spin_rounds(void)
{
    static _Atomic int rounds = -1;
    int n = atomic_load_explicit(&rounds, memory_order_relaxed);

    if (n < 0) {
        cpu_set_t cpus;

        n = sched_getaffinity(0, sizeof cpus, &cpus) || CPU_COUNT(&cpus) > 1 ? SPIN_ROUNDS : 0;
        atomic_store_explicit(&rounds, n, memory_order_relaxed);
    }
    return n;
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

bool spin_yield(void)
{
    int64_t before = now_ns();

    sched_yield();
    return now_ns() - before < BRIEF_NS;
}

typedef int lock_fn(pthread_rwlock_t *lock);

static void take(pthread_rwlock_t *lock, lock_fn *attempt, lock_fn *wait)
{
    if (attempt(lock) == 0)
        return;
    for (int i = spin_rounds(); i > 0; i--) {
        spin_pause();
        if (attempt(lock) == 0)
            return;
    }
    wait(lock);
}

void spin_rdlock(pthread_rwlock_t *lock)
{
    take(lock, pthread_rwlock_tryrdlock, pthread_rwlock_rdlock);
}

void spin_wrlock(pthread_rwlock_t *lock)
{
    take(lock, pthread_rwlock_trywrlock, pthread_rwlock_wrlock);
}
