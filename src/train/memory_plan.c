/*
 * The dry plan: every leaf shape of the dataset walked with shapes only.
 */
#include "base/file.h"
#include "base/log.h"
#include "train/lora/lora_norms.h"
#include "train/run_alarms.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Peak of one leaf. */
static dr_status peak_of_shape(dr_run *r, dr_leaf_shape shape, bool text, size_t *peak)
{
    dr_context cx;
    dr_pool *dry = dr_pool_create_dry();
    cx = dr_network_context(&r->net, dry);
    dr_frame f = dr_frame_begin(&cx);
    dr_leaf_input in = dr_leaf_input_new(&cx, &r->net, f, shape);
    dr_leaf_output out;
    dr_status st =
        dr_leaf_run(&cx, &r->net, &in, &(dr_leaf_options){.train_text_encoder = text}, f, &out);
    size_t bytes = dr_pool_peak_bytes(dry);
    *peak = bytes > *peak ? bytes : *peak;
    dr_pool_destroy(dry);
    return st;
}

/* The same over all lengths that captions without padding may have. */
static dr_status leaf_peak(dr_run *r, const dr_bucket *b, uint32_t n, bool text, size_t *peak)
{
    dr_leaf_shape shape = {n, b->size.h / 8, b->size.w / 8, DR_TOKEN_ROW};
    DR_TRY(peak_of_shape(r, shape, text, peak));
    for (shape.length = 2; r->c->no_token_padding && shape.length < DR_TOKEN_ROW; shape.length++) {
        DR_TRY(peak_of_shape(r, shape, text, peak));
    }
    return DR_OK;
}

static dr_status activation_peak(dr_run *r, size_t *peak)
{
    *peak = 0;
    for (size_t i = 0; i < r->dataset.n_buckets; i++) {
        const dr_bucket *b = &r->dataset.buckets[i];
        uint32_t batch = dr_bucket_batch(b, r->c->batch_size);
        uint32_t full = b->n_samples < batch ? b->n_samples : batch;
        uint32_t rest = b->n_samples % batch;
        for (int text = 0; text <= (r->trains_text_encoder ? 1 : 0); text++) {
            DR_TRY(leaf_peak(r, b, full, text == 1, peak));
            if (rest > 0 && rest != full) {
                DR_TRY(leaf_peak(r, b, rest, text == 1, peak));
            }
        }
    }
    return DR_OK;
}

/* Scratch memory of an update. */
static dr_status update_peak(dr_run *r, size_t *peak)
{
    dr_context cx;
    dr_pool *dry = dr_pool_create_dry();
    dr_context_init(&cx, r->backend, dry, r->c->threads);
    dr_status st = dr_optimizer_step(r->optimizer, &cx, &(dr_optim_step){.lr_factor = 1.0});
    if (st == DR_OK) {
        st = dr_optimizer_eval(r->optimizer, &cx);
    }
    if (st == DR_OK) {
        st = dr_optimizer_train(r->optimizer, &cx);
    }
    if (st == DR_OK && r->c->lora != NULL && r->c->lora->norm_limit > 0.0) {
        dr_lora_norms norms;
        st = dr_lora_limit_norms(&r->net, &cx, r->c->lora->norm_limit, &norms);
    }
    if (st == DR_OK) {
        st = dr_run_plan_rank_check(r, &cx);
    }
    size_t bytes = dr_pool_peak_bytes(dry);
    bytes += r->c->fused_backward ? *peak : 0; /* inside backward */
    *peak = bytes > *peak ? bytes : *peak;
    dr_pool_destroy(dry);
    return st;
}

/* MemAvailable of /proc/meminfo in bytes; 0 when it cannot be read. */
static uint64_t host_memory_available(void)
{
    char *text = NULL;
    size_t n = 0;
    uint64_t kib = 0;
    if (dr_file_read("/proc/meminfo", 1 << 20, &text, &n) != DR_OK) {
        dr_error_clear();
        return 0;
    }
    const char *line = strstr(text, "MemAvailable:");
    if (line != NULL && sscanf(line, "MemAvailable: %" SCNu64, &kib) != 1) {
        kib = 0;
    }
    free(text);
    return kib * 1024;
}

typedef struct memory_plan {
    uint64_t weights, gradients, optimizer, activations, exchange, latents;
} memory_plan;

