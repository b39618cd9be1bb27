/*
 * bench_ops - GFLOP/s of the cpu backend on the shapes of the SD 1.5 U-Net.
 *
 * usage: bench_ops [latent size, 32 (256 px) when absent] [filter: part of a row's name]
 *
 * A row is one layer: forward, gradient of the input, gradient of the weights; minimum of at least
 * three runs and 0.3 s, with one thread and with two. Reports only: nothing passes or fails.
 */
#include "backend/cpu/backend_cpu.h"
#include "base/clock.h"
#include "ops/attention.h"
#include "ops/conv2d.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/optimizer_ops.h"
#include "ops/pointwise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    dr_context cx[2]; /* one thread, two threads */
    dr_pool *pool;
    const char *filter;
} bench;

/* One op with its arguments, as a closure without allocation. */
typedef dr_status (*bench_fn)(dr_context *cx, const void *args);

static double min_seconds(dr_context *cx, bench_fn fn, const void *args)
{
    double best = INFINITY;
    const double start = dr_now_s();
    for (int i = 0; i < 3 || dr_now_s() - start < 0.3; i++) {
        const double t = dr_now_s();
        if (fn(cx, args) != DR_OK) {
            (void)fprintf(stderr, "bench_ops: %s\n", dr_error_message());
            return INFINITY;
        }
        const double took = dr_now_s() - t;
        best = took < best ? took : best;
    }
    return best;
}

/* amount: GFLOP or GB of one call. */
static void report(bench *b, const char *name, const char *what, const char *unit, double amount,
                   bench_fn fn, const void *args)
{
    const double one = min_seconds(&b->cx[0], fn, args);
    const double two = min_seconds(&b->cx[1], fn, args);
    (void)printf("%-30s %-8s %9.3f ms %7.1f %s | %9.3f ms %7.1f %s  x%.2f\n", name, what, one * 1e3,
                 amount / one, unit, two * 1e3, amount / two, unit, one / two);
    (void)fflush(stdout);
}

static bool wanted(const bench *b, const char *name)
{
    return b->filter == NULL || strstr(name, b->filter) != NULL;
}

/* A tensor of small numbers in the frame. */
static dr_tensor filled(bench *b, dr_frame f, int rank, const int64_t *dim)
{
    const dr_tensor t = dr_new(&b->cx[0], f, rank, dim);
    float *x = t.data;
    const int64_t n = dr_numel(&t);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(i * 2654435761 % 1000) * 1e-3f - 0.5f;
    }
    return t;
}

#define BENCH_FN(op)                                                                               \
    static dr_status run_##op(dr_context *cx, const void *args)                                    \
    {                                                                                              \
        return dr_##op(cx, args);                                                                  \
    }
BENCH_FN(linear)
BENCH_FN(linear_dx)
BENCH_FN(linear_dw)
BENCH_FN(conv2d)
BENCH_FN(conv2d_dx)
BENCH_FN(conv2d_dw)
BENCH_FN(attention)
BENCH_FN(attention_backward)
BENCH_FN(groupnorm)
BENCH_FN(groupnorm_backward)
BENCH_FN(layernorm)
BENCH_FN(layernorm_backward)
BENCH_FN(geglu)
BENCH_FN(geglu_backward)
BENCH_FN(add)
BENCH_FN(sumsq)
BENCH_FN(adamw)

static void bench_linear(bench *b, int64_t rows, int64_t in, int64_t out)
{
    char name[64];
    (void)snprintf(name, sizeof name, "linear %lldx%lld>%lld", (long long)rows, (long long)in,
                   (long long)out);
    if (!wanted(b, name)) {
        return;
    }
    const dr_frame f = dr_frame_begin(&b->cx[0]);
    dr_tensor x = filled(b, f, 2, DR_DIMS(rows, in));
    dr_tensor w = filled(b, f, 2, DR_DIMS(out, in));
    dr_tensor bias = filled(b, f, 1, DR_DIMS(out));
    dr_tensor y = filled(b, f, 2, DR_DIMS(rows, out));
    const double gflop = 2e-9 * (double)rows * (double)in * (double)out;
    report(b, name, "forward", "GF/s", gflop, run_linear,
           &(dr_linear_args){.x = &x, .w = &w, .b = &bias, .y = &y});
    report(b, name, "dx", "GF/s", gflop, run_linear_dx,
           &(dr_linear_dx_args){.dy = &y, .w = &w, .dx = &x});
    report(b, name, "dw", "GF/s", gflop, run_linear_dw,
           &(dr_linear_dw_args){.dy = &y, .x = &x, .dw = &w, .db = &bias});
    dr_frame_end(&b->cx[0], f);
}

