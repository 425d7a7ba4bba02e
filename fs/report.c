/* SPDX-License-Identifier: MIT */
#include "report.h"
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

struct measured {
    struct keg_stats store;
    struct volume_memory memory;
    uint64_t waiting_bytes;
};

/* One row for each figure: the three formats are loops over it. */
static const struct figure {
    const char *name; /* in JSON, and in metrics behind "kegfs_" */
    size_t offset;
    bool counter; /* only grows (while the store is open) */
    const char *help;
} figures[] = {
#define ROW(name, field, counter, help)                                                            \
    {                                                                                              \
        name, offsetof(struct measured, field), counter, help                                      \
    }
#define F(field, counter, help) ROW(#field, store.field, counter, help)
#define M(field, help)          ROW(#field, memory.field, false, help)
    F(keys, false, "live keys"),
    F(segments, false, "segments, the active one included"),
    F(live_bytes, false, "bytes of live records, with their heads"),
    F(data_bytes, false, "bytes of segments"),
    F(hint_bytes, false, "bytes of hints"),
    F(index_bytes, false, "memory the index takes"),
    F(free_bytes, false, "bytes free on the store's filesystem, less the reserve"),
    F(total_bytes, false, "bytes of the store's filesystem"),
    F(sequence, true, "last sequence number used"),
    F(puts, true, "records put"),
    F(deletes, true, "records deleted"),
    F(frames, true, "batches committed"),
    F(appends, true, "writes to the log"),
    F(append_bytes, true, "bytes appended to the log"),
    F(syncs, true, "syncs of the log"),
    F(sync_waits, true, "callers that shared those syncs"),
    F(reads, true, "values read"),
    F(read_bytes, true, "bytes of values read"),
    F(damaged_reads, true, "reads that failed their checksum"),
    F(compactions, true, "compactions"),
    F(compacted_bytes, true, "bytes written by compaction"),
    F(hints_written, true, "hints written"),
    F(recovered_segments, false, "segments scanned at open for want of a sound hint"),
    M(known_inodes, "inodes that the kernel knows, or that are changed in memory"),
    M(held_inodes, "of them, changed and not logged yet"),
    M(queued, "inodes and contents to be reclaimed"),
    M(table_bytes, "memory these three take"),
    ROW("waiting_bytes", waiting_bytes, false, "memory of requests that wait for a sync"),
#undef ROW
#undef F
#undef M
};
enum { FIGURES = sizeof figures / sizeof figures[0] };

static void measure(const struct report *r, struct measured *measured)
{
    keg_stats(r->keg, &measured->store);
    volume_memory(r->volume, &measured->memory);
    measured->waiting_bytes = r->requests ? requests_waiting(r->requests) : 0;
}

static uint64_t figure_of(const struct measured *measured, size_t i)
{
    uint64_t value;
    memcpy(&value, (const char *)measured + figures[i].offset, sizeof value);
    return value;
}

static uint64_t inodes_of(const struct report *r)
{
    struct volume_statfs fs;
    return volume_statfs(r->volume, &fs) ? 0 : fs.inodes;
}

