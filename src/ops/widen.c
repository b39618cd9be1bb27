#include "ops/widen.h"

#include "ops/attention.h"
#include "ops/cast.h"
#include "ops/conv2d.h"
#include "ops/diffusion_ops.h"
#include "ops/embedding.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/pointwise.h"

#include <stddef.h>
#include <string.h>

enum { ALWAYS = -1, NEVER = -2 };

typedef struct operand {
    dr_op_id op;
    size_t at;  /* of the tensor's pointer in the arguments */
    bool read;  /* always */
    int writes; /* ALWAYS, NEVER, or where the dr_write is: DR_ADD reads, too */
    bool weight;
} operand;

static const operand operands[] = {
#define FIELD(op, field)       offsetof(dr_##op##_args, field)
#define READ(op, field)        {DR_OP_##op, FIELD(op, field), true, NEVER, false},
#define WEIGHT(op, field)      {DR_OP_##op, FIELD(op, field), true, NEVER, true},
#define SET(op, field)         {DR_OP_##op, FIELD(op, field), false, ALWAYS, false},
#define CHANGED(op, field)     {DR_OP_##op, FIELD(op, field), true, ALWAYS, false},
#define MODAL(op, field, mode) {DR_OP_##op, FIELD(op, field), false, (int)FIELD(op, mode), false},
#include "ops/op_operands.def"
#undef MODAL
#undef CHANGED
#undef SET
#undef WEIGHT
#undef READ
#undef FIELD
};
enum { N_OPERANDS = sizeof operands / sizeof *operands };

/* Pointers to const and to plain tensors have one representation. */
static dr_tensor *tensor_at(const void *args, const operand *o)
{
    dr_tensor *t;
    memcpy(&t, (const char *)args + o->at, sizeof t);
    return t;
}

static bool is_narrow(const dr_context *cx, const dr_tensor *t)
{
    return t != NULL && (t->dtype == DR_F16 || t->dtype == DR_BF16) &&
           t->dtype != cx->backend->compute;
}

static bool is_read(const void *args, const operand *o)
{
    dr_write mode = DR_SET;
    if (o->writes >= 0) {
        memcpy(&mode, (const char *)args + o->writes, sizeof mode);
    }
    return o->read || mode == DR_ADD;
}

static dr_widening wanted(const dr_context *cx, dr_op_id op, const void *args)
{
    return cx->backend->widens != NULL ? cx->backend->widens(op, args) : DR_WIDEN_NOTHING;
}

static bool is_widened(const dr_context *cx, const void *args, const operand *o, dr_widening w)
{
    return w != DR_WIDEN_NOTHING && !(w == DR_WIDEN_ALL_BUT_WEIGHTS && o->weight) &&
           is_narrow(cx, tensor_at(args, o));
}

bool dr_widen_is_needed(const dr_context *cx, dr_op_id op, const void *args)
{
    const dr_widening w = wanted(cx, op, args);
    for (size_t i = 0; i < N_OPERANDS && w != DR_WIDEN_NOTHING; i++) {
        if (operands[i].op == op && is_widened(cx, args, &operands[i], w)) {
            return true;
        }
    }
    return false;
}

static dr_status convert(dr_context *cx, const dr_tensor *from, dr_tensor *to)
{
    return cx->dry ? DR_OK : cx->backend->cast(cx, &(dr_cast_args){.x = from, .y = to});
}

dr_status dr_widen_begin(dr_context *cx, dr_op_id op, void *args, dr_dispatch *d)
{
    if (cx->backend->cast == NULL) {
        DR_FAIL(DR_UNSUPPORTED, "backend %s cannot convert for operation %s", cx->backend->name,
                dr_op_name(op));
    }
    const dr_widening w = wanted(cx, op, args);
    d->narrow_frame = dr_frame_begin(cx);
    for (size_t i = 0; i < N_OPERANDS; i++) {
        const operand *o = &operands[i];
        if (o->op != op || !is_widened(cx, args, o, w)) {
            continue;
        }
        dr_tensor *narrow = tensor_at(args, o);
        DR_CHECK(d->n < DR_DISPATCH_MAX, "%s has too many tensors", dr_op_name(op));
        dr_widened *copy = &d->widened[d->n++];
        copy->narrow = o->writes == NEVER ? NULL : narrow;
        copy->wide =
            dr_new_typed(cx, d->narrow_frame, cx->backend->compute, narrow->rank, narrow->dim);
        if (is_read(args, o)) {
            DR_TRY(convert(cx, narrow, &copy->wide));
        }
        const dr_tensor *wide = &copy->wide;
        memcpy((char *)args + o->at, &wide, sizeof wide);
    }
    return DR_OK;
}

dr_status dr_widen_end(dr_context *cx, dr_dispatch *d)
{
    for (int i = 0; i < d->n; i++) {
        if (d->widened[i].narrow != NULL) {
            DR_TRY(convert(cx, &d->widened[i].wide, d->widened[i].narrow));
        }
    }
    return DR_OK;
}
