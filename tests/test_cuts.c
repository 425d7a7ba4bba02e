/* SPDX-License-Identifier: MIT */
/*
 * Power cuts without end. A world is one disk on which a store lives many lives: it is opened and
 * worked on until the power is cut at a random I/O (or the process is killed there), and opened
 * again; that recovery may be cut, too, and the next one, and the next. After each cut the store
 * must hold a prefix of what was committed, with all that was synced and no batch by half; after a
 * kill, all of it; the same without its hints; and it goes on from there into the next life. Some
 * commits fall into the midst of a compaction.
 *
 * TEST_CUTS=N says how many. A world that fails prints the line that replays it.
 */
#include "output.h"
#include "sanitized.h"
#include "workload.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { LIVES = 40, CUTS = SANITIZED ? 500 : 5000 };

struct tally {
    uint64_t cuts, kills;   /* in all; of these, kills */
    uint64_t in_a_row[4];   /* cuts of a recovery, of the one after that, ... */
    uint64_t failed;        /* recoveries that met a failing disk */
    uint64_t bytes, losses; /* lost; cuts that lost some */
    uint64_t commits;       /* that were gone after a cut */
};

struct world {
    struct workload work;
    struct tally *tally;
    bool killed; /* nothing but kills since it was last open: all commits must be there */
};

static struct workload *beside; /* what commits beside a compaction; NULL: nothing */

int __real_output_add(struct output *output, const struct hint_entry *entry, struct keg_file *from);
int __wrap_output_add(struct output *output, const struct hint_entry *entry, struct keg_file *from);

int __wrap_output_add(struct output *output, const struct hint_entry *entry, struct keg_file *from)
{
    int err = __real_output_add(output, entry, from);

    if (!err && beside && random_below(&beside->random, 8) == 0)
        (void)!workload_commit(beside, 2, 0);
    return err;
}

static void plan_fault(struct world *world, enum env_fault_kind kind, uint64_t most)
{
    struct random *random = &world->work.random;
    struct env_fault_plan plan = {kind, 1 + random_below(random, most), false, random_next(random)};

    plan.forever = plan.seed % 2;

    env_fault_set(world->work.env, &plan);
}

/* The machine comes back, or the process only. */
static void come_back(struct world *world)
{
    struct workload *w = &world->work;
    uint64_t lost;

    if (w->keg)
        (void)!keg_close(w->keg);
    w->keg = NULL;
    world->tally->cuts++;
    if (random_below(&w->random, 6) == 0) {
        env_fault_revive(w->env);
        world->tally->kills++;
        return;
    }
    world->killed = false;
    lost = env_fault_restart(w->env);
    world->tally->bytes += lost;
    world->tally->losses += lost > 0;
}

/* Opens the store under a fault that comes soon. False: it did not strike. */
static bool strike_recovery(struct world *world, enum env_fault_kind kind)
{
    struct workload *w = &world->work;

    plan_fault(world, kind, 40);
    if (workload_open(w) == 0)
        (void)!keg_close(w->keg);
    w->keg = NULL;
    return env_fault_struck(w->env);
}

/* Recoveries that fail, and up to three in a row that are cut, as long as it strikes. */
static void cut_recovery(struct world *world)
{
    struct random *random = &world->work.random;

    if (random_below(random, 4) == 0) {
        world->killed = false; /* what a failed sync let go is gone */
        world->tally->failed +=
            strike_recovery(world, random_below(random, 3) ? ENV_FAULT_EIO : ENV_FAULT_ENOSPC);
        env_fault_revive(world->work.env); /* its process has ended */
    }
    for (int row = 1; row <= 3 && random_below(random, 2); row++) {
        if (!strike_recovery(world, ENV_FAULT_CUT))
            return;
        world->tally->in_a_row[row]++;
        come_back(world);
    }
}

static bool all_is_there(const struct history *history, const struct history_state *state)
{
    struct history last = *history;

    last.synced = history->count - 1;
    return history_allows(&last, state);
}

/* Opens for the next life. */
static bool recover(struct world *world)
{
    struct workload *w = &world->work;
    struct history_state state, again;

    env_fault_set(w->env, NULL);
    if (workload_open(w)) {
        print_error("it does not open\n");
        return false;
    }
    if (!workload_verify(w, &state))
        return false;
    if (!all_is_there(&w->history, &state)) {
        world->tally->commits++;
        if (world->killed) {
            print_error("kill -9 lost something\n");
            return false;
        }
    }
    history_restart(&w->history, &state);
    if (random_below(&w->random, 4))
        return true;
    if (workload_close(w) || workload_lose_hints(w, 1 + (unsigned)random_below(&w->random, 2)) ||
        workload_open(w))
        return false;
    if (history_read(w->keg, &again) && history_same(&state, &again))
        return true;
    print_error("another state without hints\n");
    return false;
}

/* Works on the open store until the power is cut. */
static void live(struct world *world)
{
    struct workload *w = &world->work;
    int err = 0;

    world->killed = true;
    plan_fault(world, ENV_FAULT_CUT, random_below(&w->random, 3) ? 60 : 600);
    beside = w;
    while (!err)
        err = workload_step(w);
    beside = NULL;
    assert_true(env_fault_struck(w->env));
}

static void run_world(uint64_t seed, struct tally *tally)
{
    struct world world = {.tally = tally};
    bool good = true;

    workload_begin(&world.work, seed, 0);
    for (int i = 0; good && i < LIVES; i++) {
        good = recover(&world);
        if (good) {
            live(&world);
            come_back(&world);
            cut_recovery(&world);
        }
    }
    if (!good || !recover(&world)) {
        print_error("replay: TEST_CUTS=1 TEST_SEED=%" PRIu64 " test_cuts\n", seed);
        fail();
    }
    assert_int_equal(workload_close(&world.work), 0);
    workload_end(&world.work);
}

static void test_lives(void **state)
{
    uint64_t cuts = workload_number("TEST_CUTS", CUTS), seed = random_seeded().state;
    struct tally tally = {0};

    (void)state;
    for (uint64_t i = 0; tally.cuts < cuts; i++)
        run_world(seed + i, &tally);
    print_message("%" PRIu64 " cuts, %" PRIu64 " of them kills; of recoveries %" PRIu64
                  ", again %" PRIu64 ", a third time %" PRIu64 ", %" PRIu64 " more failed; %" PRIu64
                  " lost %" PRIu64 " bytes, %" PRIu64 " lost commits; nothing synced\n",
                  tally.cuts, tally.kills, tally.in_a_row[1], tally.in_a_row[2], tally.in_a_row[3],
                  tally.failed, tally.losses, tally.bytes, tally.commits);
    /* One world is a replay. */
    if (cuts < LIVES)
        return;
    assert_true(tally.losses > cuts / 10);
    assert_true(tally.commits > cuts / 25);
    assert_true(tally.kills > cuts / 20 && tally.in_a_row[3] > cuts / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};

    setvbuf(stdout, NULL, _IOLBF, 0); /* the seed is printed whatever happens */
    return cmocka_run_group_tests_name("cuts", tests, NULL, NULL);
}
