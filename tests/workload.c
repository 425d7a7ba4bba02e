/* SPDX-License-Identifier: MIT */
#include "workload.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH_MAX = HISTORY_KEYS };

static void print_log(void *arg, enum keg_level level, const char *line)
{
    const struct workload *w = arg;

    (void)level;
    if (w->verbose)
        print_message("log: %s\n", line);
}

static uint64_t below(struct workload *w, uint64_t bound)
{
    return random_below(&w->random, bound);
}

/* ---- Opening and closing ---- */

void workload_begin(struct workload *w, uint64_t seed, uint64_t capacity)
{
    memset(w, 0, sizeof *w);
    assert_int_equal(env_fault(capacity, &w->env), 0);
    history_init(&w->history);
    w->random.state = seed;
    w->verbose = getenv("TEST_VERBOSE") != NULL;
}

void workload_end(struct workload *w)
{
    if (env_fault_open_files(w->env)) {
        print_error("%u files left open\n", env_fault_open_files(w->env));
        fail();
    }
    history_free(&w->history);
    keg_env_free(w->env);
}

int workload_open(struct workload *w)
{
    struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                  .segment_size = WORKLOAD_SEGMENT,
                                  .log = print_log,
                                  .log_arg = w};
    int err = keg_open(w->env, &options, &w->keg);

    if (err)
        w->keg = NULL;
    return err;
}

int workload_close(struct workload *w)
{
    int err = keg_close(w->keg);

    w->keg = NULL;
    if (!err)
        history_sync(&w->history);
    return err;
}

/* ---- Operations ---- */

static void commit(struct workload *w, const struct keg_batch *batch,
                   const struct history_state *state, unsigned flags, int *err)
{
    const char *reason;

    *err = keg_commit(w->keg, batch, flags);
    reason = keg_readonly_reason(w->keg);
    if (!*err && reason && strstr(reason, "appending")) {
        print_error("a commit returned 0, and its append failed: %s\n", reason);
        fail();
    }
    history_commit(&w->history, state, *err);
    if (!*err && flags & KEG_SYNC)
        history_sync(&w->history);
}

int workload_commit(struct workload *w, size_t most, unsigned flags)
{
    static uint8_t values[BATCH_MAX][HISTORY_VALUE_MAX];
    struct history_state state = *history_now(&w->history);
    struct keg_batch batch = {0};
    uint32_t numbers[BATCH_MAX];
    char keys[BATCH_MAX][16];
    size_t count = 1 + (size_t)below(w, most);
    int err = 0;

    for (size_t i = 0; i < count && !err; i++) {
        unsigned k = (unsigned)below(w, HISTORY_KEYS);
        struct keg_bytes key = history_key(k, keys[i]);

        numbers[i] = state.values[k] = below(w, 3) ? ++w->next_value : 0;
        err = numbers[i] ? keg_batch_put(&batch, key, history_meta(&numbers[i]),
                                         history_value(numbers[i], values[i]))
                         : keg_batch_delete(&batch, key);
    }
    if (!err)
        commit(w, &batch, &state, flags, &err);
    keg_batch_free(&batch);
    return err;
}

/* Everything, or one half of it. */
static int delete_many(struct workload *w)
{
    struct history_state state = *history_now(&w->history);
    unsigned first = (unsigned)below(w, 2), step = 1 + (unsigned)below(w, 2);
    struct keg_batch batch = {0};
    char keys[HISTORY_KEYS][16];
    int err = 0;

    for (unsigned k = first; k < HISTORY_KEYS && !err; k += step) {
        err = keg_batch_delete(&batch, history_key(k, keys[k]));
        state.values[k] = 0;
    }
    if (!err)
        commit(w, &batch, &state, KEG_FREEING | (below(w, 4) ? 0 : KEG_SYNC), &err);
    keg_batch_free(&batch);
    return err;
}

static int sync_all(struct workload *w)
{
    int err = keg_sync(w->keg);

    if (!err)
        history_sync(&w->history);
    return err;
}

static bool stop_now(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)done;
    (void)total;
    return true;
}

static int compact(struct workload *w)
{
    int err = keg_compact(w->keg, below(w, 3) ? NULL : stop_now, NULL);

    return err == -ECANCELED ? 0 : err;
}

int workload_step(struct workload *w)
{
    uint64_t dice = below(w, 100);

    if (dice < 55)
        return workload_commit(w, 1, below(w, 12) ? 0 : KEG_SYNC);
    if (dice < 77)
        return workload_commit(w, 6, below(w, 12) ? 0 : KEG_SYNC);
    if (dice < 80)
        return workload_commit(w, BATCH_MAX, below(w, 4) ? 0 : KEG_SYNC);
    if (dice < 81)
        return delete_many(w);
    if (dice < 88)
        return sync_all(w);
    if (dice < 92)
        return keg_hint(w->keg);
    if (dice < 96)
        return compact(w);
    int err = workload_close(w);
    return err ? err : workload_open(w);
}

/* ---- After a crash ---- */

bool workload_verify(struct workload *w, struct history_state *state)
{
    const char *reason = keg_readonly_reason(w->keg);

    if (reason) {
        print_error("read-only: %s\n", reason);
        return false;
    }
    if (!history_read(w->keg, state))
        return false;
    if (keg_check(w->keg, NULL, NULL, NULL) != 0) {
        print_error("check finds something\n");
        return false;
    }
    if (!history_allows(&w->history, state)) {
        print_error("no prefix that holds what was synced\n");
        return false;
    }
    return true;
}

struct losing {
    struct workload *workload;
    unsigned of;
};

static int lose_hint(void *arg, const char *name)
{
    const struct losing *losing = arg;

    if (!strstr(name, ".hint") || below(losing->workload, losing->of))
        return 0;
    return env_remove(losing->workload->env, name);
}

int workload_lose_hints(struct workload *w, unsigned of)
{
    struct losing losing = {w, of};

    return env_list(w->env, lose_hint, &losing);
}

bool workload_recovers(struct workload *w)
{
    struct history_state state, again;
    bool good;

    env_fault_set(w->env, NULL);
    if (workload_open(w)) {
        print_error("it does not open\n");
        return false;
    }
    good = workload_verify(w, &state);
    if (keg_close(w->keg) || !good)
        return false;
    if (workload_lose_hints(w, 1) || workload_open(w))
        return false;
    good = history_read(w->keg, &again) && history_same(&state, &again);
    if (!good)
        print_error("another state without hints\n");
    /* The store goes on working. */
    history_restart(&w->history, &state);
    w->next_value += 1000;
    for (int i = 0; good && i < 5; i++)
        good = workload_commit(w, 6, KEG_SYNC) == 0;
    if (workload_close(w) || !good)
        return false;
    /* What was believed is on the medium, whatever the cache showed. */
    env_fault_restart(w->env);
    if (workload_open(w))
        return false;
    good = history_read(w->keg, &again) && history_same(&again, history_now(&w->history));
    if (!good)
        print_error("what was recovered is gone after a power cut\n");
    return workload_close(w) == 0 && good;
}

uint64_t workload_number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s ? strtoull(s, NULL, 0) : otherwise;
}
