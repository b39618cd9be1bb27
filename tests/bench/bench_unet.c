/*
 * bench_unet - seconds and memory of the U-Net's forward and backward on the cpu backend.
 *
 * usage: bench_unet [sd15|tiny [latent size [threads [repetitions]]]]      default: sd15 32 2 3
 *
 * Random weights, batch 1, 77 text tokens, squared error against noise. The first run, which
 * touches the memory for the first time, is reported on its own. Prints one JSON object; reports
 * only.
 */
#include "backend/cpu/backend_cpu.h"
#include "base/clock.h"
#include "models/unet/unet.h"
#include "ops/diffusion_ops.h"
#include "ops/pointwise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const dr_unet_config sd15 = {.in_channels = 4,
                                    .out_channels = 4,
                                    .n_levels = 4,
                                    .channels = {320, 640, 1280, 1280},
                                    .attention = {true, true, true, false},
                                    .heads = {8, 8, 8, 8},
                                    .depth = {1, 1, 1, 1},
                                    .layers_per_block = 2,
                                    .context_dim = 768,
                                    .norm_groups = 32,
                                    .norm_eps = 1e-5f};
/* The tiny network of spec/perf.md 2.5. */
static const dr_unet_config tiny = {.in_channels = 4,
                                    .out_channels = 4,
                                    .n_levels = 2,
                                    .channels = {32, 64},
                                    .attention = {false, true},
                                    .heads = {8, 8},
                                    .depth = {1, 1},
                                    .layers_per_block = 2,
                                    .context_dim = 32,
                                    .norm_groups = 32,
                                    .norm_eps = 1e-5f};

enum { TEXT_TOKENS = 77 };

typedef struct bench {
    dr_unet_config config;
    int64_t size;
    int threads, n_runs;
    dr_arena arena;
    dr_params params;
    dr_unet unet;
    dr_unet_run *run;
    void *values, *grads;
    size_t plan_bytes;
    double first_s, min_s;
} bench;

/* Numbers around 0 with the given spread; the cheapest generator that is not constant. */
static void fill(float *x, size_t n, float spread, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1u;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = spread * ((float)(state >> 8) * 0x1p-23f - 1.0f);
    }
}

static void fill_weights(bench *b)
{
    for (size_t i = 0; i < b->params.n; i++) {
        const dr_param *p = b->params.at[i];
        const float inputs = (float)(p->n / p->dim[0]);
        float *x = p->value.data;
        fill(x, (size_t)p->n, p->rank > 1 ? sqrtf(3.0f / inputs) : 0.1f, (uint32_t)i);
        const size_t len = strlen(p->name);
        const bool scale = p->rank == 1 && len > 7 && strcmp(p->name + len - 7, ".weight") == 0;
        for (int64_t j = 0; scale && j < p->n; j++) {
            x[j] += 1.0f;
        }
    }
}

static dr_tensor input(dr_context *cx, dr_frame f, int rank, const int64_t *dim, uint32_t seed)
{
    dr_tensor t = dr_new(cx, f, rank, dim);
    if (!cx->dry) {
        fill(t.data, (size_t)dr_numel(&t), 1.7f, seed);
    }
    return t;
}

static dr_status step(bench *b, dr_context *cx)
{
    const dr_frame f = dr_frame_begin(cx);
    const int64_t *image = DR_DIMS(1, b->size, b->size, 4);
    dr_tensor x = input(cx, f, 4, image, 1);
    dr_tensor noise = input(cx, f, 4, image, 2);
    dr_tensor context = input(cx, f, 3, DR_DIMS(1, TEXT_TOKENS, b->config.context_dim), 3);
    dr_tensor out = dr_new_like(cx, f, &x);
    dr_tensor dout = dr_new_like(cx, f, &x);
    dr_tensor t = dr_new(cx, f, 1, DR_DIMS(1));
    dr_tensor weight = dr_new_like(cx, f, &t);
    dr_tensor loss = dr_new_like(cx, f, &t);
    if (!cx->dry) {
        *(float *)t.data = 500.0f;
        *(float *)weight.data = 1.0f;
        DR_TRY(dr_params_begin_grads(&b->params, dr_backend_cpu.device));
    }
    DR_TRY(dr_unet_forward(cx, b->run, &x, &t, &context, &out));
    const dr_mse_args mse = {
        .pred = &out, .target = &noise, .weight = &weight, .loss = &loss, .dpred = &dout};
    DR_TRY(dr_mse(cx, &mse));
    DR_TRY(dr_unet_backward(cx, b->run, &dout, NULL, NULL));
    if (!cx->dry) {
        DR_TRY(dr_params_settle_grads(&b->params, dr_backend_cpu.device, 0, b->params.n_elems));
    }
    dr_frame_end(cx, f);
    return DR_OK;
}

