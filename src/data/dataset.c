#include "data/dataset.h"

#include "base/log.h"
#include "data/folders_internal.h"

#include <stdlib.h>
#include <string.h>

uint64_t dr_reg_repeats(uint64_t n_train, const int64_t *folder_repeats, size_t n_reg,
                        uint64_t *repeats)
{
    uint64_t n = 0;
    for (size_t i = 0; i < n_reg; i++) { /* first round: the folder's own repeats */
        repeats[i] = n < n_train ? (uint64_t)folder_repeats[i] : 0;
        n += repeats[i];
    }
    if (n >= n_train || n_reg == 0) {
        return n;
    }
    uint64_t missing = n_train - n; /* further rounds: one more each, in turn */
    for (size_t i = 0; i < n_reg; i++) {
        repeats[i] += missing / n_reg + (i < missing % n_reg);
    }
    return n_train;
}

typedef struct builder { /* state of one dr_dataset_build */
    const dr_dataset_options *o;
    const dr_folder_scan *scan;
    dr_bucket_set set;
    dr_dataset_image *images; /* train, then regularisation */
    size_t n, n_train;
    int64_t *folder_repeats; /* of each */
    uint64_t *repeats;       /* effective, of each */
    uint64_t n_train_samples, n_reg_samples;
    dr_problems unfit;
} builder;

/* Fits every picture of one kind into its bucket; collects those that fit none. */
static void add_images(builder *b, bool is_reg)
{
    for (size_t i = 0; i < b->scan->n_images; i++) {
        const dr_folder_image *from = &b->scan->images[i];
        const dr_subset *subset = &b->scan->subsets[from->subset];
        if (subset->is_reg != is_reg) {
            continue;
        }
        dr_dataset_image *image = &b->images[b->n];
        *image = (dr_dataset_image){.path = from->path,
                                    .caption = from->caption,
                                    .picture = b->o->folders.picture,
                                    .size = from->size,
                                    .subset = from->subset,
                                    .loss_weight = is_reg ? b->o->prior_loss_weight : 1.0f,
                                    .is_reg = is_reg};
        if (dr_bucket_fit_image(&b->set, from->size, &image->fit) != DR_OK) {
            (void)dr_error_prefix(DR_FORMAT, "%s", from->path);
            dr_problems_add(&b->unfit, dr_error_message());
            dr_error_clear();
            continue;
        }
        b->folder_repeats[b->n++] = subset->repeats;
    }
}

static dr_status report_unfit(builder *b)
{
    dr_problems_finish(&b->unfit);
    if (b->unfit.n > 0 && !b->o->folders.skip_bad_images) {
        DR_FAIL(DR_FORMAT, "%zu pictures fit no bucket:%s", b->unfit.n, dr_str_get(&b->unfit.text));
    }
    if (b->unfit.n > 0) {
        dr_warn("--skip_bad_images: left out %zu picture%s:%s", b->unfit.n,
                dr_folders_plural(b->unfit.n), dr_str_get(&b->unfit.text));
    }
    if (b->n_train == 0) {
        DR_FAIL(DR_FORMAT, "--train_data_dir: %s: no usable picture", b->o->folders.train_data_dir);
    }
    return DR_OK;
}

static dr_status set_repeats(builder *b)
{
    for (size_t i = 0; i < b->n_train; i++) {
        b->repeats[i] = (uint64_t)b->folder_repeats[i];
        b->n_train_samples += b->repeats[i];
    }
    b->n_reg_samples = dr_reg_repeats(b->n_train_samples, b->folder_repeats + b->n_train,
                                      b->n - b->n_train, b->repeats + b->n_train);
    uint64_t total = b->n_train_samples + b->n_reg_samples;
    if (total > UINT32_MAX) {
        DR_FAIL(DR_INVALID,
                "%s: pictures x repeats are %llu samples per epoch; at most %lu are possible: "
                "lower the repeats in the folders' names and train more epochs",
                b->o->folders.train_data_dir, (unsigned long long)total, (unsigned long)UINT32_MAX);
    }
    uint32_t first = 0;
    for (size_t i = 0; i < b->n; i++) {
        b->images[i].repeats = (uint32_t)b->repeats[i];
        b->images[i].first_sample = first;
        first += b->images[i].repeats;
    }
    return DR_OK;
}

/* Regularisation pictures that are not used stand at the end: cuts them off. */
static void count_images(builder *b, dr_dataset *d)
{
    for (size_t i = b->n_train; i < b->n; i++) {
        d->n_reg_reported += b->folder_repeats[i];
    }
    size_t used = b->n;
    while (used > b->n_train && b->images[used - 1].repeats == 0) {
        used--;
    }
    d->images = b->images;
    d->n_images = used;
    d->n_train_images = b->n_train;
    d->n_reg_images = used - b->n_train;
    d->n_reg_unused = b->n - used;
    d->n_train_samples = (uint32_t)b->n_train_samples;
    d->n_reg_samples = (uint32_t)b->n_reg_samples;
    d->n_samples = d->n_train_samples + d->n_reg_samples;
    d->n_skipped = b->scan->n_skipped + b->unfit.n;
    if (d->n_reg_unused > 0) {
        dr_warn("%zu of %zu regularisation pictures are not used: there are only %lu training "
                "samples per epoch",
                d->n_reg_unused, b->n - b->n_train, (unsigned long)d->n_train_samples);
    }
}

