/*
 * train/sample/sample_files.h - what a sample picture says of itself, and what the files of a run
 * are called.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_SAMPLE_FILES_H
#define DR_TRAIN_SAMPLE_FILES_H

#include "base/str.h"
#include "train/sample/sampling.h"

/*
 * The text that the web interfaces write under the key "parameters" and read settings from:
 * "prompt\nNegative prompt: ...\nSteps: 30, Sampler: Euler a, CFG scale: 7.5, Seed: 1, Size:
 * 512x512
 * [, Clip skip: 2]". Appended.
 */
void dr_sample_parameters(const dr_sample_request *q, int clip_skip, dr_str *out);

typedef struct dr_sample_when {
    bool at_epoch; /* number is an epoch (0: before the first step), else a step */
    int64_t number;
    char time[16]; /* YYYYmmddHHMMSS, local */
} dr_sample_when;

/* Fills time with now. */
void dr_sample_when_now(dr_sample_when *w);
/* sd-scripts' name: "{output_name_}{e%06d|%06d}_{%02d}_{time}{_seed}.png"; output_name NULL: none;
 * seed -1: none was given. Appended. */
void dr_sample_name(const char *output_name, const dr_sample_when *w, size_t index, int64_t seed,
                    dr_str *out);
typedef struct dr_sample_name_parts {
    bool at_epoch;
    int64_t number, index;
    char time[16];
} dr_sample_name_parts;
/* Whether a file's name is one of those, and of what. */
bool dr_sample_name_parse(const char *output_name, const char *name, dr_sample_name_parts *out);

#endif
