/* SPDX-License-Identifier: MIT */
/*
 * A whole repair: the store (keg_repair), the tree (volume_repair), and a check of both afterwards;
 * what was lost is reported with paths.
 */
#ifndef REPAIR_H
#define REPAIR_H

#include "check.h"
#include "openstore.h"

/* dir is not mounted. What is said of the repair goes to out; *sound: the check at the end found
 * nothing. 0, or an error that was said but for -EBUSY, see openstore_repair. */
KEG_CHECKED int repair_run(const char *dir, bool json, FILE *out, bool *sound,
                           keg_progress_fn *progress, void *arg, struct openstore *busy);

#endif
