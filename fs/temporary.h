/* SPDX-License-Identifier: MIT */
/*
 * A temporary file that is to be renamed in the end, and that goes when a signal (SIGHUP, SIGINT,
 * SIGQUIT, SIGTERM) ends the process before. One at a time, in a process of one thread.
 */
#ifndef TEMPORARY_H
#define TEMPORARY_H

#include "keg.h"
#include <sys/stat.h>

/* Makes one in dir (which stays open until it is renamed or removed) and opens it for writing.
 * Returns the descriptor, or -errno. */
KEG_CHECKED int temporary_make(int dir, mode_t mode);
/* Gives it this name in dir. When that fails it is still to be removed. */
KEG_CHECKED int temporary_rename(const char *name);
void temporary_remove(void);

#endif
