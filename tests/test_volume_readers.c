/* SPDX-License-Identifier: MIT */
/*
 * Who only reads holds up nobody: a reader is stopped in its first pread, on a disk that takes as
 * long as the test likes, and meanwhile everything else goes on, changes of the same inode too.
 * What the reader returns then is what was there when it began.
 */
#include "volume_case.h"

#include "env_fault.h"
#include "hook.h"
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

enum { LONG = 1 << 20, SHORT = 8192, OTHERS = 600, PIECE = 4096, PATIENCE = 15 /* seconds */ };

static struct hook hook;
static sem_t arrived, let_go, done;
static _Thread_local bool slow; /* this thread's next read of a segment waits for let_go */

static int stop_readers(void *arg, enum hook_op op, const char *name)
{
    (void)arg;
    if (op != HOOK_READ || !slow || !strstr(name, ".data"))
        return 0;
    slow = false;
    sem_post(&arrived);
    while (sem_wait(&let_go))
        ;
    return 0;
}

static int setup_hooked(void **state)
{
    struct keg_env *disk;
    (void)state;
    f = (struct fixture){.volume_flags = VOLUME_NO_BACKGROUND,
                         .keg_flags = KEG_NO_BACKGROUND,
                         .segment_size = 4 << 20,
                         .seconds = 1790000000};
    if (env_fault(0, &disk) != 0)
        return -1;
    hook_init(&hook, disk);
    hook.fn = stop_readers;
    f.env = &hook.env;
    sem_init(&arrived, 0, 0);
    sem_init(&let_go, 0, 0);
    sem_init(&done, 0, 0);
    return fixture_open(&f);
}

static int teardown_hooked(void **state)
{
    (void)state;
    ssize_t findings = volume_check(f.volume, fixture_print, NULL);
    int error = fixture_close(&f);
    unsigned left = env_fault_open_files(hook.below);
    keg_env_free(hook.below);
    sem_destroy(&arrived);
    sem_destroy(&let_go);
    sem_destroy(&done);
    return findings != 0 || error || left;
}

/* ---- A slow reader, and what is done meanwhile ---- */

struct call {
    uint64_t ino;
    size_t len;    /* of the read, or of the file; 0: none of it is read */
    const char *s; /* name of an attribute; or NULL: the text of a symbolic link */
    uint8_t *buf;
    ssize_t result;
};

static void *read_slowly(void *arg)
{
    struct call *call = arg;
    slow = true;
    if (call->len)
        call->result = volume_read(f.volume, call->ino, 0, call->buf, call->len);
    else if (call->s)
        call->result = volume_getxattr(f.volume, call->ino, T(call->s), call->buf, SHORT);
    else
        call->result = volume_readlink(f.volume, call->ino, (char *)call->buf, SHORT);
    return NULL;
}

struct meanwhile {
    void (*run)(const struct call *call);
    const struct call *call;
};

static void *run_meanwhile(void *arg)
{
    const struct meanwhile *meanwhile = arg;
    meanwhile->run(meanwhile->call);
    sem_post(&done);
    return NULL;
}

static bool wait_for(sem_t *sem)
{
    struct timespec until;
    int error;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    while ((error = sem_timedwait(sem, &until)) && errno == EINTR)
        ;
    return !error;
}

/* The reader is in its pread all the time that run takes. */
static void read_while(struct call *call, void (*run)(const struct call *call))
{
    struct meanwhile meanwhile = {run, call};
    pthread_t reader, other;
    call->buf = malloc(LONG);
    assert_non_null(call->buf);
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, call), 0);
    bool came = wait_for(&arrived);
    assert_int_equal(pthread_create(&other, NULL, run_meanwhile, &meanwhile), 0);
    bool finished = wait_for(&done);
    sem_post(&let_go);
    pthread_join(other, NULL);
    pthread_join(reader, NULL);
    assert_true(came);
    assert_true(finished);
}

/* ---- What is read ---- */

static uint64_t others[OTHERS];

static uint8_t byte_of(unsigned round, size_t i)
{
    return (uint8_t)(1 + (i * 37 + i / 253 + round * 101) % 255);
}

static void write_round(uint64_t ino, unsigned round, size_t from, size_t len)
{
    uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_of(round, from + i);
    assert_int_equal(volume_write(f.volume, ino, from, bytes, len, 0), len);
    free(bytes);
}

/* One on each stripe at least, so that some share the slow reader's. */
static void make_others(void)
{
    bool met[STRIPES] = {false};
    unsigned stripes = 0;
    for (unsigned i = 0; i < OTHERS; i++) {
        char name[20];
        snprintf(name, sizeof name, "other %u", i);
        others[i] = make_file(name);
        write_text(others[i], 0, name);
        struct lockset set;
        inodes_lock(f.volume, &set, &others[i], 1);
        stripes += !met[set.stripes[0]];
        met[set.stripes[0]] = true;
        inodes_unlock(f.volume, &set);
    }
    assert_true(stripes > STRIPES / 2);
}

static void read_others(void)
{
    for (unsigned i = 0; i < OTHERS; i++) {
        char name[20];
        snprintf(name, sizeof name, "other %u", i);
        expect_text(others[i], 0, name);
    }
}

static void expect_round(const struct call *call, unsigned round)
{
    assert_int_equal(call->result, call->len);
    for (size_t i = 0; i < call->len; i++)
        assert_int_equal(call->buf[i], byte_of(round, i));
    free(call->buf);
}

/* ---- Contents ---- */

