/* SPDX-License-Identifier: MIT */
/*
 * A short wait before a long one. What the store's threads wait for is mostly over within a few
 * microseconds (an append into the page cache, a change of the index), while to sleep and to be
 * woken takes two calls of the kernel and, where the CPU has halted meanwhile, up to fifty
 * microseconds. So a waiter looks again for about as long as that before it sleeps. It never spins
 * where there is one CPU only: then it would keep the one it waits for from running.
 */
#ifndef KEG_SPIN_H
#define KEG_SPIN_H

#include <pthread.h>
#include <stdbool.h>

enum { SPIN_ROUNDS = 256 }; /* 5 to 12 us */

/* How often to look again: SPIN_ROUNDS, or 0 with one CPU. Any thread. */
int spin_rounds(void);

static inline void spin_pause(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/* As the pthread functions. For locks that are held for microseconds, and never across I/O. */
void spin_rdlock(pthread_rwlock_t *lock);
void spin_wrlock(pthread_rwlock_t *lock);

#endif
