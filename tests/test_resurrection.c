/* SPDX-License-Identifier: MIT */
/*
 * Deleted stays deleted, and what was overwritten stays so: random puts, deletes and batches
 * against an array, while any subset of the segments is compacted (the policy is replaced by dice),
 * changes fall into the midst of compactions, the clock jumps, and the store is opened again with
 * hints that are lost, or older ones, or another segment's. After it the bugs of this kind that
 * Bitcask had, each by its name.
 *
 * TEST_STEPS=N operations, TEST_SEED=N replays.
 */
#include "env.h"
#include "gate.h"
#include "hintfile.h"
#include "output.h"
#include "policy.h"
#include "random.h"
#include "sanitized.h"
#include "store.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { KEYS = 400, STEPS = SANITIZED ? 100000 : 2000000, SAVED = 16, VALUE_MAX = 400 };

struct saved {
    char name[ENV_NAME_MAX + 1];
    uint8_t *data;
    size_t len;
};

static struct {
    struct keg_env *env;
    struct env_ops ops; /* the environment's, but for the clock */
    struct keg *keg;
    struct random random;
    uint32_t values[KEYS]; /* 0: not there */
    uint32_t next;
    struct saved saved[SAVED];
    bool dice;      /* segments to compact are chosen by dice, not by rank */
    unsigned ranks; /* a bit for each usable segment, in the order of the manifest */
    void (*meanwhile)(void);
    bool busy;
    uint64_t compacted;
} t;

static uint64_t below(uint64_t bound)
{
    return random_below(&t.random, bound);
}

/* ---- What stands between compaction and the rest ---- */

size_t __wrap_policy_choose(const struct policy_segment *segments, size_t count, uint64_t size,
                            enum policy_mode mode, uint64_t active_bytes, uint64_t active_live,
                            uint64_t room, size_t *chosen);
int __real_output_add(struct output *output, const struct hint_entry *entry, struct keg_file *from);
int __wrap_output_add(struct output *output, const struct hint_entry *entry, struct keg_file *from);
int __real_output_finish(struct output *output);
int __wrap_output_finish(struct output *output);

size_t __wrap_policy_choose(const struct policy_segment *segments, size_t count, uint64_t size,
                            enum policy_mode mode, uint64_t active_bytes, uint64_t active_live,
                            uint64_t room, size_t *chosen)
{
    uint64_t odds = t.dice ? 1 + below(4) : 0;
    size_t n = 0;

    (void)size, (void)mode, (void)active_bytes, (void)active_live, (void)room;
    for (size_t i = 0, rank = 0; i < count && n < POLICY_GROUP_MAX; i++) {
        if (segments[i].usable && (t.dice ? below(odds) == 0 : t.ranks >> rank & 1))
            chosen[n++] = i;
        rank += segments[i].usable;
    }
    t.compacted += n;
    t.ranks = 0;
    return n;
}

static void let_others_in(void)
{
    if (!t.meanwhile || t.busy)
        return;
    t.busy = true;
    t.meanwhile();
    t.busy = false;
}

int __wrap_output_add(struct output *output, const struct hint_entry *entry, struct keg_file *from)
{
    int err = __real_output_add(output, entry, from);

    let_others_in();
    return err;
}

int __wrap_output_finish(struct output *output)
{
    int err = __real_output_finish(output);

    let_others_in();
    return err;
}

static uint64_t jumping_clock(struct keg_env *env)
{
    (void)env;
    return random_width(&t.random);
}

/* ---- The store and the array ---- */

static struct keg_bytes key_of(unsigned k, char *buf)
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 24, "%u is a key", k * 7919 % 10007)};
}

static struct keg_bytes value_of(uint32_t v, uint8_t *buf)
{
    size_t len = v % 13 ? v * 31 % VALUE_MAX : 0;

    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(v * 17 + i * 5);
    return (struct keg_bytes){buf, len};
}

static int open_keg(void)
{
    const struct keg_options options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND,
                                        .segment_size = 64 << 10};
    return keg_open(t.env, &options, &t.keg);
}

static void expect(unsigned k)
{
    uint8_t want[VALUE_MAX], got[VALUE_MAX + 1];
    struct keg_info info;
    uint32_t v = 0;
    char buf[24];
    int err = keg_get(t.keg, key_of(k, buf), &info);

    if (!err)
        memcpy(&v, info.meta, sizeof v);
    if (v != t.values[k])
        print_error("key %u has value %u and not %u\n", k, v, t.values[k]);
    assert_int_equal(v, t.values[k]);
    if (!v)
        return;
    struct keg_bytes value = value_of(v, want);
    assert_int_equal(keg_read(t.keg, key_of(k, buf), 0, got, sizeof got), value.len);
    assert_memory_equal(got, want, value.len);
}

