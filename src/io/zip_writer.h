/*
 * io/zip_writer.h - ZIP archives of stored entries, written front to back.
 *
 * Layer:    io.
 * Threads:  a writer belongs to one.
 *
 * Sizes are known before an entry's data, checksums after them: they follow in a data descriptor,
 * as in torch's own files. ZIP64 fields appear where a size or an offset needs them.
 */
#ifndef DR_IO_ZIP_WRITER_H
#define DR_IO_ZIP_WRITER_H

#include "base/file.h"

typedef struct dr_zip_written { /* an entry of the directory to come */
    char *name;
    uint64_t bytes, header_at;
    uint32_t crc;
} dr_zip_written;

typedef struct dr_zip_writer {
    dr_outfile *out; /* borrowed */
    dr_zip_written *entries;
    size_t n, capacity;
    uint64_t at;   /* bytes written so far */
    uint64_t left; /* of the entry that is open */
    bool is_open;
} dr_zip_writer;

/* Starts an archive at the beginning of out. */
void dr_zip_writer_init(dr_zip_writer *z, dr_outfile *out);
void dr_zip_writer_deinit(dr_zip_writer *z);
/* Begins an entry of exactly bytes bytes whose data start at a multiple of align (1: anywhere). */
DR_MUST_USE dr_status dr_zip_writer_begin(dr_zip_writer *z, const char *name, uint64_t bytes,
                                          size_t align);
/* Appends data to the open entry; more than announced is a broken contract. */
DR_MUST_USE dr_status dr_zip_writer_write(dr_zip_writer *z, const void *data, size_t n);
/* Ends the open entry; fewer bytes than announced is a broken contract. */
DR_MUST_USE dr_status dr_zip_writer_end(dr_zip_writer *z);
/* The three above in one call. */
DR_MUST_USE dr_status dr_zip_writer_add(dr_zip_writer *z, const char *name, const void *data,
                                        size_t n, size_t align);
/* Writes the directory; no entry may be open. */
DR_MUST_USE dr_status dr_zip_writer_finish(dr_zip_writer *z);
/* No archive of so many entries with such names and data is longer than this. */
uint64_t dr_zip_writer_most(size_t n_entries, size_t n_names, uint64_t n_data, size_t align);

#endif
