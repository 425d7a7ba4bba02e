/* SPDX-License-Identifier: MIT */
#ifndef PATHS_H
#define PATHS_H

#include "volume_internal.h"

/* Takes the next name off a path, empty ones and "." left out; false: there is none. */
bool paths_next(struct keg_bytes *path, struct keg_bytes *name);

#endif
