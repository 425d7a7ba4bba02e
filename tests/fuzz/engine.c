/* SPDX-License-Identifier: MIT */
/*
 * What makes libFuzzer's runs many: AddressSanitizer without what helps only when something was
 * found (a replay has it), and memory kept from run to run. A sanitizer takes each large block from
 * the kernel and gives it back, and touching fresh pages then takes most of a run's time. A block
 * that is kept is given out only for its very size, so what reads or writes past it is found as
 * ever. While nobody has it, its first 64 KiB are poisoned, so use after free is found as well: the
 * store fills its buffers from the front, and an input is no longer than that. A block begins with
 * a page, which says of nearly all others, without a search, that they are not kept.
 *
 * The index's slabs come from mmap and are kept the same way; what was in them stays, as it does in
 * a page that the index itself takes again. The system's limits are asked for once.
 *
 * Not itself under any sanitizer, nor counted as coverage.
 */
#include "fuzz.h"
#include "index_pool.h"
#include <sanitizer/asan_interface.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LARGE = 16 << 10, BLOCKS = 256, PAGE = 4096, SLABS = 32, POISONED = 64 << 10, LIMITS = 128 };

static struct block {
    void *start;
    size_t size;
    bool used;
} blocks[BLOCKS];
static size_t count;

void *__real_malloc(size_t size);
void *__real_calloc(size_t number, size_t size);
void *__real_realloc(void *start, size_t size);
void __real_free(void *start);
void *__real_mmap64(void *start, size_t size, int protection, int flags, int file, off_t offset);
int __real_munmap(void *start, size_t size);
long __real_sysconf(int name);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t number, size_t size);
void *__wrap_realloc(void *start, size_t size);
void __wrap_free(void *start);
void *__wrap_mmap64(void *start, size_t size, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *start, size_t size);
long __wrap_sysconf(int name);

const char *__asan_default_options(void)
{
    return "malloc_context_size=0:quarantine_size_mb=1:thread_local_quarantine_size_kb=64:"
           "max_malloc_fill_size=64:detect_stack_use_after_return=0";
}

static size_t poisoned(size_t size)
{
    return size < POISONED ? size : POISONED;
}

static struct block *find(const void *start)
{
    if (!start || (uintptr_t)start % PAGE)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (blocks[i].start == start)
            return &blocks[i];
    return NULL;
}

/* Sizes that inputs choose would fill the list: what is not wanted again makes room. */
static struct block *find_place(void)
{
    static size_t next;

    if (count < BLOCKS)
        return &blocks[count++];
    for (size_t i = 0; i < BLOCKS; i++) {
        struct block *block = &blocks[next++ % BLOCKS];

        if (!block->used) {
            __asan_unpoison_memory_region(block->start, poisoned(block->size));
            __real_free(block->start);
            return block;
        }
    }
    return NULL;
}

void *__wrap_malloc(size_t size)
{
    struct block *block;
    void *start;

    if (size < LARGE)
        return __real_malloc(size);
    for (size_t i = 0; i < count; i++) {
        if (blocks[i].size == size && !blocks[i].used) {
            blocks[i].used = true;
            __asan_unpoison_memory_region(blocks[i].start, poisoned(size));
            return blocks[i].start;
        }
    }
    if (posix_memalign(&start, PAGE, size))
        return NULL;
    block = find_place();
    if (block)
        *block = (struct block){start, size, true};
    return start;
}

void *__wrap_calloc(size_t number, size_t size)
{
    size_t all;
    void *start;

    if (__builtin_mul_overflow(number, size, &all) || all < LARGE)
        return __real_calloc(number, size);
    start = __wrap_malloc(all);
    return start ? memset(start, 0, all) : NULL;
}

void *__wrap_realloc(void *start, size_t size)
{
    const struct block *block = find(start);
    void *moved;

    if (!block)
        return __real_realloc(start, size);
    moved = __wrap_malloc(size);
    if (!moved)
        return NULL;
    memcpy(moved, start, size < block->size ? size : block->size);
    __wrap_free(start);
    return moved;
}

void __wrap_free(void *start)
{
    struct block *block = find(start);

    if (!block) {
        __real_free(start);
        return;
    }
    FUZZ_CHECK(block->used);
    block->used = false;
    __asan_poison_memory_region(start, poisoned(block->size));
}

/* ---- Slabs of the index: it maps two and gives back what is not aligned ---- */

static struct slab {
    uint8_t *start;
    bool used;
} slabs[SLABS];
static size_t slab_count;

void *__wrap_mmap64(void *start, size_t size, int protection, int flags, int file, off_t offset)
{
    if (start || size != 2 * INDEX_POOL_SLAB || file != -1)
        return __real_mmap64(start, size, protection, flags, file, offset);
    for (size_t i = 0; i < slab_count; i++) {
        if (!slabs[i].used) {
            slabs[i].used = true;
            __asan_unpoison_memory_region(slabs[i].start, POISONED);
            return slabs[i].start;
        }
    }
    start = __real_mmap64(NULL, size + INDEX_POOL_SLAB, protection, flags, file, offset);
    if (start == MAP_FAILED || slab_count == SLABS)
        return start;
    start = (void *)(((uintptr_t)start | (INDEX_POOL_SLAB - 1)) + 1);
    slabs[slab_count++] = (struct slab){start, true};
    return start;
}

int __wrap_munmap(void *start, size_t size)
{
    for (size_t i = 0; i < slab_count; i++) {
        if (start == slabs[i].start + INDEX_POOL_SLAB && size == INDEX_POOL_SLAB)
            return 0;
        if (start == slabs[i].start && size == INDEX_POOL_SLAB) {
            FUZZ_CHECK(slabs[i].used);
            slabs[i].used = false;
            __asan_poison_memory_region(start, POISONED);
            return 0;
        }
    }
    return __real_munmap(start, size);
}

/* Some of them are read from /sys each time. */
long __wrap_sysconf(int name)
{
    static struct {
        bool known;
        long limit;
    } limits[LIMITS];

    if (name < 0 || name >= LIMITS)
        return __real_sysconf(name);
    if (!limits[name].known) {
        limits[name].limit = __real_sysconf(name);
        limits[name].known = true;
    }
    return limits[name].limit;
}
