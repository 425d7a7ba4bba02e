/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int commands_wrong(const struct commands_entry *self, const char *what)
{
    log_error("%s: %s: usage: kegfs %s %s", self->name, what, self->name, self->usage);
    return COMMANDS_USAGE;
}

int commands_help(const struct commands_entry *self)
{
    printf("usage: kegfs %s %s\n%s", self->name, self->usage, self->help);
    return commands_flush() ? COMMANDS_FAILED : COMMANDS_OK;
}

int commands_parse(const struct commands_entry *self, struct commands_options *o, int argc,
                   char ***argv, int *code)
{
    static const struct option words[] = {{"help", no_argument, NULL, 'h'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"repair", no_argument, NULL, 'R'},
                                          {0}};
    char letters[32], wrong[128];
    int c;
    (void)snprintf(letters, sizeof letters, "hj%s", o->letters);
    opterr = 0;
    while ((c = getopt_long(argc, *argv, letters, words, NULL)) != -1) {
        if (c == 'h') {
            *code = commands_help(self);
            return -1;
        }
        if (c == '?' || !strchr(o->letters, c)) {
            (void)snprintf(wrong, sizeof wrong, "unknown option %s", (*argv)[optind - 1]);
            *code = commands_wrong(self, wrong);
            return -1;
        }
        o->given[c] = true;
    }
    *argv += optind;
    int count = argc - optind;
    if (count < o->min || (o->max >= 0 && count > o->max)) {
        *code =
            commands_wrong(self, count < o->min ? "something is missing" : "too many arguments");
        return -1;
    }
    return count;
}

int commands_flush(void)
{
    if (!fflush(stdout) && !ferror(stdout))
        return 0;
    log_error("cannot write to standard output: %s", strerror(errno));
    return -EIO;
}

bool commands_progress(void *arg, uint64_t done, uint64_t total)
{
    enum { WIDTH = 40 };
    static const char full[] = "########################################";
    struct commands_progress *p = arg;
    int percent = total ? (int)((done < total ? done : total) * 100 / total) : 100;
    if (p->shown == percent + 1 || !isatty(STDERR_FILENO))
        return false;
    p->shown = percent + 1;
    fprintf(stderr, "\r%s [%-*.*s] %3d%%", p->what, WIDTH, percent * WIDTH / 100, full, percent);
    return false;
}

void commands_progress_end(const struct commands_progress *p)
{
    if (p->shown)
        fprintf(stderr, "\r%*s\r", 60, "");
}
