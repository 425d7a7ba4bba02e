/* SPDX-License-Identifier: MIT */
/*
 * The life of a mount. Two processes: the server opens the store, mounts, serves and closes; the
 * primer waits until the server says through a pipe that the mount is there, and then opens a file
 * on it, for the kernel to learn that OPEN is not answered (the server itself would wait for
 * itself). In the background the primer is the process that the user started, so it returns when
 * the mount answers, and with its exit code when it never does; with -f it is a child.
 *
 * The store is opened, and recovered, before anything is mounted. It is closed after the unmount,
 * when no request can come any more, and the jobs of the workers are over before the session's
 * descriptor is closed: a late reply must not meet a number that has become another file.
 *
 * Signals are blocked in every thread and taken by one of their own, which unmounts as umount(8)
 * does: pages written through shared mappings are then still written back. Only when the mount is
 * busy is it detached and the loop told to end.
 *
 * Only after an unmount has everybody closed. When the loop ends otherwise (a signal, an abort of
 * the connection, umount -f, which aborts it before it finds it busy), who writes cannot go on, and
 * what is staged is dropped. An aborted connection that is mounted nowhere any more (umount -f -l)
 * looks to the daemon as one that was unmounted.
 */
#define FUSE_USE_VERSION 314
#include "mount.h"
#include "fuse_ops.h"
#include "handles.h"
#include "late.h"
#include "log.h"
#include "mount_check.h"
#include "mounts.h"
#include "openstore.h"
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_WORKERS = 32 };
/* The kernel writes back what is 30 s old, and looks every 5 s (vm.dirty_expire_centisecs and
 * vm.dirty_writeback_centisecs, unless set otherwise). */
enum { WRITEBACK_HOLD_MS = 60 * 1000 };

/* The server's exit code when the kernel offers no rings; for the primer only, as it is found out
 * when stderr has been left. */
enum { EXIT_REFUSED = 3 };

struct server {
    const struct mount_options *options;
    const struct mount_paths *paths;
    enum transport_kind transport;
    int ready; /* the pipe to the primer */
    struct openstore store;
    struct fuse_ops_daemon daemon;
    struct fuse_session *session;
    pthread_t loop_thread;
    atomic_bool loop_ended;
    bool cut_off; /* the mount was there still when the loop ended: there may be writers */
};

/* ---- Priming ---- */

/* Bigger read-ahead than FUSE's 128 KiB, where we may set it. */
static void set_read_ahead(const char *mountpoint)
{
    struct stat st;
    char path[128];
    if (stat(mountpoint, &st))
        return;
    (void)snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev),
                   minor(st.st_dev));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = write(fd, "1024", 4); /* if not, it is only slower */
    (void)n;
    close(fd);
}

/* Waits for the server; its exit code is only known when it has ended without a word. */
static int prime(int ready, const char *mountpoint)
{
    char byte, path[PATH_MAX + 32];
    ssize_t n;
    while ((n = read(ready, &byte, 1)) < 0 && errno == EINTR)
        ;
    close(ready);
    if (n != 1)
        return -ECHILD;
    (void)snprintf(path, sizeof path, "%s/" CONTROL_NAME "/stats", mountpoint);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != EACCES) /* the root may be closed to who mounts it: that is an answer */
        return -errno;
    if (fd >= 0)
        close(fd);
    set_read_ahead(mountpoint);
    return 0;
}

/* ---- Signals ---- */

static sigset_t end_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    return set;
}

static void wake(int signal)
{
    (void)signal;
}

/* The loop waits in sem_wait; a signal that comes just before it would be lost, so it is sent until
 * the loop has ended. */
static void end_loop(struct server *s)
{
    const struct timespec step = {.tv_nsec = 10 * 1000000};
    fuse_session_exit(s->session);
    while (!atomic_load(&s->loop_ended)) {
        pthread_kill(s->loop_thread, SIGUSR1);
        nanosleep(&step, NULL);
    }
}

/* The connection is over: unmounted, or aborted. */
static bool is_over(const struct server *s)
{
    struct pollfd fd = {.fd = fuse_session_fd(s->session)};
    return poll(&fd, 1, 0) == 1 && fd.revents & POLLERR;
}

