/* SPDX-License-Identifier: MIT */
/*
 * An environment over another that calls a function before each operation: to fail the one that a
 * test is about, by the file's name, or to let another thread in at just that moment.
 */
#ifndef HOOK_H
#define HOOK_H

#include "env.h"

enum hook_op {
    HOOK_CREATE,
    HOOK_OPEN,
    HOOK_APPEND,
    HOOK_SYNC,
    HOOK_SYNCED, /* what was written before a sync is durable, and the caller not yet told */
    HOOK_SEAL,
    HOOK_READ,
    HOOK_PUBLISH, /* name: of what is replaced */
    HOOK_REMOVE,
    HOOK_SYNC_NAMES, /* name: "" */
};

/* name is the file's. 0: the operation goes on; below 0: it fails so, and is not done; above 0
 * (only of appends): it is done and then fails with the negative of that. */
typedef int hook_fn(void *arg, enum hook_op op, const char *name);

struct hook {
    struct keg_env env; /* give this to keg_open */
    struct keg_env *below;
    hook_fn *fn; /* NULL: nothing happens */
    void *arg;
    uint64_t read_at; /* for HOOK_READ, of one thread at a time: which bytes are wanted */
    size_t read_len;
};

void hook_init(struct hook *hook, struct keg_env *below);

#endif
