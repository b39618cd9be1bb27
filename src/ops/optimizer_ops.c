#include "ops/optimizer_ops.h"

#include "ops/ops_internal.h"

dr_status dr_sumsq(dr_context *cx, const dr_sumsq_args *a)
{
    dr_ops_check_activation(cx, "sumsq", "x", a->x);
    dr_ops_check_shape("sumsq", "out", a->out, DR_F64, 1, DR_DIMS(1));
    DR_DISPATCH(cx, sumsq, a);
}

dr_status dr_adamw(dr_context *cx, const dr_adamw_args *a)
{
    dr_ops_check_activation(cx, "adamw", "p", a->p);
    dr_ops_check_same("adamw", "g", a->g, a->p);
    dr_ops_check_same("adamw", "m", a->m, a->p);
    dr_ops_check_same("adamw", "v", a->v, a->p);
    DR_CHECK(a->step >= 1, "adamw: step %lld", (long long)a->step);
    DR_DISPATCH(cx, adamw, a);
}
