/* SPDX-License-Identifier: MIT */
/*
 * Recovery of the segments that MANIFEST names: hints, all of them together (load.c); then the
 * heads that no sound hint covers; then the tail (tail.c).
 */
#include "hintfile.h"
#include "load.h"
#include "recover.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Records ---- */

static uint64_t cost_of(size_t key_len, size_t meta_len, const struct index_place *place)
{
    if (place->tombstone)
        return 0;
    return format_record_cost(key_len, meta_len, place->value_len,
                              index_is_lost(place) ? FORMAT_LOST : FORMAT_PUT);
}

int recover_record(struct keg *keg, const struct segment *segment, enum format_type type,
                   struct keg_bytes key, struct keg_bytes meta, const struct index_place *place)
{
    struct index_place there, mine = *place;
    uint8_t old_meta = 0;
    uint64_t cost;
    int err;

    mine.slot = segment->slot;
    mine.tombstone = type == FORMAT_TOMBSTONE;
    if (index_get(keg->index, key, &there, NULL) == 0 && there.sequence >= mine.sequence)
        return 0;
    err = index_put(keg->index, key, &mine, meta, &there, &old_meta);
    if (err < 0)
        return err;
    if (err == 1) {
        cost = cost_of(key.len, old_meta, &there);
        keg->slots[there.slot]->live_bytes -= cost;
        keg->live_bytes -= cost;
    }
    cost = cost_of(key.len, meta.len, &mine);
    keg->slots[mine.slot]->live_bytes += cost;
    keg->live_bytes += cost;
    keg->tombstones = keg->tombstones || mine.tombstone;
    return 0;
}

static void count_records(struct segment *segment, uint64_t records, uint64_t first, uint64_t last)
{
    segment->records += records;
    if (first && (!segment->first_sequence || first < segment->first_sequence))
        segment->first_sequence = first;
    if (last > segment->last_sequence)
        segment->last_sequence = last;
}

int recover_frame(struct keg *keg, struct segment *segment, struct scan *scan)
{
    struct format_record record;
    struct index_place place;
    uint64_t value_offset;
    int err;

    scan_rewind(scan);
    while (scan_record(scan, &record, &value_offset)) {
        place = (struct index_place){.sequence = record.sequence,
                                     .offset = value_offset,
                                     .value_len = record.value_len,
                                     .crc = record.crc};
        err = recover_record(keg, segment, record.type, record.key, record.meta, &place);
        if (err)
            return err;
    }
    count_records(segment, scan->frame.count, scan->frame.sequence, scan->highest);
    scan->last_sequence = scan->highest;
    return 0;
}

/* ---- Segments ---- */

/* What is wrong with a hint, be it an unreadable sector, makes it none. */
static bool no_hint(int err)
{
    return err == -ENOENT || err == -EBADMSG || err == -EIO;
}

/* Takes the segment's hint as sound as far as its trailer tells; segment->hint_len is 0 if there is
 * none. One that goes beyond `limit`, or says `limit` and another last sequence than `last` (0: not
 * known), is of another history. */
static int accept_hint(struct keg *keg, struct segment *segment, uint64_t limit, uint64_t last)
{
    struct hintfile_reader *reader;
    struct hint_info info;
    int err = hintfile_open(keg->env, keg->id, segment->id, &info, &reader);

    if (err)
        return no_hint(err) ? 0 : err;
    if (info.length <= limit && info.kind == segment->kind &&
        (!last || info.length != limit || info.last_sequence == last)) {
        segment->hint_len = info.length;
        segment->hint_bytes = hintfile_size(reader);
        count_records(segment, info.records, info.first_sequence, info.last_sequence);
    }
    hintfile_close(reader);
    return 0;
}

static void refuse_hint(struct segment *segment)
{
    segment->hint_len = segment->hint_bytes = 0;
    segment->records = segment->first_sequence = segment->last_sequence = 0;
}

/* Loads one hint record by record. What it gives before it turns out unsound was sound block by
 * block, and stays. */
static int load_one(struct keg *keg, struct segment *segment)
{
    struct hintfile_reader *reader;
    struct hint_entry entry;
    struct hint_info info;
    struct index_place place;
    int more = hintfile_open(keg->env, keg->id, segment->id, &info, &reader);

    if (!more) {
        while ((more = hintfile_next(reader, &entry)) == 1) {
            place = (struct index_place){.sequence = entry.sequence,
                                         .offset = entry.offset,
                                         .value_len = entry.value_len,
                                         .crc = entry.crc};
            more = recover_record(keg, segment, entry.type, entry.key, entry.meta, &place);
            if (more)
                break;
        }
        hintfile_close(reader);
    }
    if (!no_hint(more))
        return more;
    refuse_hint(segment);
    return 0;
}

