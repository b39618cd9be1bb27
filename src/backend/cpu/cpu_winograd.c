#include "backend/cpu/cpu_winograd.h"

#include <string.h>

enum {
    TILE = 4,  /* pixels of a side of the result's tile              */
    PATCH = 6, /* and of the patch that it depends on                */
    ELEMENTS = PATCH * PATCH,
    LANE = 64,      /* channels transformed at a time: 36 of them in L1   */
    MIN_TILES = 48, /* below, transforming the weights costs too much     */
    MIN_CHANNELS = 32,
    MOST_FLOATS = 4 << 20, /* of U or V at once: 16 MiB                          */
    LEAST_CHANNELS = 64    /* ... but at least so many results side by side      */
};

static const float ROOT_HALF = 0.70710678f;
static const float ROOT_TWO = 1.41421356f;

typedef struct winograd_job {
    const dr_cpu_winograd *a;
    dr_cpu_image src;
    int64_t out;                    /* channels of dst                              */
    int64_t rows, cols;             /* tiles of an image's side                     */
    int64_t image, tiles;           /* tiles of an image, of all images             */
    int64_t band, block;            /* most tiles, most channels of dst, at a time  */
    int64_t t0, n_tiles, c0, n_out; /* the current ones                             */
    float *u, *v, *m;               /* (36, block, Cs) or (36, Cs, block); (36, band, Cs);
                                       (36, band, block)                            */
} winograd_job;

bool dr_cpu_winograd_fits(const dr_conv2d_geom *g, const dr_tensor *src, const dr_tensor *dst)
{
    /* of one image, so that its result does not depend on the size of the batch */
    const int64_t pixels = src->dim[1] * src->dim[2];
    const int64_t tiles = dr_cpu_ceil_div(src->dim[1], TILE) * dr_cpu_ceil_div(src->dim[2], TILE);
    return g->kh == 3 && g->kw == 3 && g->stride == 1 && g->top == 1 && g->left == 1 &&
           g->bottom == 1 && g->right == 1 && tiles >= MIN_TILES && pixels >= 12 * tiles &&
           dr_cols(src) >= MIN_CHANNELS && dr_cols(dst) >= MIN_CHANNELS;
}

static winograd_job plan(const dr_cpu_winograd *a)
{
    winograd_job j = {.a = a, .src = dr_cpu_image_of(a->src), .out = dr_cols(a->dst)};
    j.rows = dr_cpu_ceil_div(j.src.h, TILE);
    j.cols = dr_cpu_ceil_div(j.src.w, TILE);
    j.image = j.rows * j.cols;
    j.tiles = a->src->dim[0] * j.image;
    const int64_t most = MOST_FLOATS / (ELEMENTS * j.src.c);
    j.band = dr_cpu_piece(j.image, most < MIN_TILES ? MIN_TILES : most, 16);
    j.block = dr_cpu_piece(j.out, most < LEAST_CHANNELS ? LEAST_CHANNELS : most, 16);
    return j;
}

/* ---- the three transforms, for n channels; one side at a time ----------------------------------
 */

/* d: PATCH values, `step` floats apart; the same for v. */
DR_CPU_INLINE void input_side(const float *restrict d, float *restrict v, int64_t d_step,
                              int64_t v_step, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        const float d0 = d[c];
        const float d1 = d[d_step + c];
        const float d2 = d[2 * d_step + c];
        const float d3 = d[3 * d_step + c];
        const float d4 = d[4 * d_step + c];
        const float d5 = d[5 * d_step + c];
        const float even_a = d4 - 2.0f * d2;
        const float odd_a = ROOT_HALF * (d3 - 2.0f * d1);
        const float even_b = d4 - 0.5f * d2;
        const float odd_b = ROOT_TWO * (d3 - 0.5f * d1);
        v[c] = (d0 + d4) - 2.5f * d2;
        v[v_step + c] = even_a + odd_a;
        v[2 * v_step + c] = even_a - odd_a;
        v[3 * v_step + c] = even_b + odd_b;
        v[4 * v_step + c] = even_b - odd_b;
        v[5 * v_step + c] = (d1 + d5) - 2.5f * d3;
    }
}

