/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const struct commands_entry table[] = {
    {"mount", "STORE MNT [-o OPTION,...] [-f]",
     "Mounts the store on the directory MNT, and makes an empty one if there is none.\n"
     "-f stays in the foreground. Options: ro, sync, relatime, allow_other, dev, suid,\n"
     "noexec, nonempty, noacl, commit=close, writeback, sync_interval=MS, segment_size=BYTES,\n"
     "transport=KIND, max_threads=N, poll=US, memory=BYTES, remount; see kegfs(8).\n",
     commands_mount},
    {"umount", "MNT", "Unmounts, and returns when everything is durable and the store is free.\n",
     commands_umount},
    {"put", "STORE KEY [FILE]",
     "Puts FILE, or standard input, as a whole; makes missing parent directories, and an\n"
     "empty store if there is none.\n",
     commands_put},
    {"get", "STORE KEY [FILE]", "Writes the contents to FILE, or to standard output.\n",
     commands_get},
    {"rm", "STORE KEY...", "Removes files and empty directories.\n", commands_rm},
    {"ls", "[-l] [-0] [--json] STORE [PREFIX]",
     "Lists all paths that begin with PREFIX, a line each, directories with a slash behind.\n"
     "-0 ends each with a NUL byte instead; -l shows mode, links, owner, group, size and time.\n",
     commands_ls},
    {"stats", "[--json] STORE", "Shows figures of the store and, when mounted, of the mount.\n",
     commands_stats},
    {"segments", "[--json] STORE", "Lists the segments.\n", commands_segments},
    {"compact", "STORE", "Rewrites the segments that hold dead bytes, to free their space.\n",
     commands_compact},
    {"hint", "STORE", "Writes every hint that is missing.\n", commands_hint},
    {"check", "[--json] [--repair] STORE",
     "Reads and verifies every byte and the tree; exits with 1 when it finds something. With\n"
     "--repair, makes a sound store of what is left, and says what is lost.\n",
     commands_check},
    {"dump", "[--json] STORE", "Prints every live key, a line each.\n", commands_dump},
};
enum { COUNT = sizeof table / sizeof table[0] };

static void print_usage(FILE *out)
{
    fputs("usage:\n", out);
    for (size_t i = 0; i < COUNT; i++)
        fprintf(out, "  kegfs %s %s\n", table[i].name, table[i].usage);
    fputs("  kegfs STORE MNT [-o OPTION,...]    the same as mount, for mount(8)\n"
          "  kegfs COMMAND --help\n"
          "  kegfs --version\n"
          "STORE is the store's directory or, where it is mounted, its mountpoint.\n",
          out);
}

static bool is_one_of(const char *word, const char *a, const char *b)
{
    return !strcmp(word, a) || !strcmp(word, b);
}

/* Were one of these closed, a file of the store would get its number, and then what is printed, or
 * /dev/null over it. Using one still fails. */
static bool fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            return false;
    return true;
}

int main(int argc, char **argv)
{
    if (!fill_standard_descriptors())
        return COMMANDS_FAILED;
    if (argc < 2) {
        print_usage(stderr);
        return COMMANDS_USAGE;
    }
    for (size_t i = 0; i < COUNT; i++)
        if (!strcmp(argv[1], table[i].name))
            return table[i].run(&table[i], argc - 1, argv + 1);
    if (is_one_of(argv[1], "-h", "--help") || is_one_of(argv[1], "-V", "--version")) {
        if (is_one_of(argv[1], "-h", "--help"))
            print_usage(stdout);
        else
            puts("kegfs " KEGFS_VERSION);
        return commands_flush() ? COMMANDS_FAILED : COMMANDS_OK;
    }
    if (argc >= 3 && argv[1][0] != '-' && argv[2][0] != '-')
        return commands_mount(&table[0], argc, argv);
    log_error("unknown command: %s: see \"kegfs --help\"", argv[1]);
    return COMMANDS_USAGE;
}
