/* SPDX-License-Identifier: MIT */
/*
 * Repair: a sound store from what is left of a damaged one.
 *
 * The segment is the unit. Every segment is read and verified from end to end; one without damage
 * stays as it is, and of one with damage all that lives in it goes to new compacted segments. The
 * rules of recovery say what lives (recover.c), so a repair never decides otherwise than an open
 * does; it only says what an open cannot: what of the log is lost, and which keys that casts a
 * doubt on. A live value that fails its CRC becomes a lost record: the key keeps its meta, its
 * length and its sequence, and reading it stays an error until it is overwritten or deleted.
 * Sequences are kept throughout, so that nothing older passes for newer.
 *
 * Order, each step safe to be cut off after:
 *   1. the copies, footers and hints are written and synced: no manifest lists them, and the next
 *      open or repair removes them;
 *   2. the damaged segments are renamed. A store in which this has begun misses segments and opens
 *      read-only; the next repair renames them back and starts again;
 *   3. the manifest is published with the copies and without the damaged ones.
 * The names come first, as a segment that no manifest lists is removed at the next open. Renamed,
 * it is of no concern to the store any more: whoever trusts the repair removes it.
 *
 * Rejected: to repair in place (a second fault would find the only copy half changed); to copy the
 * whole store to a new directory (a nearly full disk is where repairs happen, and links to segments
 * are no operation of every environment).
 */
#include "repair.h"
#include "hintfile.h"
#include "hints.h"
#include "output.h"
#include "recover.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MANIFEST_MAX = 512 << 20,
    NAMES_MAX = 1000,            /* .damaged, .damaged-2, ... */
    SEQUENCES_SKIPPED = 1 << 20, /* more than a tail that was lost can have used */
};

/* ---- Telling ---- */

void repair_tell(const struct repair *repair, const struct keg_loss *loss)
{
    if (repair->lost)
        repair->lost(repair->arg, loss);
}

void repair_note(const struct repair *repair, uint64_t segment, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    repair_tell(repair,
                &(struct keg_loss){.kind = KEG_LOSS_NOTE, .segment = segment, .text = text});
}

/* ---- Setting aside ---- */

static bool is_there(struct keg_env *env, const char *name)
{
    struct keg_file *file;
    int err = env_open(env, name, ENV_READ, &file);

    if (!err)
        env_close(file);
    return err != -ENOENT;
}

/* What a file is called once it is set aside for the n-th time. False: the name is too long. */
static bool aside_name(const char *name, int n, char out[ENV_NAME_MAX + 1])
{
    char number[16] = "";

    if (n > 1)
        snprintf(number, sizeof number, "-%d", n);
    return snprintf(out, ENV_NAME_MAX + 1, "%s.damaged%s", name, number) <= ENV_NAME_MAX;
}

int repair_set_aside(const struct repair *repair, uint64_t segment, const char *name)
{
    struct keg_env *env = repair->keg->env;
    char aside[ENV_NAME_MAX + 1];
    int n = 1, err;

    if (!is_there(env, name))
        return -ENOENT;
    do {
        if (n > NAMES_MAX || !aside_name(name, n++, aside))
            return -EEXIST;
    } while (is_there(env, aside));
    err = env_publish(env, name, aside);
    if (!err)
        repair_note(repair, segment, "%s is now %s", name, aside);
    return err;
}

/* The segment first: its hint is taken back only along with it (take_back). */
int repair_set_segment_aside(const struct repair *repair, uint64_t id)
{
    char name[ENV_NAME_MAX + 1];
    int err;

    segment_name(id, name);
    err = repair_set_aside(repair, id, name);
    if (err && err != -ENOENT)
        return err;
    hintfile_name(id, name);
    err = repair_set_aside(repair, id, name);
    return err == -ENOENT ? 0 : err;
}

static bool was_set_aside(struct repair *repair, const char *name, char aside[ENV_NAME_MAX + 1])
{
    struct keg_env *env = repair->keg->env;

    return aside_name(name, 1, aside) && !is_there(env, name) && is_there(env, aside);
}

/* A repair was cut off before it published: what it had renamed is still listed. A hint that is set
 * aside while its segment stands was found to mislead, and is not taken back. */
static int take_back(struct repair *repair, uint64_t id)
{
    char name[ENV_NAME_MAX + 1], aside[ENV_NAME_MAX + 1];
    char hint[ENV_NAME_MAX + 1], hint_aside[ENV_NAME_MAX + 1];
    int err = 0;

    segment_name(id, name);
    hintfile_name(id, hint);
    if (!was_set_aside(repair, name, aside))
        return 0;
    if (was_set_aside(repair, hint, hint_aside))
        err = env_publish(repair->keg->env, hint_aside, hint);
    return err ? err : env_publish(repair->keg->env, aside, name);
}

