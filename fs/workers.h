/* SPDX-License-Identifier: MIT */
/*
 * Threads for what takes long (syncs, commands), so that the loop that takes requests goes on. Two
 * are made at once, so that one is left beside one that waits; the others when needed, up to a
 * number, and stay. Any thread may call workers_run.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include "keg.h"

struct workers;

/* Embedded in what the caller allocates; run frees it. */
struct workers_job {
    struct workers_job *next;
    void (*run)(struct workers_job *job);
    bool waits; /* for other jobs: of these only half as many run as there are threads */
};

/* At most so many threads, which must be two or more. -ENOMEM; -EAGAIN: the first two cannot be
 * made. */
KEG_CHECKED int workers_new(unsigned max_threads, struct workers **out);
/* Runs the job in a thread of the pool, in order of arrival; one that waits for others may come
 * later. */
void workers_run(struct workers *workers, struct workers_job *job);
/* Returns when all jobs are done and the threads have ended. NULL is allowed. */
void workers_free(struct workers *workers);

#endif
