/*
 * ops/widen.h - ops in narrow contexts on backends that compute in one type only.
 *
 * Layer:    ops. Private to ops; DR_DISPATCH calls it.
 * Memory:   wide copies of the narrow operands live in the pool while the op runs, so a dry walk
 *           counts them.
 */
#ifndef DR_OPS_WIDEN_H
#define DR_OPS_WIDEN_H

#include "ops/context.h"

/* Whether the backend wants this op's narrow operands converted, and it has some. */
bool dr_widen_is_needed(const dr_context *cx, dr_op_id op, const void *args);
/*
 * Puts wide copies in place of the narrow operands of args, filled where the op reads them.
 * d->n counts them; DR_UNSUPPORTED when the backend cannot convert.
 */
DR_MUST_USE dr_status dr_widen_begin(dr_context *cx, dr_op_id op, void *args, dr_dispatch *d);
/* What the op wrote back into the narrow operands, rounded to nearest. */
DR_MUST_USE dr_status dr_widen_end(dr_context *cx, dr_dispatch *d);

#endif
