#include "models/unet/unet_names.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

static const char prefix[] = "model.diffusion_model.";

static const struct {
    const char *diffusers, *ldm;
} resnet_leaves[] = {
    {"norm1.", "in_layers.0."},          {"conv1.", "in_layers.2."},
    {"time_emb_proj.", "emb_layers.1."}, {"norm2.", "out_layers.0."},
    {"conv2.", "out_layers.3."},         {"conv_shortcut.", "skip_connection."},
};

static const struct {
    const char *diffusers, *ldm;
} roots[] = {
    {"time_embedding.linear_1.", "time_embed.0."},
    {"time_embedding.linear_2.", "time_embed.2."},
    {"conv_in.", "input_blocks.0.0."},
    {"conv_norm_out.", "out.0."},
    {"conv_out.", "out.2."},
};

/* "input_blocks.4" + ".0." or ".1." + the leaf's own name */
static bool put_block(char *buf, size_t size, const char *block, const char *kind, const char *leaf)
{
    if (strcmp(kind, "attentions") == 0) {
        return snprintf(buf, size, "%s%s.1.%s", prefix, block, leaf) < (int)size;
    }
    for (size_t i = 0; i < sizeof resnet_leaves / sizeof *resnet_leaves; i++) {
        size_t n = strlen(resnet_leaves[i].diffusers);
        if (strncmp(leaf, resnet_leaves[i].diffusers, n) == 0) {
            return snprintf(buf, size, "%s%s.0.%s%s", prefix, block, resnet_leaves[i].ldm,
                            leaf + n) < (int)size;
        }
    }
    return false;
}

static bool put_sampler(const dr_unet_config *c, char *buf, size_t size, bool up, int i,
                        const char *leaf)
{
    int per_level = c->layers_per_block + 1;
    int n;
    if (!dr_str_starts(leaf, "conv.")) {
        return false;
    }
    if (up) {
        int position = c->attention[c->n_levels - 1 - i] ? 2 : 1;
        n = snprintf(buf, size, "%soutput_blocks.%d.%d.%s", prefix, i * per_level + per_level - 1,
                     position, leaf);
    } else {
        n = snprintf(buf, size, "%sinput_blocks.%d.0.op.%s", prefix, (i + 1) * per_level,
                     leaf + strlen("conv."));
    }
    return n < (int)size;
}

/* Whether block i of the down or up path has a part j of the kind. */
static bool has_part(const dr_unet_config *c, bool up, int i, const char *kind, int j)
{
    if (i < 0 || i >= c->n_levels || j < 0) {
        return false;
    }
    if (dr_str_ends(kind, "samplers")) {
        return strcmp(kind, up ? "upsamplers" : "downsamplers") == 0 && j == 0 &&
               i + 1 < c->n_levels;
    }
    if (strcmp(kind, "attentions") == 0 && !c->attention[up ? c->n_levels - 1 - i : i]) {
        return false;
    }
    return j < c->layers_per_block + (up ? 1 : 0);
}

static bool put_mid(char *buf, size_t size, const char *kind, int j, const char *leaf)
{
    char block[32];
    if (strcmp(kind, "attentions") == 0) {
        return snprintf(buf, size, "%smiddle_block.1.%s", prefix, leaf) < (int)size;
    }
    (void)snprintf(block, sizeof block, "middle_block.%d", 2 * j);
    char with_position[256];
    if (!put_block(with_position, sizeof with_position, block, kind, leaf)) {
        return false;
    }
    /* a middle block has no position index: "middle_block.0.0.in_layers" loses its second 0 */
    size_t head = strlen(prefix) + strlen(block);
    return snprintf(buf, size, "%.*s%s", (int)head, with_position, with_position + head + 2) <
           (int)size;
}

bool dr_unet_ldm_name(const dr_unet_config *c, const char *name, char *buf, size_t size)
{
    char kind[32];
    char block[48];
    int i = 0;
    int j = 0;
    int n = 0;
    for (size_t r = 0; r < sizeof roots / sizeof *roots; r++) {
        size_t len = strlen(roots[r].diffusers);
        if (strncmp(name, roots[r].diffusers, len) == 0) {
            return snprintf(buf, size, "%s%s%s", prefix, roots[r].ldm, name + len) < (int)size;
        }
    }
    if (sscanf(name, "mid_block.%31[a-z].%d.%n", kind, &j, &n) == 2 && n > 0) {
        bool has = j == 0 || (j == 1 && strcmp(kind, "attentions") != 0);
        return has && put_mid(buf, size, kind, j, name + n);
    }
    bool up = dr_str_starts(name, "up_blocks.");
    const char *rest = strchr(name, '.');
    if (rest == NULL || (!up && !dr_str_starts(name, "down_blocks.")) ||
        sscanf(rest, ".%d.%31[a-z].%d.%n", &i, kind, &j, &n) != 3 || n == 0 ||
        !has_part(c, up, i, kind, j)) {
        return false;
    }
    if (dr_str_ends(kind, "samplers")) {
        return put_sampler(c, buf, size, up, i, rest + n);
    }
    int per_level = c->layers_per_block + 1;
    (void)snprintf(block, sizeof block, "%s.%d", up ? "output_blocks" : "input_blocks",
                   i * per_level + j + (up ? 0 : 1));
    return put_block(buf, size, block, kind, rest + n);
}

