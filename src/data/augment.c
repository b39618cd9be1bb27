#include "data/augment.h"

#include "base/file.h"
#include "base/philox.h"
#include "data/pytext.h"

#include <math.h>
#include <string.h>

enum { MAX_FACE_PX = 1 << 20 };

typedef struct face {
    int32_t cx, cy, w, h; /* centre and size in the picture's pixels */
    bool there;
} face;

static dr_status face_number(const char *path, const char *s, size_t n, int32_t *out)
{
    int64_t v = 0;
    if (!dr_py_int(s, n, &v) || v < 0 || v > MAX_FACE_PX) {
        DR_FAIL(DR_FORMAT,
                "%s: --face_crop_aug_range: the last four parts of the name between '_' are the "
                "face's centre and size in pixels; found '%.*s'",
                path, (int)n, s);
    }
    *out = (int32_t)v;
    return DR_OK;
}

/* The face in a picture's name; names of fewer than five parts have none. */
static dr_status read_face(const char *path, face *out)
{
    const char *name = dr_path_base(path);
    const char *end = strrchr(name, '.');
    end = end != NULL ? end : name + strlen(name);
    int32_t *const numbers[] = {&out->h, &out->w, &out->cy, &out->cx};
    const char *begins[4];
    const char *ends[4];
    *out = (face){0};
    for (int i = 0; i < 4; i++) {
        const char *begin = end;
        while (begin > name && begin[-1] != '_') {
            begin--;
        }
        if (begin == name) {
            return DR_OK; /* fewer than five parts */
        }
        begins[i] = begin;
        ends[i] = end;
        end = begin - 1;
    }
    for (int i = 0; i < 4; i++) {
        DR_TRY(face_number(path, begins[i], (size_t)(ends[i] - begins[i]), numbers[i]));
    }
    out->there = out->cx > 0 && (out->w > 0 || out->h > 0);
    return DR_OK;
}

/* Uniform integer in least..most, both included. */
static int32_t draw(dr_philox *random, int32_t least, int32_t most)
{
    return least + (int32_t)dr_philox_below(random, (uint32_t)(most - least) + 1);
}

static int32_t at_least(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* Where the cut begins on one axis, so that the face is about in its middle. */
static int32_t place_face(const dr_subset_options *o, dr_philox *random, int32_t target,
                          int32_t length, int32_t centre, int32_t face_px, int32_t shorter)
{
    int32_t p = centre - target / 2;
    if (o->random_crop) {
        int32_t range = at_least(length - centre, centre);
        p += draw(random, 0, range) + draw(random, 0, range) - range;
    } else if (o->face_least < o->face_most && face_px > shorter / 10 && face_px >= 40) {
        p += draw(random, -((face_px + 19) / 20), face_px / 20);
    }
    int32_t most = length - target;
    return p < 0 ? 0 : p > most ? most : p;
}

static double clamp_scale(double least, double scale)
{
    double v = least > scale ? least : scale;
    return v < 1.0 ? v : 1.0;
}

static void cut_around_face(const dr_dataset_image *image, const face *f, dr_philox *random,
                            dr_cut *out)
{
    const dr_subset_options *o = image->options;
    const dr_size_px target = image->fit.bucket;
    const dr_size_px size = image->size;
    const int32_t face_px = at_least(f->w, f->h);
    const int32_t shorter = target.w < target.h ? target.w : target.h;
    double fit = fmax((double)target.h / size.h, (double)target.w / size.w);
    double least = clamp_scale(fit, (double)shorter / (face_px * o->face_most));
    double most = clamp_scale(least, (double)shorter / (face_px * o->face_least));
    double scale =
        least >= most ? least : least + (most - least) * (double)dr_philox_uniform(random);
    out->resized.w = at_least((int32_t)(size.w * scale + 0.5), target.w);
    out->resized.h = at_least((int32_t)(size.h * scale + 0.5), target.h);
    int32_t cx = (int32_t)(f->cx * scale + 0.5);
    int32_t cy = (int32_t)(f->cy * scale + 0.5);
    out->y = place_face(o, random, target.h, out->resized.h, cy, face_px, shorter);
    out->x = place_face(o, random, target.w, out->resized.w, cx, face_px, shorter);
}

dr_status dr_cut_choose(const dr_dataset_image *image, const dr_sample_use *use, dr_cut *out)
{
    const dr_bucket_fit *fit = &image->fit;
    const dr_subset_options *o = image->options;
    *out = (dr_cut){fit->resized, fit->crop_x, fit->crop_y};
    bool large = image->size.w >= fit->bucket.w && image->size.h >= fit->bucket.h;
    bool face_crop = o != NULL && o->face_most > 0.0 && image->unbucketed && large;
    if (o == NULL || !(o->random_crop || face_crop)) {
        return DR_OK;
    }
    dr_philox random;
    dr_philox_init(&random, use->seed, DR_RANDOM_CROP, use->epoch, use->sample);
    face f = {0};
    if (face_crop) {
        DR_TRY(read_face(image->path, &f));
    }
    if (f.there) {
        cut_around_face(image, &f, &random, out);
    } else if (o->random_crop) {
        out->resized = image->unbucketed && large ? image->size : fit->resized;
        out->x = draw(&random, 0, out->resized.w - fit->bucket.w);
        out->y = draw(&random, 0, out->resized.h - fit->bucket.h);
    }
    return DR_OK;
}

dr_recolor dr_recolor_choose(const dr_sample_use *use)
{
    dr_philox random;
    dr_recolor r = {.hue_shift = 0.0, .gamma = 1.0};
    dr_philox_init(&random, use->seed, DR_RANDOM_COLOR, use->epoch, use->sample);
    double changed = (double)dr_philox_uniform(&random);
    double which = (double)dr_philox_uniform(&random);
    double u = (double)dr_philox_uniform(&random);
    if (changed <= 0.33 && which > 0.5) {
        r.hue_shift = -8.0 + 16.0 * u;
        r.hue_shift += r.hue_shift < 0.0 ? 180.0 : 0.0;
    } else if (changed <= 0.33) {
        r.gamma = 0.95 + (1.05 - 0.95) * u;
    }
    return r;
}
