/* SPDX-License-Identifier: MIT */
/*
 * What a compaction writes: compacted segments with their hints, from records that come in order of
 * their keys. One thread. Memory: one frame under way (about OUTPUT_FRAME bytes, or one large
 * value), and the hint's block index.
 */
#ifndef OUTPUT_H
#define OUTPUT_H

#include "hint.h"
#include "store.h"

enum { OUTPUT_FRAME = 1 << 20, OUTPUT_RECORDS = 4096 };

struct output {
    struct keg *keg;
    struct segment **segments; /* those begun; the caller's after output_finish */
    size_t count;
    uint64_t bytes;  /* written in all */
    bool unreadable; /* an error was one of reading a value, not of writing */

    /* private */
    struct segment *segment;
    struct keg_file *file;
    struct hintfile_writer *hint;
    struct hint_entry *entries; /* of the frame under way */
    size_t entry_count;
    uint8_t *keys; /* their keys and metas */
    size_t keys_len;
    uint8_t *values; /* their values, as stored */
    size_t values_len, values_size;
    uint8_t *heads;
};

KEG_CHECKED int output_init(struct output *output, struct keg *keg);

/* Adds a record. from (NULL for one that is not a put): the file that holds its value, at
 * entry->offset. A value that fails its CRC is copied as it is. An error leaves nothing to do but
 * output_abandon. */
KEG_CHECKED int output_add(struct output *output, const struct hint_entry *entry,
                           struct keg_file *from);

/* Everything is on disk and durable, hints included. */
KEG_CHECKED int output_finish(struct output *output);

/* Frees the memory; the segments stay. */
void output_free(struct output *output);
/* Removes the segments (which are in no manifest), too. */
void output_abandon(struct output *output);

#endif