static bool is_mounted(const struct server *s)
{
    return mounts_is_ours(s->paths->mountpoint, s->paths->store);
}

/* Somebody else is just unmounting it, and the kernel ends the loop; or has detached it, and it
 * stays as long as files are open. */
static void await_end(const struct server *s)
{
    const struct timespec step = {.tv_nsec = 10 * 1000000};
    for (int left = 200; left && !atomic_load(&s->loop_ended); left--)
        nanosleep(&step, NULL);
}

/* Its pages, also those of shared mappings, are written while they can be. */
static void give_up(const char *point, int err)
{
    log_warning("%s is %s: detaching it; its open files get errors from now on", point,
                err == -EBUSY ? "busy" : "not to be unmounted");
    int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    syncfs(fd);
    close(fd);
}

static void *take_signals(void *arg)
{
    struct server *s = arg;
    const char *point = s->paths->mountpoint;
    sigset_t set = end_signals();
    int signal;
    if (sigwait(&set, &signal) || atomic_load(&s->loop_ended))
        return NULL;
    log_info("signal %d: unmounting %s", signal, point);
    control_cancel(s->daemon.control);
    int err = mounts_unmount(point, false);
    if (!err)
        return NULL; /* the kernel ends the loop */
    if (is_mounted(s))
        give_up(point, err);
    else
        await_end(s);
    end_loop(s); /* the end of the session detaches it */
    return NULL;
}

/* ---- Serving ---- */

static struct fuse_session *new_session(struct server *s)
{
    const struct mount_options *o = s->options;
    char *list = NULL, *name = NULL;
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    struct fuse_session *session = NULL;
    struct fuse_lowlevel_ops ops = fuse_ops_table;
    const char *const words[] = {
        "default_permissions",
        "subtype=kegfs",
        o->readonly ? "ro" : "rw",
        o->dev ? "dev" : "nodev",
        o->suid ? "suid" : "nosuid",
        o->noexec ? "noexec" : "exec",
        o->allow_other ? "allow_other" : NULL,
    };
    int bad = asprintf(&name, "fsname=%s", s->paths->store) < 0;
    for (size_t i = 0; !bad && i < sizeof words / sizeof words[0]; i++)
        if (words[i])
            bad = fuse_opt_add_opt(&list, words[i]);
    bad = bad || fuse_opt_add_opt_escaped(&list, name) || fuse_opt_add_arg(&args, "kegfs") ||
          fuse_opt_add_arg(&args, "-o") || fuse_opt_add_arg(&args, list);
    /* Without them libfuse says ENOSYS, and the kernel does not ask again. */
    if (o->xattr == MOUNT_OPTIONS_XATTR_OFF) {
        ops.setxattr = NULL;
        ops.getxattr = NULL;
        ops.listxattr = NULL;
        ops.removexattr = NULL;
    }
    if (!bad)
        session = fuse_session_new(&args, &ops, sizeof ops, &s->daemon);
    fuse_opt_free_args(&args);
    free(list);
    free(name);
    return session;
}

/* Tells the primer, and lets go of the terminal unless in the foreground. */
static int say_ready(struct server *s)
{
    int err = 0;
    if (!s->options->foreground)
        err = chdir("/") ? -errno : log_to_syslog();
    if (!err && write(s->ready, "", 1) != 1)
        err = -errno;
    close(s->ready);
    s->ready = -1;
    return err;
}

static int loop(struct server *s)
{
    pthread_t signals;
    struct sigaction action = {.sa_handler = wake};
    sigaction(SIGUSR1, &action, NULL);
    s->loop_thread = pthread_self();
    int err = -pthread_create(&signals, NULL, take_signals, s);
    if (err)
        return err;
    err = say_ready(s);
    if (!err)
        err = transport_loop(&s->daemon.transport);
    atomic_store(&s->loop_ended, true);
    pthread_kill(signals, SIGTERM); /* wakes it, should it wait still */
    pthread_join(signals, NULL);
    return err;
}

