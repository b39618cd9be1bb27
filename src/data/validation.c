#include "data/validation.h"

#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dr_subset_options dr_subset_options_still(const dr_subset_options *o)
{
    dr_subset_options still = *o;
    still.captions.shuffle = false;
    still.captions.dropout_rate = 0.0;
    still.captions.dropout_every_n_epochs = 0;
    still.captions.tag_dropout_rate = 0.0;
    still.captions.warmup_steps = 0.0;
    still.flip_aug = false;
    still.color_aug = false;
    still.random_crop = false;
    still.face_least = still.face_most = 0.0;
    return still;
}

/* Python's round(): half to even, as the rounding mode is. */
static size_t count_for_validation(const dr_subset *s, double split)
{
    size_t n = (size_t)lrint((double)s->n_images * split);
    return split < 1.0 && n == s->n_images && n > 0 ? n - 1 : n;
}

typedef struct splitter {
    const dr_folder_scan *from;
    dr_folder_image *images; /* new order: training, then validation */
    size_t n;
    bool *held; /* (images of from): kept for validation */
} splitter;

static void choose(splitter *s, const dr_subset *subset, uint64_t seed, size_t n)
{
    uint32_t *order = dr_xcalloc(subset->n_images, sizeof *order);
    dr_philox random;
    dr_philox_init(&random, seed, DR_RANDOM_VALIDATION, 0, 0);
    dr_philox_permutation(&random, order, (uint32_t)subset->n_images);
    for (size_t i = subset->n_images - n; i < subset->n_images; i++) {
        s->held[subset->first_image + order[i]] = true;
    }
    free(order);
}

/* The pictures of a subset that are, or are not, for validation, as subset number `as`. */
static void take_images(splitter *s, const dr_subset *from, bool held, size_t as, dr_subset *to)
{
    to->first_image = s->n;
    for (size_t i = 0; i < from->n_images; i++) {
        if (s->held[from->first_image + i] == held) {
            s->images[s->n] = s->from->images[from->first_image + i];
            s->images[s->n++].subset = (uint32_t)as;
        }
    }
    to->n_images = s->n - to->first_image;
}

static size_t choose_all(splitter *s, const dr_dataset_part *parts, bool *wanted)
{
    size_t n_split = 0;
    for (size_t i = 0; i < s->from->n_subsets; i++) {
        const dr_subset *subset = &s->from->subsets[i];
        const dr_dataset_part *part = &parts[subset->part];
        if (subset->is_reg || !(part->validation_split > 0.0)) {
            continue;
        }
        size_t n = count_for_validation(subset, part->validation_split);
        *wanted = true;
        n_split += n > 0;
        choose(s, subset, part->validation_seed, n);
    }
    return n_split;
}

/* All subsets with what is left of them, then those for validation; empty ones go. */
static void rebuild(splitter *s, dr_arena *arena, size_t n_split, dr_folder_scan *out)
{
    size_t n_old = s->from->n_subsets;
    dr_subset *subsets = dr_arena_array(arena, n_old + n_split, sizeof *subsets);
    size_t n = 0;
    for (int held = 0; held < 2; held++) {
        for (size_t i = 0; i < n_old; i++) {
            const dr_subset *from = &s->from->subsets[i];
            dr_subset to = *from;
            take_images(s, from, held == 1, n, &to);
            if (to.n_images == 0) {
                continue;
            }
            if (held == 1) {
                dr_subset_options *still = dr_arena_alloc(arena, sizeof *still);
                *still = dr_subset_options_still(from->options);
                to.options = still;
                to.is_validation = true;
            }
            subsets[n++] = to;
        }
    }
    out->subsets = subsets;
    out->n_subsets = n;
    out->images = s->images;
}

dr_status dr_validation_split(dr_arena *arena, const dr_dataset_part *parts, dr_folder_scan *scan)
{
    const dr_folder_scan from = *scan;
    splitter s = {.from = &from};
    bool wanted = false;
    s.held = dr_xcalloc(from.n_images, sizeof *s.held);
    size_t n_split = choose_all(&s, parts, &wanted);
    if (n_split > 0) {
        s.images = dr_arena_array(arena, from.n_images, sizeof *s.images);
        rebuild(&s, arena, n_split, scan);
    }
    free(s.held);
    if (wanted && n_split == 0) {
        DR_FAIL(DR_FORMAT, "validation_split: no folder has enough pictures to keep one for "
                           "validation; a larger share, or more pictures");
    }
    return DR_OK;
}
