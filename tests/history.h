/* SPDX-License-Identifier: MIT */
/*
 * What a store may hold after a crash: the states that a run went through, over a small set of
 * keys.
 *
 * A state says for each key which value it has (a number; 0: the key is not there). A run appends a
 * state for each commit that returned 0, and notes candidates for each that failed: a failed commit
 * may be found after a crash, wholly or not at all. After a crash the store must hold one of the
 * states from the last synced one on.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include "keg.h"

enum { HISTORY_KEYS = 24, HISTORY_VALUE_MAX = 70000 };

struct history_state {
    uint32_t values[HISTORY_KEYS];
    size_t after; /* a candidate: the number of commits before the failed one */
};

struct history {
    struct history_state *states; /* states[0] is the empty store */
    size_t count, capacity;
    struct history_state *failed;
    size_t failed_count, failed_capacity;
    size_t synced; /* the last state known durable */
};

void history_init(struct history *history);
void history_free(struct history *history);
/* Empties it but for one state, which counts as synced. */
void history_restart(struct history *history, const struct history_state *state);

/* The newest state. */
const struct history_state *history_now(const struct history *history);
/* A commit that led to `state` returned `err`. */
void history_commit(struct history *history, const struct history_state *state, int err);
/* All commits that returned so far are durable. */
void history_sync(struct history *history);

/* Key k and value v as bytes; buf has 16 bytes, or HISTORY_VALUE_MAX. The length tells v's size. */
struct keg_bytes history_key(unsigned k, char *buf);
struct keg_bytes history_value(uint32_t v, uint8_t *buf);
struct keg_bytes history_meta(const uint32_t *v);

/* Reads the whole store into a state, every value verified against its number. False: something is
 * not as any commit wrote it, and why is printed. */
bool history_read(struct keg *keg, struct history_state *state);

/* Whether a state may be found after a crash. */
bool history_allows(const struct history *history, const struct history_state *state);
/* Whether both hold the same. */
bool history_same(const struct history_state *a, const struct history_state *b);

#endif
