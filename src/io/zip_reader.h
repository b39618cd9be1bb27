/*
 * io/zip_reader.h - ZIP archives, read through a map: torch checkpoints, NumPy's .npz.
 *
 * Layer:    io.
 * Threads:  an open archive may be read by several threads.
 * Source:   PKWARE's APPNOTE 6.3.10: central directory, ZIP64, data descriptors.
 *
 * The central directory alone says what the archive holds; local headers are read when an entry's
 * data are asked for. Refused: names twice, overlapping entries, encryption, parts of split
 * archives, sizes that a stream of that length cannot have.
 */
#ifndef DR_IO_ZIP_READER_H
#define DR_IO_ZIP_READER_H

#include "dreamrun/status.h"

typedef struct dr_zip dr_zip;

typedef struct dr_zip_entry { /* name lives as long as the archive is open */
    const char *name;
    size_t bytes; /* unpacked */
    size_t packed_bytes;
    size_t header_at; /* of the local header, from the file's start */
    size_t limit;     /* the next entry or the directory starts here */
    uint32_t crc;
    uint16_t method; /* 0 stored, 8 deflated */
    uint16_t flags;
} dr_zip_entry;

/* True when the first n bytes of a file are a ZIP archive's. */
bool dr_zip_sniff_bytes(const unsigned char *head, size_t n);
/* Maps the archive and reads its directory. On error *out is NULL.
 * Errors: DR_FORMAT (what is wrong), DR_IO. */
DR_MUST_USE dr_status dr_zip_open(dr_zip **out, const char *path);
/* The same over n bytes of memory that outlive *out; source names them in messages. */
DR_MUST_USE dr_status dr_zip_parse(dr_zip **out, const char *source, const void *bytes, size_t n);
void dr_zip_close(dr_zip *z); /* NULL is fine */

/* Entries in the directory's order. */
size_t dr_zip_count(const dr_zip *z);
const dr_zip_entry *dr_zip_at(const dr_zip *z, size_t i);
/* NULL when there is no such entry. */
const dr_zip_entry *dr_zip_find(const dr_zip *z, const char *name);

/* *data points into the map at the entry's packed_bytes bytes (its content, when stored). Checks
 * the local header, not the CRC. */
DR_MUST_USE dr_status dr_zip_data(const dr_zip *z, const dr_zip_entry *e, const void **data);
/* The entry's content: e->bytes bytes into out, unpacked and compared with the CRC.
 * DR_UNSUPPORTED for other methods than 0 and 8. */
DR_MUST_USE dr_status dr_zip_read(const dr_zip *z, const dr_zip_entry *e, void *out);
/* The process gives back the pages behind the entry's bytes [offset, offset + n). */
void dr_zip_release(const dr_zip *z, const dr_zip_entry *e, size_t offset, size_t n);
const char *dr_zip_path(const dr_zip *z);

#endif
