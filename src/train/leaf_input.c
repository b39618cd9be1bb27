/*
 * The inputs of a leaf: latents, noise, timesteps, captions, weights. Every random number is keyed
 * by (seed, purpose, epoch, sample), so it is the same on any rank and in any order.
 */
#include "base/philox.h"
#include "train/run_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct leaf_arrays {          /* host copies, uploaded at the end */
    float *latents, *noise, *factors; /* factors: N_FACTORS arrays of n */
    float *input_noise;               /* NULL: noise */
} leaf_arrays;

#define MASK_BYTES ((size_t)512 << 20) /* of masks kept: of 65,000 pictures of 512 x 512 */

enum { T, SIGNAL, SIGMA, TARGET_LATENT, TARGET_NOISE, WEIGHT, THRESHOLD, N_FACTORS };

/* The four uses of a picture in a validation share one latent. */
static dr_status get_latent(dr_run *r, const dr_sample_ref *ref, uint32_t epoch, size_t elems,
                            float *out)
{
    if (epoch != DR_EPOCH_OF_VALIDATION) {
        return dr_latents_get(r->latents, ref->image, epoch, ref->sample, out);
    }
    if (ref->repeat == 0) {
        r->latent = dr_xrealloc(r->latent, elems, sizeof *r->latent);
        DR_TRY(dr_latents_get(r->latents, ref->image, epoch, ref->sample, r->latent));
    }
    memcpy(out, r->latent, elems * sizeof *out);
    return DR_OK;
}

int dr_run_validation_timestep(const dr_run *r, uint32_t i)
{
    int first;
    int count;
    dr_objective_timesteps(&r->c->objective, &first, &count);
    return first + (int)(i + 1) * count / (DR_VALIDATION_TIMESTEPS + 1);
}

static int choose_timestep(const dr_run *r, const dr_sample_ref *ref, uint32_t epoch)
{
    int first;
    int count;
    if (epoch == DR_EPOCH_OF_VALIDATION) {
        return dr_run_validation_timestep(r, ref->repeat);
    }
    dr_objective_timesteps(&r->c->objective, &first, &count);
    dr_philox stream;
    dr_philox_init(&stream, r->c->seed, DR_RANDOM_TIMESTEP, epoch, ref->sample);
    return first + (int)dr_philox_below(&stream, (uint32_t)count);
}

static dr_status fill_sample(dr_run *r, const dr_leaf *leaf, uint32_t i, uint32_t epoch,
                             const leaf_arrays *a, size_t elems, const dr_leaf_host *host)
{
    const dr_sample_ref *ref = &leaf->samples[i];
    dr_philox stream;
    DR_TRY(get_latent(r, ref, epoch, elems, a->latents + i * elems));
    dr_philox_init(&stream, dr_run_seed(r, epoch), DR_RANDOM_NOISE, epoch, ref->sample);
    dr_philox_normal(&stream, a->noise + i * elems, elems);
    int t = choose_timestep(r, ref, epoch);
    dr_mix_factors noisy = dr_schedule_noisy(&r->noise_schedule, t);
    dr_mix_factors target = dr_schedule_target(&r->noise_schedule, r->c->objective.prediction, t);
    float *f = a->factors;
    uint32_t n = leaf->n;
    f[T * n + i] = (float)t;
    f[SIGNAL * n + i] = noisy.a;
    f[SIGMA * n + i] = noisy.b;
    f[TARGET_LATENT * n + i] = target.a;
    f[TARGET_NOISE * n + i] = target.b;
    host->timesteps[i] = t;
    f[THRESHOLD * n + i] = dr_objective_huber_c(&r->c->objective, &r->noise_schedule, t);
    host->loss_weights[i] = r->dataset.images[ref->image].loss_weight *
                            dr_objective_weight(&r->c->objective, &r->snr_schedule, t);
    host->keys[i] = r->dataset.images[ref->image].path;
    return DR_OK;
}

static dr_status upload_text(dr_context *cx, const dr_leaf_input *in, const dr_leaf_text *text)
{
    DR_TRY(dr_upload(cx, &in->ids, text->ids));
    if (text->weights == NULL) {
        return DR_OK;
    }
    dr_tensor zeros = in->token_zeros;
    DR_TRY(dr_zero(cx, &zeros));
    return dr_upload(cx, &in->token_weights, text->weights);
}

