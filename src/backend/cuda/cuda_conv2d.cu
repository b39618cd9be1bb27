/*
 * backend/cuda/cuda_conv2d.cu - convolution (ops/conv2d.h), in memory order (N,H,W,C) throughout.
 *
 * A kernel larger than 1x1 is cuDNN's (cuda_cudnn.h) where that has a plan for it. cuDNN wants
 * pointers that are multiples of 16 bytes. Activations are what they are while the step is planned;
 * weights and their gradients lie where the registry put them, so room is kept for an aligned copy
 * of either. That copy is also where dw goes when it has another type than x. Biases are added and
 * summed by kernels of ours.
 *
 * Otherwise convolutions are matrix products over patches. Forward: row r = (n,ho,wo) of the patch
 * matrix holds the KH*KW*I inputs under output pixel r, zero where the kernel hangs over the
 * border; y = patches w^T + b. dx: row r = (n,h,w) holds the KH*KW*O output gradients that pixel r
 * took part in, zero where none; dx = patches w', w'(kh,kw,o,i) = w(o,kh,kw,i). dw += dy^T patches.
 * Patches are gathered for as many rows at a time as fit into CHUNK_BYTES of workspace. A 1x1
 * kernel with stride 1 needs no patches.
 */
#include "backend/cuda/cuda_internal.cuh"

#include <cstring>

extern "C" {
#include "backend/cuda/cuda_cudnn.h"
#include "ops/conv2d.h"
}

static constexpr int64_t CHUNK_BYTES = 64 << 20;
static constexpr int64_t MIN_CHUNK_ROWS = 64;

typedef struct conv {
    dr_conv2d_geom geom;
    int64_t n, h, w, in; /* image  */
    int64_t ho, wo, out; /* output */
    int64_t rows, depth; /* of the patch matrix */
    int64_t chunk_rows;
    size_t weight_bytes; /* of w', at the start of the workspace (dx only) */
    dr_dtype dtype;
    bool direct;
} conv;

static size_t align64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* x: (N,H,W,I) image; y: (N,Ho,Wo,O); to_image: rows are the image's pixels (dx). */
static conv describe(const dr_conv2d_geom *g, const dr_tensor *x, const dr_tensor *y, bool to_image)
{
    conv c = {};
    c.geom = *g;
    c.n = x->dim[0];
    c.h = x->dim[1];
    c.w = x->dim[2];
    c.in = x->dim[3];
    c.ho = y->dim[1];
    c.wo = y->dim[2];
    c.out = y->dim[3];
    c.dtype = x->dtype;
    c.rows = to_image ? c.n * c.h * c.w : c.n * c.ho * c.wo;
    c.depth = g->kh * g->kw * (to_image ? c.out : c.in);
    c.direct = g->kh == 1 && g->kw == 1 && g->stride == 1 && c.h == c.ho && c.w == c.wo &&
               g->top == 0 && g->left == 0;
    const int64_t elem = static_cast<int64_t>(dr_dtype_size(c.dtype));
    c.chunk_rows = CHUNK_BYTES / (c.depth * elem);
    c.chunk_rows = c.chunk_rows < MIN_CHUNK_ROWS ? MIN_CHUNK_ROWS : c.chunk_rows;
    c.chunk_rows = c.direct || c.chunk_rows > c.rows ? c.rows : c.chunk_rows;
    c.weight_bytes =
        to_image && !c.direct ? align64(static_cast<size_t>(c.depth * c.in * elem)) : 0;
    return c;
}

static size_t patch_bytes(const conv *c)
{
    return c->direct
               ? 0
               : align64(static_cast<size_t>(c->chunk_rows * c->depth) * dr_dtype_size(c->dtype));
}