static int serve_session(struct server *s)
{
    s->session = new_session(s);
    if (!s->session) {
        log_error("cannot make a FUSE session: %s", s->paths->mountpoint);
        return -ENOMEM;
    }
    s->daemon.session = s->session;
    int err = -EIO;
    if (fuse_session_mount(s->session, s->paths->mountpoint)) {
        log_error("cannot mount %s on %s: see the line above", s->paths->store,
                  s->paths->mountpoint);
    } else {
        err = transport_attach(&s->daemon.transport, s->session);
        if (!err)
            err = loop(s);
        s->cut_off = !is_over(s) || is_mounted(s);
        if (err)
            log_error("serving %s ended: %s", s->paths->mountpoint, strerror(-err));
        control_cancel(s->daemon.control);
        workers_free(s->daemon.workers);
        s->daemon.workers = NULL;
        transport_detach(&s->daemon.transport);
        fuse_session_unmount(s->session);
    }
    fuse_session_destroy(s->session);
    return err;
}

static int serve_store(struct server *s)
{
    struct report report = {.keg = s->store.keg,
                            .volume = s->store.volume,
                            .store = s->paths->store,
                            .mountpoint = s->paths->mountpoint,
                            .transport = &s->daemon.transport.name,
                            .requests = &s->daemon.transport.requests};
    s->daemon.volume = s->store.volume;
    s->daemon.sync = s->options->sync;
    s->daemon.transport.acl =
        s->options->acl != MOUNT_OPTIONS_ACL_OFF && s->options->xattr != MOUNT_OPTIONS_XATTR_OFF;
    s->daemon.transport.kind = s->transport;
    s->daemon.transport.forced = s->options->transport == s->transport;
    s->daemon.transport.sync = s->options->sync;
    s->daemon.transport.waiting_max = s->options->memory / 2;
    s->daemon.transport.max_threads = (unsigned)s->options->max_threads;
    s->daemon.transport.poll_us = s->options->poll_us;
    s->daemon.commit_close = s->options->commit_close;
    s->daemon.writeback = s->options->writeback && !s->options->readonly;
    handles_begin(&s->daemon);
    late_begin(&s->daemon);
    int err = control_new(&report, geteuid(), getegid(), &s->daemon.control);
    if (!err)
        err = workers_new(MAX_WORKERS, &s->daemon.workers);
    s->daemon.transport.workers = s->daemon.workers;
    if (err)
        log_error("cannot mount %s: %s", s->paths->mountpoint, strerror(-err));
    else
        err = serve_session(s);
    workers_free(s->daemon.workers);
    control_free(s->daemon.control);
    late_end(&s->daemon);
    handles_end(&s->daemon);
    return err;
}

static void log_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
    char line[512];
    int n = vsnprintf(line, sizeof line, format, args);
    if (n > 0 && line[(size_t)n < sizeof line ? (size_t)n - 1 : sizeof line - 2] == '\n')
        line[(size_t)n < sizeof line ? (size_t)n - 1 : sizeof line - 2] = '\0';
    log_keg(NULL, level <= FUSE_LOG_ERR ? KEG_LOG_ERROR : KEG_LOG_WARNING, line);
}

static int open_store(struct server *s)
{
    const struct mount_options *o = s->options;
    /* What a truncation is held back for comes out of the interval that was promised; but with
     * writeback what is written after it may stay in the kernel for longer than that. */
    const unsigned interval = o->sync_interval_ms ? (unsigned)o->sync_interval_ms : 1000;
    const unsigned hold = interval < 4 ? 1 : interval < 2000 ? interval / 4 : 500;
    struct keg_options keg = {.flags = o->readonly ? KEG_READONLY : KEG_CREATE,
                              .segment_size = o->segment_size,
                              .sync_interval_ms = interval > hold ? interval - hold : 1,
                              .owner = s->paths->mountpoint};
    struct volume_options volume = {.flags = (o->readonly ? VOLUME_READONLY : VOLUME_CREATE) |
                                             (o->relatime ? (unsigned)VOLUME_RELATIME : 0),
                                    .root_uid = geteuid(),
                                    .root_gid = getegid(),
                                    .hold_bytes = o->memory / 2,
                                    .hold_ms = o->writeback ? WRITEBACK_HOLD_MS : hold};
    int err = openstore_open(s->paths->store, &keg, &volume, &s->store);
    if (err == -EBUSY && s->store.mountpoint[0])
        log_error("the store is in use: %s: process %ld has it mounted on %s", s->paths->store,
                  openstore_pid(s->store.holder), s->store.mountpoint);
    else if (err == -EBUSY)
        log_error("the store is in use: %s: by process %s; try again when it has ended",
                  s->paths->store, s->store.holder);
    return err;
}

