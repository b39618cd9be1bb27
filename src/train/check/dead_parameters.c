/*
 * The dead-parameter alarm: in the first steps every tensor that is trained must get a gradient and
 * change. A layer that was wired wrongly trains a file that looks fine and does nothing.
 */
#include "base/log.h"
#include "ops/optimizer_ops.h"
#include "train/device_numbers.h"
#include "train/run_alarms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A LoRA's down matrix has its first gradient in the second step, when up is no longer zero: three
 * steps are the least that can tell. Ten give rare ones (a layer behind dropped captions) a chance.
 */
enum { LEAST_STEPS = 3, ENOUGH_STEPS = 10 };

/* With --network_args module_dropout=p a module takes no part in a step with the probability p. */
static int64_t enough_steps(const dr_run *r)
{
    const double all_dropped = 1e-9; /* by accident, of one module in all the steps */
    const double p = r->c->lora != NULL ? r->c->lora->module_dropout : 0.0;
    const double n = p > 0.0 && p < 1.0 ? ceil(log(all_dropped) / log(p)) : 0.0;
    return n > ENOUGH_STEPS ? (int64_t)n : ENOUGH_STEPS;
}

typedef struct watched {
    const dr_param *p;
    size_t group;
    int64_t at;     /* of its gradient in the trained part */
    dr_xxh3 before; /* its values when the watch began */
} watched;

struct dr_dead_watch {
    watched *list;
    size_t n;
    double *sums;       /* (n) F64 on the device: squares of all gradients seen */
    int64_t *n_steps;   /* by group: updates with a gradient and a rate above 0 */
    double *largest_lr; /* by group: of those updates */
    bool *judged;       /* by group */
};

/* ---- beginning ----------------------------------------------------------------------------- */

/* What the optimizer steps on; with masters the networks read a rounded copy of it. */
static dr_tensor trained_values(const dr_run *r, const watched *one)
{
    const dr_dtype dtype = dr_precision_trained(r->net.o.precision);
    char *at = (char *)r->net.trained_values + (size_t)one->at * dr_dtype_size(dtype);
    return dr_tensor_of(at, dtype, 1, &one->p->n);
}

/* Whether every picture has but one position at the U-Net's deepest level. */
static bool deepest_is_one_position(const dr_run *r)
{
    const int shift = r->net.unet.config.n_levels - 1;
    for (size_t i = 0; i < r->dataset.n_images; i++) {
        int64_t h, w;
        dr_latents_size(r->latents, i, &h, &w);
        if ((h >> shift) * (w >> shift) > 1) {
            return false;
        }
    }
    return true;
}

