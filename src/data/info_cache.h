/*
 * data/info_cache.h - --cache_info: what was found out about the pictures of a folder (size,
 * whether they are whole), kept in a file in it, so that the next start need not read them all.
 *
 * Layer:    data.
 * Threads:  dr_info_cache_find may be called by several at once.
 *
 *   <folder>/.dreamrun_pictures
 *     dreamrun pictures 1 <version, and what sizes depend on>
 *     <whole> <width> <height> <bytes> <modified, ns> <changed, ns> <inode> <name>
 *     ...
 *     end <XXH3-128 of all that stands before>
 *
 * An entry counts only while its file has the same length, inode, time of modification and time
 * of change: the last is set by the kernel at every write, so it cannot be stale. Files changed in
 * the last seconds are not noted, and what is damaged or of another version counts as absent.
 * sd-scripts' metadata_cache.json is neither read nor written: it is believed unchecked there.
 */
#ifndef DR_DATA_INFO_CACHE_H
#define DR_DATA_INFO_CACHE_H

#include "data/folders.h"

typedef struct dr_file_stamp { /* what changes with a file */
    int64_t bytes, mtime_ns, ctime_ns;
    uint64_t inode;
    bool taken; /* else the file could not be looked at */
} dr_file_stamp;
dr_file_stamp dr_file_stamp_take(const char *path);

typedef struct dr_info_cache dr_info_cache;
/* The file of a folder; empty when there is none to go by. how NULL: the defaults. */
dr_info_cache *dr_info_cache_open(const char *dir, const dr_image_options *how);
void dr_info_cache_close(dr_info_cache *c); /* NULL is fine */
/* The size of a picture that is known and unchanged. *whole: whether it must have been decoded;
 * then whether it was. */
bool dr_info_cache_find(const dr_info_cache *c, const char *path, const dr_file_stamp *stamp,
                        bool *whole, dr_size_px *size);

typedef struct dr_info_entry {
    const char *path;
    dr_size_px size;
    dr_file_stamp stamp; /* taken before the picture was looked at */
    bool whole;
} dr_info_entry;
/* Writes the file with these entries, in any order, unless it says the same already. A folder that
 * cannot be written to costs a warning. */
void dr_info_cache_save(dr_info_cache *c, const dr_info_entry *at, size_t n);
#endif
