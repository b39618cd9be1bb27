/*
 * Sample pictures of a run: when they are due, all ranks draw their share of the prompts with the
 * weights that would be saved, and rank 0 writes them. Nothing here changes a number of the
 * training: the pool is empty between steps, and all noise has keys of its own.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/philox.h"
#include "image/png_write.h"
#include "train/run_internal.h"
#include "train/sample/sample_files.h"
#include "train/sample/sample_grid.h"
#include "train/sample/sample_prompts.h"
#include "train/sample/sampling.h"
#include "train/watchdog.h"
#include "train/watchdog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dr_run_samples {
    dr_sample_prompts prompts;
    dr_sample_request *requests; /* of all prompts */
    dr_sampling sampling;
    char *dir;      /* output_dir/sample */
    char since[16]; /* when the run began */
    size_t current; /* prompt in work */
};

/* ---- before the first step ----------------------------------------------------------------- */

static bool wanted(const dr_train_config *c)
{
    const dr_sample_plan *p = &c->samples;
    return p->prompts != NULL && (p->at_first || p->every_n_steps > 0 || p->every_n_epochs > 0);
}

static dr_status read_prompts(dr_run *r, dr_run_samples *s)
{
    const char *path = r->c->samples.prompts;
    dr_status st = DR_OK;
    if (dr_dist_rank(r->dist) == 0) {
        st = dr_sample_prompts_read(path, r->c->samples.sampler, &s->prompts);
        st = st != DR_OK ? dr_error_prefix(st, "--sample_prompts") : DR_OK;
    }
    DR_TRY(dr_dist_agree(r->dist, st));
    return dr_sample_prompts_share(r->dist, &s->prompts);
}

dr_status dr_run_open_samples(dr_run *r)
{
    dr_sample_when now;
    if (!wanted(r->c)) {
        return DR_OK;
    }
    dr_run_samples *s = r->samples = dr_xcalloc(1, sizeof *s);
    const dr_model_config *config = dr_model_file_config(r->file);
    DR_TRY(read_prompts(r, s));
    dr_sample_when_now(&now);
    memcpy(s->since, now.time, sizeof s->since);
    if (r->c->output_dir != NULL) { /* an estimate has none */
        s->dir = dr_path_join(r->c->output_dir, "sample");
    }
    s->requests = dr_xcalloc(s->prompts.n, sizeof *s->requests);
    for (size_t i = 0; i < s->prompts.n; i++) {
        s->requests[i].karras = r->c->samples.karras;
        dr_sample_prompts_request(&s->prompts, i, dr_sampling_multiple(config), &s->requests[i]);
    }
    const dr_sampling_options o = {.as_sd_scripts = true,
                                   .zero_terminal_snr = r->c->objective.zero_terminal_snr,
                                   .max_rows = DR_TOKEN_MAX_ROWS,
                                   .vae_in_pool = true};
    return dr_dist_agree(r->dist, dr_sampling_init(&s->sampling, &r->net, config, &o));
}

dr_status dr_run_plan_samples(dr_run *r, size_t *peak)
{
    dr_run_samples *s = r->samples;
    dr_status st = DR_OK;
    dr_log_same_on_all_ranks(true); /* a prompt that is too long */
    for (size_t i = 0; s != NULL && st == DR_OK && i < s->prompts.n; i++) {
        st = dr_sampling_plan(&s->sampling, &s->requests[i]);
        if (st != DR_OK) {
            st = dr_error_prefix(st, "--sample_prompts %s: prompt %zu", r->c->samples.prompts,
                                 i + 1);
        }
    }
    dr_log_same_on_all_ranks(false);
    if (st == DR_OK && s != NULL && s->sampling.work_bytes > *peak) {
        char step[24], pictures[24];
        dr_format_bytes(*peak, step);
        dr_format_bytes(s->sampling.work_bytes, pictures);
        dr_info("sample pictures need %s beside the weights, a step only %s", pictures, step);
        *peak = s->sampling.work_bytes;
    }
    return st;
}

void dr_run_close_samples(dr_run *r)
{
    dr_run_samples *s = r->samples;
    if (s != NULL) {
        dr_sampling_deinit(&s->sampling);
        dr_sample_prompts_free(&s->prompts);
        free(s->requests);
        free(s->dir);
        free(s);
    }
}

/* ---- drawing (each rank its share) --------------------------------------------------------- */

typedef struct share {   /* what this rank has drawn */
    unsigned char *done; /* of its prompts, in order: 1 drawn */
    size_t n;
    unsigned char *pixels; /* of those that are, one after the other */
    size_t bytes;
} share;

static size_t pixel_bytes(const dr_sample_request *q)
{
    return (size_t)(q->width * q->height * 3);
}

/* Prompts without a seed: another one each time, the same in a run that is done again. */
static uint64_t seed_of(const dr_run *r, size_t i)
{
    dr_philox stream;
    if (r->samples->prompts.at[i].seed >= 0) {
        return (uint64_t)r->samples->prompts.at[i].seed;
    }
    dr_philox_init(&stream, r->c->seed, DR_RANDOM_SAMPLE, (uint32_t)r->step, i + 1);
    return dr_philox_u32(&stream) & 0x7FFFFFFFU;
}

