/*
 * What the optimizer trains: the U-Net and the text encoder, each with its own learning rate.
 */
#include "base/log.h"
#include "train/run_internal.h"
#include "train/zero.h"

/* A group of those trainable parameters of a set that belong to it; without any, no group. */
static void add_group(dr_run *r, const char *name, dr_model_part part, double lr,
                      bool (*belongs)(const dr_param *p, const void *user), const void *user)
{
    const dr_params *set = r->net.trained[part].set;
    if (set == NULL) {
        return;
    }
    const dr_param **at = dr_arena_array(&r->arena, set->n, sizeof *at);
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (set->at[i]->trainable && (belongs == NULL || belongs(set->at[i], user))) {
            at[n++] = set->at[i];
        }
    }
    if (n > 0) {
        r->group_part[r->n_groups] = part;
        r->groups[r->n_groups++] = (dr_optim_group){.name = name, .at = at, .n = n, .lr = lr};
    }
}

/* ---- the groups of a LoRA: sd-scripts' order and names ----------------------------------------
 */

typedef struct lora_group {
    const dr_lora_network *l;
    int block; /* of the U-Net; -1: all */
    bool up;   /* with LoRA+: the up matrices, else the others */
    bool split;
} lora_group;

static bool belongs_to(const dr_param *p, const void *user)
{
    const lora_group *g = user;
    const dr_lora_site *site = dr_lora_site_of(g->l, p);
    return (g->block < 0 || site->block == g->block) &&
           (!g->split || (p == site->role[DR_LORA_UP]) == g->up);
}

static void add_pair(dr_run *r, const char *name, dr_model_part part, int block, double lr,
                     double plus)
{
    const bool split = plus > 0.0;
    add_group(r, name, part, lr, belongs_to, &(lora_group){r->net.lora, block, false, split});
    if (split) {
        add_group(r, dr_arena_printf(&r->arena, "%s plus", name), part, lr * plus, belongs_to,
                  &(lora_group){r->net.lora, block, true, true});
    }
}

static void choose_lora_groups(dr_run *r)
{
    const dr_lora_settings *s = r->c->lora;
    add_pair(r, "textencoder", DR_PART_TEXT_ENCODER, -1, s->lr_text_encoder, s->plus_text_encoder);
    r->shown_group = r->net.trained[DR_PART_UNET].set != NULL ? r->n_groups : 0;
    if (!s->rates_by_block) {
        add_pair(r, "unet", DR_PART_UNET, -1, s->lr_unet, s->plus_unet);
        return;
    }
    for (int i = 0; i < DR_LORA_BLOCKS; i++) {
        add_pair(r, dr_arena_printf(&r->arena, "unet_block%d", i), DR_PART_UNET, i,
                 s->lr_unet * s->lr_weight[i], s->plus_unet);
    }
}

static void choose_groups(dr_run *r)
{
    enum { MOST = 2 * (DR_LORA_BLOCKS + 1) };
    r->groups = dr_arena_array(&r->arena, MOST, sizeof *r->groups);
    r->group_part = dr_arena_array(&r->arena, MOST, sizeof *r->group_part);
    r->group_frozen = dr_arena_array(&r->arena, MOST, sizeof *r->group_frozen);
    if (r->c->lora != NULL) {
        choose_lora_groups(r);
        return;
    }
    add_group(r, "unet", DR_PART_UNET, r->c->lr, NULL, NULL);
    add_group(r, "text_encoder", DR_PART_TEXT_ENCODER, r->c->lr_text_encoder, NULL, NULL);
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
    DR_TRY(on ? dr_optimizer_eval(r->optimizer, &cx) : dr_optimizer_train(r->optimizer, &cx));
    if (dr_optimizer_has_other_weights(r->optimizer)) {
        DR_TRY(dr_zero_spread(r));
    }
    return dr_network_refresh(&r->net, &cx, 0, r->net.n_trained);
}

static dr_status check_settings(const dr_run *r)
{
    const dr_train_config *c = r->c;
    const char *why = NULL;
    if (dr_optim_is_schedule_free(c->optimizer.kind) && c->ema_decay > 0.0) {
        DR_FAIL(DR_INVALID, "--ema_decay: %s keeps an average of its own",
                dr_optim_kind_name(c->optimizer.kind));
    }
    if (c->precision.kind == DR_PRECISION_FULL && c->ema_decay > 0.0) {
        DR_FAIL(DR_INVALID,
                "--ema_decay: an average needs weights in 32 bits, which --full_%s does not keep",
                c->precision.bf16 ? "bf16" : "fp16");
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
    } else if (dr_precision_scales_loss(c->precision)) {
        why = "--mixed_precision bf16 or no: with fp16 a step may have to be left out as a whole";
    } else if (dr_optim_is_schedule_free(c->optimizer.kind)) {
        why = "an optimizer that is not schedule-free: those keep weights where gradients were";
    } else if (c->nan == DR_NAN_SKIP) {
        why = "--nan stop or rollback: when it finds a NaN some weights are changed already";
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
    dr_zero_plan(r);
    DR_TRY(dr_optimizer_create(
        &(dr_optimizer_config){.settings = r->c->optimizer,
                               .groups = r->groups,
                               .n_groups = r->n_groups,
                               .by_segment = r->c->fused_backward,
                               .narrow = r->c->precision.kind == DR_PRECISION_FULL,
                               .seed = r->c->seed,
                               .rank = r->zero_cut != NULL ? dr_dist_rank(r->dist) : 0,
                               .world = r->zero_cut != NULL ? dr_dist_world(r->dist) : 1,
                               .ema_decay = r->c->ema_decay},
        &r->optimizer));
    if (r->c->fused_backward && !dr_optimizer_is_local(r->optimizer)) {
        DR_FAIL(DR_INVALID,
                "--fused_backward_pass: %s needs sums over all gradients before it can step",
                dr_optim_kind_name(r->c->optimizer.kind));
    }
    return DR_OK;
}
