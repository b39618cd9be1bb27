#include "ops/conv2d.h"
#include "backend/ref/ref_internal.h"

#include <string.h>

/*
 * A convolution is a linear layer over patches: row r = (n,ho,wo) of the patch matrix holds the
 * KH*KW*I inputs under output pixel r, in the order of a filter's weights, zero where the kernel
 * hangs over the border. Patches are gathered for a range of rows at a time.
 */
typedef struct conv {
    dr_conv2d_geom geom;
    int64_t n, h, w, in;      /* image               */
    int64_t ho, wo, out;      /* output              */
    int64_t depth;            /* KH*KW*I             */
    int64_t rows, chunk_rows; /* all, and at a time  */
    bool direct;              /* 1x1: x is its own patch matrix */
} conv;

enum { CHUNK_BYTES = 32 << 20 }; /* scratch: large enough that weights are not re-read often */
enum { MIN_CHUNK_ROWS = 64 };

static conv describe(const dr_conv2d_geom *g, const dr_tensor *x, const dr_tensor *y)
{
    conv c = {.geom = *g,
              .n = x->dim[0],
              .h = x->dim[1],
              .w = x->dim[2],
              .in = x->dim[3],
              .ho = y->dim[1],
              .wo = y->dim[2],
              .out = y->dim[3]};
    c.depth = (int64_t)g->kh * g->kw * c.in;
    c.rows = c.n * c.ho * c.wo;
    c.direct = g->kh == 1 && g->kw == 1 && g->stride == 1 && c.h == c.ho && c.w == c.wo &&
               g->top == 0 && g->left == 0;
    c.chunk_rows = CHUNK_BYTES / (c.depth * (int64_t)sizeof(dr_real));
    c.chunk_rows = c.chunk_rows < MIN_CHUNK_ROWS ? MIN_CHUNK_ROWS : c.chunk_rows;
    c.chunk_rows = c.direct || c.chunk_rows > c.rows ? c.rows : c.chunk_rows;
    return c;
}

size_t DR_REF(conv2d_work_bytes)(dr_op_id op, const void *args)
{
    conv c;
    if (op == DR_OP_conv2d) {
        const dr_conv2d_args *a = args;
        c = describe(&a->geom, a->x, a->y);
    } else if (op == DR_OP_conv2d_dx) {
        const dr_conv2d_dx_args *a = args;
        c = describe(&a->geom, a->dx, a->dy);
    } else {
        const dr_conv2d_dw_args *a = args;
        c = describe(&a->geom, a->x, a->dy);
    }
    return c.direct ? 0 : sizeof(dr_real) * (size_t)(c.chunk_rows * c.depth);
}

/* One row of the patch matrix. */
static void gather_patch(const conv *c, const dr_real *x, int64_t r, dr_real *patch)
{
    const int64_t n = r / (c->ho * c->wo);
    const int64_t top = r / c->wo % c->ho * c->geom.stride - c->geom.top;
    const int64_t left = r % c->wo * c->geom.stride - c->geom.left;
    for (int kh = 0; kh < c->geom.kh; kh++) {
        for (int kw = 0; kw < c->geom.kw; kw++) {
            const int64_t hi = top + kh;
            const int64_t wi = left + kw;
            if (hi < 0 || hi >= c->h || wi < 0 || wi >= c->w) {
                memset(patch, 0, sizeof(dr_real) * (size_t)c->in);
            } else {
                memcpy(patch, x + ((n * c->h + hi) * c->w + wi) * c->in,
                       sizeof(dr_real) * (size_t)c->in);
            }
            patch += c->in;
        }
    }
}

/* Patches of rows r0 .. r0+n-1, in work or, for 1x1, in x itself. */
static const dr_real *gather_patches(dr_context *cx, const conv *c, const dr_real *x, int64_t r0,
                                     int64_t n)
{
    if (c->direct) {
        return x + r0 * c->depth;
    }
    dr_real *patches = cx->work;
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < n; r++) {
        gather_patch(c, x, r0 + r, patches + r * c->depth);
    }
    return patches;
}

