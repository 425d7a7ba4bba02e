/* SPDX-License-Identifier: MIT */
/*
 * The contents of files: extents, each a key (content id, offset) with up to 64 KiB as its value.
 *
 * Invariants: extents of one content id never overlap, never cross a multiple of KEYS_WINDOW, and
 * never reach past the size of the file (but for a tail, see files.c). What no extent covers reads
 * as zeros.
 *
 * A value cannot be changed in part, so a write takes in the extents that it overlaps: it puts one
 * new extent over all of them and deletes the others, window by window, in the same frame. A whole
 * window needs no reading; data between two edges goes from the caller's buffer to the log.
 *
 * Small appends would leave many small extents. When a window has more than WINDOW_PIECES, a write
 * also takes in what lies right before it, as long as the next piece is no longer than all taken so
 * far. Like carrying in a binary counter this rewrites a byte a logarithmic number of times: a
 * thousand appends of 100 bytes log each byte some five times over, where merging the whole window
 * each time would log it twenty times. Other patterns that leave more than that many pieces get the
 * window merged into one, its holes filled with zeros.
 */
#include "volume_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t window_of(uint64_t offset)
{
    return offset & ~(uint64_t)(KEYS_WINDOW - 1);
}

static uint64_t end_of(const struct extent *e)
{
    return e->offset + e->len;
}

int extents_open(struct volume *volume, uint64_t content, uint64_t from, struct extents *it)
{
    struct keys_key key;
    keys_prefix(&key, KEYS_EXTENT, content);
    int error = keg_iter_open(volume->keg, keys_bytes(&key), &it->iter);
    if (error)
        return error;
    if (window_of(from)) {
        keys_extent(&key, content, window_of(from));
        error = keg_iter_seek(it->iter, keys_bytes(&key));
    }
    if (error)
        keg_iter_close(it->iter);
    return error;
}

int extents_next(struct extents *it, struct extent *extent)
{
    struct keg_entry entry;
    struct keys_parsed parsed;
    int more = keg_iter_next(it->iter, &entry);
    if (more <= 0)
        return more;
    int error = keys_parse(entry.key, &parsed);
    if (error)
        return error;
    *extent = (struct extent){parsed.offset, entry.value_len};
    if (entry.value_len == 0 || parsed.offset % KEYS_WINDOW + entry.value_len > KEYS_WINDOW)
        return -EBADMSG;
    return 1;
}

void extents_close(struct extents *it)
{
    keg_iter_close(it->iter);
}

int extents_read(struct volume *volume, uint64_t content, const struct extent *extent,
                 uint64_t from, void *buf, size_t len)
{
    struct keys_key key;
    keys_extent(&key, content, extent->offset);
    ssize_t n =
        keg_read(volume->keg, keys_bytes(&key), (uint32_t)(from - extent->offset), buf, len);
    if (n < 0)
        return n == -ENOENT ? -EBADMSG : (int)n;
    return (size_t)n == len ? 0 : -EBADMSG;
}

/* ---- Many at a time ---- */

static void note_error(struct extents_reads *reads, int error)
{
    if (!reads->error)
        reads->error = error;
}

/* An extent that is not there, or is shorter than its key said just now, is damage. */
static void find_rest(struct extents_reads *reads)
{
    struct keg_reading *rest = reads->readings + reads->found;
    size_t count = reads->count - reads->found;
    keg_find_many(reads->volume->keg, rest, count);
    for (size_t i = 0; i < count; i++) {
        if (rest[i].result < 0 || (size_t)rest[i].result != rest[i].len)
            note_error(reads, -EBADMSG);
    }
    reads->found = reads->count;
}

static void fetch_found(struct extents_reads *reads)
{
    keg_fetch_many(reads->volume->keg, reads->readings, reads->found);
    for (size_t i = 0; i < reads->found; i++) {
        if (reads->readings[i].result < 0)
            note_error(reads, (int)reads->readings[i].result);
    }
    reads->count = reads->found = 0;
}

