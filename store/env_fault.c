/* SPDX-License-Identifier: MIT */
/*
 * The environment of faultdisk.h, with a plan of what fails. Each operation takes the mutex and
 * asks judge() whether it succeeds; a failing one then does as much of its work as the dice say,
 * because callers must cope with all of that. The rejected way, to fail before doing anything,
 * finds no bug in what a caller does after a half-done operation.
 */
#include "env_fault.h"
#include "faultdisk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fault_env {
    struct keg_env env;
    pthread_mutex_t mutex; /* for all below; what is atomic may be read without it */
    struct faultdisk disk;
    struct env_fault_plan plan;
    atomic_uint_least64_t operations; /* since the plan was set */
    uint64_t dice;                    /* what a failing operation does */
    uint64_t randomness;              /* for env_random */
    uint64_t now;                     /* ns */
    atomic_uint open_files;
    atomic_bool struck;
    bool dead;         /* the power is off */
    bool names_failed; /* a sync of the directory has failed */
    bool locked;
    char owner[256];
};

struct fault_file {
    struct keg_file file;
    struct fault_env *env;
    struct faultdisk_node *node;
    enum env_how how;
};

static const struct env_ops fault_ops;

static struct fault_env *env_of(struct keg_env *env)
{
    return (struct fault_env *)env;
}

static struct fault_file *file_of(struct keg_file *file)
{
    return (struct fault_file *)file;
}

/* ---- What fails ---- */

enum outcome {
    GOES_ON, /* it succeeds */
    FAILS,
    FULL, /* there is no space; only an append gets anywhere */
    CUT,  /* the power goes during it */
    OFF,  /* the power is off: it does nothing */
};

/* Counts an operation and gives the outcome; *rc is what it must return, 0 if it goes on. */
static enum outcome judge(struct fault_env *env, bool takes_space, int *rc)
{
    const struct env_fault_plan *plan = &env->plan;
    bool due;

    *rc = -EIO;
    if (env->dead)
        return OFF;
    env->operations++;
    due = env->operations == plan->at || (plan->forever && env->operations > plan->at);
    if (plan->kind == ENV_FAULT_NONE || !due || (plan->kind == ENV_FAULT_ENOSPC && !takes_space)) {
        *rc = 0;
        return GOES_ON;
    }
    env->struck = true;
    if (plan->kind == ENV_FAULT_ENOSPC) {
        *rc = -ENOSPC;
        return FULL;
    }
    env->dead = plan->kind == ENV_FAULT_CUT;
    return env->dead ? CUT : FAILS;
}

static uint64_t roll(struct fault_env *env, uint64_t sides)
{
    return faultdisk_dice(&env->dice) % sides;
}

/* Whether an operation does its work: always if it goes on, perhaps if it fails on the way. */
static bool does_it(struct fault_env *env, enum outcome outcome)
{
    return outcome == GOES_ON || ((outcome == FAILS || outcome == CUT) && roll(env, 2));
}

/* For operations that have no halves: locks; the caller unlocks. */
static int begin(struct fault_env *env)
{
    int rc;

    pthread_mutex_lock(&env->mutex);
    judge(env, false, &rc);
    return rc;
}

/* ---- Files ---- */

static int handle(struct fault_env *env, struct faultdisk_node *node, enum env_how how,
                  struct keg_file **out)
{
    struct fault_file *file = malloc(sizeof *file);

    if (!file)
        return -ENOMEM;
    *file = (struct fault_file){.file.ops = &fault_ops, .env = env, .node = node, .how = how};
    faultdisk_hold(node);
    env->open_files++;
    *out = &file->file;
    return 0;
}

