#include "data/dataset.h"

#include "base/log.h"
#include "data/folders_internal.h"
#include "data/mask.h"
#include "data/validation.h"

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
    const dr_dataset_part *parts;
    size_t n_parts;
    dr_bucket_set *sets;      /* of each part */
    dr_dataset_image *images; /* part by part: train, then regularisation */
    size_t n;
    int64_t *folder_repeats; /* of each image of the current part */
    uint64_t *repeats;       /* effective, likewise */
    uint64_t n_samples;      /* so far */
    dr_problems unfit;
} builder;

typedef enum kind { TRAINING, REGULARISATION, VALIDATION } kind;

static kind kind_of(const dr_subset *s)
{
    return s->is_validation ? VALIDATION : s->is_reg ? REGULARISATION : TRAINING;
}

/* Fits the pictures of one kind of a part into their buckets; collects those that fit none. */
static void add_images(builder *b, uint32_t part, kind wanted)
{
    for (size_t i = 0; i < b->scan->n_images; i++) {
        const dr_folder_image *from = &b->scan->images[i];
        const dr_subset *subset = &b->scan->subsets[from->subset];
        if (kind_of(subset) != wanted || subset->part != part) {
            continue;
        }
        dr_dataset_image *image = &b->images[b->n];
        const dr_picture_options *picture = subset->options->picture;
        *image = (dr_dataset_image){.path = from->path,
                                    .caption = from->caption,
                                    .picture = picture != NULL ? picture : b->o->folders.picture,
                                    .size = from->size,
                                    .subset = from->subset,
                                    .options = subset->options,
                                    .unbucketed = !b->parts[part].buckets.enable,
                                    .loss_weight = subset->is_reg ? b->o->prior_loss_weight : 1.0f,
                                    .is_reg = subset->is_reg};
        if (dr_bucket_fit_image(&b->sets[part], from->size, &image->fit) != DR_OK) {
            (void)dr_error_prefix(DR_FORMAT, "%s", from->path);
            dr_problems_add(&b->unfit, dr_error_message());
            dr_error_clear();
            continue;
        }
        b->n++;
    }
}

static dr_status report_unfit(builder *b, const dr_dataset *d)
{
    dr_problems_finish(&b->unfit);
    if (b->unfit.n > 0 && !b->o->folders.skip_bad_images) {
        DR_FAIL(DR_FORMAT, "%zu pictures fit no bucket:%s", b->unfit.n, dr_str_get(&b->unfit.text));
    }
    if (b->unfit.n > 0) {
        dr_warn("--skip_bad_images: left out %zu picture%s:%s", b->unfit.n,
                dr_folders_plural(b->unfit.n), dr_str_get(&b->unfit.text));
    }
    if (d->n_train_images == 0 && d->n_validation_images > 0) {
        DR_FAIL(DR_FORMAT, "all pictures are kept for validation, none is left to train on; a "
                           "smaller validation_split");
    }
    if (d->n_train_images == 0) {
        const char *dir = b->o->folders.train_data_dir;
        DR_FAIL(DR_FORMAT, "%s%s: no usable picture to train on",
                dir != NULL ? "--train_data_dir: " : "--dataset_config", dir != NULL ? dir : "");
    }
    return DR_OK;
}

/* Repeats of the images [from, n) of a part, of which the first n_train are training images; cuts
 * off regularisation images that are not used. They stand at the end. */
static dr_status set_repeats(builder *b, size_t from, size_t n_train, dr_dataset *d)
{
    uint64_t n_train_samples = 0;
    size_t n_all = b->n - from;
    for (size_t i = 0; i < n_all; i++) {
        const dr_dataset_image *image = &b->images[from + i];
        b->folder_repeats[i] = b->scan->subsets[image->subset].repeats;
        if (i < n_train) {
            b->repeats[i] = (uint64_t)b->folder_repeats[i];
            n_train_samples += b->repeats[i];
        } else {
            d->n_reg_reported += b->folder_repeats[i];
        }
    }
    uint64_t n_reg_samples = dr_reg_repeats(n_train_samples, b->folder_repeats + n_train,
                                            n_all - n_train, b->repeats + n_train);
    uint64_t total = b->n_samples + n_train_samples + n_reg_samples;
    if (total > UINT32_MAX) {
        DR_FAIL(DR_INVALID,
                "pictures x repeats are %llu samples per epoch; at most %lu are possible: "
                "lower the repeats and train more epochs",
                (unsigned long long)total, (unsigned long)UINT32_MAX);
    }
    uint32_t first = (uint32_t)b->n_samples;
    size_t used = 0;
    for (size_t i = 0; i < n_all && b->repeats[i] > 0; i++, used++) {
        b->images[from + i].repeats = (uint32_t)b->repeats[i];
        b->images[from + i].first_sample = first;
        first += (uint32_t)b->repeats[i];
    }
    b->n_samples = total;
    b->n = from + used;
    d->n_train_samples += (uint32_t)n_train_samples;
    d->n_reg_samples += (uint32_t)n_reg_samples;
    d->n_train_images += n_train;
    d->n_reg_images += used - n_train;
    d->n_reg_unused += n_all - used;
    return DR_OK;
}

