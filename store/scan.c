/* SPDX-License-Identifier: MIT */
#include "scan.h"
#include "crc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int scan_init(struct scan *scan, struct keg_file *file, struct format_salt salt, uint64_t end,
              bool ordered)
{
    memset(scan, 0, sizeof *scan);
    scan->file = file;
    scan->salt = salt;
    scan->end = end;
    scan->ordered = ordered;
    scan->window = malloc(end < SCAN_WINDOW ? (size_t)end + 1 : SCAN_WINDOW);
    return scan->window ? 0 : -ENOMEM;
}

void scan_free(struct scan *scan)
{
    free(scan->window);
    free(scan->big);
    scan->window = scan->big = NULL;
}

static void note_unread(struct scan *scan, uint64_t from, uint64_t end)
{
    if (!scan->unread || scan->unread_at < scan->offset)
        scan->unread_at = from;
    if (end > scan->unread_end)
        scan->unread_end = end;
    scan->unread = true;
    scan->unread_pieces++;
}

/* Page by page, those that cannot be read as zeros. A disk may take seconds for each such page, for
 * which an opening has no time; a repair has. */
static ssize_t read_around(struct scan *scan, uint64_t offset, size_t want)
{
    enum { PIECE = 4096, PIECES_MAX = 1024 };
    size_t done = 0;

    while (done < want) {
        size_t piece = PIECE - (offset + done) % PIECE;
        ssize_t n = -EIO;

        if (piece > want - done)
            piece = want - done;
        if (!scan->hurried || scan->unread_pieces < PIECES_MAX)
            n = env_read(scan->file, offset + done, scan->window + done, piece);
        if (n == -EIO) {
            memset(scan->window + done, 0, piece);
            n = (ssize_t)piece;
            note_unread(scan, offset + done, offset + done + piece);
        }
        if (n < 0)
            return n;
        done += (size_t)n;
        if ((size_t)n < piece)
            break;
    }
    return (ssize_t)done;
}

/*
 * Points *out at len bytes (at most SCAN_WINDOW) at offset; *got says how many there are before the
 * end. The pointer holds until the next call.
 */
static int view(struct scan *scan, uint64_t offset, size_t len, const uint8_t **out, size_t *got)
{
    uint64_t have = scan->window_at + scan->window_len;
    size_t want;
    ssize_t n;

    *out = scan->window;
    *got = 0;
    if (offset > scan->end)
        offset = scan->end;
    if (len > scan->end - offset)
        len = (size_t)(scan->end - offset);
    if (offset < scan->window_at || offset + len > have) {
        want = SCAN_WINDOW;
        if (scan->skims && scan->span > SCAN_LONG)
            want = len > SCAN_SKIM ? len : SCAN_SKIM;
        if (want > scan->end - offset)
            want = (size_t)(scan->end - offset);
        scan->window_len = 0;
        n = env_read(scan->file, offset, scan->window, want);
        if (n == -EIO && scan->salvage)
            n = read_around(scan, offset, want);
        if (n < 0)
            return (int)n;
        scan->window_at = offset;
        scan->window_len = (size_t)n;
    }
    have = scan->window_at + scan->window_len - offset;
    *got = len < have ? len : (size_t)have;
    *out = scan->window + (offset - scan->window_at);
    return 0;
}

/* Copies the heads out of the window, where reading values would overwrite them. */
static int load_heads(struct scan *scan, uint64_t offset, uint32_t len, bool *whole)
{
    const uint8_t *p;
    uint8_t *big;
    size_t got, done = 0, piece;
    int err;

    scan->heads = NULL;
    if (len > scan->big_size) {
        big = realloc(scan->big, len);
        if (!big)
            return -ENOMEM;
        scan->big = big;
        scan->big_size = len;
    }
    while (done < len) {
        piece = len - done < SCAN_WINDOW ? len - done : SCAN_WINDOW;
        err = view(scan, offset + done, piece, &p, &got);
        if (err)
            return err;
        if (got == 0)
            break;
        memcpy(scan->big + done, p, got);
        done += got;
    }
    *whole = done == len;
    return 0;
}

/* Whether the heads decode to exactly the records and bytes that the header says. */
static bool heads_fit(struct scan *scan)
{
    const struct format_frame *frame = &scan->frame;
    struct format_record record;
    uint64_t total = FORMAT_FRAME_SIZE + (uint64_t)frame->heads_len;
    size_t at = 0;

    scan->highest = frame->sequence;
    for (uint32_t i = 0; i < frame->count; i++) {
        if (format_record_decode(scan->big, frame->heads_len, &at, frame->sequence, &record))
            return false;
        if (record.type == FORMAT_PUT)
            total += format_stored_len(record.value_len);
        if (record.sequence > scan->highest)
            scan->highest = record.sequence;
    }
    return at == frame->heads_len && total == frame->length;
}

