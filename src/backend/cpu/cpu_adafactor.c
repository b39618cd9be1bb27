/*
 * Adafactor. A tensor is (outer,a,b,inner) in memory; what is contiguous for its columns, b x
 * inner, is called a line here. Sums are in double, in an order that does not depend on threads.
 */
#include "backend/cpu/cpu_internal.h"

#include <math.h>
#include <string.h>

enum { BLOCK = DR_CPU_UPDATE, CHUNK = 512 };

static float squared(const dr_adafactor_moments_args *a, int64_t i)
{
    const float g = (float)a->grad_scale * ((const float *)a->g->data)[i];
    return g * g + (float)a->eps;
}

static void move_towards(float *state, float mean, double keep)
{
    *state = fmaf((float)(1.0 - keep), mean, (float)keep * *state);
}

/* ---- moments ----------------------------------------------------------------------------------
 */

/* Row l of (outer x a): inner means over b. */
static void row_task(const void *job, int64_t l, int thread)
{
    (void)thread;
    const dr_adafactor_moments_args *a = job;
    const dr_factored *f = &a->f;
    float *row = (float *)f->row->data + l * f->inner;
    for (int64_t from = 0; from < f->inner; from += CHUNK) {
        const int64_t n = dr_cpu_min(CHUNK, f->inner - from);
        double sum[CHUNK] = {0.0};
        for (int64_t b = 0; b < f->b; b++) {
            for (int64_t i = 0; i < n; i++) {
                sum[i] += (double)squared(a, (l * f->b + b) * f->inner + from + i);
            }
        }
        for (int64_t i = 0; i < n; i++) {
            move_towards(row + from + i, (float)(sum[i] / (double)f->b), a->keep);
        }
    }
}

static int64_t line_chunks(const dr_factored *f)
{
    return dr_cpu_ceil_div(f->b * f->inner, CHUNK);
}

/* A chunk of the columns of one of the outer tensors: means over a. */
static void col_task(const void *job, int64_t task, int thread)
{
    (void)thread;
    const dr_adafactor_moments_args *a = job;
    const dr_factored *f = &a->f;
    const int64_t line = f->b * f->inner;
    const int64_t outer = task / line_chunks(f);
    const int64_t from = task % line_chunks(f) * CHUNK;
    const int64_t n = dr_cpu_min(CHUNK, line - from);
    double sum[CHUNK] = {0.0};
    for (int64_t k = 0; k < f->a; k++) {
        for (int64_t i = 0; i < n; i++) {
            sum[i] += (double)squared(a, (outer * f->a + k) * line + from + i);
        }
    }
    float *col = (float *)f->col->data + outer * line + from;
    for (int64_t i = 0; i < n; i++) {
        move_towards(col + i, (float)(sum[i] / (double)f->a), a->keep);
    }
}

static void whole_task(const void *job, int64_t task, int thread)
{
    (void)thread;
    const dr_adafactor_moments_args *a = job;
    const int64_t end = dr_cpu_min((task + 1) * BLOCK, dr_numel(a->g));
    for (int64_t i = task * BLOCK; i < end; i++) {
        move_towards((float *)a->f.v->data + i, squared(a, i), a->keep);
    }
}

dr_status dr_cpu_adafactor_moments(dr_context *cx, const dr_adafactor_moments_args *a)
{
    if (a->f.v != NULL) {
        dr_cpu_run(cx, dr_cpu_ceil_div(dr_numel(a->g), BLOCK), whole_task, a);
        return DR_OK;
    }
    dr_cpu_run(cx, a->f.outer * a->f.a, row_task, a);
    dr_cpu_run(cx, a->f.outer * line_chunks(&a->f), col_task, a);
    return DR_OK;
}

/* ---- the update -------------------------------------------------------------------------------
 */

/*
 * Lines of outer x a (factored), or blocks of a whole tensor, are the tasks. Before them the row
 * factors rsqrt(row / mean over a) and column factors rsqrt(col) are made.
 */
typedef struct update_job {
    const dr_factored *f;
    const float *g;
    float scale;
    float *rows, *cols; /* NULL: not factored */
    int64_t task, n;    /* elements of a task, of all */
    double *part;       /* two sums per task */
    const float *p;     /* of adafactor_sums */
    const dr_adafactor_apply_args *apply;
    float factor;
    double rate;
} update_job;

static size_t update_work(const dr_factored *f, int64_t n, bool sums)
{
    const int64_t tasks = f->v != NULL ? dr_cpu_ceil_div(n, BLOCK) : f->outer * f->a;
    const int64_t factors = f->v != NULL ? 0 : f->outer * (f->a + f->b) * f->inner;
    return (size_t)(sums ? 2 * tasks : 0) * sizeof(double) + (size_t)factors * sizeof(float);
}

size_t dr_cpu_adafactor_sums_work(const dr_adafactor_sums_args *a)
{
    return update_work(&a->f, dr_numel(a->g), true);
}

size_t dr_cpu_adafactor_apply_work(const dr_adafactor_apply_args *a)
{
    return update_work(&a->f, dr_numel(a->g), false);
}