/* Sizes are compared before training starts. */
static dr_status check_mask(const builder *b, const dr_dataset_image *image)
{
    const dr_picture_options *how = image->picture != NULL ? image->picture : &dr_picture_defaults;
    dr_size_px size = {0, 0};
    DR_TRY(b->o->folders.probe(image->mask, &how->decode, &size));
    if (size.w != image->size.w || size.h != image->size.h) {
        DR_FAIL(DR_FORMAT, "%s: the mask is %dx%d pixels, its picture %s is %dx%d", image->mask,
                size.w, size.h, image->path, image->size.w, image->size.h);
    }
    return DR_OK;
}

static dr_status find_masks(builder *b, dr_arena *arena, dr_dataset *d)
{
    for (size_t i = 0; i < b->n; i++) {
        dr_dataset_image *image = &b->images[i];
        if (image->options->mask_dir != NULL) {
            DR_TRY(dr_mask_find(arena, image->options->mask_dir, image->path, &image->mask));
            DR_TRY(check_mask(b, image));
        }
        d->masked = d->masked || dr_mask_is_used(image);
    }
    return DR_OK;
}

static void count_images(builder *b, dr_dataset *d)
{
    d->images = b->images;
    d->n_images = b->n;
    d->n_samples = d->n_train_samples + d->n_reg_samples;
    d->n_skipped = b->scan->n_skipped + b->unfit.n;
    if (d->n_reg_unused > 0) {
        dr_warn("%zu of %zu regularisation pictures are not used: there are only %lu training "
                "samples per epoch",
                d->n_reg_unused, d->n_reg_images + d->n_reg_unused,
                (unsigned long)d->n_train_samples);
    }
    for (size_t i = 0; i < d->n_subsets; i++) {
        const dr_subset_options *o = d->subsets[i].options;
        d->flips = d->flips || o->flip_aug;
        d->varies = d->varies || o->color_aug || o->random_crop || o->face_most > 0.0;
    }
}

typedef struct bucket_key {
    uint32_t part;
    dr_size_px size;
} bucket_key;

static int compare_keys(const void *a, const void *b)
{
    const bucket_key *x = a;
    const bucket_key *y = b;
    if (x->part != y->part) {
        return x->part < y->part ? -1 : 1;
    }
    return dr_size_px_compare(&x->size, &y->size);
}

static bucket_key key_of(const dr_dataset *d, const dr_dataset_image *image)
{
    return (bucket_key){d->subsets[image->subset].part, image->fit.bucket};
}

/* Sorts the keys and drops duplicates; returns how many are left. */
static size_t sort_unique(bucket_key *keys, size_t n)
{
    size_t left = 0;
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || compare_keys(&keys[i], &keys[left - 1]) != 0) {
            keys[left++] = keys[i];
        }
    }
    return left;
}

static const bucket_key *find_key(const bucket_key *keys, size_t n, const bucket_key *key)
{
    return bsearch(key, keys, n, sizeof *keys, compare_keys);
}

/* The buckets of the pictures that are trained on, then those that only validation needs. */
static bucket_key *list_keys(const builder *b, dr_dataset *d)
{
    size_t n_trained = d->n_images - d->n_validation_images;
    bucket_key *keys = dr_xcalloc(d->n_images, sizeof *keys);
    for (size_t i = 0; i < n_trained; i++) {
        keys[i] = key_of(d, &b->images[i]);
    }
    d->n_buckets = sort_unique(keys, n_trained);
    size_t n = d->n_buckets;
    for (size_t i = n_trained; i < d->n_images; i++) {
        keys[n] = key_of(d, &b->images[i]);
        n += find_key(keys, d->n_buckets, &keys[n]) == NULL;
    }
    d->n_all_buckets = d->n_buckets + sort_unique(keys + d->n_buckets, n - d->n_buckets);
    return keys;
}

static void build_buckets(builder *b, dr_arena *arena, dr_dataset *d)
{
    double error_sum = 0.0;
    bucket_key *keys = list_keys(b, d);
    dr_bucket *buckets = dr_arena_array(arena, d->n_all_buckets, sizeof *buckets);
    for (size_t i = 0; i < d->n_all_buckets; i++) {
        buckets[i].size = keys[i].size;
        buckets[i].part = keys[i].part;
        buckets[i].batch_size = b->parts[keys[i].part].batch_size;
    }
    for (size_t i = 0; i < d->n_images; i++) {
        dr_dataset_image *image = &b->images[i];
        const bucket_key key = key_of(d, image);
        const bucket_key *at = find_key(keys, d->n_buckets, &key);
        if (at == NULL) {
            at = find_key(keys + d->n_buckets, d->n_all_buckets - d->n_buckets, &key);
        }
        image->bucket = (uint32_t)(at - keys);
        if (i < d->n_images - d->n_validation_images) {
            buckets[image->bucket].n_images++;
            buckets[image->bucket].n_samples += image->repeats;
            error_sum += image->fit.aspect_error;
        }
    }
    free(keys);
    d->buckets = buckets;
    d->mean_aspect_error = error_sum / (double)(d->n_images - d->n_validation_images);
}

