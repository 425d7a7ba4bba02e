/* SPDX-License-Identifier: MIT */
/* The commands mount and umount. */
#include "commands.h"
#include "control.h"
#include "mount.h"
#include "mounts.h"
#include "openstore.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* An error of the disk can still be told now; the daemon alone sees one at its end. */
static int sync_mount(const char *point)
{
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/" CONTROL_NAME "/control", point);
    int fd = mounts_open_control(AT_FDCWD, path);
    if (fd < 0)
        return 0; /* dead, or another user's: then it is not for us to say */
    int err = mounts_tell(fd, "sync");
    return err == -EROFS ? 0 : err;
}

/* ---- mount, and the same again with other flags ---- */

/* A store that was opened for reading only does not become writable by a flag of its mount. 1 if it
 * was, 0, or the error of asking. */
static int is_readonly(const char *point)
{
    char path[PATH_MAX + 32], *line = NULL;
    size_t size = 0;
    int readonly = 0;
    (void)snprintf(path, sizeof path, "%s/" CONTROL_NAME "/metrics", point);
    FILE *metrics = fopen(path, "re");
    if (!metrics)
        return -errno;
    while (!readonly && getline(&line, &size, metrics) > 0)
        readonly = !strcmp(line, "kegfs_readonly 1\n");
    free(line);
    fclose(metrics);
    return readonly;
}

static bool may_write(const char *point)
{
    int readonly = is_readonly(point);
    if (readonly > 0)
        log_error("cannot be made writable: %s: the store is open for reading only (\"kegfs stats "
                  "%s\" says why); unmount it and mount it again",
                  point, point);
    else if (readonly < 0)
        log_error(
            "cannot be made writable: %s: cannot see whether its store is: %s; unmount it and "
            "mount it again",
            point, strerror(-readonly));
    return !readonly;
}

/* Attributes are served, or not, until the unmount: the kernel asks only at the beginning. */
static bool attributes_agree(const struct mount_options *o, const char *point)
{
    const bool served = getxattr(point, CONTROL_ATTRIBUTES "stats", NULL, 0) >= 0;
    const bool refused = !served && errno == EOPNOTSUPP;
    if (!(o->xattr == MOUNT_OPTIONS_XATTR_OFF && served) &&
        !(o->xattr == MOUNT_OPTIONS_XATTR_ON && refused))
        return true;
    log_error("cannot remount %s: %s is for mounting; unmount it and mount it again", point,
              served ? "noxattr" : "xattr");
    return false;
}

static int remount_at(const struct mount_options *o, const char *point)
{
    unsigned long flags = (o->readonly ? MS_RDONLY : 0) | (o->dev ? 0 : MS_NODEV) |
                          (o->suid ? 0 : MS_NOSUID) | (o->noexec ? MS_NOEXEC : 0);
    struct statvfs fs;
    int err = statvfs(point, &fs) ? -errno : 0;
    if (!attributes_agree(o, point))
        return COMMANDS_FAILED;
    if (!err && fs.f_flag & ST_RDONLY && !o->readonly && !may_write(point))
        return COMMANDS_FAILED;
    if (!err && o->readonly)
        err = sync_mount(point);
    if (!err)
        err = mounts_remount(point, flags);
    if (err)
        log_error("cannot remount %s: %s%s", point, strerror(-err),
                  err == -EBUSY ? ": files are open for writing" : "");
    return err ? COMMANDS_FAILED : COMMANDS_OK;
}

static int remount(const struct mount_options *o)
{
    char point[PATH_MAX], store[PATH_MAX];
    int err = mounts_realpath(o->mountpoint, point);
    if (!err)
        err = mounts_realpath(o->store, store);
    if (!err && !mounts_is_ours(point, store)) {
        log_error("cannot remount: %s is not mounted on %s", store, point);
        return COMMANDS_FAILED;
    }
    if (err)
        log_error("cannot remount %s on %s: %s", o->store, o->mountpoint, strerror(-err));
    return err ? COMMANDS_FAILED : remount_at(o, point);
}

