#include "ops/context.h"

#include "base/arena.h"
#include "ops/widen.h"

#include <stdlib.h>

static const struct {
    const char *name, *group;
} op_table[DR_OP_COUNT] = {
#define X(n, g) {#n, g},
#include "ops/op_list.def"
#undef X
};

void dr_context_init_typed(dr_context *cx, const dr_backend *backend, dr_pool *pool, int threads,
                           dr_dtype dtype)
{
    DR_CHECK(threads >= 1, "%d threads", threads);
    *cx = (dr_context){.backend = backend,
                       .pool = pool,
                       .dry = dr_pool_is_dry(pool),
                       .dtype = dtype,
                       .threads = threads};
}

void dr_context_init(dr_context *cx, const dr_backend *backend, dr_pool *pool, int threads)
{
    dr_context_init_typed(cx, backend, pool, threads, backend->compute);
}

const char *dr_op_name(dr_op_id op)
{
    return op_table[op].name;
}

const char *dr_op_group(dr_op_id op)
{
    return op_table[op].group;
}

dr_frame dr_frame_begin(dr_context *cx)
{
    return dr_pool_frame_begin(cx->pool);
}

void dr_frame_end(dr_context *cx, dr_frame f)
{
    dr_pool_frame_end(cx->pool, f);
}

dr_tensor dr_new_typed(dr_context *cx, dr_frame f, dr_dtype dtype, int rank, const int64_t *dim)
{
    dr_tensor t = dr_tensor_of(NULL, dtype, rank, dim);
    t.data = dr_pool_alloc(cx->pool, f, dr_nbytes(&t));
    return t;
}

dr_tensor dr_new(dr_context *cx, dr_frame f, int rank, const int64_t *dim)
{
    return dr_new_typed(cx, f, cx->dtype, rank, dim);
}

dr_tensor dr_new_like(dr_context *cx, dr_frame f, const dr_tensor *t)
{
    return dr_new_typed(cx, f, t->dtype, t->rank, t->dim);
}

dr_status dr_zero(dr_context *cx, const dr_tensor *t)
{
    return cx->dry ? DR_OK : cx->backend->device->zero(t->data, dr_nbytes(t));
}

dr_status dr_upload(dr_context *cx, const dr_tensor *t, const void *src)
{
    return cx->dry ? DR_OK : cx->backend->device->upload(t->data, src, dr_nbytes(t));
}

dr_status dr_download(dr_context *cx, const dr_tensor *t, void *dst)
{
    return cx->dry ? DR_OK : cx->backend->device->download(dst, t->data, dr_nbytes(t));
}

/* The elements of t in a buffer of the host. */
static void *host_copy(const dr_tensor *t)
{
    return dr_xcalloc(1, dr_nbytes(t) + 1);
}

dr_status dr_upload_floats(dr_context *cx, const dr_tensor *t, const float *src)
{
    if (cx->dry || t->dtype == DR_F32) {
        return dr_upload(cx, t, src);
    }
    void *copy = host_copy(t);
    dr_convert(copy, t->dtype, src, DR_F32, (size_t)dr_numel(t));
    const dr_status st = dr_upload(cx, t, copy);
    free(copy);
    return st;
}

dr_status dr_download_floats(dr_context *cx, const dr_tensor *t, float *dst)
{
    if (cx->dry || t->dtype == DR_F32) {
        return dr_download(cx, t, dst);
    }
    void *copy = host_copy(t);
    const dr_status st = dr_download(cx, t, copy);
    dr_convert(dst, DR_F32, copy, t->dtype, (size_t)dr_numel(t));
    free(copy);
    return st;
}

dr_status dr_dispatch_begin(dr_context *cx, dr_op_id op, bool exists, void *args, dr_dispatch *d)
{
    d->span = cx->dry ? 0 : dr_span_begin();
    d->op = op;
    d->work_frame = 0;
    d->narrow_frame = 0;
    d->n = 0;
    cx->work = NULL;
    if (!exists) {
        DR_FAIL(DR_UNSUPPORTED, "backend %s has no operation %s", cx->backend->name,
                dr_op_name(op));
    }
    if (dr_widen_is_needed(cx, op, args)) {
        DR_TRY(dr_widen_begin(cx, op, args, d));
    }
    size_t bytes = cx->backend->work_bytes != NULL ? cx->backend->work_bytes(cx, op, args) : 0;
    if (bytes > 0) {
        d->work_frame = dr_frame_begin(cx);
        cx->work = dr_pool_alloc(cx->pool, d->work_frame, bytes);
    }
    return DR_OK;
}

dr_status dr_dispatch_end(dr_context *cx, dr_status st, dr_dispatch *d)
{
    if (st == DR_OK) {
        st = dr_widen_end(cx, d);
    }
    if (d->work_frame != 0) {
        dr_frame_end(cx, d->work_frame);
    }
    if (d->narrow_frame != 0) {
        dr_frame_end(cx, d->narrow_frame);
    }
    dr_span_end(d->span, dr_op_name(d->op), dr_op_group(d->op));
    return st;
}
