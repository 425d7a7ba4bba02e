/* SPDX-License-Identifier: MIT */
/*
 * Compaction: the live records of some sealed segments are copied to new ones, in order of their
 * keys, and the old ones go.
 *
 * The hints of the inputs are merged. Of each key the index says whether one of the inputs' records
 * is the live one; that one is copied, its sequence, its CRC and even its bad bytes included. A
 * tombstone that is the newest record of its key everywhere is copied too, unless no other segment
 * can hold an older record of the key: only then can nothing come back when it is gone.
 *
 * The order of steps, each safe to be cut off after:
 *   1. the new segments, their footers and hints are written and synced: nobody lists them yet;
 *   2. the log is synced. A record was left behind because a newer one was seen in the index; that
 *      one must be as durable as the one that goes;
 *   3. the manifest is published with the new segments and without the inputs;
 *   4. the index is repointed, key by key, where it still points at exactly the copied record;
 *   5. the inputs leave the table; their files go with their last reader.
 * Between 3 and 4 readers still use the inputs' files, which is harmless: they stay until 5. Were
 * the index repointed first, a manifest that cannot be published would leave it pointing at
 * segments that do not count.
 *
 * Writers and readers go on all the time: index_lock is held for a few hundred keys at most, and
 * the manifest's lock while it is published.
 */
#include "compact.h"
#include "durable.h"
#include "gate.h"
#include "hints.h"
#include "merge.h"
#include "output.h"
#include "policy.h"
#include "segment.h"
#include "space.h"
#include "spin.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BACKGROUND_RATE = 64 << 20, /* bytes a second that the background copies */
    PROGRESS_EVERY = 1 << 20,   /* bytes */
    PASSES_MAX = 4,             /* on demand: tombstones kept in one may go in the next */
};

struct run {
    struct keg *keg;
    struct segment *inputs[POLICY_GROUP_MAX];
    size_t count;
    bool slow;
    bool again; /* a hint was lost, and is to be made first */
    keg_progress_fn *progress;
    void *arg;
    uint64_t done, total; /* bytes, over all runs of a call */
    uint64_t said;
};

/* ---- Copying ---- */

/* Which of the inputs' records of the key at hand is the live one, if any. */
static const struct merge_input *find_live(struct run *run, const struct merge *merge, bool *known)
{
    const struct merge_input *live = NULL;
    struct index_place place;
    struct keg *keg = run->keg;

    spin_rdlock(&keg->index_lock);
    *known = index_get(keg->index, merge->key, &place, NULL) == 0;
    for (size_t i = 0; *known && i < merge->input_count; i++) {
        const struct merge_input *input = &merge->inputs[i];

        if (merge->at[i] && place.slot == input->segment->slot &&
            place.sequence == input->entry.sequence)
            live = input;
    }
    pthread_rwlock_unlock(&keg->index_lock);
    return live;
}

static int copy_record(struct run *run, struct output *output, const struct merge_input *input)
{
    struct keg_file *file;
    int err;

    if (input->entry.type != FORMAT_PUT)
        return output_add(output, &input->entry, NULL);
    err = segment_file(run->keg, input->segment, &file);
    if (!err) {
        err = output_add(output, &input->entry, file);
        segment_release(input->segment);
    }
    if (err == -ENOENT || (err && output->unreadable))
        atomic_store(&input->segment->suspect, true);
    return err;
}

static int copy_key(struct run *run, struct merge *merge, struct output *output)
{
    const struct merge_input *newest;
    bool known;
    const struct merge_input *live = find_live(run, merge, &known);

    if (live)
        return copy_record(run, output, live);
    if (known)
        return 0; /* a newer record elsewhere */
    newest = merge_newest(merge);
    if (newest->entry.type != FORMAT_TOMBSTONE || !merge_hides(merge, newest->entry.sequence))
        return 0;
    return copy_record(run, output, newest);
}

/* Reports, and sleeps as the background has to. True: stop. */
static bool pace(struct run *run, uint64_t written)
{
    uint64_t step = written - run->said;
    struct timespec pause;

    if (run->slow && atomic_load(&run->keg->stopping))
        return true;
    if (step < PROGRESS_EVERY)
        return false;
    run->said = written;
    if (run->slow && !atomic_load(&run->keg->squeezed)) {
        pause.tv_sec = (time_t)(step / BACKGROUND_RATE);
        pause.tv_nsec = (long)(step % BACKGROUND_RATE * 1000000000 / BACKGROUND_RATE);
        nanosleep(&pause, NULL);
    }
    return run->progress && run->progress(run->arg, run->done + written, run->total);
}

