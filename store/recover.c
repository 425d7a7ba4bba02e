/* SPDX-License-Identifier: MIT */
/*
 * Recovery: from MANIFEST, hints and segments to an index.
 *
 * MANIFEST says which segments count; any other segment file holds nothing and is removed. Of each
 * key the record with the highest sequence number wins, whatever the order in which segments are
 * read, so hints and segments give the same state. Tombstones stay in the index while it is loaded,
 * since an older put may still come, and leave it at the end.
 *
 * A sealed segment is read from its hint, if that fits in every respect, else from its heads. The
 * active one is read from its hint as far as that goes, and behind it frame by frame (tail.c).
 * Damaged heads without a sound hint hide records that may be the newest of their keys; then the
 * store opens read-only and says so, and changes nothing on disk.
 */
#include "recover.h"
#include "hintfile.h"
#include "manifest.h"
#include "repair.h"
#include "roll.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MANIFEST_MAX = 512 << 20,
    SEGMENT_BYTES_MAX = 1 << 30, /* more than any segment has */
};

/* ---- Records ---- */

int recover_record(struct keg *keg, const struct segment *segment, enum format_type type,
                   struct keg_bytes key, struct keg_bytes meta, const struct index_place *place)
{
    struct index_place there, mine = *place;
    int err;