void recover_say_damage(struct keg *keg, const struct segment *segment, const struct scan *scan,
                        uint64_t at)
{
    bool unread = scan->unread && scan->unread_end > at;
    char name[ENV_NAME_MAX + 1];

    segment_name(segment->id, name);
    keg_set_readonly(keg,
                     "%s: %s at offset %" PRIu64
                     " and no sound hint: read-only until 'kegfs check --repair'",
                     name, unread ? "record heads that cannot be read" : "damaged record heads",
                     unread && scan->unread_at > at ? scan->unread_at : at);
}

/* Whether a sealed segment ends as it should, with a footer that has counted the same. */
static bool closes(const struct segment *segment, const struct scan *scan, enum scan_found found,
                   uint64_t at)
{
    return found == SCAN_FOOTER && at + FORMAT_FOOTER_SIZE == scan->end &&
           scan->footer.records == segment->records &&
           scan->footer.first_sequence == segment->first_sequence &&
           scan->footer.last_sequence == segment->last_sequence;
}

/* Heads from *from on, as far as the segment counts as sealed, in a file that goes on up to `size`.
 * Damage is stepped over. *from is then where the last frame ends: in one that is not sealed that
 * has to be `end`, else nobody would find what is appended there. */
static int load_heads(struct keg *keg, struct segment *segment, struct keg_file *file,
                      uint64_t *from, uint64_t end, uint64_t size)
{
    bool damaged = false;
    struct format_frame frame;
    enum scan_found found = SCAN_END;
    struct scan scan;
    int err =
        scan_init(&scan, file, segment_salt(keg, segment->id), size, segment->kind == FORMAT_LOG);

    if (err)
        return err;
    if (segment->kind == FORMAT_LOG)
        scan.last_sequence =
            segment->last_sequence > segment->before ? segment->last_sequence : segment->before;
    scan.salvage = true; /* zeros are no heads, so what cannot be read is damage */
    scan.hurried = !keg->salvage;
    while (*from < end) {
        err = scan_look(&scan, *from, &found);
        if (err || found == SCAN_END || found == SCAN_FOOTER)
            break;
        if (found == SCAN_FRAME) {
            err = recover_frame(keg, segment, &scan);
            *from = scan_next(&scan);
        } else {
            if (!damaged)
                recover_say_damage(keg, segment, &scan, *from);
            damaged = true;
            err = scan_search(&scan, *from + 1, from, &frame);
            if (*from > end)
                *from = end;
        }
        if (err)
            break;
    }
    if (!err && !damaged &&
        (segment->sealed ? !closes(segment, &scan, found, *from) : *from != end))
        recover_say_damage(keg, segment, &scan, *from < end ? *from : end);
    scan_free(&scan);
    return err;
}

/* The header must be of this store and segment: a file of another does not pass for it. */
static int check_header(struct keg *keg, struct segment *segment, struct keg_file *file)
{
    uint8_t bytes[FORMAT_SEGMENT_SIZE];
    struct format_segment header;
    int err = env_read_all(file, 0, bytes, sizeof bytes);

    if (!err)
        err = format_segment_decode(bytes, &header);
    if (!err && (memcmp(header.store, keg->id, sizeof header.store) != 0 ||
                 header.id != segment->id || header.kind != segment->kind))
        err = -EBADMSG;
    if (!err) {
        segment->predecessor = header.predecessor;
        segment->before = header.last_sequence;
    }
    return err;
}

/* ---- Members ---- */

/* One segment of the manifest on its way into the index. */
struct member {
    struct segment *segment;
    const struct manifest_segment *listed;
    bool missing; /* its file is not there */
};

/* How far a hint of the segment may go. */
static int hint_limit(struct keg_file *file, const struct manifest_segment *listed, uint64_t *limit)
{
    int err = 0;

    *limit = listed->length;
    if (!listed->sealed) { /* a hint may have been written after the manifest */
        err = env_size(file, limit);
        if (*limit > RECOVER_SEGMENT_MAX)
            *limit = RECOVER_SEGMENT_MAX;
    }
    return err;
}

/* The hint of a segment that the manifest does not know to be sealed covers a footer: it is from
 * later than the manifest. What is behind a footer would not count, so the log must not go on
 * there: without the hint, the footer is found. */
