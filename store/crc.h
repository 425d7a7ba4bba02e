/* SPDX-License-Identifier: MIT */
/* CRC-32 with zlib's polynomial and conventions: crc_update(0, "123456789", 9) is 0xcbf43926. Uses
 * libdeflate where the build found it, else zlib. */
#ifndef CRC_H
#define CRC_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc_update(uint32_t crc, const void *data, size_t len);

#endif