/* Length of the UTF-8 sequence at s, 0 when it is none. */
static size_t utf8_len(const unsigned char *s)
{
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] > 0xf4 || (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

void report_json_string(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    putc('"', out);
    while (*s) {
        size_t len = utf8_len(s);
        if (!len)
            fputs("\\ufffd", out);
        else if (*s < 0x20 || *s == 0x7f)
            fprintf(out, "\\u%04x", *s);
        else if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else
            fwrite(s, 1, len, out);
        s += len ? len : 1;
    }
    putc('"', out);
}

static void string_or_null(FILE *out, const char *name, const char *value)
{
    fprintf(out, "  \"%s\": ", name);
    if (value)
        report_json_string(out, value);
    else
        fputs("null", out);
    fputs(",\n", out);
}

static void requests_json(const struct requests *requests, FILE *out)
{
    const char *comma = "";
    fputs("  \"requests\": {", out);
    for (uint32_t op = 0; requests && op < REQUESTS_MAX; op++) {
        uint64_t n = requests_get(requests, op);
        if (!n)
            continue;
        fprintf(out, "%s\"%s\": %" PRIu64, comma, requests_name(op), n);
        comma = ", ";
    }
    fputs("}\n", out);
}

void report_stats_json(const struct report *r, FILE *out)
{
    struct measured stats;
    const char *why = keg_readonly_reason(r->keg);
    measure(r, &stats);
    fputs("{\n", out);
    string_or_null(out, "store", r->store);
    string_or_null(out, "mountpoint", r->mountpoint);
    string_or_null(out, "transport", r->transport ? atomic_load(r->transport) : NULL);
    fprintf(out, "  \"pid\": %d,\n", (int)getpid());
    fprintf(out, "  \"readonly\": %s,\n", why ? "true" : "false");
    string_or_null(out, "readonly_reason", why);
    fprintf(out, "  \"inodes\": %" PRIu64 ",\n", inodes_of(r));
    for (size_t i = 0; i < FIGURES; i++)
        fprintf(out, "  \"%s\": %" PRIu64 ",\n", figures[i].name, figure_of(&stats, i));
    requests_json(r->requests, out);
    fputs("}\n", out);
}

void report_stats(const struct report *r, FILE *out)
{
    struct measured stats;
    const char *why = keg_readonly_reason(r->keg);
    measure(r, &stats);
    fprintf(out, "%-20s %s\n", "store", r->store);
    if (r->mountpoint)
        fprintf(out, "%-20s %s (pid %d, %s)\n", "mounted at", r->mountpoint, (int)getpid(),
                r->transport ? atomic_load(r->transport) : "?");
    if (why)
        fprintf(out, "%-20s %s\n", "read-only", why);
    fprintf(out, "%-20s %-20" PRIu64 " inodes in use\n", "inodes", inodes_of(r));
    for (size_t i = 0; i < FIGURES; i++)
        fprintf(out, "%-20s %-20" PRIu64 " %s\n", figures[i].name, figure_of(&stats, i),
                figures[i].help);
    for (uint32_t op = 0; r->requests && op < REQUESTS_MAX; op++) {
        uint64_t n = requests_get(r->requests, op);
        if (n)
            fprintf(out, "%-20s %-20" PRIu64 " requests\n", requests_name(op), n);
    }
}

static void metric_head(FILE *out, const char *name, const char *suffix, const char *help,
                        const char *type)
{
    fprintf(out, "# HELP kegfs_%s%s %s\n# TYPE kegfs_%s%s %s\n", name, suffix, help, name, suffix,
            type);
}

void report_metrics(const struct report *r, FILE *out)
{
    struct measured stats;
    measure(r, &stats);
    metric_head(out, "readonly", "", "1: the store refuses changes", "gauge");
    fprintf(out, "kegfs_readonly %d\n", keg_readonly_reason(r->keg) ? 1 : 0);
    metric_head(out, "inodes", "", "inodes in use", "gauge");
    fprintf(out, "kegfs_inodes %" PRIu64 "\n", inodes_of(r));
    for (size_t i = 0; i < FIGURES; i++) {
        const char *suffix = figures[i].counter ? "_total" : "";
        metric_head(out, figures[i].name, suffix, figures[i].help,
                    figures[i].counter ? "counter" : "gauge");
        fprintf(out, "kegfs_%s%s %" PRIu64 "\n", figures[i].name, suffix, figure_of(&stats, i));
    }
    metric_head(out, "requests", "_total", "requests of the kernel", "counter");
    for (uint32_t op = 0; r->requests && op < REQUESTS_MAX; op++) {
        uint64_t n = requests_get(r->requests, op);
        if (n)
            fprintf(out, "kegfs_requests_total{opcode=\"%s\"} %" PRIu64 "\n", requests_name(op), n);
    }
}

static const char *kind_of(const struct keg_segment_info *s)
{
    return s->compacted ? "compacted" : s->sealed ? "log" : "active";
}

static int segment_row(void *arg, const struct keg_segment_info *s)
{
    fprintf(arg,
            "%8" PRIu64 " %-9s %12" PRIu64 " %12" PRIu64 " %5.1f%% %12" PRIu64 " %14" PRIu64
            " %14" PRIu64 "\n",
            s->id, kind_of(s), s->bytes, s->live_bytes,
            s->bytes ? 100.0 * (double)s->live_bytes / (double)s->bytes : 0.0, s->hint_bytes,
            s->first_sequence, s->last_sequence);
    return 0;
}

int report_segments(const struct report *r, FILE *out)
{
    fprintf(out, "%8s %-9s %12s %12s %6s %12s %14s %14s\n", "segment", "kind", "bytes", "live",
            "live", "hint", "first seq", "last seq");
    return keg_segments(r->keg, segment_row, out);
}

struct rows {
    FILE *out;
    const char *comma;
};

static int segment_json(void *arg, const struct keg_segment_info *s)
{
    struct rows *rows = arg;
    fprintf(rows->out,
            "%s\n  {\"id\": %" PRIu64 ", \"kind\": \"%s\", \"sealed\": %s, \"bytes\": %" PRIu64
            ", \"live_bytes\": %" PRIu64 ", \"hint_bytes\": %" PRIu64
            ", \"first_sequence\": %" PRIu64 ", \"last_sequence\": %" PRIu64 "}",
            rows->comma, s->id, kind_of(s), s->sealed ? "true" : "false", s->bytes, s->live_bytes,
            s->hint_bytes, s->first_sequence, s->last_sequence);
    rows->comma = ",";
    return 0;
}

int report_segments_json(const struct report *r, FILE *out)
{
    struct rows rows = {out, ""};
    putc('[', out);
    int err = keg_segments(r->keg, segment_json, &rows);
    fputs("\n]\n", out);
    return err;
}