static size_t own_work_bytes(dr_op_id op, const void *args)
{
    if (op == DR_OP_conv2d) {
        const dr_conv2d_args *a = static_cast<const dr_conv2d_args *>(args);
        const conv c = describe(&a->geom, a->x, a->y, false);
        return patch_bytes(&c);
    }
    if (op == DR_OP_conv2d_dx) {
        const dr_conv2d_dx_args *a = static_cast<const dr_conv2d_dx_args *>(args);
        const conv c = describe(&a->geom, a->dx, a->dy, true);
        return c.weight_bytes + patch_bytes(&c);
    }
    const dr_conv2d_dw_args *a = static_cast<const dr_conv2d_dw_args *>(args);
    const conv c = describe(&a->geom, a->x, a->dy, false);
    return a->dw != nullptr ? patch_bytes(&c) : 0;
}

/* ---- by cuDNN ---------------------------------------------------------------------------------
 */

typedef struct cudnn_path {
    dr_cuda_conv conv;
    bool found;
    size_t plan_bytes, weight_bytes; /* of the workspace: the plan's, then an aligned copy */
} cudnn_path;

static bool is_aligned(const void *p)
{
    return reinterpret_cast<uintptr_t>(p) % DR_CUDA_CUDNN_ALIGNMENT == 0;
}

/* image: x or dx; output: y or dy. dw is added to where it lies, or set in the copy. */
static cudnn_path path_of(dr_cuda_conv_kind kind, const dr_conv2d_geom *g, const dr_tensor *image,
                          const dr_tensor *output, bool adds)
{
    const conv s = describe(g, image, output, false);
    cudnn_path p;
    memset(&p, 0, sizeof p);
    p.conv.n = s.n;
    p.conv.h = s.h;
    p.conv.w = s.w;
    p.conv.in = s.in;
    p.conv.ho = s.ho;
    p.conv.wo = s.wo;
    p.conv.out = s.out;
    p.conv.geom = *g;
    p.conv.kind = kind;
    p.conv.dtype = p.conv.result = s.dtype;
    p.conv.adds = adds ? 1 : 0;
    size_t bytes = 0;
    p.found = !s.direct && is_aligned(image->data) && is_aligned(output->data) &&
              dr_cuda_cudnn_has(&p.conv, &bytes);
    p.plan_bytes = align64(bytes);
    p.weight_bytes =
        align64(static_cast<size_t>(s.out * s.in * g->kh * g->kw) * dr_dtype_size(s.dtype));
    return p;
}

static cudnn_path forward_path(const dr_conv2d_args *a)
{
    return path_of(DR_CUDA_CONV_Y, &a->geom, a->x, a->y, false);
}

static cudnn_path dx_path(const dr_conv2d_dx_args *a)
{
    return path_of(DR_CUDA_CONV_DX, &a->geom, a->dx, a->dy, a->mode == DR_ADD);
}

static cudnn_path dw_path(const dr_conv2d_dw_args *a, bool adds)
{
    return path_of(DR_CUDA_CONV_DW, &a->geom, a->x, a->dy, adds);
}

static size_t total_bytes(const cudnn_path *p)
{
    return p->plan_bytes + p->weight_bytes;
}

static size_t dw_work_bytes(const dr_conv2d_dw_args *a)
{
    size_t most = a->db != nullptr ? dr_cuda_column_work_bytes(1, dr_rows(a->dy), dr_cols(a->dy), 1)
                                   : 0; /* the sums, then the rest */
    if (a->dw != nullptr) {
        const cudnn_path there = dw_path(a, true);
        const cudnn_path copied = dw_path(a, false);
        const size_t added = there.found ? total_bytes(&there) : 0;
        const size_t set = copied.found ? total_bytes(&copied) : own_work_bytes(DR_OP_conv2d_dw, a);
        most = most > added ? most : added;
        most = most > set ? most : set;
    }
    return most;
}

