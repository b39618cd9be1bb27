/*
 * tests/ops/tolerances_cuda.h - accepted errors of the CUDA backend against ref64, one line per op:
 * X(op, relative L2 error, largest error over largest value: in F32, in F16, in BF16).
 *
 * Origin: `DR_OP_MEASURE=1 build/tests/test_cuda_emulated_ops`: the largest over all scenarios and
 * 10 seeds, times 4; 2026-11-22, emulated GPU. The oracle gets the same rounded inputs, so F16 and
 * BF16 show the rounding of the outputs (2^-11, 2^-8) and of what is stored between two ops.
 * timestep_embedding in F32 is exact there; a GPU's sin and cos may differ in the last place (2
 * x 1.2e-7). Optimizers compute in F32 only.
 */
#ifndef DR_OP_TOLERANCES_CUDA_H
#define DR_OP_TOLERANCES_CUDA_H

/* clang-format off */
#define DR_OP_CUDA_TOLERANCES(X) \
    X(linear, 6.2e-07, 1.3e-06, 1.7e-03, 1.8e-03, 9.2e-03, 1.3e-02)               \
    X(linear_dx, 6.1e-07, 1.4e-06, 1.9e-03, 1.9e-03, 8.5e-03, 1.5e-02)            \
    X(linear_dw, 5.8e-07, 1.2e-06, 1.3e-03, 1.9e-03, 1.0e-02, 1.4e-02)            \
    X(conv2d, 6.9e-07, 1.1e-06, 1.7e-03, 1.8e-03, 9.2e-03, 1.3e-02)               \
    X(conv2d_dx, 6.7e-07, 1.3e-06, 1.9e-03, 1.9e-03, 8.7e-03, 1.3e-02)            \
    X(conv2d_dw, 1.6e-06, 3.2e-06, 1.5e-03, 1.9e-03, 1.2e-02, 1.5e-02)            \
    X(groupnorm, 9.8e-07, 1.8e-06, 1.3e-03, 1.8e-03, 9.2e-03, 1.3e-02)            \
    X(groupnorm_backward, 1.6e-06, 1.6e-06, 1.6e-03, 1.7e-03, 1.4e-02, 1.5e-02)   \
    X(layernorm, 3.0e-07, 6.9e-07, 1.0e-03, 1.7e-03, 1.0e-02, 1.3e-02)            \
    X(layernorm_backward, 4.5e-07, 7.6e-07, 1.1e-03, 1.8e-03, 1.0e-02, 1.3e-02)   \
    X(attention, 1.2e-06, 3.1e-06, 1.4e-03, 2.3e-03, 1.2e-02, 1.9e-02)            \
    X(attention_backward, 1.5e-06, 3.2e-06, 1.6e-03, 3.9e-03, 1.3e-02, 3.0e-02)   \
    X(activation, 2.3e-06, 2.3e-06, 1.2e-03, 1.3e-03, 1.1e-02, 1.1e-02)           \
    X(activation_backward, 7.4e-07, 2.2e-06, 1.4e-03, 1.9e-03, 8.2e-03, 1.3e-02)  \
    X(geglu, 2.1e-06, 2.1e-06, 1.3e-03, 1.6e-03, 9.1e-03, 1.2e-02)                \
    X(geglu_backward, 8.6e-07, 8.8e-07, 1.2e-03, 1.8e-03, 8.7e-03, 1.3e-02)       \
    X(add, 1.1e-06, 1.1e-06, 1.5e-03, 2.1e-03, 1.4e-02, 1.4e-02)                  \
    X(add_rows, 1.8e-07, 2.2e-07, 1.8e-03, 1.8e-03, 1.5e-02, 1.5e-02)             \
    X(sum_rows, 3.4e-07, 5.8e-07, 9.3e-04, 1.7e-03, 7.2e-03, 1.2e-02)             \
    X(concat, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00)               \
    X(split, 1.4e-07, 2.3e-07, 9.7e-04, 1.8e-03, 8.6e-03, 1.3e-02)                \
    X(multiply, 1.6e-07, 2.3e-07, 1.5e-03, 1.8e-03, 1.3e-02, 1.4e-02)             \
    X(dropout, 1.1e-07, 2.2e-07, 8.6e-04, 1.6e-03, 6.8e-03, 1.3e-02)              \
    X(swap, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00)                 \
    X(upsample2x, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00)           \
    X(upsample2x_backward, 2.6e-06, 2.6e-06, 1.5e-03, 1.8e-03, 1.2e-02, 1.2e-02)  \
    X(cast, 0.0e+00, 0.0e+00, 1.4e-03, 1.7e-03, 9.9e-03, 1.5e-02) \
    X(embedding, 1.5e-07, 2.0e-07, 1.4e-03, 1.9e-03, 1.1e-02, 1.5e-02)            \
    X(embedding_backward, 2.5e-07, 5.0e-07, 1.6e-03, 1.9e-03, 1.1e-02, 1.5e-02)   \
    X(timestep_embedding, 2.4e-07, 2.4e-07, 5.7e-04, 9.7e-04, 4.5e-03, 7.8e-03)   \
    X(mix, 4.0e-07, 4.0e-07, 1.2e-03, 1.6e-03, 8.1e-03, 1.4e-02)                  \
    X(mse, 1.3e-06, 1.5e-06, 1.4e-03, 1.7e-03, 1.2e-02, 1.4e-02) \
    X(posterior_sample, 4.6e-07, 4.6e-07, 1.7e-03, 2.0e-03, 1.3e-02, 1.4e-02)     \
    X(sumsq, 4.4e-15, 4.4e-15, 7.2e-16, 7.2e-16, 0.0e+00, 0.0e+00)                \
    X(checksum, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00)             \
    X(lerp, 2.0e-07, 2.6e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(momentum, 2.4e-07, 3.8e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(adamw, 6.7e-07, 8.8e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(lion, 3.0e-07, 3.5e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(dadapt, 2.6e-06, 2.6e-06, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(adam_apply, 2.1e-07, 3.7e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(schedule_free, 2.3e-06, 2.3e-06, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(adafactor_moments, 3.3e-07, 5.1e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(adafactor_sums, 2.5e-07, 2.9e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(adafactor_apply, 2.7e-07, 3.9e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00) \
    X(blockwise, 5.8e-07, 6.8e-07, 0.0e+00, 0.0e+00, 0.0e+00, 0.0e+00)
/* clang-format on */

#endif
