/*
 * nn/adapter.h - an addition to the product of a weight that is itself left alone: LoRA, LoHa, LoKr
 * and their weight-decomposed forms (DoRA).
 *
 * Layer:    nn.
 * Source:   sd-scripts networks/lora.py; LyCORIS 4.1.3 lycoris/modules/{locon,loha,lokr}.py.
 *
 * A pair of factors has the product B A; with a core C (Tucker) it is B (C A), C a convolution's
 * window of [R,R'] matrices. What is added to the layer's product is that of a difference D:
 *   FACTORS     D = s B A
 *   HADAMARD    D = s (B A) * (B2 A2), element by element (LoHa)
 *   KRONECKER   D = s W1 (x) W2, each of them a matrix of its own or a pair's product (LoKr)
 * A scalar multiplies D. With a magnitude m (DoRA) the layer's weight W becomes
 * m (W + D) / (|W + D| + eps), norms per output or per input: what is added is that minus W.
 *
 * Plain FACTORS never form D: y += s up(down(x)), the convolution being down's. All else builds D
 * in the compute dtype, in forward and again in backward, from the masters: a narrow context reads
 * D rounded once.
 *
 * A layer finds its adapter in its weight's registry entry. Backward needs the layer's input and
 * nothing else: down(x) is computed again, which costs rank / outputs of the base's product.
 */
#ifndef DR_NN_ADAPTER_H
#define DR_NN_ADAPTER_H

#include "nn/params.h"
#include "ops/conv2d.h"

typedef enum dr_adapter_kind {
    DR_ADAPTER_FACTORS,
    DR_ADAPTER_HADAMARD,
    DR_ADAPTER_KRONECKER
} dr_adapter_kind;

typedef struct dr_adapter_pair {
    dr_param *down;        /* A: [R,I], [R,I,1,1] or [R,I,K,K]; with a core without window */
    dr_param *up;          /* B: [O,R] or [O,R,1,1] */
    dr_param *core;        /* C: [R,R',K,K]; NULL: none */
    bool up_is_transposed; /* B is [R,O]: LoHa and LoKr with a core */
} dr_adapter_pair;

/*
 * Chances of being left out of a batch; zeroed: none. Numbers come from the streams (seed, purpose,
 * time, item) of base/philox.h, so backward and recomputation leave out the same.
 */
typedef struct dr_adapter_dropout {
    float elements; /* of down(x); the others are scaled by 1 / (1 - chance)                    */
    float ranks;    /* of down(x)                                                               */
    bool by_sample; /* ranks of each sample by themselves, the others scaled (sd-scripts); else of
                       the batch, not scaled (LyCORIS)                                          */
    float rows;     /* of D, not scaled                                                         */
    float output;   /* elements of what is added; the others are scaled                         */
    bool active;    /* in a batch of training; a dry context counts its memory in any case      */
    uint64_t seed, item;
    uint32_t time;
} dr_adapter_dropout;

typedef struct dr_adapter { /* outlives the layers' use of it */
    dr_adapter_kind kind;
    dr_adapter_pair pair[2]; /* the second of HADAMARD; those of KRONECKER that are not whole */
    dr_param *whole[2];  /* KRONECKER: W1 [a,c], W2 [b,d] or [b,d,K,K] where they are no pairs */
    dr_param *scalar;    /* [1]; NULL: none */
    dr_param *magnitude; /* m: [O,1..], or [1,I,1..] with by_input; NULL: no DoRA */
    bool by_input;
    const dr_param *base; /* W, with a magnitude */
    float scale;          /* s: multiplier * alpha / rank */
    bool dropped;         /* takes no part for now: forward adds nothing, gradients get nothing */
    dr_adapter_dropout dropout;
} dr_adapter;

/* All parameters of an adapter; returns how many. */
enum { DR_ADAPTER_PARAMS = 8 };
int dr_adapter_params(const dr_adapter *a, dr_param *out[DR_ADAPTER_PARAMS]);
/* Whether backward of a layer with this weight reads the layer's input. */
bool dr_weight_reads_input(const dr_param *w);
/* Whether the entry, or its adapter, gets a gradient. */
bool dr_param_is_trained(const dr_param *p);

/* x (...,I), y (...,O): y += what the adapter adds. */
DR_MUST_USE dr_status dr_adapter_linear(dr_context *cx, const dr_adapter *a, const dr_tensor *x,
                                        dr_tensor *y);
/* The gradients of its parameters accumulate; dx (...,I) +=, or NULL. */
DR_MUST_USE dr_status dr_adapter_linear_backward(dr_context *cx, const dr_adapter *a,
                                                 const dr_tensor *x, const dr_tensor *dy,
                                                 dr_tensor *dx);
/* The same of a convolution: x (N,H,W,I), y (N,Ho,Wo,O). */
DR_MUST_USE dr_status dr_adapter_conv(dr_context *cx, const dr_adapter *a,
                                      const dr_conv2d_geom *geom, const dr_tensor *x, dr_tensor *y);
DR_MUST_USE dr_status dr_adapter_conv_backward(dr_context *cx, const dr_adapter *a,
                                               const dr_conv2d_geom *geom, const dr_tensor *x,
                                               const dr_tensor *dy, dr_tensor *dx);
/*
 * out (1,1) of the compute dtype: the sum of squares of D, without dropout and magnitude; of
 * KRONECKER without the scalar, as LyCORIS. w: the layer's weight.
 */
DR_MUST_USE dr_status dr_adapter_square(dr_context *cx, const dr_adapter *a, const dr_param *w,
                                        dr_tensor *out);

#endif
