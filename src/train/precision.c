#include "train/precision.h"

dr_dtype dr_precision_compute(dr_precision p)
{
    if (p.kind == DR_PRECISION_F32) {
        return DR_F32;
    }
    return p.bf16 ? DR_BF16 : DR_F16;
}

dr_dtype dr_precision_trained(dr_precision p)
{
    return p.kind == DR_PRECISION_FULL ? dr_precision_compute(p) : DR_F32;
}

dr_dtype dr_precision_grads(dr_precision p)
{
    return p.narrow_grads ? dr_precision_compute(p) : DR_F32;
}

bool dr_precision_has_masters(dr_precision p)
{
    return p.kind == DR_PRECISION_MIXED;
}

bool dr_precision_scales_loss(dr_precision p)
{
    return p.kind != DR_PRECISION_F32 && !p.bf16;
}

dr_loss_scale dr_loss_scale_init(dr_precision p)
{
    return (dr_loss_scale){.scale = dr_precision_scales_loss(p) ? 65536.0 : 1.0};
}

void dr_loss_scale_update(dr_loss_scale *s, bool finite)
{
    enum { GROWTH_INTERVAL = 2000 };
    if (!finite) {
        s->scale *= 0.5;
        s->good = 0;
        s->skipped++;
    } else if (++s->good == GROWTH_INTERVAL) {
        s->scale *= 2.0;
        s->good = 0;
    }
}
