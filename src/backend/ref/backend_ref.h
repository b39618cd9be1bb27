/*
 * backend/ref/backend_ref.h - plain C loops in f32 and f64: the specification of every op.
 *
 * Layer:    backend; may include ops/, tensor/ and base/. Included by apps and tests only.
 * Threads:  an op uses cx->threads OpenMP threads over independent outputs; results never depend on
 *           their number.
 * Errors:   ops do not fail; ids out of range and tensors of another dtype are contracts.
 */
#ifndef DR_BACKEND_REF_H
#define DR_BACKEND_REF_H

#include "ops/context.h"

extern const dr_backend dr_backend_ref_f32; /* "ref": everything f32, long sums in double */
extern const dr_backend dr_backend_ref_f64; /* "ref64": the same sources with double      */

#endif
