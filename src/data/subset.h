/*
 * data/subset.h - the settings of one folder of pictures: from the command line, or its own in a
 * dataset file.
 *
 * Layer:    data.
 */
#ifndef DR_DATA_SUBSET_H
#define DR_DATA_SUBSET_H

#include "data/caption.h"
#include "data/picture_options.h"

typedef struct dr_subset_options { /* strings outlive the dataset */
    dr_caption_options captions;
    const char *caption_extension;     /* with or without its dot; NULL: the scan's        */
    const dr_picture_options *picture; /* how to decode; NULL: the scan's               */
    bool flip_aug;                     /* half of the uses are mirrored                     */
    const char *mask_dir;              /* of mask pictures; NULL: none                       */
    bool cache_info;                   /* what is found out about pictures is kept in a file */
    bool alpha_mask;                   /* without mask_dir: the picture's own alpha is one  */
    bool color_aug, random_crop;       /* see data/augment.h                                */
    double face_least, face_most;      /* --face_crop_aug_range; 0, 0: not used             */
} dr_subset_options;
/* Nothing is changed. */
dr_subset_options dr_subset_options_default(void);

typedef struct dr_subset_spec { /* a folder that a dataset file names */
    const char *image_dir;      /* with a metadata_file NULL, if that names whole paths       */
    const char *metadata_file;  /* names its pictures and their captions; NULL: all pictures  */
    const char *class_tokens;   /* caption of pictures without a caption file; NULL: none     */
    int64_t repeats;            /* at least 1                                                 */
    bool is_reg;
    uint32_t part; /* the dataset it belongs to: index in dr_dataset_options.parts */
    const dr_subset_options *options;
} dr_subset_spec;

#endif
