/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of segments.
 *
 * A read takes no lock here: it says first that it uses the file, and looks then whether it is
 * open. Who closes one takes it out first and looks then for users; if there are any it goes back.
 * Of the two at least one sees the other: a reader that finds no file asks again with the lock.
 *
 * Which file was used least recently is known but roughly: a read that moved its segment in a list
 * would write to what all readers share. So it leaves a mark, and who looks for one to close takes
 * the mark away and goes on as if that file had been used just now.
 *
 * No file is opened or closed while files_lock is held, for which others that read would wait.
 */
#include "segment.h"
#include <errno.h>
#include <unistd.h>

/* Out of the list of files that may be closed to make room. files_lock held. */
static void lru_drop(struct keg *keg, struct segment *segment)
{
    *(segment->newer ? &segment->newer->older : &keg->lru_newest) = segment->older;
    *(segment->older ? &segment->older->newer : &keg->lru_oldest) = segment->newer;
    segment->newer = segment->older = NULL;
}

static void lru_add(struct keg *keg, struct segment *segment)
{
    segment->older = keg->lru_newest;
    segment->newer = NULL;
    *(keg->lru_newest ? &keg->lru_newest->newer : &keg->lru_oldest) = segment;
    keg->lru_newest = segment;
}

/* A quarter of what the process may have: as much is for hints (load.c), the rest for others. */
static uint32_t files_max(void)
{
    long files = sysconf(_SC_OPEN_MAX);

    return files > 0 && files / 4 < SEGMENT_FILES_MAX ? (uint32_t)files / 4 : SEGMENT_FILES_MAX;
}

/* Takes the file from a segment on the list, which nobody uses; NULL: somebody does. */
static struct keg_file *take_locked(struct keg *keg, struct segment *segment)
{
    struct keg_file *file;

    if (atomic_load(&segment->file_users))
        return NULL;
    file = atomic_exchange(&segment->file, NULL);
    if (atomic_load(&segment->file_users)) {
        atomic_store(&segment->file, file);
        return NULL;
    }
    lru_drop(keg, segment);
    keg->files_open--;
    return file;
}

/* A file unused for long, for the caller to close; or NULL: all are in use. */
static struct keg_file *take_one_locked(struct keg *keg)
{
    struct keg_file *file = NULL;
    struct segment *s, *newer;
    uint32_t left = keg->files_open;

    for (s = keg->lru_oldest; s && left-- && !file; s = newer) {
        newer = s->newer;
        if (atomic_load_explicit(&s->file_marked, memory_order_relaxed)) {
            atomic_store_explicit(&s->file_marked, false, memory_order_relaxed);
            lru_drop(keg, s);
            lru_add(keg, s);
        } else {
            file = take_locked(keg, s);
        }
    }
    /* Nothing so far: they are in use, or were marked again meanwhile, which does not count now. */
    for (s = keg->lru_oldest; s && !file; s = newer) {
        newer = s->newer;
        file = take_locked(keg, s);
    }
    return file;
}

static bool close_one(struct keg *keg)
{
    struct keg_file *file;

    pthread_mutex_lock(&keg->files_lock);
    file = take_one_locked(keg);
    pthread_mutex_unlock(&keg->files_lock);
    env_close(file);
    return file != NULL;
}

/* Closes what is too many of those that nobody uses. */
static void trim(struct keg *keg)
{
    const uint32_t most = files_max();
    struct keg_file *file;

    do {
        pthread_mutex_lock(&keg->files_lock);
        file = keg->files_open > most ? take_one_locked(keg) : NULL;
        pthread_mutex_unlock(&keg->files_lock);
        env_close(file);
    } while (file);
}

/* What another thread opened meanwhile counts, whatever became of this one's attempt. */
static int install(struct keg *keg, struct segment *segment, struct keg_file *file, int err,
                   struct keg_file **out)
{
    pthread_mutex_lock(&keg->files_lock);
    *out = segment->file;
    if (!*out && !err) {
        segment->file = *out = file;
        lru_add(keg, segment);
        keg->files_open++;
        file = NULL;
    }
    pthread_mutex_unlock(&keg->files_lock);
    env_close(file);
    trim(keg);
    return *out ? 0 : err;
}

static int open_file(struct keg *keg, struct segment *segment, struct keg_file **out)
{
    char name[ENV_NAME_MAX + 1];
    struct keg_file *file = NULL;
    int err;

    /* It may be open all the same, taken out for a moment by somebody who then saw this user. */
    pthread_mutex_lock(&keg->files_lock);
    *out = segment->file;
    pthread_mutex_unlock(&keg->files_lock);
    if (*out)
        return 0;
    segment_name(segment->id, name);
    do
        err = env_open(keg->env, name, ENV_READ, &file);
    while ((err == -EMFILE || err == -ENFILE) && close_one(keg));
    return install(keg, segment, err ? NULL : file, err, out);
}

int segment_file(struct keg *keg, struct segment *segment, struct keg_file **out)
{
    int err = 0;

    atomic_fetch_add(&segment->file_users, 1);
    *out = segment->file;
    if (!*out)
        err = open_file(keg, segment, out);
    else if (!atomic_load_explicit(&segment->file_marked, memory_order_relaxed))
        atomic_store_explicit(&segment->file_marked, true, memory_order_relaxed);
    if (err)
        segment_release(segment);
    return err;
}

void segment_release(struct segment *segment)
{
    atomic_fetch_sub(&segment->file_users, 1);
}

void segment_close(struct keg *keg, struct segment *segment)
{
    pthread_mutex_lock(&keg->files_lock);
    if (segment->file) {
        if (!segment->file_pinned)
            lru_drop(keg, segment);
        keg->files_open--;
    }
    pthread_mutex_unlock(&keg->files_lock);
    env_close(segment->file);
}

void segment_pin(struct keg *keg, struct segment *segment, struct keg_file *file)
{
    pthread_mutex_lock(&keg->files_lock);
    segment->file = file;
    segment->file_pinned = true;
    keg->files_open++;
    pthread_mutex_unlock(&keg->files_lock);
}

void segment_unpin(struct keg *keg, struct segment *segment)
{
    pthread_mutex_lock(&keg->files_lock);
    if (segment->file_pinned) {
        segment->file_pinned = false;
        lru_add(keg, segment);
    }
    pthread_mutex_unlock(&keg->files_lock);
    trim(keg);
}

void segment_replace_file(struct keg *keg, struct segment *segment, struct keg_file *file)
{
    struct keg_file *old;

    pthread_mutex_lock(&keg->files_lock);
    old = atomic_exchange(&segment->file, NULL);
    if (old) {
        lru_drop(keg, segment);
        keg->files_open--;
    }
    pthread_mutex_unlock(&keg->files_lock);
    env_close(old);
    segment_pin(keg, segment, file);
}

int segment_create_file(struct keg *keg, const char *name, struct keg_file **out)
{
    int err;

    do
        err = env_create(keg->env, name, out);
    while ((err == -EMFILE || err == -ENFILE) && close_one(keg));
    return err;
}