static void show_progress(void *user, int n_done, int n_calls)
{
    dr_run *r = user;
    char text[80];
    dr_watchdog_alive();
    if (dr_dist_rank(r->dist) > 0) {
        return;
    }
    (void)snprintf(text, sizeof text, "sample picture %zu/%zu: %d/%d", r->samples->current + 1,
                   r->samples->prompts.n, n_done, n_calls);
    dr_progress_note(&r->progress, text);
}

static dr_status draw(dr_run *r, const dr_sample_request *q, dr_image *out)
{
    dr_sampling *s = &r->samples->sampling;
    const dr_sampling_watch watch = {.progress = dr_dist_rank(r->dist) == 0 ? show_progress : NULL,
                                     .user = r};
    float *latent = NULL;
    DR_TRY(dr_try_calloc(dr_sampling_latent_elems(s, q), sizeof *latent, (void **)&latent));
    dr_sampling_noise(s, q, latent);
    dr_status st = dr_sampling_run(s, q, &watch, latent);
    if (st == DR_OK) {
        st = dr_sampling_decode(s, q, latent, out);
    }
    free(latent);
    return st;
}

/* What a picture may fail of without ending the run. */
static bool tolerable(dr_status st)
{
    return st == DR_NUMERIC || st == DR_NOMEM || st == DR_IO || st == DR_OUTPUT || st == DR_FORMAT;
}

static dr_status draw_one(dr_run *r, size_t i, share *mine)
{
    dr_image image = {0};
    dr_sample_request *q = &r->samples->requests[i];
    q->seed = seed_of(r, i);
    r->samples->current = i;
    dr_watchdog_alive();
    const dr_status st = draw(r, q, &image);
    const bool drawn = st == DR_OK;
    mine->done[mine->n++] = drawn ? 1 : 0;
    if (drawn) {
        mine->pixels = dr_xrealloc(mine->pixels, mine->bytes + pixel_bytes(q), 1);
        memcpy(mine->pixels + mine->bytes, image.pixels, pixel_bytes(q));
        mine->bytes += pixel_bytes(q);
    } else if (tolerable(st)) {
        dr_warn("step %lld: sample picture %zu is left out: %s", (long long)r->step, i,
                dr_error_message());
    }
    dr_image_free(&image);
    return drawn || tolerable(st) ? DR_OK : st;
}

/* A request to stop ends the drawing: the pictures that are left are not drawn. */
static dr_status draw_share(dr_run *r, share *mine)
{
    const size_t world = (size_t)dr_dist_world(r->dist);
    dr_run_samples *s = r->samples;
    if (s->sampling.pool == NULL) {
        DR_TRY(dr_sampling_open(&s->sampling, r->file, r->pool));
    }
    dr_status st = DR_OK;
    for (size_t i = (size_t)dr_dist_rank(r->dist); st == DR_OK && i < s->prompts.n; i += world) {
        if (dr_stop_signal() == 0) {
            st = draw_one(r, i, mine);
        }
    }
    return st;
}

/* ---- writing (rank 0) ---------------------------------------------------------------------- */

static void note_png(dr_run *r, size_t i, const char *path)
{
    char *data = NULL;
    size_t n = 0;
    char tag[32];
    if (r->log == NULL) {
        return;
    }
    if (dr_file_read(path, SIZE_MAX / 2, &data, &n) != DR_OK) {
        dr_error_clear();
        return;
    }
    const dr_sample_request *q = &r->samples->requests[i];
    (void)snprintf(tag, sizeof tag, "sample_%zu", i);
    dr_run_log_png(
        r->log, tag,
        &(dr_event_png){.data = data, .n = n, .width = (int)q->width, .height = (int)q->height});
    free(data);
}

static dr_status write_picture(dr_run *r, const dr_sample_when *when, size_t i,
                               unsigned char *pixels)
{
    dr_run_samples *s = r->samples;
    const dr_sample_request *q = &s->requests[i];
    const dr_image image = {
        .width = (int)q->width, .height = (int)q->height, .channels = 3, .pixels = pixels};
    dr_sample_request seeded = *q;
    dr_str name = {0};
    dr_str parameters = {0};
    seeded.seed = seed_of(r, i); /* another rank may have drawn it */
    dr_sample_name(r->c->save.name, when, i, s->prompts.at[i].seed, &name);
    dr_sample_parameters(&seeded, r->c->clip_skip, &parameters);
    char *path = dr_path_join(s->dir, dr_str_get(&name));
    const dr_png_text text = {"parameters", dr_str_get(&parameters)};
    const dr_status st = dr_png_write(path, &image, &text, 1);
    if (st == DR_OK) {
        note_png(r, i, path);
    }
    free(path);
    dr_str_free(&parameters);
    dr_str_free(&name);
    return st;
}

