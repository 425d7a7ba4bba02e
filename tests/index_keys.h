/* SPDX-License-Identifier: MIT */
/* Keys of all sorts for the test of the index, from random numbers that a seed gives. */
#ifndef INDEX_KEYS_H
#define INDEX_KEYS_H

#include "keg.h"
#include <string.h>

/* ---- Random numbers: xorshift64* ---- */

static uint64_t test_seed, state;

static uint64_t rnd(uint64_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1dULL >> 16) % below;
}

static void rnd_begin(uint64_t salt)
{
    state = (test_seed + salt) * 0x9e3779b97f4a7c15ULL | 1;
}

/* ---- Keys ---- */

struct key {
    uint8_t bytes[KEG_KEY_MAX];
    size_t len;
};

static void big_endian(uint8_t *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (56 - 8 * i));
}

typedef void key_fn(struct key *key, uint64_t n);

/* Few letters, so that keys repeat and are prefixes of each other. */
static void key_small(struct key *key, uint64_t n)
{
    (void)n;
    key->len = 1 + rnd(12);
    for (size_t i = 0; i < key->len; i++)
        key->bytes[i] = (uint8_t)(rnd(3) * 127);
}

static void key_random(struct key *key, uint64_t n)
{
    (void)n;
    key->len = 17;
    for (size_t i = 0; i < key->len; i++)
        key->bytes[i] = (uint8_t)rnd(256);
}

/* Long prefixes in common, around the length that a head can tell, and up to the longest key. */
static void key_long(struct key *key, uint64_t n)
{
    static const size_t prefix[] = {200, 252, 253, 254, 255, 256, 300, 1000, 1020, 1023};
    size_t common = prefix[rnd(10)];

    (void)n;
    memset(key->bytes, 'p', common);
    key->len = common + 1 + rnd(KEG_KEY_MAX - common);
    if (rnd(4) && key->len > common + 4)
        key->len = common + 1 + rnd(4);
    for (size_t i = common; i < key->len; i++)
        key->bytes[i] = (uint8_t)('o' + rnd(3));
}

/* The longest keys, which differ early or late. */
static void key_longest(struct key *key, uint64_t n)
{
    (void)n;
    key->len = KEG_KEY_MAX - rnd(2);
    memset(key->bytes, 'x', key->len);
    key->bytes[rnd(4) ? key->len - 1 - rnd(3) : rnd(key->len)] = (uint8_t)rnd(256);
    key->bytes[rnd(key->len)] = (uint8_t)rnd(256);
}

static void key_ascending(struct key *key, uint64_t n)
{
    key->len = 8;
    big_endian(key->bytes, n);
}

static void key_descending(struct key *key, uint64_t n)
{
    key->len = 8;
    big_endian(key->bytes, 1000000 - n);
}

/* As files make them: a name (random within a directory), an inode, an extent. */
static void key_files(struct key *key, uint64_t n)
{
    uint64_t id = n / 3;

    memset(key->bytes, 0, 64);
    key->bytes[0] = (uint8_t) "EIN"[n % 3];
    if (n % 3 < 2) {
        big_endian(key->bytes + 1, id);
        key->len = n % 3 ? 9 : 17;
        return;
    }
    big_endian(key->bytes + 1, id / 1000);
    big_endian(key->bytes + 9, rnd(UINT64_MAX));
    memset(key->bytes + 17, 'n', 20);
    key->len = 37;
}

static const struct {
    const char *name;
    key_fn *fn;
    size_t puts;
} shapes[] = {
    {"small", key_small, 20000},
    {"random", key_random, 20000},
    {"long", key_long, 6000},
    {"longest", key_longest, 3000},
    {"ascending", key_ascending, 20000},
    {"descending", key_descending, 20000},
    {"files", key_files, 30000},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct keg_bytes key_of(const struct key *key)
{
    return (struct keg_bytes){key->bytes, key->len};
}

#endif
