/*
 * models/vae/flow.h - one tensor that flows through layers, its memory freed behind it.
 *
 * Layer:    models, internal to models/vae.
 */
#ifndef DR_VAE_FLOW_H
#define DR_VAE_FLOW_H

#include "nn/layers.h"

typedef struct dr_flow {
    dr_tensor t;
    dr_frame frame; /* 0: t is borrowed */
} dr_flow;

/* A flow that starts with a tensor of the caller. */
dr_flow dr_flow_begin(const dr_tensor *t);
/* y, which lives in the frame, takes the place of the flow's tensor, which is freed. */
void dr_flow_advance(dr_context *cx, dr_flow *x, const dr_tensor *y, dr_frame frame);
void dr_flow_end(dr_context *cx, dr_flow *x);
/* Convolution of the flow's tensor. */
DR_MUST_USE dr_status dr_flow_conv(dr_context *cx, dr_flow *x, const dr_conv_layer *l);
/* Nearest-neighbour enlargement by two, then a convolution. */
DR_MUST_USE dr_status dr_flow_upsample(dr_context *cx, dr_flow *x, const dr_conv_layer *l);
/* Norm of the flow's tensor; its statistics are not kept. */
DR_MUST_USE dr_status dr_flow_norm(dr_context *cx, dr_flow *x, const dr_norm_layer *l);

#endif
