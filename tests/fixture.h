/* SPDX-License-Identifier: MIT */
/*
 * A store on a disk that can fail (env_fault.h), with a hook (hook.h) in between, and short forms
 * of what the tests do with it. Failures fail the test.
 */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "env_fault.h"
#include "hook.h"

/* In such small segments there is no room for zeros ahead of the log (store/ahead.c). */
enum { FIXTURE_SEGMENT = 64 << 10, FIXTURE_WAIT_MS = 100 };

struct fixture {
    struct keg_env *disk;
    struct hook hook;
    struct keg *keg;
    uint64_t segment_size;
};

void fixture_open(struct fixture *fixture);
/* With segments of so many bytes, instead of FIXTURE_SEGMENT. */
void fixture_open_sized(struct fixture *fixture, uint64_t segment_size);
/* Opens the store again. What keg_open returns. */
int fixture_reopen(struct fixture *fixture);
void fixture_free(struct fixture *fixture);
/* Ends the store without a further change on disk: as kill -9 does, or with a loss of power. */
void fixture_stop(struct fixture *fixture, bool power);

/* The n-th key. buf: FIXTURE_NAME bytes. */
enum { FIXTURE_NAME = 40 };
struct keg_bytes fixture_name(unsigned n, char *buf);
struct keg_bytes fixture_text(const char *s);

/* The n-th key gets its value; what keg_put returns. */
int fixture_put(struct keg *keg, unsigned n, unsigned flags);
/* Whether it has that value. */
bool fixture_has(struct keg *keg, unsigned n);
void fixture_put_all(struct keg *keg, unsigned from, unsigned to);
void fixture_drop_all(struct keg *keg, unsigned from, unsigned to);
void fixture_want_all(struct keg *keg, unsigned from, unsigned to);

/* Whether a name ends so. */
bool fixture_ends(const char *name, const char *end);
void fixture_remove_hints(struct fixture *fixture);

/* A hook: the first segment cannot be read. */
int fixture_fail_first(void *arg, enum hook_op op, const char *name);

#endif
