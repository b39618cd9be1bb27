#include "backend/ref/backend_ref.h"
#include "backend/ref/ref_internal.h"

static size_t work_bytes(const dr_context *cx, dr_op_id op, const void *args)
{
    switch (op) {
    case DR_OP_conv2d:
    case DR_OP_conv2d_dx:
    case DR_OP_conv2d_dw:
        return DR_REF(conv2d_work_bytes)(op, args);
    case DR_OP_attention:
        return DR_REF(attention_work_bytes)(cx, args);
    default:
        return 0;
    }
}

/* The others read and write every type. */
static dr_widening widens(dr_op_id op, const void *args)
{
    (void)args;
    const bool takes = op == DR_OP_cast || op == DR_OP_embedding ||
                       op == DR_OP_embedding_backward || op == DR_OP_sumsq;
    return takes ? DR_WIDEN_NOTHING : DR_WIDEN_ALL;
}

#ifdef DR_REF_F64
const dr_backend dr_backend_ref_f64 = {
    .name = "ref64",
#else
const dr_backend dr_backend_ref_f32 = {
    .name = "ref",
#endif
    .device = &dr_host_device,
    .compute = DR_REAL_DTYPE,
    .work_bytes = work_bytes,
    .widens = widens,
#define X(op, group) .op = DR_REF(op),
#include "ops/op_list.def"
#undef X
};
