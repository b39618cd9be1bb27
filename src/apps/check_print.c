#include "apps/check_print.h"

#include "base/arena.h"
#include "data/epoch_plan.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 60 }; /* captions; the longest of more */

static const char *const level_names[] = {"note", "warning", "error"};

/* ---- for people ---- */

static void print_buckets(const dr_check_result *r, dr_str *out)
{
    const dr_dataset *d = r->dataset;
    dr_str_add(out, "\nbuckets (w x h)  pictures  samples  batches  cut off: mean  worst\n");
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        const dr_bucket *bucket = &d->buckets[b];
        double sum = 0.0;
        double worst = 0.0;
        for (size_t i = 0; i < d->n_images; i++) {
            if (d->images[i].bucket == b && d->images[i].repeats > 0) {
                double loss = dr_crop_loss(&d->images[i]);
                sum += loss;
                worst = loss > worst ? loss : worst;
            }
        }
        uint32_t batch = dr_check_batch_size(r->options, bucket);
        dr_str_printf(out, "%7d x %-7d %8lu %8lu %8lu %13.1f%% %5.1f%%\n", (int)bucket->size.w,
                      (int)bucket->size.h, (unsigned long)bucket->n_images,
                      (unsigned long)bucket->n_samples,
                      (unsigned long)((bucket->n_samples + batch - 1) / batch),
                      100.0 * sum / (double)bucket->n_images, 100.0 * worst);
    }
}

typedef struct counted { /* a caption, for sorting */
    size_t image;
    uint32_t n_tokens;
} counted;

static int longest_first(const void *a, const void *b)
{
    const counted *x = a;
    const counted *y = b;
    return x->n_tokens != y->n_tokens ? (x->n_tokens < y->n_tokens ? 1 : -1)
                                      : (x->image > y->image) - (x->image < y->image);
}

static void print_captions(const dr_check_result *r, dr_str *out)
{
    const dr_dataset *d = r->dataset;
    counted *at = dr_xcalloc(d->n_images, sizeof *at);
    for (size_t i = 0; i < d->n_images; i++) {
        at[i] = (counted){i, r->report->n_tokens[i]};
    }
    if (d->n_images > MAX_LISTED) {
        qsort(at, d->n_images, sizeof *at, longest_first);
    }
    size_t n = d->n_images < MAX_LISTED ? d->n_images : MAX_LISTED;
    dr_str_printf(out, "\ntokens of captions (of %d)%s\n", 75 * r->options->token_rows,
                  n < d->n_images ? ", the longest" : "");
    for (size_t i = 0; i < n; i++) {
        const dr_dataset_image *im = &d->images[at[i].image];
        const char *tail = r->report->tails[at[i].image];
        size_t kept = strlen(im->caption) - (tail != NULL ? strlen(tail) : 0);
        dr_str_printf(out, "%5lu  %s: %.*s", (unsigned long)at[i].n_tokens, im->path, (int)kept,
                      im->caption);
        if (tail != NULL) {
            dr_str_printf(out, " | cut off: %s", tail);
        }
        dr_str_add(out, "\n");
    }
    free(at);
}

static void print_findings(const dr_check_result *r, dr_str *out)
{
    dr_str_add(out, "\n");
    for (size_t i = 0; i < r->scan_warnings->n; i++) {
        dr_str_printf(out, "warning: %s\n", r->scan_warnings->at[i]);
    }
    for (size_t i = 0; i < r->report->n_findings; i++) {
        const dr_check_finding *f = &r->report->findings[i];
        dr_str_printf(out, "%s [%s]: %s\n", level_names[f->level], f->cause, f->text);
        if (f->fix[0] != '\0') {
            dr_str_printf(out, "  fix: %s\n", f->fix);
        }
    }
    size_t notes = r->report->n_findings - r->report->n_errors - r->report->n_warnings;
    dr_str_printf(out, "check: %zu errors, %zu warnings, %zu notes\n", r->report->n_errors,
                  r->report->n_warnings + r->scan_warnings->n, notes);
}

void dr_check_print_text(const dr_check_result *r, dr_str *out)
{
    const dr_check_options *o = r->options;
    dr_dataset_summary(r->dataset, out);
    print_buckets(r, out);
    print_captions(r, out);
    dr_str_add(out, "\n");
    dr_epoch_arithmetic(r->dataset, o->batch_size, o->n_ranks, o->accumulation, out);
    dr_str_printf(out, "\nrun: %lld steps = %.2f epochs of %lld steps, on %u rank%s\n",
                  (long long)o->n_steps, (double)o->n_steps / (double)o->steps_per_epoch,
                  (long long)o->steps_per_epoch, o->n_ranks, o->n_ranks > 1 ? "s" : "");
    print_findings(r, out);
}

/* ---- for programs ---- */

