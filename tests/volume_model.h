/* SPDX-License-Identifier: MIT */
/*
 * A naive file tree in memory and random operations on it and a volume at once. Each operation says
 * what the volume must answer; the whole trees are compared as text.
 *
 * It runs on any environment. With one that fails, history has the tree, as text, after every
 * frame; what is found after a power cut must be one of those since the last sync.
 */
#ifndef VOLUME_MODEL_H
#define VOLUME_MODEL_H

#include "random.h"
#include "volume_fixture.h"

enum { MODEL_NODES = 96, MODEL_SIZE_MAX = 192 << 10, MODEL_XATTRS = 3 };

struct model_node {
    bool used;
    uint64_t ino;
    uint32_t mode, uid;
    unsigned nlink;
    unsigned lookups; /* that the test has not given back */
    unsigned writers;
    int parent;    /* of a directory */
    uint8_t *data; /* MODEL_SIZE_MAX bytes, of a file or link; zero behind size */
    size_t size;
    uint64_t hash; /* of data; 0: not known */
    /* What a truncation to zero keeps until it is logged (in order of held, 0: none) or committed
     * (staged): the contents that a crash brings back. */
    unsigned held;
    bool staged;
    uint8_t *old_data;
    size_t old_size;
    uint64_t old_hash;
    int xattrs[MODEL_XATTRS]; /* length of the value, -1: none */
};

struct model_name {
    char name[8]; /* "": free */
    int dir, node;
};
enum { MODEL_NAMES = 256 };

struct model {
    struct model_node nodes[MODEL_NODES];
    struct model_name names[MODEL_NAMES];
    unsigned held_count;
    struct fixture *fixture;
    struct random random;
    bool verbose;     /* TEST_VERBOSE is set: print each operation */
    size_t size_most; /* of files, up to MODEL_SIZE_MAX */

    /* The tree as hashes of its text, when it is kept. */
    bool keep_history;
    uint64_t *history;
    size_t history_count, history_capacity;
    size_t synced; /* index from which on a power cut may leave the tree */
    size_t done;   /* index from which on a kill may; kept by the test that kills */
};

void model_begin(struct model *model, struct fixture *fixture);
/* The tree is as it is now from here on; it is durable. */
void model_keep_history(struct model *model);
/* The model becomes what the volume, just opened, holds. */
void model_load(struct model *model);
void model_end(struct model *model);

/* One random operation on both. 0: they agree; 1: they do not (said on stdout); if history is kept,
 * also -EIO, -EROFS or -ENOSPC, which the volume may say once the medium has failed. */
int model_step(struct model *model);

/* Closes and opens both stores. Returns as model_step. */
int model_reopen(struct model *model);

/* The trees as text; the caller frees. What the volume has when it is opened anew after a crash is
 * what model_text(.., true) says. */
char *model_text(const struct model *model, bool logged);
char *model_volume_text(struct volume *volume);
uint64_t model_hash(const char *text);

/* Compares both trees, and checks the volume's. Returns as model_step. */
int model_compare(struct model *model);

/* ---- For the operations; trees change only through these ---- */

extern const char *const model_xattrs[MODEL_XATTRS];
struct model_name *model_find_name(struct model *model, int dir, const char *name);
unsigned model_count_names(const struct model *model, int dir, bool dirs_only);
void model_add_name(struct model *model, int dir, const char *name, int node);
bool model_is_full(const struct model *model); /* no room for another node or name */
int model_new_node(struct model *model, uint32_t mode);
/* What is held of the node is logged, or of no account any more; what is staged stays so. */
void model_drop_held(struct model_node *node);
/* The same, and what is staged is committed, or of no account. */
void model_commit(struct model_node *node);
/* Keeps what a crash brings back. */
void model_keep_old(struct model_node *node);
/* Frees the node if nobody has it any more. */
void model_unuse(struct model *model, int node);
/* The tree, as a crash would leave it now, is one that may be found. */
void model_remember(struct model *model);
/* All that is held is logged, one by one, the oldest first. */
void model_flush_held(struct model *model);

/* ---- volume_model_stage.c: contents replaced as a whole ---- */

/* A writer comes, flushes, fsyncs or goes. */
int model_step_writer(struct model *model);
/* A file that was just made gets a writer. */
int model_created(struct model *model, int node);
/* All writers go. */
int model_close_writers(struct model *model);
/* What a call returned, as model_step does. */
int model_verdict(struct model *model, const char *what, int expected, ssize_t got);

#endif
