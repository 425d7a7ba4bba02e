/* SPDX-License-Identifier: MIT */
/*
 * Damage at random in a store of many segments: flipped bits, blocks that are zero, garbage or
 * those of another place, in any file, with hints and without. Before a repair no wrong byte is
 * served, and an older version only by a store that says that it cannot know; after it, only under
 * keys that were named. TEST_SEED replays; SCALE=full does many more rounds.
 */
#include "damage_store.h"
#include "random.h"
#include "sanitized.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { KEYS = 3000, ROUNDS = SANITIZED ? 8 : 40, ROUNDS_FULL = 2000, VALUE_MOST = 2000 };
enum { FILE_NAMES = 512 };

struct model {
    struct keg_env *env;
    uint32_t versions[KEYS]; /* 0: not there */
    bool doubt[KEYS];
    unsigned records;
    bool repaired;
};

static struct keg_bytes key_of(unsigned k, char buf[16])
{
    return (struct keg_bytes){buf, (size_t)snprintf(buf, 16, "key%05u", k)};
}

static struct keg_bytes value_of(unsigned k, uint32_t version, uint8_t *buf)
{
    struct random random = {(uint64_t)k << 32 | version};
    size_t len = 8 + random_below(&random, VALUE_MOST - 8);

    random_fill(&random, buf, len);
    return (struct keg_bytes){buf, len};
}

static void fill(struct model *model, struct random *random)
{
    static uint8_t buf[VALUE_MOST];
    char name[16];
    struct keg *keg;

    memset(model, 0, sizeof *model);
    assert_int_equal(env_fault(0, &model->env), 0);
    assert_int_equal(damage_store_open(model->env, KEG_CREATE, &keg), 0);
    for (uint32_t step = 1; step < 2 * KEYS; step++) {
        unsigned k = (unsigned)random_below(random, KEYS);

        if (model->versions[k] && random_below(random, 4) == 0) {
            model->versions[k] = 0;
            assert_int_equal(keg_delete(keg, key_of(k, name), 0), 0);
        } else {
            model->versions[k] = step;
            assert_int_equal(
                keg_put(keg, key_of(k, name), (struct keg_bytes){0}, value_of(k, step, buf), 0), 0);
        }
        if (step % KEYS == KEYS / 2)
            assert_int_equal(keg_compact(keg, NULL, NULL), 0);
    }
    assert_int_equal(keg_close(keg), 0);
}

/* ---- Damage ---- */

struct list {
    char names[FILE_NAMES][ENV_NAME_MAX + 1];
    size_t count;
};

static int note(void *arg, const char *name)
{
    struct list *list = arg;

    assert_true(list->count < FILE_NAMES);
    snprintf(list->names[list->count++], ENV_NAME_MAX + 1, "%s", name);
    return 0;
}

static struct keg_env *clone(struct keg_env *env, struct list *list, bool hints)
{
    struct keg_env *copy;

    list->count = 0;
    assert_int_equal(env_list(env, note, list), 0);
    assert_int_equal(env_fault(0, &copy), 0);
    for (size_t i = 0; i < list->count; i++) {
        if (hints || !strstr(list->names[i], ".hint"))
            damage_store_copy_file(env, copy, list->names[i]);
    }
    list->count = 0;
    assert_int_equal(env_list(copy, note, list), 0);
    return copy;
}

static void damage(struct keg_env *env, const char *name, struct random *random)
{
    size_t len, block = 512;
    uint8_t *data;

    assert_int_equal(env_slurp(env, name, 1 << 24, &data, &len), 0);
    size_t blocks = len / block;
    uint64_t how = random_below(random, 4);
    if (how == 0 || blocks < 2) {
        data[random_below(random, len)] ^= (uint8_t)(1u << random_below(random, 8));
    } else {
        uint8_t *a = data + random_below(random, blocks) * block;
        uint8_t *b = data + random_below(random, blocks) * block;

        if (how == 1)
            memset(a, 0, block);
        else if (how == 2)
            random_fill(random, a, block);
        else
            memmove(a, b, block);
    }
    assert_int_equal(env_replace(env, name, data, len), 0);
    free(data);
}

/* ---- Looking ---- */

/* All keys read right, or fail; others only where `may` says so, or a key is in doubt. */
static void read_all(struct keg *keg, const struct model *model, bool may)
{
    static uint8_t want[VALUE_MOST], got[VALUE_MOST];
    char name[16];

    for (unsigned k = 0; k < KEYS; k++) {
        uint32_t version = model->versions[k];
        struct keg_bytes value = value_of(k, version, want);
        ssize_t n = keg_read(keg, key_of(k, name), 0, got, sizeof got);
        bool right =
            version ? n == (ssize_t)value.len && memcmp(got, want, value.len) == 0 : n == -ENOENT;

        if (right || n == -EBADMSG || may || model->doubt[k] || (n == -ENOENT && model->records))
            continue;
        print_error("key %u, version %u: read %zd, %s the repair, %u records lost\n", k, version, n,
                    model->repaired ? "after" : "before", model->records);
        fail();
    }
}

static void told(void *arg, const struct keg_loss *loss)
{
    struct model *model = arg;
    char name[16] = "";

    if (getenv("PRINT"))
        print_message("kind %d, segment %" PRIu64 " at %" PRIu64 ": %s\n", loss->kind,
                      loss->segment, loss->offset, loss->text);
    model->records += loss->kind == KEG_LOSS_RECORDS;
    if (loss->kind != KEG_LOSS_DOUBT)
        return;
    assert_true(loss->key.len == 8);
    memcpy(name, loss->key.data, 8);
    model->doubt[strtoul(name + 3, NULL, 10)] = true;
}

static void one_round(struct model *model, struct random *random, unsigned *repaired)
{
    struct keg_options options = {.segment_size = DAMAGE_STORE_SEGMENT};
    static struct list list;
    struct keg_env *env = clone(model->env, &list, random_below(random, 2));
    struct keg *keg;
    int done;

    for (uint64_t i = 1 + random_below(random, 5); i > 0; i--)
        damage(env, list.names[random_below(random, list.count)], random);
    memset(model->doubt, 0, sizeof model->doubt);
    model->records = 0;
    model->repaired = false;
    done = damage_store_open(env, 0, &keg);
    assert_true(done == 0 || done == -EBADMSG || done == -EPROTONOSUPPORT);
    if (done == 0) {
        read_all(keg, model, keg_readonly_reason(keg) != NULL);
        assert_true(keg_check(keg, NULL, NULL, NULL) >= 0);
        done = keg_close(keg);
    }
    done = keg_repair(env, &options, told, NULL, model);
    assert_true(done >= 0);
    model->repaired = true;
    *repaired += (unsigned)done;
    assert_int_equal(damage_store_open(env, 0, &keg), 0);
    assert_null(keg_readonly_reason(keg));
    read_all(keg, model, false);
    assert_int_equal(keg_check(keg, NULL, NULL, NULL), 0);
    assert_int_equal(keg_close(keg), 0);
    keg_env_free(env);
}

static void test_random_damage(void **state)
{
    static struct model model;
    struct random random = random_seeded();
    const char *scale = getenv("SCALE");
    unsigned rounds = scale && strcmp(scale, "full") == 0 ? ROUNDS_FULL : ROUNDS, repaired = 0;

    (void)state;
    fill(&model, &random);
    for (unsigned i = 0; i < rounds; i++)
        one_round(&model, &random, &repaired);
    print_message("%u of %u repaired\n", repaired, rounds);
    assert_true(repaired > rounds / 4);
    keg_env_free(model.env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_damage)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
