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
    int parent;       /* of a directory */
    uint8_t *data;    /* MODEL_SIZE_MAX bytes, of a file or link; zero behind size */
    size_t size;
    /* What a truncation to zero keeps until it is logged: in order of held, 0: none. */
    unsigned held;
    uint8_t *old_data;
    size_t old_size;
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
    bool verbose; /* TEST_VERBOSE is set: print each operation */

    /* The tree as hashes of its text, when it is kept. */
    bool keep_history;
    uint64_t *history;
    size_t history_count, history_capacity;
    size_t synced; /* index from which on a power cut may leave the tree */
};

void model_begin(struct model *model, struct fixture *fixture);
/* The tree is as it is now from here on; it is durable. */
void model_keep_history(struct model *model);
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
/* What is held of the node is logged, or of no account any more. */
void model_drop_held(struct model_node *node);
/* Frees the node if nobody has it any more. */
void model_unuse(struct model *model, int node);
/* The tree, as a crash would leave it now, is one that may be found. */
void model_remember(struct model *model);
/* All that is held is logged, one by one, the oldest first. */
void model_flush_held(struct model *model);

#endif
