#include "backend/cpu/backend_cpu.h"

#include "backend/cpu/cpu_narrow.h"

static size_t work_bytes(const dr_context *cx, dr_op_id op, const void *args)
{
    switch (op) {
    case DR_OP_linear:
        return dr_cpu_linear_work(cx, args);
    case DR_OP_linear_dx:
        return dr_cpu_linear_dx_work(cx, args);
    case DR_OP_conv2d:
        return dr_cpu_conv2d_work(cx, args);
    case DR_OP_conv2d_dx:
        return dr_cpu_conv2d_dx_work(cx, args);
    case DR_OP_conv2d_dw:
        return dr_cpu_conv2d_dw_work(cx, args);
    case DR_OP_groupnorm:
        return dr_cpu_groupnorm_work(cx, args);
    case DR_OP_groupnorm_backward:
        return dr_cpu_groupnorm_backward_work(cx, args);
    case DR_OP_attention:
        return dr_cpu_attention_work(cx, args);
    case DR_OP_attention_backward:
        return dr_cpu_attention_backward_work(cx, args);
    case DR_OP_lion:
        return dr_cpu_update_sums_work(dr_numel(((const dr_lion_args *)args)->p));
    case DR_OP_dadapt:
        return dr_cpu_update_sums_work(dr_numel(((const dr_dadapt_args *)args)->p));
    case DR_OP_adafactor_sums:
        return dr_cpu_adafactor_sums_work(args);
    case DR_OP_adafactor_apply:
        return dr_cpu_adafactor_apply_work(args);
    case DR_OP_sumsq:
        return dr_cpu_sumsq_work(cx, args);
    case DR_OP_checksum:
        return dr_cpu_checksum_work(args);
    default:
        return 0;
    }
}

static dr_widening widens(dr_op_id op, const void *args)
{
    switch (op) {
    case DR_OP_cast:
    case DR_OP_embedding:
    case DR_OP_embedding_backward:
    case DR_OP_sumsq:
        return DR_WIDEN_NOTHING;
    case DR_OP_linear:
        return dr_cpu_weight_widening(((const dr_linear_args *)args)->x);
    case DR_OP_linear_dx:
        return dr_cpu_weight_widening(((const dr_linear_dx_args *)args)->dy);
    case DR_OP_conv2d:
        return dr_cpu_weight_widening(((const dr_conv2d_args *)args)->y);
    case DR_OP_conv2d_dx:
        return dr_cpu_weight_widening(((const dr_conv2d_dx_args *)args)->dx);
    default:
        return DR_WIDEN_ALL;
    }
}

const dr_backend dr_backend_cpu = {
    .name = "cpu",
    .device = &dr_host_device,
    .compute = DR_F32,
    .work_bytes = work_bytes,
    .widens = widens,
    .sets_fresh = true,
#define X(op, group) .op = dr_cpu_##op,
#include "ops/op_list.def"
#undef X
};
