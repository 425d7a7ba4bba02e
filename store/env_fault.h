/* SPDX-License-Identifier: MIT */
/*
 * An environment that fails on demand, over a model of a disk, its cache and its directory in
 * memory (faultdisk.h); for tests (meson: keg_test). It counts every operation that can fail:
 * create, open, append, sync, seal, read, size, publish, remove, sync_names, list, lock, space; so
 * a test lets the first fail, then the second, and so on until a run has no such operation:
 *
 *     for (uint64_t at = 1; struck; at++) { set the plan; run; struck = env_fault_struck(env); }
 *
 * Deterministic: the same seeds and the same calls, from one thread, give the same faults. Safe for
 * threads all the same.
 */
#ifndef ENV_FAULT_H
#define ENV_FAULT_H

#include "env.h"

/*
 * What a failing operation does: an append writes any first part of its bytes; create, remove and
 * publish do their work or not; of what a sync or seal should have made durable any part is, and
 * the rest never will be, though reads go on showing it (ENV_UNCACHED ones do not) and the next
 * sync returns 0; a read leaves rubbish in the buffer; a list may have met some names. Names are
 * lost so, too, by a sync_names and by a publish that has renamed: all later ones of both fail, as
 * env.h has it, but after a restart or revival, which stand for a new environment, return 0.
 */
enum env_fault_kind {
    ENV_FAULT_NONE,
    ENV_FAULT_EIO,
    ENV_FAULT_ENOSPC, /* only of create, append and publish; other operations go on */
    ENV_FAULT_CUT,    /* the power is cut in that operation, which was done in part; it and all
                         later ones give -EIO until env_fault_restart */
};
struct env_fault_plan {
    enum env_fault_kind kind;
    uint64_t at;   /* the operation, counted from 1 since this plan was set */
    bool forever;  /* every operation from `at` on fails, not just one (EIO, ENOSPC) */
    uint64_t seed; /* how far the failing operation gets, and what a restart leaves */
};

/* An empty disk of capacity bytes, 0 for no limit. -ENOMEM. keg_env_free frees it; all files must
 * be closed. */
KEG_CHECKED int env_fault(uint64_t capacity, struct keg_env **out);

/* NULL: nothing fails any more. A cut is not undone by that. Counting begins again. */
void env_fault_set(struct keg_env *env, const struct env_fault_plan *plan);
uint64_t env_fault_operations(struct keg_env *env); /* since the plan was set */
bool env_fault_struck(struct keg_env *env);         /* the plan's fault has happened */
unsigned env_fault_open_files(struct keg_env *env); /* made and not yet closed */

/*
 * After a cut, or at any time: the machine comes back with what the cut leaves. Of each unsynced
 * 512-byte piece, its new bytes, the old, zeros or garbage; a size between the synced one and the
 * last; of each unsynced name, the new state or the old; in any mixture, and now and then all or
 * nothing. The lock is free and no plan is set. All files must be closed. Returns how many bytes
 * that could be read before are gone or different: 0 means that the test put nothing at risk.
 */
uint64_t env_fault_restart(struct keg_env *env);

/* The same after the process was killed and the machine lives: everything that was written is
 * there, but what was not durable is no more so than before. */
void env_fault_revive(struct keg_env *env);

/* Damage on purpose, at once and durably: xors mask into byte `offset` of a file; cuts it to
 * length. -ENOENT; -EINVAL: outside the file. Not counted. */
KEG_CHECKED int env_fault_flip(struct keg_env *env, const char *name, uint64_t offset,
                               uint8_t mask);
KEG_CHECKED int env_fault_truncate(struct keg_env *env, const char *name, uint64_t length);

#endif
