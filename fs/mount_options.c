/* SPDX-License-Identifier: MIT */
#include "mount_options.h"
#include "log.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum kind { SET, CLEAR, CHOICE, NUMBER, SIZE, IGNORED };

#define AT(field) offsetof(struct mount_options, field)

static const struct option {
    const char *name;
    enum kind kind;
    size_t at;         /* a bool; an enum for CHOICE; a uint64_t for the numbers */
    uint64_t min, max; /* of NUMBER and SIZE; a CHOICE sets min */
} table[] = {
    {"ro", SET, AT(readonly), 0, 0},
    {"rw", CLEAR, AT(readonly), 0, 0},
    {"remount", SET, AT(remount), 0, 0},
    {"nonempty", SET, AT(nonempty), 0, 0},
    {"relatime", SET, AT(relatime), 0, 0},
    {"norelatime", CLEAR, AT(relatime), 0, 0},
    {"noatime", CLEAR, AT(relatime), 0, 0},
    {"sync", SET, AT(sync), 0, 0},
    {"async", CLEAR, AT(sync), 0, 0},
    {"commit=close", SET, AT(commit_close), 0, 0},
    {"commit=write", CLEAR, AT(commit_close), 0, 0},
    {"writeback", SET, AT(writeback), 0, 0},
    {"nowriteback", CLEAR, AT(writeback), 0, 0},
    {"acl", CHOICE, AT(acl), MOUNT_OPTIONS_ACL_ON, 0},
    {"noacl", CHOICE, AT(acl), MOUNT_OPTIONS_ACL_OFF, 0},
    {"xattr", CHOICE, AT(xattr), MOUNT_OPTIONS_XATTR_ON, 0},
    {"noxattr", CHOICE, AT(xattr), MOUNT_OPTIONS_XATTR_OFF, 0},
    {"allow_other", SET, AT(allow_other), 0, 0},
    {"dev", SET, AT(dev), 0, 0},
    {"nodev", CLEAR, AT(dev), 0, 0},
    {"allow_dev", SET, AT(dev), 0, 0},
    {"allow_suid", SET, AT(suid), 0, 0},
    {"suid", SET, AT(suid), 0, 0},
    {"nosuid", CLEAR, AT(suid), 0, 0},
    {"noexec", SET, AT(noexec), 0, 0},
    {"exec", CLEAR, AT(noexec), 0, 0},
    {"segment_size", SIZE, AT(segment_size), 64 << 10, (128 << 20) - 1},
    {"sync_interval", NUMBER, AT(sync_interval_ms), 1, 3600 * 1000},
    {"memory", SIZE, AT(memory), 4 << 20, 1 << 30},
    {"max_threads", NUMBER, AT(max_threads), 1, 256},
    {"poll", NUMBER, AT(poll_us), 0, 1000},
    {"transport=auto", CHOICE, AT(transport), TRANSPORT_AUTO, 0},
    {"transport=uring", CHOICE, AT(transport), TRANSPORT_URING, 0},
    {"transport=spin", CHOICE, AT(transport), TRANSPORT_SPIN, 0},
    {"transport=libfuse", CHOICE, AT(transport), TRANSPORT_LIBFUSE, 0},
    /* Words of mount(8) and fstab(5) that are not for us. */
    {"defaults", IGNORED, 0, 0, 0},
    {"auto", IGNORED, 0, 0, 0},
    {"noauto", IGNORED, 0, 0, 0},
    {"user", IGNORED, 0, 0, 0},
    {"nouser", IGNORED, 0, 0, 0},
    {"users", IGNORED, 0, 0, 0},
    {"owner", IGNORED, 0, 0, 0},
    {"group", IGNORED, 0, 0, 0},
    {"nofail", IGNORED, 0, 0, 0},
    {"_netdev", IGNORED, 0, 0, 0},
    {"atime", IGNORED, 0, 0, 0},
    {"diratime", IGNORED, 0, 0, 0},
    {"nodiratime", IGNORED, 0, 0, 0},
    {"default_permissions", IGNORED, 0, 0, 0}, /* always on */
    /* What mount(8) reads in the kernel's table and gives back for a remount. */
    {"user_id", IGNORED, 0, 0, 0},
    {"group_id", IGNORED, 0, 0, 0},
    {"max_read", IGNORED, 0, 0, 0},
    {"blksize", IGNORED, 0, 0, 0},
};

/* So that one way of setting them does for all. */
_Static_assert(_Generic((enum transport_kind)0, unsigned : 1, default : 0) &&
                   _Generic((enum mount_options_acl)0, unsigned : 1, default : 0) &&
                   _Generic((enum mount_options_xattr)0, unsigned : 1, default : 0),
               "an enum is an unsigned");

void mount_options_init(struct mount_options *options)
{
    *options = (struct mount_options){
        .max_threads = 10, .memory = 64 << 20, .poll_us = TRANSPORT_POLL_AUTO};
}

static const struct option *find(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

static bool parse_number(const struct option *option, const char *text, uint64_t *out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = option->kind != SIZE         ? 0
                     : *end == 'K' || *end == 'k' ? 10
                     : *end == 'M' || *end == 'm' ? 20
                                                  : 0;
    if (shift)
        end++;
    if (*end || n > option->max >> shift || n << shift < option->min)
        return false;
    *out = n << shift;
    return true;
}

static bool parse_one(struct mount_options *options, char *word)
{
    char *value = strchr(word, '=');
    if (!*word || !strncmp(word, "x-", 2) || !strncmp(word, "comment=", 8))
        return true;
    const struct option *o = find(word); /* a word with its value, first */
    if (o)
        value = NULL;
    else if (value)
        *value++ = '\0';
    if (!o)
        o = find(word);
    if (!o) {
        log_error("unknown mount option: %s: see kegfs(8)", word);
        return false;
    }
    void *field = (char *)options + o->at;
    bool takes = o->kind == NUMBER || o->kind == SIZE;
    if (takes != (value != NULL) && o->kind != IGNORED) {
        log_error("mount option: %s: %s", word, takes ? "takes a value" : "takes no value");
        return false;
    }
    if (takes && !parse_number(o, value, field)) {
        log_error("mount option: %s=%s: must be a number from %llu to %llu", word, value,
                  (unsigned long long)o->min, (unsigned long long)o->max);
        return false;
    }
    if (o->kind == SET || o->kind == CLEAR)
        *(bool *)field = o->kind == SET;
    if (o->kind == CHOICE)
        *(unsigned *)field = (unsigned)o->min;
    return true;
}

bool mount_options_parse(struct mount_options *options, char *list)
{
    char *save = NULL;
    for (char *word = strtok_r(list, ",", &save); word; word = strtok_r(NULL, ",", &save))
        if (!parse_one(options, word))
            return false;
    return true;
}

static bool contradict(const char *one, const char *other, const char *why)
{
    log_error("mount options: %s and %s contradict each other: %s; give one of them", one, other,
              why);
    return true;
}

bool mount_options_agree(const struct mount_options *options)
{
    const char *other = options->commit_close ? "commit=close" : options->sync ? "sync" : NULL;
    if (options->writeback && other)
        return !contradict("writeback", other, "writeback has the kernel hold writes back");
    if (options->xattr == MOUNT_OPTIONS_XATTR_OFF && options->acl == MOUNT_OPTIONS_ACL_ON)
        return !contradict("noxattr", "acl", "an ACL is an extended attribute");
    return true;
}
