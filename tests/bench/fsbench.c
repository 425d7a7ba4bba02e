/* SPDX-License-Identifier: MIT */
/*
 * fsbench OPERATION DIR [FILES [CLIENTS [BYTES [LEAST]]]]: one filesystem operation, over and over,
 * below DIR, as plain system calls. Each client is a process with a directory of its own, which
 * holds FILES files of BYTES bytes (or will: "create" and its like make them). Operations that can
 * be done again to the same files are, until LEAST milliseconds have passed, because short bursts
 * mislead. FSBENCH_NAME is the length of a name (8). Prints how many operations were done and how
 * many seconds they took, all clients together.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, CHURN_WINDOW = 100 };

struct client {
    char dir[PATH_MAX - 64];
    long files;
    size_t bytes;
    char *out, *in; /* BUFFER bytes each, touched */
};

static _Noreturn void die(const char *what, const char *path)
{
    fprintf(stderr, "fsbench: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

/* ---- System calls that must succeed ---- */

static int digits = 7; /* of a name, which is a letter longer */

static const char *path_of(const struct client *c, char kind, long i)
{
    static char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%c%0*ld", c->dir, kind, digits, i);
    return path;
}

static int must_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        die("open", path);
    return fd;
}

static void must_write(int fd, const void *data, size_t len)
{
    if (write(fd, data, len) != (ssize_t)len)
        die("write", "a file");
}

static void check(int result, const char *what, const char *path)
{
    if (result)
        die(what, path);
}

/* ---- One file ---- */

static void write_file(const struct client *c, const char *path, int flags)
{
    int fd = must_open(path, O_WRONLY | flags);
    must_write(fd, c->out, c->bytes);
    check(close(fd), "close", path);
}

static void do_create(const struct client *c, long i)
{
    write_file(c, path_of(c, 'f', i), O_CREAT | O_EXCL);
}

static void do_durable(const struct client *c, long i)
{
    const char *path = path_of(c, 'f', i);
    int fd = must_open(path, O_WRONLY | O_CREAT | O_EXCL);
    must_write(fd, c->out, c->bytes);
    check(fsync(fd), "fsync", path);
    check(close(fd), "close", path);
}

static void do_truncate(const struct client *c, long i)
{
    write_file(c, path_of(c, 'f', i), O_TRUNC);
}

static void do_append(const struct client *c, long i)
{
    const char *path = path_of(c, 'f', i);
    int fd = must_open(path, O_WRONLY | O_APPEND);
    must_write(fd, c->out, 100);
    check(close(fd), "close", path);
}

/* All to one file. */
static void do_grow(const struct client *c, long i)
{
    (void)i;
    do_append(c, 0);
}

static void do_replace(const struct client *c, long i)
{
    char temporary[PATH_MAX];
    (void)snprintf(temporary, sizeof temporary, "%s", path_of(c, 't', i));
    write_file(c, temporary, O_CREAT | O_EXCL);
    check(rename(temporary, path_of(c, 'f', i)), "rename", temporary);
}

static void do_stat(const struct client *c, long i)
{
    struct stat st;
    const char *path = path_of(c, 'f', i);
    check(stat(path, &st), "stat", path);
}

static void do_read(const struct client *c, long i)
{
    const char *path = path_of(c, 'f', i);
    int fd = must_open(path, O_RDONLY);
    ssize_t n;
    while ((n = read(fd, c->in, BUFFER)) > 0)
        ;
    check(n < 0, "read", path);
    check(close(fd), "close", path);
}

static void do_unlink(const struct client *c, long i)
{
    const char *path = path_of(c, 'f', i);
    check(unlink(path), "unlink", path);
}

static void do_chmod(const struct client *c, long i)
{
    struct stat st;
    const char *path = path_of(c, 'f', i);
    check(stat(path, &st), "stat", path);
    check(chmod(path, (st.st_mode & 07777) ^ 040), "chmod", path);
}

static void do_tar(const struct client *c, long i)
{
    const struct timespec times[] = {{1000000000, 1}, {1000000000, 2}};
    const char *path = path_of(c, 'f', i);
    int fd = must_open(path, O_WRONLY | O_CREAT | O_EXCL);
    must_write(fd, c->out, c->bytes);
    check(futimens(fd, times), "utimens", path);
    check(fchown(fd, geteuid(), getegid()), "chown", path);
    check(fchmod(fd, 0640), "chmod", path);
    check(close(fd), "close", path);
}

static void do_cp(const struct client *c, long i)
{
    struct stat st;
    const char *path = path_of(c, 'f', i);
    if (!stat(path, &st))
        die("is there already", path);
    int fd = must_open(path, O_WRONLY | O_CREAT | O_EXCL);
    check(fstat(fd, &st), "stat", path);
    must_write(fd, c->out, c->bytes);
    check(close(fd), "close", path);
}

static void do_pieces(const struct client *c, long i)
{
    const char *path = path_of(c, 'f', i);
    int fd = must_open(path, O_WRONLY | O_CREAT | O_EXCL);
    for (int piece = 0; piece < 16; piece++)
        must_write(fd, c->out, 4096);
    check(close(fd), "close", path);
}

static void do_mkdir(const struct client *c, long i)
{
    const char *path = path_of(c, 'd', i);
    check(mkdir(path, 0755), "mkdir", path);
}

static void do_rmdir(const struct client *c, long i)
{
    const char *path = path_of(c, 'd', i);
    check(rmdir(path), "rmdir", path);
}

/* Makes a file and removes the one made CHURN_WINDOW before; the last ones stay. */
static void do_churn(const struct client *c, long i)
{
    const char *path = path_of(c, 'c', i);
    write_file(c, path, O_CREAT | O_EXCL);
    path = path_of(c, 'c', i - CHURN_WINDOW);
    if (i >= CHURN_WINDOW)
        check(unlink(path), "unlink", path);
}

/* ---- The whole directory, or one file ---- */

static void visit(const struct client *c, bool with_stat)
{
    struct dirent *entry;
    struct stat st;
    long count = 0;
    DIR *listing = opendir(c->dir);
    if (!listing)
        die("opendir", c->dir);
    while ((entry = readdir(listing))) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (with_stat)
            check(fstatat(dirfd(listing), entry->d_name, &st, AT_SYMLINK_NOFOLLOW), "stat",
                  entry->d_name);
    }
    closedir(listing);
    if (count != c->files)
        die("not as many files as there should be in", c->dir);
}

