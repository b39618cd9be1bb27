/*
 * What the optimizer trains: the U-Net and the text encoder, each with its own learning rate.
 */
#include "base/log.h"
#include "train/run_internal.h"

/* The trainable parameters of the set, in the run's arena. */
static dr_optim_group group_of(dr_run *r, const char *name, const dr_params *set, double lr)
{
    const dr_param **at = dr_arena_array(&r->arena, set->n, sizeof *at);
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (set->at[i]->trainable) {
            at[n++] = set->at[i];
        }
    }
    return (dr_optim_group){.name = name, .at = at, .n = n, .lr = lr};
}

dr_status dr_run_show_weights(dr_run *r, bool on)
{
    dr_context cx;
    dr_context_init(&cx, r->backend, r->pool, r->c->threads);
    return on ? dr_optimizer_eval(r->optimizer, &cx) : dr_optimizer_train(r->optimizer, &cx);
}

static dr_status check_settings(const dr_run *r)
{
    const dr_train_config *c = r->c;
    const char *why = NULL;
    if (dr_optim_is_schedule_free(c->optimizer.kind) && c->ema_decay > 0.0) {
        DR_FAIL(DR_INVALID, "--ema_decay: %s keeps an average of its own",
                dr_optim_kind_name(c->optimizer.kind));
    }
    if (!c->fused_backward) {
        return DR_OK;
    }
    if (r->n_leaves > 1) {
        why = "one batch per step: no --gradient_accumulation_steps, one rank, one shard";
    } else if (c->max_grad_norm > 0.0) {
        why = "--max_grad_norm 0: clipping has to know all gradients first";
    } else if (c->dump_dir != NULL) {
        why = "no --dump_dir: gradients are gone when it would write them";
    } else if (dr_optim_is_schedule_free(c->optimizer.kind)) {
        why = "an optimizer that is not schedule-free: those keep weights where gradients were";
    }
    if (why != NULL) {
        DR_FAIL(DR_INVALID, "--fused_backward_pass needs %s", why);
    }
    return DR_OK;
}

dr_status dr_run_create_optimizer(dr_run *r)
{
    dr_log_same_on_all_ranks(true);
    dr_optim_settings_advise(&r->c->optimizer, r->c->lr, r->c->max_grad_norm);
    dr_log_same_on_all_ranks(false);
    DR_TRY(check_settings(r));
    r->groups[DR_GROUP_UNET] = group_of(r, "unet", &r->net.unet_params, r->c->lr);
    r->groups[DR_GROUP_TEXT_ENCODER] =
        group_of(r, "text_encoder", &r->net.text_params, r->c->lr_text_encoder);
    DR_TRY(dr_optimizer_create(&(dr_optimizer_config){.settings = r->c->optimizer,
                                                      .groups = r->groups,
                                                      .n_groups = DR_GROUP_COUNT,
                                                      .by_segment = r->c->fused_backward,
                                                      .ema_decay = r->c->ema_decay},
                               &r->optimizer));
    if (r->c->fused_backward && !dr_optimizer_is_local(r->optimizer)) {
        DR_FAIL(DR_INVALID,
                "--fused_backward_pass: %s needs sums over all gradients before it can step",
                dr_optim_kind_name(r->c->optimizer.kind));
    }
    return DR_OK;
}
