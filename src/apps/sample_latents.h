/*
 * apps/sample_latents.h - the latents of `dreamrun sample` in and out of safetensors files, in the
 * order of files (N,C,H,W).
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_SAMPLE_LATENTS_H
#define DR_APPS_SAMPLE_LATENTS_H

#include "dreamrun/status.h"

typedef struct dr_sample_latents {
    int64_t n, h, w, c;
    float *initial, *final; /* (n,h,w,c) */
    float *noise;           /* (n_noises,h,w,c): what ancestral samplers added, in order */
    size_t n_noises;
} dr_sample_latents;

/* Zeroed latents; free with dr_sample_latents_free. */
DR_MUST_USE dr_status dr_sample_latents_alloc(dr_sample_latents *l, int64_t n, int64_t h, int64_t w,
                                              int64_t c);
void dr_sample_latents_free(dr_sample_latents *l);
/* Fills l->initial from the file's tensor "initial". Errors: DR_FORMAT with shapes, DR_IO. */
DR_MUST_USE dr_status dr_sample_latents_read(dr_sample_latents *l, const char *path);
/* One more noise of h*w*c floats. */
void dr_sample_latents_add_noise(dr_sample_latents *l, const float *noise);
/* Writes all as F32, the noise only where there is some. Errors: as dr_safetensors_save. */
DR_MUST_USE dr_status dr_sample_latents_write(const dr_sample_latents *l, const char *path);

#endif
