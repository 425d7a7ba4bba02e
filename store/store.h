/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the engine share: the open store and its segments.
 *
 * Threads and locks. Taken in this order, each before those below it:
 *
 * - gate: shared by those who have entered; exclusive for a roll and for keg_quiesce, by whom none
 * of these is held;
 * - compact_lock: one compaction at a time;
 * - hint_lock: one hint is written at a time;
 * - leadership of the commit queue (commit.c): whoever has it may append to the active segment and
 *   roll it;
 * - manifest_lock: members, their sealed and covered state, next_segment; held while MANIFEST is
 *   published;
 * - sync_lock: active, appended, durable (how far the log reached, and how far it is safe). Whoever
 *   set `syncing` is alone to sync the active segment, and holds that over the sync in place of the
 *   lock;
 * - index_lock: index, slots, live bytes (shared to read);
 * - files_lock: open descriptors of segments.
 *
 * Readers take only index_lock, shared, and files_lock if a segment's file is not open; neither is
 * held across any input or output.
 */
#ifndef STORE_H
#define STORE_H

#include "env.h"
#include "format.h"
#include "index.h"
#include "spare.h"
#include <pthread.h>
#include <stdatomic.h>

/*
 * One segment. It lives as long as somebody refers to it: the table of slots (while it counts), and
 * whoever reads it. Once it is doomed the last reference removes its files.
 */
struct segment {
    uint64_t id;
    enum format_kind kind;
    uint32_t slot;
    _Atomic uint32_t refs;
    _Atomic bool doomed;
    _Atomic bool suspect;   /* could not be read whole: compaction leaves it alone */
    _Atomic bool hint_lost; /* its hint had to be given up once */
    uint64_t held;     /* compact_lock: bytes of tombstones that compaction had to keep in it */
    uint64_t overhead; /* once sealed: bytes beside records; 0: not known, as after an open */

    /* manifest_lock */
    bool sealed;
    uint64_t covered;    /* of an active one: what manifest and hint cover; 0: nothing */
    uint64_t hint_bytes; /* size of its hint file; 0: none that is known sound */
    uint64_t hint_len;   /* how far the hint covers it */

    /* Written by the leader with sync_lock held; constant once sealed. */
    _Atomic uint64_t length;  /* bytes, up to the end of the last frame; sealed: of the file */
    _Atomic uint64_t durable; /* bytes known durable */
    uint64_t records;
    uint64_t first_sequence, last_sequence;
    uint64_t predecessor, before; /* recovery only: what its header says came before it */

    uint64_t live_bytes; /* index_lock */

    /* No lock: segment_file.c */
    _Atomic(struct keg_file *) file; /* changed with files_lock held */
    _Atomic uint32_t file_users;
    _Atomic bool file_marked; /* used since somebody looked for one to close */

    /* files_lock */
    bool file_pinned;              /* the active one: never closed to make room */
    struct segment *newer, *older; /* least recently used order of those open and not pinned */
};

/* Beside the flags of keg.h: opened for a repair. */
enum { STORE_SALVAGE = 1 << 16 };

struct waiter;

struct counters {
    _Atomic uint64_t puts, deletes, frames, appends, append_bytes, syncs, sync_waits, damaged_reads,
        compactions, compacted_bytes, hints_written;
};

/* What one of some threads has read, on a cache line that it need not share with others. */
struct read_counters {
    uint8_t apart[112];
    _Atomic uint64_t reads, bytes;
};
enum { READ_COUNTERS = 8 };

struct keg {
    struct keg_env *env;
    uint8_t id[FORMAT_ID_SIZE];
    unsigned flags;
    bool salvage; /* a repair: bytes that cannot be read are read as zeros, which are never valid */
    uint64_t segment_size;
    unsigned sync_interval_ms;
    keg_log_fn *log;
    void *log_arg;

    pthread_mutex_t compact_lock, hint_lock, manifest_lock, sync_lock, files_lock;
    pthread_rwlock_t index_lock;
    pthread_rwlock_t gate; /* gate.c */

