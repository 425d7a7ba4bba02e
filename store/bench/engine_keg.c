/* SPDX-License-Identifier: MIT */
#include "bench.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct db {
    struct keg_env *env;
    struct keg *keg;
};

static void say(void *arg, enum keg_level level, const char *line)
{
    (void)arg;
    if (level != KEG_LOG_INFO)
        fprintf(stderr, "kegbench: %s\n", line);
}

static int db_close(void *arg)
{
    struct db *db = arg;
    int err = keg_close(db->keg);

    keg_env_free(db->env);
    free(db);
    return err;
}

static int db_open(const struct bench_options *options, bool fresh, void **out)
{
    struct keg_options how = {
        .flags = fresh ? KEG_CREATE : 0, .segment_size = options->segment_size, .log = say};
    struct db *db = calloc(1, sizeof *db);
    int err;

    if (!db)
        return -ENOMEM;
    err = keg_env_posix(options->db, fresh, &db->env);
    if (!err)
        err = keg_open(db->env, &how, &db->keg);
    if (err)
        db_close(db);
    else
        *out = db;
    return err;
}

static int db_put(void *arg, const struct bench_pair *pairs, size_t count, bool sync)
{
    static _Thread_local struct keg_batch batch;
    struct db *db = arg;
    struct keg_bytes none = {0};
    unsigned flags = sync ? KEG_SYNC : 0;
    int err = 0;

    if (count == 1)
        return keg_put(db->keg, pairs[0].key, none, pairs[0].value, flags);
    keg_batch_clear(&batch);
    for (size_t i = 0; i < count && !err; i++)
        err = keg_batch_put(&batch, pairs[i].key, none, pairs[i].value);
    return err ? err : keg_commit(db->keg, &batch, flags);
}

static int db_delete(void *arg, struct keg_bytes key, bool sync)
{
    struct db *db = arg;
    int err = keg_delete(db->keg, key, sync ? KEG_SYNC : 0);

    return err == -ENOENT ? 0 : err;
}

static ssize_t db_get(void *arg, struct keg_bytes key, void *buf, size_t size)
{
    struct db *db = arg;

    return keg_read(db->keg, key, 0, buf, size);
}

static int64_t db_scan(void *arg, uint64_t limit, void *buf, size_t size, uint64_t *bytes)
{
    struct db *db = arg;
    struct keg_iter *iter;
    struct keg_entry entry;
    ssize_t len;
    uint64_t count = 0;
    int more = keg_iter_open(db->keg, (struct keg_bytes){0}, &iter);

    if (more)
        return more;
    while (count < limit && (more = keg_iter_next(iter, &entry)) == 1) {
        len = keg_read(db->keg, entry.key, 0, buf, size);
        if (len < 0) {
            more = (int)len;
            break;
        }
        *bytes += entry.key.len + (size_t)len;
        count++;
    }
    keg_iter_close(iter);
    return more < 0 ? more : (int64_t)count;
}

static int db_compact(void *arg)
{
    struct db *db = arg;

    return keg_compact(db->keg, NULL, NULL);
}

static void db_describe(void *arg, FILE *out)
{
    struct db *db = arg;
    struct keg_stats stats;

    keg_stats(db->keg, &stats);
    fprintf(out,
            "keys %" PRIu64 ", segments %" PRIu64 ", live bytes %" PRIu64 ", data bytes %" PRIu64
            ", hint bytes %" PRIu64 ", index bytes %" PRIu64 " (%.1f a key)\n",
            stats.keys, stats.segments, stats.live_bytes, stats.data_bytes, stats.hint_bytes,
            stats.index_bytes, stats.keys ? (double)stats.index_bytes / (double)stats.keys : 0.0);
    fprintf(out,
            "since the opening: frames %" PRIu64 ", appends %" PRIu64 ", bytes appended %" PRIu64
            ", syncs %" PRIu64 " for %" PRIu64 " waiters, compactions %" PRIu64 "\n",
            stats.frames, stats.appends, stats.append_bytes, stats.syncs, stats.sync_waits,
            stats.compactions);
}

const struct bench_engine engine_keg = {
    .name = "keg",
    .open = db_open,
    .close = db_close,
    .put = db_put,
    .del = db_delete,
    .get = db_get,
    .scan = db_scan,
    .compact = db_compact,
    .describe = db_describe,
};