static int look_frame(struct scan *scan, uint64_t offset, enum scan_found *found)
{
    bool whole;
    int err;

    if (scan->frame.length > scan->end - offset) {
        scan->heads = NULL; /* cut off: as good as unsound heads */
        return 0;
    }
    err = load_heads(scan, offset + FORMAT_FRAME_SIZE, scan->frame.heads_len, &whole);
    if (err || !whole)
        return err;
    if (format_heads_crc(scan->salt, offset, scan->big, scan->frame.heads_len) !=
            scan->frame.heads_crc ||
        !heads_fit(scan))
        return 0;
    if (scan->ordered && scan->frame.sequence <= scan->last_sequence) {
        scan->frame.length = 0; /* a stale frame of a failed append: nothing it says counts */
        return 0;
    }
    scan->heads = scan->big;
    scan->span = format_frame_span(&scan->frame);
    scan_rewind(scan);
    *found = SCAN_FRAME;
    return 0;
}

int scan_look(struct scan *scan, uint64_t offset, enum scan_found *found)
{
    const uint8_t *p;
    size_t got;
    int err;

    scan->offset = offset;
    scan->heads = NULL;
    scan->frame.length = 0;
    *found = SCAN_END;
    if (offset >= scan->end)
        return 0;
    *found = SCAN_BAD;
    err = view(scan, offset, FORMAT_FOOTER_SIZE, &p, &got);
    if (err)
        return err;
    if (got >= FORMAT_FRAME_SIZE && format_frame_decode(p, scan->salt, offset, &scan->frame) == 0)
        return look_frame(scan, offset, found);
    scan->frame.length = 0;
    if (got >= FORMAT_FOOTER_SIZE &&
        format_footer_decode(p, scan->salt, offset, &scan->footer) == 0)
        *found = SCAN_FOOTER;
    return 0;
}

uint64_t scan_next(const struct scan *scan)
{
    return scan->offset + format_frame_span(&scan->frame);
}

void scan_rewind(struct scan *scan)
{
    scan->at = 0;
    scan->left = scan->frame.count;
    scan->value_at = scan->offset + FORMAT_FRAME_SIZE + scan->frame.heads_len;
}

bool scan_record(struct scan *scan, struct format_record *record, uint64_t *value_offset)
{
    if (scan->left == 0 || format_record_decode(scan->heads, scan->frame.heads_len, &scan->at,
                                                scan->frame.sequence, record))
        return false;
    scan->left--;
    *value_offset = record->type == FORMAT_PUT ? scan->value_at : 0;
    if (record->type == FORMAT_PUT)
        scan->value_at += format_stored_len(record->value_len);
    return true;
}

static int check_piece(struct scan *scan, uint64_t offset, uint32_t len, uint32_t crc)
{
    const uint8_t *p;
    size_t got;
    int err = view(scan, offset, len, &p, &got);

    if (err)
        return err;
    return got == len && crc_update(0, p, len) == crc ? 0 : -EBADMSG;
}

int scan_verify(struct scan *scan, const struct format_record *record, uint64_t value_offset)
{
    uint32_t list = format_stored_len(record->value_len) - record->value_len;
    uint8_t crcs[4 * (KEG_VALUE_MAX / KEG_BLOCK)];
    const uint8_t *p;
    size_t got;
    int err;

    if (record->type != FORMAT_PUT)
        return 0;
    if (list == 0)
        return check_piece(scan, value_offset, record->value_len, record->crc);
    err = check_piece(scan, value_offset, list, record->crc);
    if (!err)
        err = view(scan, value_offset, list, &p, &got);
    if (err)
        return err;
    memcpy(crcs, p, list);
    for (uint32_t i = 0; !err && i * 4 < list; i++) {
        uint32_t at = i * (uint32_t)KEG_BLOCK;
        uint32_t len =
            record->value_len - at < KEG_BLOCK ? record->value_len - at : (uint32_t)KEG_BLOCK;

        err = check_piece(scan, value_offset + list + at, len, format_get32(crcs + (size_t)i * 4));
    }
    return err;
}

int scan_search(struct scan *scan, uint64_t from, uint64_t *offset, struct format_frame *frame)
{
    const uint8_t *p;
    size_t got;
    int err;

    from = (from + FORMAT_ALIGN - 1) / FORMAT_ALIGN * FORMAT_ALIGN;
    for (; from < scan->end; from += FORMAT_ALIGN) {
        err = view(scan, from, FORMAT_FRAME_SIZE, &p, &got);
        if (err)
            return err;
        if (got < FORMAT_FRAME_SIZE)
            break;
        if (format_frame_decode(p, scan->salt, from, frame) == 0) {
            *offset = from;
            return 0;
        }
    }
    *offset = scan->end;
    return 0;
}

bool scan_only_zeros(struct scan *scan, uint64_t from, uint64_t to)
{
    const uint8_t *window = scan->window;
    ssize_t n = 1;

    scan->window_len = 0;
    for (; from < to && n > 0; from += (uint64_t)n) {
        size_t want = to - from < SCAN_WINDOW ? (size_t)(to - from) : SCAN_WINDOW;

        n = env_read(scan->file, from, scan->window, want);
        if (n < 0 || (n > 0 && (window[0] || memcmp(window, window + 1, (size_t)n - 1) != 0)))
            return false;
    }
    return from >= to;
}
