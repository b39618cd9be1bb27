/*
 * models/clip/clip_names.h - the text encoder's tensors in single-file (LDM) checkpoints.
 *
 * Layer:    models.
 * Source:   spec/models.md 3.3.
 */
#ifndef DR_CLIP_NAMES_H
#define DR_CLIP_NAMES_H

#include "models/clip/clip.h"
#include "models/names.h"

typedef enum dr_clip_layout {
    DR_CLIP_TRANSFORMERS, /* SD 1.x: "cond_stage_model.transformer." + the parameter's own name */
    DR_CLIP_OPENCLIP      /* SD 2.x: "cond_stage_model.model.", q, k and v rows in one tensor   */
} dr_clip_layout;

/* Where the parameter of a text encoder lies in an LDM file of that layout. */
void dr_clip_ldm_slice(dr_clip_layout layout, const dr_param *p, dr_file_slice *out);
/*
 * The other spelling of a name under which a file may hold the same tensor: without "text_model."
 * (transformers 5, and some merged checkpoints). False when there is none.
 */
bool dr_clip_other_name(const char *name, char *buf, size_t size);
/* The layout of an LDM file; false when it has no text encoder of either kind. */
bool dr_clip_find_layout(const dr_shape_source *src, dr_clip_layout *out);
/*
 * Config from the shapes of an LDM file, not checked: what shapes do not tell may be put right
 * first. Heads are 64 channels wide (0 heads: the width does not allow that). An OpenCLIP tower has
 * one more block than SD 2.x runs; it is left out. DR_FORMAT names what is missing.
 */
DR_MUST_USE dr_status dr_clip_config_from_ldm(dr_clip_config *c, const dr_shape_source *src,
                                              dr_clip_layout layout);

#endif
