/* SPDX-License-Identifier: MIT */
#include "transport_entry.h"
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { KEPT = 64 << 10 }; /* bytes of an idle entry's payload that stay in memory */

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

int transport_entry_init(struct transport_entry *e, struct transport_queue *queue)
{
    const size_t page = page_size(), size = page + TRANSPORT_PAYLOAD;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    (void)madvise(memory, size, MADV_NOHUGEPAGE); /* one request would touch 2 MiB */
    e->queue = queue;
    e->header = (struct transport_header *)(void *)memory;
    e->payload = memory + page;
    e->parts[0] = (struct iovec){e->header, sizeof *e->header};
    e->parts[1] = (struct iovec){e->payload, TRANSPORT_PAYLOAD};
    return 0;
}

void transport_entry_free(struct transport_entry *e)
{
    munmap(e->header, page_size() + TRANSPORT_PAYLOAD);
}

void transport_entry_trim(struct transport_entry *e)
{
    (void)madvise(e->payload + KEPT, TRANSPORT_PAYLOAD - KEPT, MADV_DONTNEED);
}

bool transport_entry_large(const struct transport_entry *e)
{
    return e->header->payload_size > KEPT;
}

int transport_entry_take(struct transport_entry *e)
{
    struct fuse_in_header in;
    const struct transport_header *h = e->header;
    const size_t payload = h->payload_size;
    memcpy(&in, h->in_out, sizeof in);
    if (payload > TRANSPORT_PAYLOAD || in.len < sizeof in + payload ||
        in.len > TRANSPORT_HEAD + payload || !in.unique)
        return -EIO;
    /* The header and the first argument go in front of the payload. */
    const size_t arg = in.len - sizeof in - payload;
    const size_t unaligned = (arg + sizeof in) % 8;
    e->message = e->payload - arg - sizeof in;
    if (unaligned) { /* no operation of today has such an argument */
        e->message -= 8 - unaligned;
        memmove(e->message + sizeof in + arg, e->payload, payload);
    }
    memcpy(e->message, &in, sizeof in);
    memcpy(e->message + sizeof in, h->op_in, arg);
    e->len = in.len;
    e->commit_id = h->commit_id;
    e->replied = false;
    atomic_store_explicit(&e->unique, in.unique, memory_order_release);
    return 0;
}

void transport_entry_fill(struct transport_entry *e, const struct iovec *iov, int count)
{
    size_t size = 0;
    struct fuse_out_header out;
    memcpy(&out, iov[0].iov_base, sizeof out);
    for (int i = 1; i < count && !out.error; i++) {
        if (iov[i].iov_len > TRANSPORT_PAYLOAD - size) {
            out.error = -EIO;
            size = 0;
            break;
        }
        if (iov[i].iov_base != e->payload + size) /* put together in place */
            memmove(e->payload + size, iov[i].iov_base, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    out.len = (uint32_t)(sizeof out + size);
    memcpy(e->header->in_out, &out, sizeof out);
    e->header->payload_size = (uint32_t)size;
}
