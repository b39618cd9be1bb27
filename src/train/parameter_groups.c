/*
 * What the optimizer trains: the U-Net and the text encoder, each with its own learning rate.
 */
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

dr_status dr_run_create_optimizer(dr_run *r)
{
    r->groups[DR_GROUP_UNET] = group_of(r, "unet", &r->net.unet_params, r->c->lr);
    r->groups[DR_GROUP_TEXT_ENCODER] =
        group_of(r, "text_encoder", &r->net.text_params, r->c->lr_text_encoder);
    return dr_optimizer_create(&(dr_optimizer_config){.settings = r->c->optimizer,
                                                      .groups = r->groups,
                                                      .n_groups = DR_GROUP_COUNT},
                               &r->optimizer);
}