static void do_find(const struct client *c, long i)
{
    (void)i;
    visit(c, false);
}

static void do_list(const struct client *c, long i)
{
    (void)i;
    visit(c, true);
}

/* These count in MiB: files says how many. */
static void do_bigwrite(const struct client *c, long i)
{
    (void)i;
    int fd = must_open(path_of(c, 'b', 0), O_WRONLY | O_CREAT | O_TRUNC);
    for (long mib = 0; mib < c->files; mib++)
        must_write(fd, c->out, BUFFER);
    check(close(fd), "close", "the big file");
}

static void do_bigread(const struct client *c, long i)
{
    (void)i;
    int fd = must_open(path_of(c, 'b', 0), O_RDONLY);
    for (long mib = 0; mib < c->files; mib++) {
        if (read(fd, c->in, BUFFER) != BUFFER)
            die("read", "the big file");
    }
    check(close(fd), "close", "the big file");
}

/* 4 KiB somewhere in the big file, whose MiB are `bytes`. */
static void do_overwrite(const struct client *c, long i)
{
    const uint64_t pages = (uint64_t)c->bytes << 8;
    uint64_t x = ((uint64_t)i + 1) * 0x9e3779b97f4a7c15ULL;
    int fd = must_open(path_of(c, 'b', 0), O_WRONLY);
    if (pwrite(fd, c->out, 4096, (off_t)((x >> 20) % pages * 4096)) != 4096)
        die("write", "the big file");
    check(close(fd), "close", "the big file");
}

/* ---- Running ---- */

