/* SPDX-License-Identifier: MIT */
/*
 * strata ENGINE DIR KEYS: StrataKV's own workload (new keys, overwrites in the first quarter,
 * deletes in the first half, reads before and after compaction, reopening), and a zipfian mix of
 * reads and updates beside it. Values of 8 KiB. Prints a line a phase: name, figure, unit.
 */
#include "bench/bench.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VALUE = 8192, POOL = 1 << 20 };

struct run {
    const struct bench_engine *engine;
    struct bench_options options;
    void *db;
    uint64_t keys, random, live; /* random: state, never 0 */
    char *pool, *buf;
    char *there; /* a byte a key */
};

static _Noreturn void die(const char *what, int err)
{
    fprintf(stderr, "strata: %s: %s\n", what, strerror(err < 0 ? -err : err));
    exit(1);
}

static void must(int err, const char *what)
{
    if (err)
        die(what, err);
}

/* xorshift64* */
static uint64_t next_random(struct run *r)
{
    r->random ^= r->random >> 12;
    r->random ^= r->random << 25;
    r->random ^= r->random >> 27;
    return r->random * 0x2545f4914f6cdd1dULL;
}

static struct keg_bytes key_of(char *text, size_t size, const char *prefix, uint64_t number)
{
    int n = snprintf(text, size, "%s:%" PRIu64, prefix, number);
    return (struct keg_bytes){text, (size_t)n};
}

/* ---- Steps: one operation on a key ---- */

static void put(struct run *r, uint64_t number)
{
    char text[32];
    struct bench_pair pair = {key_of(text, sizeof text, "user", number),
                              {r->pool + next_random(r) % POOL, VALUE}};
    must(r->engine->put(r->db, &pair, 1, false), "put");
    r->live += !r->there[number];
    r->there[number] = 1;
}

static void del(struct run *r, uint64_t number)
{
    char text[32];
    must(r->engine->del(r->db, key_of(text, sizeof text, "user", number), false), "delete");
    r->live -= r->there[number] != 0;
    r->there[number] = 0;
}

static void get(struct run *r, uint64_t number)
{
    char text[32];
    ssize_t n = r->engine->get(r->db, key_of(text, sizeof text, "user", number), r->buf, VALUE);
    if (n != (r->there[number] ? VALUE : -ENOENT))
        die("get: not what was put", n < 0 ? (int)n : EIO);
}

static void get_missing(struct run *r, uint64_t number)
{
    char text[32];
    if (r->engine->get(r->db, key_of(text, sizeof text, "nobody", number), r->buf, VALUE) !=
        -ENOENT)
        die("get: a key that nobody put", EIO);
}

static void mix(struct run *r, uint64_t number)
{
    if (next_random(r) % 2)
        get(r, number);
    else
        put(r, number);
}

/* ---- Which keys ---- */

/* Close to Zipf's law with exponent 1: the logarithm of the rank is uniform. */
static uint64_t zipfian(struct run *r, uint64_t below)
{
    double u = (double)(next_random(r) >> 11) / 9007199254740992.0;
    uint64_t rank = (uint64_t)exp(u * log((double)below));
    return (rank < below ? rank : below - 1) * 2654435761U % below;
}

static void phase(struct run *r, const char *name, uint64_t count, uint64_t below,
                  void (*step)(struct run *r, uint64_t number), bool zipf)
{
    uint64_t before = latency_now();
    for (uint64_t i = 0; i < count; i++)
        step(r, !below ? i : zipf ? zipfian(r, below) : next_random(r) % below);
    printf("%s %.4f us\n", name, (double)(latency_now() - before) / 1e3 / (double)count);
}

/* ---- The store as a whole ---- */

static void space(const struct run *r, const char *name)
{
    struct dirent *entry;
    struct stat st;
    double bytes = 0;
    DIR *listing = opendir(r->options.db);
    if (!listing)
        die("opendir", errno);
    while ((entry = readdir(listing)))
        if (!fstatat(dirfd(listing), entry->d_name, &st, 0) && S_ISREG(st.st_mode))
            bytes += (double)st.st_blocks * 512;
    closedir(listing);
    printf("%s %.4f x\n", name, bytes / ((double)r->live * VALUE));
}

static void timed(struct run *r, const char *name, int (*step)(struct run *r))
{
    uint64_t before = latency_now();
    must(step(r), name);
    printf("%s %.3f ms\n", name, (double)(latency_now() - before) / 1e6);
}

static int compact(struct run *r)
{
    return r->engine->compact(r->db);
}

static int close_it(struct run *r)
{
    return r->engine->close(r->db);
}

static int open_it(struct run *r)
{
    return r->engine->open(&r->options, false, &r->db);
}

static void scan(struct run *r)
{
    uint64_t bytes, before = latency_now();
    int64_t n = r->engine->scan(r->db, UINT64_MAX, r->buf, VALUE, &bytes);
    if (n != (int64_t)r->live)
        die("scan", n < 0 ? (int)n : EIO);
    printf("scan %.4f us\n", (double)(latency_now() - before) / 1e3 / (double)n);
}

static void reads(struct run *r, const char *name, const char *missing)
{
    phase(r, name, r->keys, r->keys, get, false);
    phase(r, missing, r->keys, r->keys, get_missing, false);
}

static void run_all(struct run *r)
{
    phase(r, "load", r->keys, 0, put, false);
    phase(r, "overwrite", r->keys * 4, r->keys / 4, put, false);
    phase(r, "delete", r->keys * 8 / 5, r->keys / 2, del, false);
    reads(r, "read", "missing");
    space(r, "space");
    timed(r, "compact", compact);
    space(r, "space_after");
    reads(r, "read_after", "missing_after");
    phase(r, "mixed", r->keys * 2, r->keys, mix, true);
    scan(r);
    timed(r, "close", close_it);
    timed(r, "reopen", open_it);
    reads(r, "read_reopened", "missing_reopened");
    must(close_it(r), "close");
}

int main(int argc, char **argv)
{
    struct run r = {.engine = &engine_keg, .random = 88172645463325252ULL};
    if (argc != 4 || (r.keys = strtoull(argv[3], NULL, 10)) < 8) {
        fputs("usage: strata keg|lmdb DIR KEYS (8 or more)\n", stderr);
        return 2;
    }
#ifdef HAVE_LMDB
    if (!strcmp(argv[1], "lmdb"))
        r.engine = &engine_lmdb;
#endif
    if (strcmp(argv[1], r.engine->name) != 0)
        die(argv[1], ENOENT);
    r.options = (struct bench_options){
        .db = argv[2], .num = r.keys, .key_size = 32, .value_size = VALUE, .threads = 1};
    r.pool = malloc(POOL + VALUE);
    r.buf = malloc(VALUE + 1);
    r.there = calloc(r.keys, 1);
    if (!r.pool || !r.buf || !r.there)
        die("memory", ENOMEM);
    for (size_t i = 0; i < POOL + VALUE; i++)
        r.pool[i] = (char)(next_random(&r) >> 32);
    must(r.engine->open(&r.options, true, &r.db), "open");
    run_all(&r);
    return 0;
}
