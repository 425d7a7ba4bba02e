/* SPDX-License-Identifier: MIT */
/* Which of the transports (transport.h) a mount uses. Knows no FUSE. */
#ifndef TRANSPORT_CHOICE_H
#define TRANSPORT_CHOICE_H

#include "keg.h"

enum transport_kind {
    TRANSPORT_AUTO, /* the best that is to be had */
    TRANSPORT_URING,
    TRANSPORT_SPIN,
    TRANSPORT_LIBFUSE,
};

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
