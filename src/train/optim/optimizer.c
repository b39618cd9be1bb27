#include "train/optim/optimizer.h"

#include "ops/cast.h"
#include "ops/optimizer_ops.h"
#include "train/optim/optim_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const dr_optim_family *family_of(dr_optim_kind kind)
{
    static const dr_optim_family *const families[DR_OPTIM_COUNT] = {
        [DR_OPTIM_ADAMW] = &dr_optim_adamw,
        [DR_OPTIM_ADAMW8BIT] = &dr_optim_blockwise,
        [DR_OPTIM_PAGED_ADAMW] = &dr_optim_blockwise,
        [DR_OPTIM_PAGED_ADAMW8BIT] = &dr_optim_blockwise,
        [DR_OPTIM_PAGED_ADAMW32BIT] = &dr_optim_blockwise,
        [DR_OPTIM_LION] = &dr_optim_lion,
        [DR_OPTIM_LION8BIT] = &dr_optim_blockwise,
        [DR_OPTIM_PAGED_LION8BIT] = &dr_optim_blockwise,
        [DR_OPTIM_SGD_NESTEROV] = &dr_optim_sgd,
        [DR_OPTIM_SGD_NESTEROV8BIT] = &dr_optim_blockwise,
        [DR_OPTIM_DADAPTATION] = &dr_optim_dadapt,
        [DR_OPTIM_DADAPT_ADAM_PREPRINT] = &dr_optim_dadapt,
        [DR_OPTIM_DADAPT_ADAM] = &dr_optim_dadapt,
        [DR_OPTIM_DADAPT_LION] = &dr_optim_dadapt,
        [DR_OPTIM_PRODIGY] = &dr_optim_dadapt,
        [DR_OPTIM_ADAFACTOR] = &dr_optim_adafactor,
        [DR_OPTIM_RADAM_SCHEDULE_FREE] = &dr_optim_schedule_free,
        [DR_OPTIM_ADAMW_SCHEDULE_FREE] = &dr_optim_schedule_free,
        [DR_OPTIM_SGD_SCHEDULE_FREE] = &dr_optim_schedule_free,
    };
    return families[kind];
}

/* ---- spans ------------------------------------------------------------------------------------
 */

static int64_t span_end(const dr_param *p)
{
    return p->offset + p->n;
}

/* Whether b may be updated in one call with a, which stands before it. */
static bool may_join(const dr_optimizer *o, const dr_param *a, const dr_param *b, bool by_segment)
{
    enum { ALIGNMENT = 16 }; /* of offsets in a set: what lies between is a hole */
    return !o->family->per_tensor && !o->narrow && (!by_segment || a->segment == b->segment) &&
           b->offset >= span_end(a) && b->offset - span_end(a) < ALIGNMENT;
}

static int owner_of(const dr_optimizer *o, const dr_optim_group *g, size_t i)
{
    return g->owner != NULL ? g->owner[i] : o->rank;
}

static bool joins(const dr_optimizer *o, const dr_optim_group *g, size_t b, bool by_segment)
{
    return owner_of(o, g, b - 1) == owner_of(o, g, b) &&
           may_join(o, g->at[b - 1], g->at[b], by_segment);
}

static void add_spans(dr_optimizer *o, size_t group, bool by_segment)
{
    const dr_optim_group *g = &o->groups[group].g;
    for (size_t i = 0; i < g->n;) {
        size_t end = i + 1;
        while (end < g->n && joins(o, g, end, by_segment)) {
            end++;
        }
        o->spans[o->n_spans++] = (dr_optim_span){.group = group,
                                                 .params = g->at + i,
                                                 .n_params = end - i,
                                                 .offset = g->at[i]->offset,
                                                 .n = span_end(g->at[end - 1]) - g->at[i]->offset,
                                                 .owner = owner_of(o, g, i)};
        i = end;
    }
}

