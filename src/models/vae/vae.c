#include "models/vae/vae.h"

#include "models/vae/flow.h"
#include "ops/pointwise.h"

#include <stdio.h>

static const float vae_eps = 1e-6f;

/* ---- construction -------------------------------------------------------------------------- */

static dr_status check_count(const char *key, int64_t value, int64_t largest)
{
    if (value < 1 || value > largest) {
        DR_FAIL(DR_FORMAT, "vae: %s is %lld, expected 1 to %lld", key, (long long)value,
                (long long)largest);
    }
    return DR_OK;
}

dr_status dr_vae_config_check(const dr_vae_config *c)
{
    DR_TRY(check_count("in_channels", c->in_channels, 1024));
    DR_TRY(check_count("out_channels", c->out_channels, 1024));
    DR_TRY(check_count("latent_channels", c->latent_channels, 1024));
    DR_TRY(check_count("number of block_out_channels", c->n_levels, DR_VAE_MAX_LEVELS));
    DR_TRY(check_count("layers_per_block", c->layers_per_block, 64));
    DR_TRY(check_count("norm_num_groups", c->norm_groups, 65536));
    for (int i = 0; i < c->n_levels; i++) {
        DR_TRY(check_count("block_out_channels", c->channels[i], 65536));
        if (c->channels[i] % c->norm_groups != 0) {
            DR_FAIL(DR_FORMAT, "vae: block_out_channels has %lld, not divisible by %d groups",
                    (long long)c->channels[i], c->norm_groups);
        }
    }
    if (!(c->scaling_factor > 0.0 && c->scaling_factor < 1e6)) {
        DR_FAIL(DR_FORMAT, "vae: scaling_factor is %g, expected a number above 0",
                c->scaling_factor);
    }
    return DR_OK;
}

static void init_mid(dr_vae_half *h, const char *half, int64_t c, int groups, dr_params *set)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s.mid_block.resnets.0", half);
    dr_resblock_init(&h->mid[0], set, name, c, c, 0, groups, vae_eps);
    (void)snprintf(name, sizeof name, "%s.mid_block.attentions.0.group_norm", half);
    dr_norm_init(&h->mid_norm, set, name, c, groups, vae_eps, false);
    struct {
        dr_linear_layer *layer;
        const char *name;
    } projections[] = {{&h->mid_attn.q, "to_q"},
                       {&h->mid_attn.k, "to_k"},
                       {&h->mid_attn.v, "to_v"},
                       {&h->mid_attn.out, "to_out.0"}};
    for (size_t i = 0; i < sizeof projections / sizeof *projections; i++) {
        (void)snprintf(name, sizeof name, "%s.mid_block.attentions.0.%s", half,
                       projections[i].name);
        dr_linear_init(projections[i].layer, set, name, c, c, true);
    }
    h->mid_attn.heads = 1;
    (void)snprintf(name, sizeof name, "%s.mid_block.resnets.1", half);
    dr_resblock_init(&h->mid[1], set, name, c, c, 0, groups, vae_eps);
}

/* Residual blocks of one level: in -> out, then out -> out. */
static void init_level(dr_vae_level *l, const char *name, int64_t in, int64_t out, int groups,
                       dr_params *set)
{
    char part[128];
    l->res = dr_arena_array(set->arena, (size_t)l->n_res, sizeof *l->res);
    for (int j = 0; j < l->n_res; j++) {
        (void)snprintf(part, sizeof part, "%s.resnets.%d", name, j);
        dr_resblock_init(&l->res[j], set, part, j == 0 ? in : out, out, 0, groups, vae_eps);
    }
}

static void init_out(dr_vae_half *h, const char *half, int64_t in, int64_t out, int groups,
                     dr_params *set)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s.conv_norm_out", half);
    dr_norm_init(&h->norm_out, set, name, in, groups, vae_eps, true);
    (void)snprintf(name, sizeof name, "%s.conv_out", half);
    dr_conv_init(&h->conv_out, set, name, in, out, 3, 1, 1);
}

