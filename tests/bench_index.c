/* SPDX-License-Identifier: MIT */
/* How dense and how quick the index is: bench_index [keys]. Not a test. */
#include "index.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* splitmix64: the n-th of a fixed row of random numbers */
static uint64_t scramble(uint64_t n)
{
    n += 0x9e3779b97f4a7c15ULL;
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9ULL;
    n = (n ^ n >> 27) * 0x94d049bb133111ebULL;
    return n ^ n >> 31;
}

static void big_endian(uint8_t *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (56 - 8 * i));
}

typedef size_t key_fn(uint8_t *key, uint64_t n);

static size_t key_random(uint8_t *key, uint64_t n)
{
    uint64_t words[2] = {scramble(2 * n), scramble(2 * n + 1)};
    key[0] = 'R';
    memcpy(key + 1, words, 16);
    return 17;
}

static size_t key_ascending(uint8_t *key, uint64_t n)
{
    key[0] = 'A';
    big_endian(key + 1, n);
    return 9;
}

/* Three keys a file, in the order in which they are made: inode, extent, name. */
static size_t key_files(uint8_t *key, uint64_t n)
{
    uint64_t file = n / 3;

    memset(key, 0, 37);
    key[0] = (uint8_t) "IEN"[n % 3];
    big_endian(key + 1, n % 3 < 2 ? file : file / 1000);
    if (n % 3 < 2)
        return n % 3 ? 17 : 9;
    big_endian(key + 9, scramble(file) >> 1);
    snprintf((char *)key + 17, 21, "name-of-%012llu", (unsigned long long)scramble(file) % 1000000);
    return 37;
}

static size_t meta_len(key_fn *fn, uint64_t n)
{
    static const uint8_t lens[] = {70, 0, 10};
    return fn == key_files ? lens[n % 3] : 0;
}

static bool visit(void *arg, struct keg_bytes key, struct keg_bytes meta,
                  const struct index_place *place)
{
    uint64_t *sum = arg;
    *sum += key.len + meta.len + place->sequence;
    return true;
}

static int put_all(struct index *index, key_fn *fn, uint64_t keys)
{
    static const uint8_t meta[KEG_META_MAX];
    uint8_t key[64];

    for (uint64_t n = 0; n < keys; n++) {
        bool value = fn != key_files || n % 3 == 1;
        struct index_place place = {.sequence = n,
                                    .offset = (n * 8192) & 0x3ffffff,
                                    .slot = (uint32_t)(n >> 13),
                                    .value_len = value ? 8192 : 0,
                                    .crc = value ? (uint32_t)scramble(n) | 1 : 0};
        size_t len = fn(key, n);
        if (index_put(index, (struct keg_bytes){key, len}, &place,
                      (struct keg_bytes){meta, meta_len(fn, n)}, NULL, NULL) < 0)
            return -1;
    }
    return 0;
}

static int run(const char *name, key_fn *fn, uint64_t keys)
{
    static const struct keg_bytes none = {"", 0};
    struct index *index;
    struct index_place place;
    uint8_t key[64];
    uint64_t sum = 0, gets = 1000000, found = 0;

    if (index_new(&index) < 0)
        return -1;
    double begin = now();
    if (put_all(index, fn, keys) < 0)
        return -1;
    double put = (now() - begin) / (double)keys;
    uint64_t bytes = index_bytes(index);

    begin = now();
    for (uint64_t n = 0; n < gets; n++) {
        size_t len = fn(key, scramble(n) % keys);
        found += index_get(index, (struct keg_bytes){key, len}, &place, NULL) == 0;
    }
    double get = (now() - begin) / (double)gets;
    begin = now();
    index_scan(index, none, visit, &sum);
    double scan = (now() - begin) / (double)keys;
    begin = now();
    for (uint64_t n = 0; n < keys; n++) {
        size_t len = fn(key, n);
        found += index_delete(index, (struct keg_bytes){key, len}, NULL, NULL) == 0;
    }
    double delete = (now() - begin) / (double)keys;
    printf("%-10s %9llu keys  %6.1f bytes a key  put %5.0f  get %5.0f  scan %4.0f  delete %5.0f "
           "ns  (%llu)\n",
           name, (unsigned long long)keys, (double)bytes / (double)keys, put, get, scan, delete,
           (unsigned long long)(sum + found));
    index_free(index);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t keys = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000;

    return run("random", key_random, keys) < 0 || run("ascending", key_ascending, keys) < 0 ||
           run("files", key_files, 3 * keys) < 0;
}
