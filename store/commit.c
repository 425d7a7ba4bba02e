/* SPDX-License-Identifier: MIT */
/*
 * Commit: how batches get into the log.
 *
 * Each writer encodes and checksums its frame on its own, outside any lock, and joins a queue. The
 * one at the head is the leader: it takes those waiting behind it along, gives all their frames
 * sequence numbers and places, appends them with one write, and applies them to the index in that
 * order. So sequence, log and index have one order, which recovery and compaction count on; and
 * whoever wants to change the active segment itself (a roll) only has to queue up like a writer.
 *
 * Durability is a second stage (durable.c), with no hold on the first: appends go on beside a sync.
 * The syncer syncs every few MiB, or a seal would have to wait for a whole segment to be written.
 *
 * Failures. Sequence numbers are spent when they are assigned and never used again, since a failed
 * append may be on disk all the same. After -ENOSPC what it left is cut off, the frames that free
 * space are tried again without the others, and the next frame is written at the same place: what a
 * crash brings back of the failed one behind it has lower sequence numbers and is never taken for
 * the log's continuation. Any other failed append, and any failed sync, poisons the store. A frame
 * that was appended can no longer fail: room in the index was reserved before.
 *
 * Rejected: a thread of its own for the log (a hand-over costs more than the append), and a lock
 * around append and apply without the queue (no shared writes, and no order among waiters).
 */
#include "commit.h"
#include "ahead.h"
#include "durable.h"
#include "frame.h"
#include "hints.h"
#include "roll.h"
#include "segment.h"
#include "space.h"
#include "spin.h"
#include "tender.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    GROUP_BYTES = 4 << 20,  /* a leader takes no further frame once it has this much */
    WRITE_BEHIND = 4 << 20, /* each time that so many bytes were appended, they are synced */
    OVERSTAY = 2,           /* a full disk lets the active segment grow to so many times its size */
    DUE_SHARE = 16,         /* of a segment's size: with as little left a roll is due */
    DUE_LEAST = 4 << 20,    /* and with this little, but for a quarter of the segment */
    DUE_TRIES = 4,          /* of a roll before the segment is full */
};

enum { WAITS, LEADS, SERVED };

struct waiter {
    struct frame *frame; /* NULL: wants to roll */
    unsigned flags;
    int result;          /* of whoever served it, before `state` */
    _Atomic int state;   /* WAITS...; whoever sets it may not look again, unless asleep */
    bool asleep;         /* commit_lock: until `wake` */
    pthread_cond_t wake; /* if asleep */
    struct waiter *next;
};

/* ---- The queue ---- */

static int sleep_in_queue(struct keg *keg, struct waiter *waiter)
{
    int state;

    pthread_mutex_lock(&keg->commit_lock);
    state = atomic_load(&waiter->state);
    if (state == WAITS) {
        pthread_cond_init(&waiter->wake, NULL);
        waiter->asleep = true;
        while ((state = atomic_load(&waiter->state)) == WAITS)
            pthread_cond_wait(&waiter->wake, &keg->commit_lock);
        pthread_cond_destroy(&waiter->wake);
    }
    pthread_mutex_unlock(&keg->commit_lock);
    return state;
}

/* Waits until this waiter (zero but for frame and flags) leads (true) or was served (false). */
static bool enqueue(struct keg *keg, struct waiter *waiter)
{
    int state = WAITS;

    pthread_mutex_lock(&keg->commit_lock);
    if (keg->queue_tail) {
        keg->queue_tail->next = waiter;
    } else {
        keg->queue_head = waiter;
        state = LEADS;
    }
    atomic_init(&waiter->state, state);
    keg->queue_tail = waiter;
    pthread_mutex_unlock(&keg->commit_lock);
    for (int i = spin_rounds(); state == WAITS && i > 0; i--) {
        spin_pause();
        state = atomic_load(&waiter->state);
    }
    if (state == WAITS)
        state = sleep_in_queue(keg, waiter);
    return state == LEADS;
}

/* The last waiter of the leader's group: those up to it are served together. */
static struct waiter *choose_group(struct keg *keg, struct waiter *leader)
{
    struct waiter *last = leader;
    uint64_t bytes = leader->frame->header.length;
    int pieces = leader->frame->iov_count;

    pthread_mutex_lock(&keg->commit_lock);
    while (last->next && last->next->frame) {
        const struct frame *frame = last->next->frame;

        bytes += frame->header.length;
        pieces += frame->iov_count;
        if (bytes > GROUP_BYTES || pieces > ENV_IOV_MAX)
            break;
        last = last->next;
    }
    pthread_mutex_unlock(&keg->commit_lock);
    return last;
}

