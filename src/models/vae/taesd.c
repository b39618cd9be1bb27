#include "models/vae/taesd.h"

#include "models/vae/flow.h"
#include "ops/pointwise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- construction -------------------------------------------------------------------------- */

dr_taesd_config dr_taesd_config_default(void)
{
    return (dr_taesd_config){.in_channels = 3,
                             .out_channels = 3,
                             .latent_channels = 4,
                             .width = 64,
                             .n_stages = 4,
                             .encoder_blocks = {1, 3, 3, 3},
                             .decoder_blocks = {3, 3, 3, 1},
                             .scaling_factor = 1.0};
}

static dr_status check_count(const char *key, int64_t value, int64_t largest)
{
    if (value < 1 || value > largest) {
        DR_FAIL(DR_FORMAT, "tiny vae: %s is %lld, expected 1 to %lld", key, (long long)value,
                (long long)largest);
    }
    return DR_OK;
}

dr_status dr_taesd_config_check(const dr_taesd_config *c)
{
    DR_TRY(check_count("in_channels", c->in_channels, DR_TAESD_MAX_IMAGE_CHANNELS));
    DR_TRY(check_count("out_channels", c->out_channels, DR_TAESD_MAX_IMAGE_CHANNELS));
    DR_TRY(check_count("latent_channels", c->latent_channels, 1024));
    DR_TRY(check_count("encoder_block_out_channels", c->width, 65536));
    DR_TRY(check_count("number of num_encoder_blocks", c->n_stages, DR_TAESD_MAX_STAGES));
    for (int i = 0; i < c->n_stages; i++) {
        DR_TRY(check_count("num_encoder_blocks", c->encoder_blocks[i], 64));
        DR_TRY(check_count("num_decoder_blocks", c->decoder_blocks[i], 64));
    }
    if (!(c->scaling_factor > 0.0 && c->scaling_factor < 1e6)) {
        DR_FAIL(DR_FORMAT, "tiny vae: scaling_factor is %g, expected a number above 0",
                c->scaling_factor);
    }
    return DR_OK;
}

typedef struct builder { /* numbers the layers of one half */
    dr_params *set;
    const char *half;
    int layer;
} builder;

static void add_conv(builder *b, dr_conv_layer *l, int64_t in, int64_t out, int stride)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%s.layers.%d", b->half, b->layer++);
    dr_conv_init(l, b->set, name, in, out, 3, stride, 1);
}

/* The same without bias. */
static void add_resampling_conv(builder *b, dr_conv_layer *l, int64_t width, int stride)
{
    *l = (dr_conv_layer){
        .w = dr_params_add(b->set, DR_PARAM_CONV, 4, DR_DIMS(width, width, 3, 3),
                           "%s.layers.%d.weight", b->half, b->layer++),
        .geom = {.kh = 3, .kw = 3, .stride = stride, .top = 1, .left = 1, .bottom = 1, .right = 1}};
}

static void add_blocks(builder *b, dr_taesd_stage *s, int n, int64_t width)
{
    char name[64];
    s->n_blocks = n;
    s->block = dr_arena_array(b->set->arena, (size_t)n, sizeof *s->block);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < 3; k++) {
            (void)snprintf(name, sizeof name, "%s.layers.%d.conv.%d", b->half, b->layer, 2 * k);
            dr_conv_init(&s->block[i].conv[k], b->set, name, width, width, 3, 1, 1);
        }
        b->layer++;
    }
}

static void init_encoder(dr_taesd_half *h, const dr_taesd_config *c, dr_params *set)
{
    (void)dr_params_begin_segment(set);
    builder b = {.set = set, .half = "encoder"};
    h->n_stages = c->n_stages;
    for (int i = 0; i < c->n_stages; i++) {
        if (i == 0) {
            add_conv(&b, &h->stage[i].conv, c->in_channels, c->width, 1);
        } else {
            add_resampling_conv(&b, &h->stage[i].conv, c->width, 2);
        }
        add_blocks(&b, &h->stage[i], c->encoder_blocks[i], c->width);
    }
    add_conv(&b, &h->end, c->width, c->latent_channels, 1);
}

static void init_decoder(dr_taesd_half *h, const dr_taesd_config *c, dr_params *set)
{
    (void)dr_params_begin_segment(set);
    builder b = {.set = set, .half = "decoder"};
    h->n_stages = c->n_stages;
    add_conv(&b, &h->end, c->latent_channels, c->width, 1);
    b.layer++; /* the ReLU has a number of its own */
    for (int i = 0; i < c->n_stages; i++) {
        add_blocks(&b, &h->stage[i], c->decoder_blocks[i], c->width);
        if (i + 1 < c->n_stages) {
            b.layer++; /* so has the enlargement */
            add_resampling_conv(&b, &h->stage[i].conv, c->width, 1);
        } else {
            add_conv(&b, &h->stage[i].conv, c->width, c->out_channels, 1);
        }
    }
}

void dr_taesd_init(dr_taesd *t, const dr_taesd_config *config, dr_params *set, bool encoder,
                   bool decoder)
{
    *t = (dr_taesd){.config = *config};
    if (encoder) {
        init_encoder(&t->encoder, config, set);
    }
    if (decoder) {
        init_decoder(&t->decoder, config, set);
    }
}

