/* SPDX-License-Identifier: MIT */
#ifndef READ_H
#define READ_H

#include "store.h"

/* Reads and verifies the whole value at a place, which is not lost: place->value_len bytes. 0,
 * -EBADMSG, -EIO, -ENOMEM. */
KEG_CHECKED int read_whole(struct keg_file *file, const struct index_place *place, void *buf);

#endif