static void change_all(const struct call *call)
{
    write_round(call->ino, 2, 0, call->len);
    write_round(call->ino, 3, call->len / 2, 100);
    read_others();
    set_size(call->ino, 10);
    set_size(call->ino, 0);
    write_round(call->ino, 4, 0, call->len);
    read_others();
}

static void test_a_slow_read_holds_up_nobody(void **state)
{
    (void)state;
    struct call call = {.ino = make_file("slow"), .len = SHORT};
    make_others();
    write_round(call.ino, 1, 0, SHORT);
    read_while(&call, change_all);
    expect_round(&call, 1);
}

/* Many preads, of which only the first is slow. */
static void test_a_slow_read_of_many_extents(void **state)
{
    (void)state;
    struct call call = {.ino = make_file("slow"), .len = LONG};
    make_others();
    for (size_t from = LONG; from > 0; from -= KEYS_WINDOW) {
        write_round(call.ino, 1, from - KEYS_WINDOW, KEYS_WINDOW);
        write_text(others[0], 0, "other 0");
    }
    read_while(&call, change_all);
    expect_round(&call, 1);
}

/* As many extents as a program with a small buffer leaves. */
static void test_a_slow_read_of_small_pieces(void **state)
{
    (void)state;
    struct call call = {.ino = make_file("slow"), .len = LONG};
    make_others();
    for (size_t from = 0; from < LONG; from += PIECE)
        write_round(call.ino, 1, from, PIECE);
    read_while(&call, change_all);
    expect_round(&call, 1);
}

static unsigned segments_on_disk;

static int count_segment(void *arg, const char *name)
{
    (void)arg;
    segments_on_disk += strstr(name, ".data") != NULL;
    return 0;
}

static void expect_segments(int more)
{
    struct keg_stats stats;
    keg_stats(f.keg, &stats);
    segments_on_disk = 0;
    assert_int_equal(env_list(hook.below, count_segment, NULL), 0);
    assert_int_equal((int)segments_on_disk, (int)stats.segments + more);
}

/* The contents are replaced, their keys deleted and their segment compacted away; its file stays
 * for the reader. */
static void compact_away(const struct call *call)
{
    set_size(call->ino, 0);
    write_round(call->ino, 2, 0, SHORT);
    assert_int_equal(keg_compact(f.keg, NULL, NULL), 0);
    expect_segments(1);
}

static void test_what_a_slow_reader_reads_is_compacted(void **state)
{
    (void)state;
    struct call call = {.ino = make_file("slow"), .len = LONG};
    write_round(call.ino, 1, 0, LONG);
    read_while(&call, compact_away);
    expect_round(&call, 1);
    expect_segments(0);
}

/* More pieces than are remembered: punched by hand, every other byte. */
static void test_a_read_of_more_than_fits(void **state)
{
    enum { HOLES = 700 };
    (void)state;
    uint64_t ino = make_file("holes");
    uint8_t buf[4 * HOLES];
    write_round(ino, 1, 0, sizeof buf);
    for (unsigned i = 0; i < HOLES; i++)
        assert_int_equal(volume_fallocate(f.volume, ino, 3, 4 * i, 2), 0);
    assert_int_equal(volume_read(f.volume, ino, 0, buf, sizeof buf), sizeof buf);
    for (size_t i = 0; i < sizeof buf; i++)
        assert_int_equal(buf[i], i % 4 < 2 ? 0 : byte_of(1, i));
}

/* ---- Links and attributes ---- */

static void change_link(const struct call *call)
{
    struct volume_attr attr = {.uid = 7};
    assert_int_equal(volume_setattr(f.volume, call->ino, VOLUME_SET_UID, &attr, &attr), 0);
    assert_int_equal(volume_unlink(f.volume, VOLUME_ROOT, T("link")), 0);
    read_others();
}

static void test_a_slow_readlink_holds_up_nobody(void **state)
{
    (void)state;
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFLNK | 0777, .target = T("where/it/leads")};
    make_others();
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, T("link"), &new, &attr), 0);
    struct call call = {.ino = attr.ino};
    read_while(&call, change_link);
    assert_int_equal(call.result, strlen("where/it/leads"));
    assert_memory_equal(call.buf, "where/it/leads", strlen("where/it/leads"));
    free(call.buf);
}

static void change_attribute(const struct call *call)
{
    assert_int_equal(volume_setxattr(f.volume, call->ino, T(call->s), "a newer one", 11, 0), 0);
    assert_int_equal(volume_removexattr(f.volume, call->ino, T(call->s)), 0);
    read_others();
}

static void test_a_slow_getxattr_holds_up_nobody(void **state)
{
    (void)state;
    struct call call = {.ino = make_file("slow"), .s = "user.colour"};
    make_others();
    assert_int_equal(volume_setxattr(f.volume, call.ino, T(call.s), "blue", 4, 0), 0);
    read_while(&call, change_attribute);
    assert_int_equal(call.result, 4);
    assert_memory_equal(call.buf, "blue", 4);
    free(call.buf);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_hooked, teardown_hooked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_slow_read_holds_up_nobody),
        TEST(test_a_slow_read_of_many_extents),
        TEST(test_a_slow_read_of_small_pieces),
        TEST(test_what_a_slow_reader_reads_is_compacted),
        TEST(test_a_read_of_more_than_fits),
        TEST(test_a_slow_readlink_holds_up_nobody),
        TEST(test_a_slow_getxattr_holds_up_nobody),
    };
    return cmocka_run_group_tests_name("volume_readers", tests, NULL, NULL);
}
