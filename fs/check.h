/* SPDX-License-Identifier: MIT */
/*
 * A whole check: every byte of the store (keg_check), with each damaged key turned into the path of
 * the file it belongs to, then the tree (volume_check), and what a repair has left as lost, which
 * is no finding.
 */
#ifndef CHECK_H
#define CHECK_H

#include "volume.h"
#include <stdio.h>

/* Findings past this many are counted only. */
enum { CHECK_KEPT = 10000 };

struct check_finding {
    char *text; /* what is wrong */
    char *path; /* whose file; NULL when that cannot be said */
    uint64_t segment, offset;
    bool in_store; /* segment and offset mean something */
    bool live;     /* contents or a name are hit, not something already replaced or deleted */
    bool known;    /* lost, and known to be: no finding */
};
struct check_result {
    struct check_finding *findings;
    size_t kept;
    uint64_t total; /* findings */
    uint64_t known; /* pieces known to be lost */
};

/* 0 when it came to an end, whatever it found; -ECANCELED, -ENOMEM, or what keg_check gives. The
 * result is to be freed in any case. */
KEG_CHECKED int check_run(struct keg *keg, struct volume *volume, keg_progress_fn *progress,
                          void *arg, struct check_result *result);
void check_print(const struct check_result *result, FILE *out);
void check_print_json(const struct check_result *result, FILE *out);
void check_free(struct check_result *result);

#endif
