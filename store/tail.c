/* SPDX-License-Identifier: MIT */
/*
 * The tail: what stands in the active segment behind the bytes that count as sealed.
 *
 * Everything there is read and verified, values too, past the page cache: after a failed sync the
 * cache shows what the medium does not hold. Frames count from the front on. A frame that does not
 * verify is a torn tail, cut off with all behind it, unless something behind it proves that it was
 * durable: a later frame, found by the length in a sound header or by search, that says so with its
 * durable offset. Then it is damage: its sound heads count and a bad value stays a bad value, and
 * the frames behind it count as well.
 *
 * The cut loses only what no sync acknowledged: a later frame whose durable offset does not reach
 * the bad one may be whole (writes can be reordered), and goes all the same, so that what is left
 * is a prefix of what was committed.
 *
 * What cannot be read proves nothing, and disproves nothing: a tail is torn only if all that stands
 * behind it could be read. Else nothing is cut, and the store opens read-only with what stands
 * before the first such place (and behind it, if that is proven).
 *
 * A segment with anything behind its sealed bytes is not appended to again. It is cut, closed with
 * a footer and sealed; the log goes on in a new segment. (Copying its tail into the new one would
 * do as well, and write more.)
 */
#include "hintfile.h"
#include "recover.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { TAIL_MAX = 512 << 20 }; /* more than an active segment ever grows to */

struct tail {
    struct keg *keg;
    struct segment *segment;
    struct scan scan;
    uint64_t at; /* what stands before it counts */
    bool closed; /* a footer stands at `at` */
    bool zeros;  /* nothing but zeros stands behind it, as ahead.c writes them */
    bool bad_heads;
};

/* Whether a frame behind `from` says that the byte at `at` was durable; *next is the first frame
 * there, whatever it says. */
static int find_proof(struct tail *tail, uint64_t from, bool *proof, uint64_t *next)
{
    struct format_frame frame;
    uint64_t found;
    int err;

    *proof = false;
    *next = 0;
    for (;; from = found + FORMAT_ALIGN) {
        err = scan_search(&tail->scan, from, &found, &frame);
        if (err || found >= tail->scan.end)
            return err;
        if (frame.sequence <= tail->scan.last_sequence)
            continue;
        if (*next == 0)
            *next = found;
        if (frame.durable > tail->at) {
            *proof = true;
            return 0;
        }
    }
}

/* 0: all values of the frame are as they were written; -EBADMSG. */
static int verify_values(struct scan *scan)
{
    struct format_record record;
    uint64_t value_offset;
    int err = 0;

    scan_rewind(scan);
    while (!err && scan_record(scan, &record, &value_offset))
        err = scan_verify(scan, &record, value_offset);
    return err;
}

/* Nothing proves that what is at hand was durable: it is torn, unless that could not be seen. */
static void take_for_torn(struct tail *tail)
{
    if (tail->scan.unread && tail->scan.unread_end > tail->at)
        recover_say_damage(tail->keg, tail->segment, &tail->scan, tail->at);
}

/* The frame at hand has sound heads and a bad value. *end: the log ends here. */
static int bad_value(struct tail *tail, bool *end)
{
    uint64_t next;
    bool proof;
    int err;

    /* Searching uses the window only; heads and frame stay. */
    err = find_proof(tail, scan_next(&tail->scan), &proof, &next);
    if (err)
        return err;
    *end = !proof;
    if (!proof) {
        take_for_torn(tail);
        return 0;
    }
    keg_say(tail->keg, KEG_LOG_WARNING,
            "%08" PRIu64 ".data: a damaged value in the frame at offset %" PRIu64,
            tail->segment->id, tail->at);
    err = recover_frame(tail->keg, tail->segment, &tail->scan);
    tail->at = scan_next(&tail->scan);
    return err;
}

static int bad_frame(struct tail *tail, bool *end)
{
    uint64_t next;
    bool proof;
    int err = find_proof(tail, tail->at + FORMAT_ALIGN, &proof, &next);

    if (err)
        return err;
    *end = !proof;
    if (!proof) {
        take_for_torn(tail);
        return 0;
    }
    if (!tail->bad_heads)
        recover_say_damage(tail->keg, tail->segment, &tail->scan, tail->at);
    tail->bad_heads = true;
    tail->at = next;
    return 0;
}