/* ---- The command line ---- */

struct lists {
    char **list; /* of options, as given */
    size_t count;
    bool whole; /* from mount(8), which for a remount adds what is to stay */
    bool added; /* by way of mount.fuse3(8) */
};

/* Whether a list has the word. */
static bool has_word(const struct lists *lists, const char *word)
{
    const size_t len = strlen(word);
    for (size_t i = 0; i < lists->count; i++)
        for (const char *at = lists->list[i]; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
            if (!strncmp(at, word, len) && (!at[len] || at[len] == ','))
                return true;
    return false;
}

/* mount.fuse3(8) adds this to every list that says nothing else, and it would undo what is off
 * unless asked for. In a remount it stands for what is on. */
static void drop_added(char *list)
{
    static const char added[] = ",dev,suid";
    const size_t len = strlen(list), tail = strlen(added);
    if (!strcmp(list, added + 1))
        *list = '\0';
    else if (len >= tail && !strcmp(list + len - tail, added))
        list[len - tail] = '\0';
}

/* What a remount does not name stays, and is off where mount(8) has named all that stays. */
static void begin_remount(struct mount_options *options, bool whole)
{
    struct statvfs fs;
    options->dev = options->suid = true;
    if (whole || statvfs(options->mountpoint, &fs))
        return; /* remount() will say what is wrong */
    options->readonly = options->readonly || fs.f_flag & ST_RDONLY;
    options->dev = !(fs.f_flag & ST_NODEV);
    options->suid = !(fs.f_flag & ST_NOSUID);
    options->noexec = fs.f_flag & ST_NOEXEC;
}

static bool take_lists(struct mount_options *options, const struct lists *lists)
{
    const bool again = has_word(lists, "remount");
    if (again)
        begin_remount(options, lists->whole);
    for (size_t i = 0; i < lists->count; i++) {
        if (lists->added && !again)
            drop_added(lists->list[i]);
        if (!mount_options_parse(options, lists->list[i]))
            return false;
    }
    return mount_options_agree(options);
}

/* Fills lists and what is no list. False when the command is over, with *code. */
static bool take_words(const struct commands_entry *self, int argc, char **argv,
                       struct mount_options *options, struct lists *lists, int *code)
{
    bool help = false;
    int c;
    opterr = 0;
    /* mount(8) may give -n, -s, -v, -r, -w and -t TYPE, too. */
    while ((c = getopt(argc, argv, "o:fhnsvrwt:-:")) != -1) {
        if (c == 'f')
            options->foreground = true;
        else if (c == 'r')
            options->readonly = true;
        else if (c == 'h' || (c == '-' && !strcmp(optarg, "help")))
            help = true;
        else if (c == 'o')
            lists->list[lists->count++] = optarg;
        else if (c == '?' || c == '-') {
            *code = commands_wrong(self, "unknown option");
            return false;
        }
    }
    if (help)
        *code = commands_help(self);
    else if (argc - optind != 2)
        *code = commands_wrong(self, "needs a store and a mountpoint");
    return !help && argc - optind == 2;
}

int commands_mount(const struct commands_entry *self, int argc, char **argv)
{
    struct mount_options options;
    struct lists lists = {.list = calloc((size_t)argc + 1, sizeof *lists.list)};
    /* mount.kegfs is called by mount(8) itself, which adds nothing. */
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    int code = COMMANDS_FAILED;
    lists.whole = strcmp(name, self->name) != 0;
    lists.added = lists.whole && strncmp(name, "mount.", 6) != 0;
    mount_options_init(&options);
    if (!lists.list) {
        log_error("out of memory");
    } else if (take_words(self, argc, argv, &options, &lists, &code)) {
        options.store = argv[optind];
        options.mountpoint = argv[optind + 1];
        code = COMMANDS_USAGE;
        if (take_lists(&options, &lists))
            code = options.remount ? remount(&options) : mount_run(&options);
    }
    free(lists.list);
    return code;
}

/* ---- umount ---- */

/* Waits until process pid, which served the mount, lets go of the store. */
static int wait_free(const char *store, long pid)
{
    const struct timespec step = {.tv_nsec = 5 * 1000000};
    struct keg_env *env;
    char holder[PATH_MAX + 64];
    if (!pid)
        return 0;
    int err = keg_env_posix(store, false, &env);
    if (err)
        return err;
    for (int steps = 0; !(err = keg_holder(env, holder, sizeof holder)); steps++) {
        if (openstore_pid(holder) != pid)
            break; /* mounted again */
        if (steps == 2000)
            log_info("process %ld is still writing to %s: waiting", pid, store);
        nanosleep(&step, NULL);
    }
    keg_env_free(env);
    return err == -ENOENT ? 0 : err;
}

/* The process that serves the store at point; 0: none does. LOCK has another path for it when a
 * directory above was renamed; but a mount that answers is served by who holds the store. */
static long server_of(const char *store, const char *point)
{
    struct keg_env *env;
    char holder[PATH_MAX + 64];
    long pid = 0;
    if (keg_env_posix(store, false, &env))
        return 0;
    if (!keg_holder(env, holder, sizeof holder) &&
        (!strcmp(openstore_owner(holder), point) || !mounts_is_dead(point)))
        pid = openstore_pid(holder);
    keg_env_free(env);
    return pid;
}

/* A look at the mount takes hold of it for as long as it lasts ("df", a statfs of a desktop), and
 * is no reason to fail. */
static int unmount_patiently(const char *point)
{
    const struct timespec step = {.tv_nsec = 20 * 1000000};
    int err;
    for (int left = 100; (err = mounts_unmount(point, false)) == -EBUSY && left; left--)
        nanosleep(&step, NULL);
    return err;
}

static int umount_at(const char *point, const char *store)
{
    long pid = server_of(store, point);
    int synced = sync_mount(point);
    int err = unmount_patiently(point);
    if (err == -EBUSY) {
        log_error("busy: %s: close the files and leave the directories below it (\"fuser -vm %s\" "
                  "names the processes)",
                  point, point);
        return COMMANDS_FAILED;
    }
    if (err) {
        log_error("cannot unmount %s: %s%s", point, strerror(-err),
                  err == -ENOSYS ? "; fusermount3 is not installed" : "");
        return COMMANDS_FAILED;
    }
    err = wait_free(store, pid);
    if (err)
        log_error("unmounted, but cannot see whether the store is free: %s: %s", store,
                  strerror(-err));
    if (synced)
        log_error("unmounted, but not everything is durable: %s: %s; see the system's log", store,
                  strerror(-synced));
    return err || synced ? COMMANDS_FAILED : COMMANDS_OK;
}

int commands_umount(const struct commands_entry *self, int argc, char **argv)
{
    struct commands_options options = {.letters = "", .min = 1, .max = 1};
    char point[PATH_MAX];
    int code, count = commands_parse(self, &options, argc, &argv, &code);
    if (count < 0)
        return code;
    struct mounts_entry *entry = malloc(sizeof *entry);
    int err = entry ? mounts_realpath(argv[0], point) : -ENOMEM;
    if (!err)
        err = mounts_at(point, entry);
    code = COMMANDS_FAILED;
    if (err == -ENOENT)
        log_error("not mounted: %s", argv[0]);
    else if (err)
        log_error("cannot unmount %s: %s", argv[0], strerror(-err));
    else if (strcmp(entry->type, MOUNTS_TYPE) != 0)
        log_error("not a kegfs: %s: %s (%s) is mounted there", point, entry->source, entry->type);
    else if (geteuid() && entry->user != geteuid())
        log_error("cannot unmount %s: user %u mounted it", point, entry->user);
    else
        code = umount_at(point, entry->source);
    free(entry);
    return code;
}
