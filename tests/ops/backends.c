#include "backends.h"

#include "backend/ref/backend_ref.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif
#include "tolerances.h"

const dr_op_subject *dr_op_subjects(size_t *n)
{
    static const dr_op_subject subjects[] = {
        {.name = "ref", .backend = &dr_backend_ref_f32},
#ifdef DR_HAVE_CPU_BACKEND
        {.name = "cpu", .backend = &dr_backend_cpu},
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
    (void)s;
    static const dr_op_tolerance table[DR_OP_COUNT] = {
#define X(name, l2, max) [DR_OP_##name] = {l2, max},
        DR_OP_TOLERANCES(X)
#undef X
    };
    return table[op];
}
