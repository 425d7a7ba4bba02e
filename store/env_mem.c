/* SPDX-License-Identifier: MIT */
/*
 * Files in memory, for tests and benchmarks. One mutex guards everything. A removed or replaced
 * file lives, and counts against the capacity, until its last handle is closed, as on POSIX.
 */
#include "env.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mem_node {
    struct mem_node *next; /* in the directory */
    unsigned references;   /* handles, and one for its name */
    uint8_t *bytes;
    size_t size, capacity;
    char name[ENV_NAME_MAX + 1];
};

struct mem_env {
    struct keg_env env;
    pthread_mutex_t mutex; /* for all below */
    struct mem_node *names;
    uint64_t used, limit; /* bytes of files; limit 0: none */
    uint64_t now, dice;
    bool locked;
    char owner[256];
};

struct mem_file {
    struct keg_file file;
    struct mem_env *env;
    struct mem_node *node;
    bool writable;
};

static const struct env_ops mem_ops;

static struct mem_env *env_of(struct keg_env *env)
{
    return (struct mem_env *)env;
}

static struct mem_file *file_of(struct keg_file *file)
{
    return (struct mem_file *)file;
}

/* The link that points at the node of that name, or at NULL at the list's end. */
static struct mem_node **find(struct mem_env *env, const char *name)
{
    struct mem_node **link = &env->names;

    while (*link && strcmp((*link)->name, name) != 0)
        link = &(*link)->next;
    return link;
}

static void drop(struct mem_env *env, struct mem_node *node)
{
    if (--node->references)
        return;
    env->used -= node->size;
    free(node->bytes);
    free(node);
}

static void unlink_node(struct mem_env *env, struct mem_node **link)
{
    struct mem_node *node = *link;

    *link = node->next;
    drop(env, node);
}

static int handle(struct mem_env *env, struct mem_node *node, bool writable, struct keg_file **out)
{
    struct mem_file *file = malloc(sizeof *file);

    if (!file)
        return -ENOMEM;
    *file = (struct mem_file){.file.ops = &mem_ops, .env = env, .node = node, .writable = writable};
    node->references++;
    *out = &file->file;
    return 0;
}

static int create_locked(struct mem_env *env, const char *name, struct keg_file **out)
{
    struct mem_node *node;
    int rc;

    if (*find(env, name))
        return -EEXIST;
    if (env->limit && env->used >= env->limit)
        return -ENOSPC;
    node = calloc(1, sizeof *node);
    if (!node)
        return -ENOMEM;
    rc = handle(env, node, true, out);
    if (rc) {
        free(node);
        return rc;
    }
    snprintf(node->name, sizeof node->name, "%s", name);
    node->references++;
    node->next = env->names;
    env->names = node;
    return 0;
}

