#include "unet_case.h"

#include "dr_test.h"
#include "golden_input.h"
#include "ops/diffusion_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static dr_unet_config base_config(const int64_t channels[4], int64_t context)
{
    dr_unet_config c = {.in_channels = 4,
                        .out_channels = 4,
                        .n_levels = 4,
                        .layers_per_block = 2,
                        .context_dim = context,
                        .norm_groups = 32,
                        .norm_eps = 1e-5f};
    for (int i = 0; i < 4; i++) {
        c.channels[i] = channels[i];
        c.attention[i] = i < 3;
        c.depth[i] = 1;
    }
    return c;
}

dr_unet_config dr_unet_case_sd1(const int64_t channels[4], int64_t context, int heads)
{
    dr_unet_config c = base_config(channels, context);
    for (int i = 0; i < 4; i++) {
        c.heads[i] = heads;
    }
    return c;
}

dr_unet_config dr_unet_case_sd2(const int64_t channels[4], int64_t context, const int heads[4])
{
    dr_unet_config c = base_config(channels, context);
    memcpy(c.heads, heads, 4 * sizeof *heads);
    c.linear_projection = true;
    return c;
}

static void fill_parameters(dr_unet_case *u)
{
    for (size_t i = 0; i < u->params.n; i++) {
        dr_param *p = u->params.at[i];
        double *v = dr_xcalloc((size_t)p->n, sizeof *v);
        dr_golden_param(p->name, p->rank, p->dim, v);
        dr_param_from_file_order(p, v, DR_F64, p->value.data, p->value.dtype);
        free(v);
    }
}

static void build(dr_unet_case *u, const dr_unet_case_config *c)
{
    *u = (dr_unet_case){.c = *c};
    dr_arena_init(&u->arena);
    dr_params_init(&u->params, &u->arena);
    assert_ok(dr_unet_config_check(&c->unet));
    dr_unet_init(&u->unet, &c->unet, &u->params);
    u->run = dr_unet_run_create(&u->unet, (dr_unet_options){.train = !c->forward_only,
                                                            .checkpointing = c->checkpointing,
                                                            .context = true});
}

void dr_unet_case_create(dr_unet_case *u, const dr_unet_case_config *c)
{
    build(u, c);
    size_t bytes = (size_t)u->params.n_elems * dr_dtype_size(c->backend->compute);
    assert_ok(c->backend->device->alloc(bytes, &u->values));
    if (!c->forward_only) {
        assert_ok(c->backend->device->alloc(bytes, &u->grads));
    }
    dr_params_bind(&u->params, c->backend->compute, u->values, u->grads);
    fill_parameters(u);
    u->out = dr_xcalloc((size_t)(c->batch * 4 * c->height * c->width), sizeof *u->out);
}

void dr_unet_case_destroy(dr_unet_case *u)
{
    dr_unet_run_destroy(u->run);
    u->c.backend->device->free(u->values);
    u->c.backend->device->free(u->grads);
    free(u->out);
    dr_params_deinit(&u->params);
    dr_arena_deinit(&u->arena);
}

/* A golden image given as (N,C,H,W) into t (N,H,W,C). */
static void put_image(dr_context *cx, const char *key, const dr_tensor *t)
{
    if (cx->dry) {
        return;
    }
    const int64_t *d = t->dim;
    size_t n = (size_t)dr_numel(t);
    double *nchw = dr_xcalloc(n, sizeof *nchw);
    double *nhwc = dr_xcalloc(n, sizeof *nhwc);
    dr_golden_fill(key, n, DR_GOLDEN_UNIT, nchw);
    for (int64_t i = 0; i < (int64_t)n; i++) {
        int64_t ch = i % d[3];
        int64_t pixel = i / d[3] % (d[1] * d[2]);
        int64_t sample = i / dr_cols(t) / (d[1] * d[2]);
        nhwc[i] = nchw[(sample * d[3] + ch) * d[1] * d[2] + pixel];
    }
    dr_convert(t->data, t->dtype, nhwc, DR_F64, n);
    free(nchw);
    free(nhwc);
}

static void take_image(dr_context *cx, const dr_tensor *t, double *nchw)
{
    if (cx->dry) {
        return;
    }
    const int64_t *d = t->dim;
    size_t n = (size_t)dr_numel(t);
    double *nhwc = dr_xcalloc(n, sizeof *nhwc);
    dr_convert(nhwc, DR_F64, t->data, t->dtype, n);
    for (int64_t i = 0; i < (int64_t)n; i++) {
        int64_t ch = i % d[3];
        int64_t pixel = i / d[3] % (d[1] * d[2]);
        int64_t sample = i / d[3] / (d[1] * d[2]);
        nchw[(sample * d[3] + ch) * d[1] * d[2] + pixel] = nhwc[i];
    }
    free(nhwc);
}

