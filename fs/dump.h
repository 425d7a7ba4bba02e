/* SPDX-License-Identifier: MIT */
/* Prints every live key of a store, a line each: kind, ids, name, meta, and where its value lies.
 */
#ifndef DUMP_H
#define DUMP_H

#include "volume.h"
#include <stdio.h>

/* 0; -ECANCELED; -ENOMEM; what the scan gives. The stream's errors are for its owner to see. */
KEG_CHECKED int dump_write(struct keg *keg, keg_progress_fn *progress, void *arg, FILE *out);
/* The same, an object a line. */
KEG_CHECKED int dump_write_json(struct keg *keg, keg_progress_fn *progress, void *arg, FILE *out);

#endif
