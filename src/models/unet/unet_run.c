/*
 * Forward and backward over the segment table. A value is a segment's output; its frame ends when
 * nothing will read it again. A value's gradient is set by its first contribution and added to by
 * the next one (a skip has two readers).
 */
#include "models/unet/unet.h"

#include "ops/embedding.h"
#include "ops/layout.h"
#include "ops/pointwise.h"

#include <stdlib.h>

typedef struct unit_saved {
    dr_tensor x; /* input of the unit */
    union {
        dr_resblock_saved res;
        dr_transformer_saved attn;
        struct {
            dr_tensor up;       /* UPSAMPLE: input of the convolution */
            dr_tensor n, stats; /* HEAD: normalised input */
        } other;
    } u;
} unit_saved;

typedef struct segment_saved {
    dr_frame keep; /* 0: nothing kept */
    unit_saved unit[DR_UNET_MAX_UNITS];
} segment_saved;

typedef struct value {
    dr_tensor t, grad;
    dr_frame frame, grad_frame; /* 0: not alive */
} value;

struct dr_unet_run {
    const dr_unet *u;
    dr_unet_options options;
    int first_segment, first_unit; /* backward ends here; n_segments: none is needed */
    bool trains_time;              /* the time embedding has gradients */
    dr_frame time_frame;
    dr_tensor temb_in, temb_h, temb_a, temb, temb_silu, dtemb_silu;
    const dr_tensor *x, *context;
    value values[DR_UNET_MAX_SEGMENTS];
    segment_saved saved[DR_UNET_MAX_SEGMENTS];
    dr_unet_watcher watcher; /* or NULL */
    void *watcher_user;
};

dr_unet_run *dr_unet_run_create(const dr_unet *u, dr_unet_options options)
{
    dr_unet_run *r = dr_xcalloc(1, sizeof *r);
    r->u = u;
    r->options = options;
    return r;
}

void dr_unet_run_destroy(dr_unet_run *r)
{
    free(r);
}

void dr_unet_watch(dr_unet_run *r, dr_unet_watcher watcher, void *user)
{
    r->watcher = watcher;
    r->watcher_user = user;
}

static void end_frame(dr_context *cx, dr_frame *f)
{
    if (*f != 0) {
        dr_frame_end(cx, *f);
        *f = 0;
    }
}

/* ---- how far backward goes ----------------------------------------------------------------- */

static bool is_trained(const dr_unet *u, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        if (dr_param_is_trained(u->params->at[i])) {
            return true;
        }
    }
    return false;
}

static void find_first(dr_unet_run *r)
{
    const dr_unet *u = r->u;
    r->trains_time = is_trained(u, 0, u->segment[0].unit[0].first_param);
    for (r->first_segment = 0; r->first_segment < u->n_segments; r->first_segment++) {
        const dr_unet_segment *seg = &u->segment[r->first_segment];
        for (r->first_unit = 0; r->first_unit < seg->n_units; r->first_unit++) {
            const dr_unet_unit *unit = &seg->unit[r->first_unit];
            const bool reads_time = unit->kind == DR_UNIT_RESBLOCK && r->trains_time;
            const bool reads_context = unit->kind == DR_UNIT_TRANSFORMER && r->options.context;
            if (reads_time || reads_context || is_trained(u, unit->first_param, unit->end_param)) {
                return;
            }
        }
    }
}

static bool is_kept(const dr_unet_run *r, int segment)
{
    return r->options.train && segment >= r->first_segment;
}

/* Whether the segment's backward reads the value in front of it. */
static bool reads_input(const dr_unet_run *r, int segment)
{
    const bool by_reference =
        !r->u->segment[segment].pops && !(segment == r->first_segment && r->first_unit > 0);
    return is_kept(r, segment) && (r->options.checkpointing || by_reference);
}

/* ---- time embedding: silu(linear2(silu(linear1(embedding(t))))) --------------------------- */