static int copy_all(struct run *run, struct merge *merge, struct output *output)
{
    int more, err = 0;

    run->said = 0;
    while (!err && (more = merge_next(merge)) != 0) {
        if (more < 0)
            return more;
        if (pace(run, output->bytes))
            return -ECANCELED;
        err = copy_key(run, merge, output);
    }
    return err ? err : output_finish(output);
}

/* ---- Publishing ---- */

static int publish(struct run *run, const struct output *output)
{
    struct keg *keg = run->keg;
    struct segment **before;
    size_t count;
    int err = -ENOMEM;

    pthread_mutex_lock(&keg->manifest_lock);
    count = keg->member_count;
    before = calloc(count + 1, sizeof(struct segment *));
    if (before)
        err = segment_member_room(keg, output->count);
    if (!err) {
        memcpy(before, keg->members, count * sizeof(struct segment *));
        for (size_t i = 0; i < run->count; i++)
            segment_member_drop_locked(keg, run->inputs[i]);
        for (size_t i = 0; i < output->count; i++)
            segment_member_add_locked(keg, output->segments[i]);
        err = segment_publish_locked(keg);
        if (err) {
            memcpy(keg->members, before, count * sizeof(struct segment *));
            keg->member_count = count;
        }
    }
    free(before);
    pthread_mutex_unlock(&keg->manifest_lock);
    return err;
}

/* ---- Repointing ---- */

/* One record: the index moves if it still points at it in an input. index_lock held. */
static void repoint(struct run *run, struct segment *to, const struct hint_entry *entry)
{
    struct keg *keg = run->keg;
    struct segment *from;
    struct index_place place;
    struct keg_bytes meta;
    uint64_t cost;

    if (entry->type == FORMAT_TOMBSTONE || index_get(keg->index, entry->key, &place, &meta) ||
        place.sequence != entry->sequence)
        return;
    cost = format_record_cost(entry->key.len, meta.len, place.value_len, entry->type);
    from = keg->slots[place.slot];
    if (index_move(keg->index, entry->key, to->slot, entry->offset))
        return;
    from->live_bytes -= cost;
    to->live_bytes += cost;
}

static int repoint_segment(struct run *run, struct segment *to)
{
    struct keg *keg = run->keg;
    struct hintfile_reader *reader;
    struct hint_entry entry;
    struct hint_info info;
    int more = hintfile_open(keg->env, keg->id, to->id, &info, &reader);

    if (more)
        return more;
    /* Reading the entry may read the file, so that is done without the lock. */
    while ((more = hintfile_next(reader, &entry)) == 1) {
        spin_wrlock(&keg->index_lock);
        repoint(run, to, &entry);
        pthread_rwlock_unlock(&keg->index_lock);
    }
    hintfile_close(reader);
    return more;
}

/* The inputs leave. One that the index still points at would be a fault of ours: it stays. */
static void retire_inputs(struct run *run)
{
    struct keg *keg = run->keg;
    uint64_t live;

    for (size_t i = 0; i < run->count; i++) {
        struct segment *input = run->inputs[i];

        spin_rdlock(&keg->index_lock);
        live = input->live_bytes;
        pthread_rwlock_unlock(&keg->index_lock);
        if (live)
            keg_say(keg, KEG_LOG_ERROR,
                    "%08" PRIu64 ".data: %" PRIu64 " live bytes left by compaction; kept until "
                    "the store is closed",
                    input->id, live);
        else
            segment_retire(keg, input, true);
    }
}

/*
 * The index still points at inputs that the manifest no longer lists. Their files stay until the
 * store is closed. The new segments hold all that lives in them, but do not look so: a further
 * compaction would take it for dead.
 */
static void keep_inputs(const struct run *run, const struct output *output, int err)
{
    for (size_t i = 0; i < output->count; i++)
        atomic_store(&output->segments[i]->suspect, true);
    keg_say(run->keg, KEG_LOG_WARNING,
            "a new hint cannot be read: %s: %zu compacted segments stay until the store is closed",
            strerror(-err), run->count);
}

/*
 * Tombstones that had to stay may go once what they hide has gone. They are looked at again when as
 * many bytes have been freed as all of them take, so that to look costs no more than was won.
 */
