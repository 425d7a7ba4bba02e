/* SPDX-License-Identifier: MIT */
/* The commands that look at a store and tend it: stats, segments, dump, compact, hint, check. */
#include "access.h"
#include "commands.h"
#include "repair.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int said(const struct commands_entry *self, const char *store, int err)
{
    if (err == -ENOSPC)
        log_error("%s: %s: no space is left for it; remove something first", self->name, store);
    else if (err)
        log_error("%s: %s: %s", self->name, store, strerror(-err));
    return err ? COMMANDS_FAILED : COMMANDS_OK;
}

static int show(const struct commands_entry *self, int argc, char **argv, enum access_what what)
{
    struct commands_options options = {.letters = "j", .min = 1, .max = 1};
    struct access *access;
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    if (access_open(argv[0], ACCESS_LOOK, &access))
        return COMMANDS_FAILED;
    int err = access->ops->report(access, what, options.given['j'], stdout);
    code = said(self, argv[0], err);
    if (commands_flush())
        code = COMMANDS_FAILED;
    return access_finish(access, code);
}

int commands_stats(const struct commands_entry *self, int argc, char **argv)
{
    return show(self, argc, argv, ACCESS_STATS);
}

int commands_segments(const struct commands_entry *self, int argc, char **argv)
{
    return show(self, argc, argv, ACCESS_SEGMENTS);
}

int commands_dump(const struct commands_entry *self, int argc, char **argv)
{
    return show(self, argc, argv, ACCESS_DUMP);
}

static int tend(const struct commands_entry *self, int argc, char **argv, enum access_task task)
{
    struct commands_options options = {.letters = "", .min = 1, .max = 1};
    struct commands_progress progress = {.what = self->name};
    struct access *access;
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    if (access_open(argv[0], ACCESS_CHANGE, &access))
        return COMMANDS_FAILED;
    int err = access->ops->task(access, task, commands_progress, &progress);
    commands_progress_end(&progress);
    return access_finish(access, said(self, argv[0], err));
}

int commands_compact(const struct commands_entry *self, int argc, char **argv)
{
    return tend(self, argc, argv, ACCESS_COMPACT);
}

int commands_hint(const struct commands_entry *self, int argc, char **argv)
{
    return tend(self, argc, argv, ACCESS_HINT);
}

static int repair(const struct commands_entry *self, const char *store, bool json)
{
    struct commands_progress progress = {.what = self->name};
    struct openstore *busy = malloc(sizeof *busy);
    bool sound = false;
    int err = busy ? repair_run(store, json, stdout, &sound, commands_progress, &progress, busy)
                   : -ENOMEM;
    commands_progress_end(&progress);
    if (err == -EBUSY && busy->mountpoint[0])
        log_error("check --repair: %s: mounted at %s: unmount it first", store, busy->mountpoint);
    else if (err == -EBUSY)
        log_error("check --repair: %s: in use by process %s: try again when it has ended", store,
                  busy->holder);
    else if (err == -ENOMEM)
        log_error("check --repair: %s: %s", store, strerror(ENOMEM));
    free(busy);
    return commands_flush() || err || !sound ? COMMANDS_FAILED : COMMANDS_OK;
}

int commands_check(const struct commands_entry *self, int argc, char **argv)
{
    struct commands_options options = {.letters = "jR", .min = 1, .max = 1};
    struct commands_progress progress = {.what = self->name};
    struct access *access;
    uint64_t findings;
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    if (options.given['R'])
        return repair(self, argv[0], options.given['j']);
    if (access_open(argv[0], ACCESS_LOOK, &access))
        return COMMANDS_FAILED;
    int err = access->ops->check(access, options.given['j'], stdout, &findings, commands_progress,
                                 &progress);
    commands_progress_end(&progress);
    code = said(self, argv[0], err);
    if (commands_flush() || findings)
        code = COMMANDS_FAILED;
    return access_finish(access, code);
}