static bool holds_any(const char *name, const char *const words[], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strstr(name, words[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/*
 * What gets no gradient but rounding although all is well: adding a number to all keys changes no
 * softmax, so key biases; and a softmax over one position is 1, whatever queries and keys are.
 */
static bool has_no_gradient_by_nature(const dr_param *p, bool one_position)
{
    static const char *const middle[] = {"mid_block"};
    static const char *const own[] = {"attn1.to_q", "attn1.to_k", "attn1_to_q", "attn1_to_k"};
    return dr_str_ends(p->name, "k_proj.bias") ||
           (one_position && holds_any(p->name, middle, 1) && holds_any(p->name, own, 4));
}

static void add_group(dr_run *r, dr_dead_watch *w, size_t group)
{
    const dr_optim_group *g = &r->groups[group];
    const bool one_position = deepest_is_one_position(r);
    for (size_t i = 0; i < g->n; i++) {
        if (!has_no_gradient_by_nature(g->at[i], one_position)) {
            const int64_t at = r->net.trained[r->group_part[group]].at + g->at[i]->offset;
            w->list[w->n++] = (watched){.p = g->at[i], .group = group, .at = at};
        }
    }
}

void dr_dead_watch_end(dr_run *r)
{
    dr_dead_watch *w = r->dead;
    if (w != NULL) {
        r->backend->device->free(w->sums);
        free(w->list);
        free(w->n_steps);
        free(w->largest_lr);
        free(w->judged);
        free(w);
    }
    r->dead = NULL;
}

dr_status dr_dead_watch_begin(dr_run *r)
{
    const dr_device *device = r->backend->device;
    size_t n = 0;
    dr_dead_watch_end(r);
    if (r->c->dead_check == DR_ALARM_OFF) {
        return DR_OK;
    }
    for (size_t g = 0; g < r->n_groups; g++) {
        n += r->groups[g].n;
    }
    dr_dead_watch *w = dr_xcalloc(1, sizeof *w);
    r->dead = w;
    w->list = dr_xcalloc(n + 1, sizeof *w->list);
    w->n_steps = dr_xcalloc(r->n_groups + 1, sizeof *w->n_steps);
    w->largest_lr = dr_xcalloc(r->n_groups + 1, sizeof *w->largest_lr);
    w->judged = dr_xcalloc(r->n_groups + 1, sizeof *w->judged);
    for (size_t g = 0; g < r->n_groups; g++) {
        w->judged[g] = r->groups[g].lr == 0.0; /* is to stay as it is */
        add_group(r, w, g);
    }
    DR_TRY(device->alloc((w->n + 1) * sizeof *w->sums, (void **)&w->sums));
    DR_TRY(device->zero(w->sums, (w->n + 1) * sizeof *w->sums));
    for (size_t i = 0; i < w->n; i++) {
        const dr_tensor trained = trained_values(r, &w->list[i]);
        DR_TRY(dr_hash_values(device, &trained, &w->list[i].before));
    }
    return DR_OK;
}

/* ---- watching ------------------------------------------------------------------------------ */

dr_status dr_dead_watch_gradients(dr_run *r, dr_context *cx, int64_t begin, int64_t end)
{
    dr_dead_watch *w = r->dead;
    for (size_t i = 0; w != NULL && i < w->n; i++) {
        const watched *one = &w->list[i];
        const bool wanted = !w->judged[one->group] && !r->group_frozen[one->group];
        if (wanted && one->at >= begin && one->at < end) {
            dr_tensor flat = dr_tensor_of(one->p->grad.data, one->p->grad.dtype, 1, &one->p->n);
            dr_tensor sum = dr_tensor_of(w->sums + i, DR_F64, 1, DR_DIMS(1));
            DR_TRY(dr_sumsq(cx, &(dr_sumsq_args){.x = &flat, .out = &sum}));
        }
    }
    return DR_OK;
}

typedef struct verdict {
    dr_str none, still; /* names: without a gradient; with one, but unchanged */
    size_t n_none, n_still, n_too_small;
} verdict;

static void add_name(dr_str *list, size_t *n, const dr_run *r, const watched *one)
{
    enum { MOST_NAMES = 12 };
    if (*n < MOST_NAMES) {
        dr_str_printf(list, "\n    %s: %s", r->groups[one->group].name, one->p->name);
    } else if (*n == MOST_NAMES) {
        dr_str_add(list, "\n    ...");
    }
    ++*n;
}

/* Whether updates of about that size are lost in the rounding of the largest value. */
static dr_status is_lost(const dr_run *r, const watched *one, double update, bool *lost)
{
    const dr_tensor trained = trained_values(r, one);
    const dr_dtype dtype = trained.dtype;
    const double step = dtype == DR_BF16 ? 0x1p-8 : dtype == DR_F16 ? 0x1p-11 : 0x1p-24;
    double largest = 0.0;
    DR_TRY(dr_largest_value(r->backend->device, &trained, &largest));
    *lost = update < 4.0 * step * largest; /* 4: momentum and clipping make updates smaller */
    return DR_OK;
}

static dr_status judge_one(dr_run *r, size_t i, double sum, verdict *v)
{
    const dr_dead_watch *w = r->dead;
    const watched *one = &w->list[i];
    dr_xxh3 now;
    if (sum == 0.0) {
        add_name(&v->none, &v->n_none, r, one);
        return DR_OK;
    }
    const dr_tensor trained = trained_values(r, one);
    DR_TRY(dr_hash_values(r->backend->device, &trained, &now));
    if (!dr_xxh3_equal(now, one->before)) {
        return DR_OK;
    }
    const bool sgd = r->c->optimizer.kind == DR_OPTIM_SGD_NESTEROV ||
                     r->c->optimizer.kind == DR_OPTIM_SGD_NESTEROV8BIT;
    const double rms =
        sqrt(sum / (double)one->p->n / (double)w->n_steps[one->group]) / r->loss_scale.scale;
    const double update = w->largest_lr[one->group] * (sgd ? rms : 1.0);
    bool lost = false;
    DR_TRY(is_lost(r, one, update, &lost));
    if (lost) {
        v->n_too_small++;
    } else {
        add_name(&v->still, &v->n_still, r, one);
    }
    return DR_OK;
}

static dr_status report(dr_run *r, const verdict *v)
{
    dr_str text = {0};
    if (v->n_too_small > 0 && dr_dist_rank(r->dist) == 0) {
        dr_warn(
            "%zu tensors have a gradient but do not change: a learning rate of this size is lost "
            "in the rounding of their values; a larger --learning_rate",
            v->n_too_small);
    }
    if (v->n_none + v->n_still == 0) {
        return DR_OK;
    }
    dr_str_printf(&text, "step %lld: dead parameters:", (long long)r->step + 1);
    if (v->n_none > 0) {
        dr_str_printf(&text, "\n  %zu never had a gradient:%s", v->n_none, dr_str_get(&v->none));
    }
    if (v->n_still > 0) {
        dr_str_printf(&text, "\n  %zu have a gradient but were never changed:%s", v->n_still,
                      dr_str_get(&v->still));
    }
    dr_status st = DR_OK;
    if (r->c->dead_check == DR_ALARM_STOP) {
        st = dr_error_set(DR_NUMERIC, __FILE__, __LINE__,
                          "%s\n  They would stay as they are: the model would look fine and lack "
                          "what they should have learned. --dead_check warn goes on",
                          dr_str_get(&text));
    } else if (dr_dist_rank(r->dist) == 0) {
        dr_progress_end(&r->progress);
        dr_warn("%s", dr_str_get(&text));
    }
    dr_str_free(&text);
    return st;
}

static dr_status judge(dr_run *r, size_t group)
{
    const dr_dead_watch *w = r->dead;
    double *sums = dr_xcalloc(w->n + 1, sizeof *sums);
    verdict v = {0};
    dr_status st = r->backend->device->download(sums, w->sums, w->n * sizeof *sums);
    for (size_t i = 0; st == DR_OK && i < w->n; i++) {
        if (w->list[i].group == group) {
            st = judge_one(r, i, sums[i], &v);
        }
    }
    free(sums);
    if (st == DR_OK) {
        st = report(r, &v);
    }
    dr_str_free(&v.none);
    dr_str_free(&v.still);
    return st;
}

dr_status dr_dead_watch_step(dr_run *r, double lr_factor)
{
    dr_dead_watch *w = r->dead;
    bool all = true;
    const int64_t usual = enough_steps(r);
    const bool ends = r->step + 1 == r->n_steps;
    const int64_t enough = ends && usual == ENOUGH_STEPS ? LEAST_STEPS : usual;
    for (size_t g = 0; w != NULL && g < r->n_groups; g++) {
        const double lr = r->groups[g].lr * lr_factor;
        if (!r->group_frozen[g] && lr > 0.0) {
            w->n_steps[g]++;
            w->largest_lr[g] = lr > w->largest_lr[g] ? lr : w->largest_lr[g];
        }
        if (!w->judged[g] && w->n_steps[g] >= enough) {
            w->judged[g] = true;
            DR_TRY(judge(r, g));
        }
        all = all && w->judged[g];
    }
    if (all) {
        dr_dead_watch_end(r);
    }
    return DR_OK;
}
