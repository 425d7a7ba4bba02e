/* SPDX-License-Identifier: MIT */
/* Zeros written ahead of the log, for small durable appends. See ahead.c. */
#ifndef AHEAD_H
#define AHEAD_H

#include "store.h"

/* The leader is about to append so many bytes: writes zeros where they and others will go, if that
 * pays now. -EIO: that failed, and the store is poisoned. */
KEG_CHECKED int ahead_write(struct keg *keg, uint64_t bytes);

/* Takes them away again, before the store is closed. What fails poisons the store. */
void ahead_cut(struct keg *keg);

#endif