/* Its owner goes on, and the waiter with it. commit_lock held. */
static void tell(struct waiter *waiter, int state)
{
    bool asleep = waiter->asleep;

    atomic_store(&waiter->state, state);
    if (asleep)
        pthread_cond_signal(&waiter->wake);
}

/* Ends the leadership: everybody up to last is served, the next one leads. */
static void dequeue(struct keg *keg, struct waiter *leader, struct waiter *last)
{
    struct waiter *w = leader, *next, *head;

    pthread_mutex_lock(&keg->commit_lock);
    head = last->next;
    keg->queue_head = head;
    if (!head)
        keg->queue_tail = NULL;
    next = leader->next;
    while (w != last) {
        w = next;
        next = w->next;
        tell(w, SERVED);
    }
    if (head)
        tell(head, LEADS);
    pthread_mutex_unlock(&keg->commit_lock);
}

/* ---- Rolling on demand ---- */

/* Bytes that are left of the segment when a roll becomes due. */
static uint64_t due_margin(const struct keg *keg)
{
    uint64_t share = keg->segment_size / DUE_SHARE, quarter = keg->segment_size / 4;

    return share > DUE_LEAST ? share : quarter < DUE_LEAST ? quarter : DUE_LEAST;
}

static bool is_due(const struct keg *keg)
{
    return atomic_load(&keg->active->length) > keg->segment_size - due_margin(keg);
}

/* Asks for a roll, and again when some more was appended. */
static void ask_for_roll(struct keg *keg)
{
    uint64_t length = atomic_load(&keg->active->length);

    if (!is_due(keg) || (keg->due_segment == keg->active->id && length < keg->due_again))
        return;
    keg->due_segment = keg->active->id;
    keg->due_again = length + due_margin(keg) / DUE_TRIES;
    atomic_store(&keg->roll_due, true);
}

int commit_roll(struct keg *keg, bool due)
{
    struct waiter self = {.frame = NULL};
    bool lead = enqueue(keg, &self);

    /* Nobody serves a waiter without a frame. */
    if (lead) {
        self.result = keg_writable(keg);
        if (!self.result && atomic_load(&keg->active->length) > FORMAT_SEGMENT_SIZE &&
            (!due || is_due(keg)))
            self.result = roll_active(keg);
        dequeue(keg, &self, &self);
    }
    return self.result;
}

/* ---- Appending ---- */

/* A counter that leaders alone add to, one after the other: no need to lock the bus for it. */
static void bump(_Atomic uint64_t *counter, uint64_t more)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, now + more, memory_order_relaxed);
}

/* Rolls if the next frames do not fit. */
static int make_place(struct keg *keg, uint64_t bytes)
{
    uint64_t length = atomic_load(&keg->active->length);

    if (length == FORMAT_SEGMENT_SIZE || length + bytes + FORMAT_FOOTER_SIZE <= keg->segment_size)
        return 0;
    return roll_active(keg);
}

/* Space is short: in the group there remains only what frees some. False: that changes nothing. */
static bool refuse_puts(struct waiter *leader, struct waiter *last)
{
    bool refused = false, left = false;

    for (struct waiter *w = leader;; w = w->next) {
        if (!w->result && !(w->flags & KEG_FREEING)) {
            w->result = -ENOSPC;
            refused = true;
        }
        left = left || !w->result;
        if (w == last)
            break;
    }
    return refused && left;
}

static int append_pieces(struct keg_file *file, uint64_t at, const struct iovec *iov, int count)
{
    int err = 0;

    while (count > 0 && !err) {
        int n = count < ENV_IOV_MAX ? count : ENV_IOV_MAX;

        err = env_append(file, at, iov, n);
        for (int i = 0; i < n; i++)
            at += iov[i].iov_len;
        iov += n;
        count -= n;
    }
    return err;
}

/* One write for the frames of the group that are still in it (result 0). */
static int append_group(struct keg *keg, struct waiter *leader, struct waiter *last)
{
    struct iovec pieces[ENV_IOV_MAX];
    struct segment *active = keg->active;
    uint64_t at = atomic_load(&active->length);
    int count = 0, err;

    if (leader == last) {
        err = append_pieces(active->file, at, leader->frame->iov, leader->frame->iov_count);
    } else {
        for (struct waiter *w = leader;; w = w->next) {
            if (!w->result) {
                memcpy(pieces + count, w->frame->iov, (size_t)w->frame->iov_count * sizeof *pieces);
                count += w->frame->iov_count;
            }
            if (w == last)
                break;
        }
        err = count ? append_pieces(active->file, at, pieces, count) : 0;
    }
    bump(&keg->counters.appends, 1);
    if (err == -EDQUOT)
        err = -ENOSPC;
    if (err == -ENOSPC)
        roll_cut(keg);
    else if (err)
        keg_poison(keg, "appending to", active->id, err);
    return err;
}