static dr_status time_forward(dr_context *cx, dr_unet_run *r, const dr_tensor *t)
{
    const dr_unet *u = r->u;
    int64_t c = u->config.channels[0];
    r->time_frame = dr_frame_begin(cx);
    dr_frame f = r->time_frame;
    r->temb_in = dr_new(cx, f, 2, DR_DIMS(t->dim[0], c));
    r->temb_h = dr_new(cx, f, 2, DR_DIMS(t->dim[0], 4 * c));
    r->temb_a = dr_new_like(cx, f, &r->temb_h);
    r->temb = dr_new_like(cx, f, &r->temb_h);
    r->temb_silu = dr_new_like(cx, f, &r->temb_h);
    DR_TRY(dr_timestep_embedding(cx, &(dr_timestep_embedding_args){.t = t, .y = &r->temb_in}));
    DR_TRY(dr_linear_forward(cx, &u->time1, &r->temb_in, &r->temb_h, DR_SET));
    DR_TRY(dr_activation(
        cx, &(dr_activation_args){.kind = DR_ACT_SILU, .x = &r->temb_h, .y = &r->temb_a}));
    DR_TRY(dr_linear_forward(cx, &u->time2, &r->temb_a, &r->temb, DR_SET));
    return dr_activation(
        cx, &(dr_activation_args){.kind = DR_ACT_SILU, .x = &r->temb, .y = &r->temb_silu});
}

static dr_status silu_backward(dr_context *cx, const dr_tensor *x, dr_tensor *d)
{
    return dr_activation_backward(
        cx, &(dr_activation_backward_args){
                .kind = DR_ACT_SILU, .dy = d, .x = x, .dx = d, .mode = DR_SET});
}

static dr_status time_backward(dr_context *cx, dr_unet_run *r)
{
    const dr_unet *u = r->u;
    dr_tensor dh = dr_new_like(cx, r->time_frame, &r->temb_h);
    DR_TRY(silu_backward(cx, &r->temb, &r->dtemb_silu));
    DR_TRY(dr_linear_backward(cx, &u->time2, &r->temb_a, &r->dtemb_silu, &dh, DR_SET));
    DR_TRY(silu_backward(cx, &r->temb_h, &dh));
    return dr_linear_backward(cx, &u->time1, &r->temb_in, &dh, NULL, DR_SET);
}

/* ---- one unit ------------------------------------------------------------------------------ */

static dr_tensor unit_output(dr_context *cx, dr_frame f, const dr_unet_unit *unit,
                             const dr_tensor *x)
{
    const int64_t *d = x->dim;
    switch (unit->kind) {
    case DR_UNIT_RESBLOCK:
        return dr_new(cx, f, 4, DR_DIMS(d[0], d[1], d[2], unit->res->conv1.w->dim[0]));
    case DR_UNIT_TRANSFORMER:
        return dr_new_like(cx, f, x);
    case DR_UNIT_UPSAMPLE:
        return dr_new(cx, f, 4, DR_DIMS(d[0], 2 * d[1], 2 * d[2], unit->conv.w->dim[0]));
    default:
        return dr_conv_output(cx, f, &unit->conv, x);
    }
}

/* y = conv(u): u, the enlarged or normalised x, is kept only where backward reads it. */
static dr_status conv_pair_forward(dr_context *cx, const dr_unet_unit *unit, unit_saved *s,
                                   dr_tensor *y, dr_frame keep)
{
    const dr_tensor *x = &s->x;
    const int64_t *d = x->dim;
    const dr_frame scratch = dr_frame_begin(cx);
    const dr_frame f = dr_weight_reads_input(unit->conv.w) ? keep : scratch;
    const bool up = unit->kind == DR_UNIT_UPSAMPLE;
    dr_tensor *mid = up ? &s->u.other.up : &s->u.other.n;
    dr_status st = DR_OK;
    if (up) {
        *mid = dr_new(cx, f, 4, DR_DIMS(d[0], 2 * d[1], 2 * d[2], d[3]));
        st = dr_upsample2x(cx, &(dr_upsample2x_args){.x = x, .y = mid});
    } else {
        *mid = dr_new_like(cx, f, x);
        s->u.other.stats = dr_norm_stats(cx, keep, &unit->norm, x);
        st = dr_norm_forward(cx, &unit->norm, x, mid, &s->u.other.stats);
    }
    if (st == DR_OK) {
        st = dr_conv_forward(cx, &unit->conv, mid, y);
    }
    dr_frame_end(cx, scratch);
    return st;
}

