/* SPDX-License-Identifier: MIT */
/*
 * Power cuts without end, below the namespace: a volume lives many lives on one disk, as the store
 * does in test_cuts.c. All operations of the volume are there, files replaced as a whole and files
 * unlinked while they are in use among them. After each cut the tree must be one that it was since
 * the last sync (after a kill: since the last call that returned), as a naive model has it; the
 * volume's own check must find nothing; and once what was orphaned is reclaimed, no orphan key is
 * left. Then the next life begins with that tree.
 *
 * TEST_CUTS=N says how many. A world that fails prints the line that replays it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "env_fault.h"
#include "sanitized.h"
#include "volume_model.h"
#include <stdlib.h>

enum { LIVES = 40, CUTS = SANITIZED ? 200 : 1500, SMALL = 6000 };

struct tally {
    uint64_t cuts, kills, in_a_row[4], bytes, losses, changes;
};

struct world {
    struct fixture fixture;
    struct model *model;
    struct random random;
    struct tally *tally;
    bool killed; /* nothing but kills since it was last open */
};

static uint64_t below(struct world *world, uint64_t bound)
{
    return random_below(&world->random, bound);
}

static void plan_cut(struct world *world, uint64_t most)
{
    struct env_fault_plan plan = {ENV_FAULT_CUT, 1 + below(world, most), false,
                                  random_next(&world->random)};
    env_fault_set(world->fixture.env, &plan);
}

static void come_back(struct world *world)
{
    struct keg_env *env = world->fixture.env;
    if (world->fixture.volume)
        (void)!fixture_close(&world->fixture);
    world->tally->cuts++;
    if (below(world, 6) == 0) {
        env_fault_revive(env);
        world->tally->kills++;
        return;
    }
    world->killed = false;
    uint64_t lost = env_fault_restart(env);
    world->tally->bytes += lost;
    world->tally->losses += lost > 0;
}

/* Opens under a cut that comes soon, up to three times, as long as it strikes. */
static void cut_recovery(struct world *world)
{
    for (int row = 1; row <= 3 && below(world, 3) == 0; row++) {
        plan_cut(world, 40);
        if (fixture_open(&world->fixture) == 0 && volume_tend(world->fixture.volume) == 0)
            (void)!fixture_close(&world->fixture);
        if (!env_fault_struck(world->fixture.env)) {
            world->fixture.volume = NULL;
            return;
        }
        world->tally->in_a_row[row]++;
        come_back(world);
    }
}

/* Whether the tree is one that may be found. */
static bool is_allowed(struct world *world)
{
    const struct model *m = world->model;
    char *text = model_volume_text(world->fixture.volume);
    uint64_t hash = model_hash(text);
    size_t at = m->history_count, from = world->killed ? m->done : m->synced;
    while (at > from && m->history[at - 1] != hash)
        at--;
    bool allowed = at > from;
    if (!allowed) {
        char *last = model_text(m, true);
        printf("not a tree since %s:\n%s\n", world->killed ? "the kill" : "the last sync", text);
        printf("the model has:\n%s\n", last);
        free(last);
    }
    world->tally->changes += at <= m->done;
    free(text);
    return allowed;
}

static bool is_clean(struct fixture *f)
{
    struct keg_iter *iter;
    struct keg_entry entry;
    if (volume_check(f->volume, fixture_print, NULL) != 0 || volume_tend(f->volume) != 0 ||
        volume_check(f->volume, fixture_print, NULL) != 0 ||
        keg_iter_open(f->keg, fixture_text("o"), &iter) != 0)
        return false;
    bool clean = keg_iter_next(iter, &entry) == 0;
    keg_iter_close(iter);
    if (!clean)
        printf("orphans are left\n");
    return clean;
}

/* Opens for the next life, with the tree that is found. */
static bool recover(struct world *world)
{
    struct fixture *f = &world->fixture;
    env_fault_set(f->env, NULL);
    if (fixture_open(f)) {
        printf("it does not open\n");
        return false;
    }
    if (world->model->history_count && !is_allowed(world))
        return false;
    if (!is_clean(f))
        return false;
    model_load(world->model);
    world->model->random = world->random;
    model_keep_history(world->model);
    return model_compare(world->model) == 0;
}

/* Works until the power is cut. */
static bool live(struct world *world)
{
    world->killed = true;
    plan_cut(world, below(world, 3) ? 60 : 400);
    world->model->random.state ^= random_next(&world->random);
    int result = 0;
    /* A cut that a forget meets is told to nobody, so the step in which it struck is not done. */
    while (result == 0 && !env_fault_struck(world->fixture.env)) {
        world->model->done = world->model->history_count - 1;
        result = model_step(world->model);
    }
    return result <= 0 && env_fault_struck(world->fixture.env);
}

static void run_world(uint64_t seed, struct tally *tally)
{
    struct world world = {.tally = tally, .random.state = seed};
    world.fixture = (struct fixture){.volume_flags = VOLUME_NO_BACKGROUND,
                                     .keg_flags = KEG_NO_BACKGROUND,
                                     .seconds = 1790000000};
    struct model *m = world.model = calloc(1, sizeof *m);
    assert_non_null(m);
    assert_int_equal(env_fault(0, &world.fixture.env), 0);
    world.fixture.segment_size = (uint64_t)64 << 10 << below(&world, 5);
    model_begin(m, &world.fixture);
    m->size_most = below(&world, 4) ? SMALL : MODEL_SIZE_MAX;
    bool good = true;
    for (int i = 0; good && i < LIVES; i++) {
        good = recover(&world) && live(&world);
        if (good) {
            come_back(&world);
            cut_recovery(&world);
        }
    }
    if (!good || !recover(&world)) {
        printf("replay: TEST_CUTS=1 TEST_SEED=%" PRIu64 " test_volume_cuts\n", seed);
        fail();
    }
    assert_int_equal(fixture_close(&world.fixture), 0);
    model_end(m);
    free(m);
    keg_env_free(world.fixture.env);
}

static void test_lives(void **state)
{
    (void)state;
    const char *text = getenv("TEST_CUTS");
    uint64_t cuts = text ? strtoull(text, NULL, 0) : CUTS, seed = random_seeded().state;
    struct tally t = {0};
    for (uint64_t i = 0; t.cuts < cuts; i++)
        run_world(seed + i, &t);
    printf("%" PRIu64 " cuts, %" PRIu64 " of them kills; of recoveries %" PRIu64 ", again %" PRIu64
           ", a third time %" PRIu64 "; %" PRIu64 " lost %" PRIu64 " bytes, %" PRIu64
           " lost changes; nothing synced\n",
           t.cuts, t.kills, t.in_a_row[1], t.in_a_row[2], t.in_a_row[3], t.losses, t.bytes,
           t.changes);
    if (cuts < LIVES)
        return; /* one world is a replay */
    assert_true(t.losses > cuts / 10 && t.changes > cuts / 25);
    assert_true(t.kills > cuts / 20 && t.in_a_row[3] > cuts / 400);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* the seed is printed whatever happens */
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};
    return cmocka_run_group_tests_name("volume_cuts", tests, NULL, NULL);
}
