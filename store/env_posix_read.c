/* SPDX-License-Identifier: MIT */
#include "env_posix_read.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A medium that fails is EIO through the page cache, and much else through O_DIRECT, where the
 * block layer's own code comes through: each is -EIO here. Metadata that do not fit their
 * checksums, too, leave a file that cannot be read. */
static int read_error(int error)
{
    static const int medium[] = {ENODATA, EILSEQ,    EREMOTEIO, EBADE,
                                 ENOLINK, ETIMEDOUT, EBADMSG,   EUCLEAN};

    for (size_t i = 0; i < sizeof medium / sizeof *medium; i++)
        error = error == medium[i] ? EIO : error;
    return -error;
}

static ssize_t read_cached(int fd, uint64_t offset, char *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, buf + done, len - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return read_error(errno);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static ssize_t read_direct(int fd, size_t align, uint64_t offset, char *buf, size_t len)
{
    uint64_t mask = align - 1, start, span;
    size_t done = 0, room, take;
    void *bounce;

    room = len < ENV_POSIX_READ_BOUNCE - 2 * align ? ((len + mask) & ~mask) + align
                                                   : ENV_POSIX_READ_BOUNCE;
    if (posix_memalign(&bounce, align, room))
        return -ENOMEM;
    while (done < len) {
        ssize_t n;

        start = (offset + done) & ~mask;
        span = ((offset + len + mask) & ~mask) - start;
        n = pread(fd, bounce, span < room ? (size_t)span : room, (off_t)start);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int rc = read_error(errno);

            free(bounce);
            return rc;
        }
        if (start + (uint64_t)n <= offset + done)
            break; /* the end of the file */
        take = (size_t)(start + (uint64_t)n - (offset + done));
        if (take > len - done)
            take = len - done;
        memcpy(buf + done, (char *)bounce + (offset + done - start), take);
        done += take;
    }
    free(bounce);
    return (ssize_t)done;
}

/* One piece of a read, which goes through the page cache unless it has to be aligned. */
static ssize_t read_piece(int fd, size_t align, uint64_t offset, char *buf, size_t len)
{
    return align ? read_direct(fd, align, offset, buf, len) : read_cached(fd, offset, buf, len);
}

ssize_t env_posix_read(int fd, size_t align, uint64_t offset, const struct iovec *iov, int count)
{
    size_t done = 0, end = 0;
    ssize_t n = 0;

    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len > SSIZE_MAX - end)
            return -EINVAL;
        end += iov[i].iov_len;
    }
    if (offset > (uint64_t)INT64_MAX - ENV_POSIX_READ_BOUNCE - end)
        return -EINVAL;
    if (count > 1 && !align)
        n = preadv(fd, iov, count, (off_t)offset);
    if (n < 0 && errno != EINTR)
        return read_error(errno);
    done = n > 0 ? (size_t)n : 0;
    /* What that left, until the file ends. */
    end = 0;
    for (int i = 0; i < count && done >= end; i++) {
        size_t from = done - end;

        end += iov[i].iov_len;
        if (done >= end)
            continue;
        n = read_piece(fd, align, offset + done, (char *)iov[i].iov_base + from, end - done);
        if (n < 0)
            return n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}