static void bench_conv(bench *b, int64_t size, int64_t in, int64_t out, int kernel, int stride)
{
    char name[64];
    (void)snprintf(name, sizeof name, "conv%d/%d %lld>%lld @%lld", kernel, stride, (long long)in,
                   (long long)out, (long long)size);
    if (!wanted(b, name)) {
        return;
    }
    const int pad = kernel / 2;
    const dr_conv2d_geom g = {kernel, kernel, stride, pad, pad, pad, pad};
    const int64_t to = dr_conv2d_out(size, kernel, stride, pad, pad);
    const dr_frame f = dr_frame_begin(&b->cx[0]);
    dr_tensor x = filled(b, f, 4, DR_DIMS(1, size, size, in));
    dr_tensor w = filled(b, f, 4, DR_DIMS(out, kernel, kernel, in));
    dr_tensor bias = filled(b, f, 1, DR_DIMS(out));
    dr_tensor y = filled(b, f, 4, DR_DIMS(1, to, to, out));
    const double gflop = 2e-9 * (double)(to * to) * (double)in * (double)out * kernel * kernel;
    report(b, name, "forward", "GF/s", gflop, run_conv2d,
           &(dr_conv2d_args){.geom = g, .x = &x, .w = &w, .b = &bias, .y = &y});
    report(b, name, "dx", "GF/s", gflop, run_conv2d_dx,
           &(dr_conv2d_dx_args){.geom = g, .dy = &y, .w = &w, .dx = &x});
    report(b, name, "dw", "GF/s", gflop, run_conv2d_dw,
           &(dr_conv2d_dw_args){.geom = g, .dy = &y, .x = &x, .dw = &w, .db = &bias});
    dr_frame_end(&b->cx[0], f);
}

static void bench_attention(bench *b, int heads, int64_t queries, int64_t keys, int64_t dim)
{
    char name[64];
    (void)snprintf(name, sizeof name, "attention %d heads %lldx%lldx%lld", heads,
                   (long long)queries, (long long)keys, (long long)dim);
    if (!wanted(b, name)) {
        return;
    }
    const int64_t c = heads * dim;
    const dr_frame f = dr_frame_begin(&b->cx[0]);
    dr_tensor q = filled(b, f, 3, DR_DIMS(1, queries, c));
    dr_tensor k = filled(b, f, 3, DR_DIMS(1, keys, c));
    dr_tensor v = filled(b, f, 3, DR_DIMS(1, keys, c));
    dr_tensor o = filled(b, f, 3, DR_DIMS(1, queries, c));
    dr_tensor dq = filled(b, f, 3, DR_DIMS(1, queries, c));
    dr_tensor dk = filled(b, f, 3, DR_DIMS(1, keys, c));
    dr_tensor dv = filled(b, f, 3, DR_DIMS(1, keys, c));
    dr_tensor lse = filled(b, f, 3, DR_DIMS(1, heads, queries));
    const double product = 2e-9 * (double)queries * (double)keys * (double)c;
    report(b, name, "forward", "GF/s", 2 * product, run_attention,
           &(dr_attention_args){.heads = heads, .q = &q, .k = &k, .v = &v, .o = &o, .lse = &lse});
    report(b, name, "backward", "GF/s", 5 * product, run_attention_backward,
           &(dr_attention_backward_args){.heads = heads,
                                         .dout = &o,
                                         .q = &q,
                                         .k = &k,
                                         .v = &v,
                                         .o = &o,
                                         .lse = &lse,
                                         .dq = &dq,
                                         .dk = &dk,
                                         .dv = &dv});
    dr_frame_end(&b->cx[0], f);
}

static void bench_norms(bench *b, int64_t size, int64_t c)
{
    char name[64];
    (void)snprintf(name, sizeof name, "norm %lld @%lld", (long long)c, (long long)size);
    if (!wanted(b, name)) {
        return;
    }
    const dr_frame f = dr_frame_begin(&b->cx[0]);
    dr_tensor x = filled(b, f, 3, DR_DIMS(1, size * size, c));
    dr_tensor y = filled(b, f, 3, DR_DIMS(1, size * size, c));
    dr_tensor dx = filled(b, f, 3, DR_DIMS(1, size * size, c));
    dr_tensor gamma = filled(b, f, 1, DR_DIMS(c));
    dr_tensor beta = filled(b, f, 1, DR_DIMS(c));
    dr_tensor group = filled(b, f, 3, DR_DIMS(1, 32, 2));
    dr_tensor rows = filled(b, f, 2, DR_DIMS(size * size, 2));
    const double gb = 4e-9 * (double)(size * size * c);
    report(b, name, "group", "GB/s", 3 * gb, run_groupnorm,
           &(dr_groupnorm_args){.groups = 32,
                                .eps = 1e-5f,
                                .silu = true,
                                .x = &x,
                                .gamma = &gamma,
                                .beta = &beta,
                                .y = &y,
                                .stats = &group});
    report(b, name, "group bw", "GB/s", 5 * gb, run_groupnorm_backward,
           &(dr_groupnorm_backward_args){.groups = 32,
                                         .silu = true,
                                         .dy = &y,
                                         .x = &x,
                                         .gamma = &gamma,
                                         .beta = &beta,
                                         .stats = &group,
                                         .dx = &dx,
                                         .dgamma = &gamma,
                                         .dbeta = &beta});
    report(b, name, "layer", "GB/s", 2 * gb, run_layernorm,
           &(dr_layernorm_args){
               .eps = 1e-5f, .x = &x, .gamma = &gamma, .beta = &beta, .y = &y, .stats = &rows});
    report(b, name, "layer bw", "GB/s", 3 * gb, run_layernorm_backward,
           &(dr_layernorm_backward_args){.dy = &y,
                                         .x = &x,
                                         .gamma = &gamma,
                                         .stats = &rows,
                                         .dx = &dx,
                                         .dgamma = &gamma,
                                         .dbeta = &beta});
    dr_frame_end(&b->cx[0], f);
}

