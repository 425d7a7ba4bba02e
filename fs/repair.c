/* SPDX-License-Identifier: MIT */
#include "repair.h"
#include "pathmap.h"
#include "report.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum item_kind { ITEM_VALUE, ITEM_RECORDS, ITEM_DOUBT, ITEM_NOTE, ITEM_TREE, ITEM_KINDS };
static const char *const kinds[ITEM_KINDS] = {"lost", "records", "doubt", "note", "tree"};

/* One thing that was told of. Paths are found at the end, when there is a volume. */
struct item {
    enum item_kind kind;
    char *text, *path;
    void *key;
    size_t key_len;
    struct keg_loss at; /* its numbers only */
};

struct repair {
    struct item *items;
    size_t count, capacity;
    uint64_t totals[ITEM_KINDS]; /* kept or not */
    size_t kept[ITEM_KINDS];
    bool no_memory;
    keg_progress_fn *progress;
    void *progress_arg;
};

static bool pass_progress(void *arg, uint64_t done, uint64_t total)
{
    struct repair *r = arg;
    return r->progress && r->progress(r->progress_arg, done, total);
}

static struct item *add(struct repair *r, enum item_kind kind, const char *text)
{
    r->totals[kind]++;
    if (r->kept[kind] >= CHECK_KEPT)
        return NULL;
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 64;
        struct item *items = realloc(r->items, capacity * sizeof *items);
        if (!items) {
            r->no_memory = true;
            return NULL;
        }
        r->items = items;
        r->capacity = capacity;
    }
    r->kept[kind]++;
    struct item *item = &r->items[r->count++];
    *item = (struct item){.kind = kind, .text = strdup(text)};
    r->no_memory = r->no_memory || !item->text;
    return item;
}

static void set_key(struct repair *r, struct item *item, struct keg_bytes key)
{
    item->key = key.len ? malloc(key.len) : NULL;
    if (item->key) {
        memcpy(item->key, key.data, key.len);
        item->key_len = key.len;
    }
    r->no_memory = r->no_memory || (key.len && !item->key);
}

static const char *doubt_text(struct keg_bytes key)
{
    struct keys_parsed parsed;
    if (keys_parse(key, &parsed) == 0 && parsed.kind == KEYS_NAME)
        return "the name may have been replaced or deleted by what is lost";
    if (keys_parse(key, &parsed) == 0 && parsed.kind == KEYS_EXTENT)
        return "a part of the contents may have been replaced or deleted by what is lost";
    return "may have been replaced or deleted by what is lost";
}

static void lost(void *arg, const struct keg_loss *loss)
{
    static const enum item_kind kind_of[] = {[KEG_LOSS_VALUE] = ITEM_VALUE,
                                             [KEG_LOSS_RECORDS] = ITEM_RECORDS,
                                             [KEG_LOSS_DOUBT] = ITEM_DOUBT,
                                             [KEG_LOSS_NOTE] = ITEM_NOTE};
    struct repair *r = arg;
    struct item *item = add(r, kind_of[loss->kind],
                            loss->kind == KEG_LOSS_DOUBT ? doubt_text(loss->key) : loss->text);
    if (!item)
        return;
    item->at = *loss;
    item->at.key = item->at.after = item->at.before = (struct keg_bytes){0};
    item->at.text = NULL;
    set_key(r, item, loss->key);
}

static void tree(void *arg, uint64_t ino, const char *text)
{
    struct repair *r = arg;
    struct item *item = add(r, ITEM_TREE, text);
    struct keys_key key;
    if (!item || !ino)
        return;
    keys_inode(&key, ino);
    set_key(r, item, keys_bytes(&key));
}

static void describe(struct repair *r, struct volume *volume)
{
    char path[PATH_MAX * 2];
    struct pathmap *map = NULL;
    if (r->count && pathmap_new(volume, &map))
        map = NULL;
    for (size_t i = 0; i < r->count; i++) {
        struct item *item = &r->items[i];
        if (!item->key_len)
            continue;
        int err = volume_describe(volume, map, (struct keg_bytes){item->key, item->key_len}, path,
                                  sizeof path);
        if (!err || err == -ENOENT)
            item->path = strdup(path);
    }
    pathmap_free(map);
}

/* ---- Printing ---- */

static void print_item(const struct item *item, FILE *out)
{
    const struct keg_loss *at = &item->at;
    if (item->path)
        fprintf(out, "%s: ", item->path);
    fputs(item->text ? item->text : "?", out);
    if (item->kind == ITEM_VALUE || item->kind == ITEM_RECORDS)
        fprintf(out, " (segment %" PRIu64 ", %" PRIu64 " bytes at %" PRIu64, at->segment, at->len,
                at->offset);
    if (item->kind == ITEM_RECORDS)
        fprintf(out, ", sequences %" PRIu64 " to ", at->first_sequence);
    if (item->kind == ITEM_RECORDS && at->last_sequence == UINT64_MAX)
        fputs("unknown", out);
    else if (item->kind == ITEM_RECORDS)
        fprintf(out, "%" PRIu64, at->last_sequence);
    if (item->kind == ITEM_VALUE || item->kind == ITEM_RECORDS)
        putc(')', out);
    if (item->kind == ITEM_NOTE && at->segment)
        fprintf(out, " (segment %" PRIu64 ")", at->segment);
    putc('\n', out);
}