size_t dr_cuda_conv2d_work_bytes(dr_op_id op, const void *args)
{
    if (op == DR_OP_conv2d_dw) {
        return dw_work_bytes(static_cast<const dr_conv2d_dw_args *>(args));
    }
    const cudnn_path p = op == DR_OP_conv2d
                             ? forward_path(static_cast<const dr_conv2d_args *>(args))
                             : dx_path(static_cast<const dr_conv2d_dx_args *>(args));
    return p.found ? total_bytes(&p) : own_work_bytes(op, args);
}

/* The weights where cuDNN can read them. */
static dr_status aligned_weights(const cudnn_path *p, const dr_tensor *w, void *work,
                                 const void **out)
{
    *out = w->data;
    if (!is_aligned(w->data)) {
        void *copy = static_cast<char *>(work) + p->plan_bytes;
        DR_CUDA(cudaMemcpyAsync(copy, w->data, dr_nbytes(w), cudaMemcpyDeviceToDevice,
                                dr_cuda_stream()));
        *out = copy;
    }
    return DR_OK;
}

template <typename T> struct add_bias {
    const T *b;
    T *y;
    int64_t channels;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        dr_write_to(y, r * channels + c, dr_get(b, c), true);
    }
};

template <typename T>
static dr_status cudnn_forward(dr_context *cx, const dr_conv2d_args *a, const cudnn_path *p)
{
    const void *w = nullptr;
    DR_TRY(aligned_weights(p, a->w, cx->work, &w));
    DR_TRY(dr_cuda_cudnn_run(dr_cuda_stream(), &p->conv, a->x->data, w, a->y->data, cx->work));
    if (a->b == nullptr) {
        return DR_OK;
    }
    return dr_grid(dr_rows(a->y), dr_cols(a->y),
                   add_bias<T>{dr_data<const T>(a->b), dr_data<T>(a->y), dr_cols(a->y)});
}

static dr_status cudnn_dx(dr_context *cx, const dr_conv2d_dx_args *a, const cudnn_path *p)
{
    const void *w = nullptr;
    DR_TRY(aligned_weights(p, a->w, cx->work, &w));
    return dr_cuda_cudnn_run(dr_cuda_stream(), &p->conv, a->dy->data, w, a->dx->data, cx->work);
}

template <typename T> struct add_copy {
    const T *copy;
    dr_gradient dw;
    __device__ void operator()(int64_t i) const
    {
        dw.add(i, dr_get(copy, i));
    }
};

/* found: whether cuDNN did it. */
template <typename T>
static dr_status cudnn_dw(dr_context *cx, const dr_conv2d_dw_args *a, bool *found)
{
    cudnn_path p = dw_path(a, true);
    *found = true;
    if (p.found && is_aligned(a->dw->data) && a->dw->dtype == a->x->dtype) {
        return dr_cuda_cudnn_run(dr_cuda_stream(), &p.conv, a->dy->data, a->x->data, a->dw->data,
                                 cx->work);
    }
    p = dw_path(a, false);
    *found = p.found;
    if (!p.found) {
        return DR_OK;
    }
    T *copy = reinterpret_cast<T *>(static_cast<char *>(cx->work) + p.plan_bytes);
    DR_TRY(dr_cuda_cudnn_run(dr_cuda_stream(), &p.conv, a->dy->data, a->x->data, copy, cx->work));
    return dr_each(dr_numel(a->dw), add_copy<T>{copy, dr_gradient_of(a->dw)});
}

/* ---- by patches -------------------------------------------------------------------------------
 */

/* Element c of tap t of the patch under output pixel r0 + r. Grid rows: r taps + t. */
template <typename T> struct gather {
    conv s;
    const T *x;
    T *patches;
    int64_t r0;
    __device__ void operator()(int64_t row, int64_t c) const
    {
        const int64_t taps = s.geom.kh * s.geom.kw;
        const int64_t r = r0 + row / taps;
        const int64_t tap = row % taps;
        const int64_t n = r / (s.ho * s.wo);
        const int64_t h = r / s.wo % s.ho * s.geom.stride - s.geom.top + tap / s.geom.kw;
        const int64_t w = r % s.wo * s.geom.stride - s.geom.left + tap % s.geom.kw;
        const bool inside = h >= 0 && h < s.h && w >= 0 && w < s.w;
        dr_put(patches, row * s.in + c,
               inside ? dr_get(x, ((n * s.h + h) * s.w + w) * s.in + c) : 0.0f);
    }
};

