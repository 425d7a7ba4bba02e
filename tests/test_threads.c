/* SPDX-License-Identifier: MIT */
/* Writers, readers, scans, syncs, hints and compactions at once, with the store's own threads; then
 * a reopen. Meant for ThreadSanitizer, and checks what it reads. */
#include "env.h"
#include "history.h"
#include "random.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

enum { WRITERS = 3, ROUNDS = 8000, KEYS = HISTORY_KEYS / WRITERS };

struct worker {
    struct keg *keg;
    unsigned number;
    uint32_t values[KEYS]; /* what this writer put last */
    _Atomic bool *stop;
    bool good;
};

/* Each writer owns its keys, and sees its own writes at once. */
static void *write_keys(void *arg)
{
    static _Thread_local uint8_t buf[HISTORY_VALUE_MAX], got[HISTORY_VALUE_MAX];
    struct worker *w = arg;
    struct random random = {.state = w->number + 1};

    w->good = true;
    for (unsigned i = 1; i <= ROUNDS && w->good; i++) {
        unsigned k = (unsigned)random_below(&random, KEYS);
        uint32_t v = i * WRITERS + w->number;
        struct keg_bytes value = history_value(v, buf);
        char name[16];
        struct keg_bytes key = history_key(k * WRITERS + w->number, name);
        struct keg_info info;

        if (random_below(&random, 4) == 0) {
            int err = keg_delete(w->keg, key, 0);

            w->good = err == (w->values[k] ? 0 : -ENOENT) && keg_get(w->keg, key, &info) == -ENOENT;
            w->values[k] = 0;
            continue;
        }
        w->values[k] = v;
        w->good = keg_put(w->keg, key, history_meta(&v), value, i % 64 ? 0 : KEG_SYNC) == 0 &&
                  keg_read(w->keg, key, 0, got, sizeof got) == (ssize_t)value.len &&
                  memcmp(got, value.data, value.len) == 0;
    }
    return NULL;
}

/* Whatever a reader meets, meta and value belong together or were changed between the two. */
static void *read_keys(void *arg)
{
    static _Thread_local uint8_t got[HISTORY_VALUE_MAX];
    struct worker *w = arg;
    struct random random = {.state = 99};
    struct keg_entry entry;
    struct keg_iter *iter;

    w->good = true;
    while (!atomic_load(w->stop) && w->good) {
        char name[16];
        unsigned k = (unsigned)random_below(&random, HISTORY_KEYS);
        ssize_t n = keg_read(w->keg, history_key(k, name), 0, got, sizeof got);

        w->good = n >= 0 || n == -ENOENT;
        if (keg_iter_open(w->keg, (struct keg_bytes){"key", 3}, &iter))
            break;
        while (keg_iter_next(iter, &entry) == 1)
            w->good = w->good && entry.meta.len == 4;
        keg_iter_close(iter);
    }
    return NULL;
}

static void *tend(void *arg)
{
    struct worker *w = arg;
    struct keg_stats stats;

    w->good = true;
    while (!atomic_load(w->stop) && w->good) {
        w->good = keg_compact(w->keg, NULL, NULL) == 0 && keg_hint(w->keg) == 0 &&
                  keg_sync(w->keg) == 0 && keg_check(w->keg, NULL, NULL, NULL) == 0;
        keg_stats(w->keg, &stats);
        w->good = w->good && stats.live_bytes <= stats.data_bytes;
    }
    return NULL;
}

static void expect_all(struct keg *keg, const struct worker *writers)
{
    struct history_state state;

    assert_true(history_read(keg, &state));
    for (unsigned i = 0; i < WRITERS; i++) {
        for (unsigned k = 0; k < KEYS; k++)
            assert_int_equal(state.values[k * WRITERS + i], writers[i].values[k]);
    }
}

static void test_all_at_once(void **state)
{
    struct keg_options options = {
        .flags = KEG_CREATE, .segment_size = 256 << 10, .sync_interval_ms = 1};
    struct worker writers[WRITERS] = {0}, reader = {0}, tender = {0};
    pthread_t threads[WRITERS], reading, tending;
    _Atomic bool stop = false;
    struct keg_env *env;
    struct keg *keg;

    (void)state;
    assert_int_equal(env_mem(0, &env), 0);
    assert_int_equal(keg_open(env, &options, &keg), 0);
    reader.keg = tender.keg = keg;
    reader.stop = tender.stop = &stop;
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i].keg = keg;
        writers[i].number = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_keys, &writers[i]), 0);
    }
    assert_int_equal(pthread_create(&reading, NULL, read_keys, &reader), 0);
    assert_int_equal(pthread_create(&tending, NULL, tend, &tender), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&stop, true);
    pthread_join(reading, NULL);
    pthread_join(tending, NULL);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_true(writers[i].good);
    assert_true(reader.good);
    assert_true(tender.good);
    expect_all(keg, writers);
    assert_int_equal(keg_close(keg), 0);
    assert_int_equal(keg_open(env, &options, &keg), 0);
    expect_all(keg, writers);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_at_once)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
