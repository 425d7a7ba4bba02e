/* SPDX-License-Identifier: MIT */
/* The gate: who commits with locks of its own held, and who must not make it wait. See gate.c. */
#ifndef GATE_H
#define GATE_H

#include "store.h"

void gate_init(struct keg *keg);
void gate_destroy(struct keg *keg);

/* Seals the active segment, if it has frames (or, with `due`, only if it is nearly full), and
 * begins the next. Nobody is inside meanwhile, unless they take long; what is merely due is then
 * left for later, and is no error. The caller has not entered, and holds no lock. */
KEG_CHECKED int gate_roll(struct keg *keg, bool due);

#endif
