/* SPDX-License-Identifier: MIT */
/* Check: every byte of every member read and verified. Holds compact_lock, so that the members
 * stay; readers and writers go on. */
#include "hints.h"
#include "manifest.h"
#include "repair.h"
#include "scan.h"
#include "segment.h"
#include "spin.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    struct keg *keg;
    void (*found)(void *arg, const struct keg_finding *f);
    keg_progress_fn *progress;
    void *arg;
    uint64_t done, total; /* bytes */
    ssize_t findings;
    struct segment **members;
    size_t count;
    bool *doubtful; /* of members: has damage */
};

static void doubt(struct check *check, const struct segment *segment)
{
    for (size_t i = 0; i < check->count; i++)
        check->doubtful[i] = check->doubtful[i] || check->members[i] == segment;
}

static void report(struct check *check, const struct segment *segment, uint64_t offset,
                   struct keg_bytes key, bool live, const char *text)
{
    struct keg_finding finding = {
        .key = key, .segment = segment->id, .offset = offset, .live = live, .text = text};

    doubt(check, segment);
    check->findings++;
    if (check->found)
        check->found(check->arg, &finding);
}

static const struct keg_bytes no_key = {"", 0};

static bool is_live(struct keg *keg, const struct segment *segment,
                    const struct format_record *record)
{
    struct index_place place;
    bool live;

    spin_rdlock(&keg->index_lock);
    live = index_get(keg->index, record->key, &place, NULL) == 0 && place.slot == segment->slot &&
           place.sequence == record->sequence;
    pthread_rwlock_unlock(&keg->index_lock);
    return live;
}

static int check_frame(struct check *check, const struct segment *segment, struct scan *scan)
{
    struct format_record record;
    uint64_t offset;
    int err;

    while (scan_record(scan, &record, &offset)) {
        err = scan_verify(scan, &record, offset);
        if (err && err != -EBADMSG && err != -EIO)
            return err;
        if (err && is_live(check->keg, segment, &record))
            doubt(check, segment);
        else if (err)
            report(check, segment, offset, record.key, false,
                   "a dead value does not fit its checksum, or cannot be read");
    }
    scan->last_sequence = scan->highest;
    return 0;
}

/* Frames from front to back; damage is reported and stepped over. */
static int check_frames(struct check *check, const struct segment *segment, struct scan *scan,
                        bool sealed)
{
    uint64_t at = FORMAT_SEGMENT_SIZE, start = check->done, records = 0;
    enum scan_found found;
    struct format_frame frame;
    int err;

    for (;;) {
        err = scan_look(scan, at, &found);
        if (err || found == SCAN_END || found == SCAN_FOOTER)
            break;
        if (found == SCAN_FRAME) {
            records += scan->frame.count;
            err = check_frame(check, segment, scan);
            at = scan_next(scan);
        } else {
            report(check, segment, at, no_key, false, "damaged record heads");
            err = scan_search(scan, at + 1, &at, &frame);
        }
        if (err)
            break;
        check->done = start + at;
        if (check->progress && check->progress(check->arg, check->done, check->total))
            return -ECANCELED;
    }
    if (err == -EIO) {
        report(check, segment, at, no_key, false, "the file cannot be read");
        err = 0;
    } else if (!err && sealed && (found != SCAN_FOOTER || at + FORMAT_FOOTER_SIZE != scan->end)) {
        report(check, segment, at, no_key, false, "the footer of a sealed segment is missing");
    } else if (!err && sealed && scan->footer.records != records) {
        report(check, segment, at, no_key, false, "the footer counts other records than there are");
    }
    check->done = start + scan->end;
    return err;
}

static int check_header(struct check *check, const struct segment *segment, struct keg_file *file)
{
    uint8_t bytes[FORMAT_SEGMENT_SIZE];
    struct format_segment header;
    int err = env_read_all(file, 0, bytes, sizeof bytes);

    if (!err)
        err = format_segment_decode(bytes, &header);
    if (!err && (memcmp(header.store, check->keg->id, sizeof header.store) != 0 ||
                 header.id != segment->id || header.kind != segment->kind))
        err = -EBADMSG;
    if (err != -EBADMSG && err != -EPROTONOSUPPORT && err != -EIO)
        return err;
    report(check, segment, 0, no_key, false, "damaged header, or a segment of another store");
    return 0;
}

static int check_hint(struct check *check, struct segment *segment)
{
    bool expected;
    int err;

    pthread_mutex_lock(&check->keg->manifest_lock);
    expected = segment->hint_len > 0;
    pthread_mutex_unlock(&check->keg->manifest_lock);
    if (!expected)
        return 0; /* one may be due; it is no damage to have none */
    err = hints_compare(check->keg, segment);
    if (err == -ENOENT)
        report(check, segment, 0, no_key, false, "its hint is missing or damaged");
    else if (err == -EBADMSG || err == -EIO)
        report(check, segment, 0, no_key, false, "its hint does not say what the segment holds");
    else if (err)
        return err;
    return 0;
}

