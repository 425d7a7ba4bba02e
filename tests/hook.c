/* SPDX-License-Identifier: MIT */
#include "hook.h"
#include <stdio.h>
#include <stdlib.h>

struct hook_file {
    struct keg_file file;
    struct keg_file *below;
    struct hook *hook;
    char name[ENV_NAME_MAX + 1];
};

static struct hook *hook_of(struct keg_env *env)
{
    return (struct hook *)env;
}

static struct hook_file *file_of(struct keg_file *file)
{
    return (struct hook_file *)file;
}

static int call(struct hook *hook, enum hook_op op, const char *name)
{
    return hook->fn ? hook->fn(hook->arg, op, name) : 0;
}

static int call_file(struct hook_file *file, enum hook_op op)
{
    return call(file->hook, op, file->name);
}

static int wrap(struct hook *hook, const char *name, int err, struct keg_file *below,
                struct keg_file **out)
{
    struct hook_file *file;

    if (err)
        return err;
    file = malloc(sizeof *file);
    if (!file)
        abort();
    file->file.ops = hook->env.ops;
    file->below = below;
    file->hook = hook;
    snprintf(file->name, sizeof file->name, "%s", name);
    *out = &file->file;
    return 0;
}

static int hook_create(struct keg_env *env, const char *name, struct keg_file **out)
{
    struct keg_file *below = NULL;
    int err = call(hook_of(env), HOOK_CREATE, name);

    if (!err)
        err = env_create(hook_of(env)->below, name, &below);
    return wrap(hook_of(env), name, err, below, out);
}

static int hook_open(struct keg_env *env, const char *name, enum env_how how, struct keg_file **out)
{
    struct keg_file *below = NULL;
    int err = call(hook_of(env), HOOK_OPEN, name);

    if (!err)
        err = env_open(hook_of(env)->below, name, how, &below);
    return wrap(hook_of(env), name, err, below, out);
}

static void hook_close(struct keg_file *f)
{
    env_close(file_of(f)->below);
    free(file_of(f));
}

static int hook_append(struct keg_file *f, uint64_t at, const struct iovec *iov, int count)
{
    int err = call_file(file_of(f), HOOK_APPEND);

    if (err >= 0) {
        int below = env_append(file_of(f)->below, at, iov, count);

        err = below ? below : -err;
    }
    return err;
}

static int hook_sync(struct keg_file *f)
{
    int err = call_file(file_of(f), HOOK_SYNC);

    if (!err)
        err = env_sync(file_of(f)->below);
    return err ? err : call_file(file_of(f), HOOK_SYNCED);
}

static int hook_seal(struct keg_file *f, uint64_t length)
{
    int err = call_file(file_of(f), HOOK_SEAL);

    return err ? err : env_seal(file_of(f)->below, length);
}

static ssize_t hook_read(struct keg_file *f, uint64_t offset, const struct iovec *iov, int count)
{
    struct hook_file *file = file_of(f);
    int err;

    if (file->hook->fn) {
        file->hook->read_at = offset;
        file->hook->read_len = 0;
        for (int i = 0; i < count; i++)
            file->hook->read_len += iov[i].iov_len;
    }
    err = call_file(file, HOOK_READ);

    return err ? err : env_readv(file->below, offset, iov, count);
}

static int hook_size(struct keg_file *f, uint64_t *size)
{
    return env_size(file_of(f)->below, size);
}

static int hook_publish(struct keg_env *env, const char *from, const char *to)
{
    int err = call(hook_of(env), HOOK_PUBLISH, to);

    return err ? err : env_publish(hook_of(env)->below, from, to);
}

static int hook_remove(struct keg_env *env, const char *name)
{
    int err = call(hook_of(env), HOOK_REMOVE, name);

    return err ? err : env_remove(hook_of(env)->below, name);
}

static int hook_sync_names(struct keg_env *env)
{
    int err = call(hook_of(env), HOOK_SYNC_NAMES, "");

    return err ? err : env_sync_names(hook_of(env)->below);
}

static int hook_list(struct keg_env *env, int (*fn)(void *arg, const char *name), void *arg)
{
    return env_list(hook_of(env)->below, fn, arg);
}

static int hook_lock(struct keg_env *env, const char *owner)
{
    return env_lock(hook_of(env)->below, owner);
}

static void hook_unlock(struct keg_env *env)
{
    env_unlock(hook_of(env)->below);
}

static int hook_holder(struct keg_env *env, char *text, size_t size)
{
    return keg_holder(hook_of(env)->below, text, size);
}

static int hook_space(struct keg_env *env, struct env_space *space)
{
    return env_space(hook_of(env)->below, space);
}

static uint64_t hook_clock(struct keg_env *env)
{
    return env_clock(hook_of(env)->below);
}

static int hook_random(struct keg_env *env, void *buf, size_t len)
{
    return env_random(hook_of(env)->below, buf, len);
}

void hook_init(struct hook *hook, struct keg_env *below)
{
    static const struct env_ops ops = {
        .create = hook_create,
        .open = hook_open,
        .close = hook_close,
        .append = hook_append,
        .sync = hook_sync,
        .seal = hook_seal,
        .read = hook_read,
        .size = hook_size,
        .publish = hook_publish,
        .remove = hook_remove,
        .sync_names = hook_sync_names,
        .list = hook_list,
        .lock = hook_lock,
        .unlock = hook_unlock,
        .holder = hook_holder,
        .space = hook_space,
        .clock = hook_clock,
        .random = hook_random,
    };

    *hook = (struct hook){.env.ops = &ops, .below = below};
}
