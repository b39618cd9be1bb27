#include "data/buckets.h"

#include "base/log.h"
#include "data/pytext.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    VAE_GRID_PX = 64,       /* 8 of the VAE x 8 of the U-Net's three halvings */
    MAX_OPTION_PX = 65536,  /* keeps w * h far from the limits of a double's integers */
    MAX_RESIZED_PX = 65500, /* the largest side that JPEG can hold */
    DEFAULT_MIN_PX = 256,
    DEFAULT_MAX_PX = 1024
};

int dr_size_px_compare(const void *a, const void *b)
{
    const dr_size_px *x = a;
    const dr_size_px *y = b;
    if (x->w != y->w) {
        return x->w < y->w ? -1 : 1;
    }
    return (x->h > y->h) - (x->h < y->h);
}

size_t dr_size_px_sort_unique(dr_size_px *sizes, size_t n)
{
    qsort(sizes, n, sizeof *sizes, dr_size_px_compare);
    size_t kept = 1;
    for (size_t i = 1; i < n; i++) {
        if (dr_size_px_compare(&sizes[i], &sizes[kept - 1]) != 0) {
            sizes[kept++] = sizes[i];
        }
    }
    return kept;
}

dr_bucket_options dr_bucket_options_default(void)
{
    return (dr_bucket_options){.resolution = {512, 512},
                               .min_px = DEFAULT_MIN_PX,
                               .max_px = DEFAULT_MAX_PX,
                               .step_px = VAE_GRID_PX};
}

dr_status dr_resolution_parse(const char *text, dr_size_px *out)
{
    int64_t side[2] = {0, 0};
    int n = 0;
    const char *part = text;
    for (;;) {
        size_t len = strcspn(part, ",");
        int64_t value = 0;
        if (n == 2 || !dr_py_int(part, len, &value)) {
            DR_FAIL(DR_INVALID,
                    "--resolution: '%s' is neither one number (512) nor width,height (768,512)",
                    text);
        }
        if (value < 1 || value > MAX_OPTION_PX) {
            DR_FAIL(DR_INVALID, "--resolution: '%s' is out of range; sides are 1 to %d pixels",
                    text, MAX_OPTION_PX);
        }
        side[n++] = value;
        if (part[len] == '\0') {
            break;
        }
        part += len + 1;
    }
    out->w = (int32_t)side[0];
    out->h = (int32_t)side[n - 1];
    return DR_OK;
}

static dr_status check_grid(const char *what, int32_t value)
{
    if (value >= VAE_GRID_PX && value % VAE_GRID_PX == 0) {
        return DR_OK;
    }
    int32_t below = value / VAE_GRID_PX * VAE_GRID_PX;
    if (below < VAE_GRID_PX) {
        DR_FAIL(DR_INVALID, "%s %d is not divisible by 64; the nearest valid value is 64", what,
                value);
    }
    DR_FAIL(DR_INVALID, "%s %d is not divisible by 64; the nearest valid values are %d and %d",
            what, value, below, below + VAE_GRID_PX);
}

static dr_status check_limits(const dr_bucket_options *o, int32_t min_px, int32_t max_px)
{
    int32_t shorter = o->resolution.w < o->resolution.h ? o->resolution.w : o->resolution.h;
    int32_t longer = o->resolution.w < o->resolution.h ? o->resolution.h : o->resolution.w;
    if (o->max_px > MAX_OPTION_PX) {
        DR_FAIL(DR_INVALID, "--max_bucket_reso %d is larger than %d", o->max_px, MAX_OPTION_PX);
    }
    if (min_px < o->step_px) {
        DR_FAIL(DR_INVALID, "--min_bucket_reso %d is smaller than one step of %d pixels", o->min_px,
                o->step_px);
    }
    if (min_px > shorter) {
        DR_FAIL(DR_INVALID,
                "--min_bucket_reso %d is larger than the resolution's shorter side %d; lower it to "
                "%d or less",
                o->min_px, shorter, shorter);
    }
    if (max_px < longer) {
        DR_FAIL(DR_INVALID,
                "--max_bucket_reso %d is smaller than the resolution's longer side %d; raise it to "
                "%d or more",
                o->max_px, longer, longer);
    }
    return DR_OK;
}

