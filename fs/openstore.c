/* SPDX-License-Identifier: MIT */
#include "openstore.h"
#include "mounts.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAIT_MS = 10000, STEP_MS = 20 };

long openstore_pid(const char *holder)
{
    return strtol(holder, NULL, 10);
}

const char *openstore_owner(const char *holder)
{
    const char *space = strchr(holder, ' ');
    return space ? space + 1 : "";
}

/* Who holds the store, and whether it is mounted there now. A daemon that has been unmounted and
 * still writes is like any other short command. */
static bool is_mounted(struct openstore *s)
{
    s->mountpoint[0] = '\0';
    if (keg_holder(s->env, s->holder, sizeof s->holder)) {
        s->holder[0] = '\0';
        return false;
    }
    const char *owner = openstore_owner(s->holder);
    if (owner[0] != '/' || strlen(owner) >= PATH_MAX || !mounts_is_ours(owner, s->path))
        return false;
    strcpy(s->mountpoint, owner);
    return true;
}

static int open_locked(struct openstore *s, const struct keg_options *options)
{
    const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
    s->keeper.hold = true;
    for (int waited = 0;; waited += STEP_MS) {
        if (is_mounted(s))
            return -EBUSY;
        int err = keg_open(s->env, options, &s->keg);
        if (err != -EBUSY) {
            if (err)
                log_error("cannot open the store: %s: %s%s", s->path,
                          s->keeper.line[0] ? s->keeper.line : strerror(-err),
                          err == -EROFS ? "; read it with -o ro" : "");
            s->keeper.hold = false;
            return err;
        }
        if (waited >= WAIT_MS)
            return -EBUSY;
        nanosleep(&step, NULL);
    }
}

static int open_env(const char *dir, bool create, struct openstore *s)
{
    int err = keg_env_posix(dir, create, &s->env);
    if (err == -ENOENT)
        log_error("no store: %s: %s", dir,
                  create ? "make the directory above it first"
                         : "a store is made by \"kegfs mount\" or \"kegfs put\"");
    else if (err == -ENOTDIR)
        log_error("no store: %s: a store is a directory, and this is none", dir);
    else if (err)
        log_error("cannot open the store: %s: %s", dir, strerror(-err));
    if (err)
        return err;
    err = mounts_realpath(dir, s->path);
    if (err) {
        log_error("cannot resolve the store's path: %s: %s", dir, strerror(-err));
        keg_env_free(s->env);
    }
    return err;
}

int openstore_open(const char *dir, const struct keg_options *keg,
                   const struct volume_options *volume, struct openstore *out)
{
    struct keg_options options = *keg;
    struct volume_options volume_options = *volume;
    memset(out, 0, sizeof *out);
    int err = open_env(dir, keg->flags & KEG_CREATE, out);
    if (err)
        return err;
    options.log = log_keg;
    options.log_arg = &out->keeper;
    err = open_locked(out, &options);
    if (err) {
        keg_env_free(out->env);
        return err;
    }
    const char *why = keg_readonly_reason(out->keg);
    if (why && !(keg->flags & KEG_READONLY))
        log_warning("%s: %s", dir, why);
    volume_options.log = log_keg;
    volume_options.log_arg = &out->keeper;
    err = volume_open(out->keg, &volume_options, &out->volume);
    if (!err)
        return 0;
    if (err == -ENOENT)
        log_error("nothing stored yet: %s: a store is filled by \"kegfs mount\" or \"kegfs put\"",
                  dir);
    else if (err == -EPROTO)
        log_error("not a volume this version can read: %s: it holds other keys, or was made by a "
                  "newer kegfs",
                  dir);
    else
        log_error("cannot open the volume: %s: %s; \"kegfs check\" says more", dir, strerror(-err));
    if (keg_close(out->keg))
        log_error("cannot close the store: %s", dir);
    keg_env_free(out->env);
    return err;
}

static int repair_locked(struct openstore *s, keg_loss_fn *lost, keg_progress_fn *progress,
                         void *arg)
{
    const struct keg_options options = {
        .lock_wait_ms = WAIT_MS, .log = log_keg, .log_arg = &s->keeper, .owner = "-"};
    if (is_mounted(s))
        return -EBUSY;
    s->keeper.hold = true;
    int done = keg_repair(s->env, &options, lost, progress, arg);
    s->keeper.hold = false;
    if (done == -EBUSY)
        (void)is_mounted(s);
    else if (done < 0)
        log_error("cannot repair the store: %s: %s", s->path,
                  done == -ENOSPC     ? "no room for copies of what is whole in damaged segments"
                  : s->keeper.line[0] ? s->keeper.line
                                      : strerror(-done));
    return done;
}

static int repair_tree(struct openstore *s, volume_repair_fn *tree, void *arg)
{
    const struct keg_options options = {.flags = KEG_NO_BACKGROUND,
                                        .lock_wait_ms = WAIT_MS,
                                        .log = log_keg,
                                        .log_arg = &s->keeper,
                                        .owner = "-"};
    int err = keg_open(s->env, &options, &s->keg);
    if (err) {
        log_error("cannot open the repaired store: %s: %s", s->path, strerror(-err));
        return err;
    }
    const char *why = keg_readonly_reason(s->keg);
    ssize_t done = why ? -EROFS : volume_repair(s->keg, tree, arg);
    if (done < 0)
        log_error("cannot repair the tree: %s: %s", s->path, why ? why : strerror((int)-done));
    err = keg_close(s->keg);
    if (err && done >= 0)
        log_error("the store was not closed cleanly: %s: %s", s->path, strerror(-err));
    return done < 0 ? (int)done : err ? err : done > 0;
}

int openstore_repair(const char *dir, keg_loss_fn *lost, volume_repair_fn *tree,
                     keg_progress_fn *progress, void *arg, struct openstore *out)
{
    memset(out, 0, sizeof *out);
    int err = open_env(dir, false, out);
    if (err)
        return err;
    int done = repair_locked(out, lost, progress, arg);
    if (done >= 0) {
        int more = repair_tree(out, tree, arg);
        done = more < 0 ? more : done || more;
    }
    keg_env_free(out->env);
    return done;
}

int openstore_close(struct openstore *s)
{
    int err = volume_close(s->volume);
    if (err)
        log_error("not everything was written: %s: %s", s->path, strerror(-err));
    int closed = keg_close(s->keg);
    if (closed)
        log_error("the store was not closed cleanly: %s: %s; what was synced is safe", s->path,
                  strerror(-closed));
    keg_env_free(s->env);
    return err ? err : closed;
}
