/* SPDX-License-Identifier: MIT */
/*
 * An entry of a queue of FUSE over io_uring: the buffer that the kernel puts a request into and
 * takes the reply from, as laid out by its interface. Knows nothing of rings and threads.
 */
#ifndef TRANSPORT_ENTRY_H
#define TRANSPORT_ENTRY_H

#include "transport_internal.h"
#include <stdatomic.h>

/* The kernel's; Debian 12's headers are older. */
struct transport_header {
    char in_out[128]; /* fuse_in_header, then fuse_out_header */
    char op_in[128];  /* the first argument, of a size that only the operation tells */
    uint64_t flags;
    uint64_t commit_id;
    uint32_t payload_size; /* bytes of the other arguments, then of the reply */
    uint32_t padding;
    uint64_t reserved;
};
_Static_assert(sizeof(struct transport_header) == 288, "as the kernel has it");

struct transport_entry {
    struct workers_job job; /* first */
    struct transport_queue *queue;
    struct transport_header *header; /* a page; its end has room for what precedes the payload */
    char *payload;                   /* TRANSPORT_PAYLOAD bytes, right behind that page */
    struct iovec parts[2];           /* the two, for the kernel */
    _Atomic uint64_t unique;         /* of the request in it; 0: the kernel's */
    uint64_t commit_id;
    char *message; /* the request in one piece */
    size_t len;
    bool registering, replied;
    struct transport_entry *next; /* the ring's lock */
};

/* 1 MiB of address space, touched as far as requests reach. -ENOMEM. */
KEG_CHECKED int transport_entry_init(struct transport_entry *entry, struct transport_queue *queue);
void transport_entry_free(struct transport_entry *entry);
/* Gives memory back that a large request touched, when the kernel has the entry. */
void transport_entry_trim(struct transport_entry *entry);
/* A request has come: its message, len, commit_id and unique are set. -EIO: it makes no sense. */
KEG_CHECKED int transport_entry_take(struct transport_entry *entry);
/* Was the request or its reply one that transport_entry_trim is for? */
bool transport_entry_large(const struct transport_entry *entry);
/* Puts a reply in: a fuse_out_header first. One that is too large becomes EIO. */
void transport_entry_fill(struct transport_entry *entry, const struct iovec *iov, int count);

#endif