static void end(struct extents_reads *reads)
{
    reads->count = reads->found = 0;
    if (reads->readings != reads->few)
        free(reads->readings);
    reads->readings = reads->few;
    reads->room = EXTENTS_GATHERED;
}

/*
 * EXTENTS_MOST are as many as writes leave in 1 MiB, with some to spare. Where more were made, by
 * one hole punched beside the other, or there is no memory, those so far are read here and now,
 * under whatever lock the caller has. No bound would be worse: a window of single bytes has 32768.
 */
static void make_room(struct extents_reads *reads)
{
    struct keg_reading *many = NULL;
    if (reads->readings == reads->few)
        many = malloc(EXTENTS_MOST * sizeof *many);
    if (many) {
        memcpy(many, reads->few, reads->count * sizeof *many);
        reads->readings = many;
        reads->room = EXTENTS_MOST;
    } else {
        fetch_found(reads);
    }
}

void extents_gather_begin(struct extents_reads *reads, struct volume *volume, uint64_t content)
{
    reads->volume = volume;
    reads->content = content;
    reads->error = 0;
    reads->count = reads->found = 0;
    reads->readings = reads->few;
    reads->room = EXTENTS_GATHERED;
}

static struct keg_reading *add_reading(struct extents_reads *reads, uint64_t start, uint64_t from,
                                       void *buf, size_t len)
{
    struct keys_key *key = &reads->keys[reads->count - reads->found];
    struct keg_reading *reading = &reads->readings[reads->count++];
    keys_extent(key, reads->content, start);
    reading->key = keys_bytes(key);
    reading->offset = (uint32_t)(from - start);
    reading->len = len;
    reading->buf = buf;
    return reading;
}

void extents_gather(struct extents_reads *reads, const struct extent *extent, uint64_t from,
                    void *buf, size_t len)
{
    if (reads->count - reads->found == EXTENTS_GATHERED || reads->count == reads->room)
        find_rest(reads);
    if (reads->count == reads->room)
        make_room(reads);
    (void)add_reading(reads, extent->offset, from, buf, len);
}

size_t extents_gather_first(struct extents_reads *reads, uint64_t start, uint64_t from, void *buf,
                            size_t len)
{
    struct keg_reading *reading = add_reading(reads, start, from, buf, len);
    keg_find_many(reads->volume->keg, reading, 1);
    if (reading->result < 0) {
        reads->count = 0;
        return 0;
    }
    reads->found = 1;
    return (size_t)reading->result;
}

int extents_find(struct extents_reads *reads)
{
    if (reads->found < reads->count)
        find_rest(reads);
    if (reads->error)
        extents_drop(reads);
    return reads->error;
}

int extents_fetch(struct extents_reads *reads)
{
    fetch_found(reads);
    end(reads);
    return reads->error;
}

void extents_drop(struct extents_reads *reads)
{
    keg_drop_many(reads->volume->keg, reads->readings, reads->found);
    end(reads);
}

int extents_gathered(struct extents_reads *reads)
{
    int error = extents_find(reads);
    return error ? error : extents_fetch(reads);
}

/* ---- Writing ---- */

void extents_plan(const struct extent *pieces, size_t count, uint64_t from, uint64_t to,
                  size_t *first, size_t *last)
{
    size_t i = 0;
    while (i < count && end_of(&pieces[i]) <= from)
        i++;
    size_t j = i;
    while (j < count && pieces[j].offset < to)
        j++;
    uint64_t start = i < j && pieces[i].offset < from ? pieces[i].offset : from;
    uint64_t end = i < j && end_of(&pieces[j - 1]) > to ? end_of(&pieces[j - 1]) : to;
    if (count - (j - i) + 1 > WINDOW_PIECES) {
        while (i > 0 && end_of(&pieces[i - 1]) == start && pieces[i - 1].len <= end - start)
            start = pieces[--i].offset;
    }
    if (count - (j - i) + 1 > WINDOW_PIECES) {
        i = 0;
        j = count;
    }
    *first = i;
    *last = j;
}

