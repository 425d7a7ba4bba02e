/* SPDX-License-Identifier: MIT */
/*
 * A MANIFEST made up from the segments that are there, when the real one is lost, damaged in both
 * copies, or older than the store. Each segment's header says of which store and kind it is, and
 * its footer whether it is sealed. What nothing says is whether a compaction had done with a
 * segment and not yet removed it, which takes a crash in that moment; then deleted keys can be
 * back, so it is said.
 */
#include "hintfile.h"
#include "repair.h"
#include "scan.h"
#include "segment.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct found {
    uint64_t id, size;
    bool sound; /* its header is, and of this id */
    struct format_segment header;
    struct format_footer footer; /* length 0: there is none */
    bool frames;                 /* a sound frame header stands behind the header */
    bool unread;                 /* either cannot be read */
};

struct survey {
    struct repair *repair;
    struct found *list;
    size_t count, capacity;
    uint64_t highest; /* id of any file */
    int err;
};

static int look(struct keg_env *env, const char *name, struct found *found)
{
    uint8_t bytes[FORMAT_SEGMENT_SIZE];
    struct format_frame frame;
    struct keg_file *file;
    int err = env_open(env, name, ENV_READ, &file);

    if (err)
        return err;
    err = env_size(file, &found->size);
    if (!err) {
        int unread = env_read_all(file, 0, bytes, sizeof bytes);

        found->unread = unread == -EIO;
        found->sound = !unread && format_segment_decode(bytes, &found->header) == 0 &&
                       found->header.id == found->id;
    }
    if (!err && found->sound && found->size >= FORMAT_SEGMENT_SIZE + FORMAT_FOOTER_SIZE) {
        uint64_t at = found->size - FORMAT_FOOTER_SIZE;

        if (env_read_all(file, at, bytes, FORMAT_FOOTER_SIZE) ||
            format_footer_decode(bytes, format_salt(found->header.store, found->id), at,
                                 &found->footer))
            found->footer = (struct format_footer){0};
    }
    if (!err && found->sound) {
        int unread = env_read_all(file, FORMAT_SEGMENT_SIZE, bytes, FORMAT_FRAME_SIZE);

        found->unread = unread == -EIO;
        found->frames =
            !unread && format_frame_decode(bytes, format_salt(found->header.store, found->id),
                                           FORMAT_SEGMENT_SIZE, &frame) == 0;
    }
    env_close(file);
    return err;
}

static int survey_file(void *arg, const char *name)
{
    struct survey *survey = arg;
    struct found *list;
    uint64_t id;

    /* The number of what an earlier repair has set aside is used up, too. */
    id = strtoull(name, NULL, 10);
    if (strspn(name, "0123456789") >= 8 && id < INT64_MAX && id > survey->highest)
        survey->highest = id;
    if (!segment_parse_name(name, &id) || !strstr(name, ".data") || id == 0 || id >= INT64_MAX)
        return 0;
    if (survey->count == survey->capacity) {
        size_t capacity = survey->capacity ? 2 * survey->capacity : 64;

        list = realloc(survey->list, capacity * sizeof *list);
        if (!list)
            return -ENOMEM;
        survey->list = list;
        survey->capacity = capacity;
    }
    survey->list[survey->count] = (struct found){.id = id};
    return look(survey->repair->keg->env, name, &survey->list[survey->count++]);
}

/* The id that most of the sound headers have. */
static bool choose_store(const struct survey *survey, uint8_t id[FORMAT_ID_SIZE])
{
    size_t best = 0;

    for (size_t i = 0; i < survey->count; i++) {
        const struct found *f = &survey->list[i];
        size_t votes = 0;

        for (size_t j = 0; f->sound && j < survey->count && j < 4096; j++)
            votes += survey->list[j].sound &&
                     memcmp(survey->list[j].header.store, f->header.store, FORMAT_ID_SIZE) == 0;
        if (votes > best) {
            best = votes;
            memcpy(id, f->header.store, FORMAT_ID_SIZE);
        }
        if (2 * best > survey->count)
            break;
    }
    return best > 0;
}