static bool shape(const dr_shape_source *src, int64_t dim[DR_MAX_RANK], int *rank, const char *fmt,
                  int index)
{
    char name[160];
    char full[200];
    (void)snprintf(name, sizeof name, fmt, index);
    (void)snprintf(full, sizeof full, "%s%s", prefix, name);
    return src->shape_of(src->user, full, rank, dim);
}

static dr_status read_levels(dr_unet_config *c, const dr_shape_source *src, bool v2)
{
    int64_t d[DR_MAX_RANK];
    int rank = 0;
    int resnets = 0; /* in the level so far */
    c->n_levels = 1;
    for (int i = 1; i < DR_UNET_MAX_SEGMENTS; i++) {
        int level = c->n_levels - 1;
        if (shape(src, d, &rank, "input_blocks.%d.0.in_layers.2.weight", i)) {
            c->channels[level] = d[0];
            resnets++;
            int depth = 0;
            char block[96];
            (void)snprintf(block, sizeof block,
                           "input_blocks.%d.1.transformer_blocks.%%d.attn2.to_k.weight", i);
            while (depth <= DR_MAX_DEPTH && shape(src, d, &rank, block, depth)) {
                c->context_dim = d[1];
                depth++;
            }
            c->attention[level] = depth > 0;
            c->depth[level] = depth > 0 ? depth : 1;
        } else if (shape(src, d, &rank, "input_blocks.%d.0.op.weight", i) &&
                   c->n_levels < DR_UNET_MAX_LEVELS) {
            c->n_levels++;
            resnets = 0;
        } else {
            break;
        }
        c->layers_per_block = resnets > c->layers_per_block ? resnets : c->layers_per_block;
    }
    for (int i = 0; i < c->n_levels; i++) {
        int64_t heads = v2 ? c->channels[i] / 64 : 8;
        c->heads[i] = heads > 0 ? (int)heads : 1;
    }
    return DR_OK;
}

dr_status dr_unet_config_from_ldm(dr_unet_config *c, const dr_shape_source *src, bool v2)
{
    int64_t d[DR_MAX_RANK];
    int rank = 0;
    *c = (dr_unet_config){.norm_groups = 32, .norm_eps = 1e-5f};
    if (!shape(src, d, &rank, "input_blocks.%d.0.weight", 0) || rank != 4) {
        DR_FAIL(DR_FORMAT,
                "no tensor %sinput_blocks.0.0.weight: not a Stable Diffusion "
                "checkpoint in single-file form",
                prefix);
    }
    c->in_channels = d[1];
    if (c->in_channels == 9 || c->in_channels == 8) {
        DR_FAIL(DR_FORMAT,
                "the U-Net takes %lld input channels: %s, which cannot be trained here; expected 4",
                (long long)c->in_channels,
                c->in_channels == 9 ? "an inpainting model" : "an instruct-pix2pix model");
    }
    DR_TRY(read_levels(c, src, v2));
    if (c->context_dim == 0) {
        DR_FAIL(DR_FORMAT, "the U-Net has no cross attention: not a Stable Diffusion 1.x or 2.x "
                           "text-to-image model");
    }
    if (!shape(src, d, &rank, "out.%d.weight", 2)) {
        DR_FAIL(DR_FORMAT, "no tensor %sout.2.weight: the U-Net is incomplete", prefix);
    }
    c->out_channels = d[0];
    if (!shape(src, d, &rank, "middle_block.%d.proj_in.weight", 1)) {
        DR_FAIL(DR_FORMAT, "no tensor %smiddle_block.1.proj_in.weight: the U-Net is incomplete",
                prefix);
    }
    c->linear_projection = rank == 2;
    int depth = 0; /* of the middle block, which follows the last level */
    while (depth <= DR_MAX_DEPTH &&
           shape(src, d, &rank, "middle_block.1.transformer_blocks.%d.attn2.to_k.weight", depth)) {
        depth++;
    }
    c->depth[c->n_levels - 1] = depth > 0 ? depth : 1;
    return DR_OK;
}