static dr_status upload(dr_context *cx, const dr_leaf_input *in, const leaf_arrays *a, uint32_t n)
{
    DR_TRY(dr_upload_floats(cx, &in->latents, a->latents));
    DR_TRY(dr_upload_floats(cx, &in->noise, a->noise));
    if (a->input_noise != NULL) {
        DR_TRY(dr_upload_floats(cx, &in->input_noise, a->input_noise));
    }
    DR_TRY(dr_upload(cx, &in->t, a->factors + T * n));
    DR_TRY(dr_upload(cx, &in->signal, a->factors + SIGNAL * n));
    DR_TRY(dr_upload(cx, &in->sigma, a->factors + SIGMA * n));
    DR_TRY(dr_upload(cx, &in->target_latent, a->factors + TARGET_LATENT * n));
    DR_TRY(dr_upload(cx, &in->target_noise, a->factors + TARGET_NOISE * n));
    DR_TRY(dr_upload(cx, &in->threshold, a->factors + THRESHOLD * n));
    return dr_upload(cx, &in->weight, a->factors + WEIGHT * n);
}

/* The masks of a leaf's pictures, mirrored and cut like them. */
static dr_status fill_masks(dr_run *r, dr_context *cx, const dr_leaf *leaf, uint32_t epoch,
                            const dr_tensor *mask)
{
    if (mask->rank == 0) {
        return DR_OK;
    }
    if (r->masks == NULL) {
        r->masks = dr_mask_store_create(&r->dataset, MASK_BYTES);
    }
    size_t plane = (size_t)(mask->dim[1] * mask->dim[2]);
    float *values = dr_xcalloc(leaf->n * plane, sizeof *values);
    dr_status st = DR_OK;
    for (uint32_t i = 0; i < leaf->n && st == DR_OK; i++) {
        const dr_sample_ref *ref = &leaf->samples[i];
        const dr_sample_use use = {
            .seed = dr_run_seed(r, epoch),
            .epoch = epoch,
            .sample = ref->sample,
            .flip = dr_latents_flips(r->latents, ref->image, epoch, ref->sample)};
        st = dr_mask_store_get(r->masks, ref->image, &use, values + i * plane);
    }
    if (st == DR_OK) {
        st = dr_upload(cx, mask, values);
    }
    free(values);
    return st;
}

dr_status dr_run_fill_leaf(dr_run *r, dr_context *cx, const dr_leaf *leaf, uint32_t epoch,
                           uint64_t step_samples, const dr_leaf_text *text, dr_leaf_input *in,
                           const dr_leaf_host *host)
{
    uint32_t n = leaf->n;
    size_t elems = (size_t)dr_numel(&in->latents) / n;
    leaf_arrays a = {
        .latents = dr_xcalloc(n * elems, sizeof(float)),
        .noise = dr_xcalloc(n * elems, sizeof(float)),
        .factors = dr_xcalloc((size_t)N_FACTORS * n, sizeof(float)),
    };
    dr_status st = DR_OK;
    for (uint32_t i = 0; st == DR_OK && i < n; i++) {
        st = fill_sample(r, leaf, i, epoch, &a, elems, host);
        a.factors[WEIGHT * n + i] =
            host->loss_weights[i] / (float)step_samples * (float)r->loss_scale.scale;
    }
    if (st == DR_OK) {
        dr_run_shape_noise(r, leaf, epoch, &in->latents, a.latents, a.noise);
    }
    if (st == DR_OK && r->net.o.input_noise) {
        a.input_noise = dr_xcalloc(n * elems, sizeof(float));
        dr_run_input_noise(r, leaf, epoch, &in->latents, a.noise, a.input_noise);
    }
    if (st == DR_OK) {
        st = upload(cx, in, &a, n);
    }
    if (st == DR_OK) {
        st = upload_text(cx, in, text);
    }
    if (st == DR_OK) {
        st = fill_masks(r, cx, leaf, epoch, &in->mask);
    }
    free(a.latents);
    free(a.noise);
    free(a.input_noise);
    free(a.factors);
    return st;
}