/* Kept, since it costs as much as the checksum of a small frame. */
static struct format_salt active_salt(struct keg *keg)
{
    if (keg->salt_segment != keg->active->id) {
        keg->salt = segment_salt(keg, keg->active->id);
        keg->salt_segment = keg->active->id;
    }
    return keg->salt;
}

/* Gives each frame of the group its place and sequence; frames that may not go get a result.
 * Returns the bytes that are to be appended. */
static uint64_t place_group(struct keg *keg, struct waiter *leader, struct waiter *last)
{
    struct segment *active = keg->active;
    struct format_salt salt = active_salt(keg);
    uint64_t start = atomic_load(&active->length), at = start;
    uint64_t durable = atomic_load(&active->durable);

    for (struct waiter *w = leader;; w = w->next) {
        uint64_t span = format_frame_span(&w->frame->header);

        if (!w->result)
            w->result = space_take(keg, span, w->flags);
        if (!w->result) {
            frame_place(w->frame, salt, at, keg->next_sequence, durable);
            keg->next_sequence += w->frame->header.count;
            at += span;
        }
        if (w == last)
            break;
    }
    return at - start;
}

/* ---- Applying ---- */

static void forget_old(struct keg *keg, size_t key_len, size_t meta_len,
                       const struct index_place *old)
{
    uint64_t cost = format_record_cost(key_len, meta_len, old->value_len,
                                       index_is_lost(old) ? FORMAT_LOST : FORMAT_PUT);

    keg->slots[old->slot]->live_bytes -= cost;
    keg->live_bytes -= cost;
}

/* The records of one frame, which stands at `offset`. index_lock held. */
static void apply_frame(struct keg *keg, const struct frame *frame, uint64_t offset)
{
    struct segment *active = keg->active;
    struct index_place place = {.sequence = frame->header.sequence, .slot = active->slot}, old;
    uint64_t value_at = offset + FORMAT_FRAME_SIZE + frame->header.heads_len;
    const uint8_t *heads = frame->bytes + FORMAT_FRAME_SIZE;
    struct format_record record;
    uint8_t old_meta;
    uint64_t cost;
    size_t at = 0;

    for (uint32_t i = 0; i < frame->header.count; i++) {
        if (format_record_decode(heads, frame->header.heads_len, &at, frame->header.sequence,
                                 &record))
            abort(); /* our own encoding, just made */
        place.sequence = record.sequence;
        if (record.type == FORMAT_TOMBSTONE) {
            if (index_delete(keg->index, record.key, &old, &old_meta) == 0)
                forget_old(keg, record.key.len, old_meta, &old);
            continue;
        }
        place.offset = value_at;
        place.value_len = record.value_len;
        place.crc = record.crc;
        value_at += format_stored_len(record.value_len);
        if (index_put(keg->index, record.key, &place, record.meta, &old, &old_meta) == 1)
            forget_old(keg, record.key.len, old_meta, &old);
        cost = format_record_cost(record.key.len, record.meta.len, record.value_len, FORMAT_PUT);
        active->live_bytes += cost;
        keg->live_bytes += cost;
    }
}

struct tally {
    uint64_t records, frames, puts;
};

/* Lengths come before the index: who finds a record in the index and then syncs, syncs it too. */
static void extend_log(struct keg *keg, const struct tally *tally, uint64_t bytes)
{
    struct segment *active = keg->active;
    bool write_behind;

    pthread_mutex_lock(&keg->sync_lock);
    if (!active->first_sequence)
        active->first_sequence = keg->next_sequence - tally->records;
    active->last_sequence = keg->next_sequence - 1;
    active->records += tally->records;
    atomic_store(&active->length, atomic_load(&active->length) + bytes);
    write_behind = keg->appended / WRITE_BEHIND != (keg->appended + bytes) / WRITE_BEHIND;
    keg->appended += bytes;
    pthread_mutex_unlock(&keg->sync_lock);
    ask_for_roll(keg);
    if (write_behind)
        tender_sync(keg);
    bump(&keg->counters.frames, tally->frames);
    bump(&keg->counters.puts, tally->puts);
    bump(&keg->counters.deletes, tally->records - tally->puts);
    bump(&keg->counters.append_bytes, bytes);
}