/* The same for dx: channel c of the output gradient that image pixel r0 + r met at tap t. */
template <typename T> struct gather_dy {
    conv s;
    const T *dy;
    T *patches;
    int64_t r0;
    __device__ void operator()(int64_t row, int64_t c) const
    {
        const int64_t taps = s.geom.kh * s.geom.kw;
        const int64_t r = r0 + row / taps;
        const int64_t tap = row % taps;
        const int64_t n = r / (s.h * s.w);
        const int64_t top = r / s.w % s.h + s.geom.top - tap / s.geom.kw;
        const int64_t left = r % s.w + s.geom.left - tap % s.geom.kw;
        const int64_t h = top / s.geom.stride;
        const int64_t w = left / s.geom.stride;
        const bool inside = top >= 0 && left >= 0 && top % s.geom.stride == 0 &&
                            left % s.geom.stride == 0 && h < s.ho && w < s.wo;
        dr_put(patches, row * s.out + c,
               inside ? dr_get(dy, ((n * s.ho + h) * s.wo + w) * s.out + c) : 0.0f);
    }
};

/* w'(tap,o,i) = w(o,tap,i). Grid rows: tap O + o. */
template <typename T> struct turn {
    const T *w;
    T *turned;
    int64_t taps, in, out;
    __device__ void operator()(int64_t row, int64_t i) const
    {
        turned[row * in + i] = w[(row % out * taps + row / out) * in + i];
    }
};

static int64_t rows_at(const conv *c, int64_t r0)
{
    return c->rows - r0 < c->chunk_rows ? c->rows - r0 : c->chunk_rows;
}

/* Patches of rows r0 .. r0+n-1: in work, or the tensor itself. */
template <typename T>
static dr_status patches_of(const conv &c, const void *x, int64_t r0, int64_t n, bool to_image,
                            void *work, const void **out)
{
    const int64_t channels = to_image ? c.out : c.in;
    if (c.direct) {
        *out = static_cast<const T *>(x) + r0 * channels;
        return DR_OK;
    }
    T *patches = static_cast<T *>(work);
    const int64_t rows = n * c.geom.kh * c.geom.kw;
    *out = patches;
    if (to_image) {
        return dr_grid(rows, channels, gather_dy<T>{c, static_cast<const T *>(x), patches, r0});
    }
    return dr_grid(rows, channels, gather<T>{c, static_cast<const T *>(x), patches, r0});
}

static dr_cuda_gemm_args product(const conv &c)
{
    dr_cuda_gemm_args g = {};
    g.batch = 1;
    g.dtype = g.c_dtype = c.dtype;
    g.alpha = 1.0f;
    return g;
}

template <typename T> static dr_status forward(dr_context *cx, const dr_conv2d_args *a)
{
    const conv c = describe(&a->geom, a->x, a->y, false);
    for (int64_t r0 = 0; r0 < c.rows; r0 += c.chunk_rows) {
        dr_cuda_gemm_args g = product(c);
        g.m = rows_at(&c, r0);
        g.n = c.out;
        g.k = c.depth;
        g.a.ld = c.depth;
        DR_TRY(patches_of<T>(c, a->x->data, r0, g.m, false, cx->work, &g.a.data));
        g.b = dr_cuda_matrix{a->w->data, c.depth, 0, true};
        g.bias = a->b != nullptr ? a->b->data : nullptr;
        g.c = dr_data<T>(a->y) + r0 * c.out;
        g.c_ld = c.out;
        DR_TRY(dr_cuda_gemm(dr_cuda_stream(), &g));
    }
    return DR_OK;
}

