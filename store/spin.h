/* SPDX-License-Identifier: MIT */
/*
 * A short wait before a long one. What the store's threads wait for is mostly over within a few
 * microseconds (an append into the page cache, a change of the index), while to sleep and to be
 * woken takes two calls of the kernel and, where the CPU has halted meanwhile, up to fifty
 * microseconds. So a waiter looks again for some of that time before it sleeps; but not where the
 * process may run on one CPU only: then it would keep the one it waits for from running. And the
 * sleep itself, for what takes long: on a word, without a lock.
 */
#ifndef KEG_SPIN_H
#define KEG_SPIN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { SPIN_ROUNDS = 256 }; /* 7 us on the x86 that it was measured on; it depends on the CPU */

/* How often to look again: SPIN_ROUNDS, or 0 with one CPU at the first call. Any thread. */
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

/* Lets other threads run. False: that took so long that some program computes on this CPU. */
bool spin_yield(void);

uint64_t spin_now(void); /* ns, monotonic */

/* Sleeps while *word is `seen`, until spin_wake; may return early. For many that wait for one
 * event: they need no lock when they wake, over which they would meet again at once. */
void spin_sleep(_Atomic uint32_t *word, uint32_t seen);
/* Wakes up to `most` of those that sleep on it. Who is about to sleep notices only that *word has
 * changed. */
void spin_wake(_Atomic uint32_t *word, int most);

/* As the pthread functions. For locks that are mostly held for microseconds. */
void spin_rdlock(pthread_rwlock_t *lock);
void spin_wrlock(pthread_rwlock_t *lock);

#endif
