/* SPDX-License-Identifier: MIT */
/*
 * The workloads, under the names that LevelDB's and RocksDB's db_bench gave them, and as those do
 * them: keys are numbers below --num, in order or drawn with replacement; with several threads each
 * does --num (or --reads) operations.
 */
#include "bench.h"
#include <errno.h>
#include <string.h>

/* ---- Keys and values ---- */

/* xorshift64*: Marsaglia, "Xorshift RNGs", with Vigna's multiplier. */
static uint64_t next_random(struct workloads_worker *worker)
{
    uint64_t x = worker->random;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    worker->random = x;
    return x * 0x2545f4914f6cdd1dULL;
}

/* The number in decimal, right-aligned in zeros. A '.' at the end makes a key that nothing puts. */
static struct keg_bytes make_key(const struct workloads_worker *worker, char *key, uint64_t number,
                                 bool missing)
{
    uint32_t at = worker->options->key_size;

    if (missing)
        key[--at] = '.';
    while (at > 0) {
        key[--at] = (char)('0' + number % 10);
        number /= 10;
    }
    return (struct keg_bytes){key, worker->options->key_size};
}

static struct keg_bytes make_value(struct workloads_worker *worker)
{
    size_t from = (size_t)(next_random(worker) % WORKLOADS_POOL);

    return (struct keg_bytes){worker->values + from, worker->options->value_size};
}

static uint64_t random_number(struct workloads_worker *worker)
{
    return next_random(worker) % worker->options->num;
}

/* ---- One operation after the other ---- */

/* Does `step` until the worker has done its share, somebody says stop, or one fails. */
static void repeat(struct workloads_worker *worker,
                   int (*step)(struct workloads_worker *worker, uint64_t number, bool sync),
                   bool sync)
{
    uint64_t before = worker->options->histogram ? latency_now() : 0, after;

    while (worker->done < worker->ops &&
           !atomic_load_explicit(worker->stop, memory_order_relaxed)) {
        worker->error = step(worker, worker->done, sync);
        if (worker->error)
            return;
        if (worker->options->histogram) {
            after = latency_now();
            latency_add(&worker->latency, after - before);
            before = after;
        }
    }
}

/* A batch of puts from `first` on, or of random ones. */
static int put_some(struct workloads_worker *worker, uint64_t first, bool random, bool sync)
{
    struct bench_pair pairs[BENCH_BATCH_MAX];
    char keys[BENCH_BATCH_MAX][BENCH_KEY_MAX];
    uint64_t left = worker->ops - worker->done;
    size_t count = worker->options->batch_size;
    int err;

    if (count > left)
        count = (size_t)left;
    for (size_t i = 0; i < count; i++) {
        uint64_t number = random ? random_number(worker) : first + i;

        pairs[i].key = make_key(worker, keys[i], number, false);
        pairs[i].value = make_value(worker);
        worker->bytes += pairs[i].key.len + pairs[i].value.len;
    }
    err = worker->engine->put(worker->db, pairs, count, sync);
    worker->done += count;
    return err;
}

static int put_next(struct workloads_worker *worker, uint64_t number, bool sync)
{
    return put_some(worker, number, false, sync);
}

static int put_random(struct workloads_worker *worker, uint64_t number, bool sync)
{
    (void)number;
    return put_some(worker, 0, true, sync);
}

static int read_one(struct workloads_worker *worker, uint64_t number, bool missing)
{
    char text[BENCH_KEY_MAX];
    struct keg_bytes key = make_key(worker, text, number, missing);
    ssize_t len = worker->engine->get(worker->db, key, worker->buf, worker->options->value_size);

    worker->done++;
    if (len < 0)
        return len == -ENOENT ? 0 : (int)len;
    worker->found++;
    worker->bytes += key.len + (size_t)len;
    return 0;
}

static int read_random(struct workloads_worker *worker, uint64_t number, bool sync)
{
    (void)number, (void)sync;
    return read_one(worker, random_number(worker), false);
}

static int read_missing(struct workloads_worker *worker, uint64_t number, bool sync)
{
    (void)number, (void)sync;
    return read_one(worker, random_number(worker), true);
}

static int delete_number(struct workloads_worker *worker, uint64_t number, bool sync)
{
    char text[BENCH_KEY_MAX];

    worker->done++;
    return worker->engine->del(worker->db, make_key(worker, text, number, false), sync);
}

static int delete_random(struct workloads_worker *worker, uint64_t number, bool sync)
{
    (void)number;
    return delete_number(worker, random_number(worker), sync);
}

/* Nine reads to one put, as db_bench has it. */
static int read_or_write(struct workloads_worker *worker, uint64_t number, bool sync)
{
    if (next_random(worker) % 10 == 0)
        return put_some(worker, number, true, sync);
    return read_random(worker, number, sync);
}

/* ---- The workloads ---- */

static void run_put_next(struct workloads_worker *worker)
{
    repeat(worker, put_next, worker->options->sync);
}

static void run_put_random(struct workloads_worker *worker)
{
    repeat(worker, put_random, worker->options->sync);
}

static void run_put_sync(struct workloads_worker *worker)
{
    repeat(worker, put_random, true);
}

static void run_read_random(struct workloads_worker *worker)
{
    repeat(worker, read_random, false);
}

static void run_read_missing(struct workloads_worker *worker)
{
    repeat(worker, read_missing, false);
}

static void run_delete_next(struct workloads_worker *worker)
{
    repeat(worker, delete_number, worker->options->sync);
}

static void run_delete_random(struct workloads_worker *worker)
{
    repeat(worker, delete_random, worker->options->sync);
}

static void run_mixed(struct workloads_worker *worker)
{
    repeat(worker, read_or_write, worker->options->sync);
}

/* The first worker writes until the readers are through. */
static void run_read_while_writing(struct workloads_worker *worker)
{
    if (worker->id > 0 || worker->options->threads == 1) {
        run_read_random(worker);
        return;
    }
    worker->ops = UINT64_MAX;
    run_put_random(worker);
    worker->done = worker->found = worker->bytes = 0; /* the figure is the readers' */
}

static void run_read_next(struct workloads_worker *worker)
{
    int64_t count = worker->engine->scan(worker->db, worker->ops, worker->buf,
                                         worker->options->value_size, &worker->bytes);

    if (count < 0)
        worker->error = (int)count;
    else
        worker->done = worker->found = (uint64_t)count;
}

static void run_compact(struct workloads_worker *worker)
{
    if (worker->id == 0)
        worker->error = worker->engine->compact(worker->db);
    worker->done = worker->id == 0;
}

const struct workloads_kind workloads_kinds[] = {
    {"fillseq", run_put_next, .fresh = true, .text = "put keys in order"},
    {"fillrandom", run_put_random, .fresh = true, .text = "put random keys"},
    {"fillsync", run_put_sync, .fresh = true, .sync = true,
     .text = "put a thousandth of --num, each durable"},
    {"overwrite", run_put_random, .text = "put random keys that are there"},
    {"readrandom", run_read_random, .reads = true, .text = "read random keys"},
    {"readmissing", run_read_missing, .reads = true, .text = "read keys that are not there"},
    {"readseq", run_read_next, .reads = true, .text = "read in order"},
    {"readwhilewriting", run_read_while_writing, .reads = true,
     .text = "read random keys; one more thread writes"},
    {"readrandomwriterandom", run_mixed, .reads = true, .text = "nine reads to one put"},
    {"deleteseq", run_delete_next, .text = "delete in order"},
    {"deleterandom", run_delete_random, .text = "delete random keys"},
    {"compact", run_compact, .text = "compact"},
    {0},
};
