/* SPDX-License-Identifier: MIT */
#include "history.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void push(struct history_state **states, size_t *count, size_t *capacity,
                 const struct history_state *state)
{
    if (*count == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 64;
        *states = realloc(*states, *capacity * sizeof **states);
        if (!*states)
            abort();
    }
    (*states)[(*count)++] = *state;
}

void history_init(struct history *history)
{
    struct history_state empty = {0};

    memset(history, 0, sizeof *history);
    push(&history->states, &history->count, &history->capacity, &empty);
}

void history_free(struct history *history)
{
    free(history->states);
    free(history->failed);
}

void history_restart(struct history *history, const struct history_state *state)
{
    struct history_state copy = *state;

    history->count = history->failed_count = history->synced = 0;
    push(&history->states, &history->count, &history->capacity, &copy);
}

const struct history_state *history_now(const struct history *history)
{
    return &history->states[history->count - 1];
}

void history_commit(struct history *history, const struct history_state *state, int err)
{
    struct history_state failed = *state;

    if (!err) {
        push(&history->states, &history->count, &history->capacity, state);
        return;
    }
    failed.after = history->count - 1;
    push(&history->failed, &history->failed_count, &history->failed_capacity, &failed);
}

void history_sync(struct history *history)
{
    history->synced = history->count - 1;
}

struct keg_bytes history_key(unsigned k, char *buf)
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 16, "key-%u", k)};
}

/* Most values are small, some empty, and a few have a list of CRCs. */
static size_t value_size(uint32_t v)
{
    if (v % 11 == 0)
        return 0;
    if (v % 29 == 0)
        return HISTORY_VALUE_MAX - v % 100;
    return v * 37 % 3000;
}

struct keg_bytes history_value(uint32_t v, uint8_t *buf)
{
    size_t size = value_size(v);
    uint64_t x = v;

    for (size_t i = 0; i < size; i += sizeof x) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        memcpy(buf + i, &x, size - i < sizeof x ? size - i : sizeof x);
    }
    return (struct keg_bytes){buf, size};
}

struct keg_bytes history_meta(const uint32_t *v)
{
    return (struct keg_bytes){v, sizeof *v};
}

static bool read_key(struct keg *keg, unsigned k, uint32_t *v)
{
    static uint8_t want[HISTORY_VALUE_MAX], got[HISTORY_VALUE_MAX + 1];
    struct keg_info info;
    struct keg_bytes value;
    char name[16];
    ssize_t n;

    *v = 0;
    if (keg_get(keg, history_key(k, name), &info))
        return true;
    memcpy(v, info.meta, sizeof *v);
    value = history_value(*v, want);
    n = keg_read(keg, history_key(k, name), 0, got, sizeof got);
    if (info.meta_len == sizeof *v && n == (ssize_t)value.len && memcmp(got, want, value.len) == 0)
        return true;
    fprintf(stderr, "%s: value %u reads as %zd, not %zu bytes, or differs\n", name, *v, n,
            value.len);
    return false;
}

bool history_read(struct keg *keg, struct history_state *state)
{
    struct keg_iter *iter;
    struct keg_entry entry;
    size_t scanned = 0, found = 0;

    memset(state, 0, sizeof *state);
    for (unsigned k = 0; k < HISTORY_KEYS; k++) {
        if (!read_key(keg, k, &state->values[k]))
            return false;
        found += state->values[k] != 0;
    }
    if (keg_iter_open(keg, (struct keg_bytes){"", 0}, &iter))
        return false;
    while (keg_iter_next(iter, &entry) == 1)
        scanned++;
    keg_iter_close(iter);
    if (scanned != found)
        fprintf(stderr, "a scan meets %zu keys, not %zu\n", scanned, found);
    return scanned == found;
}

bool history_same(const struct history_state *a, const struct history_state *b)
{
    return memcmp(a->values, b->values, sizeof a->values) == 0;
}

bool history_allows(const struct history *history, const struct history_state *state)
{
    for (size_t i = history->synced; i < history->count; i++) {
        if (history_same(&history->states[i], state))
            return true;
    }
    for (size_t i = 0; i < history->failed_count; i++) {
        if (history->failed[i].after >= history->synced && history_same(&history->failed[i], state))
            return true;
    }
    return false;
}
