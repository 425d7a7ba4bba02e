/* SPDX-License-Identifier: MIT */
#include "check.h"
#include "pathmap.h"
#include "report.h"
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 8 }; /* findings that a map of all names is worth */

/*
 * keg_check calls back while it reads, perhaps with locks held, so the keys are only copied then
 * and are turned into paths when it has ended.
 */
struct collector {
    struct check_result *result;
    struct key {
        void *data;
        size_t len;
    } * keys; /* one for each kept finding of the store */
    size_t room;
    bool no_memory;
    keg_progress_fn *progress; /* the caller's; may be NULL */
    void *progress_arg;
};

static bool pass_progress(void *arg, uint64_t done, uint64_t total)
{
    struct collector *c = arg;
    return c->progress && c->progress(c->progress_arg, done, total);
}

static struct check_finding *add(struct collector *c, uint64_t *total)
{
    struct check_result *r = c->result;
    ++*total;
    if (r->kept >= CHECK_KEPT)
        return NULL;
    if (r->kept == c->room) {
        size_t room = c->room ? c->room * 2 : 64;
        struct check_finding *f = realloc(r->findings, room * sizeof *f);
        if (f)
            r->findings = f;
        struct key *k = realloc(c->keys, room * sizeof *k);
        if (k)
            c->keys = k;
        if (!f || !k) {
            c->no_memory = true;
            return NULL;
        }
        c->room = room;
    }
    c->keys[r->kept] = (struct key){0};
    r->findings[r->kept] = (struct check_finding){0};
    return &r->findings[r->kept++];
}

/* Of what was added last. */
static void keep_key(struct collector *c, struct keg_bytes bytes)
{
    struct key *key = &c->keys[c->result->kept - 1];
    if (bytes.len && (key->data = malloc(bytes.len))) {
        memcpy(key->data, bytes.data, bytes.len);
        key->len = bytes.len;
    }
    c->no_memory = c->no_memory || (bytes.len && !key->data);
}

static void found_in_store(void *arg, const struct keg_finding *f)
{
    struct collector *c = arg;
    struct check_finding *mine = add(c, &c->result->total);
    if (!mine)
        return;
    *mine = (struct check_finding){.segment = f->segment,
                                   .offset = f->offset,
                                   .in_store = true,
                                   .live = f->live,
                                   .text = strdup(f->text)};
    c->no_memory = c->no_memory || !mine->text;
    keep_key(c, f->key);
}

static void known_lost(void *arg, struct keg_bytes key, const char *text)
{
    struct collector *c = arg;
    struct check_finding *mine = add(c, &c->result->known);
    if (!mine)
        return;
    *mine = (struct check_finding){.live = true, .known = true, .text = strdup(text)};
    c->no_memory = c->no_memory || !mine->text;
    keep_key(c, key);
}

static void found_in_tree(void *arg, const char *text)
{
    struct collector *c = arg;
    struct check_finding *mine = add(c, &c->result->total);
    if (!mine)
        return;
    mine->live = true;
    mine->text = strdup(text);
    if (!mine->text)
        c->no_memory = true;
}

static void describe(struct collector *c, struct volume *volume)
{
    static const char unknown[] = "(no name)";
    char path[PATH_MAX * 2];
    struct pathmap *map = NULL;
    if (c->result->kept >= MANY && pathmap_new(volume, &map))
        map = NULL; /* it will take its time, then */
    for (size_t i = 0; i < c->result->kept; i++) {
        if (!c->keys[i].len)
            continue;
        strcpy(path, unknown);
        int err = volume_describe(volume, map, (struct keg_bytes){c->keys[i].data, c->keys[i].len},
                                  path, sizeof path);
        if (err && err != -ENOENT)
            strcpy(path, unknown);
        c->result->findings[i].path = strdup(path);
    }
    pathmap_free(map);
}

int check_run(struct keg *keg, struct volume *volume, keg_progress_fn *progress, void *arg,
              struct check_result *result)
{
    *result = (struct check_result){0};
    struct collector c = {.result = result, .progress = progress, .progress_arg = arg};
    ssize_t n = keg_check(keg, found_in_store, pass_progress, &c);
    if (n >= 0)
        n = volume_check(volume, found_in_tree, &c);
    if (n >= 0)
        n = volume_lost(volume, known_lost, &c);
    if (n >= 0)
        describe(&c, volume);
    for (size_t i = 0; i < result->kept; i++)
        free(c.keys[i].data);
    free(c.keys);
    return n < 0 ? (int)n : c.no_memory ? -ENOMEM : 0;
}

void check_free(struct check_result *result)
{
    for (size_t i = 0; i < result->kept; i++) {
        free(result->findings[i].text);
        free(result->findings[i].path);
    }
    free(result->findings);
    *result = (struct check_result){0};
}

void check_print(const struct check_result *r, FILE *out)
{
    for (size_t i = 0; i < r->kept; i++) {
        const struct check_finding *f = &r->findings[i];
        fprintf(out, "%s%s%s", f->path ? f->path : "", f->path ? ": " : "",
                f->text ? f->text : "?");
        if (f->in_store)
            fprintf(out, " (segment %" PRIu64 ", offset %" PRIu64 "%s)", f->segment, f->offset,
                    f->live ? "" : ", nothing live");
        putc('\n', out);
    }
    if (r->total + r->known > r->kept)
        fprintf(out, "... and %" PRIu64 " more\n", r->total + r->known - r->kept);
    if (r->total)
        fprintf(out, "%" PRIu64 " finding%s\n", r->total, r->total == 1 ? "" : "s");
    else if (!r->known)
        fputs("sound\n", out);
    if (r->known)
        fprintf(out, "%s%" PRIu64 " known to be lost since a repair: overwrite or remove %s\n",
                r->total ? "" : "sound, but not whole: ", r->known, r->known == 1 ? "it" : "them");
}

void check_print_json(const struct check_result *r, FILE *out)
{
    fprintf(out, "{\"total\": %" PRIu64 ", \"known_lost\": %" PRIu64 ", \"findings\": [", r->total,
            r->known);
    for (size_t i = 0; i < r->kept; i++) {
        const struct check_finding *f = &r->findings[i];
        fprintf(out, "%s\n  {\"text\": ", i ? "," : "");
        report_json_string(out, f->text ? f->text : "?");
        fputs(", \"path\": ", out);
        if (f->path)
            report_json_string(out, f->path);
        else
            fputs("null", out);
        if (f->in_store)
            fprintf(out, ", \"segment\": %" PRIu64 ", \"offset\": %" PRIu64, f->segment, f->offset);
        fprintf(out, ", \"live\": %s, \"known_lost\": %s}", f->live ? "true" : "false",
                f->known ? "true" : "false");
    }
    fputs("]}\n", out);
}