static void init_encoder(dr_vae_half *h, const dr_vae_config *c, dr_params *set)
{
    char name[96];
    (void)dr_params_begin_segment(set);
    h->n_levels = c->n_levels;
    dr_conv_init(&h->conv_in, set, "encoder.conv_in", c->in_channels, c->channels[0], 3, 1, 1);
    for (int i = 0; i < c->n_levels; i++) {
        dr_vae_level *l = &h->level[i];
        const int64_t out = c->channels[i];
        l->n_res = c->layers_per_block;
        (void)snprintf(name, sizeof name, "encoder.down_blocks.%d", i);
        init_level(l, name, c->channels[i > 0 ? i - 1 : 0], out, c->norm_groups, set);
        if (i + 1 < c->n_levels) {
            (void)snprintf(name, sizeof name, "encoder.down_blocks.%d.downsamplers.0.conv", i);
            dr_conv_init(&l->resample, set, name, out, out, 3, 2, 0);
            l->resample.geom.bottom = 1; /* zeros below and to the right only */
            l->resample.geom.right = 1;
        }
    }
    const int64_t last = c->channels[c->n_levels - 1];
    init_mid(h, "encoder", last, c->norm_groups, set);
    init_out(h, "encoder", last, 2 * c->latent_channels, c->norm_groups, set);
    dr_linear_init_1x1(&h->quant, set, "quant_conv", 2 * c->latent_channels, 2 * c->latent_channels,
                       true);
}

static void init_decoder(dr_vae_half *h, const dr_vae_config *c, dr_params *set)
{
    char name[96];
    (void)dr_params_begin_segment(set);
    h->n_levels = c->n_levels;
    dr_linear_init_1x1(&h->quant, set, "post_quant_conv", c->latent_channels, c->latent_channels,
                       true);
    int64_t in = c->channels[c->n_levels - 1];
    dr_conv_init(&h->conv_in, set, "decoder.conv_in", c->latent_channels, in, 3, 1, 1);
    init_mid(h, "decoder", in, c->norm_groups, set);
    for (int i = 0; i < c->n_levels; i++) {
        dr_vae_level *l = &h->level[i];
        const int64_t out = c->channels[c->n_levels - 1 - i];
        l->n_res = c->layers_per_block + 1;
        (void)snprintf(name, sizeof name, "decoder.up_blocks.%d", i);
        init_level(l, name, in, out, c->norm_groups, set);
        if (i + 1 < c->n_levels) {
            (void)snprintf(name, sizeof name, "decoder.up_blocks.%d.upsamplers.0.conv", i);
            dr_conv_init(&l->resample, set, name, out, out, 3, 1, 1);
        }
        in = out;
    }
    init_out(h, "decoder", in, c->out_channels, c->norm_groups, set);
}

void dr_vae_init(dr_vae *v, const dr_vae_config *config, dr_params *set, bool encoder, bool decoder)
{
    *v = (dr_vae){.config = *config};
    if (encoder) {
        init_encoder(&v->encoder, config, set);
    }
    if (decoder) {
        init_decoder(&v->decoder, config, set);
    }
}

/* ---- forward ------------------------------------------------------------------------------- */

/* The residual block of nn/resblock.h with each tensor freed once it was read. */
static dr_status run_resblock(dr_context *cx, dr_flow *x, const dr_resblock *b)
{
    dr_flow h = dr_flow_begin(&x->t);
    DR_TRY(dr_flow_norm(cx, &h, &b->norm1));
    DR_TRY(dr_flow_conv(cx, &h, &b->conv1));
    DR_TRY(dr_flow_norm(cx, &h, &b->norm2));
    DR_TRY(dr_flow_conv(cx, &h, &b->conv2));
    if (b->shortcut.w != NULL) {
        DR_TRY(dr_linear_forward(cx, &b->shortcut, &x->t, &h.t, DR_ADD));
    } else {
        DR_TRY(dr_add(
            cx, &(dr_add_args){.alpha = 1.0f, .beta = 1.0f, .x = &h.t, .z = &x->t, .y = &h.t}));
    }
    dr_flow_advance(cx, x, &h.t, h.frame);
    return DR_OK;
}

