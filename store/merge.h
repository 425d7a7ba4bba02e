/* SPDX-License-Identifier: MIT */
/*
 * The hints of a compaction's inputs, walked together in order of key, and the question whether a
 * tombstone may go. One thread. Memory: a hint block and a block index for each segment.
 */
#ifndef MERGE_H
#define MERGE_H

#include "hint.h"
#include "hintfile.h"
#include "policy.h"
#include "store.h"

enum { MERGE_WATCHERS_MAX = 1024 };

struct merge_input {
    struct segment *segment;
    struct hintfile_reader *reader;
    struct hint_entry entry; /* the next one; its key and meta belong to the reader */
    bool more;
};

struct merge_watcher {
    struct segment *segment;
    struct hintfile_reader *reader;
    struct hint_entry entry;
    bool opened, more, unsound;
};

struct merge {
    struct keg *keg;
    struct merge_input inputs[POLICY_GROUP_MAX];
    size_t input_count;
    struct merge_watcher *watchers; /* the sealed members that are not inputs */
    size_t watcher_count;
    bool lost; /* a hint could not be read, and is to be made again */
    /* The key at hand, and which inputs have it. */
    struct keg_bytes key;
    bool at[POLICY_GROUP_MAX];
};

/* Opens the inputs' hints, which must be there (-EBADMSG, -ENOENT). The caller has references to
 * inputs and members until merge_free. */
KEG_CHECKED int merge_init(struct merge *merge, struct keg *keg, struct segment **inputs,
                           size_t input_count, struct segment **members, size_t member_count);
void merge_free(struct merge *merge);

/* 1: merge->key is the next one; 0: no more. The entries of the inputs that have it hold until the
 * next call. */
KEG_CHECKED int merge_next(struct merge *merge);

/* The input with the newest record of the key at hand. */
const struct merge_input *merge_newest(const struct merge *merge);

/* Whether a segment that is no input, and could be older than the sequence, may hold the key at
 * hand; true as well where that cannot be told. */
bool merge_hides(struct merge *merge, uint64_t sequence);

#endif