static void review_held(struct keg *keg, const struct output *output, uint64_t freed)
{
    uint64_t held = 0;

    keg->freed += freed;
    pthread_mutex_lock(&keg->manifest_lock);
    for (size_t i = 0; i < keg->member_count; i++)
        held += keg->members[i]->held;
    for (size_t i = 0; i < output->count; i++)
        held -= output->segments[i]->held; /* these were looked at just now */
    if (keg->freed >= held) {
        keg->freed = 0;
        for (size_t i = 0; i < keg->member_count; i++) {
            if (output->count == 0 || keg->members[i]->id < output->segments[0]->id)
                keg->members[i]->held = 0;
        }
    }
    pthread_mutex_unlock(&keg->manifest_lock);
}

static int install(struct run *run, struct output *output)
{
    struct keg *keg = run->keg;
    uint64_t in = 0, out = 0;
    int err = durable_sync(keg);

    if (!err)
        err = publish(run, output);
    if (err) {
        /* A manifest that may have been published after all keeps its files. */
        if (atomic_load(&keg->poisoned))
            output_free(output);
        else
            output_abandon(output);
        return err;
    }
    for (size_t i = 0; i < run->count; i++)
        in += atomic_load(&run->inputs[i]->length);
    for (size_t i = 0; i < output->count; i++)
        out += atomic_load(&output->segments[i]->length);
    atomic_fetch_add(&keg->data_bytes, out - in);
    for (size_t i = 0; i < output->count && !err; i++)
        err = repoint_segment(run, output->segments[i]);
    if (err)
        keep_inputs(run, output, err);
    else
        retire_inputs(run);
    review_held(keg, output, in > out ? in - out : 0);
    run->done += output->bytes;
    atomic_fetch_add(&keg->counters.compactions, 1);
    atomic_fetch_add(&keg->counters.compacted_bytes, output->bytes);
    output_free(output);
    return err;
}

/* ---- One run ---- */

/* Whether the next choice would be another: an input turned out to be unreadable. */
static bool inputs_suspect(const struct run *run)
{
    bool suspect = false;

    for (size_t i = 0; i < run->count; i++) {
        const struct segment *input = run->inputs[i];

        if (!atomic_load(&input->suspect))
            continue;
        suspect = true;
        keg_say(run->keg, KEG_LOG_WARNING,
                "%08" PRIu64 ".data: cannot be read whole: compaction leaves it alone", input->id);
    }
    return suspect;
}

static int copy_inputs(struct run *run, struct segment **members, size_t member_count)
{
    struct output output;
    struct merge merge;
    int err = 0;

    run->again = false;
    for (size_t i = 0; i < run->count && !err; i++)
        err = hints_segment(run->keg, run->inputs[i]);
    if (err)
        return err;
    err = merge_init(&merge, run->keg, run->inputs, run->count, members, member_count);
    run->again = merge.lost;
    if (err)
        return err;
    err = output_init(&output, run->keg);
    if (!err) {
        err = copy_all(run, &merge, &output);
        if (err)
            output_abandon(&output);
    }
    run->again = merge.lost;
    merge_free(&merge);
    return err ? err : install(run, &output);
}

struct choice {
    struct segment **members; /* with references */
    struct policy_segment *facts;
    size_t count;
    uint64_t active_bytes, active_live, room;
};

static void free_choice(struct keg *keg, struct choice *choice)
{
    segment_put_members(keg, choice->members, choice->count);
    free(choice->facts);
}

/* What the policy goes by. Segments with an id of `limit` or more, or in done[], are not usable. */
static int gather(struct keg *keg, uint64_t limit, enum policy_mode mode, struct choice *choice)
{
    int err = segment_get_members(keg, &choice->members, &choice->count);

    choice->active_bytes = choice->active_live = 0;
    if (err)
        return err;
    choice->room = space_for_compaction(keg);
    choice->facts = calloc(choice->count + 1, sizeof *choice->facts);
    if (!choice->facts) {
        segment_put_members(keg, choice->members, choice->count);
        return -ENOMEM;
    }
    pthread_mutex_lock(&keg->manifest_lock);
    spin_rdlock(&keg->index_lock);
    for (size_t i = 0; i < choice->count; i++) {
        struct segment *s = choice->members[i];
        struct policy_segment *fact = &choice->facts[i];

        if (!s->sealed) {
            choice->active_bytes = atomic_load(&s->length);
            choice->active_live = s->live_bytes;
            continue;
        }
        fact->bytes = atomic_load(&s->length);
        fact->live = s->live_bytes;
        fact->held = (mode == POLICY_DEMAND ? 0 : s->held) + s->overhead;
        fact->hint = s->hint_bytes;
        fact->age = s->last_sequence;
        fact->usable = s->id < limit && !atomic_load(&s->suspect) && !atomic_load(&s->doomed);
    }
    pthread_rwlock_unlock(&keg->index_lock);
    pthread_mutex_unlock(&keg->manifest_lock);
    return 0;
}