dr_status dr_bucket_options_validate(dr_bucket_options *o)
{
    bool square = o->resolution.w == o->resolution.h;
    DR_TRY(check_grid(square ? "--resolution" : "--resolution: width", o->resolution.w));
    DR_TRY(check_grid("--resolution: height", o->resolution.h));
    if (!o->enable) {
        if (o->no_upscale) {
            dr_warn("--bucket_no_upscale has no effect without --enable_bucket");
        }
        return DR_OK;
    }
    DR_TRY(check_grid("--bucket_reso_steps", o->step_px));
    if (o->no_upscale) {
        if (o->min_px != DEFAULT_MIN_PX || o->max_px != DEFAULT_MAX_PX) {
            dr_warn("--min_bucket_reso and --max_bucket_reso have no effect with "
                    "--bucket_no_upscale");
        }
        return DR_OK;
    }
    int32_t min_px = o->min_px - o->min_px % o->step_px;
    int32_t over = o->max_px % o->step_px;
    int32_t max_px = over == 0 ? o->max_px : o->max_px - over + o->step_px;
    DR_TRY(check_limits(o, min_px, max_px));
    if (min_px != o->min_px) {
        dr_warn("--min_bucket_reso %d is not a multiple of the steps %d: using %d", o->min_px,
                o->step_px, min_px);
    }
    if (max_px != o->max_px) {
        dr_warn("--max_bucket_reso %d is not a multiple of the steps %d: using %d", o->max_px,
                o->step_px, max_px);
    }
    o->min_px = min_px;
    o->max_px = max_px;
    return DR_OK;
}

void dr_bucket_set_build(dr_bucket_set *set, const dr_bucket_options *o, dr_arena *arena)
{
    *set = (dr_bucket_set){.options = *o};
    if (!o->enable) {
        dr_size_px *only = dr_arena_array(arena, 1, sizeof *only);
        *only = o->resolution;
        set->sizes = only;
        set->n = 1;
        return;
    }
    if (o->no_upscale) {
        return;
    }
    int64_t area = (int64_t)o->resolution.w * o->resolution.h;
    int32_t step = o->step_px;
    DR_CHECK(step > 0 && o->min_px >= step && o->max_px >= o->min_px,
             "bucket options were not validated");
    size_t cap = 2 * (size_t)((o->max_px - o->min_px) / step + 1) + 1;
    dr_size_px *sizes = dr_arena_array(arena, cap, sizeof *sizes);
    int32_t side = (int32_t)floor(sqrt((double)area) / step) * step;
    size_t n = 0;
    sizes[n++] = (dr_size_px){side, side};
    for (int32_t w = o->min_px; w <= o->max_px; w += step) {
        int64_t h = area / w / step * step;
        h = h < o->max_px ? h : o->max_px;
        if (h >= o->min_px) {
            sizes[n++] = (dr_size_px){w, (int32_t)h};
            sizes[n++] = (dr_size_px){(int32_t)h, w};
        }
    }
    set->sizes = sizes;
    set->n = dr_size_px_sort_unique(sizes, n);
}

static int64_t round_half_up(double x)
{
    return (int64_t)(x + 0.5);
}

static dr_size_px choose_predefined(const dr_bucket_set *set, dr_size_px image)
{
    if (bsearch(&image, set->sizes, set->n, sizeof *set->sizes, dr_size_px_compare) != NULL) {
        return image;
    }
    double aspect = (double)image.w / (double)image.h;
    size_t best = 0;
    double best_error = HUGE_VAL;
    for (size_t i = 0; i < set->n; i++) {
        double error = fabs((double)set->sizes[i].w / (double)set->sizes[i].h - aspect);
        if (error < best_error) { /* the first minimum wins */
            best_error = error;
            best = i;
        }
    }
    return set->sizes[best];
}