/* g: three weights; u: PATCH values. */
DR_CPU_INLINE void weight_side(const float *restrict g, float *restrict u, int64_t g_step,
                               int64_t u_step, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        const float g0 = g[c];
        const float g1 = g[g_step + c];
        const float g2 = g[2 * g_step + c];
        const float even_a = (-2.0f / 3.0f) * g0 - (1.0f / 3.0f) * g2;
        const float odd_a = (-2.0f / 3.0f) * ROOT_HALF * g1;
        const float even_b = (1.0f / 6.0f) * g0 + (1.0f / 3.0f) * g2;
        const float odd_b = (1.0f / 6.0f) * ROOT_TWO * g1;
        u[c] = g0;
        u[u_step + c] = even_a + odd_a;
        u[2 * u_step + c] = even_a - odd_a;
        u[3 * u_step + c] = even_b + odd_b;
        u[4 * u_step + c] = even_b - odd_b;
        u[5 * u_step + c] = g2;
    }
}

/* m: PATCH values; y: TILE of them. */
DR_CPU_INLINE void output_side(const float *restrict m, float *restrict y, int64_t m_step,
                               int64_t y_step, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        const float even_a = m[m_step + c] + m[2 * m_step + c];
        const float odd_a = ROOT_HALF * (m[m_step + c] - m[2 * m_step + c]);
        const float even_b = m[3 * m_step + c] + m[4 * m_step + c];
        const float odd_b = ROOT_TWO * (m[3 * m_step + c] - m[4 * m_step + c]);
        y[c] = m[c] + (even_a + even_b);
        y[y_step + c] = odd_a + odd_b;
        y[2 * y_step + c] = 0.5f * even_a + 2.0f * even_b;
        y[3 * y_step + c] = (0.5f * odd_a + 2.0f * odd_b) + m[5 * m_step + c];
    }
}

DR_CPU_CLONES
static void transform_patch(const float *d, float *v, int64_t v_step, int64_t n)
{
    float half[ELEMENTS * LANE];
    for (int i = 0; i < PATCH; i++) { /* columns of d */
        input_side(d + i * LANE, half + i * LANE, PATCH * LANE, PATCH * LANE, n);
    }
    for (int i = 0; i < PATCH; i++) { /* rows */
        input_side(half + i * PATCH * LANE, v + i * PATCH * v_step, LANE, v_step, n);
    }
}

DR_CPU_CLONES
static void transform_weights(const float *g, float *u, int64_t g_step, int64_t u_step, int64_t n)
{
    float half[PATCH * 3 * LANE];
    for (int i = 0; i < 3; i++) {
        weight_side(g + i * g_step, half + i * LANE, 3 * g_step, 3 * LANE, n);
    }
    for (int i = 0; i < PATCH; i++) {
        weight_side(half + i * 3 * LANE, u + i * PATCH * u_step, LANE, u_step, n);
    }
}

DR_CPU_CLONES
static void transform_result(const float *m, float *y, int64_t m_step, int64_t n)
{
    float half[TILE * PATCH * LANE];
    for (int i = 0; i < PATCH; i++) {
        output_side(m + i * m_step, half + i * LANE, PATCH * m_step, PATCH * LANE, n);
    }
    for (int i = 0; i < TILE; i++) {
        output_side(half + i * PATCH * LANE, y + i * TILE * LANE, LANE, LANE, n);
    }
}

/* ---- tasks -------------------------------------------------------------------------------------
 */

/* The first pixel of tile t of all images. */
static dr_cpu_pixel tile_at(const winograd_job *j, int64_t t)
{
    return (dr_cpu_pixel){t / (j->rows * j->cols), t / j->cols % j->rows * TILE,
                          t % j->cols * TILE};
}

/* V of one tile, all channels. */
static void input_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const winograd_job *j = job;
    const dr_cpu_image *x = &j->src;
    const dr_cpu_pixel p = tile_at(j, j->t0 + i);
    float d[ELEMENTS * LANE];
    for (int64_t c0 = 0; c0 < x->c; c0 += LANE) {
        const int64_t n = dr_cpu_min(LANE, x->c - c0);
        for (int64_t e = 0; e < ELEMENTS; e++) {
            const int64_t h = p.h + e / PATCH - 1;
            const int64_t w = p.w + e % PATCH - 1;
            if (h < 0 || h >= x->h || w < 0 || w >= x->w) {
                memset(d + e * LANE, 0, (size_t)n * sizeof *d);
            } else {
                memcpy(d + e * LANE, x->data + ((p.n * x->h + h) * x->w + w) * x->c + c0,
                       (size_t)n * sizeof *d);
            }
        }
        transform_patch(d, j->v + i * x->c + c0, j->n_tiles * x->c, n);
    }
}

