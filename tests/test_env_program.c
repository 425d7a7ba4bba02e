/* SPDX-License-Identifier: MIT */
/*
 * Random programs against the model of a disk, cut at a random operation: whatever env.h promises
 * of the bytes and names left must hold, in every run. For each name the test keeps the set of
 * files that it may stand for; for each file how many bytes are promised, and how many there can
 * be at most. A call in which the power goes widens these sets and promises nothing.
 */
#include "env_fault.h"
#include "random.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { NAMES = 4, NODES = 64, STEPS = 50, SIZE_MAX_ = 1 << 14, PROGRAMS = 4000 };

static const char *const names[NAMES] = {"a", "b", "c", "d"};

struct node {
    size_t synced, size; /* promised; visible */
    size_t most;         /* ever appended, perhaps by a call that failed */
};

struct program {
    struct keg_env *env;
    struct random dice;
    struct node nodes[NODES];
    int count;
    int now[NAMES];                  /* the node that a name stands for, -1: none */
    bool may[NAMES][NODES + 1];      /* after a cut; [0]: none, [i + 1]: node i */
    struct keg_file *handles[NAMES]; /* for appending to what it stands for */
    bool dead;
};

/* Byte i of node n: never zero, and hardly like another node's. */
static uint8_t byte_of(int n, size_t i)
{
    uint32_t x = (uint32_t)n * 2654435761u ^ (uint32_t)i * 2246822519u;

    return (uint8_t)((x >> 13 ^ x >> 21) | 1);
}

static void settle(struct program *program, int name)
{
    memset(program->may[name], 0, sizeof program->may[name]);
    program->may[name][program->now[name] + 1] = true;
}

/* What a call returned: whether it was done. The power goes in the first that fails. */
static bool done(struct program *program, int rc)
{
    if (rc) {
        assert_int_equal(rc, -EIO);
        assert_true(env_fault_struck(program->env));
        program->dead = true;
    }
    return !rc;
}

static void stand_for(struct program *program, int name, int node, bool visible)
{
    program->may[name][node + 1] = true;
    if (visible) {
        env_close(program->handles[name]);
        program->handles[name] = NULL;
        program->now[name] = node;
    }
}

static void step_create(struct program *program, int name)
{
    struct keg_file *file = NULL;
    int node = program->count++;
    bool ok = done(program, env_create(program->env, names[name], &file));

    program->nodes[node] = (struct node){0};
    stand_for(program, name, node, ok);
    program->handles[name] = file;
}

static void step_append(struct program *program, int name)
{
    struct node *node = &program->nodes[program->now[name]];
    size_t len = 1 + (size_t)random_width(&program->dice) % 3000;
    uint8_t bytes[3000];
    struct iovec iov[2] = {{bytes, len / 3}, {bytes + len / 3, len - len / 3}};

    if (node->size + len > SIZE_MAX_)
        return;
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_of(program->now[name], node->size + i);
    if (node->size + len > node->most)
        node->most = node->size + len;
    if (done(program, env_append(program->handles[name], node->size, iov, 2)))
        node->size += len;
}

static void step_sync(struct program *program, int name)
{
    struct node *node = &program->nodes[program->now[name]];

    if (done(program, env_sync(program->handles[name])))
        node->synced = node->size;
}

/* Cuts off at most what was never promised: the store seals no shorter than its frames. */
static void step_seal(struct program *program, int name)
{
    struct node *node = &program->nodes[program->now[name]];
    size_t length = node->synced + random_below(&program->dice, node->size - node->synced + 1);

    if (done(program, env_seal(program->handles[name], length)))
        node->synced = node->size = node->most = length;
}

static void step_remove(struct program *program, int name)
{
    stand_for(program, name, -1, done(program, env_remove(program->env, names[name])));
}

static void step_publish(struct program *program, int from, int to)
{
    int node = program->now[from];
    bool ok;

    if (from == to)
        return;
    ok = done(program, env_publish(program->env, names[from], names[to]));
    if (ok) {
        struct keg_file *file = program->handles[from];

        program->handles[from] = NULL;
        stand_for(program, to, node, true);
        stand_for(program, from, -1, true);
        program->handles[to] = file;
        settle(program, from);
        settle(program, to);
    } else {
        stand_for(program, to, node, false);
        stand_for(program, from, -1, false);
    }
}

