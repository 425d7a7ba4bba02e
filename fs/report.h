/* SPDX-License-Identifier: MIT */
/*
 * What a store and its mount look like, for people (text), programs (JSON) and Prometheus. Writes
 * to a stdio stream whose owner looks for errors on it. Any thread.
 */
#ifndef REPORT_H
#define REPORT_H

#include "requests.h"
#include "volume.h"
#include <stdio.h>

struct report {
    struct keg *keg;
    struct volume *volume;
    const char *store;                   /* its path */
    const char *mountpoint;              /* NULL: not mounted */
    const requests_transport *transport; /* how requests come; NULL: not mounted */
    const struct requests *requests;     /* NULL: not mounted */
};

void report_stats(const struct report *report, FILE *out);
void report_stats_json(const struct report *report, FILE *out);
void report_metrics(const struct report *report, FILE *out);
/* 0, or -ENOMEM. */
KEG_CHECKED int report_segments(const struct report *report, FILE *out);
KEG_CHECKED int report_segments_json(const struct report *report, FILE *out);

/* s as a JSON string, quotes included; bytes that are no UTF-8 become U+FFFD. */
void report_json_string(FILE *out, const char *s);

#endif
