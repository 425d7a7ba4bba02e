/* SPDX-License-Identifier: MIT */
/*
 * A store on a disk that can fail (env_fault.h), with a hook (hook.h) in between, and short forms
 * of what the tests do with it. Failures fail the test.
 */
#ifndef BENCH_H
#define BENCH_H

#include "env_fault.h"
#include "hook.h"

enum { BENCH_SEGMENT = 64 << 10, BENCH_WAIT_MS = 100 };

struct bench {
    struct keg_env *disk;
    struct hook hook;
    struct keg *keg;
};

void bench_open(struct bench *bench);
/* Opens the store again. What keg_open returns. */
int bench_reopen(struct bench *bench);
void bench_free(struct bench *bench);
/* Ends the store without a further change on disk: as kill -9 does, or with a loss of power. */
void bench_stop(struct bench *bench, bool power);

/* The n-th key. buf: BENCH_NAME bytes. */
enum { BENCH_NAME = 40 };
struct keg_bytes bench_name(unsigned n, char *buf);
struct keg_bytes bench_text(const char *s);

/* The n-th key gets its value; what keg_put returns. */
int bench_put(struct keg *keg, unsigned n, unsigned flags);
bool bench_has(struct keg *keg, unsigned n);
void bench_put_all(struct keg *keg, unsigned from, unsigned to);
void bench_drop_all(struct keg *keg, unsigned from, unsigned to);
void bench_want_all(struct keg *keg, unsigned from, unsigned to);

/* Whether a name ends so. */
bool bench_ends(const char *name, const char *end);
void bench_remove_hints(struct bench *bench);

/* A hook: the first segment cannot be read. */
int bench_fail_first(void *arg, enum hook_op op, const char *name);

#endif
