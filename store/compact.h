/* SPDX-License-Identifier: MIT */
/* Compaction. See compact.c. */
#ifndef COMPACT_H
#define COMPACT_H

#include "store.h"

/* As keg_compact. */
KEG_CHECKED int compact_demand(struct keg *keg, keg_progress_fn *progress, void *arg);

/* What the promise on space, or a full disk, asks for now; slowly, and cancelled by keg_close. */
KEG_CHECKED int compact_background(struct keg *keg);

/* Compacts, for space, while wanted says so and there is anything to gain. Errors go to the log. */
void compact_while(struct keg *keg, bool (*wanted)(struct keg *keg));

#endif
