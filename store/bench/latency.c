/* SPDX-License-Identifier: MIT */
/*
 * Latencies in buckets: 16 for each power of two, so that a quantile is within 1/16 of the truth
 * and adding one costs a shift and an increment.
 */
#include "bench.h"
#include <time.h>

static unsigned bucket_of(uint64_t ns)
{
    unsigned power;

    if (ns < 16)
        return (unsigned)ns;
    power = 63 - (unsigned)__builtin_clzll(ns);
    return (power - 3) * 16 + (unsigned)(ns >> (power - 4) & 15);
}

/* The least time that falls into a bucket. */
static uint64_t bucket_start(unsigned bucket)
{
    if (bucket < 16)
        return bucket;
    return (uint64_t)(16 + bucket % 16) << (bucket / 16 - 1);
}

void latency_add(struct latency *latency, uint64_t ns)
{
    latency->counts[bucket_of(ns)]++;
    latency->total++;
    if (ns > latency->max)
        latency->max = ns;
}

void latency_merge(struct latency *into, const struct latency *from)
{
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->total += from->total;
    if (from->max > into->max)
        into->max = from->max;
}

uint64_t latency_quantile(const struct latency *latency, double part)
{
    uint64_t wanted = (uint64_t)(part * (double)latency->total), seen = 0;

    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency->counts[i];
        if (seen > wanted)
            return bucket_start(i);
    }
    return latency->max;
}

uint64_t latency_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
