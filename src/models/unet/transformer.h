/*
 * models/unet/transformer.h - Transformer2D: the attention unit of the U-Net.
 *
 * Layer:    models.
 * g = gn(x, 1e-6); h = proj_in(g); per block: h += attn1(ln1(h)); h += attn2(ln2(h), ctx);
 * h += ff(ln3(h)) with GEGLU; y = proj_out(h) + x. Tokens are a view of the image: (N,H*W,C).
 */
#ifndef DR_UNET_TRANSFORMER_H
#define DR_UNET_TRANSFORMER_H

#include "nn/mha.h"

enum { DR_MAX_DEPTH = 12 };

typedef struct dr_transformer_block {
    dr_norm_layer norm1, norm2, norm3;
    dr_mha attn1, attn2;
    dr_linear_layer ff_in, ff_out; /* C -> 8C (GEGLU) -> C */
} dr_transformer_block;

typedef struct dr_transformer {
    dr_norm_layer norm;
    dr_linear_layer proj_in, proj_out;
    int depth;
    dr_transformer_block block[DR_MAX_DEPTH];
} dr_transformer;

typedef struct dr_transformer_block_saved {
    dr_tensor h0, n1, stats1, h1, n2, stats2, h2, n3, stats3, ff, gated;
    dr_mha_saved attn1, attn2;
} dr_transformer_block_saved;

typedef struct dr_transformer_saved {
    dr_tensor g, stats, h; /* normalised input; input of proj_out */
    dr_transformer_block_saved block[DR_MAX_DEPTH];
} dr_transformer_saved;

typedef struct dr_transformer_config {
    int64_t channels, context_dim;
    int heads, depth, groups;
    bool linear_projection; /* weights of proj_in/out are [C,C] in files, else [C,C,1,1] */
} dr_transformer_config;

void dr_transformer_init(dr_transformer *t, dr_params *set, const char *name,
                         const dr_transformer_config *c);
/* x, y (N,H,W,C); context (N,S,D). */
DR_MUST_USE dr_status dr_transformer_forward(dr_context *cx, const dr_transformer *t,
                                             const dr_tensor *x, const dr_tensor *context,
                                             dr_tensor *y, dr_transformer_saved *saved,
                                             dr_frame keep);

typedef struct dr_transformer_grad {
    const dr_tensor *dy, *x, *context;
    dr_tensor *dx; /* written as mode_dx says; NULL: skipped */
    dr_write mode_dx;
    dr_tensor *dcontext; /* always +=; NULL: skipped */
} dr_transformer_grad;
DR_MUST_USE dr_status dr_transformer_backward(dr_context *cx, const dr_transformer *t,
                                              const dr_transformer_saved *saved,
                                              const dr_transformer_grad *g);

#endif
