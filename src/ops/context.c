#include "ops/context.h"

static const struct {
    const char *name, *group;
} op_table[DR_OP_COUNT] = {
#define X(n, g) {#n, g},
#include "ops/op_list.def"
#undef X
};

void dr_context_init(dr_context *cx, const dr_backend *backend, dr_pool *pool, int threads)
{
    DR_CHECK(threads >= 1, "%d threads", threads);
    *cx = (dr_context){.backend = backend,
                       .pool = pool,
                       .dry = dr_pool_is_dry(pool),
                       .dtype = backend->compute,
                       .threads = threads};
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

dr_status dr_dispatch_begin(dr_context *cx, dr_op_id op, bool exists, const void *args,
                            dr_frame *work_frame)
{
    if (!exists) {
        DR_FAIL(DR_UNSUPPORTED, "backend %s has no operation %s", cx->backend->name,
                dr_op_name(op));
    }
    *work_frame = 0;
    cx->work = NULL;
    size_t bytes = cx->backend->work_bytes != NULL ? cx->backend->work_bytes(cx, op, args) : 0;
    if (bytes > 0) {
        *work_frame = dr_frame_begin(cx);
        cx->work = dr_pool_alloc(cx->pool, *work_frame, bytes);
    }
    return DR_OK;
}

void dr_dispatch_end(dr_context *cx, dr_frame work_frame)
{
    if (work_frame != 0) {
        dr_frame_end(cx, work_frame);
    }
}
