/* SPDX-License-Identifier: MIT */
/* Sealing the active segment and beginning the next. */
#ifndef ROLL_H
#define ROLL_H

#include "store.h"

/*
 * Seals the active segment and begins the next. The caller leads the commit queue. -ENOSPC, -ENOMEM
 * and the like: everything is as it was, since a footer that is not in the manifest is overwritten
 * by the next frame. Other errors poison the store.
 */
KEG_CHECKED int roll_active(struct keg *keg);

/* Cuts off what a failed append has left behind the active segment's end, so that no later open
 * takes it for a frame. The caller leads the commit queue. A failure poisons the store. */
void roll_cut(struct keg *keg);

/* Begins the first active segment of an opened store, before any thread uses it. */
KEG_CHECKED int roll_begin(struct keg *keg);

#endif
