/* SPDX-License-Identifier: MIT */
/*
 * Hints as files: NNNNNNNN.hint, written front to back to a temporary name and then published, and
 * read block by block. A hint that does not fit its segment in every respect counts as none.
 */
#ifndef HINTFILE_H
#define HINTFILE_H

#include "env.h"
#include "hint.h"

/* Writing. Memory: the block under way, the block index, and a buffer of 256 KiB. */
struct hintfile_writer;
/* -ENOMEM, and what env_create gives. */
KEG_CHECKED int hintfile_create(struct keg_env *env, const uint8_t store[FORMAT_ID_SIZE],
                                uint64_t segment, struct hintfile_writer **out);
/* Ascending keys, each once; else, or outside the limits, -EINVAL. An error sticks: finish will
 * return it, too. */
KEG_CHECKED int hintfile_add(struct hintfile_writer *writer, const struct hint_entry *entry);
/* Writes index and trailer, syncs, publishes, frees the writer (also when it fails); *size gets the
 * file's bytes. info's store and segment must be those given to hintfile_create. */
KEG_CHECKED int hintfile_finish(struct hintfile_writer *writer, const struct hint_info *info,
                                uint64_t *size);
void hintfile_abandon(struct hintfile_writer *writer); /* frees, removes the temporary file */

/* Reading: one position in a hint's sorted entries. Memory: the block index and one block. */
struct hintfile_reader;
/* -ENOENT: no file; -EBADMSG: not sound, of another version, store or segment. *info is filled. */
KEG_CHECKED int hintfile_open(struct keg_env *env, const uint8_t store[FORMAT_ID_SIZE],
                              uint64_t segment, struct hint_info *info,
                              struct hintfile_reader **out);
/* 1: *entry is the next, valid until the next call; 0: the end; -EBADMSG, -EIO. An error sticks.
 * Only a walk without seeks that came to its end has verified the hint as a whole. */
KEG_CHECKED int hintfile_next(struct hintfile_reader *reader, struct hint_entry *entry);
/* The next entry met is the first >= key. A key must not lie before that of an earlier seek or of
 * an entry already met. -EBADMSG, -EIO. */
KEG_CHECKED int hintfile_seek(struct hintfile_reader *reader, struct keg_bytes key);
uint64_t hintfile_size(const struct hintfile_reader *reader); /* bytes of the file */
uint64_t hintfile_entries(const struct hintfile_reader *reader);
/* The blocks, and the first key of each; valid until the reader is closed. */
size_t hintfile_blocks(const struct hintfile_reader *reader);
struct keg_bytes hintfile_block_key(const struct hintfile_reader *reader, size_t block);
void hintfile_close(struct hintfile_reader *reader); /* NULL is allowed */

/* "NNNNNNNN.hint" for a segment id (decimal, at least eight digits); out has ENV_NAME_MAX + 1
 * bytes. */
void hintfile_name(uint64_t segment, char *out);

#endif
