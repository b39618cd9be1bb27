/*
 * data/folders_internal.h - shared by folders.c, folder_hints.c and caption_file.c.
 *
 * Layer:    data.
 */
#ifndef DR_DATA_FOLDERS_INTERNAL_H
#define DR_DATA_FOLDERS_INTERNAL_H

#include "base/str.h"
#include "data/folders.h"
#include "data/info_cache.h"

typedef struct dr_problems { /* counts all, keeps the first five as text */
    size_t n;
    dr_str text; /* "\n  line" each */
} dr_problems;
void dr_problems_add(dr_problems *p, const char *line);
/* "" or "\n  ... and N more". */
void dr_problems_finish(dr_problems *p);
void dr_problems_free(dr_problems *p);
/* "" for one, else "s". */
const char *dr_folders_plural(uint64_t n);

typedef enum dr_picture_kind {
    DR_PICTURE_NOT,     /* not a picture by its extension                           */
    DR_PICTURE_USABLE,  /* .png .jpg .jpeg .webp .bmp, in any case                  */
    DR_PICTURE_NO_CODEC /* .avif .jxl, in any case: sd-scripts may read them        */
} dr_picture_kind;
/* By the extension of a file name; hidden files are none. */
dr_picture_kind dr_picture_kind_of(const char *name);
bool dr_folders_is_file(const char *path);
/* Usable pictures directly in dir; 0 when it cannot be listed. */
size_t dr_count_pictures(const char *dir);

/* DR_INVALID that says what is wrong with a directory without any usable sub-folder. */
DR_MUST_USE dr_status dr_folder_level_error(const char *flag, const char *dir);

typedef struct dr_caption_stats { /* what is worth a warning after the scan */
    dr_problems missing;          /* pictures without a caption file, in subsets that have some */
    size_t n_more_lines;          /* files of which only the first line is used                 */
    size_t n_blank_first_line;    /* files with text, but not in the first line                 */
    size_t n_txt_unused;          /* pictures with a .txt file beside them that is not used     */
    const char *first_txt;        /* one of these                                               */
} dr_caption_stats;
/*
 * The caption of one picture: *caption is NULL when there is no file, otherwise in the arena: the
 * first line, stripped, or with all_lines every line that is not blank, stripped, between "\n".
 * Errors: DR_FORMAT (empty, not UTF-8, NUL bytes) with path, byte offset and a guess; DR_IO.
 */
DR_MUST_USE dr_status dr_caption_file_find(dr_arena *arena, const char *image_path,
                                           const char *extension, bool all_lines,
                                           dr_caption_stats *stats, const char **caption);

typedef struct dr_listed { /* one picture of a metadata file, in the arena */
    const char *path, *caption;
} dr_listed;
/*
 * The pictures of spec->metadata_file, by path; *out is the caller's (free). Keys without a picture
 * go to bad. Errors: DR_FORMAT and DR_IO as dr_json_open; DR_FORMAT for members that are no text;
 * DR_INVALID for a path that needs an image_dir.
 */
DR_MUST_USE dr_status dr_metadata_file_read(dr_arena *arena, const dr_subset_spec *spec,
                                            dr_problems *bad, dr_listed **out, size_t *n);

typedef struct dr_probed { /* what a probe said of one file */
    char *path;            /* owned */
    dr_size_px size;
    dr_status status;    /* DR_OK, or FORMAT, IO, UNSUPPORTED: a bad picture */
    char *error;         /* of a bad picture; owned */
    dr_file_stamp stamp; /* with info_dir */
    bool whole;          /* it was decoded, now or earlier */
    bool known;          /* from info_dir's file */
} dr_probed;
/* Probes all paths by o->threads threads, those excepted that the file of --cache_info in info_dir
 * knows (NULL: none). Other errors than bad pictures are returned. */
DR_MUST_USE dr_status dr_probe_pictures(const dr_folder_options *o, const char *info_dir,
                                        dr_probed *at, size_t n);
void dr_probed_free(dr_probed *at, size_t n);

#endif
