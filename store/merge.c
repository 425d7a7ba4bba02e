/* SPDX-License-Identifier: MIT */
#include "merge.h"
#include "hints.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare(struct keg_bytes a, struct keg_bytes b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);

    if (order)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

/* A hint that is gone or damaged does not stay so: whoever wants it next makes it again. */
static int noted(struct merge *merge, struct segment *segment, int err)
{
    if (err == -ENOENT || err == -EBADMSG || err == -EIO)
        merge->lost = hints_lose(merge->keg, segment) || merge->lost;
    return err;
}

static int advance(struct merge *merge, struct merge_input *input)
{
    int more = hintfile_next(input->reader, &input->entry);

    input->more = more == 1;
    return more < 0 ? noted(merge, input->segment, more) : 0;
}

/* A hint that does not cover the whole segment does not do. */
static int open_whole(struct merge *merge, struct segment *segment, struct hintfile_reader **out)
{
    struct hint_info info;
    struct keg *keg = merge->keg;
    int err = hintfile_open(keg->env, keg->id, segment->id, &info, out);

    if (!err && info.length != atomic_load(&segment->length)) {
        hintfile_close(*out);
        *out = NULL;
        err = -EBADMSG;
    }
    return noted(merge, segment, err);
}

static bool is_input(const struct merge *merge, const struct segment *segment)
{
    for (size_t i = 0; i < merge->input_count; i++) {
        if (merge->inputs[i].segment == segment)
            return true;
    }
    return false;
}

int merge_init(struct merge *merge, struct keg *keg, struct segment **inputs, size_t input_count,
               struct segment **members, size_t member_count)
{
    int err = 0;

    memset(merge, 0, sizeof *merge);
    merge->keg = keg;
    merge->input_count = input_count;
    for (size_t i = 0; i < input_count; i++)
        merge->inputs[i].segment = inputs[i];
    merge->watchers = calloc(member_count + 1, sizeof *merge->watchers);
    if (!merge->watchers)
        return -ENOMEM;
    pthread_mutex_lock(&keg->manifest_lock);
    for (size_t i = 0; i < member_count; i++) {
        if (members[i]->sealed && !is_input(merge, members[i]))
            merge->watchers[merge->watcher_count++].segment = members[i];
    }
    pthread_mutex_unlock(&keg->manifest_lock);
    for (size_t i = 0; i < input_count && !err; i++) {
        struct merge_input *input = &merge->inputs[i];

        err = open_whole(merge, input->segment, &input->reader);
        if (!err)
            err = advance(merge, input);
        merge->at[i] = false;
    }
    if (err)
        merge_free(merge);
    return err;
}

void merge_free(struct merge *merge)
{
    for (size_t i = 0; i < merge->input_count; i++)
        hintfile_close(merge->inputs[i].reader);
    for (size_t i = 0; i < merge->watcher_count; i++)
        hintfile_close(merge->watchers[i].reader);
    free(merge->watchers);
    merge->watchers = NULL;
    merge->input_count = merge->watcher_count = 0;
}

int merge_next(struct merge *merge)
{
    const struct merge_input *least = NULL;
    int err;

    for (size_t i = 0; i < merge->input_count; i++) {
        if (!merge->at[i])
            continue;
        merge->at[i] = false;
        err = advance(merge, &merge->inputs[i]);
        if (err)
            return err;
    }
    for (size_t i = 0; i < merge->input_count; i++) {
        const struct merge_input *input = &merge->inputs[i];

        if (input->more && (!least || compare(input->entry.key, least->entry.key) < 0))
            least = input;
    }
    if (!least)
        return 0;
    merge->key = least->entry.key;
    for (size_t i = 0; i < merge->input_count; i++)
        merge->at[i] =
            merge->inputs[i].more && compare(merge->inputs[i].entry.key, merge->key) == 0;
    return 1;
}

const struct merge_input *merge_newest(const struct merge *merge)
{
    const struct merge_input *newest = NULL;

    for (size_t i = 0; i < merge->input_count; i++) {
        const struct merge_input *input = &merge->inputs[i];

        if (merge->at[i] && (!newest || input->entry.sequence > newest->entry.sequence))
            newest = input;
    }
    return newest;
}

/* Moves the watcher to the first key >= the one at hand. False: its hint cannot be used. */
static bool follow(struct merge *merge, struct merge_watcher *watcher)
{
    int more;

    if (watcher->unsound)
        return false;
    if (!watcher->opened) {
        watcher->opened = true;
        watcher->more = true;
        watcher->unsound = open_whole(merge, watcher->segment, &watcher->reader) != 0;
        if (watcher->unsound)
            return false;
    } else if (!watcher->more || compare(watcher->entry.key, merge->key) >= 0) {
        return true;
    }
    more = hintfile_seek(watcher->reader, merge->key);
    if (!more)
        more = hintfile_next(watcher->reader, &watcher->entry);
    watcher->more = more == 1;
    watcher->unsound = noted(merge, watcher->segment, more) < 0;
    return !watcher->unsound;
}

bool merge_hides(struct merge *merge, uint64_t sequence)
{
    size_t watched = 0;

    for (size_t i = 0; i < merge->watcher_count; i++) {
        struct merge_watcher *watcher = &merge->watchers[i];
        const struct segment *segment = watcher->segment;

        if (segment->records && segment->first_sequence > sequence)
            continue; /* all of it is newer */
        if (++watched > MERGE_WATCHERS_MAX || !follow(merge, watcher))
            return true;
        if (watcher->more && compare(watcher->entry.key, merge->key) == 0)
            return true;
    }
    return false;
}