/* What was appended becomes the log, and visible. */
static void apply_group(struct keg *keg, struct waiter *leader, struct waiter *last, uint64_t bytes)
{
    uint64_t at = atomic_load(&keg->active->length);
    struct tally tally = {0};

    for (struct waiter *w = leader;; w = w->next) {
        if (!w->result) {
            tally.records += w->frame->header.count;
            tally.puts += w->frame->puts;
            tally.frames++;
        }
        if (w == last)
            break;
    }
    extend_log(keg, &tally, bytes);
    spin_wrlock(&keg->index_lock);
    for (struct waiter *w = leader;; w = w->next) {
        if (!w->result) {
            apply_frame(keg, w->frame, at);
            at += format_frame_span(&w->frame->header);
        }
        if (w == last)
            break;
    }
    pthread_rwlock_unlock(&keg->index_lock);
}

/* ---- The leader's work ---- */

static void fail_group(struct waiter *leader, struct waiter *last, int err)
{
    for (struct waiter *w = leader;; w = w->next) {
        if (!w->result)
            w->result = err;
        if (w == last)
            break;
    }
}

static int prepare_group(struct keg *keg, struct waiter *leader, struct waiter *last)
{
    uint64_t bytes = 0;
    size_t puts = 0;
    int err = keg_writable(keg);

    if (err)
        return err;
    for (struct waiter *w = leader;; w = w->next) {
        bytes += format_frame_span(&w->frame->header);
        puts += w->frame->puts;
        if (w == last)
            break;
    }
    err = make_place(keg, bytes);
    if (!err)
        err = ahead_write(keg, bytes);
    if (err == -ENOSPC && atomic_load(&keg->active->length) < OVERSTAY * keg->segment_size) {
        /* A disk too full to roll does not stop what frees space. */
        refuse_puts(leader, last);
        err = 0;
    }
    if (err)
        return err;
    spin_wrlock(&keg->index_lock);
    err = index_reserve(keg->index, puts);
    pthread_rwlock_unlock(&keg->index_lock);
    return err;
}

static int log_group(struct keg *keg, struct waiter *leader, struct waiter *last)
{
    uint64_t bytes = place_group(keg, leader, last);
    int err = bytes ? append_group(keg, leader, last) : 0;

    if (!err && bytes)
        apply_group(keg, leader, last, bytes);
    return err;
}

static void lead_group(struct keg *keg, struct waiter *leader)
{
    struct waiter *last = choose_group(keg, leader);
    struct segment *before = keg->active;
    bool rolled;
    int err = prepare_group(keg, leader, last);

    rolled = keg->active != before;
    if (!err)
        err = log_group(keg, leader, last);
    if (err == -ENOSPC && !keg_writable(keg) && refuse_puts(leader, last))
        err = log_group(keg, leader, last);
    if (err)
        fail_group(leader, last, err);
    dequeue(keg, leader, last);
    if (rolled)
        hints_inline(keg);
}

/* ---- Entry ---- */

/* A delete of a key that is not there leaves no record, unless this very batch puts it first. */
static int find_idle(struct keg *keg, const struct keg_op *ops, size_t count, bool **skip)
{
    struct index_place place;
    size_t puts = 0, idle = 0;

    *skip = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!ops[i].tombstone) {
            puts++;
            continue;
        }
        if (ops[i].key.len == 0 || ops[i].key.len > KEG_KEY_MAX)
            return -EINVAL;
        spin_rdlock(&keg->index_lock);
        bool there = index_get(keg->index, ops[i].key, &place, NULL) == 0;
        pthread_rwlock_unlock(&keg->index_lock);
        for (size_t j = 0; !there && puts && j < i; j++)
            there = !ops[j].tombstone && ops[j].key.len == ops[i].key.len &&
                    memcmp(ops[j].key.data, ops[i].key.data, ops[i].key.len) == 0;
        if (there)
            continue;
        if (!*skip)
            *skip = calloc(count, sizeof **skip);
        if (!*skip)
            return -ENOMEM;
        (*skip)[i] = true;
        idle++;
    }
    return idle == count; /* 1: nothing to do */
}

int commit_ops(struct keg *keg, const struct keg_op *ops, size_t count, unsigned flags)
{
    struct frame frame;
    struct waiter self = {.frame = &frame, .flags = flags};
    bool *skip;
    int err = keg_writable(keg);

    if (err)
        return err;
    err = find_idle(keg, ops, count, &skip);
    if (err) {
        free(skip);
        return err < 0 || !(flags & KEG_SYNC) ? (err < 0 ? err : 0) : durable_sync(keg);
    }
    err = frame_init(&frame, ops, count, skip);
    if (err)
        return err;
    if (flags & KEG_FREEING && !(flags & KEG_WAITED))
        keg_make_room(keg);
    if (enqueue(keg, &self))
        lead_group(keg, &self);
    frame_free(&frame);
    if (self.result || !(flags & KEG_SYNC))
        return self.result;
    return durable_sync(keg);
}
