/* SPDX-License-Identifier: MIT */
/*
 * Inodes: their locks, their records in the store, and the table of those that have something in
 * memory.
 *
 * DESIGN.md tells of the locks. So an inode's record in the store can be read, changed and written
 * without anything else keeping it, and the table has entries only for inodes that the caller has
 * looked up (the count decides when an unlinked one may go) and for those that are held: changed in
 * memory and not logged yet, as after a truncation to zero. A cache of inodes would only repeat the
 * store's index, which is in memory already. The table is one open-addressed hash per stripe: 32
 * bytes a slot, for mounts on which the kernel knows millions of inodes.
 */
#include "volume_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t ino)
{
    ino *= 0x9e3779b97f4a7c15;
    return ino ^ ino >> 32;
}

static uint8_t stripe_of(uint64_t ino)
{
    return (uint8_t)(mix(ino) % STRIPES);
}

static struct stripe *get_stripe(struct volume *volume, uint64_t ino)
{
    return &volume->stripes[stripe_of(ino)];
}

/* ---- Locks ---- */

/* False: the stripe is in the set. Else it is put there; *at is where. */
static bool add_stripe(struct lockset *set, uint8_t stripe, unsigned *at)
{
    unsigned i = set->count;
    while (i > 0 && set->stripes[i - 1] > stripe)
        i--;
    if (i > 0 && set->stripes[i - 1] == stripe)
        return false;
    memmove(set->stripes + i + 1, set->stripes + i, set->count - i);
    set->stripes[i] = stripe;
    set->count++;
    *at = i;
    return true;
}

void inodes_lock(struct volume *volume, struct lockset *set, const uint64_t *inos, unsigned count)
{
    unsigned at;
    set->count = 0;
    for (unsigned i = 0; i < count; i++)
        (void)!add_stripe(set, stripe_of(inos[i]), &at);
    keg_enter(volume->keg);
    for (unsigned i = 0; i < set->count; i++)
        pthread_rwlock_wrlock(&volume->stripes[set->stripes[i]].lock);
}

bool inodes_lock_also(struct volume *volume, struct lockset *set, uint64_t ino)
{
    struct lockset more = *set;
    unsigned at;
    if (!add_stripe(&more, stripe_of(ino), &at))
        return true;
    pthread_rwlock_t *lock = &get_stripe(volume, ino)->lock;
    if (at == set->count)
        pthread_rwlock_wrlock(lock);
    else if (pthread_rwlock_trywrlock(lock))
        return false;
    *set = more;
    return true;
}

void inodes_unlock(struct volume *volume, const struct lockset *set)
{
    for (unsigned i = set->count; i > 0; i--)
        pthread_rwlock_unlock(&volume->stripes[set->stripes[i - 1]].lock);
    keg_leave(volume->keg);
}

void inodes_lock_one(struct volume *volume, uint64_t ino)
{
    keg_enter(volume->keg);
    pthread_rwlock_wrlock(&get_stripe(volume, ino)->lock);
}

void inodes_lock_memory(struct volume *volume, uint64_t ino)
{
    pthread_rwlock_wrlock(&get_stripe(volume, ino)->lock);
}

void inodes_unlock_memory(struct volume *volume, uint64_t ino)
{
    pthread_rwlock_unlock(&get_stripe(volume, ino)->lock);
}

void inodes_lock_shared(struct volume *volume, uint64_t ino)
{
    pthread_rwlock_rdlock(&get_stripe(volume, ino)->lock);
}

void inodes_unlock_shared(struct volume *volume, uint64_t ino)
{
    pthread_rwlock_unlock(&get_stripe(volume, ino)->lock);
}

void inodes_unlock_one(struct volume *volume, uint64_t ino)
{
    pthread_rwlock_unlock(&get_stripe(volume, ino)->lock);
    keg_leave(volume->keg);
}

/* It prefers writers, else a file that is always being read could never be written. */
static int init_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;
    int error = pthread_rwlockattr_init(&attr);
    if (error)
        return -error;
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    error = pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    return -error;
}

static void destroy_stripe(struct stripe *s)
{
    for (size_t k = 0; k < s->capacity; k++)
        free(s->slots[k].held);
    free(s->slots);
    pthread_mutex_destroy(&s->table_lock);
    pthread_rwlock_destroy(&s->lock);
}

