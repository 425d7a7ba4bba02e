/* SPDX-License-Identifier: MIT */
/*
 * Large buffers that calls of the store need for a moment: the entries of a scan, a block of which
 * a part is wanted. A few are kept from one call to the next. Each place is emptied and filled by
 * one exchange, so a buffer has one owner at any time, and nobody waits.
 */
#ifndef KEG_SPARE_H
#define KEG_SPARE_H

#include "keg.h"
#include <stdatomic.h>
#include <stdlib.h>
#if defined __SANITIZE_ADDRESS__
#define SPARE_POISONED
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SPARE_POISONED
#endif
#endif
#ifdef SPARE_POISONED /* a use of what was given back is found, until it is taken again */
#include <sanitizer/asan_interface.h>
#define SPARE_HIDE(buf, size) ASAN_POISON_MEMORY_REGION(buf, size)
#define SPARE_SHOW(buf, size) ASAN_UNPOISON_MEMORY_REGION(buf, size)
#else
#define SPARE_HIDE(buf, size) ((void)0)
#define SPARE_SHOW(buf, size) ((void)0)
#endif

enum { SPARE_BUFFERS = 4, SPARE_SIZE = KEG_BLOCK };

struct spares { /* all NULL at first */
    _Atomic(void *) at[SPARE_BUFFERS];
};

static inline void *spare_kept(struct spares *spares)
{
    void *buf = NULL;
    for (size_t i = 0; i < SPARE_BUFFERS && !buf; i++) {
        if (atomic_load_explicit(&spares->at[i], memory_order_relaxed))
            buf = atomic_exchange(&spares->at[i], NULL);
    }
    if (buf)
        SPARE_SHOW(buf, SPARE_SIZE);
    return buf;
}

/* SPARE_SIZE bytes, not cleared, or NULL. */
static inline void *spare_take(struct spares *spares)
{
    void *buf = spare_kept(spares);
    return buf ? buf : malloc(SPARE_SIZE);
}

static inline void spare_give(struct spares *spares, void *buf) /* NULL is allowed */
{
    if (!buf)
        return;
    SPARE_HIDE(buf, SPARE_SIZE);
    for (size_t i = 0; i < SPARE_BUFFERS; i++) {
        void *none = NULL;
        if (atomic_compare_exchange_strong(&spares->at[i], &none, buf))
            return;
    }
    SPARE_SHOW(buf, SPARE_SIZE);
    free(buf);
}

/* Frees what is kept. */
static inline void spare_free_all(struct spares *spares)
{
    void *buf;
    while ((buf = spare_kept(spares)))
        free(buf);
}

#endif
