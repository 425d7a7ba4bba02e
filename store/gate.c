/* SPDX-License-Identifier: MIT */
/*
 * Mostly a commit is a write into memory, over in microseconds. Now and then it is not: when the
 * active segment is full and the log rolls (syncs, a new file, MANIFEST). A caller that holds locks
 * over its commit, as a namespace has to, would hold them over that, and who only wants to read
 * would wait with it.
 *
 * So such a caller enters first, before its own locks. If the active segment is nearly full, the
 * log rolls there. A roll shuts the gate: it waits for those inside, who would queue up behind it
 * with their locks held, and holds up those who come, who hold nothing yet.
 *
 * Those inside need microseconds, too, but not always: they may read from the disk, or log the hole
 * in a large file frame by frame. All others would wait for that one. So a roll waits for them for
 * a moment only. One that is merely due is then left for later, when some more was appended; the
 * segment has room for several such tries. At its end the log rolls as it would without a gate, and
 * nothing depends on the gate but how long others wait.
 *
 * Rejected: to make the next segment beforehand, so that a roll needs no wait. Its header says
 * where its predecessor ends, and MANIFEST would name two unsealed segments, for recovery to tell
 * apart in every order in which a power cut leaves them. And to let those inside make the segment
 * longer than it should be, instead of rolling: on a full disk it is then too long to be compacted.
 */
#include "gate.h"
#include "commit.h"
#include "hints.h"
#include <time.h>

enum { MOMENT_MS = 20 };

void gate_init(struct keg *keg)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
    /* Else a roll could wait in vain for a moment in which nobody is inside. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&keg->gate, &attr);
    pthread_rwlockattr_destroy(&attr);
}

void gate_destroy(struct keg *keg)
{
    pthread_rwlock_destroy(&keg->gate);
}

/* False: somebody is inside for longer. A clock that is set meanwhile makes it wait for those
 * inside, or not at all. */
static bool shut(struct keg *keg)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += MOMENT_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    return pthread_rwlock_timedwrlock(&keg->gate, &until) == 0;
}

int gate_roll(struct keg *keg, bool due)
{
    bool alone = shut(keg);
    int err = 0;

    if (alone || !due)
        err = commit_roll(keg, due);
    if (alone)
        pthread_rwlock_unlock(&keg->gate);
    if (!err)
        hints_inline(keg);
    return err;
}

void keg_enter(struct keg *keg)
{
    /* One of those who see it rolls; the others wait for it below, or come just before it. Where it
     * fails nothing has changed, and the commit that finds the segment full says why. */
    if (atomic_load_explicit(&keg->roll_due, memory_order_relaxed) &&
        atomic_exchange(&keg->roll_due, false))
        (void)!gate_roll(keg, true);
    pthread_rwlock_rdlock(&keg->gate);
}

void keg_leave(struct keg *keg)
{
    pthread_rwlock_unlock(&keg->gate);
}

void keg_quiesce(struct keg *keg)
{
    pthread_rwlock_wrlock(&keg->gate);
}

void keg_resume(struct keg *keg)
{
    pthread_rwlock_unlock(&keg->gate);
}
