/* SPDX-License-Identifier: MIT */
/*
 * kegbench: times libkeg, and LMDB where it was built with it, under db_bench's workloads, and
 * prints lines of db_bench's form:
 *
 *   fillseq      :       1.234 micros/op 810372 ops/sec 1.234 seconds 1000000 operations;   89.6
 * MB/s
 *
 * micros/op is a thread's: with several threads ops/sec counts them all.
 */
#include "bench.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct program {
    struct bench_options options;
    const struct bench_engine *engine;
    const char *benchmarks;
    void *db;
    char *values;
};

static const struct bench_engine *const engines[] = {
    &engine_keg,
#ifdef HAVE_LMDB
    &engine_lmdb,
#endif
};

static int fail(const char *what, const char *which, int err)
{
    fprintf(stderr, "kegbench: %s%s%s%s%s\n", what, which ? " " : "", which ? which : "",
            err ? ": " : "", err ? strerror(-err) : "");
    return err ? err : -EINVAL;
}

/* ---- Options ---- */

enum field_kind { NUMBER64, NUMBER32, FLAG, TEXT };
struct field {
    const char *name;
    enum field_kind kind;
    void *value;
    uint64_t least, most;
    const char *text;
};

static int parse_field(const struct field *field, const char *text)
{
    char *end;
    uint64_t number;

    if (field->kind == TEXT) {
        *(const char **)field->value = text;
        return 0;
    }
    errno = 0;
    number = strtoull(text, &end, 0);
    if (errno || end == text || *end || *text == '-' || number < field->least ||
        number > field->most)
        return fail("not a number in range:", text, 0);
    if (field->kind == NUMBER64)
        *(uint64_t *)field->value = number;
    else if (field->kind == NUMBER32)
        *(uint32_t *)field->value = (uint32_t)number;
    else
        *(bool *)field->value = number != 0;
    return 0;
}

static void usage(const struct field *fields)
{
    printf("usage: kegbench --db=DIR [--OPTION=VALUE...]\n\n");
    for (; fields->name; fields++)
        printf("  --%-16s %s\n", fields->name, fields->text);
    printf("\nworkloads, for --benchmarks=NAME,NAME...\n");
    for (const struct workloads_kind *kind = workloads_kinds; kind->name; kind++)
        printf("  %-22s %s\n", kind->name, kind->text);
}

static int parse_argument(const struct field *fields, const char *argument)
{
    const char *equals = strchr(argument, '=');

    if (strncmp(argument, "--", 2) != 0 || !equals)
        return fail("unknown argument, see --help:", argument, 0);
    for (; fields->name; fields++) {
        if (strlen(fields->name) == (size_t)(equals - argument - 2) &&
            strncmp(fields->name, argument + 2, strlen(fields->name)) == 0)
            return parse_field(fields, equals + 1);
    }
    return fail("unknown option, see --help:", argument, 0);
}

static int choose_engine(struct program *program, const char *name)
{
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        if (strcmp(engines[i]->name, name) == 0) {
            program->engine = engines[i];
            return 0;
        }
    }
    return fail("no such engine here:", name, 0);
}

/* 1: only help was wanted. */
static int parse(struct program *program, int argc, char **argv)
{
    struct bench_options *o = &program->options;
    const char *engine = "keg";
    const struct field fields[] = {
        {"db", TEXT, &o->db, 0, 0, "the store's directory; emptied by the fill workloads"},
        {"benchmarks", TEXT, &program->benchmarks, 0, 0, "what to run, in this order"},
        {"engine", TEXT, &engine, 0, 0, "keg or lmdb"},
        {"num", NUMBER64, &o->num, 1, UINT64_MAX, "keys, and puts a thread"},
        {"reads", NUMBER64, &o->reads, 0, UINT64_MAX, "reads a thread; 0: as num"},
        {"key_size", NUMBER32, &o->key_size, 8, BENCH_KEY_MAX, "bytes"},
        {"value_size", NUMBER32, &o->value_size, 0, KEG_VALUE_MAX, "bytes"},
        {"batch_size", NUMBER32, &o->batch_size, 1, BENCH_BATCH_MAX, "puts in a commit"},
        {"threads", NUMBER32, &o->threads, 1, 1024, "clients at a time"},
        {"sync", FLAG, &o->sync, 0, 1, "1: every commit is durable when it returns"},
        {"histogram", FLAG, &o->histogram, 0, 1, "1: print latencies"},
        {"use_existing_db", FLAG, &o->use_existing_db, 0, 1, "1: fill workloads empty nothing"},
        {"segment_size", NUMBER64, &o->segment_size, 0, UINT64_MAX, "keg: bytes; 0: its choice"},
        {"seed", NUMBER64, &o->seed, 0, UINT64_MAX, "of the random keys"},
        {0},
    };

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            usage(fields);
            return 1;
        }
        if (parse_argument(fields, argv[i]))
            return -EINVAL;
    }
    if (!o->db)
        return fail("--db=DIR says where; see --help", NULL, 0);
    if (!o->reads)
        o->reads = o->num;
    return choose_engine(program, engine);
}

