/* SPDX-License-Identifier: MIT */
/* The commit queue: how frames get into the log. See commit.c. */
#ifndef COMMIT_H
#define COMMIT_H

#include "store.h"

/* As keg_commit. */
KEG_CHECKED int commit_ops(struct keg *keg, const struct keg_op *ops, size_t count, unsigned flags);

/* Seals the active segment, if it has frames (or, with `due`, only if it is nearly full), and
 * begins the next. For gate_roll, which others call. */
KEG_CHECKED int commit_roll(struct keg *keg, bool due);

#endif