/* Chooses and compacts one group. 1: done; 0: nothing is worth it. compact_lock held. */
static int compact_one(struct run *run, enum policy_mode mode, uint64_t limit)
{
    size_t chosen[POLICY_GROUP_MAX];
    struct choice choice;
    int err = gather(run->keg, limit, mode, &choice);

    if (err)
        return err;
    run->count = policy_choose(choice.facts, choice.count, run->keg->segment_size, mode,
                               choice.active_bytes, choice.active_live, choice.room, chosen);
    for (size_t i = 0; i < run->count; i++)
        run->inputs[i] = choice.members[chosen[i]];
    if (run->count)
        err = copy_inputs(run, choice.members, choice.count);
    if (err && (inputs_suspect(run) || run->again))
        err = 0;
    free_choice(run->keg, &choice);
    return err ? err : run->count > 0;
}

/* ---- Entry ---- */

static uint64_t next_id(struct keg *keg)
{
    uint64_t id;

    pthread_mutex_lock(&keg->manifest_lock);
    id = keg->next_segment;
    pthread_mutex_unlock(&keg->manifest_lock);
    return id;
}

/* One pass over the segments that are there now. Returns how many groups, or an error. */
static int pass(struct run *run)
{
    uint64_t limit = next_id(run->keg);
    int groups = 0, done;

    while ((done = compact_one(run, POLICY_DEMAND, limit)) == 1) {
        groups++;
        if (run->progress && run->progress(run->arg, run->done, run->total))
            return -ECANCELED;
    }
    return done < 0 ? done : groups;
}

int compact_demand(struct keg *keg, keg_progress_fn *progress, void *arg)
{
    struct run run = {.keg = keg, .progress = progress, .arg = arg};
    int err = gate_roll(keg, false), passes = 0;

    if (err == -ENOSPC)
        err = 0; /* what is sealed may be all the more worth it */
    if (err)
        return err;
    pthread_mutex_lock(&keg->compact_lock);
    hints_tend(keg); /* for want of one a tombstone may stay, no more */
    spin_rdlock(&keg->index_lock);
    run.total = keg->live_bytes;
    pthread_rwlock_unlock(&keg->index_lock);
    while (!err && passes++ < PASSES_MAX) {
        int groups = pass(&run);

        if (groups <= 0) {
            err = groups;
            break;
        }
    }
    pthread_mutex_unlock(&keg->compact_lock);
    return err;
}

void compact_while(struct keg *keg, bool (*wanted)(struct keg *keg))
{
    struct run run = {.keg = keg};
    uint64_t limit;
    int done = 1;

    pthread_mutex_lock(&keg->compact_lock);
    limit = next_id(keg); /* what comes of it is not compacted again, so that this ends */
    while (done == 1 && wanted(keg))
        done = compact_one(&run, POLICY_SQUEEZED, limit);
    pthread_mutex_unlock(&keg->compact_lock);
    if (done < 0)
        keg_say(keg, KEG_LOG_WARNING, "compaction for space: %s", strerror(-done));
}

static bool should_seal(struct keg *keg)
{
    struct choice choice;
    bool seal;

    if (gather(keg, UINT64_MAX, POLICY_BACKGROUND, &choice))
        return false;
    seal = policy_seal_active(choice.facts, choice.count, keg->segment_size, choice.active_bytes,
                              choice.active_live);
    free_choice(keg, &choice);
    return seal;
}

int compact_background(struct keg *keg)
{
    struct run run = {.keg = keg, .slow = true};
    enum policy_mode mode;
    int done = 0, err = 0;

    do {
        if (atomic_load(&keg->stopping))
            break;
        if (should_seal(keg))
            err = gate_roll(keg, false);
        if (err == -ENOSPC)
            err = 0;
        mode = atomic_load(&keg->squeezed) ? POLICY_SQUEEZED : POLICY_BACKGROUND;
        pthread_mutex_lock(&keg->compact_lock);
        if (!err)
            done = compact_one(&run, mode, UINT64_MAX);
        pthread_mutex_unlock(&keg->compact_lock);
        if (mode == POLICY_SQUEEZED)
            atomic_store(&keg->squeezed, false);
    } while (!err && done == 1);
    return err ? err : done < 0 ? done : 0;
}