/* ---- The database ---- */

/* Empties the directory of the last run, and of nothing else. */
static int remove_old(const char *dir)
{
    static const char *const ours[] = {".data", ".hint", ".mdb", "MANIFEST", "LOCK"};
    DIR *listing = opendir(dir);
    struct dirent *entry;

    if (!listing)
        return errno == ENOENT ? 0 : -errno;
    while ((entry = readdir(listing))) {
        size_t len = strlen(entry->d_name);

        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
            size_t tail = strlen(ours[i]);

            if (len >= tail && strcmp(entry->d_name + len - tail, ours[i]) == 0)
                unlinkat(dirfd(listing), entry->d_name, 0);
        }
    }
    closedir(listing);
    return 0;
}

static int ensure_open(struct program *program, bool fresh)
{
    int err = 0;

    fresh = fresh && !program->options.use_existing_db;
    if (program->db && !fresh)
        return 0;
    if (program->db)
        err = program->engine->close(program->db);
    program->db = NULL;
    if (!err && fresh)
        err = remove_old(program->options.db);
    if (!err)
        err = program->engine->open(&program->options, fresh, &program->db);
    return err ? fail("cannot open", program->options.db, err) : 0;
}

/* ---- Running one workload ---- */

struct gate { /* workers start together */
    pthread_barrier_t barrier;
    atomic_bool stop;
    const struct workloads_kind *kind;
};
struct job {
    struct workloads_worker worker;
    struct gate *gate;
    pthread_t thread;
    uint64_t begin, end; /* by its own clock: who opens the gate may get a CPU only much later */
};

static void *work(void *arg)
{
    struct job *job = arg;

    pthread_barrier_wait(&job->gate->barrier);
    job->begin = latency_now();
    job->gate->kind->run(&job->worker);
    job->end = latency_now();
    return NULL;
}

static void prepare(struct program *program, struct job *job, struct gate *gate, unsigned id,
                    char *bufs)
{
    const struct bench_options *o = &program->options;
    uint64_t ops = gate->kind->reads ? o->reads : o->num;

    if (gate->kind->sync)
        ops = ops / 1000 ? ops / 1000 : 1;
    job->gate = gate;
    job->worker = (struct workloads_worker){
        .engine = program->engine,
        .options = o,
        .db = program->db,
        .id = id,
        .random = (o->seed + id + 1) * 0x9e3779b97f4a7c15ULL | 1,
        .ops = ops,
        .stop = &gate->stop,
        .values = program->values,
        .buf = bufs + (size_t)id * (o->value_size + 1),
    };
}

static void print_line(const struct workloads_kind *kind, const struct bench_options *options,
                       const struct workloads_worker *sum, uint64_t ns)
{
    double seconds = (double)ns / 1e9, ops = (double)(sum->done ? sum->done : 1);

    printf("%-12s : %11.3f micros/op %.0f ops/sec %.3f seconds %" PRIu64 " operations;", kind->name,
           seconds * 1e6 * options->threads / ops, ops / seconds, seconds, sum->done);
    if (sum->bytes)
        printf(" %6.1f MB/s", (double)sum->bytes / 1048576.0 / seconds);
    if (kind->reads)
        printf(" (%" PRIu64 " of %" PRIu64 " found)", sum->found, sum->done);
    putchar('\n');
    if (options->histogram && sum->latency.total)
        printf("%-12s : ns: P50 %" PRIu64 " P99 %" PRIu64 " P99.9 %" PRIu64 " max %" PRIu64 "\n",
               kind->name, latency_quantile(&sum->latency, 0.5),
               latency_quantile(&sum->latency, 0.99), latency_quantile(&sum->latency, 0.999),
               sum->latency.max);
    fflush(stdout);
}

static int collect(const struct workloads_kind *kind, const struct bench_options *options,
                   struct job *jobs, uint64_t ns)
{
    struct workloads_worker *sum = &jobs[0].worker;

