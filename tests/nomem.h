/* SPDX-License-Identifier: MIT */
/* Put in front of the sources of a module under test: its allocations can be made to fail. */
#ifndef NOMEM_H
#define NOMEM_H

#include <stdlib.h>

void *nomem_malloc(size_t size);
void *nomem_calloc(size_t count, size_t size);
void *nomem_realloc(void *old, size_t size);

#ifndef NOMEM_ITSELF
#define malloc  nomem_malloc
#define calloc  nomem_calloc
#define realloc nomem_realloc
#endif

#endif