static void step_sync_names(struct program *program)
{
    if (done(program, env_sync_names(program->env)))
        for (int i = 0; i < NAMES; i++)
            settle(program, i);
}

/* What is visible is exactly what was written. */
static void step_read(struct program *program, int name)
{
    struct node *node = &program->nodes[program->now[name]];
    static uint8_t buf[SIZE_MAX_ + 1];
    ssize_t n = env_read(program->handles[name], 0, buf, sizeof buf);

    if (!done(program, n < 0 ? (int)n : 0))
        return;
    assert_int_equal(n, node->size);
    for (size_t i = 0; i < node->size; i++)
        assert_int_equal(buf[i], byte_of(program->now[name], i));
}

static void step(struct program *program)
{
    int name = (int)random_below(&program->dice, NAMES);
    uint64_t what = random_below(&program->dice, 16);

    if (what == 0) {
        step_sync_names(program);
    } else if (program->now[name] < 0) {
        if (program->count < NODES)
            step_create(program, name);
    } else if (what < 7) {
        step_append(program, name);
    } else if (what < 10) {
        step_sync(program, name);
    } else if (what < 12) {
        step_read(program, name);
    } else if (what < 13) {
        step_seal(program, name);
    } else if (what < 14) {
        step_remove(program, name);
    } else {
        step_publish(program, name, (int)random_below(&program->dice, NAMES));
    }
}

/* Whether the bytes found can be that node's. */
static bool fits(const struct program *program, int n, const uint8_t *bytes, size_t size)
{
    const struct node *node = &program->nodes[n];

    if (size < node->synced || size > node->most)
        return false;
    for (size_t i = 0; i < node->synced; i++)
        if (bytes[i] != byte_of(n, i))
            return false;
    return true;
}

/* Returns the size found, -1 for no file. */
static ssize_t check_name(struct program *program, int name, uint8_t *buf)
{
    struct keg_file *file;
    bool allowed = false;
    ssize_t n;
    int rc = env_open(program->env, names[name], ENV_UNCACHED, &file);

    if (rc == -ENOENT) {
        assert_true(program->may[name][0]);
        return -1;
    }
    assert_int_equal(rc, 0);
    n = env_read(file, 0, buf, SIZE_MAX_ + 1);
    env_close(file);
    assert_true(n >= 0);
    for (int i = 0; !allowed && i < program->count; i++)
        allowed = program->may[name][i + 1] && fits(program, i, buf, (size_t)n);
    assert_true(allowed);
    return n;
}

/* Returns the bytes lost. */
static uint64_t run(uint64_t seed)
{
    static uint8_t before[NAMES][SIZE_MAX_ + 1], after[SIZE_MAX_ + 1];
    struct program program = {.dice = {seed}};
    ssize_t sizes[NAMES];
    uint64_t lost;

    assert_int_equal(env_fault(0, &program.env), 0);
    for (int i = 0; i < NAMES; i++) {
        program.now[i] = -1;
        settle(&program, i);
    }
    env_fault_set(program.env,
                  &(struct env_fault_plan){.kind = ENV_FAULT_CUT,
                                           .at = 1 + random_below(&program.dice, STEPS),
                                           .seed = random_next(&program.dice)});
    for (int i = 0; i < STEPS && !program.dead; i++)
        step(&program);
    for (int i = 0; i < NAMES; i++)
        env_close(program.handles[i]);
    assert_int_equal(env_fault_open_files(program.env), 0);
    lost = env_fault_restart(program.env);
    for (int i = 0; i < NAMES; i++)
        sizes[i] = check_name(&program, i, before[i]);
    /* What a cut left is durable. */
    assert_int_equal(env_fault_restart(program.env), 0);
    for (int i = 0; i < NAMES; i++) {
        assert_int_equal(check_name(&program, i, after), sizes[i]);
        if (sizes[i] > 0)
            assert_memory_equal(after, before[i], (size_t)sizes[i]);
    }
    keg_env_free(program.env);
    return lost;
}

static void test_programs(void **state)
{
    struct random seeds = random_seeded();
    unsigned lossy = 0;

    (void)state;
    for (int i = 0; i < PROGRAMS; i++) {
        uint64_t seed = seeds.state, lost = run(seed);

        lossy += lost > 0;
        if (i % 8 == 0)
            assert_int_equal(run(seed), lost); /* the same seed, the same faults */
        random_next(&seeds);
    }
    /* A crash test must crash something. */
    assert_true(lossy > PROGRAMS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_programs)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