/* U of one output channel of w: the inputs c0.. when they are dst, all of them otherwise. */
static void weight_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const winograd_job *j = job;
    const int64_t in = j->a->w->dim[3];
    const bool turned = j->a->gradient;
    const int64_t first = turned ? j->c0 : 0;
    const int64_t count = turned ? j->n_out : in;
    const int64_t filters = turned ? j->src.c : j->n_out;
    const float *w = (const float *)j->a->w->data + (turned ? i : j->c0 + i) * 9 * in;
    for (int64_t c = 0; c < count; c += LANE) {
        const float *g = w + first + c + (turned ? 8 * in : 0);
        transform_weights(g, j->u + i * count + c, turned ? -in : in, filters * count,
                          dr_cpu_min(LANE, count - c));
    }
}

/* M of element e. */
static void product_task(const void *job, int64_t e, int thread)
{
    (void)thread;
    const winograd_job *j = job;
    const dr_cpu_matmul g = {.tb = !j->a->gradient,
                             .m = j->n_tiles,
                             .n = j->n_out,
                             .k = j->src.c,
                             .alpha = 1.0f,
                             .a = j->v + e * j->n_tiles * j->src.c,
                             .b = j->u + e * j->n_out * j->src.c,
                             .c = j->m + e * j->n_tiles * j->n_out,
                             .lda = j->src.c,
                             .ldb = j->a->gradient ? j->n_out : j->src.c,
                             .ldc = j->n_out};
    dr_cpu_gemm(&g);
}

DR_CPU_CLONES
static void write_pixel(float *restrict dst, const float *restrict y, const float *bias, bool add,
                        int64_t n)
{
    if (bias != NULL) {
        for (int64_t c = 0; c < n; c++) {
            dst[c] = y[c] + bias[c];
        }
    } else if (add) {
        for (int64_t c = 0; c < n; c++) {
            dst[c] += y[c];
        }
    } else {
        memcpy(dst, y, (size_t)n * sizeof *dst);
    }
}

/* dst of one tile. */
static void output_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const winograd_job *j = job;
    const dr_cpu_pixel p = tile_at(j, j->t0 + i);
    const float *bias = j->a->bias != NULL ? (const float *)j->a->bias->data + j->c0 : NULL;
    float y[TILE * TILE * LANE];
    for (int64_t c = 0; c < j->n_out; c += LANE) {
        const int64_t n = dr_cpu_min(LANE, j->n_out - c);
        transform_result(j->m + i * j->n_out + c, y, j->n_tiles * j->n_out, n);
        for (int64_t k = 0; k < TILE * TILE; k++) {
            const int64_t h = p.h + k / TILE;
            const int64_t w = p.w + k % TILE;
            if (h < j->src.h && w < j->src.w) {
                const int64_t pixel = (p.n * j->src.h + h) * j->src.w + w;
                write_pixel((float *)j->a->dst->data + pixel * j->out + j->c0 + c, y + k * LANE,
                            bias != NULL ? bias + c : NULL, j->a->add, n);
            }
        }
    }
}

static int64_t u_floats(const winograd_job *j)
{
    return ELEMENTS * j->block * j->src.c;
}

static int64_t v_floats(const winograd_job *j)
{
    return ELEMENTS * j->band * j->src.c;
}

size_t dr_cpu_winograd_work(const dr_cpu_winograd *a)
{
    const winograd_job j = plan(a);
    return (size_t)(u_floats(&j) + v_floats(&j) + ELEMENTS * j.band * j.block) * sizeof(float);
}

void dr_cpu_winograd_run(const dr_context *cx, const dr_cpu_winograd *a)
{
    winograd_job j = plan(a);
    j.u = cx->work;
    j.v = j.u + u_floats(&j);
    j.m = j.v + v_floats(&j);
    for (j.c0 = 0; j.c0 < j.out; j.c0 += j.block) {
        j.n_out = dr_cpu_min(j.block, j.out - j.c0);
        dr_cpu_run(cx, a->gradient ? j.src.c : j.n_out, weight_task, &j);
        for (j.t0 = 0; j.t0 < j.tiles; j.t0 += j.n_tiles) { /* a band is of one image */
            j.n_tiles = dr_cpu_min(j.band, j.image - j.t0 % j.image);
            if (j.c0 == 0 || j.band < j.tiles) { /* V of the only band is still there */
                dr_cpu_run(cx, j.n_tiles, input_task, &j);
            }
            dr_cpu_run(cx, ELEMENTS, product_task, &j);
            dr_cpu_run(cx, j.n_tiles, output_task, &j);
        }
    }
}
