/* SPDX-License-Identifier: MIT */
/* Counts the kernel's requests by opcode. Any thread; a count may lag behind by what other threads
 * are doing at the moment. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include <stdatomic.h>
#include <stdint.h>

enum { REQUESTS_MAX = 64 }; /* opcodes from here on are counted together, as 0 */

/* How they come; it may change. */
typedef _Atomic(const char *) requests_transport;

struct requests {
    _Atomic uint64_t count[REQUESTS_MAX];
};

void requests_count(struct requests *requests, uint32_t opcode);
uint64_t requests_get(const struct requests *requests, uint32_t opcode);
/* The protocol's name in capitals ("LOOKUP"); "OTHER" for one that is not known. */
const char *requests_name(uint32_t opcode);

#endif
