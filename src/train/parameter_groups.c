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

dr_status dr_run_create_optimizer(dr_run *r)
{
    dr_log_same_on_all_ranks(true);
    dr_optim_settings_advise(&r->c->optimizer, r->c->lr, r->c->max_grad_norm);
    dr_log_same_on_all_ranks(false);
    r->groups[DR_GROUP_UNET] = group_of(r, "unet", &r->net.unet_params, r->c->lr);
    r->groups[DR_GROUP_TEXT_ENCODER] =
        group_of(r, "text_encoder", &r->net.text_params, r->c->lr_text_encoder);
    return dr_optimizer_create(&(dr_optimizer_config){.settings = r->c->optimizer,
                                                      .groups = r->groups,
                                                      .n_groups = DR_GROUP_COUNT},
                               &r->optimizer);
}