/* A segment with a damaged header: its hint knows the kind. A compacted one may hold its sequences
 * in any order, so that is what one is taken for of which nothing is known. */
static enum format_kind guess_kind(const struct repair *repair, uint64_t id)
{
    struct hintfile_reader *reader;
    enum format_kind kind = FORMAT_COMPACTED;
    struct hint_info info;

    if (hintfile_open(repair->keg->env, repair->keg->id, id, &info, &reader) == 0) {
        kind = info.kind;
        hintfile_close(reader);
    }
    return kind;
}

static bool is_ours(const struct survey *survey, const struct found *f)
{
    return !f->sound || memcmp(f->header.store, survey->repair->keg->id, FORMAT_ID_SIZE) == 0;
}

/* The active segment is the newest of the log, if nothing has sealed it. */
static uint64_t find_active(const struct survey *survey)
{
    const struct found *newest = NULL;

    for (size_t i = 0; i < survey->count; i++) {
        const struct found *f = &survey->list[i];

        if (f->sound && is_ours(survey, f) && f->header.kind == FORMAT_LOG &&
            (!newest || f->id > newest->id))
            newest = f;
    }
    return newest && !newest->footer.length ? newest->id : 0;
}

static int by_id(const void *left, const void *right)
{
    const struct found *a = left, *b = right;

    return (a->id > b->id) - (a->id < b->id);
}

/* Where the last sound frame ends, or what is bad behind it; offset of the end at hand. */
static int walk_frames(struct scan *scan, uint64_t *at)
{
    struct format_frame frame;
    enum scan_found found;
    uint64_t next;
    int err;

    for (;;) {
        err = scan_look(scan, *at, &found);
        if (err || found == SCAN_END || found == SCAN_FOOTER)
            return err;
        if (found == SCAN_FRAME) {
            scan->last_sequence = scan->highest;
            *at = scan_next(scan);
            continue;
        }
        err = scan_search(scan, *at + FORMAT_ALIGN, &next, &frame);
        if (err || next >= scan->end)
            return err;
        *at = next;
    }
}

/* Where the log ends in the active segment: before the zeros ahead of it (ahead.c). Else with the
 * file: nobody knows how far it was durable, so what is bad at its end is damage, which is told of,
 * and not a torn tail, which is cut in silence. */
static int find_log_end(struct keg_env *env, const struct found *f, uint64_t *end)
{
    uint64_t at = FORMAT_SEGMENT_SIZE;
    char name[ENV_NAME_MAX + 1];
    struct keg_file *file;
    struct scan scan;
    int err;

    *end = f->size;
    segment_name(f->id, name);
    err = env_open(env, name, ENV_UNCACHED, &file);
    if (err)
        return err;
    err = scan_init(&scan, file, format_salt(f->header.store, f->id), f->size, true);
    if (!err) {
        scan.salvage = true;
        scan.last_sequence = f->header.last_sequence;
        err = walk_frames(&scan, &at);
        if (!err && scan_only_zeros(&scan, at, f->size))
            *end = at;
        scan_free(&scan);
    }
    env_close(file);
    return err;
}

/* Numbers that no store reaches are no guide. */
static void raise_last(struct manifest *manifest, uint64_t last)
{
    if (last > manifest->last_sequence && last <= INT64_MAX)
        manifest->last_sequence = last;
}

static int fill(const struct survey *survey, struct manifest *manifest)
{
    struct repair *repair = survey->repair;
    uint64_t active = find_active(survey);
    char name[ENV_NAME_MAX + 1];
    int err = 0;

    for (size_t i = 0; i < survey->count && !err; i++) {
        const struct found *f = &survey->list[i];
        bool footer = f->id != active && f->footer.last_sequence <= INT64_MAX;
        uint64_t length = f->size;
        bool useful = is_ours(survey, f) && f->size >= FORMAT_SEGMENT_SIZE && f->size < 1 << 30;

        if (!useful) {
            segment_name(f->id, name);
            err = repair_set_aside(repair, f->id, name);
            continue;
        }
        if (f->id == active)
            err = find_log_end(repair->keg->env, f, &length);
        manifest->segments[manifest->count++] = (struct manifest_segment){
            .id = f->id,
            .kind = f->sound ? f->header.kind : guess_kind(repair, f->id),
            .sealed = f->id != active,
            .length = length,
            .first_sequence = footer ? f->footer.first_sequence : 0,
            .last_sequence = footer ? f->footer.last_sequence : 0,
        };
        raise_last(manifest, f->footer.last_sequence);
        raise_last(manifest, f->sound ? f->header.last_sequence : 0);
    }
    return err;
}