static void add_validation(builder *b, dr_dataset *d)
{
    size_t from = b->n;
    for (uint32_t part = 0; part < b->n_parts; part++) {
        add_images(b, part, VALIDATION);
    }
    d->n_validation_images = b->n - from;
    for (size_t i = from; i < b->n; i++) {
        b->images[i].first_sample = (uint32_t)(i - from);
    }
}

static dr_status build(builder *b, dr_arena *arena, dr_dataset *out)
{
    *out = (dr_dataset){
        .subsets = b->scan->subsets, .n_subsets = b->scan->n_subsets, .n_parts = b->n_parts};
    for (uint32_t part = 0; part < b->n_parts; part++) {
        size_t from = b->n;
        dr_bucket_set_build(&b->sets[part], &b->parts[part].buckets, arena);
        out->bucketed = out->bucketed || b->parts[part].buckets.enable;
        add_images(b, part, TRAINING);
        size_t n_train = b->n - from;
        add_images(b, part, REGULARISATION);
        DR_TRY(set_repeats(b, from, n_train, out));
    }
    add_validation(b, out);
    DR_TRY(report_unfit(b, out));
    DR_TRY(find_masks(b, arena, out));
    count_images(b, out);
    build_buckets(b, arena, out);
    return DR_OK;
}

dr_status dr_dataset_build(dr_arena *arena, const dr_dataset_options *o, const dr_folder_scan *scan,
                           dr_dataset *out)
{
    size_t n = scan->n_images;
    dr_folder_scan split = *scan;
    const dr_dataset_part whole = {.buckets = o->buckets,
                                   .validation_split = o->validation_split,
                                   .validation_seed = o->validation_seed};
    builder b = {.o = o,
                 .scan = &split,
                 .parts = o->n_parts > 0 ? o->parts : &whole,
                 .n_parts = o->n_parts > 0 ? o->n_parts : 1};
    DR_TRY(dr_validation_split(arena, b.parts, &split));
    b.images = dr_arena_array(arena, n, sizeof *b.images);
    b.folder_repeats = dr_xcalloc(n + 1, sizeof *b.folder_repeats);
    b.repeats = dr_xcalloc(n + 1, sizeof *b.repeats);
    b.sets = dr_arena_array(arena, b.n_parts, sizeof *b.sets);
    dr_status st = build(&b, arena, out);
    free(b.folder_repeats);
    free(b.repeats);
    dr_problems_free(&b.unfit);
    return st;
}

bool dr_dataset_wants_alpha(const dr_dataset_options *o)
{
    bool wanted = o->n_parts == 0 && o->folders.subset != NULL && o->folders.subset->alpha_mask;
    for (size_t i = 0; i < o->n_specs; i++) {
        wanted = wanted || o->specs[i].options->alpha_mask;
    }
    return wanted;
}

dr_status dr_dataset_open(dr_arena *arena, const dr_dataset_options *o, dr_dataset *out)
{
    dr_folder_scan scan = {0};
    DR_TRY(o->n_parts > 0 ? dr_subsets_scan(arena, &o->folders, o->specs, o->n_specs, &scan)
                          : dr_folders_scan(arena, &o->folders, &scan));
    return dr_dataset_build(arena, o, &scan, out);
}

void dr_dataset_summary(const dr_dataset *d, dr_str *out)
{
    for (size_t i = 0; i < d->n_subsets; i++) {
        const dr_subset *s = &d->subsets[i];
        if (d->n_parts > 1) {
            dr_str_printf(out, "dataset %lu, ", (unsigned long)s->part + 1);
        }
        if (s->is_validation) {
            dr_str_printf(out, "validation %s: %zu picture%s\n", s->dir, s->n_images,
                          dr_folders_plural(s->n_images));
            continue;
        }
        dr_str_printf(out, "%s %s: %zu picture%s x %lld repeat%s",
                      s->is_reg ? "regularisation" : "training", s->dir, s->n_images,
                      dr_folders_plural(s->n_images), (long long)s->repeats,
                      dr_folders_plural((uint64_t)s->repeats));
        if (s->metadata_file != NULL) {
            dr_str_printf(out, ", captions of %s\n", s->metadata_file);
        } else {
            dr_str_printf(out, ", class '%s'\n", s->class_tokens);
        }
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
        dr_str_printf(out, "%6zu  %5d x %-5d %9lu %9lu", i, b->size.w, b->size.h,
                      (unsigned long)b->n_images, (unsigned long)b->n_samples);
        if (d->n_parts > 1) {
            dr_str_printf(out, "  dataset %lu, batches of %lu", (unsigned long)b->part + 1,
                          (unsigned long)b->batch_size);
        }
        dr_str_add(out, "\n");
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