/* x += attention(group_norm(x)) over the pixels as tokens */
static dr_status run_attention(dr_context *cx, dr_flow *x, const dr_vae_half *half)
{
    const int64_t *d = x->t.dim;
    dr_flow n = dr_flow_begin(&x->t);
    DR_TRY(dr_flow_norm(cx, &n, &half->mid_norm));
    dr_frame keep = dr_frame_begin(cx);
    dr_tensor tokens = dr_reshape(&n.t, 3, DR_DIMS(d[0], d[1] * d[2], d[3]));
    dr_tensor y = dr_reshape(&x->t, 3, DR_DIMS(d[0], d[1] * d[2], d[3]));
    dr_mha_saved saved;
    DR_TRY(dr_mha_forward(cx, &half->mid_attn, &tokens, &tokens, &y, DR_ADD, &saved, keep));
    dr_frame_end(cx, keep);
    dr_flow_end(cx, &n);
    return DR_OK;
}

static dr_status run_mid(dr_context *cx, dr_flow *x, const dr_vae_half *half)
{
    DR_TRY(run_resblock(cx, x, &half->mid[0]));
    DR_TRY(run_attention(cx, x, half));
    return run_resblock(cx, x, &half->mid[1]);
}

static dr_status run_levels(dr_context *cx, dr_flow *x, const dr_vae_half *half, bool up)
{
    for (int i = 0; i < half->n_levels; i++) {
        const dr_vae_level *l = &half->level[i];
        for (int j = 0; j < l->n_res; j++) {
            DR_TRY(run_resblock(cx, x, &l->res[j]));
        }
        if (l->resample.w != NULL) {
            DR_TRY(up ? dr_flow_upsample(cx, x, &l->resample) : dr_flow_conv(cx, x, &l->resample));
        }
    }
    return DR_OK;
}

dr_status dr_vae_encode(dr_context *cx, const dr_vae *v, const dr_tensor *images,
                        dr_tensor *moments)
{
    const dr_vae_half *e = &v->encoder;
    DR_CHECK(e->n_levels > 0, "vae: this one has no encoder");
    const int64_t step = (int64_t)1 << (e->n_levels - 1);
    DR_CHECK(images->rank == 4 && images->dim[1] % step == 0 && images->dim[2] % step == 0,
             "vae: image of %lld x %lld, not divisible by %lld", (long long)images->dim[2],
             (long long)images->dim[1], (long long)step);
    dr_flow x = dr_flow_begin(images);
    DR_TRY(dr_flow_conv(cx, &x, &e->conv_in));
    DR_TRY(run_levels(cx, &x, e, false));
    DR_TRY(run_mid(cx, &x, e));
    DR_TRY(dr_flow_norm(cx, &x, &e->norm_out));
    DR_TRY(dr_flow_conv(cx, &x, &e->conv_out));
    DR_TRY(dr_linear_forward(cx, &e->quant, &x.t, moments, DR_SET));
    dr_flow_end(cx, &x);
    return DR_OK;
}

dr_status dr_vae_decode(dr_context *cx, const dr_vae *v, const dr_tensor *latents,
                        dr_tensor *images)
{
    const dr_vae_half *d = &v->decoder;
    DR_CHECK(d->n_levels > 0, "vae: this one has no decoder");
    dr_frame f = dr_frame_begin(cx);
    dr_tensor z = dr_new_like(cx, f, latents);
    DR_TRY(dr_linear_forward(cx, &d->quant, latents, &z, DR_SET));
    dr_flow x = {.t = z, .frame = f};
    DR_TRY(dr_flow_conv(cx, &x, &d->conv_in));
    DR_TRY(run_mid(cx, &x, d));
    DR_TRY(run_levels(cx, &x, d, true));
    DR_TRY(dr_flow_norm(cx, &x, &d->norm_out));
    DR_TRY(dr_conv_forward(cx, &d->conv_out, &x.t, images));
    dr_flow_end(cx, &x);
    return DR_OK;
}
