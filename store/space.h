/* SPDX-License-Identifier: MIT */
/* Space: who may still append when the disk fills up. */
#ifndef SPACE_H
#define SPACE_H

#include "store.h"

/* Bytes of the filesystem that puts leave free. Takes manifest_lock. */
uint64_t space_reserve(struct keg *keg);

/* Bytes that a compaction may write, its output's hint included, besides MANIFEST and the like. */
uint64_t space_for_compaction(struct keg *keg);

/* Whether a frame of so many bytes may be appended. The caller leads the commit queue. -ENOSPC
 * (puts only), and what env_space gives. */
KEG_CHECKED int space_take(struct keg *keg, uint64_t bytes, unsigned flags);

#endif
