/* SPDX-License-Identifier: MIT */
/*
 * scale fill DIR KEYS     puts KEYS keys of 16 bytes with values of 100, in no order; reads and
 *                         looks up some; closes
 * scale kill DIR KEYS     opens, puts KEYS more, and dies by SIGKILL
 * scale open DIR          opens and closes
 *
 * Prints a line a figure: name, figure, unit.
 */
#include "bench/bench.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE = 100, MOST_READS = 1000000 };

static _Noreturn void die(const char *what, int err)
{
    fprintf(stderr, "scale: %s: %s\n", what, strerror(err < 0 ? -err : err));
    exit(1);
}

/* A key that depends on its number alone; different for different numbers (the steps of
 * splitmix64 can be undone). */
static struct keg_bytes key_of(char text[17], uint64_t number)
{
    uint64_t x = (number + 1) * 0x9e3779b97f4a7c15ULL;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    (void)snprintf(text, 17, "%016" PRIx64, x ^ x >> 31);
    return (struct keg_bytes){text, 16};
}

typedef int step_fn(struct keg *keg, struct keg_bytes key);

static int put(struct keg *keg, struct keg_bytes key)
{
    static const char value[VALUE] = "value";
    struct keg_bytes none = {0};
    return keg_put(keg, key, none, (struct keg_bytes){value, VALUE}, 0);
}

static int read_value(struct keg *keg, struct keg_bytes key)
{
    char buf[VALUE];
    ssize_t n = keg_read(keg, key, 0, buf, sizeof buf);
    return n == VALUE ? 0 : n < 0 ? (int)n : -EIO;
}

static int look_up(struct keg *keg, struct keg_bytes key)
{
    struct keg_info info;
    return keg_get(keg, key, &info);
}

/* Keys `first` on, or `count` of those below `first` in no order. */
static void phase(struct keg *keg, const char *name, step_fn *step, uint64_t first, uint64_t count,
                  bool random)
{
    char text[17];
    uint64_t begin = latency_now(), before = begin, after, longest = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = random ? (i * 0x9e3779b97f4a7c15ULL >> 20) % first : first + i;
        int err = step(keg, key_of(text, number));
        if (err)
            die(name, err);
        after = latency_now();
        longest = after - before > longest ? after - before : longest;
        before = after;
    }
    printf("%s %.4f us\n", name, (double)(before - begin) / 1e3 / (double)count);
    printf("%s_longest %.4f ms\n", name, (double)longest / 1e6);
}

static void say(void *arg, enum keg_level level, const char *line)
{
    (void)arg;
    if (level != KEG_LOG_INFO)
        fprintf(stderr, "scale: %s\n", line);
}

static void fill(struct keg *keg, uint64_t keys)
{
    struct keg_stats stats;
    const uint64_t reads = keys < MOST_READS ? keys : MOST_READS;
    phase(keg, "put", put, 0, keys, false);
    phase(keg, "get", read_value, keys, reads, true);
    phase(keg, "lookup", look_up, keys, reads, true);
    keg_stats(keg, &stats);
    printf("index %.2f bytes\n", (double)stats.index_bytes / (double)stats.keys);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    const bool filling = !strcmp(what, "fill"), killing = !strcmp(what, "kill");
    const uint64_t keys = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    const struct keg_options options = {.flags = filling ? KEG_CREATE : 0, .log = say};
    struct keg_env *env;
    struct keg *keg;
    struct keg_stats stats;
    if (argc != (filling || killing ? 4 : 3) || (argc == 4 && !keys)) {
        fputs("usage: scale fill|kill DIR KEYS, scale open DIR\n", stderr);
        return 2;
    }
    int err = keg_env_posix(argv[2], filling, &env);
    if (err)
        die(argv[2], err);
    uint64_t before = latency_now();
    err = keg_open(env, &options, &keg);
    if (err)
        die("open", err);
    printf("open %.4f ms\n", (double)(latency_now() - before) / 1e6);
    keg_stats(keg, &stats);
    if (filling)
        fill(keg, keys);
    if (killing) {
        phase(keg, "put", put, stats.keys, keys, false);
        fflush(stdout);
        raise(SIGKILL);
    }
    before = latency_now();
    err = keg_close(keg);
    if (err)
        die("close", err);
    printf("close %.4f ms\n", (double)(latency_now() - before) / 1e6);
    keg_env_free(env);
    return 0;
}