static int mem_create(struct keg_env *e, const char *name, struct keg_file **out)
{
    struct mem_env *env = env_of(e);
    int rc;

    if (!env_name_ok(name))
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    rc = create_locked(env, name, out);
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static int mem_open(struct keg_env *e, const char *name, enum env_how how, struct keg_file **out)
{
    struct mem_env *env = env_of(e);
    struct mem_node *node;
    int rc;

    if (!env_name_ok(name))
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    node = *find(env, name);
    rc = node ? handle(env, node, how == ENV_APPEND, out) : -ENOENT;
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static void mem_close(struct keg_file *f)
{
    struct mem_file *file = file_of(f);
    struct mem_env *env = file->env;

    pthread_mutex_lock(&env->mutex);
    drop(env, file->node);
    pthread_mutex_unlock(&env->mutex);
    free(file);
}

/* Makes room for size bytes; new ones are zero. -ENOMEM. */
static int grow(struct mem_env *env, struct mem_node *node, size_t size)
{
    if (size > node->capacity) {
        size_t capacity = size > SIZE_MAX / 2 ? size : size + size / 2;
        uint8_t *bytes = realloc(node->bytes, capacity);

        if (!bytes)
            return -ENOMEM;
        node->bytes = bytes;
        node->capacity = capacity;
    }
    if (size > node->size) {
        memset(node->bytes + node->size, 0, size - node->size);
        env->used += size - node->size;
        node->size = size;
    }
    return 0;
}

/* How many of len bytes at `at` fit in the capacity. */
static size_t fitting(const struct mem_env *env, const struct mem_node *node, uint64_t at,
                      size_t len)
{
    uint64_t room = env->limit > env->used ? env->limit - env->used : 0;
    uint64_t end = node->size + room;

    if (!env->limit || at + len <= end)
        return len;
    return at < end ? (size_t)(end - at) : 0;
}

static int append_locked(struct mem_file *file, uint64_t at, const struct iovec *iov, int count)
{
    for (int i = 0; i < count; i++) {
        size_t want = iov[i].iov_len, len;
        int rc;

        if (want == 0)
            continue;
        if (at > SIZE_MAX / 2 - want)
            return -EFBIG;
        len = fitting(file->env, file->node, at, want);
        rc = len ? grow(file->env, file->node, (size_t)at + len) : 0;
        if (rc)
            return rc;
        if (len)
            memcpy(file->node->bytes + at, iov[i].iov_base, len);
        if (len < want)
            return -ENOSPC;
        at += len;
    }
    return 0;
}

static int mem_append(struct keg_file *f, uint64_t at, const struct iovec *iov, int count)
{
    struct mem_file *file = file_of(f);
    int rc;

    if (!file->writable)
        return -EBADF;
    pthread_mutex_lock(&file->env->mutex);
    rc = append_locked(file, at, iov, count);
    pthread_mutex_unlock(&file->env->mutex);
    return rc;
}

static int mem_sync(struct keg_file *f)
{
    (void)f;
    return 0;
}

static int mem_seal(struct keg_file *f, uint64_t length)
{
    struct mem_file *file = file_of(f);
    int rc = 0;

    if (!file->writable)
        return -EINVAL;
    pthread_mutex_lock(&file->env->mutex);
    if (length > file->node->size) {
        rc = -EINVAL;
    } else {
        file->env->used -= file->node->size - length;
        file->node->size = (size_t)length;
    }
    pthread_mutex_unlock(&file->env->mutex);
    return rc;
}

static ssize_t mem_read(struct keg_file *f, uint64_t offset, const struct iovec *iov, int count)
{
    struct mem_file *file = file_of(f);
    size_t done = 0;

    pthread_mutex_lock(&file->env->mutex);
    for (int i = 0; i < count && offset < file->node->size; i++) {
        size_t left = file->node->size - (size_t)offset;
        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;

        if (n)
            memcpy(iov[i].iov_base, file->node->bytes + offset, n);
        offset += n;
        done += n;
    }
    pthread_mutex_unlock(&file->env->mutex);
    return (ssize_t)done;
}

static int mem_size(struct keg_file *f, uint64_t *size)
{
    struct mem_file *file = file_of(f);

    pthread_mutex_lock(&file->env->mutex);
    *size = file->node->size;
    pthread_mutex_unlock(&file->env->mutex);
    return 0;
}

static int mem_publish(struct keg_env *e, const char *from, const char *to)
{
    struct mem_env *env = env_of(e);
    struct mem_node *node;

    if (!env_name_ok(from) || !env_name_ok(to))
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    node = *find(env, from);
    if (node && strcmp(from, to) != 0) {
        struct mem_node **old = find(env, to);

        if (*old)
            unlink_node(env, old);
        snprintf(node->name, sizeof node->name, "%s", to);
    }
    pthread_mutex_unlock(&env->mutex);
    return node ? 0 : -ENOENT;
}

static int mem_remove(struct keg_env *e, const char *name)
{
    struct mem_env *env = env_of(e);
    struct mem_node **link;
    int rc = -ENOENT;

    if (!env_name_ok(name))
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    link = find(env, name);
    if (*link) {
        unlink_node(env, link);
        rc = 0;
    }
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static int mem_sync_names(struct keg_env *e)
{
    (void)e;
    return 0;
}

/* On a copy of the names, so that fn may change the directory. */
static int mem_list(struct keg_env *e, int (*fn)(void *arg, const char *name), void *arg)
{
    struct mem_env *env = env_of(e);
    char(*names)[ENV_NAME_MAX + 1];
    size_t count = 0, i = 0;
    int rc = 0;

    pthread_mutex_lock(&env->mutex);
    for (struct mem_node *node = env->names; node; node = node->next)
        count++;
    names = calloc(count ? count : 1, sizeof *names);
    for (struct mem_node *node = env->names; names && node; node = node->next)
        memcpy(names[i++], node->name, sizeof node->name);
    pthread_mutex_unlock(&env->mutex);
    if (!names)
        return -ENOMEM;
    for (i = 0; !rc && i < count; i++)
        rc = fn(arg, names[i]);
    free(names);
    return rc;
}

static int mem_lock(struct keg_env *e, const char *owner)
{
    struct mem_env *env = env_of(e);
    const char *name = owner && *owner ? owner : "-";
    int rc = -EBUSY;

    pthread_mutex_lock(&env->mutex);
    if (!env->locked) {
        env->locked = true;
        snprintf(env->owner, sizeof env->owner, "1 %.*s", (int)strcspn(name, "\n"), name);
        rc = 0;
    }
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static void mem_unlock(struct keg_env *e)
{
    struct mem_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    env->locked = false;
    pthread_mutex_unlock(&env->mutex);
}

static int mem_holder(struct keg_env *e, char *text, size_t size)
{
    struct mem_env *env = env_of(e);
    int rc = -ENOENT;

    pthread_mutex_lock(&env->mutex);
    if (env->locked) {
        snprintf(text, size, "%s", env->owner);
        rc = 0;
    }
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static int mem_space(struct keg_env *e, struct env_space *space)
{
    struct mem_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    space->total = env->limit ? env->limit : (uint64_t)1 << 50;
    space->free = space->total > env->used ? space->total - env->used : 0;
    pthread_mutex_unlock(&env->mutex);
    return 0;
}

static uint64_t mem_clock(struct keg_env *e)
{
    struct mem_env *env = env_of(e);
    uint64_t now;

    pthread_mutex_lock(&env->mutex);
    now = env->now += 1000;
    pthread_mutex_unlock(&env->mutex);
    return now;
}

/* Different for each environment of a process and the same in each run. */
static int mem_random(struct keg_env *e, void *buf, size_t len)
{
    struct mem_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    for (size_t i = 0; i < len; i++) {
        env->dice = env->dice * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)buf)[i] = (uint8_t)(env->dice >> 56);
    }
    pthread_mutex_unlock(&env->mutex);
    return 0;
}

static void mem_destroy(struct keg_env *e)
{
    struct mem_env *env = env_of(e);

    while (env->names)
        unlink_node(env, &env->names);
    pthread_mutex_destroy(&env->mutex);
    free(env);
}

static const struct env_ops mem_ops = {
    .destroy = mem_destroy,
    .create = mem_create,
    .open = mem_open,
    .close = mem_close,
    .append = mem_append,
    .sync = mem_sync,
    .seal = mem_seal,
    .read = mem_read,
    .size = mem_size,
    .publish = mem_publish,
    .remove = mem_remove,
    .sync_names = mem_sync_names,
    .list = mem_list,
    .lock = mem_lock,
    .unlock = mem_unlock,
    .holder = mem_holder,
    .space = mem_space,
    .clock = mem_clock,
    .random = mem_random,
};

int env_mem(uint64_t capacity, struct keg_env **out)
{
    static _Atomic uint64_t count;
    struct mem_env *env = calloc(1, sizeof *env);
    int rc;

    if (!env)
        return -ENOMEM;
    env->env.ops = &mem_ops;
    env->limit = capacity;
    env->dice = atomic_fetch_add(&count, 1);
    rc = -pthread_mutex_init(&env->mutex, NULL);
    if (rc) {
        free(env);
        return rc;
    }
    *out = &env->env;
    return 0;
}
