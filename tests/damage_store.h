/* SPDX-License-Identifier: MIT */
/* A small store with a bit of everything, made to be damaged, and what the tests that do so share.
 * Failures fail the test. */
#ifndef DAMAGE_STORE_H
#define DAMAGE_STORE_H

#include "env_fault.h"
#include "history.h"

enum { DAMAGE_STORE_SEGMENT = 64 << 10, DAMAGE_STORE_FILES = 16 };

struct store {
    struct keg_env *env;
    struct history_state state; /* what it holds */
};

/* Sealed segments with older and newer records and tombstones, a compacted one, and an active one
 * with a hinted part; small, because each byte of it is flipped. */
void damage_store_make(struct store *store);
/* An environment with the same files. */
struct keg_env *damage_store_clone(struct keg_env *env);
int damage_store_open(struct keg_env *env, unsigned flags, struct keg **keg);

struct names {
    char names[DAMAGE_STORE_FILES][ENV_NAME_MAX + 1];
    size_t count;
};
struct names damage_store_list(struct keg_env *env);
void damage_store_remove_hints(struct keg_env *env);
uint64_t damage_store_size(struct keg_env *env, const char *name);
void damage_store_copy_file(struct keg_env *from, struct keg_env *to, const char *name);

#endif
