/* SPDX-License-Identifier: MIT */
#include "crc.h"

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>

uint32_t crc_update(uint32_t crc, const void *data, size_t len)
{
    return len ? libdeflate_crc32(crc, data, len) : crc;
}

#else
#include <zlib.h>

uint32_t crc_update(uint32_t crc, const void *data, size_t len)
{
    return len ? (uint32_t)crc32_z(crc, data, len) : crc;
}

#endif