/* dx(pixel) += the entries of patch gradients r0 .. r0+n-1 that were read from this pixel. */
static void add_patch_gradients(const conv *c, const dr_real *dpatches, int64_t r0, int64_t n,
                                int64_t pixel, dr_real *dx)
{
    const int64_t image = pixel / (c->h * c->w);
    const int64_t hi = pixel / c->w % c->h;
    const int64_t wi = pixel % c->w;
    const int64_t stride = c->geom.stride;
    for (int kh = 0; kh < c->geom.kh; kh++) {
        for (int kw = 0; kw < c->geom.kw; kw++) {
            const int64_t top = hi + c->geom.top - kh;
            const int64_t left = wi + c->geom.left - kw;
            if (top < 0 || left < 0 || top % stride != 0 || left % stride != 0 ||
                top / stride >= c->ho || left / stride >= c->wo) {
                continue;
            }
            const int64_t r = (image * c->ho + top / stride) * c->wo + left / stride - r0;
            if (r < 0 || r >= n) {
                continue;
            }
            const dr_real *d = dpatches + r * c->depth + (kh * c->geom.kw + kw) * c->in;
            for (int64_t i = 0; i < c->in; i++) {
                dx[pixel * c->in + i] += d[i];
            }
        }
    }
}

static int64_t rows_in_chunk(const conv *c, int64_t r0)
{
    return c->rows - r0 < c->chunk_rows ? c->rows - r0 : c->chunk_rows;
}

/* y(n,ho,wo,o) = b(o) + sum over kh,kw,i of w(o,kh,kw,i) x(n, ho s - top + kh, wo s - left + kw, i)
 */
dr_status DR_REF(conv2d)(dr_context *cx, const dr_conv2d_args *a)
{
    const conv c = describe(&a->geom, a->x, a->y);
    for (int64_t r0 = 0; r0 < c.rows; r0 += c.chunk_rows) {
        const int64_t n = rows_in_chunk(&c, r0);
        const dr_ref_matmul p = {.m = n,
                                 .n = c.out,
                                 .k = c.depth,
                                 .a = gather_patches(cx, &c, dr_ref_data(a->x), r0, n),
                                 .a_row = c.depth,
                                 .a_col = 1,
                                 .b = dr_ref_data(a->w),
                                 .b_row = 1,
                                 .b_col = c.depth,
                                 .bias = dr_ref_data(a->b),
                                 .c = dr_ref_data(a->y) + r0 * c.out,
                                 .mode = DR_SET};
        DR_REF(matmul)(&p, cx->threads);
    }
    return DR_OK;
}

/* dpatches = dy W; every pixel sums what its copies in the patches received. */
dr_status DR_REF(conv2d_dx)(dr_context *cx, const dr_conv2d_dx_args *a)
{
    const conv c = describe(&a->geom, a->dx, a->dy);
    dr_real *dx = dr_ref_data(a->dx);
    if (!c.direct && a->mode == DR_SET) {
        memset(dx, 0, dr_nbytes(a->dx));
    }
    for (int64_t r0 = 0; r0 < c.rows; r0 += c.chunk_rows) {
        const int64_t n = rows_in_chunk(&c, r0);
        const dr_ref_matmul p = {.m = n,
                                 .n = c.depth,
                                 .k = c.out,
                                 .a = dr_ref_data(a->dy) + r0 * c.out,
                                 .a_row = c.out,
                                 .a_col = 1,
                                 .b = dr_ref_data(a->w),
                                 .b_row = c.depth,
                                 .b_col = 1,
                                 .c = c.direct ? dx : cx->work,
                                 .mode = c.direct ? a->mode : DR_SET};
        DR_REF(matmul)(&p, cx->threads);
        if (c.direct) {
            continue;
        }
#pragma omp parallel for num_threads(cx->threads) schedule(static)
        for (int64_t pixel = 0; pixel < c.n * c.h * c.w; pixel++) {
            add_patch_gradients(&c, cx->work, r0, n, pixel, dx);
        }
    }
    return DR_OK;
}

/* dW += dy^T patches, db += column sums of dy */
dr_status DR_REF(conv2d_dw)(dr_context *cx, const dr_conv2d_dw_args *a)
{
    const conv c = describe(&a->geom, a->x, a->dy);
    const dr_real *dy = dr_ref_data(a->dy);
    for (int64_t r0 = 0; r0 < c.rows && a->dw != NULL; r0 += c.chunk_rows) {
        const int64_t n = rows_in_chunk(&c, r0);
        const dr_ref_matmul p = {.m = c.out,
                                 .n = c.depth,
                                 .k = n,
                                 .a = dy + r0 * c.out,
                                 .a_row = 1,
                                 .a_col = c.out,
                                 .b = gather_patches(cx, &c, dr_ref_data(a->x), r0, n),
                                 .b_row = c.depth,
                                 .b_col = 1,
                                 .c = dr_ref_data(a->dw),
                                 .mode = DR_ADD};
        DR_REF(matmul)(&p, cx->threads);
    }
    if (a->db != NULL) {
        DR_REF(add_column_sums)(dr_ref_data(a->db), dy, c.rows, c.out, cx->threads);
    }
    return DR_OK;
}