static const struct operation {
    const char *name;
    void (*run)(const struct client *c, long i);
    bool again; /* may be done to the same files again */
    bool whole; /* one run is of all files */
} operations[] = {
    {"create", do_create, false, false},
    {"durable", do_durable, false, false},
    {"truncate", do_truncate, true, false},
    {"append", do_append, true, false},
    {"grow", do_grow, false, false},
    {"replace", do_replace, true, false},
    {"stat", do_stat, true, false},
    {"read", do_read, true, false},
    {"unlink", do_unlink, false, false},
    {"chmod", do_chmod, true, false},
    {"tar", do_tar, false, false},
    {"cp", do_cp, false, false},
    {"pieces", do_pieces, false, false},
    {"mkdir", do_mkdir, false, false},
    {"rmdir", do_rmdir, false, false},
    {"churn", do_churn, false, false},
    {"find", do_find, true, true},
    {"list", do_list, true, true},
    {"bigwrite", do_bigwrite, true, true},
    {"bigread", do_bigread, true, true},
    {"overwrite", do_overwrite, false, false},
};

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Returns how many operations were done. */
static long run(const struct operation *op, const struct client *c, double least)
{
    const double end = now() + least;
    long done = 0;
    do {
        for (long i = 0; i < (op->whole ? 1 : c->files); i++)
            op->run(c, i);
        done += c->files;
    } while (op->again && now() < end);
    return done;
}

/* A client, from the moment the gate opens; its count goes through the pipe. */
static void be_client(const struct operation *op, struct client *c, double least, int gate,
                      int counts)
{
    char byte;
    c->out = mmap(NULL, 2 * (size_t)BUFFER, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (c->out == MAP_FAILED)
        die("mmap", "");
    c->in = c->out + BUFFER;
    for (size_t i = 0; i < BUFFER; i++)
        c->out[i] = (char)(i * 7 + (i >> 9));
    if (mkdir(c->dir, 0755) && errno != EEXIST)
        die("mkdir", c->dir);
    if (write(counts, "", 1) != 1 || read(gate, &byte, 1) != 0)
        die("waiting", "");
    long done = run(op, c, least);
    if (write(counts, &done, sizeof done) != sizeof done)
        die("write", "a pipe");
    exit(0);
}

static void must_read(int fd, void *buf, size_t len)
{
    if (read(fd, buf, len) != (ssize_t)len)
        exit(1); /* a client said why */
}

static void measure(const struct operation *op, const struct client *model, int clients,
                    double least)
{
    int gate[2], counts[2], status, bad = 0;
    long total = 0;
    char byte;
    check(pipe(gate) || pipe(counts), "pipe", "");
    for (int i = 0; i < clients; i++) {
        struct client c = *model;
        size_t len = strlen(c.dir);
        (void)snprintf(c.dir + len, sizeof c.dir - len, "/%d", i);
        pid_t pid = fork();
        check(pid < 0, "fork", "");
        if (!pid) {
            close(gate[1]);
            close(counts[0]);
            be_client(op, &c, least, gate[0], counts[1]);
        }
    }
    close(gate[0]);
    close(counts[1]);
    for (int i = 0; i < clients; i++)
        must_read(counts[0], &byte, 1);
    double begin = now();
    close(gate[1]);
    for (int i = 0; i < clients; i++) {
        long done;
        must_read(counts[0], &done, sizeof done);
        total += done;
    }
    double seconds = now() - begin;
    while (wait(&status) > 0)
        bad |= status;
    if (bad)
        exit(1);
    printf("%ld %.6f\n", total, seconds);
}

static long number(int argc, char **argv, int i, long otherwise)
{
    char *end;
    long n = argc > i ? strtol(argv[i], &end, 10) : otherwise;
    if (n < 0 || (argc > i && (*end || end == argv[i]))) {
        fprintf(stderr, "fsbench: not a number: %s\n", argv[i]);
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    struct client model = {0};
    if (argc < 3 || argc > 7 || strlen(argv[2]) >= sizeof model.dir - 16) {
        fputs("usage: fsbench OPERATION DIR [FILES [CLIENTS [BYTES [LEAST]]]]\noperations:",
              stderr);
        for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
            fprintf(stderr, " %s", operations[i].name);
        fputc('\n', stderr);
        return 2;
    }
    (void)snprintf(model.dir, sizeof model.dir, "%s", argv[2]);
    model.files = number(argc, argv, 3, 1000);
    int clients = (int)number(argc, argv, 4, 1);
    model.bytes = (size_t)number(argc, argv, 5, 8192);
    double least = (double)number(argc, argv, 6, 0) * 1e-3;
    if (getenv("FSBENCH_NAME"))
        digits = atoi(getenv("FSBENCH_NAME")) - 1;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, argv[1]) == 0) {
            measure(&operations[i], &model, clients, least);
            return 0;
        }
    }
    fprintf(stderr, "fsbench: no such operation: %s\n", argv[1]);
    return 2;
}
