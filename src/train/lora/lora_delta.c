/*
 * What a module adds to its weight. All products are of floats, summed over the rank in order.
 */
#include "base/arena.h"
#include "train/lora/lora_file.h"
#include "train/lora/lora_set.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct matrix { /* row-major floats, owned */
    float *at;
    int64_t rows, cols;
} matrix;

static dr_status matrix_new(matrix *m, int64_t rows, int64_t cols)
{
    void *p = NULL;
    DR_TRY(dr_try_calloc((size_t)rows * (size_t)cols, sizeof(float), &p));
    *m = (matrix){p, rows, cols};
    return DR_OK;
}

static void matrix_free(matrix *m)
{
    free(m->at);
    *m = (matrix){0};
}

dr_status dr_lora_part_read(const dr_lora_file *f, const dr_file_tensor *part, float *out)
{
    const void *data = NULL;
    DR_TRY(dr_tensor_file_data(dr_lora_file_tensors(f), part, &data));
    dr_convert(out, DR_F32, data, part->dtype, (size_t)part->n_elems);
    dr_tensor_file_release(dr_lora_file_tensors(f), part);
    return DR_OK;
}

/* A tensor as a matrix of its first axis by the rest. */
static dr_status read_matrix(const dr_lora_file *f, const dr_file_tensor *t, matrix *m)
{
    DR_TRY(matrix_new(m, t->shape[0], t->n_elems / (t->shape[0] > 0 ? t->shape[0] : 1)));
    return dr_lora_part_read(f, t, m->at);
}

/* out (a.rows, b.cols) = a b; out has room. */
static void multiply(const matrix *a, const matrix *b, float *out)
{
    DR_CHECK(a->cols == b->rows, "%lld columns and %lld rows", (long long)a->cols,
             (long long)b->rows);
    for (int64_t i = 0; i < a->rows; i++) {
        float *row = out + i * b->cols;
        memset(row, 0, (size_t)b->cols * sizeof *row);
        for (int64_t k = 0; k < a->cols; k++) {
            const float factor = a->at[i * a->cols + k];
            const float *from = b->at + k * b->cols;
            for (int64_t j = 0; j < b->cols; j++) {
                row[j] += factor * from[j];
            }
        }
    }
}

static dr_status product(const matrix *a, const matrix *b, matrix *out)
{
    DR_TRY(matrix_new(out, a->rows, b->cols));
    multiply(a, b, out->at);
    return DR_OK;
}

static dr_status transpose(matrix *m)
{
    matrix t = {0};
    DR_TRY(matrix_new(&t, m->cols, m->rows));
    for (int64_t i = 0; i < m->rows; i++) {
        for (int64_t j = 0; j < m->cols; j++) {
            t.at[j * t.cols + i] = m->at[i * m->cols + j];
        }
    }
    matrix_free(m);
    *m = t;
    return DR_OK;
}

/*
 * A core (r,r,k,k) times down (r,in): t (r, in*k*k) with t[p,i,k] = sum over q of core[p,q,k]
 * down[q,i].
 */
static dr_status through_core(const matrix *core, const matrix *down, matrix *t)
{
    const int64_t r = down->rows;
    const int64_t window = core->cols / r;
    DR_TRY(matrix_new(t, r, down->cols * window));
    for (int64_t p = 0; p < r; p++) {
        for (int64_t q = 0; q < r; q++) {
            const float *taps = core->at + (p * r + q) * window;
            for (int64_t i = 0; i < down->cols; i++) {
                float *to = t->at + p * t->cols + i * window;
                for (int64_t k = 0; k < window; k++) {
                    to[k] += taps[k] * down->at[q * down->cols + i];
                }
            }
        }
    }
    return DR_OK;
}

typedef struct chain { /* up core down, by roles of a module */
    const dr_file_tensor *up, *core, *down;
    bool turned; /* up lies as (r,out) */
} chain;

/* The product of a chain, (rows of up, columns of down * window); out is to be freed, on error
 * too. */
