/* SPDX-License-Identifier: MIT */
/* The commit queue: how frames get into the log, and how they become durable. See commit.c. */
#ifndef COMMIT_H
#define COMMIT_H

#include "store.h"

/* As keg_commit. */
KEG_CHECKED int commit_ops(struct keg *keg, const struct keg_op *ops, size_t count, unsigned flags);

/* As keg_sync. */
KEG_CHECKED int commit_sync(struct keg *keg);
/* The same for the syncer, whom nobody waits for. It must not bring on zeros ahead of the log
 * (ahead.c): they are paid for by whoever waits for syncs, and here nobody gains by them. */
KEG_CHECKED int commit_behind(struct keg *keg);

/* Seals the active segment, if it has frames, and begins the next. */
KEG_CHECKED int commit_roll(struct keg *keg);

#endif