static int undo_renames(struct repair *repair)
{
    int err = 0;

    for (size_t i = 0; i < repair->manifest.count && !err; i++)
        err = take_back(repair, repair->manifest.segments[i].id);
    return err;
}

/* ---- Which segments count ---- */

/* -EBADMSG: none of the two copies can be used. */
static int read_manifest(struct repair *repair)
{
    struct manifest *manifest = &repair->manifest;
    uint8_t *bytes;
    size_t len;
    int err = env_slurp(repair->keg->env, SEGMENT_MANIFEST, MANIFEST_MAX, &bytes, &len);

    if (err)
        return err == -ENOENT || err == -EFBIG || err == -EIO ? -EBADMSG : err;
    err = manifest_decode(bytes, len, manifest, &manifest->count);
    manifest->segments = err ? NULL : calloc(manifest->count + 1, sizeof *manifest->segments);
    if (!err && !manifest->segments)
        err = -ENOMEM;
    if (!err) {
        manifest_segments(bytes, len, manifest->segments);
        memcpy(repair->keg->id, manifest->store, FORMAT_ID_SIZE);
        repair->publish = len % 2 || memcmp(bytes, bytes + len / 2, len / 2) != 0;
        if (repair->publish)
            repair_note(repair, 0, "one of the two copies in MANIFEST is damaged");
        if (!recover_plausible(manifest, manifest->segments, manifest->count))
            err = -EBADMSG;
    }
    free(bytes);
    return err;
}

/* One that was made up is published at once, so that what is renamed later is in a manifest. */
static int write_manifest(struct repair *repair)
{
    size_t size = manifest_size(repair->manifest.count);
    uint8_t *bytes = malloc(size);
    int err;

    if (!bytes)
        return -ENOMEM;
    manifest_encode(bytes, &repair->manifest);
    err = env_replace(repair->keg->env, SEGMENT_MANIFEST, bytes, size);
    free(bytes);
    return err;
}

static int find_manifest(struct repair *repair)
{
    int err = read_manifest(repair), newer;

    if (err == -EPROTONOSUPPORT)
        keg_say(repair->keg, KEG_LOG_ERROR, "MANIFEST: a newer format than this program knows");
    if (!err) {
        err = undo_renames(repair);
        newer = err ? err : rebuild_is_newer(repair);
        if (newer <= 0)
            return newer;
        repair_note(repair, 0, "MANIFEST is older than the segments");
        err = -EBADMSG;
    }
    if (err != -EBADMSG)
        return err;
    err = rebuild_manifest(repair);
    if (!err) {
        err = repair_set_aside(repair, 0, SEGMENT_MANIFEST);
        err = err == -ENOENT ? 0 : err;
    }
    return err ? err : write_manifest(repair);
}

static const struct manifest_segment *entry_of(const struct repair *repair,
                                               const struct segment *segment)
{
    for (size_t i = 0; i < repair->manifest.count; i++) {
        if (repair->manifest.segments[i].id == segment->id)
            return &repair->manifest.segments[i];
    }
    return NULL; /* not reached: the members are those of the manifest */
}

/* ---- Verifying ---- */

static bool header_fits(const struct repair *repair, const struct segment *segment,
                        struct keg_file *file)
{
    uint8_t bytes[FORMAT_SEGMENT_SIZE];
    struct format_segment header;

    return env_read_all(file, 0, bytes, sizeof bytes) == 0 &&
           format_segment_decode(bytes, &header) == 0 && header.id == segment->id &&
           header.kind == segment->kind &&
           memcmp(header.store, repair->keg->id, sizeof header.store) == 0;
}

static int values_fit(struct scan *scan)
{
    struct format_record record;
    uint64_t value_at;
    int err = 0;

    while (!err && scan_record(scan, &record, &value_at))
        err = scan_verify(scan, &record, value_at);
    return err;
}

static int advance(struct repair *repair, uint64_t bytes)
{
    repair->done += bytes;
    if (repair->progress && repair->progress(repair->arg, repair->done, repair->total))
        return -ECANCELED;
    return 0;
}

