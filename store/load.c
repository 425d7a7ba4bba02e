/* SPDX-License-Identifier: MIT */
/*
 * Hints are sorted, so the index need not be put together key by key: they are merged, the newest
 * record of each key goes on, and the tree is built from its leaves (index_build.c). The key space
 * is cut into parts of about the same size, by the first keys of the hints' blocks, and each part
 * is merged by a thread of its own, with readers of its own.
 *
 * A hint is verified as a whole although nobody reads it whole: the parts together must meet as
 * many entries as its trailer says.
 */
#include "load.h"
#include "format.h"
#include "hintfile.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PARTS_MAX = 8,
    PART_BLOCKS = 256, /* fewer are not worth a thread */
    SAMPLES = 1 << 14, /* first keys of blocks that the cuts are chosen from */
};

struct source {
    struct hintfile_reader *reader;
    struct hint_entry entry; /* the next one; key and meta belong to the reader */
    size_t hint;             /* which of the hints it reads */
    uint64_t met;            /* entries of this part */
    uint64_t live_bytes;
};

/* The keys >= from and < to; without data there is no bound. */
struct part {
    const struct load_hint *hints;
    struct keg_bytes from, to;
    struct source *sources;
    size_t count;
    struct source **heap; /* least key first, and of one key the newest record */
    size_t heap_count;
    bool keep, tombstones;
    struct index_build *build;
    size_t failed; /* the hint that turned out unsound, if the error is -EBADMSG */
    int error;
    pthread_t thread;
    size_t last_len;
    uint8_t last[KEG_KEY_MAX]; /* the key met last */
};

struct load {
    struct keg *keg;
    struct load_hint *hints;
    size_t count;
    struct part parts[PARTS_MAX];
    size_t part_count;
};

size_t load_hints_max(void)
{
    long files = sysconf(_SC_OPEN_MAX);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t parts = processors < 1 ? 1 : processors > PARTS_MAX ? PARTS_MAX : (size_t)processors;
    size_t most = files < 64 ? 16 : (size_t)files / 4;

    return most / parts ? most / parts : 1;
}

