/* SPDX-License-Identifier: MIT */
/* Opens a store and the volume in it, for the daemon and for commands: waits for a short command of
 * another process, and tells one that is mounted. One thread. */
#ifndef OPENSTORE_H
#define OPENSTORE_H

#include "log.h"
#include "volume.h"
#include <limits.h>

struct openstore {
    struct keg_env *env;
    struct keg *keg;
    struct volume *volume;
    struct log_keeper keeper;
    char path[PATH_MAX];        /* the store's real path */
    char mountpoint[PATH_MAX];  /* with -EBUSY: where it is mounted; "" when it is not */
    char holder[PATH_MAX + 64]; /* with -EBUSY: "PID OWNER" */
};

/*
 * dir: the store. keg and volume: flags and settings (log is set here). With KEG_CREATE the
 * directory is made, too. Says what is wrong in a line, but for -EBUSY, which is the caller's to
 * say: at once when the store is mounted, else after 10 seconds. Whatever else fails, nothing is
 * left open.
 */
KEG_CHECKED int openstore_open(const char *dir, const struct keg_options *keg,
                               const struct volume_options *volume, struct openstore *out);
/*
 * keg_repair with dir's environment, waiting for its lock as above; then the tree is repaired, too,
 * and told of to `tree`. -EBUSY is the caller's to say: holder and, if it is mounted, mountpoint
 * are filled. All else is said. Leaves nothing open. 1: something was repaired; 0: all was sound.
 */
KEG_CHECKED int openstore_repair(const char *dir, keg_loss_fn *lost, volume_repair_fn *tree,
                                 keg_progress_fn *progress, void *arg, struct openstore *out);

/* Closes volume and store; says what fails, and returns the first error. */
KEG_CHECKED int openstore_close(struct openstore *store);

/* Of "PID OWNER": the pid, 0 when there is none; the owner, "" when there is none. */
long openstore_pid(const char *holder);
const char *openstore_owner(const char *holder);

#endif
