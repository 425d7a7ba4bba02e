/* SPDX-License-Identifier: MIT */
/*
 * What makes libFuzzer's runs many: AddressSanitizer without what helps only when something was
 * found (a replay has it), and large blocks kept from run to run. A sanitizer takes each of those
 * from the kernel and gives it back, and touching fresh pages then takes most of a run's time. A
 * block that is kept is poisoned while nobody has it, and given out only for its very size, so what
 * reads or writes past it, or after free, is found as ever.
 */
#include "fuzz.h"
#include <sanitizer/asan_interface.h>
#include <stdbool.h>

enum { LARGE = 16 << 10, BLOCKS = 256 };

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
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t number, size_t size);
void *__wrap_realloc(void *start, size_t size);
void __wrap_free(void *start);

const char *__asan_default_options(void)
{
    return "malloc_context_size=0:quarantine_size_mb=1:thread_local_quarantine_size_kb=64:"
           "max_malloc_fill_size=64:detect_stack_use_after_return=0";
}

static struct block *find(const void *start)
{
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
            __asan_unpoison_memory_region(block->start, block->size);
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
            __asan_unpoison_memory_region(blocks[i].start, size);
            return blocks[i].start;
        }
    }
    start = __real_malloc(size);
    block = start ? find_place() : NULL;
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

    if (!block || !start)
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
    struct block *block = start ? find(start) : NULL;

    if (!block) {
        __real_free(start);
        return;
    }
    FUZZ_CHECK(block->used);
    block->used = false;
    __asan_poison_memory_region(start, block->size);
}