dr_status dr_cuda_conv2d(dr_context *cx, const dr_conv2d_args *a)
{
    const cudnn_path p = forward_path(a);
    DR_CUDA_WITH_TYPE(a->x->dtype,
                      return p.found ? cudnn_forward<T>(cx, a, &p) : forward<T>(cx, a));
}

template <typename T> static dr_status backward_dx(dr_context *cx, const dr_conv2d_dx_args *a)
{
    const conv c = describe(&a->geom, a->dx, a->dy, true);
    const int64_t taps = c.geom.kh * c.geom.kw;
    void *patches = static_cast<char *>(cx->work) + c.weight_bytes;
    const void *weights = a->w->data; /* 1x1: (O,I) is w' already */
    if (!c.direct) {
        T *turned = static_cast<T *>(cx->work);
        weights = turned;
        DR_TRY(dr_grid(taps * c.out, c.in,
                       turn<T>{dr_data<const T>(a->w), turned, taps, c.in, c.out}));
    }
    for (int64_t r0 = 0; r0 < c.rows; r0 += c.chunk_rows) {
        dr_cuda_gemm_args g = product(c);
        g.m = rows_at(&c, r0);
        g.n = c.in;
        g.k = c.depth;
        g.a.ld = c.depth;
        DR_TRY(patches_of<T>(c, a->dy->data, r0, g.m, true, patches, &g.a.data));
        g.b = dr_cuda_matrix{weights, c.in, 0, false};
        g.c = dr_data<T>(a->dx) + r0 * c.in;
        g.c_ld = c.in;
        g.beta = a->mode == DR_ADD ? 1.0f : 0.0f;
        DR_TRY(dr_cuda_gemm(dr_cuda_stream(), &g));
    }
    return DR_OK;
}

dr_status dr_cuda_conv2d_dx(dr_context *cx, const dr_conv2d_dx_args *a)
{
    const cudnn_path p = dx_path(a);
    if (p.found) {
        return cudnn_dx(cx, a, &p);
    }
    DR_CUDA_WITH_TYPE(a->dy->dtype, return backward_dx<T>(cx, a));
}

template <typename T> static dr_status backward_dw(dr_context *cx, const dr_conv2d_dw_args *a)
{
    const conv c = describe(&a->geom, a->x, a->dy, false);
    for (int64_t r0 = 0; r0 < c.rows; r0 += c.chunk_rows) {
        dr_cuda_gemm_args g = product(c);
        g.m = c.out;
        g.n = c.depth;
        g.k = rows_at(&c, r0);
        g.a = dr_cuda_matrix{dr_data<const T>(a->dy) + r0 * c.out, c.out, 0, true};
        g.b.ld = c.depth;
        DR_TRY(patches_of<T>(c, a->x->data, r0, g.k, false, cx->work, &g.b.data));
        g.c = a->dw->data;
        g.c_dtype = a->dw->dtype;
        g.c_ld = c.depth;
        g.beta = 1.0f;
        DR_TRY(dr_cuda_gemm(dr_cuda_stream(), &g));
    }
    return DR_OK;
}

template <typename T> static dr_status add_dw(dr_context *cx, const dr_conv2d_dw_args *a)
{
    bool found = false;
    DR_TRY(cudnn_dw<T>(cx, a, &found));
    return found ? DR_OK : backward_dw<T>(cx, a);
}

dr_status dr_cuda_conv2d_dw(dr_context *cx, const dr_conv2d_dw_args *a)
{
    if (a->db != nullptr) {
        DR_TRY(dr_cuda_add_column_sums(a->db, a->dy, cx->work));
    }
    if (a->dw == nullptr) {
        return DR_OK;
    }
    DR_CUDA_WITH_TYPE(a->dy->dtype, return add_dw<T>(cx, a));
}
