#include "models/clip/clip_names.h"

#include <stdio.h>
#include <string.h>

static const char transformers_prefix[] = "cond_stage_model.transformer.";
static const char openclip_prefix[] = "cond_stage_model.model.";

/* transformers' part of a name and OpenCLIP's, in the order in which they are tried. */
static const struct {
    const char *from, *to;
} openclip_parts[] = {
    {"text_model.embeddings.token_embedding.", "token_embedding."},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
    {"text_model.final_layer_norm.", "ln_final."},
    {"text_model.encoder.layers.", "transformer.resblocks."},
    {".layer_norm1.", ".ln_1."},
    {".layer_norm2.", ".ln_2."},
    {".self_attn.out_proj.", ".attn.out_proj."},
    {".self_attn.q_proj.", ".attn.in_proj_"},
    {".self_attn.k_proj.", ".attn.in_proj_"},
    {".self_attn.v_proj.", ".attn.in_proj_"},
    {".mlp.fc1.", ".mlp.c_fc."},
    {".mlp.fc2.", ".mlp.c_proj."},
};

/* 0, 1, 2 for q, k, v, which share a tensor in that order; -1 for others. */
static int fused_part(const char *name)
{
    static const char *const parts[] = {".q_proj.", ".k_proj.", ".v_proj."};
    for (int i = 0; i < 3; i++) {
        if (strstr(name, parts[i]) != NULL) {
            return i;
        }
    }
    return -1;
}

static void own_shape(const dr_param *p, dr_file_slice *out)
{
    *out = (dr_file_slice){.rank = p->rank, .n_rows = p->dim[0]};
    memcpy(out->dim, p->dim, sizeof out->dim);
}

void dr_clip_ldm_slice(dr_clip_layout layout, const dr_param *p, dr_file_slice *out)
{
    own_shape(p, out);
    if (layout == DR_CLIP_TRANSFORMERS) {
        (void)snprintf(out->name, sizeof out->name, "%s%s", transformers_prefix, p->name);
        return;
    }
    (void)snprintf(out->name, sizeof out->name, "%s%s", openclip_prefix, p->name);
    for (size_t i = 0; i < sizeof openclip_parts / sizeof *openclip_parts; i++) {
        (void)dr_name_replace(out->name, sizeof out->name, openclip_parts[i].from,
                              openclip_parts[i].to);
    }
    const int part = fused_part(p->name);
    if (part >= 0) {
        out->dim[0] = 3 * p->dim[0];
        out->first_row = part * p->dim[0];
    }
}

bool dr_clip_other_name(const char *name, char *buf, size_t size)
{
    if (strlen(name) >= size) {
        return false;
    }
    memcpy(buf, name, strlen(name) + 1);
    return dr_name_replace(buf, size, "text_model.", "");
}

/* Looks for the layout's prefix + name, and for its other spelling. */
static bool find(const dr_shape_source *src, dr_clip_layout layout, const char *name, int *rank,
                 int64_t dim[DR_MAX_RANK])
{
    char full[192];
    char other[192];
    (void)snprintf(full, sizeof full, "%s%s",
                   layout == DR_CLIP_OPENCLIP ? openclip_prefix : transformers_prefix, name);
    return dr_shape_find(src, full, rank, dim) ||
           (dr_clip_other_name(full, other, sizeof other) && dr_shape_find(src, other, rank, dim));
}

static const struct {
    const char *tokens, *positions, *fc1, *block; /* fc1, block: formats with the layer's number */
} probes[] = {
    [DR_CLIP_TRANSFORMERS] = {"text_model.embeddings.token_embedding.weight",
                              "text_model.embeddings.position_embedding.weight",
                              "text_model.encoder.layers.0.mlp.fc1.weight",
                              "text_model.encoder.layers"},
    [DR_CLIP_OPENCLIP] = {"token_embedding.weight", "positional_embedding",
                          "transformer.resblocks.0.mlp.c_fc.weight", "transformer.resblocks"},
};

bool dr_clip_find_layout(const dr_shape_source *src, dr_clip_layout *out)
{
    for (int i = 0; i < 2; i++) {
        if (find(src, (dr_clip_layout)i, probes[i].tokens, NULL, NULL)) {
            *out = (dr_clip_layout)i;
            return true;
        }
    }
    return false;
}

static dr_status find_matrix(const dr_shape_source *src, dr_clip_layout layout, const char *name,
                             int64_t dim[DR_MAX_RANK])
{
    int rank;
    if (!find(src, layout, name, &rank, dim)) {
        DR_FAIL(DR_FORMAT, "text encoder: tensor %s%s is missing",
                layout == DR_CLIP_OPENCLIP ? openclip_prefix : transformers_prefix, name);
    }
    if (rank != 2) {
        DR_FAIL(DR_FORMAT, "text encoder: tensor %s has %d dimensions, expected 2", name, rank);
    }
    return DR_OK;
}

static int count_blocks(const dr_shape_source *src, dr_clip_layout layout)
{
    const char *leaf = layout == DR_CLIP_OPENCLIP ? "ln_1.weight" : "layer_norm1.weight";
    char name[160];
    int n = 0;
    do {
        (void)snprintf(name, sizeof name, "%s.%d.%s", probes[layout].block, n, leaf);
    } while (find(src, layout, name, NULL, NULL) && ++n > 0);
    return n;
}

dr_status dr_clip_config_from_ldm(dr_clip_config *c, const dr_shape_source *src,
                                  dr_clip_layout layout)
{
    enum { HEAD_WIDTH = 64 }; /* of CLIP ViT-L and OpenCLIP ViT-H alike */
    int64_t tokens[DR_MAX_RANK];
    int64_t positions[DR_MAX_RANK];
    int64_t fc1[DR_MAX_RANK];
    DR_TRY(find_matrix(src, layout, probes[layout].tokens, tokens));
    DR_TRY(find_matrix(src, layout, probes[layout].positions, positions));
    DR_TRY(find_matrix(src, layout, probes[layout].fc1, fc1));
    const int blocks = count_blocks(src, layout);
    *c = (dr_clip_config){.vocab = tokens[0],
                          .positions = positions[0],
                          .width = tokens[1],
                          .mlp_width = fc1[0],
                          .layers = layout == DR_CLIP_OPENCLIP ? blocks - 1 : blocks,
                          .heads = tokens[1] % HEAD_WIDTH == 0 ? (int)(tokens[1] / HEAD_WIDTH) : 0,
                          .act = layout == DR_CLIP_OPENCLIP ? DR_ACT_GELU : DR_ACT_QUICK_GELU,
                          .eps = 1e-5f};
    return DR_OK;
}