static dr_status run_chain(const dr_lora_file *f, const chain *c, matrix *out)
{
    matrix up = {0};
    matrix down = {0};
    matrix core = {0};
    matrix through = {0};
    dr_status st = DR_OK;
    DR_TRY_GOTO(read_matrix(f, c->up, &up), st, end);
    DR_TRY_GOTO(read_matrix(f, c->down, &down), st, end);
    if (c->turned) {
        DR_TRY_GOTO(transpose(&up), st, end);
    }
    if (c->core != NULL) {
        DR_TRY_GOTO(read_matrix(f, c->core, &core), st, end);
        DR_TRY_GOTO(through_core(&core, &down, &through), st, end);
    }
    st = product(&up, c->core != NULL ? &through : &down, out);
end:
    matrix_free(&up);
    matrix_free(&down);
    matrix_free(&core);
    matrix_free(&through);
    return st;
}

dr_status dr_lora_factors_read(const dr_lora_file *f, const dr_lora_module *m, float *up,
                               float *down)
{
    const dr_file_tensor *const *p = m->part;
    DR_CHECK(m->kind == DR_LORA_FACTORS, "%s is not of two factors", m->name);
    DR_TRY(dr_lora_part_read(f, p[DR_LORA_UP], up));
    if (p[DR_LORA_MID] == NULL) {
        return dr_lora_part_read(f, p[DR_LORA_DOWN], down);
    }
    matrix first = {0};
    matrix core = {0};
    matrix through = {0};
    dr_status st = read_matrix(f, p[DR_LORA_DOWN], &first);
    if (st == DR_OK) {
        st = read_matrix(f, p[DR_LORA_MID], &core);
    }
    if (st == DR_OK) {
        st = through_core(&core, &first, &through);
    }
    if (st == DR_OK) {
        memcpy(down, through.at, (size_t)(through.rows * through.cols) * sizeof *down);
    }
    matrix_free(&first);
    matrix_free(&core);
    matrix_free(&through);
    return st;
}

static dr_status hadamard(const dr_lora_file *f, const dr_lora_module *m, matrix *out)
{
    const dr_file_tensor *const *p = m->part;
    const bool cores = p[DR_LORA_T1] != NULL;
    matrix second = {0};
    dr_status st =
        run_chain(f, &(chain){p[DR_LORA_W1_A], p[DR_LORA_T1], p[DR_LORA_W1_B], cores}, out);
    if (st == DR_OK) {
        st =
            run_chain(f, &(chain){p[DR_LORA_W2_A], p[DR_LORA_T2], p[DR_LORA_W2_B], cores}, &second);
    }
    for (int64_t i = 0; st == DR_OK && i < out->rows * out->cols; i++) {
        out->at[i] *= second.at[i];
    }
    matrix_free(&second);
    return st;
}

/* One half of a LoKr: whole, or of two factors, perhaps with a core. */
static dr_status half(const dr_lora_file *f, const dr_file_tensor *whole, const chain *c,
                      matrix *out)
{
    return whole != NULL ? read_matrix(f, whole, out) : run_chain(f, c, out);
}

/* out[i b + k, (j d + l) window + w] = w1[i,j] w2[k, l window + w] */
static dr_status kronecker_of(const matrix *w1, const matrix *w2, matrix *out)
{
    DR_TRY(matrix_new(out, w1->rows * w2->rows, w1->cols * w2->cols));
    for (int64_t i = 0; i < w1->rows; i++) {
        for (int64_t k = 0; k < w2->rows; k++) {
            float *to = out->at + (i * w2->rows + k) * out->cols;
            for (int64_t j = 0; j < w1->cols; j++) {
                for (int64_t l = 0; l < w2->cols; l++) {
                    to[j * w2->cols + l] = w1->at[i * w1->cols + j] * w2->at[k * w2->cols + l];
                }
            }
        }
    }
    return DR_OK;
}

static dr_status kronecker(const dr_lora_file *f, const dr_lora_module *m, matrix *out)
{
    const dr_file_tensor *const *p = m->part;
    const chain first = {p[DR_LORA_W1_A], NULL, p[DR_LORA_W1_B], false};
    const chain second = {p[DR_LORA_W2_A], p[DR_LORA_T2], p[DR_LORA_W2_B], p[DR_LORA_T2] != NULL};
    matrix w1 = {0};
    matrix w2 = {0};
    dr_status st = half(f, p[DR_LORA_W1], &first, &w1);
    if (st == DR_OK) {
        st = half(f, p[DR_LORA_W2], &second, &w2);
    }
    if (st == DR_OK) {
        st = kronecker_of(&w1, &w2, out);
    }
    matrix_free(&w1);
    matrix_free(&w2);
    return st;
}

