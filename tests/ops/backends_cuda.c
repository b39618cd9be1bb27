/*
 * The CUDA backend as a subject of the op tests, once per dtype.
 */
#include "backend/cuda/backend_cuda.h"
#include "backends.h"
#include "dr_test.h"
#include "tolerances_cuda.h"

enum { SUBJECTS = 5, TYPES = 3 };

#define NARROW(what, type, wide)                                                                   \
    {                                                                                              \
        .name = what, .narrow = true, .dtype = (type), .wide_gradients = (wide),                   \
        .no_optimizer = true                                                                       \
    }

const dr_op_subject *dr_op_subjects(size_t *n)
{
    static dr_op_subject subjects[SUBJECTS] = {
        {.name = "cuda F32"},
        NARROW("cuda F16", DR_F16, true),
        NARROW("cuda BF16", DR_BF16, true),
        NARROW("cuda F16, gradients too", DR_F16, false),
        NARROW("cuda BF16, gradients too", DR_BF16, false),
    };
    static const dr_backend *cuda;
    if (cuda == NULL && dr_cuda_open(0, DR_CUDA_TF32_OFF, &cuda) != DR_OK) {
        print_error("%s\n", dr_error_message());
        *n = 0;
        return NULL;
    }
    for (size_t i = 0; i < SUBJECTS; i++) {
        subjects[i].backend = cuda;
    }
    *n = SUBJECTS;
    return subjects;
}

void dr_op_subjects_close(void)
{
    dr_cuda_close();
}

dr_op_tolerance dr_op_tolerance_of(const dr_op_subject *s, dr_op_id op)
{
    static const dr_op_tolerance table[DR_OP_COUNT][TYPES] = {
#define X(name, l2, max, l2_half, max_half, l2_bf16, max_bf16)                                     \
    [DR_OP_##name] = {{l2, max}, {l2_half, max_half}, {l2_bf16, max_bf16}},
        DR_OP_CUDA_TOLERANCES(X)
#undef X
    };
    return table[op][!s->narrow ? 0 : (s->dtype == DR_F16 ? 1 : 2)];
}
