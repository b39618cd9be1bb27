#include "backends.h"

#include "backend/ref/backend_ref.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif
#include "tolerances.h"

const dr_backend *const dr_op_backends[] = {
    &dr_backend_ref_f32,
#ifdef DR_HAVE_CPU_BACKEND
    &dr_backend_cpu,
#endif
    NULL,
};

dr_op_tolerance dr_op_tolerance_of(dr_op_id op)
{
    static const dr_op_tolerance table[DR_OP_COUNT] = {
#define X(name, l2, max) [DR_OP_##name] = {l2, max},
        DR_OP_TOLERANCES(X)
#undef X
    };
    return table[op];
}
