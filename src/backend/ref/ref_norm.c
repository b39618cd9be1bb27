#include "ops/norm.h"
#include "backend/ref/ref_internal.h"

/*
 * Both norms see x as `pixels` rows of `width` numbers, `stride` apart. Group norm: one set per
 * sample and group, layer norm: one set per row with a single pixel.
 */
typedef struct set {
    int64_t pixels, width, stride;
} set;

static void statistics(const set *s, const dr_real *x, float eps, dr_real stats[2])
{
    const double count = (double)(s->pixels * s->width);
    double sum = 0.0;
    for (int64_t p = 0; p < s->pixels; p++) {
        for (int64_t c = 0; c < s->width; c++) {
            sum += (double)x[p * s->stride + c];
        }
    }
    const double mean = sum / count;
    double squares = 0.0;
    for (int64_t p = 0; p < s->pixels; p++) {
        for (int64_t c = 0; c < s->width; c++) {
            const double d = (double)x[p * s->stride + c] - mean;
            squares += d * d;
        }
    }
    stats[0] = (dr_real)mean;
    stats[1] = (dr_real)(1.0 / sqrt(squares / count + (double)eps));
}

static dr_real silu(dr_real x)
{
    return x / ((dr_real)1 + DR_MATH(exp)(-x));
}

/* SiLU'(x) = s (1 + x (1 - s)), s = sigmoid(x) */
static dr_real silu_slope(dr_real x)
{
    const dr_real s = (dr_real)1 / ((dr_real)1 + DR_MATH(exp)(-x));
    return s * ((dr_real)1 + x * ((dr_real)1 - s));
}

/* What one element needs going back; beta NULL: no SiLU followed. */
typedef struct affine {
    const dr_real *gamma, *beta;
} affine;

/* The gradient of gamma xhat + beta for channel c. */
static dr_real before_act(const affine *f, int64_t c, dr_real xhat, dr_real dy)
{
    return f->beta == NULL ? dy : dy * silu_slope(f->gamma[c] * xhat + f->beta[c]);
}

/* g = dy gamma; dx = rstd (g - mean(g) - xhat mean(g xhat)) */
static void input_gradient(const set *s, const affine *f, const dr_real *dy, const dr_real *x,
                           const dr_real stats[2], dr_real *dx, dr_write mode)
{
    double sum_g = 0.0;
    double sum_gx = 0.0;
    for (int64_t p = 0; p < s->pixels; p++) {
        for (int64_t c = 0; c < s->width; c++) {
            const int64_t at = p * s->stride + c;
            const dr_real xhat = (x[at] - stats[0]) * stats[1];
            const dr_real g = before_act(f, c, xhat, dy[at]) * f->gamma[c];
            sum_g += (double)g;
            sum_gx += (double)g * (double)xhat;
        }
    }
    const double count = (double)(s->pixels * s->width);
    const dr_real mean_g = (dr_real)(sum_g / count);
    const dr_real mean_gx = (dr_real)(sum_gx / count);
    for (int64_t p = 0; p < s->pixels; p++) {
        for (int64_t c = 0; c < s->width; c++) {
            const int64_t at = p * s->stride + c;
            const dr_real xhat = (x[at] - stats[0]) * stats[1];
            const dr_real g = before_act(f, c, xhat, dy[at]) * f->gamma[c];
            dr_ref_put(&dx[at], stats[1] * (g - mean_g - xhat * mean_gx), mode);
        }
    }
}

dr_status DR_REF(groupnorm)(dr_context *cx, const dr_groupnorm_args *a)
{
    const int64_t channels = dr_cols(a->x);
    const int64_t n = a->x->dim[0];
    const set s = {dr_rows(a->x) / n, channels / a->groups, channels};
    const dr_real *gamma = dr_ref_data(a->gamma);
    const dr_real *beta = dr_ref_data(a->beta);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t t = 0; t < n * a->groups; t++) {
        const int64_t c0 = t % a->groups * s.width;
        const int64_t offset = t / a->groups * s.pixels * channels + c0;
        const dr_real *x = dr_ref_data(a->x) + offset;
        dr_real *y = dr_ref_data(a->y) + offset;
        dr_real *stats = dr_ref_data(a->stats) + 2 * t;
        statistics(&s, x, a->eps, stats);
        for (int64_t p = 0; p < s.pixels; p++) {
            for (int64_t c = 0; c < s.width; c++) {
                const int64_t at = p * s.stride + c;
                const dr_real xhat = (x[at] - stats[0]) * stats[1];
                const dr_real u = gamma[c0 + c] * xhat + beta[c0 + c];
                y[at] = a->silu ? silu(u) : u;
            }
        }
    }
    return DR_OK;
}

enum { BLOCK = 16 }; /* channels summed together: one or two cache lines per row */