int inodes_init(struct volume *volume)
{
    for (int i = 0; i < STRIPES; i++) {
        int error = init_lock(&volume->stripes[i].lock);
        if (error) {
            while (i-- > 0)
                destroy_stripe(&volume->stripes[i]);
            return error;
        }
        pthread_mutex_init(&volume->stripes[i].table_lock, NULL);
    }
    return 0;
}

void inodes_destroy(struct volume *volume)
{
    for (int i = 0; i < STRIPES; i++)
        destroy_stripe(&volume->stripes[i]);
    for (struct held *next, *held = volume->spare; held; held = next) {
        next = held->next;
        free(held);
    }
}

/* ---- The table; all under table_lock ---- */

static size_t slot_of(const struct stripe *s, uint64_t ino)
{
    return (size_t)(mix(ino) / STRIPES) & (s->capacity - 1);
}

static struct entry *find_locked(struct stripe *s, uint64_t ino)
{
    if (s->used == 0)
        return NULL;
    for (size_t i = slot_of(s, ino); s->slots[i].ino; i = (i + 1) & (s->capacity - 1)) {
        if (s->slots[i].ino == ino)
            return &s->slots[i];
    }
    return NULL;
}

static struct entry *free_slot(struct stripe *s, uint64_t ino)
{
    size_t i = slot_of(s, ino);
    while (s->slots[i].ino)
        i = (i + 1) & (s->capacity - 1);
    return &s->slots[i];
}

static int resize_locked(struct stripe *s, size_t capacity)
{
    struct stripe bigger = {.capacity = capacity};
    bigger.slots = calloc(capacity, sizeof *bigger.slots);
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < s->capacity; i++) {
        if (s->slots[i].ino)
            *free_slot(&bigger, s->slots[i].ino) = s->slots[i];
    }
    free(s->slots);
    s->slots = bigger.slots;
    s->capacity = capacity;
    return 0;
}

/* Finds or makes the entry; NULL: no memory. */
static struct entry *get_locked(struct stripe *s, uint64_t ino)
{
    struct entry *e = find_locked(s, ino);
    if (e)
        return e;
    if (s->used * 4 >= s->capacity * 3 && resize_locked(s, s->capacity ? s->capacity * 2 : 8) < 0)
        return NULL;
    e = free_slot(s, ino);
    *e = (struct entry){.ino = ino};
    s->used++;
    return e;
}

/* Frees the entry if nothing is left to be known, and closes the gap that it leaves. */
static void drop_locked(struct stripe *s, struct entry *e)
{
    if (e->lookups || e->held || e->writers)
        return;
    size_t gap = (size_t)(e - s->slots), mask = s->capacity - 1;
    for (size_t i = (gap + 1) & mask; s->slots[i].ino; i = (i + 1) & mask) {
        size_t home = slot_of(s, s->slots[i].ino);
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            s->slots[gap] = s->slots[i];
            gap = i;
        }
    }
    s->slots[gap] = (struct entry){0};
    s->used--;
    if (s->capacity > 64 && s->used * 8 < s->capacity)
        (void)!resize_locked(s, s->capacity / 2); /* a big one does no harm */
}

/* ---- Records ---- */

static struct held *get_held(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    const struct entry *e = find_locked(s, ino);
    struct held *held = e ? e->held : NULL;
    pthread_mutex_unlock(&s->table_lock);
    return held;
}

int inodes_load(struct volume *volume, uint64_t ino, struct inode *inode)
{
    const struct held *held = get_held(volume, ino);
    if (held) {
        *inode = held->inode;
        return 0;
    }
    return inodes_load_record(volume, ino, inode);
}

int inodes_load_record(struct volume *volume, uint64_t ino, struct inode *inode)
{
    struct keys_key key;
    struct keg_info info;
    keys_inode(&key, ino);
    int error = keg_get(volume->keg, keys_bytes(&key), &info);
    if (error)
        return volume_error(volume, ino, error);
    error = keys_inode_decode((struct keg_bytes){info.meta, info.meta_len}, inode);
    inode->ino = ino;
    return volume_error(volume, ino, error);
}

int inodes_load_dir(struct volume *volume, uint64_t ino, struct inode *inode)
{
    int error = inodes_load(volume, ino, inode);
    if (error)
        return error;
    if (!S_ISDIR(inode->mode))
        return -ENOTDIR;
    return inode->nlink ? 0 : -ENOENT;
}

/* ---- What is held ---- */

