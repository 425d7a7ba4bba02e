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
#include "manifest.h"
#include "repair.h"
#include "roll.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MANIFEST_MAX = 512 << 20 };

/* ---- The whole ---- */

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
    if (newer == -EIO) {
        keg_set_readonly(keg,
                         "%s: cannot be read (offset 0), and so not known to hold nothing: "
                         "read-only until 'kegfs check --repair'",
                         name);
        return 0;
    }
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
        if (segments[i].length > RECOVER_SEGMENT_MAX || segments[i].last_sequence > INT64_MAX)
            return false;
    }
    return open <= 1 && manifest->next_segment <= INT64_MAX && manifest->last_sequence <= INT64_MAX;
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
    if (err == -EIO)
        keg_say(keg, KEG_LOG_ERROR,
                "MANIFEST cannot be read: if it stays so, 'kegfs check --repair' makes a new one "
                "of the segments");
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

#define SEQUENCES_OF_AN_OPENING (UINT64_C(1) << 56)

static void finish_index(struct keg *keg)
{
    uint64_t last;

    pthread_mutex_lock(&keg->manifest_lock);
    last = segment_last_sequence_locked(keg);
    pthread_mutex_unlock(&keg->manifest_lock);
    /* Below INT64_MAX, up to which a repair keeps records, there is room for all that one opening
     * can put; so nothing is ever put that a repair would take for forged. */
    if (last > (uint64_t)INT64_MAX - SEQUENCES_OF_AN_OPENING)
        keg_set_readonly(keg, "a record has sequence %" PRIu64 ", which no store reaches", last);
    keg->next_sequence = last + 1;
    if (keg->tombstones)
        index_drop_tombstones(keg->index);
}

/* The MANIFEST that was read may be one whose publication failed, which poisoned the store and
 * ended an earlier process: then a loss of power brings back the one before. So it is published
 * anew before anything is done that rests on it. A disk without room for that is no reason not to
 * open. */
static int republish(struct keg *keg)
{
    int err;

    pthread_mutex_lock(&keg->manifest_lock);
    err = segment_publish_locked(keg);
    pthread_mutex_unlock(&keg->manifest_lock);
    return err == -ENOSPC || err == -EDQUOT ? 0 : err;
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
    err = continued ? republish(keg) : 0; /* roll_begin does so, too */
    if (!err)
        err = env_list(keg->env, remove_stray, keg);
    return err || continued ? err : roll_begin(keg);
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