    mine.slot = segment->slot;
    mine.tombstone = type == FORMAT_TOMBSTONE;
    if (index_get(keg->index, key, &there, NULL) == 0 && there.sequence >= mine.sequence)
        return 0;
    err = index_put(keg->index, key, &mine, meta, NULL, NULL);
    return err < 0 ? err : 0;
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

/* *covered: how far a sound hint goes; 0: there is none. One that says `limit` and another last
 * sequence than `last` (0: not known) is of another history. */
static int load_hint(struct keg *keg, struct segment *segment, uint64_t limit, uint64_t last,
                     uint64_t *covered)
{
    struct hintfile_reader *reader;
    struct hint_entry entry;
    struct hint_info info;
    struct index_place place;
    int err, more;

    *covered = 0;
    err = hintfile_open(keg->env, keg->id, segment->id, &info, &reader);
    if (err)
        return no_hint(err) ? 0 : err;
    if (info.length > limit || info.kind != segment->kind ||
        (last && info.length == limit && info.last_sequence != last)) {
        hintfile_close(reader);
        return 0;
    }
    while ((more = hintfile_next(reader, &entry)) == 1) {
        place = (struct index_place){.sequence = entry.sequence,
                                     .offset = entry.offset,
                                     .value_len = entry.value_len,
                                     .crc = entry.crc};
        more = recover_record(keg, segment, entry.type, entry.key, entry.meta, &place);
        if (more)
            break;
    }
    if (more == 0) {
        *covered = info.length;
        segment->hint_len = info.length;
        segment->hint_bytes = hintfile_size(reader);
        count_records(segment, info.records, info.first_sequence, info.last_sequence);
    }
    hintfile_close(reader);
    /* What a hint gave before it turned out unsound was sound block by block, and stays. */
    return no_hint(more) ? 0 : more;
}

static void say_damage(struct keg *keg, const struct segment *segment, uint64_t offset)
{
    char name[ENV_NAME_MAX + 1];

    segment_name(segment->id, name);
    keg_set_readonly(keg,
                     "%s: damaged record heads at offset %" PRIu64
                     " and no sound hint: read-only until 'kegfs check --repair'",
                     name, offset);
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

/* Heads from `from` on, as far as the segment counts as sealed. Damage is stepped over. */
static int load_heads(struct keg *keg, struct segment *segment, struct keg_file *file,
                      uint64_t from, uint64_t end)
{
    bool damaged = false;
    struct format_frame frame;
    enum scan_found found;
    struct scan scan;
    int err =
        scan_init(&scan, file, segment_salt(keg, segment->id), end, segment->kind == FORMAT_LOG);

    if (err)
        return err;
    if (segment->kind == FORMAT_LOG)
        scan.last_sequence =
            segment->last_sequence > segment->before ? segment->last_sequence : segment->before;
    scan.salvage = keg->salvage;
    while (from < end) {
        err = scan_look(&scan, from, &found);
        if (err || found == SCAN_END || found == SCAN_FOOTER)
            break;
        if (found == SCAN_FRAME) {
            err = recover_frame(keg, segment, &scan);
            from = scan_next(&scan);
        } else {
            if (!damaged)
                say_damage(keg, segment, from);
            damaged = true;
            err = scan_search(&scan, from + 1, &from, &frame);
        }
        if (err)
            break;
    }
    if (!err && segment->sealed && !damaged && !closes(segment, &scan, found, from))
        say_damage(keg, segment, from);
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

static int load_sealed(struct keg *keg, struct segment *segment, struct keg_file *file)
{
    uint64_t length = atomic_load(&segment->length), covered;
    uint64_t last = segment->last_sequence;
    char name[ENV_NAME_MAX + 1];
    int err;

    segment->first_sequence = segment->last_sequence = 0;
    err = load_hint(keg, segment, length, last, &covered);
    if (err)
        return err;
    if (covered < length) {
        keg->recovered_segments++;
        err = load_heads(keg, segment, file, covered ? covered : FORMAT_SEGMENT_SIZE, length);
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

/* The part that counts as sealed by the manifest or by a hint that was written after it. */
static int load_active(struct keg *keg, struct segment *segment, struct keg_file *file,
                       uint64_t covered, bool *continued)
{
    uint64_t hinted, size;
    int err = env_size(file, &size);

    if (!err)
        err = load_hint(keg, segment, size < SEGMENT_BYTES_MAX ? size : SEGMENT_BYTES_MAX, 0,
                        &hinted);
    if (err)
        return err;
    if (hinted < covered)
        err = load_heads(keg, segment, file, hinted ? hinted : FORMAT_SEGMENT_SIZE,
                         covered < size ? covered : size);
    if (err)
        return err;
    segment->covered = hinted > covered ? hinted : covered;
    if (segment->covered > size)
        keg_set_readonly(keg,
                         "%08" PRIu64 ".data: is %" PRIu64 " bytes long, MANIFEST says %" PRIu64
                         ": read-only until 'kegfs check --repair'",
                         segment->id, size, segment->covered);
    return recover_tail(keg, segment, continued);
}

static int load_segment(struct keg *keg, const struct manifest_segment *m, bool *continued)
{
    struct segment *segment;
    struct keg_file *file;
    char name[ENV_NAME_MAX + 1];
    uint64_t size;
    int err = segment_add(keg, m->id, m->kind, &segment);

    if (err)
        return err;
    segment_name(m->id, name);
    segment->sealed = m->sealed;
    segment->last_sequence = m->last_sequence;
    atomic_store(&segment->length, m->length);
    segment_member_add_locked(keg, segment);
    err = segment_file(keg, segment, &file);
    if (err == -ENOENT) {
        atomic_store(&segment->suspect, true);
        keg_set_readonly(keg, "%s: missing: read-only until it is back or 'kegfs check --repair'",
                         name);
        return load_hint(keg, segment, SEGMENT_BYTES_MAX, 0, &size);
    }
    if (err)
        return err;
    err = check_header(keg, segment, file);
    if (err == -EBADMSG || err == -EPROTONOSUPPORT) {
        keg_set_readonly(keg,
                         "%s: damaged header, or of another store: read-only until 'kegfs check "
                         "--repair'",
                         name);
        atomic_store(&segment->suspect, true);
    } else if (err) {
        segment_release(keg, segment);
        return err;
    }
    err = m->sealed ? load_sealed(keg, segment, file)
                    : load_active(keg, segment, file, m->length, continued);
    segment_release(keg, segment);
    return err;
}

/* ---- The whole ---- */

static bool count_live(void *arg, struct keg_bytes key, struct keg_bytes meta,
                       const struct index_place *place)
{
    struct keg *keg = arg;
    uint64_t cost = format_record_cost(key.len, meta.len, place->value_len,
                                       index_is_lost(place) ? FORMAT_LOST : FORMAT_PUT);

    keg->slots[place->slot]->live_bytes += cost;
    keg->live_bytes += cost;
    return true;
}

/* A name that no member has is removed: it holds nothing. */
static int remove_stray(void *arg, const char *name)
{
    struct keg *keg = arg;
    uint64_t id = 0;
    bool ours = segment_parse_name(name, &id), member = false;
    int err;

    if (!ours && strcmp(name, SEGMENT_MANIFEST_TMP) != 0)
        return 0;
    for (size_t i = 0; ours && i < keg->member_count; i++)
        member = member || keg->members[i]->id == id;
    if (member && !strstr(name, ".tmp"))
        return 0;
    err = env_remove(keg->env, name);
    if (err && err != -ENOENT)
        keg_say(keg, KEG_LOG_WARNING, "%s: cannot remove a left-over: %s", name, strerror(-err));
    /* An id that is on disk is not given out again, whatever the manifest says. */
    if (ours && id >= keg->next_segment && id < INT64_MAX)
        keg->next_segment = id + 1;
    return 0;
}

/* A log segment is in the manifest before the first frame is in it. One that holds frames and was
 * not known yet when this manifest was written, shows that the manifest is an older one put back.
 * Then what it does not list may hold anything. */
static int find_newer(void *arg, const char *name)
{
    struct keg *keg = arg;
    uint64_t id;
    int newer;

    if (!segment_parse_name(name, &id) || !strstr(name, ".data") || id < keg->next_segment)
        return 0;
    newer = rebuild_proves_newer(keg, id);
    if (newer == 1)
        keg_set_readonly(keg, "MANIFEST is older than %s: read-only until 'kegfs check --repair'",
                         name);
    return newer < 0 ? newer : 0;
}

static int any_segment(void *arg, const char *name)
{
    uint64_t id;

    (void)arg;
    return segment_parse_name(name, &id) && strstr(name, ".data") ? 1 : 0;
}

/* No manifest: a new store, unless there are segments without one. */
static int begin_store(struct keg *keg)
{
    int err;

    err = env_list(keg->env, any_segment, NULL);
    if (err == 1 && keg->salvage)
        return 0;
    if (err == 1) {
        keg_say(
            keg, KEG_LOG_ERROR,
            "MANIFEST is missing, but there are segments: 'kegfs check --repair' makes a new one "
            "of them");
        return -EBADMSG;
    }
    if (err)
        return err;
    if (!(keg->flags & KEG_CREATE) || keg->flags & KEG_READONLY) {
        keg_say(keg, KEG_LOG_ERROR, "no store here (no MANIFEST)");
        return -ENOENT;
    }
    err = env_random(keg->env, keg->id, sizeof keg->id);
    keg->next_segment = 1;
    return err ? err : segment_publish_locked(keg);
}

bool recover_plausible(const struct manifest *manifest, const struct manifest_segment *segments,
                       size_t count)
{
    size_t open = 0;

    for (size_t i = 0; i < count; i++) {
        open += !segments[i].sealed;
        if (segments[i].length > SEGMENT_BYTES_MAX || segments[i].last_sequence > INT64_MAX)
            return false;
    }
    return open <= 1 && manifest->next_segment <= INT64_MAX && manifest->last_sequence <= INT64_MAX;
}

int recover_members(struct keg *keg, const struct manifest_segment *segments, size_t count,
                    bool *continued)
{
    int err = segment_member_room(keg, count + 1);

    for (size_t i = 0; !err && i < 2 * count; i++) {
        const struct manifest_segment *m = &segments[i % count];

        if (m->sealed != (i < count))
            continue;
        err = load_segment(keg, m, continued);
        if (err)
            keg_say(keg, KEG_LOG_ERROR, "%08" PRIu64 ".data: cannot be read: %s", m->id,
                    strerror(-err));
    }
    return err;
}

static int load_manifest(struct keg *keg, const uint8_t *bytes, size_t len, bool *continued)
{
    struct manifest_segment *segments;
    struct manifest manifest;
    size_t count;
    int err = manifest_decode(bytes, len, &manifest, &count);

    if (err == -EPROTONOSUPPORT) {
        keg_say(keg, KEG_LOG_ERROR,
                "MANIFEST: a newer format than this program knows (%d): use a newer kegfs",
                FORMAT_VERSION);
        return err;
    }
    segments = err ? NULL : calloc(count + 1, sizeof *segments);
    if (!err && !segments)
        return -ENOMEM;
    if (!err)
        manifest_segments(bytes, len, segments);
    if (err || !recover_plausible(&manifest, segments, count)) {
        keg_say(keg, KEG_LOG_ERROR,
                "MANIFEST is damaged (both copies): 'kegfs check --repair' makes a new one of "
                "the segments");
        err = -EBADMSG;
    } else {
        memcpy(keg->id, manifest.store, sizeof keg->id);
        keg->next_segment = manifest.next_segment;
        keg->last_sequence = manifest.last_sequence;
        err = recover_members(keg, segments, count, continued);
    }
    free(segments);
    return err;
}

static int read_manifest(struct keg *keg, bool *continued)
{
    uint8_t *bytes;
    size_t len;
    int err = env_slurp(keg->env, SEGMENT_MANIFEST, MANIFEST_MAX, &bytes, &len);

    if (err == -ENOENT)
        return begin_store(keg);
    if (err)
        return err;
    err = load_manifest(keg, bytes, len, continued);
    free(bytes);
    return err;
}

/* Loading leaves the sealed members in order of their ids, the active one behind them. */
static const struct segment *find_member(const struct keg *keg, uint64_t id)
{
    size_t low = 0, high = keg->member_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (keg->members[middle]->id == id && id)
            return keg->members[middle];
        if (keg->members[middle]->sealed && keg->members[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool recover_chain_fits(const struct keg *keg, const struct segment *segment)
{
    const struct segment *before = find_member(keg, segment->predecessor);

    return !before || before->last_sequence <= segment->before;
}

static void check_chain(struct keg *keg)
{
    for (size_t i = 0; i < keg->member_count; i++) {
        const struct segment *segment = keg->members[i];

        if (!recover_chain_fits(keg, segment))
            keg_set_readonly(keg,
                             "%08" PRIu64 ".data: follows on %08" PRIu64
                             ".data of another history: read-only until 'kegfs check --repair'",
                             segment->id, segment->predecessor);
    }
}

static void finish_index(struct keg *keg)
{
    uint64_t last;

    pthread_mutex_lock(&keg->manifest_lock);
    last = segment_last_sequence_locked(keg);
    pthread_mutex_unlock(&keg->manifest_lock);
    if (last > INT64_MAX)
        keg_set_readonly(keg, "a record has sequence %" PRIu64 ", which no store reaches", last);
    keg->next_sequence = last + 1;
    index_drop_tombstones(keg->index);
    index_scan(keg->index, (struct keg_bytes){"", 0}, count_live, keg);
}

int recover_store(struct keg *keg)
{
    bool continued = false;
    int err;

    err = read_manifest(keg, &continued);
    if (err)
        return err;
    check_chain(keg);
    finish_index(keg);
    err = env_list(keg->env, find_newer, keg);
    if (err)
        return err;
    if (keg->flags & KEG_READONLY)
        keg_set_readonly(keg, "opened read-only");
    if (keg_writable(keg)) {
        if (!(keg->flags & KEG_READONLY))
            keg_say(keg, KEG_LOG_ERROR, "%s", keg->reason);
        return 0;
    }
    err = env_list(keg->env, remove_stray, keg);
    if (err)
        return err;
    return continued ? 0 : roll_begin(keg);
}

int recover_look(struct keg *keg)
{
    struct keg_file *file;
    int err;

    if (keg->flags & KEG_CREATE && !(keg->flags & KEG_READONLY))
        return 0;
    err = env_open(keg->env, SEGMENT_MANIFEST, ENV_READ, &file);
    if (err == -ENOENT)
        return begin_store(keg); /* which only says why there is none to begin */
    if (!err)
        env_close(file);
    return err;
}
