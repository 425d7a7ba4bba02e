/* SPDX-License-Identifier: MIT */
/* Segments as objects: the table of slots, references, descriptors, files. */
#ifndef SEGMENT_H
#define SEGMENT_H

#include "store.h"

/* "NNNNNNNN.data": decimal, at least eight digits. out has ENV_NAME_MAX + 1 bytes. */
void segment_name(uint64_t id, char *out);
/* Whether name is a segment's or its hint's (or the temporary of one), and of which id. */
bool segment_parse_name(const char *name, uint64_t *id);

/* A segment in a slot of the table, with the table's reference. Takes index_lock. -ENOMEM. */
KEG_CHECKED int segment_add(struct keg *keg, uint64_t id, enum format_kind kind,
                            struct segment **out);
/* Takes it out of the table and gives back the table's reference; no index entry may name its slot
 * any more. With doom, its files are removed with the last reference. Takes index_lock. */
void segment_retire(struct keg *keg, struct segment *segment, bool doom);
/* Frees what segment_add made, at close. */
void segment_free_all(struct keg *keg);

void segment_ref(struct segment *segment);
void segment_unref(struct keg *keg, struct segment *segment);

/* The file, opened for reading if it is not; segment_release lets go of it. The caller has a
 * reference. At most SEGMENT_FILES_MAX, and a quarter of the process's descriptors, stay
 * open without a user, and as many more as there were readers at once. */
enum { SEGMENT_FILES_MAX = 512 };
KEG_CHECKED int segment_file(struct keg *keg, struct segment *segment, struct keg_file **out);
void segment_release(struct segment *segment);
/* Closes its file if it is open; the caller has the last reference. */
void segment_close(struct keg *keg, struct segment *segment);
/* Gives it a file just created, which stays open until segment_unpin. */
void segment_pin(struct keg *keg, struct segment *segment, struct keg_file *file);
void segment_unpin(struct keg *keg, struct segment *segment);

/* segment_pin in place of the file that was opened for reading and that the caller uses. While the
 * store is being opened: nobody else reads. */
void segment_replace_file(struct keg *keg, struct segment *segment, struct keg_file *file);

/* env_create; descriptors kept for reading make room for a file that the log needs. */
KEG_CHECKED int segment_create_file(struct keg *keg, const char *name, struct keg_file **out);
/* Makes the file of a segment, with its durable header, and the name durable. A failed sync of the
 * name poisons the store. */
KEG_CHECKED int segment_create(struct keg *keg, const struct format_segment *header,
                               struct keg_file **out);

/* Writes the footer at segment->length, cuts what is behind it, and makes all of it durable. The
 * segment's length stays as it is. -ENOSPC, -EDQUOT: the footer is not written and nothing was
 * synced; any other error may be one of the sync. */
KEG_CHECKED int segment_write_footer(struct keg *keg, const struct segment *segment,
                                     struct keg_file *file);

struct format_salt segment_salt(const struct keg *keg, uint64_t id);

/* Members (manifest_lock held). */
KEG_CHECKED int segment_member_room(struct keg *keg, size_t more); /* -ENOMEM */
void segment_member_add_locked(struct keg *keg, struct segment *segment);
void segment_member_drop_locked(struct keg *keg, struct segment *segment);
/* The highest sequence that was ever used, as far as is known. */
uint64_t segment_last_sequence_locked(struct keg *keg);
/* Copies the members, each with a reference; the caller frees by segment_put_members. */
KEG_CHECKED int segment_get_members(struct keg *keg, struct segment ***out, size_t *count);
void segment_put_members(struct keg *keg, struct segment **members, size_t count);

/*
 * Publishes MANIFEST from the members. manifest_lock held. Fails with -ENOSPC, -ENOMEM and the like
 * and the old manifest stands; or with -EIO, nobody knows which of the two is on disk, and the
 * store is poisoned.
 */
#define SEGMENT_MANIFEST     "MANIFEST"
#define SEGMENT_MANIFEST_TMP "MANIFEST.tmp"
KEG_CHECKED int segment_publish_locked(struct keg *keg);

#endif