int64_t dr_lora_weight_elems(const dr_lora_module *m)
{
    return m->out * m->in * m->kernel[0] * m->kernel[1];
}

bool dr_lora_has_weight(const dr_lora_module *m)
{
    return m->kind != DR_LORA_DIFFERENCE || m->part[DR_LORA_DIFF] != NULL;
}

bool dr_lora_has_vector(const dr_lora_module *m)
{
    return m->part[DR_LORA_BIAS] != NULL ||
           (m->kind == DR_LORA_DIFFERENCE && m->part[DR_LORA_DIFF]->rank == 1);
}

bool dr_lora_fits(const dr_lora_module *m, int rank, const int64_t *dim)
{
    int64_t rest = 1;
    for (int i = 1; i < rank; i++) {
        rest *= dim[i];
    }
    if (!dr_lora_has_weight(m) || rank < 1 || dim[0] != m->out ||
        rest * dim[0] != dr_lora_weight_elems(m)) {
        return false;
    }
    /* a kernel that does not show in the module's shapes is within `in` */
    return m->kernel[0] * m->kernel[1] == 1 || m->in == dim[1];
}

dr_status dr_lora_delta(const dr_lora_file *f, const dr_lora_module *m, float *out)
{
    const dr_file_tensor *const *p = m->part;
    const size_t n = (size_t)dr_lora_weight_elems(m);
    matrix w = {0};
    dr_status st = DR_OK;
    switch (m->kind) {
    case DR_LORA_FACTORS:
        st = run_chain(f, &(chain){p[DR_LORA_UP], p[DR_LORA_MID], p[DR_LORA_DOWN], false}, &w);
        break;
    case DR_LORA_HADAMARD:
        st = hadamard(f, m, &w);
        break;
    case DR_LORA_KRONECKER:
        st = kronecker(f, m, &w);
        break;
    case DR_LORA_DIFFERENCE:
        st = read_matrix(f, p[DR_LORA_DIFF], &w);
        break;
    }
    if (st == DR_OK) {
        DR_CHECK((size_t)(w.rows * w.cols) == n, "%s: %lld x %lld, expected %zu", m->name,
                 (long long)w.rows, (long long)w.cols, n);
        for (size_t i = 0; i < n; i++) {
            out[i] = (float)(m->scale * (double)w.at[i]);
        }
    }
    matrix_free(&w);
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", m->source);
}

/* ---- DoRA ---------------------------------------------------------------------------------- */

/* Norms of rows, or of columns over rows and window; norms has room for them. */
static void find_norms(const float *w, const dr_lora_module *m, bool by_row, double *norms)
{
    const int64_t cols = dr_lora_weight_elems(m) / m->out;
    const int64_t window = cols / m->in;
    for (int64_t i = 0; i < m->out; i++) {
        for (int64_t j = 0; j < cols; j++) {
            const double x = (double)w[i * cols + j];
            norms[by_row ? i : j / window] += x * x;
        }
    }
    for (int64_t i = 0; i < (by_row ? m->out : m->in); i++) {
        norms[i] = sqrt(norms[i]) + (double)FLT_EPSILON; /* as LyCORIS, against 0 / 0 */
    }
}

static void rescale(float *w, const dr_lora_module *m, bool by_row, const float *magnitude,
                    const double *norms, double ratio)
{
    const int64_t cols = dr_lora_weight_elems(m) / m->out;
    const int64_t window = cols / m->in;
    for (int64_t i = 0; i < m->out; i++) {
        for (int64_t j = 0; j < cols; j++) {
            const int64_t at = by_row ? i : j / window;
            const double factor = 1.0 + ratio * ((double)magnitude[at] / norms[at] - 1.0);
            w[i * cols + j] = (float)((double)w[i * cols + j] * factor);
        }
    }
}

