/* SPDX-License-Identifier: MIT */
/* Counts the kernel's requests by opcode. Any thread; a count may lag behind by what other threads
 * are doing at the moment. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { REQUESTS_MAX = 64 }; /* opcodes from here on are counted together, as 0 */

/* How they come; it may change. */
typedef _Atomic(const char *) requests_transport;

struct requests {
    _Atomic uint64_t count[REQUESTS_MAX];
    _Atomic uint64_t waiting; /* bytes */
};

void requests_count(struct requests *requests, uint32_t opcode);
/* A request of len bytes is copied, to wait for a sync, unless there would be more than most bytes
 * of such: then it returns false. From one thread at a time; requests_waited, when it is done, from
 * any. */
bool requests_may_wait(struct requests *requests, uint64_t len, uint64_t most);
void requests_waited(struct requests *requests, uint64_t len);
uint64_t requests_waiting(const struct requests *requests); /* bytes */
uint64_t requests_get(const struct requests *requests, uint32_t opcode);
/* The protocol's name in capitals ("LOOKUP"); "OTHER" for one that is not known. */
const char *requests_name(uint32_t opcode);

#endif