static void note_ready(void *user, int64_t begin, int64_t end)
{
    dr_unet_case *u = user;
    u->ready_in_order = u->ready_in_order && end == u->last_begin && begin < end;
    u->last_begin = begin;
    u->n_ready++;
}

static void walk(dr_unet_case *u, dr_context *cx)
{
    const dr_unet_case_config *c = &u->c;
    dr_frame f = dr_frame_begin(cx);
    dr_tensor x = dr_new(cx, f, 4, DR_DIMS(c->batch, c->height, c->width, 4));
    dr_tensor noise = dr_new_like(cx, f, &x);
    dr_tensor out = dr_new_like(cx, f, &x);
    dr_tensor t = dr_new_typed(cx, f, DR_F32, 1, DR_DIMS(c->batch));
    dr_tensor context = dr_new(cx, f, 3, DR_DIMS(c->batch, c->context_length, c->unet.context_dim));
    put_image(cx, "input.sample", &x);
    put_image(cx, "input.noise", &noise);
    if (!cx->dry) {
        size_t n = (size_t)dr_numel(&context);
        double *v = dr_xcalloc(n, sizeof *v);
        dr_golden_fill("input.context", n, DR_GOLDEN_UNIT, v);
        dr_convert(context.data, context.dtype, v, DR_F64, n);
        free(v);
        for (int64_t i = 0; i < c->batch; i++) {
            ((float *)t.data)[i] = i % 2 == 0 ? 1.0f : 981.0f;
        }
    }
    assert_ok(dr_unet_forward(cx, u->run, &x, &t, &context, &out));
    take_image(cx, &out, u->out);
    if (!c->forward_only) {
        dr_tensor loss = dr_new_typed(cx, f, cx->backend->compute, 1, DR_DIMS(c->batch));
        dr_tensor weight = dr_new_like(cx, f, &loss);
        dr_tensor dout = dr_new_like(cx, f, &out);
        dr_tensor dcontext = dr_new_like(cx, f, &context);
        for (int64_t i = 0; !cx->dry && i < c->batch; i++) {
            double w = 1.0 / (double)c->batch;
            dr_convert((char *)weight.data + (size_t)i * dr_dtype_size(weight.dtype), weight.dtype,
                       &w, DR_F64, 1);
        }
        assert_ok(dr_zero(cx, &dcontext));
        assert_ok(dr_mse(
            cx,
            &(dr_mse_args){
                .pred = &out, .target = &noise, .weight = &weight, .loss = &loss, .dpred = &dout}));
        u->loss = 0.0;
        for (int64_t i = 0; !cx->dry && i < c->batch; i++) {
            double l;
            dr_convert(&l, DR_F64, (char *)loss.data + (size_t)i * dr_dtype_size(loss.dtype),
                       loss.dtype, 1);
            u->loss += l / (double)c->batch;
        }
        const dr_grad_sink sink = {.ready = note_ready, .user = u};
        u->last_begin = u->params.n_elems;
        u->ready_in_order = true;
        u->n_ready = 0;
        assert_ok(dr_unet_backward(cx, u->run, &dout, &dcontext, &sink));
    }
    dr_frame_end(cx, f);
    assert_int_equal(dr_pool_used_bytes(cx->pool), 0);
}

static void plan(dr_unet_case *u)
{
    dr_context cx;
    dr_pool *pool = dr_pool_create_dry();
    dr_context_init(&cx, u->c.backend, pool, u->c.threads);
    walk(u, &cx);
    u->plan_bytes = dr_pool_peak_bytes(pool);
    dr_pool_destroy(pool);
}

size_t dr_unet_case_plan(const dr_unet_case_config *c)
{
    dr_unet_case u;
    build(&u, c);
    dr_params_bind_dry(&u.params, c->backend->compute, !c->forward_only);
    plan(&u);
    dr_unet_case_destroy(&u);
    return u.plan_bytes;
}

void dr_unet_case_step(dr_unet_case *u)
{
    dr_context cx;
    dr_pool *pool = NULL;
    plan(u);
    assert_ok(dr_pool_create(u->c.backend->device, u->plan_bytes, &pool));
    dr_context_init(&cx, u->c.backend, pool, u->c.threads);
    if (u->grads != NULL) {
        memset(u->grads, 0, (size_t)u->params.n_elems * dr_dtype_size(cx.dtype));
    }
    walk(u, &cx);
    u->peak_bytes = dr_pool_peak_bytes(pool);
    dr_pool_destroy(pool);
}

double *dr_unet_case_gradient(const dr_unet_case *u, const char *name, size_t *n)
{
    const dr_param *p = dr_params_find(&u->params, name);
    assert_non_null(p);
    *n = (size_t)p->n;
    double *g = dr_xcalloc(*n, sizeof *g);
    dr_param_to_file_order(p, p->grad.data, p->grad.dtype, g, DR_F64);
    return g;
}
