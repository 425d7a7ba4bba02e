/* SPDX-License-Identifier: MIT */
#include "spin.h"
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

uint64_t spin_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

_Static_assert(sizeof(_Atomic uint32_t) == sizeof(uint32_t), "the kernel knows a plain word");

void spin_sleep(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void spin_wake(_Atomic uint32_t *word, int most)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

bool spin_yield(void)
{
    uint64_t before = spin_now();

    sched_yield();
    return spin_now() - before < BRIEF_NS;
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
