/*
 * The report, and what follows from the numbers alone: steps, repeats, buckets.
 */
#include "train/check/dataset_check.h"

#include "base/arena.h"
#include "train/check/dataset_check_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_EXAMPLES = 5 };

/* ---- findings ---- */

static char *copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = dr_xcalloc(n, 1);
    memcpy(copy, text, n);
    return copy;
}

void dr_checking_add(dr_checking *c, dr_check_level level, const char *cause, const char *text,
                     const char *fix)
{
    dr_dataset_report *r = c->out;
    r->findings = dr_xrealloc(r->findings, r->n_findings + 1, sizeof *r->findings);
    r->findings[r->n_findings++] =
        (dr_check_finding){level, cause, copy_text(text), copy_text(fix)};
    r->n_errors += level == DR_CHECK_ERROR;
    r->n_warnings += level == DR_CHECK_WARNING;
}

void dr_examples_add(dr_examples *e, const char *fmt, ...)
{
    char line[2048];
    if (e->n++ >= MAX_EXAMPLES) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    dr_str_printf(&e->text, "\n  %s", line);
}

void dr_checking_report(dr_checking *c, dr_check_level level, const char *cause, const char *head,
                        dr_examples *e, const char *fix)
{
    if (e->n > 0) {
        dr_str text = {0};
        dr_str_printf(&text, "%s: %zu%s", head, e->n, dr_str_get(&e->text));
        if (e->n > MAX_EXAMPLES) {
            dr_str_printf(&text, "\n  and %zu more", e->n - MAX_EXAMPLES);
        }
        dr_checking_add(c, level, cause, dr_str_get(&text), fix);
        dr_str_free(&text);
    }
    dr_str_free(&e->text);
    *e = (dr_examples){0};
}

/* ---- numbers ---- */

double dr_crop_loss(const dr_dataset_image *image)
{
    const dr_bucket_fit *f = &image->fit;
    double kept = (double)f->bucket.w * (double)f->bucket.h;
    return 1.0 - kept / ((double)f->resized.w * (double)f->resized.h);
}

double dr_enlargement(const dr_dataset_image *image)
{
    double x = (double)image->fit.resized.w / (double)image->size.w;
    double y = (double)image->fit.resized.h / (double)image->size.h;
    return x > y ? x : y;
}

uint32_t dr_check_batch_size(const dr_check_options *o, const dr_bucket *b)
{
    return b->batch_size > 0 ? b->batch_size : o->batch_size;
}

static void check_steps(dr_checking *c)
{
    const dr_check_options *o = c->o;
    char text[256];
    uint64_t per_step = (uint64_t)o->batch_size * o->n_ranks * o->accumulation;
    if (c->d->n_samples < per_step) {
        (void)snprintf(text, sizeof text,
                       "a step wants %llu pictures (%u a batch x %u ranks x %u accumulated), an "
                       "epoch has %lu: steps stay partly empty",
                       (unsigned long long)per_step, o->batch_size, o->n_ranks, o->accumulation,
                       (unsigned long)c->d->n_samples);
        dr_checking_add(c, DR_CHECK_WARNING, "step-larger-than-epoch", text,
                        "fewer ranks, a smaller --train_batch_size, or more repeats in the folder "
                        "names");
    }
    if (o->n_steps < o->steps_per_epoch) {
        (void)snprintf(text, sizeof text,
                       "the run ends after %lld steps, one epoch has %lld: some pictures are never "
                       "used",
                       (long long)o->n_steps, (long long)o->steps_per_epoch);
        dr_checking_add(c, DR_CHECK_WARNING, "less-than-an-epoch", text,
                        "a larger --max_train_steps, --max_train_epochs instead of it, or fewer "
                        "repeats in the folder names");
    }
}

static void check_regularisation(dr_checking *c)
{
    const dr_dataset *d = c->d;
    char text[320];
    if (d->n_reg_unused > 0) {
        (void)snprintf(text, sizeof text,
                       "%zu of %zu regularisation pictures are never used: an epoch has %lu "
                       "training samples, and as many regularisation samples are taken",
                       d->n_reg_unused, d->n_reg_unused + d->n_reg_images,
                       (unsigned long)d->n_train_samples);
        dr_checking_add(c, DR_CHECK_WARNING, "reg-unused", text,
                        "more repeats of the training pictures (pictures x repeats should be at "
                        "least the number of regularisation pictures x repeats)");
    } else if (d->n_reg_images > 0 && (uint64_t)d->n_reg_reported < d->n_train_samples) {
        (void)snprintf(text, sizeof text,
                       "%lld regularisation samples (pictures x repeats) for %lu training samples: "
                       "each picture is used %.1f times an epoch, so that half of every epoch is "
                       "regularisation",
                       (long long)d->n_reg_reported, (unsigned long)d->n_train_samples,
                       (double)d->n_reg_samples / (double)d->n_reg_images);
        dr_checking_add(c, DR_CHECK_NOTE, "reg-repeated", text, "");
    }
}

static void check_buckets(dr_checking *c)
{
    dr_examples small = {0};
    for (size_t i = 0; c->d->n_buckets > 1 && i < c->d->n_buckets; i++) {
        const dr_bucket *b = &c->d->buckets[i];
        if (b->n_samples < dr_check_batch_size(c->o, b)) {
            dr_examples_add(&small, "%dx%d: %lu samples", (int)b->size.w, (int)b->size.h,
                            (unsigned long)b->n_samples);
        }
    }
    dr_checking_report(c, DR_CHECK_NOTE, "small-buckets",
                       "buckets with fewer samples than a batch (their batches are smaller)",
                       &small, "");
}

/* ---- the whole ---- */

static int errors_first(const void *a, const void *b)
{
    const dr_check_finding *x = a;
    const dr_check_finding *y = b;
    return x->level != y->level ? (int)y->level - (int)x->level : strcmp(x->cause, y->cause);
}

dr_status dr_dataset_check(const dr_dataset *d, const dr_check_options *o, dr_dataset_report *out)
{
    *out = (dr_dataset_report){.n_images = d->n_images};
    dr_checking c = {d, o, out};
    out->n_tokens = dr_xcalloc(d->n_images, sizeof *out->n_tokens);
    out->tails = dr_xcalloc(d->n_images, sizeof *out->tails);
    DR_TRY(dr_check_captions(&c));
    DR_TRY(dr_check_folders(&c));
    DR_TRY(dr_check_pictures(&c));
    check_steps(&c);
    check_regularisation(&c);
    check_buckets(&c);
    if (out->n_findings > 0) {
        qsort(out->findings, out->n_findings, sizeof *out->findings, errors_first);
    }
    return DR_OK;
}

void dr_dataset_report_deinit(dr_dataset_report *r)
{
    for (size_t i = 0; i < r->n_findings; i++) {
        free(r->findings[i].text);
        free(r->findings[i].fix);
    }
    for (size_t i = 0; i < r->n_images; i++) {
        free(r->tails[i]);
    }
    free(r->findings);
    free(r->n_tokens);
    free((void *)r->tails);
    *r = (dr_dataset_report){0};
}