static void place_states(dr_optimizer *o)
{
    enum { LINE = 64 };
    for (size_t i = 0; i < o->n_spans; i++) {
        dr_optim_span *s = &o->spans[i];
        o->family->describe(o, s);
        if (o->ema_decay > 0.0) {
            s->state[DR_OPTIM_EMA] = (dr_optim_state){.name = "ema", .dtype = DR_F32, .n = s->n};
        }
        for (int k = 0; k < DR_OPTIM_MAX_STATES; k++) {
            dr_optim_state *st = &s->state[k];
            st->at = o->bytes_of[s->owner];
            o->bytes_of[s->owner] +=
                ((size_t)st->n * dr_dtype_size(st->dtype) + LINE - 1) / LINE * LINE;
        }
    }
}

static dr_status copy(dr_context *cx, const dr_tensor *from, dr_tensor *to)
{
    return dr_cast(cx, &(dr_cast_args){.x = from, .y = to});
}

/* ---- narrow weights and gradients ---------------------------------------------------------------
 */

static dr_tensor flat(const dr_tensor *first, int64_t n)
{
    return dr_tensor_of(first->data, first->dtype, 1, &n);
}

/* Every element of the run has a number of its own: the group in the upper bits. */
static dr_status round_back(const dr_optimizer *o, dr_context *cx, const dr_optim_span *s,
                            const dr_tensor *wide, dr_optim_rounding rounding)
{
    dr_tensor narrow = flat(&s->params[0]->master, s->n);
    const dr_cast_args a = {.x = wide,
                            .y = &narrow,
                            .stochastic = rounding == DR_OPTIM_UPDATE && narrow.dtype == DR_BF16,
                            .seed = o->seed,
                            .time = (uint32_t)o->groups[s->group].step,
                            .first = ((uint64_t)s->group << 48) + (uint64_t)s->offset};
    return dr_cast(cx, &a);
}

