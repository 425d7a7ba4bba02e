/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share. An input's first byte says what is to be done with the rest; its
 * lowest bit, FUZZ_REPAIR, that the CRCs are to be made to fit before the decoders see it, so that
 * a fuzzer gets behind them.
 *
 * With -Dfuzz=true (clang) libFuzzer calls the target; otherwise main.c does, with the files of the
 * corpus.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FUZZ_REPAIR = 1, FUZZ_MAX = 1 << 16 /* bytes; longer inputs are passed over */ };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A copy that can be changed, in memory that ends where it ends. */
static inline uint8_t *fuzz_copy(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    FUZZ_CHECK(copy);
    if (len)
        memcpy(copy, data, len);
    return copy;
}

#endif