/* dgamma(c) += sum over samples and pixels of du xhat, dbeta(c) += sum of du, for channels c0 .. */
static void add_group_affine_gradient(const dr_groupnorm_backward_args *a, int64_t c0)
{
    const int64_t channels = dr_cols(a->x);
    const int64_t pixels = dr_rows(a->x) / a->x->dim[0];
    const int64_t n = channels - c0 < BLOCK ? channels - c0 : BLOCK;
    const affine f = {dr_ref_data(a->gamma), a->silu ? dr_ref_data(a->beta) : NULL};
    const dr_real *all_stats = dr_ref_data(a->stats);
    double sum_gamma[BLOCK] = {0};
    double sum_beta[BLOCK] = {0};
    for (int64_t r = 0; r < dr_rows(a->x); r++) {
        const dr_real *x = dr_ref_data(a->x) + r * channels + c0;
        const dr_real *dy = dr_ref_data(a->dy) + r * channels + c0;
        for (int64_t c = 0; c < n; c++) {
            const int64_t group = (c0 + c) / (channels / a->groups);
            const dr_real *stats = all_stats + 2 * (r / pixels * a->groups + group);
            const dr_real xhat = (x[c] - stats[0]) * stats[1];
            const dr_real du = before_act(&f, c0 + c, xhat, dy[c]);
            sum_gamma[c] += (double)du * (double)xhat;
            sum_beta[c] += (double)du;
        }
    }
    for (int64_t c = 0; c < n; c++) {
        dr_ref_data(a->dgamma)[c0 + c] += (dr_real)sum_gamma[c];
        dr_ref_data(a->dbeta)[c0 + c] += (dr_real)sum_beta[c];
    }
}

dr_status DR_REF(groupnorm_backward)(dr_context *cx, const dr_groupnorm_backward_args *a)
{
    const int64_t channels = dr_cols(a->x);
    const int64_t n = a->x->dim[0];
    const set s = {dr_rows(a->x) / n, channels / a->groups, channels};
    if (a->dgamma != NULL) {
#pragma omp parallel for num_threads(cx->threads) schedule(static)
        for (int64_t c0 = 0; c0 < channels; c0 += BLOCK) {
            add_group_affine_gradient(a, c0);
        }
    }
    if (a->dx == NULL) {
        return DR_OK;
    }
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t t = 0; t < n * a->groups; t++) {
        const int64_t c0 = t % a->groups * s.width;
        const int64_t offset = t / a->groups * s.pixels * channels + c0;
        const affine f = {dr_ref_data(a->gamma) + c0, a->silu ? dr_ref_data(a->beta) + c0 : NULL};
        input_gradient(&s, &f, dr_ref_data(a->dy) + offset, dr_ref_data(a->x) + offset,
                       dr_ref_data(a->stats) + 2 * t, dr_ref_data(a->dx) + offset, a->mode);
    }
    return DR_OK;
}

dr_status DR_REF(layernorm)(dr_context *cx, const dr_layernorm_args *a)
{
    const set s = {1, dr_cols(a->x), dr_cols(a->x)};
    const dr_real *gamma = dr_ref_data(a->gamma);
    const dr_real *beta = dr_ref_data(a->beta);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->x); r++) {
        const dr_real *x = dr_ref_data(a->x) + r * s.width;
        dr_real *y = dr_ref_data(a->y) + r * s.width;
        dr_real *stats = dr_ref_data(a->stats) + 2 * r;
        statistics(&s, x, a->eps, stats);
        for (int64_t c = 0; c < s.width; c++) {
            y[c] = gamma[c] * ((x[c] - stats[0]) * stats[1]) + beta[c];
        }
    }
    return DR_OK;
}

/* dgamma += column sums of dy xhat, dbeta += column sums of dy, for columns c0 .. */
static void add_columns_affine_gradient(const dr_layernorm_backward_args *a, int64_t c0)
{
    const int64_t width = dr_cols(a->x);
    const int64_t n = width - c0 < BLOCK ? width - c0 : BLOCK;
    double sum_gamma[BLOCK] = {0};
    double sum_beta[BLOCK] = {0};
    for (int64_t r = 0; r < dr_rows(a->x); r++) {
        const dr_real *stats = dr_ref_data(a->stats) + 2 * r;
        const dr_real *x = dr_ref_data(a->x) + r * width + c0;
        const dr_real *dy = dr_ref_data(a->dy) + r * width + c0;
        for (int64_t c = 0; c < n; c++) {
            const dr_real xhat = (x[c] - stats[0]) * stats[1];
            sum_gamma[c] += (double)dy[c] * (double)xhat;
            sum_beta[c] += (double)dy[c];
        }
    }
    for (int64_t c = 0; c < n; c++) {
        dr_ref_data(a->dgamma)[c0 + c] += (dr_real)sum_gamma[c];
        dr_ref_data(a->dbeta)[c0 + c] += (dr_real)sum_beta[c];
    }
}

dr_status DR_REF(layernorm_backward)(dr_context *cx, const dr_layernorm_backward_args *a)
{
    const set s = {1, dr_cols(a->x), dr_cols(a->x)};
    const affine f = {dr_ref_data(a->gamma), NULL};
    if (a->dgamma != NULL) {
#pragma omp parallel for num_threads(cx->threads) schedule(static)
        for (int64_t c0 = 0; c0 < s.width; c0 += BLOCK) {
            add_columns_affine_gradient(a, c0);
        }
    }
    if (a->dx == NULL) {
        return DR_OK;
    }
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->x); r++) {
        input_gradient(&s, &f, dr_ref_data(a->dy) + r * s.width, dr_ref_data(a->x) + r * s.width,
                       dr_ref_data(a->stats) + 2 * r, dr_ref_data(a->dx) + r * s.width, a->mode);
    }
    return DR_OK;
}