static void bench_pointwise(bench *b, int64_t size, int64_t c)
{
    char name[64];
    (void)snprintf(name, sizeof name, "pointwise %lld @%lld", (long long)c, (long long)size);
    if (!wanted(b, name)) {
        return;
    }
    const dr_frame f = dr_frame_begin(&b->cx[0]);
    dr_tensor x = filled(b, f, 2, DR_DIMS(size * size, 8 * c));
    dr_tensor dx = filled(b, f, 2, DR_DIMS(size * size, 8 * c));
    dr_tensor y = filled(b, f, 2, DR_DIMS(size * size, 4 * c));
    const double gb = 4e-9 * (double)(size * size * 4 * c);
    report(b, name, "geglu", "GB/s", 3 * gb, run_geglu, &(dr_geglu_args){.x = &x, .y = &y});
    report(b, name, "geglu bw", "GB/s", 5 * gb, run_geglu_backward,
           &(dr_geglu_backward_args){.dy = &y, .x = &x, .dx = &dx});
    report(b, name, "add", "GB/s", 6 * gb, run_add,
           &(dr_add_args){.alpha = 1.0f, .beta = 1.0f, .x = &x, .z = &dx, .y = &dx});
    dr_frame_end(&b->cx[0], f);
}

static void bench_optimizer(bench *b, int64_t n)
{
    if (!wanted(b, "optimizer")) {
        return;
    }
    const dr_frame f = dr_frame_begin(&b->cx[0]);
    dr_tensor p = filled(b, f, 1, &n);
    dr_tensor g = filled(b, f, 1, &n);
    dr_tensor m = filled(b, f, 1, &n);
    dr_tensor v = filled(b, f, 1, &n);
    dr_tensor sum = dr_new_typed(&b->cx[0], f, DR_F64, 1, DR_DIMS(1));
    memset(v.data, 0, dr_nbytes(&v));
    report(b, "optimizer", "adamw", "GB/s", 28e-9 * (double)n, run_adamw,
           &(dr_adamw_args){.lr = 1e-6f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .weight_decay = 0.01f,
                            .grad_scale = 1.0f,
                            .step = 1,
                            .p = &p,
                            .m = &m,
                            .v = &v,
                            .g = &g});
    report(b, "optimizer", "sumsq", "GB/s", 4e-9 * (double)n, run_sumsq,
           &(dr_sumsq_args){.x = &g, .out = &sum});
    dr_frame_end(&b->cx[0], f);
}

static void bench_level(bench *b, int64_t size, int64_t c, int64_t wider)
{
    bench_conv(b, size, c, c, 3, 1);
    bench_conv(b, size, c + wider, c, 3, 1);
    bench_linear(b, size * size, c, c);
    bench_linear(b, size * size, c, 8 * c);
    bench_linear(b, size * size, 4 * c, c);
    bench_attention(b, 8, size * size, size * size, c / 8);
    bench_attention(b, 8, size * size, 77, c / 8);
    bench_norms(b, size, c);
    bench_pointwise(b, size, c);
}

int main(int argc, char **argv)
{
    const int64_t size = argc > 1 ? strtol(argv[1], NULL, 10) : 32;
    if (size < 8 || size % 8 != 0) {
        (void)fprintf(stderr, "bench_ops: latent size '%s': expected a multiple of 8\n", argv[1]);
        return 64;
    }
    bench b = {.filter = argc > 2 ? argv[2] : NULL};
    if (dr_pool_create(dr_backend_cpu.device, (size_t)3 << 30, &b.pool) != DR_OK) {
        (void)fprintf(stderr, "bench_ops: %s\n", dr_error_message());
        return 69;
    }
    for (int t = 0; t < 2; t++) {
        dr_context_init(&b.cx[t], &dr_backend_cpu, b.pool, t + 1);
    }
    (void)printf("%-30s %-8s one thread%15s | two threads\n", "", "", "");
    bench_conv(&b, size, 4, 320, 3, 1);
    bench_conv(&b, size, 320, 4, 3, 1);
    bench_level(&b, size, 320, 320);
    bench_conv(&b, size, 320, 320, 3, 2);
    bench_level(&b, size / 2, 640, 640);
    bench_level(&b, size / 4, 1280, 1280);
    bench_conv(&b, size / 4, 1280, 1280, 3, 2);
    bench_conv(&b, size / 8, 1280, 1280, 3, 1);
    bench_conv(&b, size / 8, 2560, 1280, 3, 1);
    bench_linear(&b, 77, 768, 1280);
    bench_linear(&b, 1, 1280, 1280);
    bench_optimizer(&b, (int64_t)100 << 20);
    dr_pool_destroy(b.pool);
    return 0;
}
