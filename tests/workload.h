/* SPDX-License-Identifier: MIT */
/*
 * Random work on a store whose disk can fail (env_fault.h), with the history of what it did
 * (history.h); and what has to hold when the store is opened after a crash. Deterministic: the same
 * seed does the same until the disk fails.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include "env_fault.h"
#include "history.h"
#include "random.h"

enum { WORKLOAD_SEGMENT = 64 << 10 };

struct workload {
    struct keg_env *env;
    struct keg *keg; /* NULL: closed */
    struct history history;
    struct random random;
    uint32_t next_value;
    bool failed;  /* an operation has: whatever follows may, too */
    bool verbose; /* TEST_VERBOSE is set */
};

void workload_begin(struct workload *workload, uint64_t seed, uint64_t capacity);
void workload_end(struct workload *workload); /* fails the test if a file is still open */

/* What keg_open returns. */
int workload_open(struct workload *workload);
/* Closes; what keg_close returns. */
int workload_close(struct workload *workload);

/* A random batch of at most `most` puts and deletes. */
int workload_commit(struct workload *workload, size_t most, unsigned flags);
/* Any operation of the interface that changes something, a reopening included. */
int workload_step(struct workload *workload);

/* Whether the open store is sound, writable and holds a state that its history allows: read into
 * *state. Why not is printed. */
bool workload_verify(struct workload *workload, struct history_state *state);
/* Each hint goes with a chance of 1 in `of`. */
int workload_lose_hints(struct workload *workload, unsigned of);
/* Opens what a crash has left, twice: as it is, and without hints; then it has to go on working.
 * Closed when it returns. */
bool workload_recovers(struct workload *workload);

/* A number from the environment. */
uint64_t workload_number(const char *name, uint64_t otherwise);

#endif