    for (unsigned i = 0; i < options->threads; i++) {
        const struct workloads_worker *worker = &jobs[i].worker;

        if (worker->error)
            return fail("failed:", kind->name, worker->error);
        if (i > 0) {
            sum->done += worker->done;
            sum->found += worker->found;
            sum->bytes += worker->bytes;
            latency_merge(&sum->latency, &worker->latency);
        }
    }
    print_line(kind, options, sum, ns);
    return 0;
}

/* The writer beside readers (worker 0) ends when they have. */
static void join_all(struct job *jobs, unsigned count, struct gate *gate)
{
    for (unsigned i = 1; i < count; i++)
        pthread_join(jobs[i].thread, NULL);
    if (count > 1 && strcmp(gate->kind->name, "readwhilewriting") == 0)
        atomic_store(&gate->stop, true);
    pthread_join(jobs[0].thread, NULL);
}

/* From the first worker's begin to the last one's end. */
static uint64_t elapsed(const struct job *jobs, unsigned count)
{
    uint64_t begin = jobs[0].begin, end = jobs[0].end;

    for (unsigned i = 1; i < count; i++) {
        begin = jobs[i].begin < begin ? jobs[i].begin : begin;
        end = jobs[i].end > end ? jobs[i].end : end;
    }
    return end - begin;
}

static int run(struct program *program, const struct workloads_kind *kind)
{
    const struct bench_options *o = &program->options;
    struct gate gate = {.kind = kind};
    struct job *jobs = calloc(o->threads, sizeof *jobs);
    char *bufs = calloc(o->threads, o->value_size + 1);
    int err = jobs && bufs ? ensure_open(program, kind->fresh) : -ENOMEM;

    if (!err) {
        pthread_barrier_init(&gate.barrier, NULL, o->threads + 1);
        for (unsigned i = 0; i < o->threads; i++) {
            prepare(program, &jobs[i], &gate, i, bufs);
            if (pthread_create(&jobs[i].thread, NULL, work, &jobs[i]))
                abort(); /* the others wait at the barrier: nothing to go back to */
        }
        pthread_barrier_wait(&gate.barrier);
        join_all(jobs, o->threads, &gate);
        err = collect(kind, o, jobs, elapsed(jobs, o->threads));
        pthread_barrier_destroy(&gate.barrier);
    }
    free(bufs);
    free(jobs);
    return err;
}

/* ---- All of them ---- */

static int run_named(struct program *program, const char *name, size_t len)
{
    char text[64];

    snprintf(text, sizeof text, "%.*s", (int)len, name);
    if (strcmp(text, "stats") == 0) {
        int err = ensure_open(program, false);

        if (!err)
            program->engine->describe(program->db, stdout);
        return err;
    }
    for (const struct workloads_kind *kind = workloads_kinds; kind->name; kind++) {
        if (strcmp(kind->name, text) == 0)
            return run(program, kind);
    }
    return fail("no such workload:", text, 0);
}

static int fill_values(struct program *program)
{
    size_t size = WORKLOADS_POOL + (size_t)program->options.value_size;
    uint64_t state = 88172645463325252ULL;

    program->values = malloc(size);
    if (!program->values)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        program->values[i] = (char)(state >> 32);
    }
    return 0;
}

static int run_all(struct program *program)
{
    const char *name = program->benchmarks;
    int err = fill_values(program), closed;

    printf("%s: keys %" PRIu32 " bytes, values %" PRIu32 " bytes, entries %" PRIu64
           ", batches of %" PRIu32 ", threads %u, sync %d\n",
           program->engine->name, program->options.key_size, program->options.value_size,
           program->options.num, program->options.batch_size, program->options.threads,
           program->options.sync);
    while (!err && *name) {
        size_t len = strcspn(name, ",");

        err = run_named(program, name, len);
        name += len + (name[len] == ',');
    }
    free(program->values);
    if (!program->db)
        return err;
    closed = program->engine->close(program->db);
    return err ? err : closed ? fail("cannot close", program->options.db, closed) : 0;
}

int main(int argc, char **argv)
{
    struct program program = {
        .options = {.num = 1000000,
                    .key_size = 16,
                    .value_size = 100,
                    .batch_size = 1,
                    .threads = 1,
                    .seed = 301},
        .benchmarks = "fillseq,fillrandom,overwrite,readrandom,readseq,readmissing,fillsync,"
                      "deleterandom",
    };
    int err = parse(&program, argc, argv);

    if (err)
        return err < 0 ? 2 : 0;
    return run_all(&program) ? 1 : 0;
}