static void link_held(struct volume *volume, struct held *held)
{
    struct held_list *list = &volume->held[held->kind];
    pthread_mutex_lock(&volume->tend_lock);
    held->since = tend_clock();
    held->next = NULL;
    held->prev = list->last;
    *(held->prev ? &held->prev->next : &list->first) = held;
    list->last = held;
    if (list->count++ == 0 && held->kind == HELD_TRUNCATED)
        pthread_cond_signal(&volume->held_wake);
    pthread_mutex_unlock(&volume->tend_lock);
}

static void unlink_locked(struct volume *volume, struct held *held)
{
    struct held_list *list = &volume->held[held->kind];
    *(held->prev ? &held->prev->next : &list->first) = held->next;
    *(held->next ? &held->next->prev : &list->last) = held->prev;
    list->count--;
}

static void unlink_held(struct volume *volume, struct held *held)
{
    pthread_mutex_lock(&volume->tend_lock);
    unlink_locked(volume, held);
    pthread_mutex_unlock(&volume->tend_lock);
}

/* It is in a list, or was just made. Each overwriting of a file holds it once, so some are kept. */
static void free_held(struct volume *volume, struct held *held, bool listed)
{
    pthread_mutex_lock(&volume->tend_lock);
    if (listed)
        unlink_locked(volume, held);
    if (volume->spares < SPARES) {
        held->next = volume->spare;
        volume->spare = held;
        volume->spares++;
        held = NULL;
    }
    pthread_mutex_unlock(&volume->tend_lock);
    free(held);
}

static struct held *alloc_held(struct volume *volume)
{
    pthread_mutex_lock(&volume->tend_lock);
    struct held *held = volume->spare;
    if (held) {
        volume->spare = held->next;
        volume->spares--;
    }
    pthread_mutex_unlock(&volume->tend_lock);
    return held ? held : malloc(sizeof *held);
}

static struct held *new_held(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    struct held *made = alloc_held(volume);
    if (!made)
        return NULL;
    *made = (struct held){.ino = ino};
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = get_locked(s, ino);
    if (e)
        e->held = made;
    pthread_mutex_unlock(&s->table_lock);
    if (e)
        return made;
    free_held(volume, made, false);
    return NULL;
}

int inodes_hold(struct volume *volume, const struct inode *inode, bool lazy)
{
    enum held_kind kind = inode->staged ? HELD_STAGED : lazy ? HELD_LAZY : HELD_TRUNCATED;
    struct held *held = get_held(volume, inode->ino), *made = NULL;
    if (!held) {
        held = made = new_held(volume, inode->ino);
        if (!made)
            return -ENOMEM;
    }
    held->inode = *inode;
    if (!made && (held->kind == kind || lazy)) /* its place in the list, and its time, stay */
        return 0;
    if (!made)
        unlink_held(volume, held);
    held->kind = kind;
    link_held(volume, held);
    return 0;
}

void inodes_logged(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = find_locked(s, ino);
    struct held *held = e ? e->held : NULL;
    if (held) {
        e->held = NULL;
        drop_locked(s, e);
    }
    pthread_mutex_unlock(&s->table_lock);
    if (held)
        free_held(volume, held, true);
}

bool inodes_is_held(struct volume *volume, uint64_t ino)
{
    return get_held(volume, ino) != NULL;
}

bool inodes_is_lazy(struct volume *volume, uint64_t ino)
{
    const struct held *held = get_held(volume, ino);
    return held && held->kind == HELD_LAZY;
}

uint64_t inodes_first_held(struct volume *volume, enum held_kind kind, uint64_t before,
                           size_t *count)
{
    pthread_mutex_lock(&volume->tend_lock);
    const struct held_list *list = &volume->held[kind];
    uint64_t ino = list->first && list->first->since <= before ? list->first->ino : 0;
    *count = list->count;
    pthread_mutex_unlock(&volume->tend_lock);
    return ino;
}

void inodes_measure(struct volume *volume, struct volume_memory *out)
{
    for (int i = 0; i < STRIPES; i++) {
        struct stripe *s = &volume->stripes[i];
        pthread_mutex_lock(&s->table_lock);
        out->known_inodes += s->used;
        out->table_bytes += s->capacity * sizeof *s->slots;
        pthread_mutex_unlock(&s->table_lock);
    }
}

/* ---- Writers ---- */