/* Frames from front to back. 0; -EBADMSG at the first damage; another error. */
static int verify_frames(struct repair *repair, const struct segment *segment, struct scan *scan)
{
    uint64_t at = FORMAT_SEGMENT_SIZE, next, records = 0, first = 0, last = 0;
    enum scan_found found;
    int err;

    for (;; at = next) {
        err = scan_look(scan, at, &found);
        if (err || found != SCAN_FRAME)
            break;
        next = scan_next(scan);
        records += scan->frame.count;
        first = first && first < scan->frame.sequence ? first : scan->frame.sequence;
        last = last > scan->highest ? last : scan->highest;
        err = values_fit(scan);
        if (!err)
            err = advance(repair, next - at);
        if (err)
            return err;
        scan->last_sequence = scan->highest;
    }
    if (err)
        return err;
    if (!segment->sealed)
        return found == SCAN_END ? 0 : -EBADMSG;
    return found == SCAN_FOOTER && at + FORMAT_FOOTER_SIZE == scan->end &&
                   scan->footer.records == records && scan->footer.first_sequence == first &&
                   scan->footer.last_sequence == last
               ? 0
               : -EBADMSG;
}

/* 0: nothing is wrong with it; -EBADMSG; another error. */
static int verify_segment(struct repair *repair, struct segment *segment)
{
    struct keg *keg = repair->keg;
    uint64_t length = atomic_load(&segment->length), size;
    struct keg_file *file;
    struct scan scan;
    int err = segment_file(keg, segment, &file);

    if (err)
        return err == -ENOENT ? -EBADMSG : err;
    err = env_size(file, &size);
    if (!err && (size < length || !header_fits(repair, segment, file)))
        err = -EBADMSG;
    if (!err)
        err = scan_init(&scan, file, segment_salt(keg, segment->id), length,
                        segment->kind == FORMAT_LOG);
    if (!err) {
        scan.salvage = true;
        scan.last_sequence = segment->before; /* 0 of a compacted one */
        err = verify_frames(repair, segment, &scan);
        if (!err && scan.unread) /* zeros that are right by chance are none that can be read */
            err = -EBADMSG;
        scan_free(&scan);
    }
    segment_release(segment);
    return err == -EIO ? -EBADMSG : err;
}

/* Sound heads and a sound hint that say different things: the heads count. */
static int verify_hint(struct repair *repair, struct segment *segment, bool *again)
{
    char name[ENV_NAME_MAX + 1];
    int err;

    if (!segment->hint_len)
        return 0;
    err = hints_compare(repair->keg, segment);
    if (!err || err == -ENOMEM)
        return err;
    *again = true;
    hintfile_name(segment->id, name);
    repair_note(repair, segment->id, "its hint does not say what the segment holds");
    return repair_set_aside(repair, segment->id, name);
}

/* What it holds reaches as far as the manifest says, and no further than any store does. */
static bool sequences_fit(const struct segment *segment, const struct manifest_segment *m)
{
    return segment->last_sequence <= INT64_MAX && segment->before <= INT64_MAX &&
           (!m->sealed || segment->last_sequence >= m->last_sequence);
}

/* Of an active one: the manifest called something durable that is no frame's end, and frames are
 * sound there all the same. The store cannot go on from there, but from that frame's end. */
static void verify_durable(struct repair *repair, const struct segment *segment)
{
    if (segment->sealed || segment->hint_len == segment->covered ||
        segment->covered == entry_of(repair, segment)->length)
        return;
    repair_note(repair, segment->id, "MANIFEST has it end inside a frame");
    repair->publish = true;
}

static int verify_all(struct repair *repair, bool *again)
{
    struct keg *keg = repair->keg;
    int err = 0;

    repair->damaged = calloc(keg->slot_count + 1, sizeof *repair->damaged);
    if (!repair->damaged)
        return -ENOMEM;
    for (size_t i = 0; i < keg->member_count; i++)
        repair->total += atomic_load(&keg->members[i]->length);
    for (size_t i = 0; i < keg->member_count && !err; i++) {
        struct segment *segment = keg->members[i];

        err = verify_segment(repair, segment);
        if (!err &&
            (atomic_load(&segment->suspect) || !sequences_fit(segment, entry_of(repair, segment)) ||
             !recover_chain_fits(keg, segment)))
            err = -EBADMSG;
        if (!err && (segment->sealed || segment->covered <= atomic_load(&segment->length)))
            err = verify_hint(repair, segment, again);
        if (!err)
            verify_durable(repair, segment);
        if (err != -EBADMSG)
            continue;
        repair->damaged[segment->slot] = true;
        repair->damaged_count++;
        repair_note(repair, segment->id, "the segment is damaged");
        err = 0;
    }
    return err;
}

