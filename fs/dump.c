/* SPDX-License-Identifier: MIT */
#include "dump.h"
#include "keys.h"
#include "report.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* One line being written: fields as name=value, or as members of an object. */
struct line {
    FILE *out;
    bool json;
};

static void begin(const struct line *l, const char *kind)
{
    fprintf(l->out, l->json ? "{\"kind\": \"%s\"" : "%s", kind);
}

static void number(const struct line *l, const char *name, uint64_t value)
{
    fprintf(l->out, l->json ? ", \"%s\": %" PRIu64 : " %s=%" PRIu64, name, value);
}

static void string(const struct line *l, const char *name, struct keg_bytes bytes)
{
    char text[KEG_KEY_MAX + 1];
    size_t len = bytes.len < sizeof text ? bytes.len : sizeof text - 1;
    memcpy(text, bytes.data, len);
    text[len] = '\0';
    fprintf(l->out, l->json ? ", \"%s\": " : " %s=", name);
    report_json_string(l->out, text);
}

static void instant(const struct line *l, const char *name, struct timespec t)
{
    fprintf(l->out, l->json ? ", \"%s\": %" PRId64 ".%09ld" : " %s=%" PRId64 ".%09ld", name,
            (int64_t)t.tv_sec, t.tv_nsec);
}

static void word(const struct line *l, const char *name, const char *value)
{
    fprintf(l->out, l->json ? ", \"%s\": \"%s\"" : " %s=%s", name, value);
}

static void inode_fields(const struct line *l, const struct inode *i)
{
    char mode[16];
    (void)snprintf(mode, sizeof mode, "%06o", i->mode);
    word(l, "mode", mode);
    number(l, "nlink", i->nlink);
    number(l, "uid", i->uid);
    number(l, "gid", i->gid);
    number(l, "size", i->size);
    number(l, "bytes", i->bytes);
    number(l, "rdev", i->rdev);
    number(l, "content", i->content);
    number(l, "parent", i->parent);
    number(l, "flags", i->flags);
    instant(l, "atime", i->atime);
    instant(l, "mtime", i->mtime);
    instant(l, "ctime", i->ctime);
    instant(l, "btime", i->btime);
}

static int super_meta(const struct line *l, struct keg_bytes meta)
{
    struct keys_superblock super; /* its secret stays one */
    int err = keys_super_decode(meta, &super);
    if (!err)
        number(l, "next_id", super.next_id);
    return err;
}

static int inode_meta(const struct line *l, struct keg_bytes meta)
{
    struct inode inode;
    int err = keys_inode_decode(meta, &inode);
    if (!err)
        inode_fields(l, &inode);
    return err;
}

static int name_meta(const struct line *l, struct keg_bytes meta)
{
    uint64_t ino;
    uint32_t type;
    int err = keys_name_decode(meta, &ino, &type);
    if (!err) {
        char text[16];
        (void)snprintf(text, sizeof text, "%06o", type);
        number(l, "ino", ino);
        word(l, "type", text);
    }
    return err;
}

static int key_fields(const struct line *l, const struct keys_parsed *k, struct keg_bytes meta)
{
    switch (k->kind) {
    case KEYS_SUPER:
        begin(l, "superblock");
        return super_meta(l, meta);
    case KEYS_INODE:
        begin(l, "inode");
        number(l, "ino", k->id);
        return inode_meta(l, meta);
    case KEYS_NAME:
        begin(l, "name");
        number(l, "dir", k->id);
        string(l, "name", k->name);
        number(l, "hash", k->hash);
        return name_meta(l, meta);
    case KEYS_EXTENT:
        begin(l, "extent");
        number(l, "content", k->id);
        number(l, "at", k->offset);
        return 0;
    case KEYS_XATTR:
        begin(l, "xattr");
        number(l, "ino", k->id);
        string(l, "name", k->name);
        return 0;
    case KEYS_ORPHAN:
        begin(l, "orphan");
        word(l, "of",
             k->orphan == KEYS_ORPHAN_CONTENT ? "content"
             : k->orphan == KEYS_ORPHAN_INODE ? "inode"
                                              : "tail");
        number(l, "id", k->id);
        return 0;
    }
    return -EBADMSG;
}

static void entry_line(const struct line *l, const struct keg_entry *e)
{
    struct keys_parsed parsed;
    if (keys_parse(e->key, &parsed)) {
        begin(l, "unknown");
        number(l, "key_bytes", e->key.len);
    } else if (key_fields(l, &parsed, e->meta)) {
        word(l, "meta", "damaged");
    }
    number(l, "segment", e->segment);
    number(l, "offset", e->offset);
    number(l, "length", e->value_len);
    number(l, "sequence", e->sequence);
    fputs(l->json ? "}\n" : "\n", l->out);
}

static int write_all(struct keg *keg, keg_progress_fn *progress, void *arg, const struct line *l)
{
    struct keg_iter *iter;
    struct keg_entry entry;
    struct keg_stats stats;
    uint64_t done = 0;
    int err = keg_iter_open(keg, (struct keg_bytes){"", 0}, &iter);
    if (err)
        return err;
    keg_stats(keg, &stats);
    while ((err = keg_iter_next(iter, &entry)) > 0 && !ferror(l->out)) {
        entry_line(l, &entry);
        if (!(++done & 1023) && progress && progress(arg, done, stats.keys)) {
            err = -ECANCELED;
            break;
        }
    }
    keg_iter_close(iter);
    return err > 0 ? 0 : err;
}

int dump_write(struct keg *keg, keg_progress_fn *progress, void *arg, FILE *out)
{
    return write_all(keg, progress, arg, &(struct line){out, false});
}

int dump_write_json(struct keg *keg, keg_progress_fn *progress, void *arg, FILE *out)
{
    return write_all(keg, progress, arg, &(struct line){out, true});
}