struct pieces {
    struct extent *list; /* few, or allocated */
    size_t count, capacity;
    struct extent few[2 * WINDOW_PIECES];
};

static int add_piece(struct pieces *pieces, struct extent extent)
{
    if (pieces->count == pieces->capacity) {
        bool first = pieces->list == pieces->few;
        size_t capacity = pieces->capacity * 2;
        struct extent *list = realloc(first ? NULL : pieces->list, capacity * sizeof *list);
        if (!list)
            return -ENOMEM;
        if (first)
            memcpy(list, pieces->few, sizeof pieces->few);
        pieces->list = list;
        pieces->capacity = capacity;
    }
    pieces->list[pieces->count++] = extent;
    return 0;
}

/* All extents in the windows of [from, to). */
static int gather(struct volume *volume, uint64_t content, uint64_t from, uint64_t to,
                  struct pieces *pieces)
{
    struct extents it;
    struct extent extent;
    uint64_t end = window_of(to - 1) + KEYS_WINDOW;
    int error = extents_open(volume, content, from, &it);
    if (error)
        return error;
    int more;
    uint64_t at = 0;
    while ((more = extents_next(&it, &extent)) > 0 && extent.offset < end) {
        /* They overlap where a store was repaired and its tree was not. */
        error = extent.offset < at ? -EBADMSG : add_piece(pieces, extent);
        if (error)
            break;
        at = end_of(&extent);
    }
    extents_close(&it);
    return more < 0 ? more : error;
}

/* The value of one extent over [start, end): the old pieces, each read whole to where it belongs,
 * zeros between them, and the data over all. */
static int merge(struct change *change, uint64_t content, const struct extent *pieces, size_t count,
                 uint64_t start, uint64_t end, uint64_t from, struct keg_bytes data,
                 struct keg_bytes *value)
{
    struct extents_reads reads;
    uint64_t at = start;
    uint8_t *buf = change_alloc(change, end - start);
    if (!buf)
        return -ENOMEM;
    extents_gather_begin(&reads, change->volume, content);
    for (const struct extent *e = pieces; e < pieces + count; e++) {
        memset(buf + (at - start), 0, e->offset - at);
        at = end_of(e);
        if (e->offset < from || at > from + data.len)
            extents_gather(&reads, e, e->offset, buf + (e->offset - start), e->len);
    }
    memset(buf + (at - start), 0, end - at);
    int error = extents_gathered(&reads);
    memcpy(buf + (from - start), data.data, data.len);
    *value = (struct keg_bytes){buf, end - start};
    return error;
}

/* data lies in one window, pieces are all of that window's, or none if it overlaps none and there
 * are few. *left is how many there are now. */
static int write_window(struct change *change, struct inode *inode, const struct extent *pieces,
                        size_t count, uint64_t from, struct keg_bytes data, size_t *left)
{
    size_t first, last;
    struct keys_key key;
    uint64_t start = from, end = from + data.len;
    extents_plan(pieces, count, from, end, &first, &last);
    *left = count - (last - first) + 1;
    if (first < last) {
        start = pieces[first].offset < from ? pieces[first].offset : from;
        end = end_of(&pieces[last - 1]) > end ? end_of(&pieces[last - 1]) : end;
    }
    struct keg_bytes value = data;
    if (end - start > data.len) {
        int error = merge(change, inode->content, pieces + first, last - first, start, end, from,
                          data, &value);
        if (error)
            return error;
    }
    for (size_t i = first; i < last; i++) {
        inode->bytes -= pieces[i].len;
        if (pieces[i].offset == start)
            continue;
        keys_extent(&key, inode->content, pieces[i].offset);
        change_delete(change, &key);
    }
    keys_extent(&key, inode->content, start);
    change_put(change, &key, (struct keg_bytes){0}, value);
    inode->bytes += end - start;
    return 0;
}

