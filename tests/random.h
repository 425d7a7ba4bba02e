/* SPDX-License-Identifier: MIT */
/* Random numbers for tests: the seed is printed, and TEST_SEED=N replays it. */
#ifndef RANDOM_H
#define RANDOM_H

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* 0..bound-1 */
static inline uint64_t random_below(struct random *random, uint64_t bound)
{
    return random_next(random) % bound;
}

/* A number of a random length in bits, so that small and huge ones are alike likely. */
static inline uint64_t random_width(struct random *random)
{
    return random_next(random) >> random_below(random, 64);
}

static inline void random_fill(struct random *random, void *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)random_next(random);
}

static inline struct random random_seeded(void)
{
    const char *text = getenv("TEST_SEED");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed =
        text ? strtoull(text, NULL, 0) : (uint64_t)now.tv_sec * 1000000007u ^ (uint64_t)now.tv_nsec;
    printf("TEST_SEED=%" PRIu64 "\n", seed);
    return (struct random){seed};
}

#endif