static dr_status fit_predefined(const dr_bucket_set *set, dr_size_px image, dr_bucket_fit *out)
{
    dr_size_px bucket = choose_predefined(set, image);
    double aspect = (double)image.w / (double)image.h;
    double factor = aspect > (double)bucket.w / (double)bucket.h
                        ? (double)bucket.h / (double)image.h
                        : (double)bucket.w / (double)image.w;
    int64_t w = round_half_up((double)image.w * factor);
    int64_t h = round_half_up((double)image.h * factor);
    if (w > MAX_RESIZED_PX || h > MAX_RESIZED_PX) {
        DR_FAIL(DR_FORMAT,
                "%dx%d pixels: to cover the bucket %dx%d it would be resized to %lldx%lld, more "
                "than %d on a side; crop the picture to a less extreme shape",
                image.w, image.h, bucket.w, bucket.h, (long long)w, (long long)h, MAX_RESIZED_PX);
    }
    out->bucket = bucket;
    out->resized = (dr_size_px){(int32_t)w, (int32_t)h};
    return DR_OK;
}

static int64_t round_to_step(double x, int32_t step)
{
    int64_t v = round_half_up(x);
    return v - v % step;
}

/* Shrinks to at most the area, one side on the grid: the one that keeps the aspect ratio better.
 * False when the other side would have no whole step. */
static bool shrink_to_area(int64_t area, dr_size_px image, int32_t step, dr_size_px *out)
{
    double aspect = (double)image.w / (double)image.h;
    double w = sqrt((double)area * aspect);
    double h = (double)area / w;
    int64_t width_first = round_to_step(w, step);
    int64_t its_height = round_to_step((double)width_first / aspect, step);
    int64_t height_first = round_to_step(h, step);
    int64_t its_width = round_to_step((double)height_first * aspect, step);
    if (its_height == 0 || height_first == 0) {
        return false;
    }
    double error_w = fabs((double)width_first / (double)its_height - aspect);
    double error_h = fabs((double)its_width / (double)height_first - aspect);
    if (error_w < error_h) {
        *out = (dr_size_px){(int32_t)width_first,
                            (int32_t)round_half_up((double)width_first / aspect)};
    } else {
        *out = (dr_size_px){(int32_t)round_half_up((double)height_first * aspect),
                            (int32_t)height_first};
    }
    return true;
}

static dr_status fit_no_upscale(const dr_bucket_set *set, dr_size_px image, dr_bucket_fit *out)
{
    int64_t area = (int64_t)set->options.resolution.w * set->options.resolution.h;
    int32_t step = set->options.step_px;
    dr_size_px resized = image;
    bool usable = true;
    if ((int64_t)image.w * image.h > area) {
        usable = shrink_to_area(area, image, step, &resized);
    }
    dr_size_px bucket = {resized.w - resized.w % step, resized.h - resized.h % step};
    if (!usable || bucket.w == 0 || bucket.h == 0) {
        DR_FAIL(DR_FORMAT,
                "%dx%d pixels: with --bucket_no_upscale each side needs at least one step of %d "
                "pixels after shrinking to the area of %dx%d; remove or enlarge the picture, or "
                "leave out --bucket_no_upscale",
                image.w, image.h, step, set->options.resolution.w, set->options.resolution.h);
    }
    out->bucket = bucket;
    out->resized = resized;
    return DR_OK;
}

dr_status dr_bucket_fit_image(const dr_bucket_set *set, dr_size_px image, dr_bucket_fit *out)
{
    DR_CHECK(image.w >= 1 && image.h >= 1, "picture of %dx%d pixels", image.w, image.h);
    if (set->n == 0) {
        DR_TRY(fit_no_upscale(set, image, out));
    } else {
        DR_TRY(fit_predefined(set, image, out));
    }
    out->crop_x = (out->resized.w - out->bucket.w) / 2;
    out->crop_y = (out->resized.h - out->bucket.h) / 2;
    out->aspect_error =
        fabs((double)out->bucket.w / (double)out->bucket.h - (double)image.w / (double)image.h);
    return DR_OK;
}
