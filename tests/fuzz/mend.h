/* SPDX-License-Identifier: MIT */
/* Make the CRCs of a file's bytes fit, salts and all, so that a fuzzer gets behind them. */
#ifndef MEND_H
#define MEND_H

#include "format.h"

void mend_segment(uint8_t *bytes, size_t len);
void mend_hint(uint8_t *bytes, size_t len);
void mend_manifest(uint8_t *bytes, size_t len);

#endif
