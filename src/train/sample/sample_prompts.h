/*
 * train/sample/sample_prompts.h - the file of --sample_prompts: what to draw, one prompt after the
 * other.
 *
 * Layer:    train.
 * Source:   sd-scripts' load_prompts and line_to_prompt_dict (spec/sdscripts.md 11.2).
 *
 * .txt    a prompt in each line: "text --n negative --w 512 --h 512 --d 1 --s 30 --l 7.5 --ss
 *         euler_a", letters in any case; blank lines and lines that begin with # do not count
 * .toml   [prompt] with what holds for all, [[prompt.subset]] for each prompt
 * .json   a list of such lines or of objects; keys as in TOML: prompt, negative_prompt, width,
 *         height, seed, sample_steps, scale, sample_sampler
 *
 * Unlike there, the prompt itself is never taken for an option ("w 512 house"), a value that is
 * none is an error, and in TOML a subset wins over [prompt]. What is not known is named and left
 * out.
 */
#ifndef DR_TRAIN_SAMPLE_PROMPTS_H
#define DR_TRAIN_SAMPLE_PROMPTS_H

#include "base/str.h"
#include "dist/dist.h"
#include "train/sample/sampling.h"

typedef struct dr_sample_prompt {
    size_t prompt, negative; /* where they begin in dr_sample_prompts.texts */
    dr_sampler_kind sampler;
    int64_t n_steps, width, height, seed; /* seed -1: none given */
    double cfg_scale;
} dr_sample_prompt;

typedef struct dr_sample_prompts { /* owns both; start with {0} */
    dr_sample_prompt *at;
    size_t n, cap;
    dr_str texts;
} dr_sample_prompts;

/*
 * Reads a file; sampler: of prompts that name none. Errors: DR_FORMAT (file, line or prompt, found,
 * expected), DR_INVALID (another ending), DR_IO. out is to be freed in any case.
 */
DR_MUST_USE dr_status dr_sample_prompts_read(const char *path, dr_sampler_kind sampler,
                                             dr_sample_prompts *out);
void dr_sample_prompts_free(dr_sample_prompts *p);
/* Collective. Rank 0's prompts on all ranks; the others begin with {0}. */
DR_MUST_USE dr_status dr_sample_prompts_share(dr_dist *d, dr_sample_prompts *p);
/* The texts of a prompt; they live as long as p. */
const char *dr_sample_prompts_text(const dr_sample_prompts *p, size_t i);
const char *dr_sample_prompts_negative(const dr_sample_prompts *p, size_t i);
/* A width or height as a multiple of `multiple`, rounded down, at least one of them: sd-scripts
 * rounds to 8 and fills up inside the U-Net. */
int64_t dr_sample_prompts_side(int64_t side, int64_t multiple);
/* All of prompt i but its seed when it names none, and karras; sides as dr_sample_prompts_side. */
void dr_sample_prompts_request(const dr_sample_prompts *p, size_t i, int64_t multiple,
                               dr_sample_request *q);

#endif
