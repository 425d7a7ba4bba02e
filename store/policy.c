/* SPDX-License-Identifier: MIT */
/*
 * The promise: live bytes are at least half of the .data bytes above two segments. The background
 * mode acts somewhat before it would be broken, on the segments that free the most for the least
 * copying. Small segments are merged once there are enough of them, so that their number stays in
 * proportion to the data. Groups are chosen so that what they hold fits about one new segment: that
 * is what compaction needs in free space.
 */
#include "policy.h"

enum {
    WORTH_SHARE = 16,     /* on demand: dead bytes above 1/16 of a segment */
    SQUEEZED_SHARE = 64,  /* when space is short */
    BACKGROUND_SHARE = 4, /* and in the background */
    SLACK = 4096,         /* bytes that are not worth it anyway */
    SMALL_SHARE = 4,      /* a small segment is below 1/4 of the usual size */
    SMALL_MANY = 8,
};

struct totals {
    uint64_t bytes, live;
    size_t small;
};

/* What compaction would free. */
static uint64_t dead(const struct policy_segment *s)
{
    uint64_t stays = s->live + s->held;

    return s->bytes > stays ? s->bytes - stays : 0;
}

static bool is_small(const struct policy_segment *s, uint64_t segment_size)
{
    return s->bytes < segment_size / SMALL_SHARE;
}

static bool worth(const struct policy_segment *s, uint64_t share)
{
    return dead(s) > s->bytes / share + SLACK;
}

static struct totals sum(const struct policy_segment *segments, size_t count, uint64_t segment_size)
{
    struct totals t = {0};

    for (size_t i = 0; i < count; i++) {
        t.bytes += segments[i].bytes;
        t.live += segments[i].live;
        t.small += segments[i].usable && is_small(&segments[i], segment_size);
    }
    return t;
}

/* Some way before live is less than half of the bytes above two segments. */
static bool space_wanted(const struct totals *t, uint64_t segment_size)
{
    return t->bytes > segment_size + segment_size / 2 &&
           t->live < (t->bytes - segment_size - segment_size / 2) / 8 * 5;
}

static bool candidate(const struct policy_segment *s, uint64_t segment_size, enum policy_mode mode,
                      const struct totals *t, bool wanted)
{
    bool merge = is_small(s, segment_size);

    if (!s->usable)
        return false;
    switch (mode) {
    case POLICY_DEMAND:
        return worth(s, WORTH_SHARE) || (merge && t->small > 1);
    case POLICY_SQUEEZED:
        return dead(s) > s->bytes / SQUEEZED_SHARE;
    default:
        return (wanted && worth(s, BACKGROUND_SHARE)) || (merge && t->small >= SMALL_MANY);
    }
}

/* Whether a comes before b: by age on demand (so that tombstones meet what they hide first), else
 * the higher share of dead bytes first. */
static bool before(const struct policy_segment *a, const struct policy_segment *b,
                   enum policy_mode mode)
{
    if (mode == POLICY_DEMAND)
        return a->age < b->age;
    /* dead(a) / a->bytes > dead(b) / b->bytes; segments are below 2^32 bytes */
    return dead(a) * b->bytes > dead(b) * a->bytes;
}

/* Bytes that compaction writes of it. Tombstones that nobody has looked at yet may have to stay,
 * and where space is short that must not come as a surprise. */
static uint64_t may_copy(const struct policy_segment *s, enum policy_mode mode)
{
    return mode == POLICY_SQUEEZED ? s->bytes : s->live + s->held;
}

struct choosing {
    const struct policy_segment *segments;
    size_t count;
    uint64_t segment_size, room;
    enum policy_mode mode;
    struct totals totals;
    bool wanted;
    size_t *chosen, n;
};

/* The best one that is not chosen yet and of which at most `room` bytes are copied, with its hint,
 * in that mode; count: none. */
static size_t best_left(const struct choosing *c, enum policy_mode copied_as, uint64_t room)
{
    size_t best = c->count;

    for (size_t i = 0; i < c->count; i++) {
        const struct policy_segment *s = &c->segments[i];
        bool taken = false;

        if (!candidate(s, c->segment_size, c->mode, &c->totals, c->wanted) ||
            may_copy(s, copied_as) + s->hint > room)
            continue;
        for (size_t j = 0; j < c->n; j++)
            taken = taken || c->chosen[j] == i;
        if (!taken && (best == c->count || before(s, &c->segments[best], c->mode)))
            best = i;
    }
    return best;
}

static void choose_all(struct choosing *c)
{
    bool squeezed = c->mode == POLICY_SQUEEZED;
    uint64_t copied = 0, hints = 0;

    while (c->n < POLICY_GROUP_MAX) {
        size_t best = best_left(c, c->mode, squeezed ? c->room : UINT64_MAX);

        if (best == c->count)
            break;
        copied += may_copy(&c->segments[best], c->mode);
        hints += c->segments[best].hint;
        if (c->n && (copied > c->segment_size || copied + hints > c->room))
            break;
        c->chosen[c->n++] = best;
    }
    if (c->n == 0 && squeezed) { /* with luck: it has no tombstones that have to stay */
        size_t best = best_left(c, POLICY_BACKGROUND, c->room);

        if (best < c->count)
            c->chosen[c->n++] = best;
    }
    if (c->n == 1 && c->mode == POLICY_BACKGROUND) {
        c->totals.small = 1; /* to merge it with nothing would go on for ever */
        c->n =
            candidate(&c->segments[c->chosen[0]], c->segment_size, c->mode, &c->totals, c->wanted);
    }
}

size_t policy_choose(const struct policy_segment *segments, size_t count, uint64_t segment_size,
                     enum policy_mode mode, uint64_t active_bytes, uint64_t active_live,
                     uint64_t room, size_t *chosen)
{
    struct choosing c = {
        segments,        count, segment_size, room, mode, sum(segments, count, segment_size),
        .chosen = chosen};

    c.totals.bytes += active_bytes;
    c.totals.live += active_live;
    c.wanted = space_wanted(&c.totals, segment_size);
    choose_all(&c);
    return c.n;
}

bool policy_seal_active(const struct policy_segment *segments, size_t count, uint64_t segment_size,
                        uint64_t active_bytes, uint64_t active_live)
{
    struct totals t = sum(segments, count, segment_size);
    struct policy_segment active = {.bytes = active_bytes, .live = active_live};

    t.bytes += active_bytes;
    t.live += active_live;
    return space_wanted(&t, segment_size) && worth(&active, 2);
}