/* The server process, from here to its end. Returns its exit code. */
static int serve(struct server *s)
{
    sigset_t set = end_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    umask(0);
    fuse_set_log_func(log_libfuse);
    int err = open_store(s);
    if (!err) {
        err = serve_store(s);
        if (s->cut_off)
            volume_drop_staged(s->store.volume);
        int closed = openstore_close(&s->store);
        err = err ? err : closed;
    }
    if (s->ready >= 0)
        close(s->ready);
    if (s->daemon.transport.refused)
        return EXIT_REFUSED;
    return err ? 1 : 0;
}

/* ---- The two processes ---- */

static int run_foreground(struct server *s, int ready)
{
    pid_t primer = fork();
    if (primer < 0) {
        log_error("cannot start a process: %s", strerror(errno));
        return 1;
    }
    if (!primer) {
        close(s->ready);
        _exit(prime(ready, s->paths->mountpoint) ? 1 : 0);
    }
    close(ready);
    int code = serve(s);
    while (waitpid(primer, NULL, 0) < 0 && errno == EINTR)
        ;
    return code ? 1 : 0;
}

/* What the daemon was started with and does not know of, it must not keep: a pipe whose reader
 * waits for its end, a lock. Where the kernel cannot, it stays so. */
static void close_others(int kept)
{
    if (kept > 3)
        (void)close_range(3, (unsigned)kept - 1, 0);
    (void)close_range((unsigned)kept + 1, UINT_MAX, 0);
}

/* Waits for the server to end, at most that many ms; less than 0: without a limit. Has it? */
static bool wait_for_end(pid_t server, int ms, int *status)
{
    const struct timespec step = {.tv_nsec = 10 * 1000000};
    pid_t ended;
    while ((ended = waitpid(server, status, ms < 0 ? 0 : WNOHANG)) <= 0) {
        if ((ended < 0 && errno != EINTR) || ms == 0)
            return false;
        if (ms > 0) {
            ms -= ms < 10 ? ms : 10;
            nanosleep(&step, NULL);
        }
    }
    return true;
}

/* The mount has not been primed. An end of the server tells more of why than the error, which is
 * that of any call on a mount that goes; and then the mount is gone when this returns. */
static int explain(const struct server *s, pid_t server, int err)
{
    const char *point = s->paths->mountpoint;
    int status = 0;
    const bool ended = wait_for_end(server, err == -ECHILD ? -1 : 10000, &status);
    if (ended && WIFSIGNALED(status))
        log_error("cannot mount %s: the daemon was ended by signal %d", point, WTERMSIG(status));
    else if (ended && WEXITSTATUS(status) == EXIT_REFUSED)
        log_error("no transport=uring here: the kernel offers none");
    else if (err != -ECHILD) /* else the server has said why */
        log_error("mounted, but does not answer: %s: %s", point, strerror(-err));
    return 1;
}

static int run_background(struct server *s, int ready)
{
    pid_t child = fork();
    if (child < 0) {
        log_error("cannot start a process: %s", strerror(errno));
        return 1;
    }
    if (!child) {
        close_others(s->ready);
        setsid();
        exit(serve(s));
    }
    close(s->ready);
    int err = prime(ready, s->paths->mountpoint);
    return err ? explain(s, child, err) : 0;
}

int mount_run(const struct mount_options *options)
{
    struct mount_paths paths;
    int pipe_ends[2];
    enum transport_kind transport = options->transport;
    if (!mount_check(options, &paths) || transport_choose(&transport))
        return 1;
    struct server *s = calloc(1, sizeof *s);
    if (!s || pipe2(pipe_ends, O_CLOEXEC)) {
        log_error("cannot mount %s: %s", options->mountpoint, strerror(errno));
        free(s);
        return 1;
    }
    s->options = options;
    s->paths = &paths;
    s->transport = transport;
    s->ready = pipe_ends[1];
    int code =
        options->foreground ? run_foreground(s, pipe_ends[0]) : run_background(s, pipe_ends[0]);
    free(s);
    return code;
}
