/* SPDX-License-Identifier: MIT */
/*
 * The index: an ordered map from key to where its newest record lies. In memory now; behind this
 * interface so that sorted hints can be searched in place later.
 *
 * Not safe for threads: the caller holds a lock, shared for index_get and cursors, exclusive for
 * the rest.
 */
#ifndef INDEX_H
#define INDEX_H

#include "keg.h"

struct index;

struct index_place {
    uint64_t sequence;
    uint64_t offset;    /* of the stored value in the segment; below 2^32, as segments are; 0: there
                           is none stored, and if value_len is not 0, it is lost */
    uint32_t slot;      /* of the segment in the store's table */
    uint32_t value_len; /* bytes */
    uint32_t crc;
    bool tombstone; /* only while the index is being loaded */
};

/* The value is known to be lost (FORMAT_LOST). */
static inline bool index_is_lost(const struct index_place *place)
{
    return place->offset == 0 && place->value_len && !place->tombstone;
}

KEG_CHECKED int index_new(struct index **out); /* -ENOMEM */
void index_free(struct index *index);          /* NULL is allowed */

/* Sees to it that the next `puts` calls of index_put cannot fail. Memory not used is kept for the
 * next time, within reason. -ENOMEM. */
KEG_CHECKED int index_reserve(struct index *index, size_t puts);

/* 0 or -ENOENT. meta (may be NULL) points into the index and holds until it changes. */
KEG_CHECKED int index_get(const struct index *index, struct keg_bytes key,
                          struct index_place *place, struct keg_bytes *meta);

/* Inserts or replaces. 1: it replaced, and *old (may be NULL) and *old_meta_len are what was there;
 * 0: the key is new; -ENOMEM, and nothing changed (never after index_reserve). */
KEG_CHECKED int index_put(struct index *index, struct keg_bytes key,
                          const struct index_place *place, struct keg_bytes meta,
                          struct index_place *old, uint8_t *old_meta_len);

/* 0, and *old as above; -ENOENT. */
KEG_CHECKED int index_delete(struct index *index, struct keg_bytes key, struct index_place *old,
                             uint8_t *old_meta_len);

/* Changes slot, offset (and nothing else) of a key that is there. -ENOENT. Never allocates. */
KEG_CHECKED int index_move(struct index *index, struct keg_bytes key, uint32_t slot,
                           uint64_t offset);

/* Calls fn for each entry from the first key >= from on, in order, until fn returns false or the
 * keys end. What fn gets is valid during the call only; fn must not change the index. */
typedef bool index_visit_fn(void *arg, struct keg_bytes key, struct keg_bytes meta,
                            const struct index_place *place);
void index_scan(const struct index *index, struct keg_bytes from, index_visit_fn *fn, void *arg);

/* Removes every entry whose place says tombstone. */
void index_drop_tombstones(struct index *index);

uint64_t index_count(const struct index *index); /* keys, tombstones included */
uint64_t index_bytes(const struct index *index); /* memory it takes, all told */

/*
 * Building: an index from keys that come in ascending order, from the leaves up, which costs a
 * fraction of as many puts. Several parts may be built at a time, each by one thread.
 */
struct index_build;
KEG_CHECKED int index_build_new(struct index_build **out); /* -ENOMEM */
/* key is copied. -ENOMEM; -EINVAL: key is not above the last one. After an error the build is good
 * for index_build_free only. */
KEG_CHECKED int index_build_add(struct index_build *build, struct keg_bytes key,
                                const struct index_place *place, struct keg_bytes meta);
/* Makes one index of the parts, and frees them whatever it returns. Their keys must ascend from one
 * part to the next (-EINVAL). -ENOMEM. */
KEG_CHECKED int index_build_finish(struct index_build **parts, size_t count, struct index **out);
void index_build_free(struct index_build *build); /* NULL is allowed */

/* Verifies the structure; for tests. 0 or -EBADMSG. */
KEG_CHECKED int index_check(const struct index *index);

#endif
