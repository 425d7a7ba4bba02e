/* SPDX-License-Identifier: MIT */
/*
 * Mostly a commit is a write into memory, over in microseconds. Now and then it is not: when the
 * active segment is full and the log rolls (syncs, a new file, MANIFEST), and when a deletion on a
 * full disk waits for a compaction. A caller that holds locks over its commit, as a namespace has
 * to, would hold them over all that, and who only wants to read would wait with it.
 *
 * So such a caller enters first, before its own locks, and there is done what it might have to
 * wait for: compaction where space is short, and a roll once the active segment is nearly full. A
 * roll shuts the gate: it waits for those inside, who need microseconds, and holds up those who
 * come, who hold nothing yet. Those inside do not roll; what they append while the log is due may
 * make the segment longer than it should be. Only where it would get OVERSTAY times as long they
 * roll all the same, which takes more threads with large frames at once than a mount has.
 *
 * Rejected: to make the next segment beforehand, so that a roll needs no wait. Its header says
 * where its predecessor ends, and MANIFEST would name two unsealed segments, for recovery to tell
 * apart in every order in which a power cut leaves them.
 */
#include "gate.h"
#include "commit.h"
#include "space.h"

void gate_init(struct keg *keg)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
    /* Else a roll could wait for ever for a moment in which nobody is inside. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&keg->gate, &attr);
    pthread_rwlockattr_destroy(&attr);
}

void gate_destroy(struct keg *keg)
{
    pthread_rwlock_destroy(&keg->gate);
}

int gate_roll(struct keg *keg, bool due)
{
    int err;

    pthread_rwlock_wrlock(&keg->gate);
    err = commit_roll(keg, due);
    pthread_rwlock_unlock(&keg->gate);
    return err;
}

void keg_enter(struct keg *keg)
{
    space_wait(keg);
    /* One of those who see it rolls; the others wait for it below, or come just before it. What
     * fails is tried again after the next append, until the commit itself has to fail. */
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