static int refuse_sealed_hint(struct keg *keg, struct segment *segment, struct keg_file *file)
{
    uint8_t bytes[FORMAT_FOOTER_SIZE];
    struct format_footer footer;
    uint64_t at = segment->hint_len - FORMAT_FOOTER_SIZE;
    int err;

    if (segment->hint_len < FORMAT_SEGMENT_SIZE + FORMAT_FOOTER_SIZE)
        return 0;
    err = env_read_all(file, at, bytes, sizeof bytes);
    if (!err && format_footer_decode(bytes, segment_salt(keg, segment->id), at, &footer) == 0)
        refuse_hint(segment);
    if (err == -EIO) { /* it may stand there; a footer must not be written behind it */
        keg_set_readonly(keg,
                         "%08" PRIu64 ".data: cannot be read at offset %" PRIu64
                         ": read-only until 'kegfs check --repair'",
                         segment->id, at);
        err = 0;
    }
    return err;
}

static int look_at_file(struct keg *keg, struct member *member, struct keg_file *file)
{
    struct segment *segment = member->segment;
    const struct manifest_segment *listed = member->listed;
    char name[ENV_NAME_MAX + 1];
    uint64_t limit;
    int err = check_header(keg, segment, file);

    if (err == -EBADMSG || err == -EPROTONOSUPPORT || err == -EIO) {
        segment_name(listed->id, name);
        keg_set_readonly(keg, "%s: %s: read-only until 'kegfs check --repair'", name,
                         err == -EIO ? "a header that cannot be read (offset 0)"
                                     : "damaged header, or of another store");
        atomic_store(&segment->suspect, true);
        err = 0;
    }
    if (!err)
        err = hint_limit(file, listed, &limit);
    if (!err)
        err = accept_hint(keg, segment, limit, listed->sealed ? listed->last_sequence : 0);
    if (!err && !listed->sealed)
        err = refuse_sealed_hint(keg, segment, file);
    return err;
}

/* Adds it to the members, and finds out whether it has a hint. */
static int add_member(struct keg *keg, struct member *member)
{
    const struct manifest_segment *listed = member->listed;
    struct keg_file *file;
    char name[ENV_NAME_MAX + 1];
    int err = segment_add(keg, listed->id, listed->kind, &member->segment);

    if (err)
        return err;
    member->segment->sealed = listed->sealed;
    atomic_store(&member->segment->length, listed->length);
    segment_member_add_locked(keg, member->segment);
    err = segment_file(keg, member->segment, &file);
    if (err == -ENOENT) {
        member->missing = true;
        segment_name(listed->id, name);
        atomic_store(&member->segment->suspect, true);
        keg_set_readonly(keg, "%s: missing: read-only until it is back or 'kegfs check --repair'",
                         name);
        return accept_hint(keg, member->segment, RECOVER_SEGMENT_MAX, 0);
    }
    if (err)
        return err;
    err = look_at_file(keg, member, file);
    segment_release(member->segment);
    return err;
}

/* ---- Hints ---- */

/* Those at the front of `hints` at once, into a new index. *done: how many. */
static int load_together(struct keg *keg, struct load_hint *hints, size_t count, bool keep,
                         size_t *done)
{
    struct index *index;
    bool tombstones = false;
    int err;

    *done = count < load_hints_max() ? count : load_hints_max();
    err = load_hints(keg, hints, *done, keep || *done < count, &index, &tombstones);
    if (err)
        return err;
    index_free(keg->index);
    keg->index = index;
    keg->tombstones = tombstones && (keep || *done < count);
    for (size_t i = 0; i < *done; i++) {
        hints[i].segment->live_bytes = hints[i].live_bytes;
        keg->live_bytes += hints[i].live_bytes;
    }
    return 0;
}

/* Takes unsound hints out. */
static size_t drop_unsound(struct load_hint *hints, size_t count)
{
    size_t left = 0;

    for (size_t i = 0; i < count; i++) {
        if (hints[i].unsound)
            refuse_hint(hints[i].segment);
        else
            hints[left++] = hints[i];
    }
    return left;
}

/* keep: something that is read later could be older than a tombstone in a hint. Only the bytes of
 * the active segment that no hint covers cannot: they are newer than all hints. (A repair counts on
 * nothing.) */
