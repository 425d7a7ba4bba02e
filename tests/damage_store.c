/* SPDX-License-Identifier: MIT */
#include "damage_store.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

int damage_store_open(struct keg_env *env, unsigned flags, struct keg **keg)
{
    struct keg_options options = {.flags = flags | KEG_NO_BACKGROUND,
                                  .segment_size = DAMAGE_STORE_SEGMENT};

    return keg_open(env, &options, keg);
}

static void put(struct keg *keg, struct history_state *state, unsigned k, uint32_t v)
{
    static uint8_t buf[HISTORY_VALUE_MAX];
    char name[16];

    state->values[k] = v;
    assert_int_equal(keg_put(keg, history_key(k, name), history_meta(&v), history_value(v, buf), 0),
                     0);
}

static void drop(struct keg *keg, struct history_state *state, unsigned k)
{
    char name[16];

    state->values[k] = 0;
    assert_int_equal(keg_delete(keg, history_key(k, name), 0), 0);
}

void damage_store_make(struct store *store)
{
    struct keg *keg;

    memset(store, 0, sizeof *store);
    assert_int_equal(env_fault(0, &store->env), 0);
    assert_int_equal(damage_store_open(store->env, KEG_CREATE, &keg), 0);
    for (unsigned k = 0; k < 6; k++)
        put(keg, &store->state, k, 1 + k);
    for (unsigned k = 0; k < 3; k++)
        put(keg, &store->state, k, 12 + k);
    assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    for (unsigned k = 2; k < 8; k++)
        put(keg, &store->state, k, 23 + k % 3);
    drop(keg, &store->state, 5);
    drop(keg, &store->state, 0);
    put(keg, &store->state, 9, 29);
    assert_int_equal(keg_hint(keg), 0);
    put(keg, &store->state, 10, 34);
    put(keg, &store->state, 2, 45);
    drop(keg, &store->state, 6);
    assert_int_equal(keg_close(keg), 0);
    assert_int_equal(damage_store_open(store->env, 0, &keg), 0);
    put(keg, &store->state, 11, 35);
    drop(keg, &store->state, 7);
    assert_int_equal(keg_close(keg), 0);
}

static int note(void *arg, const char *name)
{
    struct names *names = arg;

    assert_true(names->count < DAMAGE_STORE_FILES);
    snprintf(names->names[names->count++], ENV_NAME_MAX + 1, "%s", name);
    return 0;
}

struct names damage_store_list(struct keg_env *env)
{
    struct names names = {.count = 0};

    assert_int_equal(env_list(env, note, &names), 0);
    return names;
}

void damage_store_remove_hints(struct keg_env *env)
{
    struct names names = damage_store_list(env);

    for (size_t i = 0; i < names.count; i++) {
        if (strstr(names.names[i], ".hint"))
            assert_int_equal(env_remove(env, names.names[i]), 0);
    }
}

uint64_t damage_store_size(struct keg_env *env, const char *name)
{
    struct keg_file *file;
    uint64_t size;

    assert_int_equal(env_open(env, name, ENV_READ, &file), 0);
    assert_int_equal(env_size(file, &size), 0);
    env_close(file);
    return size;
}

void damage_store_copy_file(struct keg_env *from, struct keg_env *to, const char *name)
{
    uint8_t *data;
    size_t len;

    assert_int_equal(env_slurp(from, name, 1 << 24, &data, &len), 0);
    assert_int_equal(env_replace(to, name, data, len), 0);
    free(data);
}

struct keg_env *damage_store_clone(struct keg_env *env)
{
    struct names names = damage_store_list(env);
    struct keg_env *clone;

    assert_int_equal(env_fault(0, &clone), 0);
    for (size_t i = 0; i < names.count; i++)
        damage_store_copy_file(env, clone, names.names[i]);
    return clone;
}