static void row_factors(const dr_factored *f, float *out)
{
    for (int64_t i = 0; i < f->outer * f->inner; i++) {
        const int64_t at = i / f->inner * f->a * f->inner + i % f->inner;
        const float *row = (const float *)f->row->data + at;
        double sum = 0.0;
        for (int64_t k = 0; k < f->a; k++) {
            sum += (double)row[k * f->inner];
        }
        const float mean = (float)(sum / (double)f->a);
        for (int64_t k = 0; k < f->a; k++) {
            out[at + k * f->inner] = 1.0f / sqrtf(row[k * f->inner] / mean);
        }
    }
}

static update_job open_job(const dr_factored *f, const dr_tensor *g, double scale, void *work,
                           bool sums)
{
    update_job j = {.f = f, .g = g->data, .scale = (float)scale, .n = dr_numel(g)};
    j.task = f->v != NULL ? BLOCK : f->b * f->inner;
    const int64_t tasks = dr_cpu_ceil_div(j.n, j.task);
    j.part = work;
    if (f->v == NULL) {
        j.rows = (float *)((double *)work + (sums ? 2 * tasks : 0));
        j.cols = j.rows + f->outer * f->a * f->inner;
        row_factors(f, j.rows);
        const float *col = f->col->data;
        for (int64_t i = 0; i < f->outer * f->b * f->inner; i++) {
            j.cols[i] = 1.0f / sqrtf(col[i]);
        }
    }
    return j;
}

/* n updates of task t from element `from` of it (whole tensors) or of its line, into u. */
static void make_updates(const update_job *j, int64_t t, int64_t from, int64_t n, float *u)
{
    const float *g = j->g + t * j->task + from;
    if (j->f->v != NULL) {
        const float *v = (const float *)j->f->v->data + t * j->task + from;
        for (int64_t i = 0; i < n; i++) {
            u[i] = g[i] * j->scale / sqrtf(v[i]);
        }
        return;
    }
    const float *rows = j->rows + t * j->f->inner;
    const float *cols = j->cols + t / j->f->a * j->task + from;
    for (int64_t i = 0; i < n; i++) {
        u[i] = rows[(from + i) % j->f->inner] * cols[i] * (g[i] * j->scale);
    }
}

static void sums_task(const void *job, int64_t t, int thread)
{
    (void)thread;
    const update_job *j = job;
    const int64_t length = dr_cpu_min(j->task, j->n - t * j->task);
    float u[CHUNK];
    double updates = 0.0;
    double values = 0.0;
    for (int64_t from = 0; from < length; from += CHUNK) {
        const int64_t n = dr_cpu_min(CHUNK, length - from);
        const float *p = j->p + t * j->task + from;
        make_updates(j, t, from, n, u);
        for (int64_t i = 0; i < n; i++) {
            updates += (double)u[i] * (double)u[i];
            values += (double)p[i] * (double)p[i];
        }
    }
    j->part[2 * t] = updates;
    j->part[2 * t + 1] = values;
}

dr_status dr_cpu_adafactor_sums(dr_context *cx, const dr_adafactor_sums_args *a)
{
    update_job j = open_job(&a->f, a->g, a->grad_scale, cx->work, true);
    const int64_t tasks = dr_cpu_ceil_div(j.n, j.task);
    double *out = a->sums->data;
    j.p = a->p->data;
    dr_cpu_run(cx, tasks, sums_task, &j);
    memset(out, 0, 3 * sizeof *out);
    for (int64_t i = 0; i < tasks; i++) {
        out[0] += j.part[2 * i];
        out[1] += j.part[2 * i + 1];
    }
    return DR_OK;
}

static void apply_task(const void *job, int64_t t, int thread)
{
    (void)thread;
    const update_job *j = job;
    const dr_adafactor_apply_args *a = j->apply;
    const int64_t length = dr_cpu_min(j->task, j->n - t * j->task);
    const float decay = (float)(-a->weight_decay * j->rate);
    float u[CHUNK];
    for (int64_t from = 0; from < length; from += CHUNK) {
        const int64_t at = t * j->task + from;
        const int64_t n = dr_cpu_min(CHUNK, length - from);
        float *p = (float *)a->p->data + at;
        make_updates(j, t, from, n, u);
        for (int64_t i = 0; i < n; i++) {
            u[i] *= j->factor;
        }
        for (int64_t i = 0; i < n && a->m != NULL; i++) {
            float *m = (float *)a->m->data + at + i;
            *m = fmaf((float)(1.0 - a->beta1), u[i], (float)a->beta1 * *m);
            u[i] = *m;
        }
        for (int64_t i = 0; i < n; i++) {
            p[i] = fmaf(decay, p[i], p[i]) - u[i];
        }
    }
}

dr_status dr_cpu_adafactor_apply(dr_context *cx, const dr_adafactor_apply_args *a)
{
    update_job j = open_job(&a->f, a->g, a->grad_scale, cx->work, false);
    double *sums = a->sums->data;
    const double n = (double)j.n;
    j.apply = a;
    j.rate = a->lr * (a->scale_parameter ? fmax(a->least_scale, sqrt(sums[1] / n)) : 1.0);
    j.factor = (float)(j.rate / fmax(1.0, sqrt(sums[0] / n) / a->clip));
    dr_cpu_run(cx, dr_cpu_ceil_div(j.n, j.task), apply_task, &j);
    sums[2] = j.rate;
    return DR_OK;
}
