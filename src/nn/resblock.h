/*
 * nn/resblock.h - the residual block of U-Net and VAE.
 *
 * Layer:    nn.
 * h = conv1(silu(gn1(x))); h += emb(silu(temb)) per pixel; h = conv2(silu(gn2(h)));
 * y = h + (shortcut(x) when channels change, else x). The shortcut sees the raw x.
 */
#ifndef DR_NN_RESBLOCK_H
#define DR_NN_RESBLOCK_H

#include "nn/layers.h"

typedef struct dr_resblock {
    dr_norm_layer norm1, norm2;
    dr_conv_layer conv1, conv2;
    dr_linear_layer emb;      /* w NULL: no time embedding (VAE) */
    dr_linear_layer shortcut; /* w NULL: identity */
} dr_resblock;

typedef struct dr_resblock_saved {
    dr_tensor n1, stats1; /* silu(gn1(x)) */
    dr_tensor h;          /* input of gn2 */
    dr_tensor n2, stats2; /* silu(gn2(h)) */
} dr_resblock_saved;

/* temb_channels 0: no time embedding. Registers norm1, conv1, time_emb_proj, norm2, conv2,
 * conv_shortcut under name. */
void dr_resblock_init(dr_resblock *b, dr_params *set, const char *name, int64_t in, int64_t out,
                      int64_t temb_channels, int groups, float eps);
/* x (N,H,W,Cin); temb_silu (N,T) = silu(temb), or NULL; y (N,H,W,Cout). */
DR_MUST_USE dr_status dr_resblock_forward(dr_context *cx, const dr_resblock *b, const dr_tensor *x,
                                          const dr_tensor *temb_silu, dr_tensor *y,
                                          dr_resblock_saved *saved, dr_frame keep);

typedef struct dr_resblock_grad {
    const dr_tensor *dy, *x, *temb_silu;
    dr_tensor *dx; /* written as mode_dx says; NULL: skipped */
    dr_write mode_dx;
    dr_tensor *dtemb_silu; /* (N,T), always +=; NULL: skipped */
} dr_resblock_grad;
DR_MUST_USE dr_status dr_resblock_backward(dr_context *cx, const dr_resblock *b,
                                           const dr_resblock_saved *saved,
                                           const dr_resblock_grad *g);

#endif
