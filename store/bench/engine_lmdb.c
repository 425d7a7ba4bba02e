/* SPDX-License-Identifier: MIT */
/*
 * LMDB as a peer. Each commit is written through (no MDB_WRITEMAP) and, unless a sync is asked for,
 * not synced (MDB_NOSYNC): what kill -9 and a power cut may take is then the same as with libkeg.
 */
#include "bench.h"
#include <errno.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct db {
    MDB_env *env;
    MDB_dbi dbi;
};

/* LMDB's own codes are negative and far from errno's. */
static int to_errno(int rc)
{
    if (rc == 0 || rc == MDB_NOTFOUND)
        return rc ? -ENOENT : 0;
    if (rc == MDB_MAP_FULL)
        return -ENOSPC;
    return rc > 0 ? -rc : -EIO;
}

static MDB_val as_val(struct keg_bytes bytes)
{
    return (MDB_val){bytes.len, (void *)(uintptr_t)bytes.data};
}

static int db_close(void *arg)
{
    struct db *db = arg;
    int rc = mdb_env_sync(db->env, 1);

    mdb_env_close(db->env);
    free(db);
    return to_errno(rc);
}

static int open_table(struct db *db)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(db->env, NULL, 0, &txn);

    if (rc)
        return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &db->dbi);
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int db_open(const struct bench_options *options, bool fresh, void **out)
{
    struct db *db = calloc(1, sizeof *db);
    int rc;

    if (!db)
        return -ENOMEM;
    if (fresh)
        mkdir(options->db, 0700); /* if it cannot be made, opening says so */
    rc = mdb_env_create(&db->env);
    if (!rc)
        rc = mdb_env_set_mapsize(db->env, (size_t)1 << 40);
    if (!rc)
        rc = mdb_env_open(db->env, options->db, MDB_NOSYNC | MDB_NORDAHEAD, 0600);
    if (!rc)
        rc = open_table(db);
    if (rc) {
        mdb_env_close(db->env);
        free(db);
        return to_errno(rc);
    }
    *out = db;
    return 0;
}

/* Ends a transaction that went as rc says. */
static int finish(struct db *db, MDB_txn *txn, int rc, bool sync)
{
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = mdb_txn_commit(txn);
    if (!rc && sync)
        rc = mdb_env_sync(db->env, 1);
    return to_errno(rc);
}

static int db_put(void *arg, const struct bench_pair *pairs, size_t count, bool sync)
{
    struct db *db = arg;
    MDB_txn *txn;
    int rc = mdb_txn_begin(db->env, NULL, 0, &txn);

    if (rc)
        return to_errno(rc);
    for (size_t i = 0; i < count && !rc; i++) {
        MDB_val key = as_val(pairs[i].key), value = as_val(pairs[i].value);

        rc = mdb_put(txn, db->dbi, &key, &value, 0);
    }
    return finish(db, txn, rc, sync);
}

static int db_delete(void *arg, struct keg_bytes bytes, bool sync)
{
    struct db *db = arg;
    MDB_val key = as_val(bytes);
    MDB_txn *txn;
    int rc = mdb_txn_begin(db->env, NULL, 0, &txn);

    if (rc)
        return to_errno(rc);
    rc = mdb_del(txn, db->dbi, &key, NULL);
    return finish(db, txn, rc == MDB_NOTFOUND ? 0 : rc, sync);
}

static ssize_t db_get(void *arg, struct keg_bytes bytes, void *buf, size_t size)
{
    struct db *db = arg;
    MDB_val key = as_val(bytes), value;
    MDB_txn *txn;
    int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn);

    if (rc)
        return to_errno(rc);
    rc = mdb_get(txn, db->dbi, &key, &value);
    if (!rc)
        memcpy(buf, value.mv_data, value.mv_size < size ? value.mv_size : size);
    mdb_txn_abort(txn);
    return rc ? to_errno(rc) : (ssize_t)value.mv_size;
}

static int64_t db_scan(void *arg, uint64_t limit, void *buf, size_t size, uint64_t *bytes)
{
    struct db *db = arg;
    MDB_cursor *cursor;
    MDB_txn *txn;
    MDB_val key, value;
    uint64_t count = 0;
    int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn);

    if (rc)
        return to_errno(rc);
    rc = mdb_cursor_open(txn, db->dbi, &cursor);
    if (!rc) {
        while (count < limit && !(rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
            memcpy(buf, value.mv_data, value.mv_size < size ? value.mv_size : size);
            *bytes += key.mv_size + value.mv_size;
            count++;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return rc && rc != MDB_NOTFOUND ? to_errno(rc) : (int64_t)count;
}

static int db_compact(void *arg)
{
    (void)arg; /* it reuses its pages in place */
    return 0;
}

static void db_describe(void *arg, FILE *out)
{
    struct db *db = arg;
    MDB_envinfo info;
    MDB_stat stat;

    mdb_env_stat(db->env, &stat);
    mdb_env_info(db->env, &info);
    fprintf(out, "keys %zu, data bytes %" PRIu64 "\n", stat.ms_entries,
            (uint64_t)(info.me_last_pgno + 1) * stat.ms_psize);
}

const struct bench_engine engine_lmdb = {
    .name = "lmdb",
    .open = db_open,
    .close = db_close,
    .put = db_put,
    .del = db_delete,
    .get = db_get,
    .scan = db_scan,
    .compact = db_compact,
    .describe = db_describe,
};
