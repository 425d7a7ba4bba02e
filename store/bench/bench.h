/* SPDX-License-Identifier: MIT */
/*
 * kegbench: what its parts share. A workload (workloads.c) drives an engine (engine_*.c) with one
 * worker for each thread; latency.c keeps what each operation took.
 */
#ifndef BENCH_H
#define BENCH_H

#include "keg.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

enum { BENCH_KEY_MAX = 64, BENCH_BATCH_MAX = 1024 };

struct bench_options {
    const char *db;        /* directory */
    uint64_t num, reads;   /* operations a thread, of writing and of reading workloads */
    uint64_t seed;         /* of the random keys */
    uint64_t segment_size; /* bytes; 0: the engine's own choice */
    uint32_t key_size;     /* bytes */
    uint32_t value_size;   /* bytes */
    uint32_t batch_size;   /* puts in one commit */
    unsigned threads;
    bool sync, histogram, use_existing_db;
};

/* ---- Engines: 0 or -errno everywhere; every function but open and close from any thread ---- */

struct bench_pair {
    struct keg_bytes key, value;
};

struct bench_engine {
    const char *name;
    int (*open)(const struct bench_options *options, bool fresh, void **db);
    int (*close)(void *db);
    int (*put)(void *db, const struct bench_pair *pairs, size_t count, bool sync);
    int (*del)(void *db, struct keg_bytes key, bool sync); /* absent: 0 */
    /* The value's length, or -ENOENT; buf has room for any value of this run. */
    ssize_t (*get)(void *db, struct keg_bytes key, void *buf, size_t size);
    /* Visits up to limit keys in order with their values; returns how many. */
    int64_t (*scan)(void *db, uint64_t limit, void *buf, size_t size, uint64_t *bytes);
    int (*compact)(void *db);
    void (*describe)(void *db, FILE *out); /* memory and disk it takes */
};

extern const struct bench_engine engine_keg;
#ifdef HAVE_LMDB
extern const struct bench_engine engine_lmdb;
#endif

/* ---- Latencies: in nanoseconds, within 1/16 of their size ---- */

enum { LATENCY_BUCKETS = 64 * 16 };

struct latency {
    uint64_t counts[LATENCY_BUCKETS];
    uint64_t total, max;
};
void latency_add(struct latency *latency, uint64_t ns);
void latency_merge(struct latency *into, const struct latency *from);
uint64_t latency_quantile(const struct latency *latency, double part); /* ns */
uint64_t latency_now(void);                                            /* monotonic, ns */

/* ---- Workloads ---- */

struct workloads_worker {
    const struct bench_engine *engine;
    const struct bench_options *options;
    void *db;
    unsigned id;
    uint64_t random; /* state; never 0 */
    uint64_t ops;    /* how many to do */
    atomic_bool *stop;
    char *values; /* WORKLOADS_POOL random bytes, shared, and a value's length more */
    char *buf;    /* room for one value, this worker's own */
    /* What it did. */
    uint64_t done, found, bytes;
    int error;
    struct latency latency;
};

enum { WORKLOADS_POOL = 1 << 20 };

struct workloads_kind {
    const char *name;
    void (*run)(struct workloads_worker *worker);
    bool fresh; /* begins with an empty store */
    bool reads; /* counts in --reads, and says how many it found */
    bool sync;  /* each put durable, and a thousandth of --num of them */
    const char *text;
};
/* NULL at the end. */
extern const struct workloads_kind workloads_kinds[];

#endif