    /* commit.c: the queue of writers; commit_lock guards it and nothing else */
    pthread_mutex_t commit_lock;
    struct waiter *queue_head, *queue_tail;
    uint64_t next_sequence;  /* leadership */
    struct format_salt salt; /* leadership: of the segment salt_segment */
    uint64_t salt_segment;
    uint64_t room_for_puts; /* leadership: bytes that may be appended before space is asked again */
    uint64_t room_to_free;  /* leadership: the same for what frees space */
    uint64_t ahead_end;     /* leadership: where the zeros behind the log end (ahead.c); or 0 */
    uint64_t due_segment;   /* leadership: id of the one that a roll was asked for; or 0 */
    uint64_t due_again;     /* leadership: its length at which it is asked for again */
    uint64_t ahead_refused; /* leadership: id of a segment that had no room for zeros; or 0 */
    _Atomic uint64_t sync_bytes; /* of the last sync that was asked for; 0: none since the zeros */

    /* manifest_lock */
    struct segment **members; /* oldest first; the active one is the last log segment */
    size_t member_count, member_capacity;
    uint64_t next_segment;
    uint64_t last_sequence; /* the highest that a MANIFEST has named so far */

    /* sync_lock */
    struct segment *active;     /* NULL: read-only */
    uint64_t appended;          /* bytes of log ever appended, by this process */
    _Atomic uint64_t durable;   /* of those, known durable; read without the lock, too */
    bool syncing;               /* by whoever set it, alone */
    uint64_t sync_round;        /* number of the sync that will cover what is appended now */
    unsigned joined;            /* callers that wait for that one */
    unsigned expected;          /* callers that would make it complete */
    unsigned hurried;           /* so many syncs do not wait for others to join */
    uint64_t sync_ns;           /* what the last one took */
    uint64_t syncing_to;        /* of `appended`, what the last sync that began covers */
    _Atomic uint32_t synced[2]; /* changes when a sync ends; by its round's parity, who waits */
    pthread_cond_t released;    /* syncing has become false */

    /* index_lock */
    struct index *index;
    bool tombstones; /* recovery: the index holds some */
    struct segment **slots;
    uint32_t slot_count;
    uint32_t slots_used; /* all before this one are */
    uint64_t live_bytes;

    /* files_lock */
    struct segment *lru_newest, *lru_oldest;
    uint32_t files_open;

    struct spares spares;

    _Atomic bool readonly; /* set once, after reason */
    _Atomic bool poisoned; /* by a failed sync or append */
    _Atomic bool said_error;
    char reason[200];
    pthread_mutex_t reason_lock;

    _Atomic uint64_t data_bytes; /* of members but the active one */
    uint64_t freed; /* compact_lock: bytes freed since the kept tombstones were last looked at */
    struct counters counters;
    struct read_counters read_counters[READ_COUNTERS];
    uint64_t recovered_segments;

    /* tender.c */
    pthread_t syncer, tender;
    bool have_threads;
    pthread_mutex_t tender_lock;
    pthread_cond_t tender_wake;
    bool tender_work, sync_work; /* tender_lock */
    _Atomic bool stopping;
    _Atomic bool space_low;       /* what frees space has to wait for compaction */
    _Atomic uint64_t space_pause; /* append_bytes before which it does not wait again */
    _Atomic uint64_t floor;       /* space.c: as it was when it was last looked at; 0: not yet */
    _Atomic bool roll_due;        /* the active segment is nearly full, and nobody rolls it yet */
    _Atomic bool squeezed;        /* a put met the reserve: compact what can be had */
};

/* keg.c: the part of opening before any file is read, which ends with the lock taken; and the end
 * of that, without a look at what is in memory. */
KEG_CHECKED int keg_begin(struct keg_env *env, const struct keg_options *options, struct keg **out);
void keg_end(struct keg *keg);

/* keg.c: says a line to the log callback. */
void keg_say(struct keg *keg, enum keg_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* keg.c: no change is taken from now on. The first reason stays. */
void keg_set_readonly(struct keg *keg, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* keg.c: the same after a failed append or sync: all waiters and later syncs fail. */
void keg_poison(struct keg *keg, const char *what, uint64_t segment, int err);
/* keg.c: what the common errors of a change are now: 0, -EROFS or -EIO. */
int keg_writable(const struct keg *keg);

#endif
