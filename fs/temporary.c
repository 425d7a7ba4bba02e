/* SPDX-License-Identifier: MIT */
#include "temporary.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { TRIES = 100 };

static const int end_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
enum { SIGNALS = sizeof end_signals / sizeof end_signals[0] };

/* Changes only while those signals are blocked: their handler reads it. */
static struct {
    int dir;
    char name[64];
    struct sigaction before[SIGNALS];
} temporary;

/* The signal is let through, to its default action, when this returns. */
static void end(int signal)
{
    (void)unlinkat(temporary.dir, temporary.name, 0);
    raise(signal);
}

static void block(sigset_t *old)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < SIGNALS; i++)
        sigaddset(&set, end_signals[i]);
    pthread_sigmask(SIG_BLOCK, &set, old);
}

static void unblock(const sigset_t *old)
{
    pthread_sigmask(SIG_SETMASK, old, NULL);
}

static void arm(void)
{
    const struct sigaction action = {.sa_handler = end, .sa_flags = (int)SA_RESETHAND};
    for (int i = 0; i < SIGNALS; i++) {
        sigaction(end_signals[i], NULL, &temporary.before[i]);
        if (temporary.before[i].sa_handler != SIG_IGN) /* as under nohup */
            sigaction(end_signals[i], &action, NULL);
    }
}

static void disarm(void)
{
    for (int i = 0; i < SIGNALS; i++)
        sigaction(end_signals[i], &temporary.before[i], NULL);
}

int temporary_make(int dir, mode_t mode)
{
    sigset_t old;
    int fd = -1;
    block(&old);
    temporary.dir = dir;
    /* A process of this number may have been killed here before. */
    for (int i = 0; fd < 0 && i < TRIES && (i == 0 || errno == EEXIST); i++) {
        (void)snprintf(temporary.name, sizeof temporary.name, ".kegfs-put-%ld-%d", (long)getpid(),
                       i);
        fd =
            openat(dir, temporary.name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    }
    int error = fd < 0 ? -errno : 0;
    if (!error)
        arm();
    unblock(&old);
    return error ? error : fd;
}

int temporary_rename(const char *name)
{
    sigset_t old;
    block(&old);
    int error = renameat(temporary.dir, temporary.name, temporary.dir, name) ? -errno : 0;
    if (!error)
        disarm();
    unblock(&old);
    return error;
}

void temporary_remove(void)
{
    sigset_t old;
    block(&old);
    (void)unlinkat(temporary.dir, temporary.name, 0);
    disarm();
    unblock(&old);
}
