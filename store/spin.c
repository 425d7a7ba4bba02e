/* SPDX-License-Identifier: MIT */
#include "spin.h"
#include <stdatomic.h>
#include <unistd.h>

int spin_rounds(void)
{
    static _Atomic int rounds = -1;
    int n = atomic_load_explicit(&rounds, memory_order_relaxed);

    if (n < 0) {
        n = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? SPIN_ROUNDS : 0;
        atomic_store_explicit(&rounds, n, memory_order_relaxed);
    }
    return n;
}

void spin_rdlock(pthread_rwlock_t *lock)
{
    if (pthread_rwlock_tryrdlock(lock) == 0)
        return;
    for (int i = spin_rounds(); i > 0; i--) {
        spin_pause();
        if (pthread_rwlock_tryrdlock(lock) == 0)
            return;
    }
    pthread_rwlock_rdlock(lock);
}

void spin_wrlock(pthread_rwlock_t *lock)
{
    if (pthread_rwlock_trywrlock(lock) == 0)
        return;
    for (int i = spin_rounds(); i > 0; i--) {
        spin_pause();
        if (pthread_rwlock_trywrlock(lock) == 0)
            return;
    }
    pthread_rwlock_wrlock(lock);
}
