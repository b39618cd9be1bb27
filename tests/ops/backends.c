#include "backends.h"

#include "backend/ref/backend_ref.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif
#include "tolerances.h"

#define NARROW(what, table, type, wide)                                                            \
    {                                                                                              \
        .name = what, .backend = &(table), .narrow = true, .dtype = (type),                        \
        .wide_gradients = (wide), .no_optimizer = true                                             \
    }

const dr_op_subject *dr_op_subjects(size_t *n)
{
    static const dr_op_subject subjects[] = {
        {.name = "ref", .backend = &dr_backend_ref_f32},
        NARROW("ref F16", dr_backend_ref_f32, DR_F16, true),
        NARROW("ref BF16", dr_backend_ref_f32, DR_BF16, true),
#ifdef DR_HAVE_CPU_BACKEND
        {.name = "cpu", .backend = &dr_backend_cpu},
        NARROW("cpu F16", dr_backend_cpu, DR_F16, true),
        NARROW("cpu BF16", dr_backend_cpu, DR_BF16, true),
        NARROW("cpu F16, gradients too", dr_backend_cpu, DR_F16, false),
        NARROW("cpu BF16, gradients too", dr_backend_cpu, DR_BF16, false),
#endif
    };
    *n = sizeof subjects / sizeof *subjects;
    return subjects;
}

void dr_op_subjects_close(void)
{
}

dr_op_tolerance dr_op_tolerance_of(const dr_op_subject *s, dr_op_id op)
{
    static const dr_op_tolerance wide[DR_OP_COUNT] = {
#define X(name, l2, max) [DR_OP_##name] = {l2, max},
        DR_OP_TOLERANCES(X)
#undef X
    };
    static const dr_op_tolerance narrow[DR_OP_COUNT][2] = {
#define X(name, l2_half, max_half, l2_bf16, max_bf16)                                              \
    [DR_OP_##name] = {{l2_half, max_half}, {l2_bf16, max_bf16}},
        DR_OP_NARROW_TOLERANCES(X)
#undef X
    };
    return s->narrow ? narrow[op][s->dtype == DR_F16 ? 0 : 1] : wide[op];
}
