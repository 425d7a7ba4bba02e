/* SPDX-License-Identifier: MIT */
/*
 * The common requests allocate nothing. Every call of malloc and its like from the namespace and
 * the store is counted while one call of the volume is made over and over. The index, the tables
 * and the queue grow now and then, which is not the request's: fewer than one in 50 may allocate.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOMEM_ITSELF
#include "nomem.h"
#include "volume_fixture.h"
#include <errno.h>
#include <unistd.h>

enum { FILES = 1000, SIZE = 8192, PAGE = 100, SPARED = FILES / 50 };

static struct fixture f;
static unsigned allocations;
static uint64_t dir;
static uint64_t inos[FILES];
static uint8_t data[64 << 10], back[64 << 10];

void *nomem_malloc(size_t size)
{
    allocations++;
    return malloc(size);
}

void *nomem_calloc(size_t count, size_t size)
{
    allocations++;
    return calloc(count, size);
}

void *nomem_realloc(void *old, size_t size)
{
    allocations++;
    return realloc(old, size);
}

void *nomem_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    allocations++;
    return mmap(at, len, prot, flags, fd, offset);
}

/* ---- One request each, to the file of this number ---- */

static struct keg_bytes name_of(char kind, int i)
{
    static char name[16];
    (void)snprintf(name, sizeof name, "%c%07d", kind, i);
    return fixture_text(name);
}

static void make(int i)
{
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFREG | 0644};
    assert_int_equal(volume_make(f.volume, dir, name_of('f', i), &new, &attr), 0);
    inos[i] = attr.ino;
}

static void write_new(int i)
{
    assert_int_equal(volume_write(f.volume, inos[i], 0, data, SIZE, 0), SIZE);
}

static void look_up(int i)
{
    struct volume_attr attr;
    assert_int_equal(volume_lookup(f.volume, dir, name_of('f', i), &attr), 0);
    volume_forget(f.volume, attr.ino, 1);
}

static void look_up_missing(int i)
{
    struct volume_attr attr;
    assert_int_equal(volume_lookup(f.volume, dir, name_of('m', i), &attr), -ENOENT);
}

static void get_attributes(int i)
{
    struct volume_attr attr;
    assert_int_equal(volume_getattr(f.volume, inos[i], &attr), 0);
}

static void get_xattr(int i)
{
    char value[16];
    assert_int_equal(volume_getxattr(f.volume, inos[i], fixture_text("security.capability"), value,
                                     sizeof value),
                     -ENODATA);
}

static void chmod_(int i)
{
    struct volume_attr attr;
    const struct volume_attr new = {.mode = 0600};
    assert_int_equal(volume_setattr(f.volume, inos[i], VOLUME_SET_MODE, &new, &attr), 0);
}

static void read_whole(int i)
{
    assert_int_equal(volume_read(f.volume, inos[i], 0, back, sizeof back), SIZE);
}

static void read_part(int i)
{
    assert_int_equal(volume_read(f.volume, inos[i], 4096, back, 100), 100);
}

static void append(int i)
{
    struct volume_attr attr;
    assert_int_equal(volume_getattr(f.volume, inos[i], &attr), 0);
    assert_int_equal(volume_write(f.volume, inos[i], attr.size, data, 100, 0), 100);
}

/* As open(O_TRUNC) and one write do. */
static void replace_contents(int i)
{
    struct volume_attr attr;
    const struct volume_attr new = {.size = 0};
    assert_int_equal(volume_setattr(f.volume, inos[i], VOLUME_SET_SIZE, &new, &attr), 0);
    write_new(i);
}

static void overwrite_whole(int i)
{
    write_new(i);
}

static void write_part(int i)
{
    assert_int_equal(volume_write(f.volume, inos[i], 1000, data, 100, 0), 100);
}

static bool take_some(void *arg, const struct volume_dirent *entry)
{
    int *left = arg;
    if (*left == 0)
        return false;
    --*left;
    volume_forget(f.volume, entry->attr.ino, 1);
    return true;
}

static void list(int i)
{
    int left = PAGE;
    (void)i;
    assert_int_equal(volume_readdir(f.volume, dir, 0, true, take_some, &left), 0);
    assert_int_equal(left, 0);
}

static void rename_over(int i)
{
    int other = (i + 1) % FILES;
    if (i % 2)
        return;
    char name[16];
    memcpy(name, name_of('f', i).data, sizeof name);
    assert_int_equal(volume_rename(f.volume, dir, fixture_text(name), dir, name_of('f', other), 0),
                     0);
    volume_forget(f.volume, inos[other], 1);
    inos[other] = inos[i];
}

static void remove_file(int i)
{
    volume_forget(f.volume, inos[i], 1);
    assert_int_equal(volume_unlink(f.volume, dir, name_of('f', i)), 0);
}

static void remove_renamed(int i)
{
    if (i % 2)
        remove_file(i);
}

/* ---- The tests ---- */

static int setup(void **state)
{
    (void)state;
    struct volume_attr attr;
    const struct volume_new new = {.mode = S_IFDIR | 0755};
    f = (struct fixture){.keg_flags = KEG_NO_BACKGROUND,
                         .volume_flags = VOLUME_NO_BACKGROUND,
                         .segment_size = (uint64_t)64 << 20};
    assert_int_equal(env_mem(UINT64_C(1) << 30, &f.env), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(volume_make(f.volume, VOLUME_ROOT, fixture_text("d"), &new, &attr), 0);
    dir = attr.ino;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(fixture_close(&f), 0);
    keg_env_free(f.env);
    return 0;
}

static void test_requests_allocate_nothing(void **state)
{
    static const struct {
        const char *name;
        void (*run)(int i);
    } requests[] = {
        {"make", make},
        {"write", write_new},
        {"lookup", look_up},
        {"lookup of what is not there", look_up_missing},
        {"getattr", get_attributes},
        {"getxattr", get_xattr},
        {"chmod", chmod_},
        {"read", read_whole},
        {"read of a part", read_part},
        {"append", append},
        {"overwrite", overwrite_whole},
        {"replace", replace_contents},
        {"readdir with attributes", list},
        {"rename over", rename_over},
        {"write into a part", write_part},
        {"unlink and reclaim", remove_renamed},
    };
    (void)state;
    for (int i = 0; i < FILES; i++) /* the tables grow to what they take */
        make(i);
    for (int i = 0; i < FILES; i++)
        remove_file(i);
    for (size_t r = 0; r < sizeof requests / sizeof requests[0]; r++) {
        allocations = 0;
        for (int i = 0; i < FILES; i++)
            requests[r].run(i);
        if (allocations > SPARED)
            fail_msg("%s: %u allocations in %d calls, %d at most", requests[r].name, allocations,
                     FILES, SPARED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests_allocate_nothing, setup, teardown),
    };
    return cmocka_run_group_tests_name("allocations", tests, NULL, NULL);
}
