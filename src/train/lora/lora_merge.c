#include "train/lora/lora_merge.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static bool is_bias(const dr_param *p)
{
    return dr_str_ends(p->name, ".bias");
}

bool dr_lora_param_module(dr_model_part part, const dr_param *p, dr_str *out)
{
    const char *ending = is_bias(p) ? ".bias" : ".weight";
    if (part == DR_PART_VAE || !dr_str_ends(p->name, ending)) {
        return false;
    }
    dr_str_add(out, part == DR_PART_UNET ? "lora_unet_" : "lora_te_");
    const size_t from = out->len;
    dr_str_add_n(out, p->name, strlen(p->name) - strlen(ending));
    for (size_t i = from; i < out->len; i++) {
        out->data[i] = out->data[i] == '.' ? '_' : out->data[i];
    }
    return true;
}

const dr_lora_module *dr_lora_for_param(const dr_lora_file *f, dr_model_part part,
                                        const dr_param *p)
{
    dr_str name = {0};
    const dr_lora_module *m = NULL;
    if (dr_lora_param_module(part, p, &name)) {
        m = dr_lora_file_find(f, dr_str_get(&name));
    }
    dr_str_free(&name);
    const bool changes =
        m != NULL && (is_bias(p) ? m->part[DR_LORA_BIAS] != NULL : dr_lora_has_weight(m));
    return changes ? m : NULL;
}

static dr_status apply_to_param(const dr_lora_file *f, const dr_lora_module *m, double ratio,
                                const dr_param *p, float *values)
{
    return is_bias(p) ? dr_lora_apply_bias(f, m, ratio, values)
                      : dr_lora_apply(f, m, ratio, values);
}

/* ---- whether a LoRA is for a model --------------------------------------------------------- */

static dr_status check_shape(const dr_lora_file *f, const dr_lora_module *m, const dr_param *p)
{
    if (is_bias(p) ? p->n == m->out : dr_lora_fits(m, p->rank, p->dim)) {
        return DR_OK;
    }
    dr_str want = {0};
    for (int i = 0; i < p->rank; i++) {
        dr_str_printf(&want, "%s%lld", i > 0 ? "," : "", (long long)p->dim[i]);
    }
    const char *family = dr_lora_file_facts(f)->family;
    const char *path = dr_tensor_file_path(dr_lora_file_tensors(f));
    (void)dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                       "%s: module %s changes a weight of [%lld,%lld,%lld,%lld], but %s is [%s]; "
                       "the LoRA was made for %s",
                       path, m->source, (long long)m->out, (long long)m->in,
                       (long long)m->kernel[0], (long long)m->kernel[1], p->name, dr_str_get(&want),
                       family != NULL ? family : "another model");
    dr_str_free(&want);
    return DR_FORMAT;
}

static dr_status match_part(const dr_lora_file *f, const dr_model_config *c, dr_model_part part,
                            bool *matched)
{
    dr_arena arena;
    dr_params set;
    dr_status st = DR_OK;
    dr_arena_init(&arena);
    dr_params_init(&set, &arena);
    dr_model_part_params(c, part, &set);
    for (size_t i = 0; st == DR_OK && i < set.n; i++) {
        const dr_lora_module *m = dr_lora_for_param(f, part, set.at[i]);
        if (m != NULL) {
            matched[m - dr_lora_file_at(f, 0)] = true;
            st = check_shape(f, m, set.at[i]);
        }
    }
    dr_params_deinit(&set);
    dr_arena_deinit(&arena);
    return st;
}

dr_status dr_lora_check_model(const dr_lora_file *f, const dr_model_config *c)
{
    const size_t n = dr_lora_file_count(f);
    const char *path = dr_tensor_file_path(dr_lora_file_tensors(f));
    bool *matched = dr_xcalloc(n + 1, sizeof *matched);
    const dr_lora_module *first = NULL;
    size_t missing = 0;
    dr_status st = match_part(f, c, DR_PART_UNET, matched);
    if (st == DR_OK) {
        st = match_part(f, c, DR_PART_TEXT_ENCODER, matched);
    }
    for (size_t i = 0; i < n; i++) {
        first = !matched[i] && missing == 0 ? dr_lora_file_at(f, i) : first;
        missing += matched[i] ? 0 : 1;
    }
    free(matched);
    if (st == DR_OK && missing == n) {
        DR_FAIL(DR_FORMAT, "%s: the model has none of its %zu modules (%s, ...)", path, n,
                first != NULL ? first->source : "");
    }
    if (st == DR_OK && missing > 0) {
        dr_warn("%s: the model does not have %zu of its %zu modules, which are left out; the first "
                "is %s",
                path, missing, n, first->source);
    }
    return st;
}

/* ---- values in memory ---------------------------------------------------------------------- */

static dr_status merge_param(const dr_lora_file *f, const dr_lora_module *m, double ratio,
                             dr_param *p)
{
    void *weight = NULL;
    DR_CHECK(p->value.data != NULL, "%s is not bound", p->name);
    DR_TRY(dr_try_calloc((size_t)p->n, sizeof(float), &weight));
    dr_param_to_file_order(p, p->value.data, p->value.dtype, weight, DR_F32);
    const dr_status st = apply_to_param(f, m, ratio, p, weight);
    if (st == DR_OK) {
        dr_param_from_file_order(p, weight, DR_F32, p->value.data, p->value.dtype);
    }
    free(weight);
    return st;
}

dr_status dr_lora_merge_params(const dr_lora_file *f, double ratio, dr_model_part part,
                               dr_params *set)
{
    for (size_t i = 0; i < set->n; i++) {
        const dr_lora_module *m = dr_lora_for_param(f, part, set->at[i]);
        if (m != NULL) {
            DR_TRY(merge_param(f, m, ratio, set->at[i]));
        }
    }
    return DR_OK;
}

/* ---- values on their way into a file ------------------------------------------------------- */

static bool touches(void *user, dr_model_part part, const dr_param *p)
{
    const dr_lora_stack *s = user;
    for (size_t i = 0; i < s->n; i++) {
        if (dr_lora_for_param(s->at[i].file, part, p) != NULL) {
            return true;
        }
    }
    return false;
}

static dr_status apply(void *user, dr_model_part part, const dr_param *p, float *values)
{
    const dr_lora_stack *s = user;
    for (size_t i = 0; i < s->n; i++) {
        const dr_lora_module *m = dr_lora_for_param(s->at[i].file, part, p);
        if (m != NULL) {
            DR_TRY(apply_to_param(s->at[i].file, m, s->at[i].ratio, p, values));
            dr_round_floats(values, s->precision, (size_t)p->n);
        }
    }
    return DR_OK;
}

dr_model_edit dr_lora_stack_edit(const dr_lora_stack *s)
{
    return (dr_model_edit){touches, apply, (void *)(uintptr_t)s};
}
