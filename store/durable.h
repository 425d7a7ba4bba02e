/* SPDX-License-Identifier: MIT */
/* How what was appended becomes durable. See durable.c. */
#ifndef DURABLE_H
#define DURABLE_H

#include "store.h"

/* As keg_sync. */
KEG_CHECKED int durable_sync(struct keg *keg);
/* The same for the syncer, whom nobody waits for. It must not bring on zeros ahead of the log
 * (ahead.c): they are paid for by whoever waits for syncs, and here nobody gains by them. */
KEG_CHECKED int durable_behind(struct keg *keg);

/*
 * Keeps syncs out of the active segment's file until durable_release, which is called in any case.
 * A seal syncs it, too, and the kernel tells a failure to one of the two only: the other would
 * acknowledge what is lost. So a failed seal poisons before durable_release. Nor may a seal follow
 * a sync that has failed: -EIO, or whatever else has made the store read-only.
 */
KEG_CHECKED int durable_hold(struct keg *keg);
void durable_release(struct keg *keg);

#endif