static dr_status unit_forward(dr_context *cx, const dr_unet_run *r, const dr_unet_unit *unit,
                              unit_saved *s, dr_tensor *y, dr_frame keep)
{
    const dr_tensor *x = &s->x;
    switch (unit->kind) {
    case DR_UNIT_CONV:
        return dr_conv_forward(cx, &unit->conv, x, y);
    case DR_UNIT_RESBLOCK:
        return dr_resblock_forward(cx, unit->res, x, &r->temb_silu, y, &s->u.res, keep);
    case DR_UNIT_TRANSFORMER:
        return dr_transformer_forward(cx, unit->attn, x, r->context, y, &s->u.attn, keep);
    case DR_UNIT_UPSAMPLE:
    case DR_UNIT_HEAD:
        return conv_pair_forward(cx, unit, s, y, keep);
    }
    return DR_OK;
}

typedef struct unit_grad {
    const dr_tensor *dy;
    dr_tensor *dx; /* NULL: skipped */
    dr_write mode;
    dr_tensor *dcontext;
} unit_grad;

static dr_status conv_pair_backward(dr_context *cx, const dr_unet_unit *unit, const unit_saved *s,
                                    const unit_grad *g)
{
    dr_frame f = dr_frame_begin(cx);
    const bool up = unit->kind == DR_UNIT_UPSAMPLE;
    const dr_tensor *mid = up ? &s->u.other.up : &s->u.other.n;
    dr_tensor dmid = dr_new_like(cx, f, mid);
    dr_status st = dr_conv_backward(cx, &unit->conv, mid, g->dy, &dmid, DR_SET);
    if (st == DR_OK && !up) {
        st = dr_norm_backward(cx, &unit->norm, &s->x, &s->u.other.stats, &dmid, g->dx, g->mode);
    } else if (st == DR_OK && g->dx != NULL) {
        st = dr_upsample2x_backward(
            cx, &(dr_upsample2x_backward_args){.dy = &dmid, .dx = g->dx, .mode = g->mode});
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status unit_backward(dr_context *cx, dr_unet_run *r, const dr_unet_unit *unit,
                               const unit_saved *s, const unit_grad *g)
{
    switch (unit->kind) {
    case DR_UNIT_CONV:
        return dr_conv_backward(cx, &unit->conv, &s->x, g->dy, g->dx, g->mode);
    case DR_UNIT_RESBLOCK:
        return dr_resblock_backward(
            cx, unit->res, &s->u.res,
            &(dr_resblock_grad){.dy = g->dy,
                                .x = &s->x,
                                .temb_silu = &r->temb_silu,
                                .dx = g->dx,
                                .mode_dx = g->mode,
                                .dtemb_silu = r->trains_time ? &r->dtemb_silu : NULL});
    case DR_UNIT_TRANSFORMER:
        return dr_transformer_backward(cx, unit->attn, &s->u.attn,
                                       &(dr_transformer_grad){.dy = g->dy,
                                                              .x = &s->x,
                                                              .context = r->context,
                                                              .dx = g->dx,
                                                              .mode_dx = g->mode,
                                                              .dcontext = g->dcontext});
    case DR_UNIT_UPSAMPLE:
    case DR_UNIT_HEAD:
        return conv_pair_backward(cx, unit, s, g);
    }
    return DR_OK;
}

/* ---- one segment --------------------------------------------------------------------------- */

/* The tensor that enters the segment's first unit; a concatenation lives in keep. */
static dr_status segment_input(dr_context *cx, const dr_unet_run *r, int i, dr_frame keep,
                               dr_tensor *x)
{
    const dr_unet_segment *seg = &r->u->segment[i];
    const dr_tensor *current = i == 0 ? r->x : &r->values[i - 1].t;
    if (!seg->pops) {
        *x = *current;
        return DR_OK;
    }
    const dr_tensor *skip = &r->values[seg->source].t;
    const int64_t *d = current->dim;
    *x = dr_new(cx, keep, 4, DR_DIMS(d[0], d[1], d[2], d[3] + skip->dim[3]));
    return dr_concat(cx, &(dr_concat_args){.a = current, .b = skip, .y = x});
}

/* Runs the units; what backward needs lands in keep, the result in y (of frame y_frame). */
static dr_status run_units_in(dr_context *cx, dr_unet_run *r, int i, dr_frame keep,
                              dr_frame scratch, dr_frame y_frame, dr_tensor *y)
{
    const dr_unet_segment *seg = &r->u->segment[i];
    segment_saved *s = &r->saved[i];
    const int first = i == r->first_segment ? r->first_unit : 0;
    DR_TRY(segment_input(cx, r, i, first > 0 ? scratch : keep, &s->unit[0].x));
    for (int k = 0; k < seg->n_units; k++) {
        bool last = k + 1 == seg->n_units;
        dr_tensor out = unit_output(cx, last ? y_frame : keep, &seg->unit[k], &s->unit[k].x);
        DR_TRY(unit_forward(cx, r, &seg->unit[k], &s->unit[k], &out, k < first ? scratch : keep));
        if (last) {
            *y = out;
        } else {
            s->unit[k + 1].x = out;
        }
    }
    return DR_OK;
}

static dr_status run_units(dr_context *cx, dr_unet_run *r, int i, dr_frame keep, dr_frame y_frame,
                           dr_tensor *y)
{
    const dr_frame scratch = dr_frame_begin(cx);
    const dr_status st = run_units_in(cx, r, i, keep, scratch, y_frame, y);
    dr_frame_end(cx, scratch);
    return st;
}

/* Ends the frames of values that segment i was the last to read in forward. */
static void release_inputs(dr_context *cx, dr_unet_run *r, int i)
{
    const dr_unet_segment *seg = &r->u->segment[i];
    if (i > 0 && !reads_input(r, i) && !r->u->segment[i - 1].pushes) {
        end_frame(cx, &r->values[i - 1].frame);
    }
    if (seg->pops && !reads_input(r, seg->source + 1) &&
        !(is_kept(r, i) && r->options.checkpointing)) {
        end_frame(cx, &r->values[seg->source].frame);
    }
}

static dr_status segment_forward(dr_context *cx, dr_unet_run *r, int i)
{
    value *v = &r->values[i];
    const dr_span span = cx->dry ? 0 : dr_span_begin();
    v->frame = dr_frame_begin(cx);
    dr_frame keep = dr_frame_begin(cx);
    DR_TRY(run_units(cx, r, i, keep, v->frame, &v->t));
    if (is_kept(r, i) && !r->options.checkpointing) {
        r->saved[i].keep = keep;
    } else {
        dr_frame_end(cx, keep);
    }
    release_inputs(cx, r, i);
    dr_span_end_n(span, "segment", "forward", i);
    return DR_OK;
}

/* Where the gradient of value i goes: set by the first reader, added to by the second. */
static dr_write gradient_of(dr_context *cx, dr_unet_run *r, int i)
{
    value *v = &r->values[i];
    if (v->grad_frame != 0) {
        return DR_ADD;
    }
    v->grad_frame = dr_frame_begin(cx);
    v->grad = dr_new_like(cx, v->grad_frame, &v->t);
    return DR_SET;
}

static dr_status distribute_input_gradient(dr_context *cx, dr_unet_run *r, int i,
                                           const dr_tensor *dx)
{
    const dr_unet_segment *seg = &r->u->segment[i];
    dr_write mode_current = gradient_of(cx, r, i - 1);
    const bool wanted = seg->source >= r->first_segment;
    dr_write mode_skip = wanted ? gradient_of(cx, r, seg->source) : DR_SET;
    return dr_split(cx, &(dr_split_args){.dy = dx,
                                         .da = &r->values[i - 1].grad,
                                         .db = wanted ? &r->values[seg->source].grad : NULL,
                                         .mode_a = mode_current,
                                         .mode_b = mode_skip,
                                         .ca = r->values[i - 1].t.dim[3]});
}

static dr_status backward_units(dr_context *cx, dr_unet_run *r, int i, dr_tensor *dcontext,
                                dr_frame f)
{
    const dr_unet_segment *seg = &r->u->segment[i];
    const segment_saved *s = &r->saved[i];
    dr_tensor dy = r->values[i].grad;
    const bool ends_here = i == r->first_segment;
    const int first = ends_here ? r->first_unit : 0;
    for (int k = seg->n_units - 1; k >= first; k--) {
        unit_grad g = {.dy = &dy, .mode = DR_SET, .dcontext = dcontext};
        dr_tensor dx;
        if (ends_here && k == first) {
            DR_TRY(unit_backward(cx, r, &seg->unit[k], &s->unit[k], &g));
            return DR_OK;
        }
        if (k > 0 || seg->pops) {
            dx = dr_new_like(cx, f, &s->unit[k].x);
            g.dx = &dx;
        } else { /* straight into the gradient of the value that came in */
            g.mode = gradient_of(cx, r, i - 1);
            dx = r->values[i - 1].grad;
            g.dx = &dx;
        }
        DR_TRY(unit_backward(cx, r, &seg->unit[k], &s->unit[k], &g));
        dy = dx;
    }
    return seg->pops ? distribute_input_gradient(cx, r, i, &dy) : DR_OK;
}

static dr_status segment_backward(dr_context *cx, dr_unet_run *r, int i, dr_tensor *dcontext)
{
    segment_saved *s = &r->saved[i];
    const dr_span span = cx->dry ? 0 : dr_span_begin();
    if (r->options.checkpointing) { /* run the segment again to have what backward reads */
        dr_frame scratch = dr_frame_begin(cx);
        s->keep = dr_frame_begin(cx);
        dr_tensor y;
        DR_TRY(run_units(cx, r, i, s->keep, scratch, &y));
        dr_frame_end(cx, scratch);
    }
    dr_frame f = dr_frame_begin(cx);
    DR_TRY(backward_units(cx, r, i, dcontext, f));
    dr_frame_end(cx, f);
    end_frame(cx, &s->keep);
    end_frame(cx, &r->values[i].grad_frame);
    end_frame(cx, &r->values[i].frame);
    dr_span_end_n(span, "segment", "backward", i);
    return DR_OK;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static dr_status copy(dr_context *cx, const dr_tensor *x, dr_tensor *y)
{
    return dr_add(cx, &(dr_add_args){.alpha = 1.0f, .x = x, .y = y});
}

dr_status dr_unet_forward(dr_context *cx, dr_unet_run *r, const dr_tensor *x, const dr_tensor *t,
                          const dr_tensor *context, dr_tensor *out)
{
    const dr_unet *u = r->u;
    int64_t step = (int64_t)1 << (u->config.n_levels - 1);
    DR_CHECK(x->rank == 4 && x->dim[1] % step == 0 && x->dim[2] % step == 0,
             "unet: latent of %lld x %lld, not divisible by %lld", (long long)x->dim[1],
             (long long)x->dim[2], (long long)step);
    r->x = x;
    r->context = context;
    find_first(r);
    DR_TRY(time_forward(cx, r, t));
    for (int i = 0; i < u->n_segments; i++) {
        DR_TRY(segment_forward(cx, r, i));
        if (r->watcher != NULL) {
            r->watcher(r->watcher_user, i + 1, &r->values[i].t);
        }
    }
    value *last = &r->values[u->n_segments - 1];
    DR_TRY(copy(cx, &last->t, out));
    if (!r->options.train) {
        end_frame(cx, &last->frame);
        end_frame(cx, &r->time_frame);
    }
    return DR_OK;
}

static void report(const dr_unet *u, const dr_grad_sink *sink, int registry_segment)
{
    if (sink != NULL) {
        int64_t begin;
        int64_t end;
        dr_params_segment_range(u->trained, registry_segment, &begin, &end);
        sink->ready(sink->user, begin, end);
    }
}

static void release(dr_context *cx, dr_unet_run *r)
{
    for (int i = 0; i < r->u->n_segments; i++) {
        end_frame(cx, &r->values[i].grad_frame);
        end_frame(cx, &r->values[i].frame);
    }
    end_frame(cx, &r->time_frame);
}

dr_status dr_unet_backward(dr_context *cx, dr_unet_run *r, const dr_tensor *dout,
                           dr_tensor *dcontext, const dr_grad_sink *sink)
{
    const dr_unet *u = r->u;
    DR_CHECK(r->options.train && r->time_frame != 0, "unet: backward without a training forward");
    DR_CHECK(dcontext == NULL || r->options.context,
             "unet: the context's gradient was not planned");
    if (r->trains_time) {
        r->dtemb_silu = dr_new_like(cx, r->time_frame, &r->temb_silu);
        DR_TRY(dr_zero(cx, &r->dtemb_silu));
    }
    int last = u->n_segments - 1;
    (void)gradient_of(cx, r, last);
    DR_TRY(copy(cx, dout, &r->values[last].grad));
    for (int i = last; i >= 0; i--) {
        if (i >= r->first_segment) {
            DR_TRY(segment_backward(cx, r, i, dcontext));
        }
        report(u, sink, i + 1);
    }
    if (r->trains_time) {
        DR_TRY(time_backward(cx, r));
    }
    release(cx, r);
    report(u, sink, 0);
    return DR_OK;
}
