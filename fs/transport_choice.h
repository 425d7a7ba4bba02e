/* SPDX-License-Identifier: MIT */
/* Which of the transports (transport.h) a mount uses. Knows no FUSE. */
#ifndef TRANSPORT_CHOICE_H
#define TRANSPORT_CHOICE_H

#include "keg.h"
#include <stdint.h>

enum transport_kind {
    TRANSPORT_AUTO, /* the best that is to be had */
    TRANSPORT_URING,
    TRANSPORT_SPIN,
    TRANSPORT_LIBFUSE,
};

/* For a ring's thread to poll as long as seems good (transport_poll.h). */
#define TRANSPORT_POLL_AUTO UINT64_MAX

/* As options and statistics call it: "auto", "uring", "spin", "libfuse". */
const char *transport_choice_name(enum transport_kind kind);

/*
 * Looks what the kernel allows, and replaces TRANSPORT_AUTO by the best. -EOPNOTSUPP: the one that
 * was asked for is not to be had; that was said in a line. Says one on a terminal when a switch of
 * the kernel would make it faster.
 */
KEG_CHECKED int transport_choose(enum transport_kind *kind);

/* How many CPUs could ever be there; the kernel has a queue for each. */
unsigned transport_possible_cpus(void);

#endif
