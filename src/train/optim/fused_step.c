/*
 * --fused_backward_pass: the optimizer steps on a segment as soon as backward has finished it, and
 * the next segment's gradients take its memory. One leaf a step, nothing that needs all gradients.
 */
#include "train/device_numbers.h"
#include "train/run_alarms.h"

#include <math.h>

void dr_run_fused_begin(dr_run *r, dr_context *cx, int64_t global_step, bool text)
{
    r->fused = (dr_fused){.cx = cx, .st = DR_OK, .lr_factor = dr_lr_factor(&r->lr, global_step)};
    dr_optimizer_step_begin(r->optimizer,
                            &(dr_optim_step){.lr_factor = r->fused.lr_factor,
                                             .grad_scale = 1.0,
                                             .frozen = dr_run_frozen_groups(r, text)});
}

/* Sum of squares of a segment's gradients; from the first one on that is not finite, weights are
 * left alone. */
static dr_status check_gradients(dr_run *r, dr_context *cx, int64_t n)
{
    const dr_tensor g = dr_tensor_of(r->net.grads, dr_precision_grads(r->net.o.precision), 1, &n);
    double squares = 0.0;
    const dr_status st = dr_sum_of_squares(cx, &g, &squares);
    r->fused.squares += squares;
    return st;
}

/* begin and end count from the start of the trained part, [text encoder | U-Net]. */
static dr_status step_segment(dr_run *r, dr_context *cx, int64_t begin, int64_t end)
{
    const dr_trained *trained = r->net.trained;
    const bool unet = trained[DR_PART_UNET].set != NULL && begin >= trained[DR_PART_UNET].at;
    const dr_model_part part = unet ? DR_PART_UNET : DR_PART_TEXT_ENCODER;
    const int64_t at = trained[part].at;
    DR_TRY(check_gradients(r, cx, end - begin));
    if (!isfinite(r->fused.squares)) {
        r->fused.bad = dr_run_bad_gradient(r, begin, end);
        return DR_OK;
    }
    DR_TRY(dr_dead_watch_gradients(r, cx, begin, end));
    r->fused.stepped = true;
    for (size_t g = 0; g < r->n_groups; g++) {
        if (r->group_part[g] == part) {
            DR_TRY(dr_optimizer_step_range(r->optimizer, cx, g, begin - at, end - at));
        }
    }
    DR_TRY(dr_network_refresh(&r->net, cx, begin, end));
    return r->backend->device->zero(r->net.grads,
                                    (size_t)(end - begin) *
                                        dr_dtype_size(dr_precision_grads(r->net.o.precision)));
}

static void segment_ready(void *user, int64_t begin, int64_t end)
{
    dr_run *r = user;
    dr_reducer_ready(r->reducer, begin, end);
    if (r->fused.st == DR_OK && end > begin && isfinite(r->fused.squares)) {
        r->fused.st = step_segment(r, r->fused.cx, begin, end);
    }
}

dr_grad_sink dr_run_fused_sink(dr_run *r)
{
    return (dr_grad_sink){segment_ready, r};
}

dr_status dr_run_fused_end(dr_run *r, double *norm)
{
    *norm = sqrt(r->fused.squares);
    DR_TRY(r->fused.st);
    if (!isfinite(*norm)) {
        return DR_OK;
    }
    DR_TRY(dr_optimizer_step_end(r->optimizer, r->fused.cx));
    return dr_dead_watch_step(r, r->fused.lr_factor);
}