static int fault_create(struct keg_env *e, const char *name, struct keg_file **out)
{
    struct fault_env *env = env_of(e);
    struct faultdisk_node *node = NULL;
    int rc, made = 0;

    if (!env_name_ok(name))
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    if (does_it(env, judge(env, true, &rc)))
        made = faultdisk_create(&env->disk, name, &node);
    if (!rc)
        rc = made ? made : handle(env, node, ENV_APPEND, out);
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static int fault_open(struct keg_env *e, const char *name, enum env_how how, struct keg_file **out)
{
    struct fault_env *env = env_of(e);
    struct faultdisk_node *node;
    int rc;

    if (!env_name_ok(name))
        return -EINVAL;
    rc = begin(env);
    if (!rc) {
        node = faultdisk_find(&env->disk, name);
        rc = node ? handle(env, node, how, out) : -ENOENT;
    }
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static void fault_close(struct keg_file *f)
{
    struct fault_file *file = file_of(f);
    struct fault_env *env = file->env;

    pthread_mutex_lock(&env->mutex);
    faultdisk_release(&env->disk, file->node);
    env->open_files--;
    pthread_mutex_unlock(&env->mutex);
    free(file);
}

/* Writes the first `limit` bytes of iov. */
static int append_locked(struct fault_file *file, uint64_t at, const struct iovec *iov, int count,
                         size_t limit)
{
    int rc = 0;

    for (int i = 0; !rc && limit && i < count; i++) {
        size_t len = iov[i].iov_len < limit ? iov[i].iov_len : limit;

        rc = faultdisk_write(&file->env->disk, file->node, at, iov[i].iov_base, len);
        at += len;
        limit -= len;
    }
    return rc;
}

static int fault_append(struct keg_file *f, uint64_t at, const struct iovec *iov, int count)
{
    struct fault_file *file = file_of(f);
    struct fault_env *env = file->env;
    enum outcome outcome;
    size_t total = 0;
    int rc, wrote;

    if (file->how != ENV_APPEND)
        return -EBADF;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    pthread_mutex_lock(&env->mutex);
    outcome = judge(env, true, &rc);
    if (outcome == OFF)
        total = 0;
    else if (outcome != GOES_ON)
        total = (size_t)roll(env, total + 1);
    wrote = append_locked(file, at, iov, count, total);
    pthread_mutex_unlock(&env->mutex);
    return rc ? rc : wrote;
}

/* With the mutex held. */
static void sync_as(struct fault_file *file, enum outcome outcome)
{
    struct fault_env *env = file->env;

    if (outcome == GOES_ON || (outcome == CUT && roll(env, 2)))
        faultdisk_sync(file->node);
    else if (outcome == FAILS)
        faultdisk_sync_failed(file->node, &env->dice);
}

static int fault_sync(struct keg_file *f)
{
    struct fault_file *file = file_of(f);
    int rc;

    pthread_mutex_lock(&file->env->mutex);
    sync_as(file, judge(file->env, false, &rc));
    pthread_mutex_unlock(&file->env->mutex);
    return rc;
}

static int fault_seal(struct keg_file *f, uint64_t length)
{
    struct fault_file *file = file_of(f);
    struct fault_env *env = file->env;
    enum outcome outcome;
    int rc, cut = 0;

    if (file->how != ENV_APPEND)
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    outcome = judge(env, false, &rc);
    if (does_it(env, outcome))
        cut = faultdisk_truncate(&env->disk, file->node, length);
    if (!cut)
        sync_as(file, outcome);
    pthread_mutex_unlock(&env->mutex);
    return rc ? rc : cut;
}

static ssize_t fault_read(struct keg_file *f, uint64_t offset, const struct iovec *iov, int count)
{
    struct fault_file *file = file_of(f);
    int rc = begin(file->env);
    size_t done = 0;

    for (int i = 0; i < count; i++) {
        if (!rc)
            done += faultdisk_read(file->node, offset + done, iov[i].iov_base, iov[i].iov_len,
                                   file->how == ENV_UNCACHED);
        else if (iov[i].iov_len)
            memset(iov[i].iov_base, 0xdb, iov[i].iov_len);
    }
    pthread_mutex_unlock(&file->env->mutex);
    return rc ? rc : (ssize_t)done;
}

static int fault_size(struct keg_file *f, uint64_t *size)
{
    struct fault_file *file = file_of(f);
    int rc = begin(file->env);

    if (!rc)
        *size = faultdisk_size(file->node);
    pthread_mutex_unlock(&file->env->mutex);
    return rc;
}

/* ---- Names ---- */

/* With the mutex held. */
static void names_fail(struct fault_env *env)
{
    faultdisk_sync_names_failed(&env->disk, &env->dice);
    env->names_failed = true;
}

/* One that fails may have been done in sight but not on the disk; one cut off is done or not. */
static int fault_publish(struct keg_env *e, const char *from, const char *to)
{
    struct fault_env *env = env_of(e);
    enum outcome outcome;
    int rc, done = 0;

    if (!env_name_ok(from) || !env_name_ok(to))
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    outcome = judge(env, true, &rc);
    if (env->names_failed)
        rc = -EIO;
    else if (does_it(env, outcome)) {
        done = faultdisk_rename(&env->disk, from, to, outcome != FAILS);
        if (!done && outcome == FAILS)
            names_fail(env);
    }
    pthread_mutex_unlock(&env->mutex);
    return rc ? rc : done;
}

static int fault_remove(struct keg_env *e, const char *name)
{
    struct fault_env *env = env_of(e);
    int rc, done = 0;

    if (!env_name_ok(name))
        return -EINVAL;
    pthread_mutex_lock(&env->mutex);
    if (does_it(env, judge(env, false, &rc)))
        done = faultdisk_remove(&env->disk, name);
    pthread_mutex_unlock(&env->mutex);
    return rc ? rc : done;
}

static int fault_sync_names(struct keg_env *e)
{
    struct fault_env *env = env_of(e);
    enum outcome outcome;
    int rc;

    pthread_mutex_lock(&env->mutex);
    outcome = judge(env, false, &rc);
    if (env->names_failed)
        rc = -EIO;
    else if (outcome == FAILS)
        names_fail(env);
    else if (does_it(env, outcome))
        faultdisk_sync_names(&env->disk);
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

/* The visible names, packed one behind the other; NULL: no memory. With the mutex held. */
static char (*copy_names(struct fault_env *env, size_t *count))[ENV_NAME_MAX + 1]
{
    char(*names)[ENV_NAME_MAX + 1];
    const char *name;

    for (*count = 0; faultdisk_name_at(&env->disk, *count); ++*count)
        ;
    names = calloc(*count ? *count : 1, sizeof *names);
    for (size_t i = 0; names && (name = faultdisk_name_at(&env->disk, i)); i++)
        snprintf(names[i], sizeof names[i], "%s", name);
    return names;
}

/* On a copy, so that fn may change the directory. */
static int fault_list(struct keg_env *e, int (*fn)(void *arg, const char *name), void *arg)
{
    struct fault_env *env = env_of(e);
    char(*names)[ENV_NAME_MAX + 1];
    enum outcome outcome;
    size_t count;
    int rc, stop = 0;

    pthread_mutex_lock(&env->mutex);
    outcome = judge(env, false, &rc);
    names = copy_names(env, &count);
    if (outcome == OFF)
        count = 0;
    else if (outcome != GOES_ON)
        count = (size_t)roll(env, count + 1);
    pthread_mutex_unlock(&env->mutex);
    if (!names)
        return -ENOMEM;
    for (size_t i = 0; !stop && i < count; i++)
        stop = fn(arg, names[i]);
    free(names);
    return stop ? stop : rc;
}

/* ---- The rest ---- */

static int fault_lock(struct keg_env *e, const char *owner)
{
    struct fault_env *env = env_of(e);
    const char *name = owner && *owner ? owner : "-";
    int rc = begin(env);

    if (!rc && env->locked)
        rc = -EBUSY;
    if (!rc) {
        env->locked = true;
        snprintf(env->owner, sizeof env->owner, "1 %.*s", (int)strcspn(name, "\n"), name);
    }
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static void fault_unlock(struct keg_env *e)
{
    struct fault_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    env->locked = false;
    pthread_mutex_unlock(&env->mutex);
}

static int fault_holder(struct keg_env *e, char *text, size_t size)
{
    struct fault_env *env = env_of(e);
    int rc = -ENOENT;

    pthread_mutex_lock(&env->mutex);
    if (env->locked) {
        snprintf(text, size, "%s", env->owner);
        rc = 0;
    }
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static int fault_space(struct keg_env *e, struct env_space *space)
{
    struct fault_env *env = env_of(e);
    int rc = begin(env);

    if (!rc) {
        space->total = env->disk.limit ? env->disk.limit : (uint64_t)1 << 50;
        space->free = space->total > env->disk.used ? space->total - env->disk.used : 0;
    }
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

static uint64_t fault_clock(struct keg_env *e)
{
    struct fault_env *env = env_of(e);
    uint64_t now;

    pthread_mutex_lock(&env->mutex);
    now = env->now += 1000;
    pthread_mutex_unlock(&env->mutex);
    return now;
}

static int fault_random(struct keg_env *e, void *buf, size_t len)
{
    struct fault_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)faultdisk_dice(&env->randomness);
    pthread_mutex_unlock(&env->mutex);
    return 0;
}

static void fault_destroy(struct keg_env *e)
{
    struct fault_env *env = env_of(e);

    assert(env->open_files == 0);
    faultdisk_clear(&env->disk);
    pthread_mutex_destroy(&env->mutex);
    free(env);
}

static const struct env_ops fault_ops = {
    .destroy = fault_destroy,
    .create = fault_create,
    .open = fault_open,
    .close = fault_close,
    .append = fault_append,
    .sync = fault_sync,
    .seal = fault_seal,
    .read = fault_read,
    .size = fault_size,
    .publish = fault_publish,
    .remove = fault_remove,
    .sync_names = fault_sync_names,
    .list = fault_list,
    .lock = fault_lock,
    .unlock = fault_unlock,
    .holder = fault_holder,
    .space = fault_space,
    .clock = fault_clock,
    .random = fault_random,
};

/* ---- For tests ---- */

int env_fault(uint64_t capacity, struct keg_env **out)
{
    struct fault_env *env = calloc(1, sizeof *env);
    int rc;

    if (!env)
        return -ENOMEM;
    env->env.ops = &fault_ops;
    env->disk.limit = capacity;
    rc = -pthread_mutex_init(&env->mutex, NULL);
    if (rc) {
        free(env);
        return rc;
    }
    *out = &env->env;
    return 0;
}

void env_fault_set(struct keg_env *e, const struct env_fault_plan *plan)
{
    struct fault_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    env->plan = plan ? *plan : (struct env_fault_plan){.kind = ENV_FAULT_NONE};
    env->dice = env->plan.seed;
    env->operations = 0;
    env->struck = false;
    pthread_mutex_unlock(&env->mutex);
}

uint64_t env_fault_operations(struct keg_env *e)
{
    return atomic_load(&env_of(e)->operations);
}

bool env_fault_struck(struct keg_env *e)
{
    return atomic_load(&env_of(e)->struck);
}

unsigned env_fault_open_files(struct keg_env *e)
{
    return atomic_load(&env_of(e)->open_files);
}

static void come_back(struct fault_env *env)
{
    env->plan.kind = ENV_FAULT_NONE;
    env->dead = false;
    env->names_failed = false;
    env->locked = false;
}

uint64_t env_fault_restart(struct keg_env *e)
{
    struct fault_env *env = env_of(e);
    uint64_t lost, dice;

    pthread_mutex_lock(&env->mutex);
    assert(env->open_files == 0);
    dice = env->plan.seed ^ 0x5ca1ab1e; /* whatever the operation before took from env->dice */
    lost = faultdisk_cut(&env->disk, &dice);
    come_back(env);
    pthread_mutex_unlock(&env->mutex);
    return lost;
}

void env_fault_revive(struct keg_env *e)
{
    struct fault_env *env = env_of(e);

    pthread_mutex_lock(&env->mutex);
    assert(env->open_files == 0);
    come_back(env);
    pthread_mutex_unlock(&env->mutex);
}

int env_fault_flip(struct keg_env *e, const char *name, uint64_t offset, uint8_t mask)
{
    struct fault_env *env = env_of(e);
    struct faultdisk_node *node;
    int rc;

    pthread_mutex_lock(&env->mutex);
    node = faultdisk_find(&env->disk, name);
    rc = node ? faultdisk_flip(node, offset, mask) : -ENOENT;
    pthread_mutex_unlock(&env->mutex);
    return rc;
}

int env_fault_truncate(struct keg_env *e, const char *name, uint64_t length)
{
    struct fault_env *env = env_of(e);
    struct faultdisk_node *node;
    int rc;

    pthread_mutex_lock(&env->mutex);
    node = faultdisk_find(&env->disk, name);
    rc = node ? faultdisk_truncate(&env->disk, node, length) : -ENOENT;
    if (!rc)
        faultdisk_sync(node);
    pthread_mutex_unlock(&env->mutex);
    return rc;
}
