/* SPDX-License-Identifier: MIT */
/* The options of "kegfs mount", as a table. */
#ifndef MOUNT_OPTIONS_H
#define MOUNT_OPTIONS_H

#include "keg.h"
#include "transport_choice.h"

enum mount_options_acl { MOUNT_OPTIONS_ACL_UNSAID, MOUNT_OPTIONS_ACL_ON, MOUNT_OPTIONS_ACL_OFF };
enum mount_options_xattr {
    MOUNT_OPTIONS_XATTR_UNSAID,
    MOUNT_OPTIONS_XATTR_ON,
    MOUNT_OPTIONS_XATTR_OFF
};

struct mount_options {
    const char *store, *mountpoint; /* as given */
    bool foreground;
    bool remount; /* change readonly, dev, suid and noexec of what is mounted there, nothing else */
    bool readonly, nonempty, relatime, sync;
    bool commit_close; /* commit=close: files are opened, and replaced as a whole */
    bool writeback;    /* the kernel gathers writes: see kegfs(8) for what that delays */
    bool allow_other, dev, suid, noexec;
    enum mount_options_acl acl;     /* OFF: POSIX ACLs are neither shown nor enforced */
    enum mount_options_xattr xattr; /* OFF: extended attributes are not served, nor ACLs */
    enum transport_kind transport;
    uint64_t memory;           /* bytes; see MEMORY in kegfs(8) */
    uint64_t segment_size;     /* bytes; 0: the store's own choice */
    uint64_t sync_interval_ms; /* 0: the store's own choice */
    uint64_t max_threads;      /* of libfuse's loop */
    uint64_t poll_us;          /* of a ring's thread, or TRANSPORT_POLL_AUTO */
};

void mount_options_init(struct mount_options *options);
/* Takes a comma-separated list, which it cuts up. False when one is unknown or wrong: that was said
 * in a line. */
KEG_CHECKED bool mount_options_parse(struct mount_options *options, char *list);
/* Whether the options go together. False: they do not, and that was said in a line. */
KEG_CHECKED bool mount_options_agree(const struct mount_options *options);

#endif
