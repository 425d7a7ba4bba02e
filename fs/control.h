/* SPDX-License-Identifier: MIT */
/*
 * The control directory, .kegfs in the root, and the control attributes of the root. Knows no FUSE.
 *
 * Nothing is opened on this mount as far as the daemon sees, so each lookup of a file makes a fresh
 * inode, with contents and size fixed at that moment, that lives until it is forgotten. Its inodes
 * have a range of numbers of their own, which the volume never reaches.
 *
 * Any thread. Errors are those of the calls they stand for.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include "report.h"
#include <sys/stat.h>

struct control;

#define CONTROL_NAME       ".kegfs"
#define CONTROL_DIR        (UINT64_C(1) << 62) /* the directory's inode; its files' come after */
#define CONTROL_ATTRIBUTES "user.kegfs."       /* prefix of the root's control attributes */

/* report is copied; what it points to must outlive the control. uid, gid: whose the files are. */
KEG_CHECKED int control_new(const struct report *report, uint32_t uid, uint32_t gid,
                            struct control **out);
/* Cancels commands under way: they return -EINTR soon. */
void control_cancel(struct control *control);
void control_free(struct control *control); /* NULL is allowed */

static inline bool control_owns(uint64_t ino)
{
    return ino >= CONTROL_DIR;
}
/* Is it the name that nobody may make, remove or rename? */
bool control_reserved(uint64_t dir, const char *name);

/* dir is the root or CONTROL_DIR. Counts one lookup for a file. May take long (dump). A file that
 * the user may not read is empty. */
KEG_CHECKED int control_lookup(struct control *control, uint64_t dir, const char *name,
                               uint32_t uid, struct stat *st);
void control_forget(struct control *control, uint64_t ino, uint64_t n);
KEG_CHECKED int control_getattr(struct control *control, uint64_t ino, struct stat *st);
/*
 * Bytes from offset on: *data points into the inode's contents. Counts one lookup, to be forgotten
 * when the reply was sent: whoever has it may close the file and forget the inode at once.
 */
KEG_CHECKED int control_read(struct control *control, uint64_t ino, uint64_t offset, size_t size,
                             struct keg_bytes *data);
/* The i-th name that the directory lists, NULL at the end. */
const char *control_list(size_t i);

/* May the inode be written to? 0, -EACCES, -EISDIR. */
KEG_CHECKED int control_writable(struct control *control, uint64_t ino);
/*
 * Runs a command: compact, hint, sync, check, with white space around it or none. Returns when it
 * is done. -EINVAL: no such command; -EINTR: cancelled; its own error.
 */
KEG_CHECKED int control_run(struct control *control, const char *command, size_t len);

/* May the user run commands, as the mode of the file `control` has it: who mounted, and root. */
bool control_permits(const struct control *control, uint32_t uid);

/* name begins with CONTROL_ATTRIBUTES. -EOPNOTSUPP for what is not a command or cannot be read. */
KEG_CHECKED int control_setxattr(struct control *control, const char *name);
KEG_CHECKED ssize_t control_getxattr(struct control *control, const char *name, void *value,
                                     size_t size);

#endif
