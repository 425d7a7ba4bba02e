/* SPDX-License-Identifier: MIT */
/* The subcommands. Each takes its own arguments (argv[0] is its name) and returns an exit code: 0,
 * 1 for a failure that was said in a line, 2 for wrong usage. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "keg.h"
#include "log.h"

enum { COMMANDS_OK = 0, COMMANDS_FAILED = 1, COMMANDS_USAGE = 2 };

struct commands_entry {
    const char *name;
    const char *usage; /* behind the name */
    const char *help;  /* lines, the last with a newline */
    int (*run)(const struct commands_entry *self, int argc, char **argv);
};

int commands_mount(const struct commands_entry *self, int argc, char **argv);
int commands_umount(const struct commands_entry *self, int argc, char **argv);
int commands_put(const struct commands_entry *self, int argc, char **argv);
int commands_get(const struct commands_entry *self, int argc, char **argv);
int commands_rm(const struct commands_entry *self, int argc, char **argv);
int commands_ls(const struct commands_entry *self, int argc, char **argv);
int commands_stats(const struct commands_entry *self, int argc, char **argv);
int commands_segments(const struct commands_entry *self, int argc, char **argv);
int commands_compact(const struct commands_entry *self, int argc, char **argv);
int commands_hint(const struct commands_entry *self, int argc, char **argv);
int commands_check(const struct commands_entry *self, int argc, char **argv);
int commands_dump(const struct commands_entry *self, int argc, char **argv);

/* Prints the help. */
int commands_help(const struct commands_entry *self);
/* Says that the usage is wrong, and how it is right. */
int commands_wrong(const struct commands_entry *self, const char *what);

/*
 * Takes the options off: each letter of `letters` that is given is set in given[letter]; "--json"
 * is 'j' and "--repair" 'R' when allowed there. Returns the number of operands, now argv[0..], or
 * -1 when the command is over with *code (help, or wrong usage, which counts operands, too; max <
 * 0: any number).
 */
struct commands_options {
    const char *letters;
    int min, max; /* operands */
    bool given[128];
};
int commands_parse(const struct commands_entry *self, struct commands_options *options, int argc,
                   char ***argv, int *code);

/* Flushes standard output. 0, or says that it failed. */
KEG_CHECKED int commands_flush(void);

/* A bar on stderr while it is a terminal; arg: a struct commands_progress. Never cancels. */
struct commands_progress {
    const char *what;
    int shown; /* per cent + 1; 0: nothing yet */
};
bool commands_progress(void *arg, uint64_t done, uint64_t total);
void commands_progress_end(const struct commands_progress *progress);

#endif