static void expect_all(void)
{
    struct keg_iter *iter;
    struct keg_entry entry;
    size_t there = 0;

    for (unsigned k = 0; k < KEYS; k++) {
        expect(k);
        there += t.values[k] != 0;
    }
    assert_int_equal(keg_iter_open(t.keg, (struct keg_bytes){"", 0}, &iter), 0);
    while (keg_iter_next(iter, &entry) == 1)
        there--;
    keg_iter_close(iter);
    assert_int_equal(there, 0);
}

static void put(unsigned k)
{
    uint8_t bytes[VALUE_MAX];
    uint32_t v = t.values[k] = ++t.next;
    char buf[24];

    assert_int_equal(
        keg_put(t.keg, key_of(k, buf), (struct keg_bytes){&v, sizeof v}, value_of(v, bytes), 0), 0);
}

static void drop(unsigned k)
{
    char buf[24];

    assert_int_equal(keg_delete(t.keg, key_of(k, buf), 0), t.values[k] ? 0 : -ENOENT);
    t.values[k] = 0;
}

static void batch_of_some(void)
{
    enum { MOST = 12 };
    struct keg_batch batch = {0};
    uint8_t bytes[MOST][VALUE_MAX];
    uint32_t numbers[MOST];
    char bufs[MOST][24];
    size_t count = 1 + below(MOST);

    for (size_t i = 0; i < count; i++) {
        unsigned k = (unsigned)below(below(2) ? KEYS : 5); /* often one and the same twice */
        struct keg_bytes key = key_of(k, bufs[i]);

        if (below(2)) {
            t.values[k] = 0;
            assert_int_equal(keg_batch_delete(&batch, key), 0);
            continue;
        }
        numbers[i] = t.values[k] = ++t.next;
        assert_int_equal(keg_batch_put(&batch, key, (struct keg_bytes){&numbers[i], 4},
                                       value_of(numbers[i], bytes[i])),
                         0);
    }
    assert_int_equal(keg_commit(t.keg, &batch, 0), 0);
    keg_batch_free(&batch);
}

/* ---- Hints ---- */

static int save_hint(void *arg, const char *name)
{
    struct saved *saved = &t.saved[below(SAVED)];

    (void)arg;
    if (!strstr(name, ".hint") || below(4))
        return 0;
    free(saved->data);
    saved->data = NULL;
    snprintf(saved->name, sizeof saved->name, "%s", name);
    return env_slurp(t.env, name, 1 << 20, &saved->data, &saved->len);
}

static int spoil_hint(void *arg, const char *name)
{
    const struct saved *saved = &t.saved[below(SAVED)];

    (void)arg;
    if (!strstr(name, ".hint"))
        return 0;
    switch (below(8)) {
    case 0:
        return env_remove(t.env, name);
    case 1: /* another segment's, or an older one of its own */
        return saved->data ? env_replace(t.env, name, saved->data, saved->len) : 0;
    default:
        return 0;
    }
}

/* An older hint of the same name comes back. */
static void bring_back_hints(void)
{
    for (size_t i = 0; i < SAVED; i++) {
        struct keg_file *file;

        if (!t.saved[i].data || below(2) || env_open(t.env, t.saved[i].name, ENV_READ, &file))
            continue;
        env_close(file);
        assert_int_equal(env_replace(t.env, t.saved[i].name, t.saved[i].data, t.saved[i].len), 0);
    }
}

static int remove_hint(void *arg, const char *name)
{
    (void)arg;
    return strstr(name, ".hint") ? env_remove(t.env, name) : 0;
}

static void reopen(void)
{
    assert_int_equal(env_list(t.env, save_hint, NULL), 0);
    assert_int_equal(keg_close(t.keg), 0);
    uint64_t dice = below(8);
    if (dice == 0)
        assert_int_equal(env_list(t.env, remove_hint, NULL), 0);
    if (dice > 4)
        assert_int_equal(env_list(t.env, spoil_hint, NULL), 0);
    if (dice == 7)
        bring_back_hints();
    assert_int_equal(open_keg(), 0);
    assert_null(keg_readonly_reason(t.keg));
    expect_all();
}

/* ---- Random operations ---- */

static void change(void)
{
    uint64_t dice = below(10);

    if (dice < 6)
        put((unsigned)below(KEYS));
    else if (dice < 9)
        drop((unsigned)below(KEYS));
    else
        batch_of_some();
}

static void change_now_and_then(void)
{
    if (below(4) == 0)
        change();
}

static void step(void)
{
    uint64_t dice = below(10000);

    if (dice < 8000)
        change();
    else if (dice < 9960)
        expect((unsigned)below(KEYS));
    else if (dice < 9970)
        assert_int_equal(gate_roll(t.keg, false), 0);
    else if (dice < 9980)
        assert_int_equal(keg_hint(t.keg), 0);
    else if (dice < 9985)
        assert_int_equal(env_list(t.env, save_hint, NULL), 0);
    else if (dice < 9995)
        assert_int_equal(keg_compact(t.keg, NULL, NULL), 0);
    else
        reopen();
}

static uint64_t steps(void)
{
    const char *text = getenv("TEST_STEPS");

    return text ? strtoull(text, NULL, 0) : STEPS;
}