static void print(const struct repair *r, bool changed, FILE *out)
{
    for (size_t i = 0; i < r->count; i++)
        print_item(&r->items[i], out);
    for (int kind = 0; kind < ITEM_KINDS; kind++) {
        if (r->totals[kind] > r->kept[kind])
            fprintf(out, "... and %" PRIu64 " more of \"%s\"\n", r->totals[kind] - r->kept[kind],
                    kinds[kind]);
    }
    if (!changed)
        fputs("nothing to repair\n", out);
    else
        fprintf(out,
                "repaired: %" PRIu64 " values lost, %" PRIu64 " gaps in the log, %" PRIu64
                " keys in doubt, %" PRIu64 " changes of the tree\n",
                r->totals[ITEM_VALUE], r->totals[ITEM_RECORDS], r->totals[ITEM_DOUBT],
                r->totals[ITEM_TREE]);
}

static void print_json_item(const struct item *item, FILE *out)
{
    const struct keg_loss *at = &item->at;
    fprintf(out, "{\"kind\": \"%s\", \"text\": ", kinds[item->kind]);
    report_json_string(out, item->text ? item->text : "?");
    fputs(", \"path\": ", out);
    if (item->path)
        report_json_string(out, item->path);
    else
        fputs("null", out);
    if (at->segment)
        fprintf(out, ", \"segment\": %" PRIu64, at->segment);
    if (item->kind == ITEM_VALUE || item->kind == ITEM_RECORDS)
        fprintf(out, ", \"offset\": %" PRIu64 ", \"length\": %" PRIu64, at->offset, at->len);
    if (item->kind == ITEM_RECORDS)
        fprintf(out, ", \"first_sequence\": %" PRIu64 ", \"last_sequence\": %" PRIu64,
                at->first_sequence, at->last_sequence);
    putc('}', out);
}

static void print_json(const struct repair *r, bool changed, bool sound, FILE *out)
{
    fprintf(out, "{\"repaired\": %s, \"sound\": %s", changed ? "true" : "false",
            sound ? "true" : "false");
    for (int kind = 0; kind < ITEM_KINDS; kind++)
        fprintf(out, ", \"%s\": %" PRIu64, kinds[kind], r->totals[kind]);
    fputs(", \"items\": [", out);
    for (size_t i = 0; i < r->count; i++) {
        fputs(i ? ",\n  " : "\n  ", out);
        print_json_item(&r->items[i], out);
    }
    fputs("]}\n", out);
}

/* ---- The whole ---- */

/* The store as anybody opens it: paths for what was told of, and the check. */
static int look_again(struct repair *r, const char *dir, struct check_result *result)
{
    const struct keg_options keg = {.flags = KEG_NO_BACKGROUND, .owner = "-"};
    const struct volume_options volume = {.flags = VOLUME_NO_BACKGROUND};
    struct openstore *s = malloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    int err = openstore_open(dir, &keg, &volume, s);
    if (!err) {
        describe(r, s->volume);
        err = check_run(s->keg, s->volume, NULL, NULL, result);
        int closed = openstore_close(s);
        err = err ? err : closed;
    }
    free(s);
    return err == -EBUSY ? -EAGAIN : err;
}

static void free_items(struct repair *r)
{
    for (size_t i = 0; i < r->count; i++) {
        free(r->items[i].text);
        free(r->items[i].path);
        free(r->items[i].key);
    }
    free(r->items);
}

int repair_run(const char *dir, bool json, FILE *out, bool *sound, keg_progress_fn *progress,
               void *arg, struct openstore *busy)
{
    struct repair r = {.progress = progress, .progress_arg = arg};
    struct check_result result = {0};
    int err = 0, done = openstore_repair(dir, lost, tree, pass_progress, &r, busy);
    *sound = false;
    if (done >= 0)
        err = look_again(&r, dir, &result);
    *sound = done >= 0 && !err && result.total == 0;
    if (json && done >= 0)
        print_json(&r, done, *sound, out);
    else if (done != -EBUSY)
        print(&r, done != 0, out);
    if (result.total && !json)
        check_print(&result, out);
    if (done >= 0 && !err && r.no_memory)
        err = -ENOMEM;
    check_free(&result);
    free_items(&r);
    return done < 0 ? done : err;
}
