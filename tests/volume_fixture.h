/* SPDX-License-Identifier: MIT */
/* A volume on a store in memory (or in another environment), for the tests of the namespace. */
#ifndef VOLUME_FIXTURE_H
#define VOLUME_FIXTURE_H

#include "env.h"
#include "volume_internal.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct fixture {
    struct keg_env *env;
    struct keg *keg;
    struct volume *volume;
    unsigned volume_flags, keg_flags;
    time_t seconds; /* the clock: each look at it is a second */
    unsigned damage_lines;
    atomic_uint store_lines; /* of the store's log, by any thread: warnings and errors */
    uint64_t segment_size;   /* bytes; 0: 1 MiB */
};

static inline struct timespec fixture_now(void *arg)
{
    struct fixture *f = arg;
    return (struct timespec){f->seconds++, 0};
}

static inline void fixture_log(void *arg, enum keg_level level, const char *line)
{
    struct fixture *f = arg;
    if (level == KEG_LOG_ERROR)
        f->damage_lines++;
    (void)line;
}

static inline void fixture_store_log(void *arg, enum keg_level level, const char *line)
{
    struct fixture *f = arg;
    if (level != KEG_LOG_INFO)
        atomic_fetch_add(&f->store_lines, 1);
    (void)line;
}

static inline KEG_CHECKED int fixture_open(struct fixture *f)
{
    static const uint8_t secret[KEYS_SECRET_SIZE] = "0123456789abcdef";
    const struct keg_options keg_options = {
        .flags = KEG_CREATE | f->keg_flags,
        .segment_size = f->segment_size ? f->segment_size : 1 << 20,
        .log = fixture_store_log,
        .log_arg = f,
    };
    const struct volume_options options = {
        .flags = VOLUME_CREATE | f->volume_flags,
        .now = f->volume_flags & VOLUME_NO_BACKGROUND ? fixture_now : NULL,
        .now_arg = f,
        .log = fixture_log,
        .log_arg = f,
        .secret = secret,
        .hold_ms = 20,
    };
    int error = keg_open(f->env, &keg_options, &f->keg);
    if (error)
        return error;
    error = volume_open(f->keg, &options, &f->volume);
    if (error) {
        (void)!keg_close(f->keg);
        f->volume = NULL;
    }
    return error;
}

static inline KEG_CHECKED int fixture_close(struct fixture *f)
{
    int error = volume_close(f->volume);
    int also = keg_close(f->keg);
    f->volume = NULL;
    f->keg = NULL;
    return error ? error : also;
}

static inline struct keg_bytes fixture_text(const char *s)
{
    return (struct keg_bytes){s, strlen(s)};
}

static inline void fixture_print(void *arg, const char *text)
{
    (void)arg;
    printf("check: %s\n", text);
}

#endif
