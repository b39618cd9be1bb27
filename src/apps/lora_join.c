#include "apps/lora_join.h"

#include "apps/lora_tools.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct part { /* one LoRA's module of a name */
    const dr_lora_file *file;
    const dr_lora_module *module;
    double ratio;
} part;

typedef struct joint { /* all that are summed into one module */
    const char *name;
    dr_lora_shape shape;
    part *at; /* room for all LoRAs */
    size_t n;
    bool factors;      /* all are products of two factors */
    int64_t sum, most; /* of their ranks */
} joint;

static const char *path_of(const dr_lora_file *f)
{
    return dr_tensor_file_path(dr_lora_file_tensors(f));
}

static dr_status add_part(joint *j, const dr_lora_layer *layer, const dr_lora_module *m)
{
    if (m->part[DR_LORA_MAGNITUDE] != NULL) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: module %s is a DoRA, whose effect depends on the model's weights; merge it "
                "into a model with --sd_model",
                path_of(layer->file), m->source);
    }
    const dr_status st = dr_lora_check_factors(m);
    if (st != DR_OK) {
        return dr_error_prefix(st, "%s", path_of(layer->file));
    }
    const dr_lora_shape shape = dr_lora_module_shape(m);
    if (j->n == 0 || (!j->shape.conv && shape.conv)) {
        j->shape = shape;
    }
    if (shape.out != j->shape.out || dr_lora_columns(&shape) != dr_lora_columns(&j->shape)) {
        DR_FAIL(DR_FORMAT,
                "%s: module %s changes a weight of %lld x %lld, in %s it is %lld x %lld: the LoRAs "
                "are made for different models",
                path_of(layer->file), m->source, (long long)shape.out,
                (long long)dr_lora_columns(&shape), path_of(j->at[0].file), (long long)j->shape.out,
                (long long)dr_lora_columns(&j->shape));
    }
    j->at[j->n++] = (part){layer->file, m, layer->ratio};
    j->factors = j->factors && m->kind == DR_LORA_FACTORS;
    j->sum += m->rank;
    j->most = m->rank > j->most ? m->rank : j->most;
    return DR_OK;
}

static dr_status collect(const dr_lora_stack *s, const char *name, joint *j)
{
    *j = (joint){.name = name, .at = j->at, .factors = true};
    for (size_t i = 0; i < s->n; i++) {
        const dr_lora_module *m = dr_lora_file_find(s->at[i].file, name);
        if (m != NULL) {
            DR_TRY(add_part(j, &s->at[i], m));
        }
    }
    return DR_OK;
}

/*
 * The factors side by side, each times the root of its scale, so that the product of the wholes is
 * the sum of the products.
 */
static dr_status stack_factors(const joint *j, float *up, float *down)
{
    const int64_t cols = dr_lora_columns(&j->shape);
    int64_t at = 0;
    for (size_t i = 0; i < j->n; i++) {
        const dr_lora_module *m = j->at[i].module;
        const double scale = m->scale * j->at[i].ratio;
        const double root = sqrt(fabs(scale));
        void *own = NULL;
        DR_TRY(dr_try_calloc((size_t)(m->out * m->rank), sizeof(float), &own));
        const dr_status st = dr_lora_factors_read(j->at[i].file, m, own, down + at * cols);
        for (int64_t k = 0; st == DR_OK && k < m->out * m->rank; k++) {
            up[k / m->rank * j->sum + at + k % m->rank] =
                (float)((scale < 0.0 ? -root : root) * (double)((float *)own)[k]);
        }
        free(own);
        DR_TRY(st);
        for (int64_t k = at * cols; k < (at + m->rank) * cols; k++) {
            down[k] = (float)(root * (double)down[k]);
        }
        at += m->rank;
    }
    return DR_OK;
}

/* One LoRA alone keeps its alpha, and with ratio 1 its bits. */
static dr_status copy_one(const joint *j, dr_lora_set *out)
{
    const part *p = &j->at[0];
    const double root = sqrt(fabs(p->ratio));
    dr_lora_factors *f = NULL;
    DR_TRY(dr_lora_set_add(out, j->name, &j->shape, p->module->rank, &f));
    DR_TRY(dr_lora_factors_read(p->file, p->module, f->up, f->down));
    f->alpha = p->module->scale * (double)f->rank;
    for (int64_t i = 0; i < f->shape.out * f->rank; i++) {
        f->up[i] = (float)((p->ratio < 0.0 ? -root : root) * (double)f->up[i]);
    }
    for (int64_t i = 0; i < f->rank * dr_lora_columns(&f->shape); i++) {
        f->down[i] = (float)(root * (double)f->down[i]);
    }
    return DR_OK;
}