static int walk(struct tail *tail)
{
    enum scan_found found;
    bool end = false;
    int err = 0;

    while (!err && !end) {
        err = scan_look(&tail->scan, tail->at, &found);
        if (err)
            break;
        tail->closed = found == SCAN_FOOTER;
        if (found == SCAN_END || found == SCAN_FOOTER)
            break;
        if (found == SCAN_BAD) {
            err = bad_frame(tail, &end);
            continue;
        }
        err = verify_values(&tail->scan);
        if (err == -EBADMSG) {
            err = bad_value(tail, &end);
        } else if (!err) {
            err = recover_frame(tail->keg, tail->segment, &tail->scan);
            tail->at = scan_next(&tail->scan);
        }
    }
    return err;
}

/* A hint that did not fit must not come to fit when the segment has grown. */
static int drop_hint(struct keg *keg, const struct segment *segment)
{
    char name[ENV_NAME_MAX + 1];
    int err;

    if (segment->hint_len)
        return 0;
    hintfile_name(segment->id, name);
    err = env_remove(keg->env, name);
    if (err == -ENOENT)
        return 0;
    return err ? err : env_sync_names(keg->env);
}

/* Cut, footer, sealed: as a roll leaves it. */
static int seal_tail(struct keg *keg, struct segment *segment)
{
    char name[ENV_NAME_MAX + 1];
    struct keg_file *file;
    int err;

    segment_name(segment->id, name);
    err = env_open(keg->env, name, ENV_APPEND, &file);
    if (err)
        return err;
    err = segment_write_footer(keg, segment, file);
    env_close(file);
    if (err)
        return err;
    segment->sealed = true;
    atomic_store(&segment->length, atomic_load(&segment->length) + FORMAT_FOOTER_SIZE);
    atomic_fetch_add(&keg->data_bytes, atomic_load(&segment->length));
    return 0;
}

/* The segment goes on where it ended: nothing stands behind its sealed bytes. */
static int continue_segment(struct keg *keg, struct segment *segment)
{
    char name[ENV_NAME_MAX + 1];
    struct keg_file *file;
    int err;

    segment_name(segment->id, name);
    err = env_open(keg->env, name, ENV_APPEND, &file);
    if (err)
        return err;
    /* Opened for reading by recovery; from here on one descriptor does both. */
    segment_replace_file(keg, segment, file);
    segment->durable = atomic_load(&segment->length);
    keg->active = segment;
    return 0;
}

static int read_tail(struct tail *tail, uint64_t *size)
{
    struct keg *keg = tail->keg;
    struct segment *segment = tail->segment;
    char name[ENV_NAME_MAX + 1];
    struct keg_file *file;
    int err;

    segment_name(segment->id, name);
    err = env_open(keg->env, name, ENV_UNCACHED, &file);
    if (err)
        return err;
    err = env_size(file, size);
    if (!err && *size > tail->at + TAIL_MAX)
        *size = tail->at + TAIL_MAX;
    if (!err)
        err = scan_init(&tail->scan, file, segment_salt(keg, segment->id), *size, true);
    if (!err) {
        tail->scan.last_sequence = segment->last_sequence;
        tail->scan.salvage = true;
        tail->scan.hurried = !keg->salvage;
        err = walk(tail);
        if (tail->scan.unread)
            atomic_store(&segment->suspect, true);
        tail->zeros = !err && scan_only_zeros(&tail->scan, tail->at, *size);
        scan_free(&tail->scan);
    }
    env_close(file);
    return err;
}

int recover_tail(struct keg *keg, struct segment *segment, bool *continued)
{
    uint64_t sealed =
        segment->covered > FORMAT_SEGMENT_SIZE ? segment->covered : FORMAT_SEGMENT_SIZE;
    struct tail tail = {.keg = keg, .segment = segment, .at = sealed};
    uint64_t size;
    int err = read_tail(&tail, &size);

    *continued = false;
    if (err)
        return err;
    atomic_store(&segment->length, tail.at);
    if (keg->flags & KEG_READONLY || keg_writable(keg))
        return 0;
    err = drop_hint(keg, segment);
    if (err)
        return err;
    if (tail.at < size && !tail.closed && !tail.zeros)
        keg_say(keg, KEG_LOG_INFO,
                "%08" PRIu64 ".data: cut a torn tail of %" PRIu64 " bytes at offset %" PRIu64,
                segment->id, size - tail.at, tail.at);
    if (tail.at == sealed && size == sealed) {
        *continued = true;
        return continue_segment(keg, segment);
    }
    return seal_tail(keg, segment);
}