static void test_random_operations(void **state)
{
    uint64_t count = steps();

    (void)state;
    t.random = random_seeded();
    t.dice = true;
    t.meanwhile = change_now_and_then;
    for (uint64_t i = 0; i < count; i++)
        step();
    reopen();
    print_message("%" PRIu64 " operations, %" PRIu64 " segments compacted\n", count, t.compacted);
    assert_true(t.compacted > count / 1000);
}

/* ---- Named ---- */

static void roll(void)
{
    assert_int_equal(gate_roll(t.keg, false), 0);
}

static void compact(unsigned ranks)
{
    t.ranks = ranks;
    assert_int_equal(keg_compact(t.keg, NULL, NULL), 0);
    assert_true(t.compacted > 0);
}

static void reopen_plain(bool hints)
{
    assert_int_equal(keg_close(t.keg), 0);
    if (!hints)
        assert_int_equal(env_list(t.env, remove_hint, NULL), 0);
    assert_int_equal(open_keg(), 0);
    expect_all();
}

/* #82, #148, #156: the tombstone's segment is merged before that of what it hides. */
static void test_bitcask_82_tombstone_merged_first(void **state)
{
    (void)state;
    put(1);
    put(2);
    roll();
    drop(1);
    put(3);
    roll();
    compact(2);
    reopen_plain(true);
    compact(2);
    reopen_plain(false);
    compact(7);
    reopen_plain(false);
}

/* b176d8f: a merged tombstone, in a younger file than the newer put, overrides it. */
static void test_bitcask_b176d8f_newer_put_stays(void **state)
{
    (void)state;
    put(1);
    roll();
    drop(1);
    roll();
    put(1);
    roll();
    compact(2);
    reopen_plain(false);
    compact(1);
    reopen_plain(true);
    compact(7);
    reopen_plain(false);
}

static void change_and_roll(void)
{
    put(2);
    drop(3);
    put(4);
    roll();
    t.meanwhile = NULL;
}

/* 956cec0: a file that came while the merge was under way was deleted with its inputs. */
static void test_bitcask_956cec0_inputs_only(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 10; k++)
        put(k);
    roll();
    t.meanwhile = change_and_roll;
    compact(1);
    expect_all();
    reopen_plain(true);
    reopen_plain(false);
}

/* fa7c52c: the clock went back between two puts, and the older one won. */
static void test_bitcask_fa7c52c_clock_goes_back(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        put(1);
        roll();
        drop(1);
        if (i % 2)
            put(1);
        roll();
        compact(0x15);
        reopen_plain(i % 3);
    }
}

/* A hint that is gone, unknown to the store, says nothing of what its segment holds. */
static void test_tombstone_stays_where_a_hint_is_gone(void **state)
{
    (void)state;
    put(1);
    roll();
    drop(1);
    put(2);
    roll();
    assert_int_equal(env_remove(t.env, "00000001.hint"), 0);
    compact(2);
    reopen_plain(false);
}

/* A copy of the store went another way; its hint is sound, and as long. */
static void test_hint_of_a_diverged_copy(void **state)
{
    struct hint_info info = {.segment = 1, .kind = FORMAT_LOG};
    struct hintfile_writer *writer;
    uint64_t size;

    (void)state;
    put(1);
    put(2);
    drop(1);
    roll();
    memcpy(info.store, t.keg->id, sizeof info.store);
    info.length = atomic_load(&t.keg->members[0]->length);
    assert_int_equal(t.keg->members[0]->id, 1);
    assert_int_equal(keg_close(t.keg), 0);
    assert_int_equal(env_remove(t.env, "00000001.hint"), 0);
    assert_int_equal(hintfile_create(t.env, info.store, 1, &writer), 0);
    assert_int_equal(hintfile_finish(writer, &info, &size), 0);
    assert_int_equal(open_keg(), 0);
    assert_null(keg_readonly_reason(t.keg));
    expect_all();
}

static int setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    assert_int_equal(env_mem(0, &t.env), 0);
    t.ops = *t.env->ops;
    t.ops.clock = jumping_clock;
    t.env->ops = &t.ops;
    return open_keg();
}

static int teardown(void **state)
{
    (void)state;
    t.meanwhile = NULL;
    int err = keg_close(t.keg);
    for (size_t i = 0; i < SAVED; i++)
        free(t.saved[i].data);
    keg_env_free(t.env);
    return err;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random_operations),
        TEST(test_bitcask_82_tombstone_merged_first),
        TEST(test_bitcask_b176d8f_newer_put_stays),
        TEST(test_bitcask_956cec0_inputs_only),
        TEST(test_bitcask_fa7c52c_clock_goes_back),
        TEST(test_tombstone_stays_where_a_hint_is_gone),
        TEST(test_hint_of_a_diverged_copy),
    };

    setvbuf(stdout, NULL, _IOLBF, 0); /* the seed is printed whatever happens */
    return cmocka_run_group_tests_name("resurrection", tests, NULL, NULL);
}
