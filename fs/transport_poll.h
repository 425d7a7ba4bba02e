/* SPDX-License-Identifier: MIT */
/*
 * Looks for a completion for some microseconds before a ring's thread sleeps.
 *
 * It is not for the thread's own sake. When a reply wakes the client, the scheduler puts it on a
 * CPU that is idle, if there is one, and not on the one that runs the ring's thread. In a virtual
 * machine an idle CPU has halted, and to wake it takes several times as long as a request does. A
 * thread that polls keeps its CPU from being idle, so the client stays on the other one, where it
 * takes turns with that one's thread. So a thread polls on as long as another ring has requests.
 * With more than two CPUs there is nearly always another idle one, and it would be for nothing.
 *
 * Beside programs that compute there is no idle CPU, and polling would only take time from them and
 * from the client. So every millisecond a thread asks the kernel how many threads want to run, and
 * does not poll for some while if there are, but for those that poll, enough for all CPUs: 1 ms at
 * first, as the daemon's own threads and the kernel's come and go, up to 20 ms if it stays so. It
 * yields between two looks for the sake of whoever comes in between. (To judge by how long a yield
 * takes was tried: one to the client, which then waits for a third, cannot be told from a good
 * one.) In the same way it leaves off where the last few times nothing came, or nothing soon: that
 * client pauses between two requests, or has so few of them that to wake a CPU for each is cheaper.
 *
 * How long: to wake a halted CPU may take some hundred microseconds. Who stops before the client
 * has woken there lets its own CPU halt, and the client comes back to that one next.
 */
#ifndef TRANSPORT_POLL_H
#define TRANSPORT_POLL_H

#include "transport_choice.h"
#include <liburing.h>
#include <stdatomic.h>
#include <stdint.h>

/* What the rings of a mount have in common. */
struct transport_poll_load {
    uint64_t us; /* how long to poll after the last request, with two rings of any; 0: not at all */
    unsigned cpus;
    int fd;                  /* /proc/loadavg */
    atomic_uint polling;     /* threads */
    _Atomic uint64_t served; /* ns: when one had last served its requests */
};

struct transport_poll {
    struct transport_poll_load *load;
    unsigned missed;          /* so often in a row nothing came, */
    unsigned crowded;         /* and others wanted the CPUs */
    uint64_t asked, calm_end; /* ns, of the monotonic clock; 0 at first */
};

/* us may be TRANSPORT_POLL_AUTO: then by the number of rings, which is that of CPUs. Where the
 * kernel does not tell how many threads run, nobody polls. */
void transport_poll_open(struct transport_poll_load *load, uint64_t us, unsigned rings);
void transport_poll_close(struct transport_poll_load *load);

/*
 * The ring's own thread only. The ring has IORING_SETUP_TASKRUN_FLAG. Submits what there is. 1: a
 * completion is there; 0: none is, and perhaps nothing was submitted; -errno, as from
 * io_uring_submit.
 */
KEG_CHECKED int transport_poll(struct transport_poll *poll, struct io_uring *ring);

#endif