static void build_buckets(builder *b, dr_arena *arena, dr_dataset *d)
{
    dr_size_px *sizes = dr_xcalloc(d->n_images, sizeof *sizes);
    double error_sum = 0.0;
    for (size_t i = 0; i < d->n_images; i++) {
        sizes[i] = b->images[i].fit.bucket;
        error_sum += b->images[i].fit.aspect_error;
    }
    d->n_buckets = dr_size_px_sort_unique(sizes, d->n_images);
    dr_bucket *buckets = dr_arena_array(arena, d->n_buckets, sizeof *buckets);
    for (size_t i = 0; i < d->n_buckets; i++) {
        buckets[i].size = sizes[i];
    }
    for (size_t i = 0; i < d->n_images; i++) {
        dr_dataset_image *image = &b->images[i];
        const dr_size_px *at =
            bsearch(&image->fit.bucket, sizes, d->n_buckets, sizeof *sizes, dr_size_px_compare);
        image->bucket = (uint32_t)(at - sizes);
        buckets[image->bucket].n_images++;
        buckets[image->bucket].n_samples += image->repeats;
    }
    free(sizes);
    d->buckets = buckets;
    d->mean_aspect_error = error_sum / (double)d->n_images;
}

static dr_status build(builder *b, dr_arena *arena, dr_dataset *out)
{
    add_images(b, false);
    b->n_train = b->n;
    add_images(b, true);
    DR_TRY(report_unfit(b));
    DR_TRY(set_repeats(b));
    *out = (dr_dataset){.subsets = b->scan->subsets,
                        .n_subsets = b->scan->n_subsets,
                        .bucketed = b->o->buckets.enable};
    count_images(b, out);
    build_buckets(b, arena, out);
    return DR_OK;
}

dr_status dr_dataset_build(dr_arena *arena, const dr_dataset_options *o, const dr_folder_scan *scan,
                           dr_dataset *out)
{
    size_t n = scan->n_images;
    builder b = {.o = o,
                 .scan = scan,
                 .images = dr_arena_array(arena, n, sizeof *b.images),
                 .folder_repeats = dr_xcalloc(n + 1, sizeof *b.folder_repeats),
                 .repeats = dr_xcalloc(n + 1, sizeof *b.repeats)};
    dr_bucket_set_build(&b.set, &o->buckets, arena);
    dr_status st = build(&b, arena, out);
    free(b.folder_repeats);
    free(b.repeats);
    dr_problems_free(&b.unfit);
    return st;
}

dr_status dr_dataset_open(dr_arena *arena, const dr_dataset_options *o, dr_dataset *out)
{
    dr_folder_scan scan = {0};
    DR_TRY(dr_folders_scan(arena, &o->folders, &scan));
    return dr_dataset_build(arena, o, &scan, out);
}

void dr_dataset_summary(const dr_dataset *d, dr_str *out)
{
    for (size_t i = 0; i < d->n_subsets; i++) {
        const dr_subset *s = &d->subsets[i];
        dr_str_printf(out, "%s %s: %zu picture%s x %lld repeat%s, class '%s'\n",
                      s->is_reg ? "regularisation" : "training", s->dir, s->n_images,
                      dr_folders_plural(s->n_images), (long long)s->repeats,
                      dr_folders_plural((uint64_t)s->repeats), s->class_tokens);
    }
    dr_str_printf(out, "samples per epoch: %lu training", (unsigned long)d->n_train_samples);
    if (d->n_reg_samples > 0) {
        dr_str_printf(out, " + %lu regularisation (%zu picture%s)", (unsigned long)d->n_reg_samples,
                      d->n_reg_images, dr_folders_plural(d->n_reg_images));
    }
    if (d->n_skipped > 0) {
        dr_str_printf(out, "; %zu bad picture%s left out", d->n_skipped,
                      dr_folders_plural(d->n_skipped));
    }
    dr_str_printf(out, "\nbucket  size (w x h)  pictures   samples\n");
    for (size_t i = 0; i < d->n_buckets; i++) {
        const dr_bucket *b = &d->buckets[i];
        dr_str_printf(out, "%6zu  %5d x %-5d %9lu %9lu\n", i, b->size.w, b->size.h,
                      (unsigned long)b->n_images, (unsigned long)b->n_samples);
    }
    dr_str_printf(out, "mean aspect ratio error: %.4f\n", d->mean_aspect_error);
}

void dr_dataset_bucket_info(const dr_dataset *d, dr_str *out)
{
    if (!d->bucketed) {
        dr_str_add(out, "null");
        return;
    }
    dr_str_add(out, "{\"buckets\": {");
    for (size_t i = 0; i < d->n_buckets; i++) {
        const dr_bucket *b = &d->buckets[i];
        dr_str_printf(out, "%s\"%zu\": {\"resolution\": [%d, %d], \"count\": %lu}",
                      i > 0 ? ", " : "", i, b->size.w, b->size.h, (unsigned long)b->n_samples);
    }
    char number[32];
    dr_float_repr(d->mean_aspect_error, number);
    dr_str_printf(out, "}, \"mean_img_ar_error\": %s}", number);
}
