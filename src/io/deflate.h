/*
 * io/deflate.h - raw DEFLATE streams and CRC-32, as ZIP archives use them.
 *
 * Layer:    io.  The only place of this layer that knows zlib.
 */
#ifndef DR_IO_DEFLATE_H
#define DR_IO_DEFLATE_H

#include "dreamrun/status.h"

/* CRC-32 (IEEE 802.3) of what came before (0 at the start) and n more bytes. */
uint32_t dr_crc32(uint32_t before, const void *bytes, size_t n);
/*
 * Unpacks a raw DEFLATE stream of n_packed bytes into exactly n bytes at out.
 * Errors: DR_FORMAT when the stream is damaged, shorter or longer than n; the message has no file
 * name (dr_error_prefix).
 */
DR_MUST_USE dr_status dr_inflate(const void *packed, size_t n_packed, void *out, size_t n);

#endif
