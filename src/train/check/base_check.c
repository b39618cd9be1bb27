/*
 * The wrong-base alarm: one run of the networks on pictures of the dataset tells whether the model
 * predicts the noise or the velocity. Trained under the other flag a model unlearns for hours.
 *
 * At timestep 700 (signal 0.31, noise 0.95) the two targets are further apart than either is long
 * (at latents of deviation 1), and a trained model comes near its own: its error is a few tenths of
 * that target's mean square, and much smaller than the distance to the other target. A network that
 * was never trained has errors of 1 and more for both, so that nothing is said of it.
 * The idea of asking the network is A1111's (modules/sd_models_config.py).
 */
#include "base/log.h"
#include "train/device_numbers.h"
#include "train/run_alarms.h"

#include <math.h>
#include <stdlib.h>

enum { TIMESTEP = 700 };
static const double explained = 0.6; /* of a target's mean square: a smaller error is no accident */
static const double nearer = 0.4;    /* of the error to the other target */

typedef struct probe {
    double noise_square, velocity_square; /* sums over the elements */
    double noise_error, velocity_error;
    double latent_deviation; /* standard deviation of the latents: about 1 with SD's VAE */
} probe;

/* ---- the run of the networks --------------------------------------------------------------- */

static dr_status upload_all(dr_context *cx, const dr_tensor *t, float value)
{
    const int64_t n = dr_numel(t);
    float *values = dr_xcalloc((size_t)n, sizeof *values);
    for (int64_t i = 0; i < n; i++) {
        values[i] = value;
    }
    const dr_status st = dr_upload(cx, t, values);
    free(values);
    return st;
}

static void compare(const double *pred, const double *noise, const double *latents, int64_t n,
                    dr_mix_factors noisy, probe *out)
{
    double sum = 0.0;
    double square = 0.0;
    *out = (probe){0};
    for (int64_t i = 0; i < n; i++) {
        const double velocity = (double)noisy.a * noise[i] - (double)noisy.b * latents[i];
        out->noise_square += noise[i] * noise[i];
        out->velocity_square += velocity * velocity;
        out->noise_error += (pred[i] - noise[i]) * (pred[i] - noise[i]);
        out->velocity_error += (pred[i] - velocity) * (pred[i] - velocity);
        sum += latents[i];
        square += latents[i] * latents[i];
    }
    const double mean = sum / (double)n;
    out->latent_deviation = sqrt(square / (double)n - mean * mean);
}

static dr_status read_probe(const dr_run *r, const dr_leaf_input *in, const dr_leaf_output *out,
                            probe *p)
{
    const dr_tensor *const tensors[] = {&out->pred, &in->input_noise, &in->latents};
    const int64_t n = dr_numel(&in->latents);
    double *numbers = dr_xcalloc(3 * (size_t)n, sizeof *numbers);
    dr_status st = DR_OK;
    for (int i = 0; st == DR_OK && i < 3; i++) {
        st = dr_read_numbers(r->backend->device, tensors[i], numbers + i * n);
    }
    if (st == DR_OK) {
        compare(numbers, numbers + n, numbers + 2 * n, n,
                dr_schedule_noisy(&r->noise_schedule, TIMESTEP), p);
    }
    free(numbers);
    return st;
}

static dr_status run_networks(dr_run *r, dr_context *cx, const dr_leaf *leaf, dr_frame f,
                              const dr_leaf_text *text, const dr_leaf_host *host, probe *p)
{
    int64_t h, w;
    const dr_mix_factors noisy = dr_schedule_noisy(&r->noise_schedule, TIMESTEP);
    dr_leaf_output out;
    dr_latents_size(r->latents, leaf->samples[0].image, &h, &w);
    dr_leaf_input in =
        dr_leaf_input_new(cx, &r->net, f, (dr_leaf_shape){leaf->n, h, w, text->length});
    DR_TRY(dr_run_fill_leaf(r, cx, leaf, 1, leaf->n, text, &in, host));
    DR_TRY(upload_all(cx, &in.t, (float)TIMESTEP));
    DR_TRY(upload_all(cx, &in.signal, noisy.a));
    DR_TRY(upload_all(cx, &in.sigma, noisy.b));
    DR_TRY(dr_leaf_run(cx, &r->net, &in, &(dr_leaf_options){.forward_only = true}, f, &out));
    return read_probe(r, &in, &out, p);
}