/* weight already holds the delta, unscaled by the ratio. */
static dr_status set_magnitude(const dr_lora_file *f, const dr_lora_module *m, double ratio,
                               float *weight)
{
    const dr_file_tensor *t = m->part[DR_LORA_MAGNITUDE];
    const bool by_row = !(t->rank >= 2 && t->shape[0] == 1 && t->shape[1] == m->in && m->out != 1);
    void *magnitude = NULL;
    void *norms = NULL;
    dr_status st = dr_try_calloc((size_t)t->n_elems, sizeof(float), &magnitude);
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)t->n_elems, sizeof(double), &norms);
    }
    if (st == DR_OK) {
        st = dr_lora_part_read(f, t, magnitude);
    }
    if (st == DR_OK) {
        find_norms(weight, m, by_row, norms);
        rescale(weight, m, by_row, magnitude, norms, ratio);
    }
    free(magnitude);
    free(norms);
    return st;
}

dr_status dr_lora_apply(const dr_lora_file *f, const dr_lora_module *m, double ratio, float *weight)
{
    const int64_t n = dr_lora_weight_elems(m);
    const bool dora = m->part[DR_LORA_MAGNITUDE] != NULL;
    matrix delta = {0};
    DR_TRY(matrix_new(&delta, 1, n));
    dr_status st = dr_lora_delta(f, m, delta.at);
    for (int64_t i = 0; st == DR_OK && i < n; i++) {
        weight[i] = (float)((double)weight[i] + (dora ? 1.0 : ratio) * (double)delta.at[i]);
    }
    if (st == DR_OK && dora) {
        st = set_magnitude(f, m, ratio, weight);
    }
    matrix_free(&delta);
    return st;
}

dr_status dr_lora_apply_bias(const dr_lora_file *f, const dr_lora_module *m, double ratio,
                             float *bias)
{
    matrix delta = {0};
    dr_status st = read_matrix(f, m->part[DR_LORA_BIAS], &delta);
    for (int64_t i = 0; st == DR_OK && i < m->out; i++) {
        bias[i] = (float)((double)bias[i] + ratio * (double)delta.at[i]);
    }
    matrix_free(&delta);
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", m->source);
}

/* ---- modules that change nothing ----------------------------------------------------------- */

/* The tensor that training starts at zero. */
static const dr_file_tensor *first_zero(const dr_lora_module *m)
{
    const dr_file_tensor *const *p = m->part;
    switch (m->kind) {
    case DR_LORA_FACTORS:
        return p[DR_LORA_UP];
    case DR_LORA_HADAMARD:
        return p[DR_LORA_W2_A];
    case DR_LORA_KRONECKER:
        return p[DR_LORA_W2] != NULL ? p[DR_LORA_W2] : p[DR_LORA_W2_B];
    case DR_LORA_DIFFERENCE:
        break;
    }
    return p[DR_LORA_DIFF] != NULL ? p[DR_LORA_DIFF] : p[DR_LORA_BIAS];
}

static dr_status is_zero(const dr_lora_file *f, const dr_file_tensor *t, bool *zero)
{
    matrix m = {0};
    dr_status st = read_matrix(f, t, &m);
    *zero = st == DR_OK;
    for (int64_t i = 0; st == DR_OK && *zero && i < t->n_elems; i++) {
        *zero = m.at[i] == 0.0F;
    }
    matrix_free(&m);
    return st;
}

dr_status dr_lora_file_count_zero(const dr_lora_file *f, size_t *n, const dr_lora_module **first)
{
    *n = 0;
    *first = NULL;
    for (size_t i = 0; i < dr_lora_file_count(f); i++) {
        const dr_lora_module *m = dr_lora_file_at(f, i);
        bool zero = false;
        DR_TRY(is_zero(f, first_zero(m), &zero));
        if (zero && m->part[DR_LORA_BIAS] != NULL) {
            DR_TRY(is_zero(f, m->part[DR_LORA_BIAS], &zero));
        }
        *first = zero && *n == 0 ? m : *first;
        *n += zero ? 1 : 0;
    }
    return DR_OK;
}
