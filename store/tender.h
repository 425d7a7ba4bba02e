/* SPDX-License-Identifier: MIT */
/*
 * The store's own threads: one syncs the log within the sync interval, the other writes hints and
 * compacts when the policy says so. With KEG_NO_BACKGROUND there are none.
 */
#ifndef TENDER_H
#define TENDER_H

#include "store.h"

KEG_CHECKED int tender_start(struct keg *keg); /* -EAGAIN, -ENOMEM */
void tender_stop(struct keg *keg);
/* There may be work: a segment was sealed, or space is short. */
void tender_kick(struct keg *keg);
/* Much was appended: the log is to be synced before the sync interval is over. */
void tender_sync(struct keg *keg);

#endif
