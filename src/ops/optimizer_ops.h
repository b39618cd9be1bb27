/*
 * ops/optimizer_ops.h - sums of squares and the updates of optimizers over flat memory.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 *
 * Settings are doubles; each product of settings is formed in double and rounded once, as PyTorch
 * does with Python's numbers. fma(a, b, c) in a formula is one rounding, as PyTorch's CPU kernels
 * have it (lerp_, add_ with alpha, addcmul_). g = grad_scale * gradient in all of them; p, states
 * and gradient are (n) of the compute dtype.
 */
#ifndef DR_OPS_OPTIMIZER_OPS_H
#define DR_OPS_OPTIMIZER_OPS_H

#include "ops/context.h"

/* out[0] (F64) += sum of x^2 in double, in a fixed order that does not depend on threads. */
struct dr_sumsq_args {
    const dr_tensor *x; /* the compute dtype, F16 or BF16 */
    dr_tensor *out;     /* (1) F64 */
};
DR_MUST_USE dr_status dr_sumsq(dr_context *cx, const dr_sumsq_args *a);

/*
 * A checksum of the bits, the same for any order of summation and on every backend. Element i, as
 * an unsigned number x[i], has h = mix(x[i] ^ (i + 1) 0x9e3779b97f4a7c15), mix: h ^= h >> 30,
 * h *= 0xbf58476d1ce4e5b9, h ^= h >> 27, h *= 0x94d049bb133111eb, h ^= h >> 31, in 64 bits;
 * out[k] += the sum of bits 16 k .. 16 k + 15 of all h, exact up to 2^37 elements.
 */
enum { DR_CHECKSUM_PARTS = 4 };
struct dr_checksum_args {
    const dr_tensor *x; /* elements of 4 or 2 bytes */
    dr_tensor *out;     /* (4) F64 */
};
DR_MUST_USE dr_status dr_checksum(dr_context *cx, const dr_checksum_args *a);

/*
 * torch.optim.AdamW: p *= 1 - lr wd; m = lerp(m, g, 1-b1); v = fma((1-b2) g, g, b2 v);
 * p += -(lr/(1-b1^step)) m / (sqrt(v)/sqrt(1-b2^step) + eps).
 */
struct dr_adamw_args {
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
    int64_t step; /* of this update, from 1 */
    dr_tensor *p, *m, *v;
    const dr_tensor *g;
};
DR_MUST_USE dr_status dr_adamw(dr_context *cx, const dr_adamw_args *a);

/* torch.lerp: y = fma(w, x - y, y) for |w| < 0.5, else fma(w - 1, x - y, x). */
struct dr_lerp_args {
    double weight;
    const dr_tensor *x;
    dr_tensor *y;
};
DR_MUST_USE dr_status dr_lerp(dr_context *cx, const dr_lerp_args *a);

/*
 * lion-pytorch: p *= 1 - lr wd; u = sign(fma(1-b1, g, b1 m)); p = fma(-lr, u, p);
 * m = fma(rate, g, b2 m). With s (D-Adaptation's Lion): sums[0] += u s, with the old s;
 * s = fma(s_rate, u, s_keep s); sums[1] += |s|.
 */
struct dr_lion_args {
    double lr, beta1, beta2, rate, weight_decay, grad_scale;
    double s_keep, s_rate;
    dr_tensor *p, *m;
    const dr_tensor *g;
    dr_tensor *s, *sums; /* (n), (3) F64 added to; both NULL: plain Lion */
};
DR_MUST_USE dr_status dr_lion(dr_context *cx, const dr_lion_args *a);

/*
 * torch.optim.SGD with momentum: g = fma(wd, p, g); m = first ? g : fma(1-dampening, g, mu m);
 * u = nesterov ? fma(mu, m, g) : m; p = fma(-lr, u, p).
 */
struct dr_momentum_args {
    double lr, momentum, dampening, weight_decay, grad_scale;
    bool nesterov, first;
    dr_tensor *p, *m;
    const dr_tensor *g;
};
DR_MUST_USE dr_status dr_momentum(dr_context *cx, const dr_momentum_args *a);

typedef enum dr_dadapt_kind {
    DR_DADAPT_PRODIGY, /* prodigyopt's Prodigy            */
    DR_DADAPT_ADAM,    /* dadaptation's DAdaptAdam        */
    DR_DADAPT_PREPRINT /* dadaptation's DAdaptAdamPreprint */
} dr_dadapt_kind;

/*
 * The moments of an update and what the estimate of d is made of; p is moved by dr_adam_apply.
 * g = fma(l2, p, g);
 *   PRODIGY: sums[0] += g (p0 - p);   ADAM: sums[0] += g s / (sqrt(v) + eps), with the old v
 * m = fma(m_rate, g, m_keep m); v = fma(v_rate g, g, v_keep v); s = fma(s_rate, g, s_keep s)
 *   PREPRINT: sums[0] += g^2 / (sqrt(v) + eps), sums[2] += s^2 / (sqrt(v) + eps), with the new v
 * sums[1] += |s|. Sums are in double, in a fixed order that does not depend on threads.
 */
struct dr_dadapt_args {
    dr_dadapt_kind kind;
    double grad_scale, l2, eps;
    double m_keep, m_rate, v_keep, v_rate, s_keep, s_rate;
    const dr_tensor *p, *g;
    const dr_tensor *p0; /* PRODIGY; NULL for the others */
    dr_tensor *m, *v, *s;
    dr_tensor *sums; /* (3) F64, added to */
};
DR_MUST_USE dr_status dr_dadapt(dr_context *cx, const dr_dadapt_args *a);

