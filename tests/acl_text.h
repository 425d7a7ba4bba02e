/* SPDX-License-Identifier: MIT */
/* ACLs as short text, for tests: "u7 u:5:5 g4 g:9:6 m7 o0" is owner rwx, user 5 r-x, group r--,
 * group 9 rw-, mask rwx, others nothing. Any order and number, so wrong ones can be written, too.
 */
#ifndef ACL_TEXT_H
#define ACL_TEXT_H

#include "keg.h"
#include <linux/posix_acl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACL_TEXT_MAX = 4096 };

struct acl_text {
    size_t len;
    uint8_t bytes[ACL_TEXT_MAX];
    char text[ACL_TEXT_MAX];
};

static inline void acl_text_add(struct acl_text *a, unsigned tag, unsigned permissions, uint32_t id)
{
    uint8_t *p = a->bytes + a->len;
    if (a->len + 8 > sizeof a->bytes)
        abort();
    p[0] = (uint8_t)tag;
    p[1] = (uint8_t)(tag >> 8);
    p[2] = (uint8_t)permissions;
    p[3] = (uint8_t)(permissions >> 8);
    for (int i = 0; i < 4; i++)
        p[4 + i] = (uint8_t)(id >> (8 * i));
    a->len += 8;
}

static inline struct keg_bytes acl_text_parse(struct acl_text *a, const char *text)
{
    static const char letters[] = "ugmo";
    static const unsigned tags[] = {ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER};
    a->len = 4;
    memcpy(a->bytes, "\2\0\0", 4);
    while (*text) {
        size_t kind = (size_t)(strchr(letters, *text++) - letters);
        unsigned tag = tags[kind];
        uint32_t id = UINT32_MAX;
        char *end = NULL;
        if (*text == ':') {
            id = (uint32_t)strtoul(text + 1, &end, 10);
            text = end + 1;
            tag = kind ? ACL_GROUP : ACL_USER;
        }
        unsigned permissions = (unsigned)strtoul(text, &end, 8);
        acl_text_add(a, tag, permissions, id);
        for (text = end; *text == ' ';)
            text++;
    }
    return (struct keg_bytes){a->bytes, a->len};
}

/* The other way; into a->text. */
static inline const char *acl_text_print(struct acl_text *a)
{
    size_t used = 0;
    a->text[0] = 0;
    for (size_t at = 4; at + 8 <= a->len; at += 8) {
        const uint8_t *p = a->bytes + at;
        char id[16] = "";
        if (p[0] == ACL_USER || p[0] == ACL_GROUP)
            snprintf(id, sizeof id, ":%u:", (unsigned)(p[4] | p[5] << 8));
        used += (size_t)snprintf(a->text + used, sizeof a->text - used, "%s%c%s%u", used ? " " : "",
                                 p[0] == ACL_USER_OBJ || p[0] == ACL_USER     ? 'u'
                                 : p[0] == ACL_GROUP_OBJ || p[0] == ACL_GROUP ? 'g'
                                 : p[0] == ACL_MASK                           ? 'm'
                                                                              : 'o',
                                 id, p[2]);
    }
    return a->text;
}

#endif