bool dr_taesd_raw_name(const char *name, char *buf, size_t size, bool *in_decoder)
{
    static const char *const halves[] = {"encoder.layers.", "decoder.layers."};
    for (int i = 0; i < 2; i++) {
        const size_t n = strlen(halves[i]);
        if (strncmp(name, halves[i], n) == 0) {
            char *rest;
            const long layer = strtol(name + n, &rest, 10);
            *in_decoder = i == 1;
            return rest != name + n && snprintf(buf, size, "%ld%s", layer + i, rest) < (int)size;
        }
    }
    return false;
}

/* ---- forward ------------------------------------------------------------------------------- */

static dr_status relu(dr_context *cx, dr_tensor *x)
{
    return dr_activation(cx, &(dr_activation_args){.kind = DR_ACT_RELU, .x = x, .y = x});
}

/* y = scale x + shift for every element; y may be x. */
static dr_status affine(dr_context *cx, const dr_tensor *x, double scale, double shift,
                        dr_tensor *y)
{
    const int64_t channels = dr_cols(x);
    double wide[DR_TAESD_MAX_IMAGE_CHANNELS];
    double host[DR_TAESD_MAX_IMAGE_CHANNELS];
    DR_CHECK(channels <= DR_TAESD_MAX_IMAGE_CHANNELS, "tiny vae: %lld channels",
             (long long)channels);
    for (int i = 0; i < channels; i++) {
        wide[i] = shift;
    }
    dr_convert(host, cx->dtype, wide, DR_F64, (size_t)channels);
    dr_frame f = dr_frame_begin(cx);
    dr_tensor row = dr_new(cx, f, 2, DR_DIMS(1, channels));
    DR_TRY(dr_upload(cx, &row, host));
    DR_TRY(dr_add(cx, &(dr_add_args){.alpha = (float)scale, .x = x, .y = y}));
    dr_tensor rows = dr_reshape(y, 3, DR_DIMS(1, dr_rows(y), channels));
    DR_TRY(dr_add_rows(cx, &(dr_add_rows_args){.x = &rows, .t = &row}));
    dr_frame_end(cx, f);
    return DR_OK;
}

static dr_status run_block(dr_context *cx, dr_flow *x, const dr_taesd_block *b)
{
    dr_flow h = dr_flow_begin(&x->t);
    for (int k = 0; k < 3; k++) {
        DR_TRY(dr_flow_conv(cx, &h, &b->conv[k]));
        if (k < 2) {
            DR_TRY(relu(cx, &h.t));
        }
    }
    DR_TRY(
        dr_add(cx, &(dr_add_args){.alpha = 1.0f, .beta = 1.0f, .x = &h.t, .z = &x->t, .y = &h.t}));
    DR_TRY(relu(cx, &h.t));
    dr_flow_advance(cx, x, &h.t, h.frame);
    return DR_OK;
}

static dr_status run_blocks(dr_context *cx, dr_flow *x, const dr_taesd_stage *s)
{
    for (int i = 0; i < s->n_blocks; i++) {
        DR_TRY(run_block(cx, x, &s->block[i]));
    }
    return DR_OK;
}

dr_status dr_taesd_encode(dr_context *cx, const dr_taesd *t, const dr_tensor *images,
                          dr_tensor *latents)
{
    const dr_taesd_half *e = &t->encoder;
    DR_CHECK(e->n_stages > 0, "tiny vae: this one has no encoder");
    dr_frame f = dr_frame_begin(cx);
    dr_tensor unit = dr_new_like(cx, f, images); /* 0..1, as TAESD was trained */
    DR_TRY(affine(cx, images, 0.5, 0.5, &unit));
    dr_flow x = {.t = unit, .frame = f};
    for (int i = 0; i < e->n_stages; i++) {
        DR_TRY(dr_flow_conv(cx, &x, &e->stage[i].conv));
        DR_TRY(run_blocks(cx, &x, &e->stage[i]));
    }
    DR_TRY(dr_conv_forward(cx, &e->end, &x.t, latents));
    dr_flow_end(cx, &x);
    return DR_OK;
}

dr_status dr_taesd_decode(dr_context *cx, const dr_taesd *t, const dr_tensor *latents,
                          dr_tensor *images)
{
    const dr_taesd_half *d = &t->decoder;
    DR_CHECK(d->n_stages > 0, "tiny vae: this one has no decoder");
    dr_frame f = dr_frame_begin(cx);
    dr_tensor z = dr_new_like(cx, f, latents);
    DR_TRY(dr_activation(cx, &(dr_activation_args){.kind = DR_ACT_TANH3, .x = latents, .y = &z}));
    dr_flow x = {.t = z, .frame = f};
    DR_TRY(dr_flow_conv(cx, &x, &d->end));
    DR_TRY(relu(cx, &x.t));
    for (int i = 0; i + 1 < d->n_stages; i++) {
        DR_TRY(run_blocks(cx, &x, &d->stage[i]));
        DR_TRY(dr_flow_upsample(cx, &x, &d->stage[i].conv));
    }
    const dr_taesd_stage *last = &d->stage[d->n_stages - 1];
    DR_TRY(run_blocks(cx, &x, last));
    DR_TRY(dr_conv_forward(cx, &last->conv, &x.t, images));
    dr_flow_end(cx, &x);
    return affine(cx, images, 2.0, -1.0, images); /* back to -1..1 */
}
