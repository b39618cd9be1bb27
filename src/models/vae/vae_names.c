#include "models/vae/vae_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parts of a name, tried in this order: what is inside mid_block comes before the general rules. */
static const struct {
    const char *from, *to;
} parts[] = {
    {".mid_block.resnets.0.", ".mid.block_1."},
    {".mid_block.resnets.1.", ".mid.block_2."},
    {".mid_block.attentions.0.group_norm.", ".mid.attn_1.norm."},
    {".mid_block.attentions.0.to_q.", ".mid.attn_1.q."},
    {".mid_block.attentions.0.to_k.", ".mid.attn_1.k."},
    {".mid_block.attentions.0.to_v.", ".mid.attn_1.v."},
    {".mid_block.attentions.0.to_out.0.", ".mid.attn_1.proj_out."},
    {".down_blocks.", ".down."},
    {".resnets.", ".block."},
    {".downsamplers.0.conv.", ".downsample.conv."},
    {".upsamplers.0.conv.", ".upsample.conv."},
    {".conv_shortcut.", ".nin_shortcut."},
    {".conv_norm_out.", ".norm_out."},
};

/* LDM counts the decoder's levels from the image, Diffusers from the latent. */
static void turn_decoder_level(const dr_vae_config *c, char *buf, size_t size)
{
    for (int i = 0; i < c->n_levels; i++) {
        char from[24];
        char to[24];
        (void)snprintf(from, sizeof from, ".up_blocks.%d.", i);
        (void)snprintf(to, sizeof to, ".up.%d.", c->n_levels - 1 - i);
        if (dr_name_replace(buf, size, from, to)) {
            return;
        }
    }
}

void dr_vae_ldm_slice(const dr_vae_config *c, const dr_param *p, dr_file_slice *out)
{
    *out = (dr_file_slice){.rank = p->rank, .n_rows = p->dim[0]};
    memcpy(out->dim, p->dim, sizeof out->dim);
    (void)snprintf(out->name, sizeof out->name, DR_VAE_LDM_PREFIX "%s", p->name);
    if (p->kind == DR_PARAM_MATRIX) {
        out->rank = 4;
        out->dim[2] = 1;
        out->dim[3] = 1;
    }
    turn_decoder_level(c, out->name, sizeof out->name);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        (void)dr_name_replace(out->name, sizeof out->name, parts[i].from, parts[i].to);
    }
}

bool dr_vae_other_name(const char *name, char *buf, size_t size)
{
    static const struct {
        const char *from, *to;
    } old[] = {{".attentions.0.to_q.", ".attentions.0.query."},
               {".attentions.0.to_k.", ".attentions.0.key."},
               {".attentions.0.to_v.", ".attentions.0.value."},
               {".attentions.0.to_out.0.", ".attentions.0.proj_attn."}};
    if (strlen(name) >= size) {
        return false;
    }
    memcpy(buf, name, strlen(name) + 1);
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
        if (dr_name_replace(buf, size, old[i].from, old[i].to)) {
            return true;
        }
    }
    return false;
}

static dr_status find_conv(const dr_shape_source *src, const char *prefix, const char *name,
                           int64_t dim[DR_MAX_RANK])
{
    char full[160];
    int rank;
    (void)snprintf(full, sizeof full, "%s%s", prefix, name);
    if (!dr_shape_find(src, full, &rank, dim)) {
        DR_FAIL(DR_FORMAT, "vae: tensor %s is missing", full);
    }
    if (rank != 4) {
        DR_FAIL(DR_FORMAT, "vae: tensor %s has %d dimensions, expected 4", full, rank);
    }
    return DR_OK;
}

/* True when encoder level i has block j; *channels is what its first convolution puts out. */
static bool has_block(const dr_shape_source *src, const char *prefix, int i, int j,
                      int64_t *channels)
{
    char name[160];
    int64_t dim[DR_MAX_RANK];
    int rank;
    (void)snprintf(name, sizeof name, "%sencoder.down.%d.block.%d.conv1.weight", prefix, i, j);
    if (!dr_shape_find(src, name, &rank, dim) || rank != 4) {
        return false;
    }
    *channels = dim[0];
    return true;
}

dr_status dr_vae_config_from_ldm(dr_vae_config *c, const dr_shape_source *src, const char *prefix)
{
    int64_t in[DR_MAX_RANK];
    int64_t out[DR_MAX_RANK];
    int64_t latent[DR_MAX_RANK];
    DR_TRY(find_conv(src, prefix, "encoder.conv_in.weight", in));
    DR_TRY(find_conv(src, prefix, "decoder.conv_out.weight", out));
    DR_TRY(find_conv(src, prefix, "post_quant_conv.weight", latent));
    *c = (dr_vae_config){.in_channels = in[1],
                         .out_channels = out[0],
                         .latent_channels = latent[0],
                         .norm_groups = 32,
                         .scaling_factor = 0.18215};
    int64_t channels;
    while (c->n_levels < DR_VAE_MAX_LEVELS && has_block(src, prefix, c->n_levels, 0, &channels)) {
        c->channels[c->n_levels++] = channels;
    }
    while (has_block(src, prefix, 0, c->layers_per_block, &channels)) {
        c->layers_per_block++;
    }
    return DR_OK;
}
