/* SPDX-License-Identifier: MIT */
/* Put in front of the sources of a module under test: its allocations can be made to fail. */
#ifndef NOMEM_H
#define NOMEM_H

#include <stdlib.h>
#include <sys/mman.h>

void *nomem_malloc(size_t size);
void *nomem_calloc(size_t count, size_t size);
void *nomem_realloc(void *old, size_t size);
void *nomem_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset);

#ifndef NOMEM_ITSELF
#define malloc  nomem_malloc
#define calloc  nomem_calloc
#define realloc nomem_realloc
#define mmap    nomem_mmap
#endif

#endif