static int compare(struct keg_bytes a, struct keg_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* ---- The heap ---- */

static bool comes_before(const struct source *a, const struct source *b)
{
    int order = compare(a->entry.key, b->entry.key);

    if (order)
        return order < 0;
    return a->entry.sequence != b->entry.sequence ? a->entry.sequence > b->entry.sequence
                                                  : a->hint < b->hint;
}

static void sift_down(struct part *part, size_t at)
{
    struct source **heap = part->heap, *moved = heap[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= part->heap_count)
            break;
        if (child + 1 < part->heap_count && comes_before(heap[child + 1], heap[child]))
            child++;
        if (!comes_before(heap[child], moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* ---- One part ---- */

/* 1: the source has an entry of this part; 0: no more; an error. */
static int advance(struct part *part, struct source *source)
{
    int more = hintfile_next(source->reader, &source->entry);

    if (more == 1 && part->to.data && compare(source->entry.key, part->to) >= 0)
        return 0;
    if (more == 1)
        source->met++;
    else if (more < 0)
        part->failed = source->hint;
    return more;
}

static int begin(struct part *part)
{
    part->heap_count = 0;
    for (size_t i = 0; i < part->count; i++) {
        struct source *source = &part->sources[i];
        int more = part->from.data ? hintfile_seek(source->reader, part->from) : 0;

        if (more < 0)
            part->failed = source->hint;
        else
            more = advance(part, source);
        if (more < 0)
            return more;
        if (more)
            part->heap[part->heap_count++] = source;
    }
    for (size_t i = part->heap_count / 2; i-- > 0;)
        sift_down(part, i);
    return 0;
}

/* The newest record of a key. */
static int take(struct part *part, struct source *source)
{
    const struct hint_entry *entry = &source->entry;
    struct index_place place = {.sequence = entry->sequence,
                                .offset = entry->offset,
                                .slot = part->hints[source->hint].segment->slot,
                                .value_len = entry->value_len,
                                .crc = entry->crc,
                                .tombstone = entry->type == FORMAT_TOMBSTONE};

    memcpy(part->last, entry->key.data, entry->key.len);
    part->last_len = entry->key.len;
    if (place.tombstone) {
        part->tombstones = true;
        if (!part->keep)
            return 0;
    } else {
        source->live_bytes +=
            format_record_cost(entry->key.len, entry->meta.len, entry->value_len, entry->type);
    }
    return index_build_add(part->build, entry->key, &place, entry->meta);
}

static int merge(struct part *part)
{
    int err = begin(part);

    while (!err && part->heap_count) {
        struct source *source = part->heap[0];
        struct keg_bytes last = {part->last, part->last_len};

        if (!part->last_len || compare(source->entry.key, last) != 0)
            err = take(part, source);
        if (err)
            break;
        err = advance(part, source);
        if (err < 0)
            break;
        if (err == 0)
            part->heap[0] = part->heap[--part->heap_count];
        err = 0;
        if (part->heap_count)
            sift_down(part, 0);
    }
    return err;
}

static void *run(void *arg)
{
    struct part *part = arg;

    part->error = merge(part);
    return NULL;
}

/* ---- Cutting the key space ---- */

static int by_key(const void *a, const void *b)
{
    return compare(*(const struct keg_bytes *)a, *(const struct keg_bytes *)b);
}

static uint64_t count_blocks(const struct part *part)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < part->count; i++)
        blocks += hintfile_blocks(part->sources[i].reader);
    return blocks;
}

static size_t choose_part_count(uint64_t blocks)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t parts = blocks / PART_BLOCKS;

    if (processors > 0 && parts > (uint64_t)processors)
        parts = (uint64_t)processors;
    return parts < 1 ? 1 : parts > PARTS_MAX ? PARTS_MAX : (size_t)parts;
}

/* Bounds from the blocks of the first part's readers, which outlive the parts' use of them. */
static int cut(struct load *load, uint64_t blocks)
{
    const struct part *first = &load->parts[0];
    uint64_t stride = blocks / SAMPLES + 1;
    struct keg_bytes *samples = calloc((size_t)(blocks / stride) + 1, sizeof *samples);
    size_t count = 0;
    uint64_t block = 0;

    if (!samples)
        return -ENOMEM;
    for (size_t i = 0; i < first->count; i++) {
        size_t own = hintfile_blocks(first->sources[i].reader);

        for (size_t j = 0; j < own; j++)
            if (block++ % stride == 0)
                samples[count++] = hintfile_block_key(first->sources[i].reader, j);
    }
    qsort(samples, count, sizeof *samples, by_key);
    for (size_t i = 1; i < load->part_count; i++) {
        load->parts[i].from = samples[i * count / load->part_count];
        load->parts[i - 1].to = load->parts[i].from;
    }
    free(samples);
    return 0;
}

/* ---- The whole ---- */

static int open_part(struct load *load, struct part *part, bool keep)
{
    struct hint_info info;
    int err = index_build_new(&part->build);

    part->hints = load->hints;
    part->keep = keep;
    part->sources = calloc(load->count + 1, sizeof *part->sources);
    part->heap = calloc(load->count + 1, sizeof(struct source *));
    if (err || !part->sources || !part->heap)
        return -ENOMEM;
    for (size_t i = 0; i < load->count && !err; i++) {
        part->sources[i].hint = part->failed = i;
        err = hintfile_open(load->keg->env, load->keg->id, load->hints[i].segment->id, &info,
                            &part->sources[i].reader);
        if (!err)
            part->count++;
    }
    return err;
}

static void close_part(struct part *part)
{
    for (size_t i = 0; i < part->count; i++)
        hintfile_close(part->sources[i].reader);
    free(part->sources);
    free(part->heap);
    index_build_free(part->build);
}

static int run_all(struct load *load)
{
    size_t started = 1;
    int err = 0;

    while (started < load->part_count &&
           pthread_create(&load->parts[started].thread, NULL, run, &load->parts[started]) == 0)
        started++;
    run(&load->parts[0]);
    for (size_t i = started; i < load->part_count; i++)
        run(&load->parts[i]); /* no thread to be had for it */
    for (size_t i = 1; i < started; i++)
        pthread_join(load->parts[i].thread, NULL);
    for (size_t i = 0; i < load->part_count; i++) {
        struct part *part = &load->parts[i];

        if (part->error == -EBADMSG || part->error == -EIO)
            load->hints[part->failed].unsound = true;
        if (part->error && (!err || err == -EBADMSG || err == -EIO))
            err = part->error;
    }
    return err == -EIO ? -EBADMSG : err;
}

/* All entries of each hint were met, by one part or another. */
static int settle(struct load *load, bool *tombstones)
{
    int err = 0;

    for (size_t i = 0; i < load->count; i++) {
        struct load_hint *hint = &load->hints[i];
        uint64_t met = 0;

        hint->live_bytes = 0;
        for (size_t j = 0; j < load->part_count; j++) {
            met += load->parts[j].sources[i].met;
            hint->live_bytes += load->parts[j].sources[i].live_bytes;
        }
        hint->unsound = met != hintfile_entries(load->parts[0].sources[i].reader);
        if (hint->unsound)
            err = -EBADMSG;
    }
    for (size_t i = 0; i < load->part_count; i++)
        *tombstones = *tombstones || load->parts[i].tombstones;
    return err;
}

static int build(struct load *load, bool keep, bool *tombstones)
{
    struct part *first = &load->parts[0];
    uint64_t blocks;
    int err = open_part(load, first, keep);

    load->part_count = 1;
    if (!err) {
        blocks = count_blocks(first);
        size_t parts = choose_part_count(blocks);
        while (!err && load->part_count < parts)
            err = open_part(load, &load->parts[load->part_count++], keep);
        if (!err)
            err = cut(load, blocks);
    }
    if (err == -EBADMSG || err == -EIO || err == -ENOENT) {
        load->hints[load->parts[load->part_count - 1].failed].unsound = true;
        return -EBADMSG;
    }
    if (!err)
        err = run_all(load);
    return err ? err : settle(load, tombstones);
}

int load_hints(struct keg *keg, struct load_hint *hints, size_t count, bool keep,
               struct index **out, bool *tombstones)
{
    struct load load = {.keg = keg, .hints = hints, .count = count};
    struct index_build *builds[PARTS_MAX];
    int err = build(&load, keep, tombstones);

    if (!err) {
        for (size_t i = 0; i < load.part_count; i++) {
            builds[i] = load.parts[i].build;
            load.parts[i].build = NULL;
        }
        err = index_build_finish(builds, load.part_count, out);
    }
    for (size_t i = 0; i < load.part_count; i++)
        close_part(&load.parts[i]);
    return err;
}
