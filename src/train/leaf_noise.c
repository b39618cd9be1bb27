/*
 * The noise of a leaf beyond plain normal numbers. Draws are keyed by (seed, purpose, epoch,
 * sample), so a sample gets the same ones on any rank; strengths and level sizes, which sd-scripts
 * draws once per batch, are drawn by the leaf's first sample.
 */
#include "base/philox.h"
#include "train/run_internal.h"

#include <math.h>
#include <stdlib.h>

typedef struct leaf_noise {
    dr_run *r;
    const dr_leaf *leaf;
    uint32_t epoch;
    int64_t h, w, channels;
    const float *latents;
    float *noise;
} leaf_noise;

static dr_philox stream_of(const leaf_noise *l, dr_purpose purpose, uint32_t i)
{
    dr_philox p;
    dr_philox_init(&p, dr_run_seed(l->r, l->epoch), purpose, l->epoch, l->leaf->samples[i].sample);
    return p;
}

static void add_offset(const leaf_noise *l)
{
    const int64_t pixels = l->h * l->w;
    dr_philox first = stream_of(l, DR_RANDOM_NOISE_STRENGTH, 0);
    const float uniform = dr_philox_uniform(&first);
    float *draw = dr_xcalloc((size_t)l->channels, sizeof *draw);
    for (uint32_t i = 0; i < l->leaf->n; i++) {
        const int64_t at = i * pixels * l->channels;
        dr_philox p = stream_of(l, DR_RANDOM_NOISE_OFFSET, i);
        dr_philox_normal(&p, draw, (size_t)l->channels);
        dr_objective_offset_noise(&l->r->c->objective, uniform, l->latents + at, draw, pixels,
                                  l->channels, l->noise + at);
    }
    free(draw);
}

static void add_level(const leaf_noise *l, dr_philox *streams, int level, int64_t lh, int64_t lw)
{
    const int64_t elems = l->h * l->w * l->channels;
    const size_t n = (size_t)(lh * lw * l->channels);
    float *draw = dr_xcalloc(n, sizeof *draw);
    for (uint32_t i = 0; i < l->leaf->n; i++) {
        dr_philox_normal(&streams[i], draw, n);
        dr_objective_add_level(&l->r->c->objective, level, draw, lh, lw, l->h, l->w, l->channels,
                               l->noise + i * elems);
    }
    free(draw);
}

static void add_levels(const leaf_noise *l)
{
    dr_philox sizes = stream_of(l, DR_RANDOM_NOISE_STRENGTH, 0);
    (void)dr_philox_uniform(&sizes); /* the strength of the offset */
    dr_philox *streams = dr_xcalloc(l->leaf->n, sizeof *streams);
    for (uint32_t i = 0; i < l->leaf->n; i++) {
        streams[i] = stream_of(l, DR_RANDOM_NOISE_LEVELS, i);
    }
    for (int level = 0; level < l->r->c->objective.multires_iterations; level++) {
        const double ratio = 2.0 + 2.0 * (double)dr_philox_uniform(&sizes);
        const int64_t lh = dr_objective_level_size(l->h, ratio, level);
        const int64_t lw = dr_objective_level_size(l->w, ratio, level);
        add_level(l, streams, level, lh, lw);
        if (lh == 1 || lw == 1) {
            break;
        }
    }
    free(streams);
    dr_objective_unit_deviation(l->noise, l->leaf->n * l->h * l->w * l->channels);
}

void dr_run_shape_noise(dr_run *r, const dr_leaf *leaf, uint32_t epoch, const dr_tensor *latents,
                        const float *values, float *noise)
{
    const leaf_noise l = {.r = r,
                          .leaf = leaf,
                          .epoch = epoch,
                          .h = latents->dim[1],
                          .w = latents->dim[2],
                          .channels = latents->dim[3],
                          .latents = values,
                          .noise = noise};
    if (r->c->objective.noise_offset != 0.0) {
        add_offset(&l);
    }
    if (r->c->objective.multires_iterations > 0) {
        add_levels(&l);
    }
}

void dr_run_input_noise(dr_run *r, const dr_leaf *leaf, uint32_t epoch, const dr_tensor *latents,
                        const float *noise, float *out)
{
    const dr_objective *o = &r->c->objective;
    const int64_t elems = latents->dim[1] * latents->dim[2] * latents->dim[3];
    const leaf_noise l = {.r = r, .leaf = leaf, .epoch = epoch};
    dr_philox first = stream_of(&l, DR_RANDOM_INPUT_STRENGTH, 0);
    const float uniform = dr_philox_uniform(&first);
    const float strength =
        (float)(o->ip_noise_gamma_random ? (double)uniform * o->ip_noise_gamma : o->ip_noise_gamma);
    for (uint32_t i = 0; i < leaf->n; i++) {
        dr_philox p = stream_of(&l, DR_RANDOM_INPUT_NOISE, i);
        dr_philox_normal(&p, out + i * elems, (size_t)elems);
        for (int64_t k = i * elems; k < (i + 1) * elems; k++) {
            out[k] = noise[k] + strength * out[k];
        }
    }
}
