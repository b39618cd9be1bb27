/*
 * tests/support/clip_case.h - one forward and backward of a text encoder on golden inputs:
 * gradient of the output from "input.dout".
 */
#ifndef DR_CLIP_CASE_H
#define DR_CLIP_CASE_H

#include "model_case.h"
#include "models/clip/clip.h"

typedef struct clip_case_config {
    dr_clip_config model;
    dr_clip_options options;
    const dr_backend *backend;
    int64_t batch, tokens;
    const int32_t *ids; /* batch x tokens; NULL: from "input.ids" */
} clip_case_config;

typedef struct clip_case {
    clip_case_config config;
    dr_model_case m;
    dr_clip clip;
    dr_clip_run *run;
    dr_tensor ids, out, dout;
    int n_ready;         /* segments that the sink heard of in the latest step */
    int64_t ready_begin; /* begin of the latest one */
    bool ready_in_order; /* descending, without gaps */
} clip_case;

void clip_case_begin(clip_case *c, const clip_case_config *config);
/* Plan and run; gradients start at zero. */
void clip_case_step(clip_case *c);
void clip_case_end(clip_case *c);

#endif