static int check_segment(struct check *check, struct segment *segment)
{
    struct keg *keg = check->keg;
    struct keg_file *file;
    struct scan scan;
    uint64_t length, size;
    bool sealed;
    int err = segment_file(keg, segment, &file);

    if (err == -ENOENT) {
        report(check, segment, 0, no_key, false, "the segment's file is missing");
        return 0;
    }
    if (err)
        return err;
    pthread_mutex_lock(&keg->manifest_lock);
    sealed = segment->sealed;
    length = atomic_load(&segment->length);
    pthread_mutex_unlock(&keg->manifest_lock);
    err = env_size(file, &size);
    if (!err && size < length)
        report(check, segment, size, no_key, false, "the file is shorter than it should be");
    if (!err)
        err = check_header(check, segment, file);
    if (!err)
        err = scan_init(&scan, file, segment_salt(keg, segment->id), length,
                        segment->kind == FORMAT_LOG);
    if (!err) {
        err = check_frames(check, segment, &scan, sealed);
        scan_free(&scan);
    }
    segment_release(segment);
    return err ? err : check_hint(check, segment);
}

/* What MANIFEST cannot know, as recovery looks for it. manifest_lock held: no segment is made. */
static int check_newer(void *arg, const char *name)
{
    struct check *check = arg;
    struct segment segment;
    int newer;

    if (!segment_parse_name(name, &segment.id) || !strstr(name, ".data") ||
        segment.id < check->keg->next_segment)
        return 0;
    newer = rebuild_proves_newer(check->keg, segment.id);
    if (newer == 1)
        report(check, &segment, 0, no_key, false, "the segment is newer than MANIFEST");
    else if (newer == -EIO)
        report(check, &segment, 0, no_key, false,
               "MANIFEST does not know the segment, and it cannot be read");
    return newer < 0 && newer != -EIO ? newer : 0;
}

static int check_manifest(struct check *check)
{
    struct segment none = {.id = 0};
    struct manifest manifest;
    uint8_t *bytes;
    size_t len, count;
    int err;

    pthread_mutex_lock(&check->keg->manifest_lock);
    err = env_slurp(check->keg->env, SEGMENT_MANIFEST, SIZE_MAX, &bytes, &len);
    pthread_mutex_unlock(&check->keg->manifest_lock);
    if (!err) {
        err = manifest_decode(bytes, len, &manifest, &count);
        if (!err && memcmp(bytes, bytes + len / 2, len / 2) != 0)
            report(check, &none, 0, no_key, false, "one of the two copies in MANIFEST is damaged");
        free(bytes);
    }
    if (err != -ENOENT && err != -EBADMSG && err != -EIO)
        return err;
    report(check, &none, 0, no_key, false, "MANIFEST is missing or damaged");
    return 0;
}

/* ---- Live values of segments with damage ---- */

static const struct segment *find_doubtful(const struct check *check, uint64_t id)
{
    for (size_t i = 0; i < check->count; i++) {
        if (check->doubtful[i] && check->members[i]->id == id)
            return check->members[i];
    }
    return NULL;
}

static int check_value(struct check *check, const struct keg_entry *entry)
{
    const struct segment *segment = find_doubtful(check, entry->segment);
    uint8_t *buf;
    ssize_t n;

    if (!segment || entry->value_len == 0 || entry->offset == 0)
        return 0; /* offset 0: known to be lost, and repaired */
    buf = malloc(entry->value_len);
    if (!buf)
        return -ENOMEM;
    n = keg_read(check->keg, entry->key, 0, buf, entry->value_len);
    free(buf);
    if (n == -EBADMSG || n == -EIO)
        report(check, segment, entry->offset, entry->key, true,
               "a value does not fit its checksum, or is missing");
    /* A key that is gone by now was deleted meanwhile. */
    return n >= 0 || n == -EBADMSG || n == -EIO || n == -ENOENT ? 0 : (int)n;
}

static int check_doubtful(struct check *check)
{
    struct keg_entry entry;
    struct keg_iter *iter;
    bool any = false;
    int err, more;

    for (size_t i = 0; i < check->count; i++)
        any = any || check->doubtful[i];
    if (!any)
        return 0;
    err = keg_iter_open(check->keg, no_key, &iter);
    if (err)
        return err;
    while (!err && (more = keg_iter_next(iter, &entry)) != 0)
        err = more < 0 ? more : check_value(check, &entry);
    keg_iter_close(iter);
    return err;
}

static int check_all(struct check *check)
{
    int err;

    check->doubtful = calloc(check->count + 1, sizeof *check->doubtful);
    if (!check->doubtful)
        return -ENOMEM;
    for (size_t i = 0; i < check->count; i++)
        check->total += atomic_load(&check->members[i]->length);
    err = check_manifest(check);
    if (!err) {
        pthread_mutex_lock(&check->keg->manifest_lock);
        err = env_list(check->keg->env, check_newer, check);
        pthread_mutex_unlock(&check->keg->manifest_lock);
    }
    for (size_t i = 0; i < check->count && !err; i++)
        err = check_segment(check, check->members[i]);
    if (!err)
        err = check_doubtful(check);
    free(check->doubtful);
    return err;
}

ssize_t keg_check(struct keg *keg, void (*found)(void *arg, const struct keg_finding *f),
                  keg_progress_fn *progress, void *arg)
{
    struct check check = {.keg = keg, .found = found, .progress = progress, .arg = arg};
    int err;

    pthread_mutex_lock(&keg->compact_lock);
    err = segment_get_members(keg, &check.members, &check.count);
    if (!err) {
        err = check_all(&check);
        segment_put_members(keg, check.members, check.count);
    }
    pthread_mutex_unlock(&keg->compact_lock);
    return err ? err : check.findings;
}