/*
 * Nothing reaches past the size, so a write behind it meets nothing: it only needs to know whether
 * its window has too many pieces. That is kept in memory for the window of the size. It is a
 * number that may be wrong after failures, and then a window has some pieces too many or is looked
 * at for nothing.
 */
static unsigned pieces_at_end(const struct change *change, const struct inode *inode,
                              uint64_t offset)
{
    if (!inode->bytes || window_of(offset) >= inode->size)
        return 0;
    unsigned pieces = inodes_pieces(change->volume, inode->ino);
    return offset >= inode->size && pieces ? pieces : WINDOW_PIECES;
}

int extents_write(struct change *change, struct inode *inode, uint64_t offset, const void *data,
                  size_t len)
{
    struct pieces pieces;
    const uint8_t *bytes = data;
    uint64_t end = offset + len;
    const bool at_end = window_of(end - 1) + KEYS_WINDOW >= inode->size;
    size_t at = 0, left = 0, unseen = pieces_at_end(change, inode, offset);
    int error = 0;
    pieces.list = pieces.few;
    pieces.count = 0;
    pieces.capacity = sizeof pieces.few / sizeof *pieces.few;
    if (unseen >= WINDOW_PIECES) {
        error = gather(change->volume, inode->content, offset, end, &pieces);
        unseen = 0;
    }
    while (!error && offset < end) {
        uint64_t next = window_of(offset) + KEYS_WINDOW;
        size_t n = (size_t)((next < end ? next : end) - offset);
        size_t count = 0;
        while (at + count < pieces.count && pieces.list[at + count].offset < next)
            count++;
        error = write_window(change, inode, pieces.list + at, count, offset,
                             (struct keg_bytes){bytes, n}, &left);
        left += unseen;
        unseen = 0;
        at += count;
        bytes += n;
        offset += n;
    }
    if (pieces.list != pieces.few)
        free(pieces.list);
    if (!error && at_end)
        inodes_set_pieces(change->volume, inode->ino, (unsigned)left);
    return error;
}

/* ---- Holes ---- */

/* Puts what is left of an extent at [from, to) under the key of `from`. */
static int keep_part(struct change *change, const struct inode *inode, const struct extent *extent,
                     uint64_t from, uint64_t to)
{
    struct keys_key key;
    uint8_t *buf = change_alloc(change, to - from);
    if (!buf)
        return -ENOMEM;
    int error = extents_read(change->volume, inode->content, extent, from, buf, to - from);
    if (error)
        return error;
    keys_extent(&key, inode->content, from);
    change_put(change, &key, (struct keg_bytes){0}, (struct keg_bytes){buf, to - from});
    return 0;
}

/* What of the extent lies in [from, to) goes. */
static int cut(struct change *change, struct inode *inode, const struct extent *extent,
               uint64_t from, uint64_t to)
{
    int error = 0;
    uint64_t end = end_of(extent);
    if (extent->offset < from) {
        error = keep_part(change, inode, extent, extent->offset, from);
    } else {
        struct keys_key key;
        keys_extent(&key, inode->content, extent->offset);
        change_delete(change, &key);
        from = extent->offset;
    }
    if (!error && end > to)
        error = keep_part(change, inode, extent, to, end);
    inode->bytes -= (end < to ? end : to) - from;
    return error;
}

int extents_punch(struct change *change, struct inode *inode, uint64_t from, uint64_t to,
                  uint64_t *next)
{
    struct extents it;
    struct extent extent;
    *next = to;
    if (!inode->content || from >= to)
        return 0;
    int error = extents_open(change->volume, inode->content, from, &it);
    if (error)
        return error;
    int more;
    while ((more = extents_next(&it, &extent)) > 0 && extent.offset < to) {
        if (end_of(&extent) <= from)
            continue;
        if (change->batch.count >= RECLAIM_FULL) {
            *next = extent.offset;
            break;
        }
        error = cut(change, inode, &extent, from, to);
        if (error)
            break;
    }
    extents_close(&it);
    inodes_set_pieces(change->volume, inode->ino, 0); /* not known any more */
    return more < 0 ? more : error;
}
