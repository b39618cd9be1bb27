#include "models/vae/flow.h"

#include "ops/layout.h"

dr_flow dr_flow_begin(const dr_tensor *t)
{
    return (dr_flow){.t = *t};
}

void dr_flow_end(dr_context *cx, dr_flow *x)
{
    if (x->frame != 0) {
        dr_frame_end(cx, x->frame);
        x->frame = 0;
    }
}

void dr_flow_advance(dr_context *cx, dr_flow *x, const dr_tensor *y, dr_frame frame)
{
    dr_flow_end(cx, x);
    *x = (dr_flow){.t = *y, .frame = frame};
}

dr_status dr_flow_conv(dr_context *cx, dr_flow *x, const dr_conv_layer *l)
{
    dr_frame f = dr_frame_begin(cx);
    dr_tensor y = dr_conv_output(cx, f, l, &x->t);
    DR_TRY(dr_conv_forward(cx, l, &x->t, &y));
    dr_flow_advance(cx, x, &y, f);
    return DR_OK;
}

dr_status dr_flow_upsample(dr_context *cx, dr_flow *x, const dr_conv_layer *l)
{
    const int64_t *d = x->t.dim;
    dr_frame f = dr_frame_begin(cx);
    dr_tensor y = dr_new(cx, f, 4, DR_DIMS(d[0], 2 * d[1], 2 * d[2], d[3]));
    DR_TRY(dr_upsample2x(cx, &(dr_upsample2x_args){.x = &x->t, .y = &y}));
    dr_flow_advance(cx, x, &y, f);
    return dr_flow_conv(cx, x, l);
}

dr_status dr_flow_norm(dr_context *cx, dr_flow *x, const dr_norm_layer *l)
{
    dr_frame f = dr_frame_begin(cx);
    dr_frame scratch = dr_frame_begin(cx);
    dr_tensor y = dr_new_like(cx, f, &x->t);
    dr_tensor stats = dr_norm_stats(cx, scratch, l, &x->t);
    DR_TRY(dr_norm_forward(cx, l, &x->t, &y, &stats));
    dr_frame_end(cx, scratch);
    dr_flow_advance(cx, x, &y, f);
    return DR_OK;
}