static int load_accepted(struct keg *keg, const struct member *members, size_t count)
{
    struct load_hint *hints = calloc(count + 1, sizeof *hints);
    size_t hint_count = 0, done = 0;
    bool keep = keg->salvage;
    int err = -EBADMSG;

    if (!hints)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        struct segment *segment = members[i].segment;

        if (segment->hint_len)
            hints[hint_count++].segment = segment;
        if (segment->hint_len < members[i].listed->length || members[i].missing)
            keep = true;
    }
    while (err == -EBADMSG) {
        err = load_together(keg, hints, hint_count, keep, &done);
        if (err == -EBADMSG) {
            hint_count = drop_unsound(hints, hint_count);
            keep = true;
        }
    }
    for (size_t i = done; i < hint_count && !err; i++)
        err = load_one(keg, hints[i].segment);
    free(hints);
    return err;
}

/* ---- What no hint covers ---- */

static int finish_sealed(struct keg *keg, struct member *member, struct keg_file *file)
{
    struct segment *segment = member->segment;
    uint64_t length = atomic_load(&segment->length), last = member->listed->last_sequence;
    uint64_t from = segment->hint_len ? segment->hint_len : FORMAT_SEGMENT_SIZE;
    char name[ENV_NAME_MAX + 1];
    int err = 0;

    if (segment->hint_len < length) {
        keg->recovered_segments++;
        err = load_heads(keg, segment, file, &from, length, length);
        if (err)
            return err;
    }
    segment_name(segment->id, name);
    if (segment->last_sequence < last)
        keg_set_readonly(keg,
                         "%s: ends at sequence %" PRIu64 ", MANIFEST says %" PRIu64
                         ": read-only until 'kegfs check --repair'",
                         name, segment->last_sequence, last);
    atomic_fetch_add(&keg->data_bytes, length);
    return 0;
}

/* The part that counts as sealed by the manifest or by a hint that was written after it; and the
 * tail. */
static int finish_active(struct keg *keg, struct member *member, struct keg_file *file,
                         bool *continued)
{
    struct segment *segment = member->segment;
    uint64_t hinted = segment->hint_len, covered = member->listed->length, size;
    uint64_t from = hinted ? hinted : FORMAT_SEGMENT_SIZE;
    int err = env_size(file, &size);

    if (!err && hinted < covered)
        err = load_heads(keg, segment, file, &from, covered < size ? covered : size, size);
    if (err)
        return err;
    segment->covered = hinted > covered ? hinted : covered;
    if (hinted < covered && from > covered)
        segment->covered = from;
    if (segment->covered > size)
        keg_set_readonly(keg,
                         "%08" PRIu64 ".data: is %" PRIu64 " bytes long, MANIFEST says %" PRIu64
                         ": read-only until 'kegfs check --repair'",
                         segment->id, size, segment->covered);
    return recover_tail(keg, segment, continued);
}

static int finish_member(struct keg *keg, struct member *member, bool *continued)
{
    struct keg_file *file;
    int err = member->missing ? 0 : segment_file(keg, member->segment, &file);

    if (err || member->missing)
        return err;
    err = member->listed->sealed ? finish_sealed(keg, member, file)
                                 : finish_active(keg, member, file, continued);
    segment_release(member->segment);
    return err;
}

/* ---- All of them ---- */

static int failed_at(struct keg *keg, const struct manifest_segment *listed, int err)
{
    if (err)
        keg_say(keg, KEG_LOG_ERROR, "%08" PRIu64 ".data: cannot be read: %s%s", listed->id,
                strerror(-err),
                err == -EIO ? "; if it stays so, 'kegfs check --repair' keeps the rest" : "");
    return err;
}

/* The active segment comes last: whether its tail may be cut, the others have a say in. */
int recover_members(struct keg *keg, const struct manifest_segment *segments, size_t count,
                    bool *continued)
{
    struct member *members = calloc(count + 1, sizeof *members);
    int err = members ? segment_member_room(keg, count + 1) : -ENOMEM;
    size_t known = 0;

    for (size_t i = 0; !err && i < 2 * count; i++) {
        if (segments[i % count].sealed != (i < count))
            continue;
        members[known].listed = &segments[i % count];
        err = failed_at(keg, members[known].listed, add_member(keg, &members[known]));
        known++;
    }
    if (!err) {
        err = load_accepted(keg, members, count);
        if (err)
            keg_say(keg, KEG_LOG_ERROR, "cannot read the hints: %s", strerror(-err));
    }
    for (size_t i = 0; !err && i < known; i++)
        err = failed_at(keg, members[i].listed, finish_member(keg, &members[i], continued));
    free(members);
    return err;
}
