/*
 * data/dataset.h - the training set: every picture with its caption, repeats, bucket and weight.
 *
 * Layer:    data.
 * Threads:  built by one thread; read-only afterwards.
 *
 * A sample is one (picture, repeat) of an epoch. Samples are numbered 0..n_samples-1 in canonical
 * order: training pictures by folder and path, then regularisation pictures, repeats innermost;
 * several datasets follow each other.
 * That number keys all randomness of a sample, so it depends on the data alone.
 */
#ifndef DR_DATA_DATASET_H
#define DR_DATA_DATASET_H

#include "base/str.h"
#include "data/folders.h"

typedef struct dr_dataset_image {
    const char *path;
    const char *caption;               /* unprocessed: data/caption.h makes the text of one fetch */
    const dr_picture_options *picture; /* NULL: the defaults                             */
    dr_size_px size;                   /* as decoded                                              */
    dr_bucket_fit fit;                 /* resized size and crop                                   */
    uint32_t subset;                   /* index in subsets                                        */
    uint32_t bucket;                   /* index in buckets                                        */
    uint32_t repeats;                  /* effective: how often per epoch; 0: for validation only  */
    uint32_t first_sample;             /* of validation: its number among those pictures          */
    const dr_subset_options *options;  /* NULL: nothing is augmented */
    bool unbucketed;                   /* its dataset has no buckets                              */
    const char *mask;                  /* its mask picture; NULL: all of it counts */
    float loss_weight;                 /* 1, or prior_loss_weight of regularisation pictures */
    bool is_reg;
} dr_dataset_image;

typedef struct dr_bucket {
    dr_size_px size;
    uint32_t n_images;   /* without those of validation */
    uint32_t n_samples;  /* counts repeats */
    uint32_t part;       /* dataset that it belongs to */
    uint32_t batch_size; /* of that dataset; 0: the run's */
} dr_bucket;

typedef struct dr_dataset {         /* all arrays live in the arena given to dr_dataset_build */
    const dr_dataset_image *images; /* those for validation are the last ones */
    size_t n_images;
    size_t n_validation_images; /* of them; no sample of an epoch */
    const dr_subset *subsets;
    size_t n_subsets;
    size_t n_parts;           /* datasets of a dataset file; 1 without one */
    const dr_bucket *buckets; /* non-empty ones, ascending by (part, w, h) */
    size_t n_buckets;
    size_t n_all_buckets; /* behind them in buckets[]: those that only validation needs */
    uint32_t n_samples;   /* per epoch: train + regularisation */
    uint32_t n_train_samples, n_reg_samples;
    size_t n_train_images, n_reg_images; /* pictures in use */
    size_t n_reg_unused;                 /* regularisation pictures beyond the training samples */
    int64_t n_reg_reported; /* sum of repeats x pictures of the regularisation folders, the number
                               that sd-scripts reports */
    size_t n_skipped;       /* bad pictures left out */
    double mean_aspect_error;
    bool bucketed; /* --enable_bucket, in any part */
    bool masked;   /* some picture has a mask, or may have one in its alpha */
    bool flips;    /* some subset has flip_aug */
    bool varies;   /* some subset crops or colours at random: its latents cannot be cached */
} dr_dataset;

typedef struct dr_dataset_part { /* one [[datasets]] of a dataset file */
    dr_bucket_options buckets;   /* validated */
    uint32_t batch_size;
    double validation_split; /* share of its pictures; 0: none */
    uint64_t validation_seed;
} dr_dataset_part;

typedef struct dr_dataset_options {
    dr_folder_options folders;
    dr_bucket_options buckets;    /* validated; without a dataset file, as the next two */
    double validation_split;      /* --validation_split */
    uint64_t validation_seed;     /* --validation_seed; 0 */
    float prior_loss_weight;      /* --prior_loss_weight */
    const dr_dataset_part *parts; /* with a dataset file; they outlive the dataset */
    size_t n_parts;               /* 0: folders.train_data_dir counts */
    const dr_subset_spec *specs;  /* folders of all parts, by part */
    size_t n_specs;
} dr_dataset_options;
/*
 * Builds the set from a scan (same arena, which must outlive it) and validated bucket options.
 * Regularisation pictures are repeated in turn until they are as many samples as the training
 * pictures. With skip_bad_images, pictures that fit no bucket are left out with a warning.
 * Errors: DR_FORMAT for pictures that fit no bucket (five named); DR_INVALID for 2^32 samples or
 * more.
 */
DR_MUST_USE dr_status dr_dataset_build(dr_arena *arena, const dr_dataset_options *o,
                                       const dr_folder_scan *scan, dr_dataset *out);
/* Whether some folder's pictures are masked by their alpha: known without looking at them. */
bool dr_dataset_wants_alpha(const dr_dataset_options *o);
/* dr_folders_scan or, with parts, dr_subsets_scan, then dr_dataset_build. */
DR_MUST_USE dr_status dr_dataset_open(dr_arena *arena, const dr_dataset_options *o,
                                      dr_dataset *out);

/* Several lines for the log: folders, counts, bucket table, mean aspect error. */
void dr_dataset_summary(const dr_dataset *d, dr_str *out);
/* The value of ss_bucket_info as Python's json.dumps writes it; "null" without buckets. */
void dr_dataset_bucket_info(const dr_dataset *d, dr_str *out);

/* Fills repeats[] of n_reg regularisation pictures (0: not used), whose folders give them
 * folder_repeats[], for n_train training samples; returns the sum. Exposed for tests. */
uint64_t dr_reg_repeats(uint64_t n_train, const int64_t *folder_repeats, size_t n_reg,
                        uint64_t *repeats);

#endif
