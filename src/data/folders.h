/*
 * data/folders.h - finds the pictures and captions of a DreamBooth data folder.
 *
 *     train_data_dir/20_sks dog/a.jpg, a.caption, ...      <repeats>_<class>/picture, caption
 *
 * Layer:    data.
 * Source:   sd-scripts' rules (docs: spec "Folder names", "Captions"), with sub-folders in bytewise
 *           order and clear errors for what sd-scripts accepts silently.
 */
#ifndef DR_DATA_FOLDERS_H
#define DR_DATA_FOLDERS_H

#include "base/arena.h"
#include "data/buckets.h"
#include "data/subset.h"

/* Reads a picture's size without decoding it; DR_FORMAT or DR_IO with the path in the message. */
typedef dr_status (*dr_probe_fn)(const char *path, const dr_image_options *o, dr_size_px *out);

typedef struct dr_folder_options {
    const char *train_data_dir;        /* --train_data_dir                                       */
    const char *reg_data_dir;          /* --reg_data_dir; NULL: none                             */
    const char *caption_extension;     /* --caption_extension; a missing leading dot is added    */
    bool skip_bad_images;              /* --skip_bad_images: leave them out instead of failing   */
    bool info_read_only;               /* the files of cache_info are read, not written          */
    dr_probe_fn probe;                 /* dr_picture_check; tests give others                    */
    int threads;                       /* that probe at once; the rest of a scan is one thread's */
    const dr_picture_options *picture; /* how to decode; NULL: the defaults */
    const dr_subset_options *subset;   /* of every folder; NULL: the defaults                    */
} dr_folder_options;

typedef struct dr_subset {    /* one <repeats>_<class> folder, or one of a dataset file */
    const char *dir;          /* as reached from the option's value          */
    const char *class_tokens; /* caption of pictures without a caption file  */
    int64_t repeats;          /* from the folder's name                      */
    bool is_reg;
    const char *metadata_file;        /* its pictures and captions come from; NULL: the folder  */
    bool is_validation;               /* set by data/validation.h: never trained on */
    uint32_t part;                    /* dataset that it belongs to; 0 without a dataset file */
    const dr_subset_options *options; /* never NULL */
    size_t first_image, n_images;     /* its pictures, consecutive in images[] */
} dr_subset;

typedef struct dr_folder_image {
    const char *path;
    const char *caption; /* from the caption file, or the subset's class tokens */
    dr_size_px size;
    uint32_t subset;
    bool has_caption_file;
} dr_folder_image;

typedef struct dr_folder_scan { /* lives in the arena */
    dr_subset *subsets;         /* train subsets first; none is empty */
    size_t n_subsets;
    dr_folder_image *images; /* by subset, then path */
    size_t n_images;
    size_t n_skipped; /* bad pictures left out (skip_bad_images) */
} dr_folder_scan;

/*
 * Splits a folder name into repeats and class tokens; false when it does not start with a whole
 * number followed by "_" or the end. class_tokens points into name. Repeats may be 0 or negative:
 * the scan ignores such folders.
 */
bool dr_folder_name_parse(const char *name, int64_t *repeats, const char **class_tokens);

/*
 * Scans both directories. Warns about everything that is found and not used.
 * Errors: DR_INVALID for a directory that does not exist or stands on the wrong level (the message
 * says which path to give or what to rename); DR_FORMAT for folders without a usable picture, for
 * bad pictures (all counted, five named) and for bad caption files; DR_IO.
 */
DR_MUST_USE dr_status dr_folders_scan(dr_arena *arena, const dr_folder_options *o,
                                      dr_folder_scan *out);
/*
 * The same for n folders named one by one, in the order of their parts; o's directories are not
 * used. Folders that do not exist are DR_INVALID; a folder named twice in one part counts once,
 * with a warning.
 */
DR_MUST_USE dr_status dr_subsets_scan(dr_arena *arena, const dr_folder_options *o,
                                      const dr_subset_spec *specs, size_t n, dr_folder_scan *out);

#endif
