#include "ops/cast.h"

#include "base/philox.h"
#include "ops/ops_internal.h"

void dr_cast_random(const dr_cast_args *a, uint64_t block, uint16_t out[8])
{
    dr_philox p;
    uint32_t draw[4];
    dr_philox_init(&p, a->seed, DR_RANDOM_ROUNDING, a->time, block);
    dr_philox4x32(p.counter, p.key, draw);
    for (int i = 0; i < 4; i++) {
        out[2 * i] = (uint16_t)draw[i];
        out[2 * i + 1] = (uint16_t)(draw[i] >> 16);
    }
}

dr_status dr_cast(dr_context *cx, const dr_cast_args *a)
{
    DR_CHECK(a->x != NULL && a->y != NULL, "cast: x or y is missing");
    dr_ops_check_shape("cast", "y", a->y, a->y->dtype, a->x->rank, a->x->dim);
    DR_CHECK(!a->stochastic || (a->x->dtype == DR_F32 && a->y->dtype == DR_BF16),
             "cast: stochastic from %s to %s", dr_dtype_name(a->x->dtype),
             dr_dtype_name(a->y->dtype));
    DR_CHECK(a->first % 8 == 0, "cast: a piece that starts inside a block");
    DR_DISPATCH(cx, cast, a);
}