/* p = fma(-decay, p, p); p += -rate m / (sqrt(v) + eps). */
struct dr_adam_apply_args {
    double decay, rate, eps;
    dr_tensor *p;
    const dr_tensor *m, *v;
};
DR_MUST_USE dr_status dr_adam_apply(dr_context *cx, const dr_adam_apply_args *a);

/*
 * schedulefree's AdamW, RAdam and SGD: v = fma((1-b2) g, g, b2 v); u = g / (sqrt(v/correction) +
 * eps), or g; u = fma(wd, y, u); y = lerp(y, z, average); y = fma(y_rate, u, y);
 * z = fma(-lr, u, z).
 */
struct dr_schedule_free_args {
    double lr, beta2, eps, correction, weight_decay, average, y_rate, grad_scale;
    bool normalized; /* false: u = g (SGD, RAdam's first steps) */
    dr_tensor *y, *z;
    dr_tensor *v; /* NULL: there is none (SGD) */
    const dr_tensor *g;
};
DR_MUST_USE dr_status dr_schedule_free(dr_context *cx, const dr_schedule_free_args *a);

/*
 * transformers' Adafactor. A factored tensor is (outer,a,b,inner) in memory, its second moment
 * row (outer,a,inner) = means over b and col (outer,b,inner) = means over a: a matrix [O,I] is
 * (1,O,I,1), a convolution (O,KH,KW,I) is factored over KH and KW as transformers does. Otherwise
 * a = b = inner = 1 and v (n) is whole.
 */
typedef struct dr_factored {
    int64_t outer, a, b, inner;
    dr_tensor *row, *col; /* F32 as the compute dtype; NULL: not factored */
    dr_tensor *v;         /* (n); NULL: factored */
} dr_factored;

/* row, col, or v = keep old + (1 - keep) (means of) (g^2 + eps). */
struct dr_adafactor_moments_args {
    double grad_scale, keep, eps;
    const dr_tensor *g; /* (n) */
    dr_factored f;
};
DR_MUST_USE dr_status dr_adafactor_moments(dr_context *cx, const dr_adafactor_moments_args *a);

/*
 * u = g rsqrt(row / mean of row over a) rsqrt(col), or g rsqrt(v). sums[0] = sum u^2,
 * sums[1] = sum p^2.
 */
struct dr_adafactor_sums_args {
    double grad_scale;
    const dr_tensor *g, *p;
    dr_factored f;
    dr_tensor *sums; /* (3) F64, set */
};
DR_MUST_USE dr_status dr_adafactor_sums(dr_context *cx, const dr_adafactor_sums_args *a);

/*
 * rate = lr, times max(least_scale, rms(p)) when scale_parameter; u as above,
 * u *= rate / max(1, rms(u) / clip); with m: m = beta1 m + (1-beta1) u, u = m;
 * p -= weight_decay rate p; p -= u. sums[2] = rate.
 */
struct dr_adafactor_apply_args {
    double grad_scale, lr, least_scale, clip, beta1, weight_decay;
    bool scale_parameter;
    const dr_tensor *g;
    dr_tensor *p;
    dr_tensor *m; /* NULL: no first moment */
    dr_factored f;
    dr_tensor *sums; /* (3) F64, as left by dr_adafactor_sums */
};
DR_MUST_USE dr_status dr_adafactor_apply(dr_context *cx, const dr_adafactor_apply_args *a);

typedef enum dr_blockwise_kind {
    DR_BLOCKWISE_ADAM,    /* two states: signed m, unsigned v */
    DR_BLOCKWISE_LION,    /* one signed state                 */
    DR_BLOCKWISE_MOMENTUM /* one signed state                 */
} dr_blockwise_kind;

enum { DR_BLOCKWISE_BLOCK = 256 }; /* elements of one scale; bitsandbytes >= 0.44 */

/*
 * The optimizers of bitsandbytes 0.50. A state of U8 holds, per element, the index of the nearest
 * value of its code map (dr_blockwise_code) to x / absmax, absmax being the largest |x| of each
 * block of 256 consecutive elements; a state of the compute dtype is plain (small tensors).
 *   ADAM: m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 *         p += -lr c2/c1 (m / (sqrt(v) + eps c2)), c1 = 1-b1^step, c2 = sqrt(1-b2^step);
 *         p *= 1 - lr wd (after the update, as its CUDA kernels; its CPU code does so before)
 *   LION: p *= 1 - lr wd; p -= lr sign(b1 m + (1-b1) g); m = b2 m + (1-b2) g
 *   MOMENTUM: g += wd p; m = step 1 ? g : b1 m + g; p -= lr m
 * Updates use the states before they are rounded to codes. An element whose gradient is not finite
 * leaves p alone and its states become 0 (ADAM).
 */
struct dr_blockwise_args {
    dr_blockwise_kind kind;
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
    int64_t step; /* from 1 */
    dr_tensor *p;
    const dr_tensor *g;
    dr_tensor *state1, *state2;   /* (n) U8, or of the compute dtype; state2 NULL with one state */
    dr_tensor *absmax1, *absmax2; /* (ceil(n/256)) F32; NULL with plain states */
};
DR_MUST_USE dr_status dr_blockwise(dr_context *cx, const dr_blockwise_args *a);

/*
 * dr_blockwise of n tensors whose settings (kind to step) are the same, with the same bits; on a
 * GPU by one launch for many.
 */
DR_MUST_USE dr_status dr_blockwise_all(dr_context *cx, const dr_blockwise_args *a, size_t n);

/* bitsandbytes' dynamic map, ascending: signed has 0 at 127, unsigned at 0; both end in 1. */
void dr_blockwise_code(bool is_signed, float code[256]);
/* Index of the value nearest to x; halfway: the lower one. */
int dr_blockwise_nearest(const float code[256], float x);

#endif