static dr_status plan(bench *b)
{
    dr_context cx;
    dr_pool *pool = dr_pool_create_dry();
    dr_context_init(&cx, &dr_backend_cpu, pool, b->threads);
    const dr_status st = step(b, &cx);
    b->plan_bytes = dr_pool_peak_bytes(pool);
    dr_pool_destroy(pool);
    return st;
}

static dr_status measure(bench *b)
{
    dr_context cx;
    dr_pool *pool = NULL;
    DR_TRY(dr_pool_create(dr_backend_cpu.device, b->plan_bytes, &pool));
    dr_context_init(&cx, &dr_backend_cpu, pool, b->threads);
    dr_status st = DR_OK;
    b->min_s = INFINITY;
    for (int i = 0; st == DR_OK && i <= b->n_runs; i++) {
        const double start = dr_now_s();
        st = step(b, &cx);
        const double took = dr_now_s() - start;
        if (i == 0) {
            b->first_s = took;
        } else {
            b->min_s = took < b->min_s ? took : b->min_s;
        }
    }
    dr_pool_destroy(pool);
    return st;
}

/* VmHWM in GiB; 0 when the system does not tell. */
static double peak_memory_gib(void)
{
    char line[256];
    double kib = 0.0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = strtod(line + 6, NULL);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return kib / (1024.0 * 1024.0);
}

static dr_status run(bench *b)
{
    dr_arena_init(&b->arena);
    dr_params_init(&b->params, &b->arena);
    DR_TRY(dr_unet_config_check(&b->config));
    dr_unet_init(&b->unet, &b->config, &b->params);
    b->run = dr_unet_run_create(&b->unet, (dr_unet_options){.train = true});
    const size_t bytes = (size_t)b->params.n_elems * sizeof(float);
    dr_params_bind_dry(&b->params, DR_F32, true);
    DR_TRY(plan(b));
    DR_TRY(dr_backend_cpu.device->alloc(bytes, &b->values));
    DR_TRY(dr_backend_cpu.device->alloc(bytes, &b->grads));
    dr_params_bind(&b->params, DR_F32, b->values, b->grads);
    fill_weights(b);
    return measure(b);
}

static int number(int argc, char **argv, int i, int otherwise)
{
    const long n = argc > i ? strtol(argv[i], NULL, 10) : otherwise;
    if (n < 1 || n > 4096) {
        (void)fprintf(stderr, "bench_unet: argument %d is '%s', expected 1 to 4096\n", i, argv[i]);
        exit(64);
    }
    return (int)n;
}

int main(int argc, char **argv)
{
    const bool is_tiny = argc > 1 && strcmp(argv[1], "tiny") == 0;
    if (argc > 1 && !is_tiny && strcmp(argv[1], "sd15") != 0) {
        (void)fprintf(stderr, "bench_unet: found network '%s', expected sd15 or tiny\n", argv[1]);
        return 64;
    }
    bench b = {.config = is_tiny ? tiny : sd15,
               .size = number(argc, argv, 2, 32),
               .threads = number(argc, argv, 3, 2),
               .n_runs = number(argc, argv, 4, 3)};
    const int factor = 1 << (b.config.n_levels - 1);
    if (b.size % factor != 0) {
        (void)fprintf(stderr, "bench_unet: latent size %lld, expected a multiple of %d\n",
                      (long long)b.size, factor);
        return 64;
    }
    const dr_status st = run(&b);
    if (st != DR_OK) {
        (void)fprintf(stderr, "bench_unet: %s\n", dr_error_message());
    } else {
        (void)printf("{\"network\": \"%s\", \"latent\": %lld, \"threads\": %d, \"parameters\": "
                     "%lld, \"first_s\": %.5f, \"min_s\": %.5f, \"rss_gib\": %.3f, "
                     "\"plan_bytes\": %zu}\n",
                     is_tiny ? "tiny" : "sd15", (long long)b.size, b.threads,
                     (long long)dr_params_count(&b.params), b.first_s, b.min_s, peak_memory_gib(),
                     b.plan_bytes);
    }
    dr_unet_run_destroy(b.run);
    dr_backend_cpu.device->free(b.values);
    dr_backend_cpu.device->free(b.grads);
    dr_params_deinit(&b.params);
    dr_arena_deinit(&b.arena);
    return st == DR_OK ? 0 : 70;
}