static int make_up(struct survey *survey)
{
    struct repair *repair = survey->repair;
    struct manifest manifest = {.next_segment = survey->highest + 1};
    int err;

    if (!choose_store(survey, repair->keg->id)) {
        keg_say(repair->keg, KEG_LOG_ERROR, "no segment with a sound header is here");
        return -EBADMSG;
    }
    memcpy(manifest.store, repair->keg->id, FORMAT_ID_SIZE);
    manifest.segments = calloc(survey->count + 1, sizeof *manifest.segments);
    if (!manifest.segments)
        return -ENOMEM;
    qsort(survey->list, survey->count, sizeof *survey->list, by_id);
    err = fill(survey, &manifest);
    free(repair->manifest.segments);
    repair->manifest = manifest;
    repair->publish = true;
    repair_note(
        repair, 0,
        "MANIFEST made anew from %zu segments; if a compaction was cut off before, keys that "
        "were deleted can be back",
        manifest.count);
    return err;
}

int rebuild_manifest(struct repair *repair)
{
    struct survey survey = {.repair = repair};
    int err = env_list(repair->keg->env, survey_file, &survey);

    if (!err)
        err = make_up(&survey);
    free(survey.list);
    return err;
}

int rebuild_proves_newer(struct keg *keg, uint64_t id)
{
    struct found found = {.id = id};
    char name[ENV_NAME_MAX + 1];
    int err;

    segment_name(id, name);
    err = look(keg->env, name, &found);
    if (err)
        return err == -ENOENT ? 0 : err;
    if (found.unread)
        return -EIO;
    return found.sound && found.frames && found.header.kind == FORMAT_LOG &&
           memcmp(found.header.store, keg->id, FORMAT_ID_SIZE) == 0;
}

/* What the manifest cannot know and cannot be read may hold nothing, as what a roll that was cut
 * off leaves, or be newer. So it is not in the store, and is not removed as a left-over either. */
static int set_unread_aside(const struct survey *survey, uint64_t next_segment)
{
    struct repair *repair = survey->repair;
    int err = 0;

    for (size_t i = 0; i < survey->count && !err; i++) {
        const struct found *f = &survey->list[i];

        if (f->id < next_segment || !f->unread)
            continue;
        repair_note(repair, f->id,
                    "MANIFEST does not know it, and it cannot be read: if it holds anything, that "
                    "is not in the store");
        err = repair_set_segment_aside(repair, f->id);
        repair->publish = true;
        repair->lost_records = true; /* its sequences, if it has any, are not used again */
    }
    return err;
}

int rebuild_is_newer(struct repair *repair)
{
    const struct manifest *manifest = &repair->manifest;
    struct survey survey = {.repair = repair};
    int err = env_list(repair->keg->env, survey_file, &survey), newer = 0;
    bool missing = false;

    for (size_t i = 0; i < manifest->count && !err; i++) {
        bool there = false;

        for (size_t j = 0; j < survey.count; j++)
            there = there || survey.list[j].id == manifest->segments[i].id;
        missing = missing || !there;
    }
    for (size_t i = 0; i < survey.count && !err; i++) {
        const struct found *f = &survey.list[i];

        if (f->id < manifest->next_segment || !f->sound || !is_ours(&survey, f))
            continue;
        if (f->header.kind == FORMAT_LOG ? f->frames : missing && f->footer.length)
            newer = 1;
    }
    if (!err && !newer)
        err = set_unread_aside(&survey, manifest->next_segment);
    /* What a repair that was cut off has left keeps its number. */
    if (survey.highest >= manifest->next_segment)
        repair->manifest.next_segment = survey.highest + 1;
    free(survey.list);
    return err ? err : newer;
}