static void add_image(const dr_check_result *r, size_t i, dr_str *out)
{
    const dr_dataset_image *im = &r->dataset->images[i];
    dr_str_add(out, i > 0 ? ",\n  {\"path\": " : "\n  {\"path\": ");
    dr_json_add_string(out, im->path);
    dr_str_printf(out,
                  ", \"width\": %d, \"height\": %d, \"bucket\": [%d, %d], \"resized\": [%d, %d], "
                  "\"crop\": [%d, %d], \"repeats\": %lu, \"is_reg\": %s, \"caption\": ",
                  (int)im->size.w, (int)im->size.h, (int)im->fit.bucket.w, (int)im->fit.bucket.h,
                  (int)im->fit.resized.w, (int)im->fit.resized.h, (int)im->fit.crop_x,
                  (int)im->fit.crop_y, (unsigned long)im->repeats, im->is_reg ? "true" : "false");
    dr_json_add_string(out, im->caption);
    dr_str_printf(out, ", \"n_tokens\": %lu}", (unsigned long)r->report->n_tokens[i]);
}

static void add_truncated(const dr_check_result *r, dr_str *out)
{
    bool first = true;
    dr_str_add(out, "\n ],\n \"truncated\": [");
    for (size_t i = 0; i < r->report->n_images; i++) {
        if (r->report->tails[i] != NULL) {
            dr_str_add(out, first ? "\n  {\"path\": " : ",\n  {\"path\": ");
            dr_json_add_string(out, r->dataset->images[i].path);
            dr_str_add(out, ", \"tail\": ");
            dr_json_add_string(out, r->report->tails[i]);
            dr_str_add(out, "}");
            first = false;
        }
    }
}

static void add_buckets(const dr_check_result *r, dr_str *out)
{
    dr_str_add(out, "\n ],\n \"buckets\": [");
    for (size_t i = 0; i < r->dataset->n_buckets; i++) {
        const dr_bucket *b = &r->dataset->buckets[i];
        dr_str_printf(out, "%s\n  {\"size\": [%d, %d], \"images\": %lu, \"samples\": %lu}",
                      i > 0 ? "," : "", (int)b->size.w, (int)b->size.h, (unsigned long)b->n_images,
                      (unsigned long)b->n_samples);
    }
}

static void add_totals(const dr_check_result *r, dr_str *out)
{
    const dr_dataset *d = r->dataset;
    const dr_check_options *o = r->options;
    dr_str_printf(
        out,
        "\n ],\n \"totals\": {\"images\": %zu, \"train_images\": %zu, \"reg_images\": %zu, "
        "\"validation_images\": %zu, \"reg_unused\": %zu, \"skipped\": %zu,\n  "
        "\"samples_per_epoch\": %lu, "
        "\"train_samples\": %lu, \"reg_samples\": %lu, \"num_processes\": %lu, \"batch_size\": "
        "%lu, \"gradient_accumulation_steps\": %lu,\n  \"batches_per_epoch\": %lu, "
        "\"steps_per_epoch\": %lld, \"steps\": %lld, \"errors\": %zu, \"warnings\": %zu},",
        d->n_images, d->n_train_images, d->n_reg_images, d->n_validation_images, d->n_reg_unused,
        d->n_skipped, (unsigned long)d->n_samples, (unsigned long)d->n_train_samples,
        (unsigned long)d->n_reg_samples, (unsigned long)o->n_ranks, (unsigned long)o->batch_size,
        (unsigned long)o->accumulation, (unsigned long)r->batches_per_epoch,
        (long long)o->steps_per_epoch, (long long)o->n_steps,
        r->report->n_errors + (r->error != NULL), r->report->n_warnings + r->scan_warnings->n);
}

static void add_finding(dr_str *out, const char *level, const char *cause, const char *text,
                        const char *fix, bool *first)
{
    dr_str_printf(out, "%s\n  {\"level\": \"%s\", \"cause\": \"%s\", \"text\": ", *first ? "" : ",",
                  level, cause);
    dr_json_add_string(out, text);
    dr_str_add(out, ", \"fix\": ");
    dr_json_add_string(out, fix);
    dr_str_add(out, "}");
    *first = false;
}

void dr_check_print_json(const dr_check_result *r, dr_str *out)
{
    bool first = true;
    dr_str_add(out, "{\n \"images\": [");
    for (size_t i = 0; i < r->dataset->n_images; i++) {
        add_image(r, i, out);
    }
    add_truncated(r, out);
    add_buckets(r, out);
    add_totals(r, out);
    dr_str_add(out, "\n \"findings\": [");
    if (r->error != NULL) {
        add_finding(out, "error", "dataset", r->error, "", &first);
    }
    for (size_t i = 0; i < r->report->n_findings; i++) {
        const dr_check_finding *f = &r->report->findings[i];
        add_finding(out, level_names[f->level], f->cause, f->text, f->fix, &first);
    }
    for (size_t i = 0; i < r->scan_warnings->n; i++) {
        add_finding(out, "warning", "folders", r->scan_warnings->at[i], "", &first);
    }
    dr_str_add(out, "\n ]\n}\n");
}
