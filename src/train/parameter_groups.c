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

static void add_group(dr_run *r, const char *name, dr_model_part part, double lr)
{
    const dr_params *set = r->net.trained[part].set;
    if (set != NULL) {
        r->group_part[r->n_groups] = part;
        r->groups[r->n_groups++] = group_of(r, name, set, lr);
    }
}

static void choose_groups(dr_run *r)
{
    enum { MOST = 2 };
    r->groups = dr_arena_array(&r->arena, MOST, sizeof *r->groups);
    r->group_part = dr_arena_array(&r->arena, MOST, sizeof *r->group_part);
    r->group_frozen = dr_arena_array(&r->arena, MOST, sizeof *r->group_frozen);
    add_group(r, "unet", DR_PART_UNET, r->c->lr);
    add_group(r, "text_encoder", DR_PART_TEXT_ENCODER, r->c->lr_text_encoder);
}

const bool *dr_run_frozen_groups(dr_run *r, bool text)
{
    for (size_t i = 0; i < r->n_groups; i++) {
        r->group_frozen[i] = r->group_part[i] == DR_PART_TEXT_ENCODER && !text;
    }
    return r->group_frozen;
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
    choose_groups(r);
    DR_TRY(dr_optimizer_create(&(dr_optimizer_config){.settings = r->c->optimizer,
                                                      .groups = r->groups,
                                                      .n_groups = r->n_groups,
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