/* done: of all ranks, n_most each; pixels: of all ranks, begins[q]: where rank q's are. */
static dr_status write_pictures(dr_run *r, const dr_sample_when *when, const unsigned char *done,
                                size_t n_most, unsigned char *pixels, size_t *begins)
{
    const size_t world = (size_t)dr_dist_world(r->dist);
    dr_run_samples *s = r->samples;
    size_t n_written = 0;
    DR_TRY(dr_mkdirs(s->dir));
    for (size_t i = 0; i < s->prompts.n; i++) {
        const size_t rank = i % world;
        if (done[rank * n_most + i / world] == 1) {
            DR_TRY(write_picture(r, when, i, pixels + begins[rank]));
            begins[rank] += pixel_bytes(&s->requests[i]);
            n_written++;
        }
    }
    dr_run_log_flush(r->log);
    dr_info("%zu sample picture%s after step %lld in %s", n_written, n_written == 1 ? "" : "s",
            (long long)r->step, s->dir);
    return dr_sample_grid_write(&(dr_sample_grid){.dir = s->dir,
                                                  .output_name = r->c->save.name,
                                                  .since = r->resuming ? NULL : s->since,
                                                  .last = *when,
                                                  .n_prompts = s->prompts.n});
}

/* Collective. All shares to rank 0, and into files; no room costs the pictures. */
static dr_status collect(dr_run *r, const dr_sample_when *when, const share *mine)
{
    const size_t world = (size_t)dr_dist_world(r->dist);
    const dr_run_samples *s = r->samples;
    const size_t n_most = (s->prompts.n + world - 1) / world;
    unsigned char *done = dr_xcalloc(world, n_most);
    size_t *bytes = dr_xcalloc(world, sizeof *bytes);
    size_t *begins = dr_xcalloc(world, sizeof *begins);
    unsigned char *pixels = NULL;
    dr_status st = dr_dist_allgather(r->dist, mine->done, done, n_most);
    size_t total = 0;
    for (size_t i = 0; i < s->prompts.n; i++) {
        bytes[i % world] +=
            done[i % world * n_most + i / world] == 1 ? pixel_bytes(&s->requests[i]) : 0;
    }
    for (size_t q = 0; q < world; q++) {
        begins[q] = total;
        total += bytes[q];
    }
    const bool first = dr_dist_rank(r->dist) == 0;
    pixels = dr_xcalloc(first ? total + 1 : 1, 1);
    if (st == DR_OK) {
        st = dr_dist_gatherv(r->dist, mine->pixels, mine->bytes, pixels, bytes);
    }
    if (st == DR_OK && first) {
        st = write_pictures(r, when, done, n_most, pixels, begins);
        if (st != DR_OK && tolerable(st)) {
            dr_warn("step %lld: sample pictures are missing: %s; the run goes on",
                    (long long)r->step, dr_error_message());
            st = DR_OK;
        }
    }
    free(pixels);
    free(begins);
    free(bytes);
    free(done);
    return dr_dist_agree(r->dist, st);
}

/* ---- when (all ranks) ---------------------------------------------------------------------- */

static bool is_due(const dr_run *r, dr_sample_when *when)
{
    const dr_sample_plan *p = &r->c->samples;
    const bool ends_epoch = r->step % r->steps_per_epoch == 0 || r->step == r->n_steps;
    *when = (dr_sample_when){.at_epoch = r->step == 0 || p->every_n_epochs > 0};
    if (r->samples == NULL || r->stop_signal != 0) {
        return false;
    }
    if (r->step == 0) {
        return p->at_first;
    }
    when->number = when->at_epoch ? dr_run_epoch(r) : r->step;
    return p->every_n_epochs > 0 ? ends_epoch && when->number % p->every_n_epochs == 0
                                 : p->every_n_steps > 0 && r->step % p->every_n_steps == 0;
}

static dr_status draw_and_write(dr_run *r, const dr_sample_when *when)
{
    share mine = {0};
    mine.done = dr_xcalloc(r->samples->prompts.n + 1, 1);
    dr_status st = dr_dist_agree(r->dist, dr_run_show_weights(r, true));
    if (st == DR_OK) {
        st = draw_share(r, &mine);
        const dr_status back = dr_run_show_weights(r, false);
        st = dr_dist_agree(r->dist, st != DR_OK ? st : back);
    }
    if (st == DR_OK) {
        st = collect(r, when, &mine);
    }
    free(mine.done);
    free(mine.pixels);
    return st;
}

dr_status dr_run_sample_due(dr_run *r)
{
    dr_sample_when when;
    const double began_s = dr_now_s();
    if (!is_due(r, &when)) {
        return DR_OK;
    }
    dr_watchdog_does(DR_DOES_SAMPLE);
    dr_sample_when_now(&when);
    if (r->step == 0) {
        dr_run_log_at(r->log, 0, 1);
    }
    dr_progress_end(&r->progress);
    dr_info("drawing %zu sample picture%s after step %lld", r->samples->prompts.n,
            r->samples->prompts.n == 1 ? "" : "s", (long long)r->step);
    const dr_status st = draw_and_write(r, &when);
    dr_progress_pause(&r->progress, dr_now_s() - began_s);
    return st;
}