static uint64_t plan_total(const memory_plan *p)
{
    return p->weights + p->gradients + p->optimizer + p->activations + p->exchange + p->latents;
}

static void describe(const memory_plan *p, dr_str *out)
{
    char text[24];
    const struct {
        const char *what;
        uint64_t bytes;
    } rows[] = {{"weights", p->weights},        {"gradients", p->gradients},
                {"optimizer", p->optimizer},    {"activations", p->activations},
                {"gradient sums", p->exchange}, {"latents and VAE", p->latents}};
    dr_format_bytes(plan_total(p), text);
    dr_str_printf(out, "needs %s per rank:", text);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dr_format_bytes(rows[i].bytes, text);
        dr_str_printf(out, "%s %s %s", i > 0 ? "," : "", rows[i].what, text);
    }
}

/* What of the plan is not allocated yet must fit into what the host has left for its ranks. */
static dr_status check_fits(const dr_run *r, const memory_plan *p, const char *text)
{
    uint64_t local = (uint64_t)dr_dist_local_world(r->dist);
    uint64_t available = host_memory_available();
    uint64_t missing = (plan_total(p) - p->latents) * local;
    /* a device of its own says so itself, when the pool is made */
    if (!r->backend->device->host_visible || available == 0 || missing <= available) {
        return DR_OK;
    }
    char have[24];
    dr_format_bytes(available, have);
    DR_FAIL(DR_NOMEM,
            "%s; this host has %s left for its %d rank%s. To need less: %s%s%s%s%s"
            "a smaller --train_batch_size or --resolution, fewer ranks",
            text, have, (int)local, local > 1 ? "s" : "",
            r->c->checkpointing ? "" : "--gradient_checkpointing, ",
            r->c->precision.kind == DR_PRECISION_F32 ? "--mixed_precision bf16, " : "",
            r->trains_text_encoder ? "--stop_text_encoder_training=-1, " : "",
            r->c->cache_latents ? "" : "--cache_latents, ",
            r->c->accumulation > 1 ? "--gradient_accumulation_steps 1, " : "");
}

/* All ranks of this host beside what it has, and what a state takes on disk. */
static void say_estimate(const dr_run *r, const memory_plan *p)
{
    char all[24];
    char have[24];
    char state[24];
    const int local = dr_dist_local_world(r->dist);
    dr_format_bytes(plan_total(p) * (uint64_t)local, all);
    dr_format_bytes(host_memory_available(), have);
    dr_format_bytes((uint64_t)r->net.n_trained * sizeof(float) +
                        dr_optimizer_all_state_bytes(r->optimizer),
                    state);
    dr_info("estimate: %d rank%s of this host: %s; it has %s free%s", local, local > 1 ? "s" : "",
            all, have, r->backend->device->host_visible ? "" : " (the plan is the device's)");
    dr_info("estimate: a training state (--save_state): %s on disk", state);
}

dr_status dr_run_plan_memory(dr_run *r)
{
    size_t peak = 0;
    dr_network_bind_dry(&r->net);
    DR_TRY(activation_peak(r, &peak));
    DR_TRY(dr_run_validation_peak(r, &peak));
    DR_TRY(update_peak(r, &peak));
    DR_TRY(dr_run_plan_samples(r, &peak));
    const memory_plan p = {
        .weights = dr_network_weight_bytes(&r->net),
        .gradients = dr_network_grad_bytes(&r->net),
        .optimizer = dr_optimizer_state_bytes(r->optimizer),
        .activations = peak,
        .exchange =
            dr_reducer_plan_bytes(r->dist, &(dr_reducer_config){.n_leaves = (int64_t)r->n_leaves,
                                                                .n_elems = r->net.n_trained,
                                                                .plane = r->c->plane}),
        .latents = dr_latents_bytes(r->latents),
    };
    dr_str text = {0};
    describe(&p, &text);
    dr_info("memory: %s", dr_str_get(&text));
    if (r->c->estimate) {
        say_estimate(r, &p);
        dr_str_free(&text);
        return DR_OK;
    }
    dr_status st = check_fits(r, &p, dr_str_get(&text));
    dr_str_free(&text);
    DR_TRY(st);
    return dr_pool_create(r->backend->device, peak, &r->pool);
}