static dr_status run_probe(dr_run *r, const dr_leaf *leaf, probe *p)
{
    dr_context cx = dr_network_context(&r->net, r->pool);
    dr_leaf_text text;
    const dr_leaf_host host = {
        .timesteps = dr_xcalloc(leaf->n, sizeof(int32_t)),
        .loss_weights = dr_xcalloc(leaf->n, sizeof(float)),
        .keys = dr_xcalloc(leaf->n, sizeof(char *)),
    };
    dr_frame f = dr_frame_begin(&cx);
    dr_status st = dr_run_leaf_text(r, leaf, 1, &text);
    if (st == DR_OK) {
        st = run_networks(r, &cx, leaf, f, &text, &host, p);
    }
    dr_frame_end(&cx, f);
    dr_leaf_text_free(&text);
    free(host.timesteps);
    free(host.loss_weights);
    free((void *)host.keys);
    return st;
}

/* ---- what it means ------------------------------------------------------------------------- */

static dr_status judge(const dr_run *r, const probe *p)
{
    const bool is_noise =
        p->noise_error < explained * p->noise_square && p->noise_error < nearer * p->velocity_error;
    const bool is_velocity = p->velocity_error < explained * p->velocity_square &&
                             p->velocity_error < nearer * p->noise_error;
    const bool wants_velocity = r->c->model.v_parameterization;
    dr_str text = {0};
    dr_info("base: at timestep %d the U-Net's error is %.3g of the noise, %.3g of the velocity: %s",
            TIMESTEP, p->noise_error / p->noise_square, p->velocity_error / p->velocity_square,
            is_noise      ? "it predicts the noise"
            : is_velocity ? "it predicts the velocity"
                          : "it predicts neither clearly (untrained?)");
    if ((is_noise || is_velocity) && (p->latent_deviation < 0.3 || p->latent_deviation > 3.0)) {
        dr_warn(
            "base: the latents have the standard deviation %.3g, with the VAE of SD it is about "
            "1: is the VAE that of another model?",
            p->latent_deviation);
    }
    if (!(is_noise && wants_velocity) && !(is_velocity && !wants_velocity)) {
        return DR_OK;
    }
    dr_str_printf(&text,
                  "the model predicts the %s, and this run would train it to predict the %s: %s "
                  "--v_parameterization",
                  is_noise ? "noise" : "velocity", is_noise ? "velocity" : "noise",
                  is_noise ? "leave out" : "add");
    dr_status st = DR_OK;
    if (r->c->base_check == DR_ALARM_STOP) {
        st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                          "%s. --base_check warn trains it all the same", dr_str_get(&text));
    } else {
        dr_warn("%s", dr_str_get(&text));
    }
    dr_str_free(&text);
    return st;
}

/* Rank 0, whose first batch is the first of the epoch. */
static dr_status check(dr_run *r)
{
    dr_epoch_plan plan;
    probe p = {0};
    DR_TRY(dr_run_plan_epoch(r, 1, &plan));
    dr_status st = run_probe(r, &plan.steps[0].leaves[0], &p);
    dr_epoch_plan_deinit(&plan);
    return st == DR_OK ? judge(r, &p) : st;
}

dr_status dr_run_check_base(dr_run *r)
{
    if (r->resuming || r->c->base_check == DR_ALARM_OFF) {
        return DR_OK;
    }
    return dr_dist_agree(r->dist, dr_dist_rank(r->dist) == 0 ? check(r) : DR_OK);
}