dr_status dr_optim_on_floats(dr_optimizer *o, dr_context *cx, const dr_optim_span *s,
                             dr_optim_rounding rounding, dr_optim_body body, void *user)
{
    const dr_tensor p = flat(&s->params[0]->master, s->n);
    const dr_tensor g = flat(&s->params[0]->grad, s->n);
    if (p.dtype == DR_F32 && g.dtype == DR_F32) {
        return body(o, cx, s, user);
    }
    dr_optim_span wide = *s;
    const dr_frame f = dr_frame_begin(cx);
    dr_status st = DR_OK;
    if (p.dtype != DR_F32) {
        wide.wide_values = dr_new_typed(cx, f, DR_F32, 1, &s->n);
        st = copy(cx, &p, &wide.wide_values);
    }
    if (st == DR_OK && g.dtype != DR_F32) {
        wide.wide_grads = dr_new_typed(cx, f, DR_F32, 1, &s->n);
        st = copy(cx, &g, &wide.wide_grads);
    }
    if (st == DR_OK) {
        st = body(o, cx, &wide, user);
    }
    if (st == DR_OK && p.dtype != DR_F32 && rounding != DR_OPTIM_KEEP) {
        st = round_back(o, cx, s, &wide.wide_values, rounding);
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status update_body(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, void *user)
{
    (void)user;
    return o->family->update(o, cx, s);
}

static dr_status update_span(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    return dr_optim_on_floats(o, cx, s, DR_OPTIM_UPDATE, update_body, NULL);
}

static dr_status begin_body(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, void *user)
{
    (void)user;
    return o->family->begin(o, cx, s);
}

static dr_status eval_body(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, void *user)
{
    (void)user;
    return o->family->eval(o, cx, s);
}

/* ---- life -------------------------------------------------------------------------------------
 */

dr_status dr_optimizer_create(const dr_optimizer_config *c, dr_optimizer **out)
{
    dr_optimizer *o = dr_xcalloc(1, sizeof *o);
    size_t n_params = 0;
    dr_arena_init(&o->arena);
    o->s = c->settings;
    o->family = family_of(c->settings.kind);
    o->n_groups = c->n_groups;
    o->ema_decay = c->ema_decay;
    o->narrow = c->narrow;
    o->seed = c->seed;
    o->rank = c->rank;
    o->world = c->world > 0 ? c->world : 1;
    o->bytes_of = dr_arena_array(&o->arena, (size_t)o->world, sizeof *o->bytes_of);
    o->groups = dr_arena_array(&o->arena, c->n_groups, sizeof *o->groups);
    for (size_t i = 0; i < c->n_groups; i++) {
        o->groups[i].g = c->groups[i];
        n_params += c->groups[i].n;
    }
    o->spans = dr_arena_array(&o->arena, n_params, sizeof *o->spans);
    for (size_t i = 0; i < c->n_groups; i++) {
        add_spans(o, i, c->by_segment);
    }
    place_states(o);
    dr_status st = o->family->check != NULL ? o->family->check(o) : DR_OK;
    if (st == DR_OK && o->world > 1 && !o->family->local) {
        st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                          "--zero_stage 1: %s needs sums over all weights before it can step",
                          dr_optim_kind_name(o->s.kind));
    }
    if (st != DR_OK) {
        dr_optimizer_destroy(o);
        return st;
    }
    *out = o;
    return DR_OK;
}

void dr_optimizer_destroy(dr_optimizer *o)
{
    if (o == NULL) {
        return;
    }
    if (o->device != NULL) {
        o->device->free(o->memory);
    }
    dr_arena_deinit(&o->arena);
    free(o);
}

size_t dr_optimizer_state_bytes(const dr_optimizer *o)
{
    size_t most = 0;
    for (int q = 0; q < o->world; q++) {
        most = o->bytes_of[q] > most ? o->bytes_of[q] : most;
    }
    return most;
}

size_t dr_optimizer_all_state_bytes(const dr_optimizer *o)
{
    size_t all = 0;
    for (int q = 0; q < o->world; q++) {
        all += o->bytes_of[q];
    }
    return all;
}

dr_status dr_optimizer_alloc(dr_optimizer *o, const dr_device *device)
{
    void *p = NULL;
    const size_t bytes = o->bytes_of[o->rank];
    if (bytes > 0) {
        DR_TRY(device->alloc(bytes, &p));
        o->device = device;
        o->memory = p;
        DR_TRY(device->zero(p, bytes));
    }
    return DR_OK;
}

/* Whether this rank works on the span; a dry context plans for all, so all ranks plan the same. */
static bool is_mine(const dr_optimizer *o, const dr_context *cx, const dr_optim_span *s)
{
    return cx->dry || s->owner == o->rank;
}

dr_status dr_optimizer_begin(dr_optimizer *o, dr_context *cx)
{
    for (size_t i = 0; i < o->n_spans; i++) {
        if (!is_mine(o, cx, &o->spans[i])) {
            continue;
        }
        if (o->family->begin != NULL) {
            DR_TRY(dr_optim_on_floats(o, cx, &o->spans[i], DR_OPTIM_KEEP, begin_body, NULL));
        }
        if (o->ema_decay > 0.0) {
            const dr_tensor p = dr_optim_values(&o->spans[i]);
            dr_tensor ema = dr_optim_state_of(o, &o->spans[i], DR_OPTIM_EMA);
            DR_TRY(copy(cx, &p, &ema));
        }
    }
    return DR_OK;
}

/* ---- the running average ------------------------------------------------------------------------
 */

static dr_status average_weights(dr_optimizer *o, dr_context *cx)
{
    const double t = o->ema_step;
    const double decay = t <= 1.0 ? 0.0 : fmin((1.0 + t - 1.0) / (10.0 + t - 1.0), o->ema_decay);
    for (size_t i = 0; i < o->n_spans && o->ema_decay > 0.0; i++) {
        if (!is_mine(o, cx, &o->spans[i])) {
            continue;
        }
        const dr_tensor p = dr_optim_values(&o->spans[i]);
        dr_tensor ema = dr_optim_state_of(o, &o->spans[i], DR_OPTIM_EMA);
        DR_TRY(dr_lerp(cx, &(dr_lerp_args){.weight = 1.0 - decay, .x = &p, .y = &ema}));
    }
    return DR_OK;
}

/* n elements from `at` of the span: the weights against their average. */
static dr_status exchange_part(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, int64_t at,
                               int64_t n)
{
    dr_tensor p = dr_optim_values(s);
    dr_tensor ema = dr_optim_state_of(o, s, DR_OPTIM_EMA);
    p = dr_tensor_of((float *)p.data + at, DR_F32, 1, &n);
    ema = dr_tensor_of((float *)ema.data + at, DR_F32, 1, &n);
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor kept = dr_new_like(cx, f, &p);
    dr_status st = copy(cx, &p, &kept);
    if (st == DR_OK) {
        st = copy(cx, &ema, &p);
    }
    if (st == DR_OK) {
        st = copy(cx, &kept, &ema);
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status exchange(dr_optimizer *o, dr_context *cx)
{
    enum { PART = 1 << 18 }; /* elements: 1 MiB of scratch memory */
    for (size_t i = 0; i < o->n_spans && o->ema_decay > 0.0; i++) {
        const dr_optim_span *s = &o->spans[i];
        for (int64_t at = 0; at < s->n && is_mine(o, cx, s); at += PART) {
            DR_TRY(exchange_part(o, cx, s, at, s->n - at < PART ? s->n - at : PART));
        }
    }
    return DR_OK;
}

/* ---- a step -----------------------------------------------------------------------------------
 */

bool dr_optimizer_is_local(const dr_optimizer *o)
{
    return o->family->local;
}

/* Without counting: what a dry step plans is what a real one will need. */
static dr_status step_dry(dr_optimizer *o, dr_context *cx, const dr_optim_step *s)
{
    o->now = *s;
    if (!o->family->local) {
        return o->family->step(o, cx);
    }
    for (size_t i = 0; i < o->n_spans; i++) {
        o->groups[o->spans[i].group].step += 1.0; /* ops count from 1 */
        const dr_status st = update_span(o, cx, &o->spans[i]);
        o->groups[o->spans[i].group].step -= 1.0;
        DR_TRY(st);
    }
    return DR_OK;
}

void dr_optimizer_step_begin(dr_optimizer *o, const dr_optim_step *s)
{
    DR_CHECK(!o->evaluating, "a step between dr_optimizer_eval and dr_optimizer_train");
    o->now = *s;
    for (size_t i = 0; i < o->n_groups; i++) {
        dr_optim_group_state *g = &o->groups[i];
        g->frozen = s->frozen != NULL && s->frozen[i];
        g->step += g->frozen ? 0.0 : 1.0;
        g->last_lr = g->g.lr * s->lr_factor;
    }
    o->ema_step += 1.0;
    if (o->family->prepare != NULL) {
        o->family->prepare(o);
    }
}

dr_status dr_optimizer_step_range(dr_optimizer *o, dr_context *cx, size_t group, int64_t begin,
                                  int64_t end)
{
    DR_CHECK(o->family->local, "this optimizer cannot step in pieces");
    for (size_t i = 0; i < o->n_spans; i++) {
        const dr_optim_span *s = &o->spans[i];
        if (s->group == group && s->offset >= begin && s->offset < end && dr_optim_active(o, s)) {
            DR_CHECK(s->offset + s->n <= end, "a range that ends inside a span");
            DR_TRY(update_span(o, cx, s));
        }
    }
    return DR_OK;
}

static bool is_wide(const dr_optim_span *s)
{
    return s->params[0]->master.dtype == DR_F32 && s->params[0]->grad.dtype == DR_F32;
}

/* How many spans from i on are updated by one call: of one group and rank, with nothing to widen.
 */
static size_t together(const dr_optimizer *o, size_t i)
{
    size_t n = 1;
    while (o->family->update_many != NULL && i + n < o->n_spans && is_wide(&o->spans[i]) &&
           is_wide(&o->spans[i + n]) && o->spans[i + n].group == o->spans[i].group &&
           o->spans[i + n].owner == o->spans[i].owner) {
        n++;
    }
    return n;
}

dr_status dr_optimizer_step(dr_optimizer *o, dr_context *cx, const dr_optim_step *s)
{
    if (cx->dry) {
        return step_dry(o, cx, s);
    }
    dr_optimizer_step_begin(o, s);
    if (!o->family->local) {
        DR_TRY(o->family->step(o, cx));
        return dr_optimizer_step_end(o, cx);
    }
    for (size_t i = 0, n = 1; i < o->n_spans; i += n) {
        n = together(o, i);
        if (dr_optim_active(o, &o->spans[i])) {
            DR_TRY(n > 1 ? o->family->update_many(o, cx, &o->spans[i], n)
                         : update_span(o, cx, &o->spans[i]));
        }
    }
    return dr_optimizer_step_end(o, cx);
}

dr_status dr_optimizer_step_end(dr_optimizer *o, dr_context *cx)
{
    return average_weights(o, cx);
}

/* ---- weights to save --------------------------------------------------------------------------
 */

dr_status dr_optimizer_eval(dr_optimizer *o, dr_context *cx)
{
    DR_CHECK(!o->evaluating, "dr_optimizer_eval twice");
    o->evaluating = true;
    for (size_t i = 0; i < o->n_spans && o->family->eval != NULL; i++) {
        const dr_tensor p = dr_optim_values(&o->spans[i]);
        dr_tensor kept = dr_optim_grads(&o->spans[i]);
        DR_TRY(copy(cx, &p, &kept));
        if (!is_mine(o, cx, &o->spans[i])) {
            continue;
        }
        DR_TRY(dr_optim_on_floats(o, cx, &o->spans[i], DR_OPTIM_NEAREST, eval_body, NULL));
    }
    return exchange(o, cx);
}

dr_status dr_optimizer_train(dr_optimizer *o, dr_context *cx)
{
    DR_CHECK(o->evaluating, "dr_optimizer_train without dr_optimizer_eval");
    o->evaluating = false;
    DR_TRY(exchange(o, cx));
    for (size_t i = 0; i < o->n_spans && o->family->eval != NULL; i++) {
        dr_tensor p = dr_optim_values(&o->spans[i]);
        const dr_tensor kept = dr_optim_grads(&o->spans[i]);
        DR_TRY(copy(cx, &kept, &p));
    }
    return DR_OK;
}

/* ---- listing ----------------------------------------------------------------------------------
 */

/* A state with an element per weight is listed per parameter, any other one as a whole. */
static bool listed_per_param(const dr_optim_span *s, const dr_optim_state *st)
{
    return st->n == s->n;
}

/* Blobs of a span: of each parameter, then of the next; a whole one counts as the first's. */
static size_t blobs_of(const dr_optim_span *s)
{
    size_t n = 0;
    for (int k = 0; k < DR_OPTIM_MAX_STATES; k++) {
        const dr_optim_state *st = &s->state[k];
        n += st->n == 0 ? 0 : listed_per_param(s, st) ? s->n_params : 1;
    }
    return n;
}

size_t dr_optimizer_n_blobs(const dr_optimizer *o)
{
    size_t n = 0;
    for (size_t i = 0; i < o->n_spans; i++) {
        n += blobs_of(&o->spans[i]);
    }
    return n;
}

static void fill_blob(const dr_optimizer *o, const dr_optim_span *s, const dr_optim_state *st,
                      size_t k, dr_optim_blob *out)
{
    const dr_param *p = s->params[k];
    const bool part = listed_per_param(s, st);
    const int64_t from = part ? p->offset - s->offset : 0;
    const int n = snprintf(out->name, sizeof out->name, "%s.%s.%s", o->groups[s->group].g.name,
                           p->name, st->name);
    DR_CHECK(n > 0 && (size_t)n < sizeof out->name, "the name of a state of %s is too long",
             p->name);
    out->dtype = st->dtype;
    out->n = part ? p->n : st->n;
    out->owner = s->owner;
    out->data =
        o->memory == NULL ? NULL : o->memory + st->at + (size_t)from * dr_dtype_size(st->dtype);
}

/* Blob i of the span. */
static void find_blob(const dr_optimizer *o, const dr_optim_span *s, size_t i, dr_optim_blob *out)
{
    for (size_t k = 0; k < s->n_params; k++) {
        for (int j = 0; j < DR_OPTIM_MAX_STATES; j++) {
            const dr_optim_state *st = &s->state[j];
            if (st->n == 0 || (k > 0 && !listed_per_param(s, st))) {
                continue;
            }
            if (i-- == 0) {
                fill_blob(o, s, st, k, out);
                return;
            }
        }
    }
}

void dr_optimizer_blob(const dr_optimizer *o, size_t i, dr_optim_blob *out)
{
    for (size_t j = 0; j < o->n_spans; j++) {
        const size_t n = blobs_of(&o->spans[j]);
        if (i < n) {
            find_blob(o, &o->spans[j], i, out);
            return;
        }
        i -= n;
    }
    DR_CHECK(false, "a blob beyond dr_optimizer_n_blobs");
}

size_t dr_optimizer_n_scalars(const dr_optimizer *o)
{
    return o->n_groups + o->n_scalars + (o->ema_decay > 0.0 ? 1 : 0);
}

dr_optim_scalar dr_optimizer_scalar(const dr_optimizer *o, size_t i)
{
    DR_CHECK(i < dr_optimizer_n_scalars(o), "a scalar beyond dr_optimizer_n_scalars");
    dr_optim_scalar s;
    if (i == o->n_groups + o->n_scalars) {
        return (dr_optim_scalar){.name = "ema.step", .value = (double *)&o->ema_step};
    }
    const bool of_group = i < o->n_groups;
    const char *name = of_group ? o->groups[i].g.name : o->scalar_name[i - o->n_groups];
    const int n = snprintf(s.name, sizeof s.name, "%s%s", name, of_group ? ".step" : "");
    DR_CHECK(n > 0 && (size_t)n < sizeof s.name, "the name of %s is too long", name);
    s.value = of_group ? &o->groups[i].step : (double *)&o->scalar[i - o->n_groups];
    return s;
}

bool dr_optimizer_has_other_weights(const dr_optimizer *o)
{
    return o->family->eval != NULL || o->ema_decay > 0.0;
}

double *dr_optimizer_rate(dr_optimizer *o, size_t group)
{
    return &o->groups[group].last_lr;
}

double dr_optimizer_last_lr(const dr_optimizer *o, size_t group)
{
    return o->groups[group].last_lr;
}

double dr_optimizer_d(const dr_optimizer *o)
{
    for (size_t i = 0; i < o->n_scalars; i++) {
        if (strcmp(o->scalar_name[i], "d") == 0) {
            return o->scalar[i];
        }
    }
    return 0.0;
}

/* ---- for families -----------------------------------------------------------------------------
 */

void dr_optim_add_scalar(dr_optimizer *o, const char *name, double first)
{
    DR_CHECK(o->n_scalars < DR_OPTIM_MAX_SCALARS, "too many scalars");
    o->scalar_name[o->n_scalars] = name;
    o->scalar[o->n_scalars++] = first;
}

dr_tensor dr_optim_state_of(const dr_optimizer *o, const dr_optim_span *s, int i)
{
    const dr_optim_state *st = &s->state[i];
    char *planned = (char *)(uintptr_t)4096; /* never read: a dry context touches no memory */
    char *at = (o->memory == NULL ? planned : o->memory) + st->at;
    return dr_tensor_of(at, st->dtype, 1, &st->n);
}

dr_tensor dr_optim_values(const dr_optim_span *s)
{
    return s->wide_values.data != NULL ? s->wide_values : flat(&s->params[0]->master, s->n);
}

dr_tensor dr_optim_grads(const dr_optim_span *s)
{
    return s->wide_grads.data != NULL ? s->wide_grads : flat(&s->params[0]->grad, s->n);
}

double dr_optim_lr(const dr_optimizer *o, const dr_optim_span *s)
{
    return o->groups[s->group].g.lr * o->now.lr_factor;
}

bool dr_optim_active(const dr_optimizer *o, const dr_optim_span *s)
{
    return s->owner == o->rank && !o->groups[s->group].frozen;
}
