/*
 * tests/ops/tolerances.h - accepted errors of the f32 backends against ref64, one line per op:
 * X(op, relative L2 error, largest error over largest value).
 *
 * Origin: `DR_OP_MEASURE=1 build/tests/test_op_backends`: the largest over all scenarios, 10 seeds
 * and the backends ref and cpu (oneDNN 2.6.3), times 4; 2026-11-22, AMD EPYC with AVX-512.
 * DR_OP_NARROW_TOLERANCES: ref and cpu with F16 and BF16 storage, the same way on 2026-11-28 (Xeon
 * with AVX-512): X(op, the two errors in F16, the two in BF16). The oracle gets the same rounded
 * inputs, so these are the roundings of the outputs: 2^-11 and 2^-8.
 * conv2d_dx was measured again on 2026-11-28, when "many channels" was added: sums of 2340
 * products. An op that only moves data or shares its f32 formula with ref64 is exact: 0.
 */
#ifndef DR_OP_TOLERANCES_H
#define DR_OP_TOLERANCES_H

/* clang-format off */
#define DR_OP_TOLERANCES(X) \
    X(linear, 8.4e-07, 2.1e-06)              \
    X(linear_dx, 6.5e-07, 1.6e-06)           \
    X(linear_dw, 7.6e-07, 1.4e-06)           \
    X(conv2d, 1.2e-06, 3.3e-06)              \
    X(conv2d_dx, 2.2e-06, 5.4e-06)           \
    X(conv2d_dw, 1.7e-06, 1.9e-06)           \
    X(groupnorm, 3.7e-07, 8.1e-07)           \
    X(groupnorm_backward, 8.3e-07, 1.3e-06)  \
    X(layernorm, 3.6e-07, 8.1e-07)           \
    X(layernorm_backward, 7.7e-07, 1.4e-06)  \
    X(attention, 1.4e-06, 3.6e-06)           \
    X(attention_backward, 1.7e-06, 3.5e-06)  \
    X(activation, 2.3e-06, 2.3e-06)          \
    X(activation_backward, 7.5e-07, 2.2e-06) \
    X(geglu, 2.1e-06, 2.1e-06)               \
    X(geglu_backward, 9.0e-07, 8.8e-07)      \
    X(add, 1.1e-06, 1.1e-06)                 \
    X(add_rows, 1.8e-07, 2.2e-07)            \
    X(sum_rows, 7.0e-07, 1.9e-06)            \
    X(cast, 0.0e+00, 0.0e+00)    \
    X(concat, 0.0e+00, 0.0e+00)              \
    X(split, 1.4e-07, 2.3e-07)               \
    X(multiply, 1.6e-07, 2.3e-07)            \
    X(dropout, 1.1e-07, 2.2e-07)             \
    X(swap, 0.0e+00, 0.0e+00)                \
    X(upsample2x, 0.0e+00, 0.0e+00)          \
    X(upsample2x_backward, 2.6e-06, 2.6e-06) \
    X(embedding, 1.5e-07, 2.0e-07)           \
    X(embedding_backward, 3.0e-07, 5.6e-07)  \
    X(timestep_embedding, 0.0e+00, 0.0e+00)  \
    X(mix, 4.0e-07, 4.0e-07)                 \
    X(mse, 5.2e-07, 5.2e-07)                 \
    X(posterior_sample, 4.6e-07, 4.6e-07)    \
    X(sumsq, 2.9e-15, 2.9e-15)               \
    X(checksum, 0.0e+00, 0.0e+00)            \
    X(adamw, 6.7e-07, 8.8e-07)               \
    X(lerp, 2.0e-07, 2.6e-07)            \
    X(lion, 3.0e-07, 3.5e-07)            \
    X(momentum, 2.4e-07, 3.8e-07)        \
    X(dadapt, 2.6e-06, 2.6e-06)          \
    X(adam_apply, 2.1e-07, 3.7e-07)      \
    X(schedule_free, 2.3e-06, 2.3e-06)   \
    X(adafactor_moments, 3.3e-07, 5.1e-07) \
    X(adafactor_sums, 2.5e-07, 2.9e-07)  \
    X(adafactor_apply, 2.7e-07, 5.0e-07) \
    X(blockwise, 5.8e-07, 6.8e-07)

#define DR_OP_NARROW_TOLERANCES(X) \
    X(linear, 1.7e-03, 1.8e-03, 9.2e-03, 1.3e-02) \
    X(linear_dx, 1.9e-03, 1.9e-03, 8.5e-03, 1.5e-02) \
    X(linear_dw, 1.3e-03, 1.9e-03, 1.0e-02, 1.4e-02) \
    X(conv2d, 1.7e-03, 1.8e-03, 9.2e-03, 1.3e-02) \
    X(conv2d_dx, 1.9e-03, 1.9e-03, 8.7e-03, 1.3e-02) \
    X(conv2d_dw, 1.5e-03, 1.9e-03, 1.2e-02, 1.5e-02) \
    X(groupnorm, 1.3e-03, 1.8e-03, 9.2e-03, 1.3e-02) \
    X(groupnorm_backward, 1.6e-03, 1.7e-03, 1.4e-02, 1.5e-02) \
    X(layernorm, 1.0e-03, 1.7e-03, 1.0e-02, 1.3e-02) \
    X(layernorm_backward, 1.1e-03, 1.8e-03, 1.0e-02, 1.3e-02) \
    X(attention, 9.1e-04, 1.7e-03, 7.3e-03, 1.4e-02) \
    X(attention_backward, 1.1e-03, 2.7e-03, 8.8e-03, 2.2e-02) \
    X(activation, 1.2e-03, 1.3e-03, 1.1e-02, 1.1e-02) \
    X(activation_backward, 1.4e-03, 1.9e-03, 8.2e-03, 1.3e-02) \
    X(geglu, 1.3e-03, 1.6e-03, 9.1e-03, 1.2e-02) \
    X(geglu_backward, 1.2e-03, 1.8e-03, 8.7e-03, 1.3e-02) \
    X(add, 1.5e-03, 2.1e-03, 1.4e-02, 1.4e-02) \
    X(add_rows, 1.8e-03, 1.8e-03, 1.5e-02, 1.5e-02) \
    X(sum_rows, 9.3e-04, 1.7e-03, 7.2e-03, 1.2e-02) \
    X(concat, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(split, 9.7e-04, 1.8e-03, 8.6e-03, 1.3e-02) \
    X(multiply, 1.5e-03, 1.8e-03, 1.3e-02, 1.4e-02) \
    X(dropout, 8.6e-04, 1.6e-03, 6.8e-03, 1.3e-02) \
    X(swap, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(upsample2x, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(upsample2x_backward, 1.5e-03, 1.8e-03, 1.2e-02, 1.2e-02) \
    X(cast, 1.4e-03, 1.7e-03, 9.9e-03, 1.5e-02) \
    X(embedding, 1.4e-03, 1.9e-03, 1.1e-02, 1.5e-02) \
    X(embedding_backward, 2.1e-03, 3.7e-03, 1.7e-02, 3.0e-02) \
    X(timestep_embedding, 5.7e-04, 9.7e-04, 4.5e-03, 7.8e-03) \
    X(mix, 1.2e-03, 1.6e-03, 8.1e-03, 1.4e-02) \
    X(mse, 1.4e-03, 1.9e-03, 1.2e-02, 1.4e-02) \
    X(posterior_sample, 1.5e-03, 1.5e-03, 1.3e-02, 1.4e-02) \
    X(sumsq, 1.5e-15, 1.5e-15, 0.0e+00, 0.0e+00)
/* clang-format on */

#endif