static dr_status put_exact(const joint *j, dr_lora_set *out, dr_join_report *report)
{
    dr_lora_factors *f = NULL;
    report->exact++;
    if (j->n == 1) {
        return copy_one(j, out);
    }
    DR_TRY(dr_lora_set_add(out, j->name, &j->shape, j->sum, &f));
    return stack_factors(j, f->up, f->down);
}

static dr_status decompose_factors(const joint *j, dr_svd *svd)
{
    const int64_t cols = dr_lora_columns(&j->shape);
    void *up = NULL;
    void *down = NULL;
    dr_status st = dr_try_calloc((size_t)(j->shape.out * j->sum), sizeof(float), &up);
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)(cols * j->sum), sizeof(float), &down);
    }
    if (st == DR_OK) {
        st = stack_factors(j, up, down);
    }
    if (st == DR_OK) {
        st = dr_svd_product(up, down, j->shape.out, cols, j->sum, svd);
    }
    free(up);
    free(down);
    return st;
}

static dr_status decompose_sum(const joint *j, int64_t rank, dr_svd *svd)
{
    const int64_t cols = dr_lora_columns(&j->shape);
    const int64_t n = j->shape.out * cols;
    const int64_t most = j->shape.out < cols ? j->shape.out : cols;
    void *sum = NULL;
    DR_TRY(dr_try_calloc((size_t)n, sizeof(float), &sum));
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < j->n; i++) {
        st = dr_lora_apply(j->at[i].file, j->at[i].module, j->at[i].ratio, sum);
    }
    if (st == DR_OK) {
        st = dr_svd_dense(sum, j->shape.out, cols, rank < most ? rank : most, svd);
    }
    free(sum);
    return st;
}

static dr_status put_cut(const joint *j, int64_t rank, dr_lora_set *out, dr_join_report *report)
{
    dr_svd svd = {0};
    dr_lora_factors *f = NULL;
    DR_TRY(j->factors ? decompose_factors(j, &svd) : decompose_sum(j, rank, &svd));
    const int64_t kept = rank < svd.k ? rank : svd.k;
    const dr_status st = dr_lora_add_svd(out, j->name, &j->shape, &svd, kept, &f);
    report->cut++;
    report->kept += dr_svd_squares(&svd, kept);
    report->total += dr_svd_squares(&svd, svd.n_values);
    dr_svd_deinit(&svd);
    return st;
}

static dr_status join_module(const joint *j, const dr_join_options *o, dr_lora_set *out,
                             dr_join_report *report)
{
    const bool window = j->shape.kernel[0] * j->shape.kernel[1] > 1;
    const int64_t wish = window && o->new_conv_rank > 0 ? o->new_conv_rank : o->new_rank;
    const int64_t rank = wish > 0 ? wish : j->most;
    if (j->factors && (o->concat || j->sum <= rank)) {
        return put_exact(j, out, report);
    }
    if (o->concat) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: module %s is no product of two factors and cannot be put beside others; leave "
                "--concat out to get the nearest such product",
                path_of(j->at[0].file), j->name);
    }
    if (rank == 0) {
        DR_FAIL(DR_INVALID, "%s: module %s has no rank; say with --new_rank which the result has",
                path_of(j->at[0].file), j->name);
    }
    return put_cut(j, rank, out, report);
}

static bool seen_before(const dr_lora_stack *s, size_t i_file, const char *name)
{
    for (size_t i = 0; i < i_file; i++) {
        if (dr_lora_file_find(s->at[i].file, name) != NULL) {
            return true;
        }
    }
    return false;
}

dr_status dr_lora_join(const dr_lora_stack *s, const dr_join_options *o, dr_lora_set *out,
                       dr_join_report *report)
{
    joint j = {.at = dr_xcalloc(s->n, sizeof *j.at)};
    dr_status st = DR_OK;
    *report = (dr_join_report){0};
    for (size_t i = 0; i < s->n; i++) {
        for (size_t k = 0; st == DR_OK && k < dr_lora_file_count(s->at[i].file); k++) {
            const char *name = dr_lora_file_at(s->at[i].file, k)->name;
            if (!seen_before(s, i, name)) {
                st = collect(s, name, &j);
                st = st == DR_OK ? join_module(&j, o, out, report) : st;
            }
        }
    }
    free(j.at);
    return st;
}