int inodes_add_writer(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = get_locked(s, ino);
    if (e)
        e->writers++;
    pthread_mutex_unlock(&s->table_lock);
    return e ? 0 : -ENOMEM;
}

uint32_t inodes_drop_writer(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    uint32_t left = 0;
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = find_locked(s, ino);
    if (e && e->writers) {
        left = --e->writers;
        drop_locked(s, e);
    }
    pthread_mutex_unlock(&s->table_lock);
    return left;
}

uint32_t inodes_writers(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    const struct entry *e = find_locked(s, ino);
    uint32_t writers = e ? e->writers : 0;
    pthread_mutex_unlock(&s->table_lock);
    return writers;
}

/* ---- Pieces ---- */

unsigned inodes_pieces(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    const struct entry *e = find_locked(s, ino);
    unsigned pieces = e ? e->pieces : 0;
    pthread_mutex_unlock(&s->table_lock);
    return pieces;
}

void inodes_set_pieces(struct volume *volume, uint64_t ino, unsigned pieces)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = find_locked(s, ino);
    if (e)
        e->pieces = (uint8_t)(pieces < UINT8_MAX ? pieces : UINT8_MAX);
    pthread_mutex_unlock(&s->table_lock);
}

/* ---- Lookups ---- */

int inodes_count_lookup(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = get_locked(s, ino);
    if (e)
        e->lookups++;
    pthread_mutex_unlock(&s->table_lock);
    return e ? 0 : -ENOMEM;
}

uint64_t inodes_lookups(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    const struct entry *e = find_locked(s, ino);
    uint64_t lookups = e ? e->lookups : 0;
    pthread_mutex_unlock(&s->table_lock);
    return lookups;
}

void inodes_unlinked(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = find_locked(s, ino);
    bool now = !e || !e->lookups;
    if (e)
        e->unlinked = true;
    pthread_mutex_unlock(&s->table_lock);
    if (now)
        tend_add(volume, WORK_INODE, ino);
}

static void set_unlinked(struct volume *volume, uint64_t ino, bool unlinked)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = find_locked(s, ino);
    if (e)
        e->unlinked = e->linkable = unlinked;
    pthread_mutex_unlock(&s->table_lock);
}

void inodes_set_linkable(struct volume *volume, uint64_t ino)
{
    set_unlinked(volume, ino, true);
}

void inodes_named(struct volume *volume, uint64_t ino)
{
    set_unlinked(volume, ino, false);
}

bool inodes_linkable(struct volume *volume, uint64_t ino)
{
    struct stripe *s = get_stripe(volume, ino);
    pthread_mutex_lock(&s->table_lock);
    const struct entry *e = find_locked(s, ino);
    bool linkable = e && e->linkable;
    pthread_mutex_unlock(&s->table_lock);
    return linkable;
}

static void give_back(struct volume *volume, uint64_t ino, uint64_t n, bool flush)
{
    struct stripe *s = get_stripe(volume, ino);
    bool unlinked = false, held = false;
    pthread_mutex_lock(&s->table_lock);
    struct entry *e = find_locked(s, ino);
    if (e && e->lookups) {
        e->lookups = n < e->lookups ? e->lookups - n : 0;
        unlinked = e->unlinked && !e->lookups;
        held = e->held && !e->lookups;
        drop_locked(s, e);
    }
    pthread_mutex_unlock(&s->table_lock);
    if (unlinked)
        tend_add(volume, WORK_INODE, ino);
    else if (held && flush)
        tend_add(volume, WORK_FLUSH, ino);
}

void inodes_uncount_lookup(struct volume *volume, uint64_t ino)
{
    give_back(volume, ino, 1, false);
}

void volume_forget(struct volume *volume, uint64_t ino, uint64_t n)
{
    give_back(volume, ino, n, true);
    tend_inline(volume);
}

void inodes_attr(const struct inode *inode, struct volume_attr *attr)
{
    *attr = (struct volume_attr){
        .ino = inode->ino,
        .size = inode->size,
        .bytes = inode->bytes,
        .rdev = inode->rdev,
        .mode = inode->mode,
        .nlink = inode->nlink,
        .uid = inode->uid,
        .gid = inode->gid,
        .atime = inode->atime,
        .mtime = inode->mtime,
        .ctime = inode->ctime,
        .btime = inode->btime,
        .has_xattrs = inode->flags & INODE_HAS_XATTRS,
    };
}