/* ---- Putting together ---- */

static int set_damaged_aside(struct repair *repair)
{
    struct keg *keg = repair->keg;
    int err = 0;

    for (size_t i = 0; i < keg->member_count && !err; i++) {
        if (repair->damaged[keg->members[i]->slot])
            err = repair_set_segment_aside(repair, keg->members[i]->id);
    }
    return err;
}

static int publish_locked(struct repair *repair, const struct output *output)
{
    struct keg *keg = repair->keg;
    size_t kept = 0;
    int err = segment_member_room(keg, output->count);

    if (!err)
        err = set_damaged_aside(repair);
    if (err)
        return err;
    for (size_t i = 0; i < keg->member_count; i++) {
        struct segment *s = keg->members[i]; /* numbers above are of damage, and left out */

        s->last_sequence = s->last_sequence > INT64_MAX ? 0 : s->last_sequence;
        s->before = s->before > INT64_MAX ? 0 : s->before;
    }
    keg->last_sequence = segment_last_sequence_locked(keg);
    if (repair->lost_records && keg->last_sequence < INT64_MAX - SEQUENCES_SKIPPED)
        keg->last_sequence += SEQUENCES_SKIPPED;
    for (size_t i = 0; i < keg->member_count; i++) {
        if (!repair->damaged[keg->members[i]->slot])
            keg->members[kept++] = keg->members[i];
    }
    keg->member_count = kept;
    for (size_t i = 0; i < output->count; i++)
        segment_member_add_locked(keg, output->segments[i]);
    return segment_publish_locked(keg);
}

static int replace_damaged(struct repair *repair)
{
    struct keg *keg = repair->keg;
    struct output output;
    int err = output_init(&output, keg);

    if (err)
        return err;
    repair->total += repair->room;
    err = salvage_copy(repair, &output);
    if (err) {
        output_abandon(&output);
        return err;
    }
    pthread_mutex_lock(&keg->manifest_lock);
    err = publish_locked(repair, &output);
    pthread_mutex_unlock(&keg->manifest_lock);
    output_free(&output);
    return err;
}

static int find_gaps(struct repair *repair)
{
    struct keg *keg = repair->keg;
    int err = 0;

    for (size_t i = 0; i < keg->member_count && !err; i++) {
        struct segment *segment = keg->members[i];

        if (!repair->damaged[segment->slot])
            continue;
        repair->room += atomic_load(&segment->length);
        err = salvage_gaps(repair, segment, entry_of(repair, segment));
    }
    return err;
}

/* 1: repaired; 0: sound; -EAGAIN: a hint that misled is out of the way. */
static int repair_store(struct repair *repair)
{
    struct keg *keg = repair->keg;
    bool again = false, continued;
    int err = find_manifest(repair);

    if (err)
        return err;
    keg->next_segment = repair->manifest.next_segment;
    keg->last_sequence = repair->manifest.last_sequence;
    err = recover_members(keg, repair->manifest.segments, repair->manifest.count, &continued);
    if (!err)
        err = verify_all(repair, &again);
    if (!err && again)
        return -EAGAIN;
    if (err || (!repair->damaged_count && !repair->publish))
        return err;
    err = find_gaps(repair);
    if (err)
        return err;
    salvage_doubts(repair);
    err = replace_damaged(repair);
    return err ? err : 1;
}

static void free_repair(struct repair *repair)
{
    for (size_t i = 0; i < repair->gap_count; i++) {
        free((void *)(uintptr_t)repair->gaps[i].after.data);
        free((void *)(uintptr_t)repair->gaps[i].before.data);
    }
    free(repair->gaps);
    free(repair->damaged);
    free(repair->manifest.segments);
}

int keg_repair(struct keg_env *env, const struct keg_options *options, keg_loss_fn *lost,
               keg_progress_fn *progress, void *arg)
{
    struct keg_options mine = *options;
    int err;

    mine.flags = KEG_READONLY | KEG_NO_BACKGROUND | STORE_SALVAGE;
    do {
        struct repair repair = {.lost = lost, .progress = progress, .arg = arg};

        err = keg_begin(env, &mine, &repair.keg);
        if (err)
            return err;
        err = repair_store(&repair);
        free_repair(&repair);
        if (err < 0 && err != -EAGAIN && !atomic_load(&repair.keg->said_error))
            keg_say(repair.keg, KEG_LOG_ERROR, "cannot repair the store: %s", strerror(-err));
        keg_end(repair.keg);
    } while (err == -EAGAIN);
    return err;
}
