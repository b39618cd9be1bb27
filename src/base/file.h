/*
 * base/file.h - whole files in, atomic files out, read-only maps, directories.
 *
 * Layer:    base.
 * Errors:   DR_IO with path and reason; DR_FORMAT for what is not the expected kind of file;
 *           DR_OUTPUT when an output cannot be created. All paths are UTF-8 byte strings.
 */
#ifndef DR_BASE_FILE_H
#define DR_BASE_FILE_H

#include "base/str.h"

#include <stdio.h>

/* From now on a write over a limit of files' sizes (ulimit -f) fails, as on a full disk; otherwise
 * a signal ends the process. */
void dr_file_take_limits(void);

/* Reads a whole file; refuses more than max_bytes (DR_FORMAT). The caller frees *data; one NUL byte
 * follows the n bytes. */
DR_MUST_USE dr_status dr_file_read(const char *path, size_t max_bytes, char **data, size_t *n);

typedef struct dr_map { /* a file mapped read-only */
    const unsigned char *data;
    size_t size;
} dr_map;
/* Maps a file of at least one byte. The map lives until dr_map_close. */
DR_MUST_USE dr_status dr_map_open(dr_map *m, const char *path);
/* Whole pages within [offset, offset + n) leave the process; a later access reads them again. */
void dr_map_release(const dr_map *m, size_t offset, size_t n);
void dr_map_close(dr_map *m);

/*
 * A file that appears whole or not at all: written as "path.tmp.<pid>", then flushed, fsynced,
 * renamed, and the directory fsynced. Exactly one of commit and abort ends it; commit aborts on
 * failure, so that nothing is left behind and an older file at path stays.
 */
typedef struct dr_outfile {
    FILE *f;
    char *path, *tmp;
    uint64_t written, on_their_way; /* bytes; those that the disk was asked to begin with */
} dr_outfile;
DR_MUST_USE dr_status dr_outfile_open(dr_outfile *o, const char *path);
DR_MUST_USE dr_status dr_outfile_write(dr_outfile *o, const void *data, size_t n);
/* Writes over bytes that were written before; the next write goes on behind the last one. */
DR_MUST_USE dr_status dr_outfile_patch(dr_outfile *o, uint64_t offset, const void *data, size_t n);
DR_MUST_USE dr_status dr_outfile_commit(dr_outfile *o);
void dr_outfile_abort(dr_outfile *o);
/* All of the above in one call. */
DR_MUST_USE dr_status dr_file_write(const char *path, const void *data, size_t n);

/* Makes a rename or a removal in the directory that holds path last through a power cut, where the
 * file system can. */
void dr_sync_parent(const char *path);
/*
 * Whether the file system that path is to be created in has room for so many bytes: better to learn
 * it before a gigabyte is written (a quota still shows only while writing). Errors: DR_IO (what is
 * needed, what is free), DR_OUTPUT (no such directory).
 */
DR_MUST_USE dr_status dr_check_free_space(const char *path, uint64_t need);

bool dr_path_exists(const char *path);
bool dr_path_is_dir(const char *path);
/* Creates the directory and its parents (mode 0777 & ~umask); existing directories are fine. */
DR_MUST_USE dr_status dr_mkdirs(const char *path);
/* Names in a directory without "." and "..", sorted bytewise. */
DR_MUST_USE dr_status dr_list_dir(const char *path, dr_strv *names);
/* a/b with exactly one slash, into a fresh string that the caller frees. */
char *dr_path_join(const char *a, const char *b);
/* The part after the last slash (points into path). */
const char *dr_path_base(const char *path);

#endif
