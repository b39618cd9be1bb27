/*
 * Latents that sd-scripts cached beside the pictures: <stem>_<WWWW>x<HHHH>_sd.npz (train_network,
 * its tools), ..._sdxl.npz (train_db, by a mistake of its own), <stem>.npz (older versions).
 *
 * Checked of each: shape, original size, crop, finite numbers, and that the file is not older than
 * its picture. What they do not tell, the VAE and how the picture was read, is checked on the first
 * file of each of the three kinds by encoding its picture.
 */
#include "train/latents/latents_cache_internal.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "data/mask.h"
#include "io/npz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { N_KINDS = 3, MAX_NAMED = 5, CHANNELS = 4 };

typedef struct importing {
    dr_cached_latents *l;
    float *chw, *hwc, *moments;
    size_t n, n_refused;
    int trusted[N_KINDS]; /* 0: not asked yet, 1: its VAE is ours, -1: it is not */
} importing;

static void file_name(const importing *s, size_t entry, int kind, dr_str *out)
{
    static const char *const endings[N_KINDS] = {"", "_sd", "_sdxl"};
    const dr_dataset_image *im = dr_latents_image(s->l, entry);
    const char *dot = strrchr(im->path, '.');
    dr_str_add_n(out, im->path, dot != NULL ? (size_t)(dot - im->path) : strlen(im->path));
    if (kind > 0) {
        dr_str_printf(out, "_%04dx%04d%s", (int)im->size.w, (int)im->size.h, endings[kind]);
    }
    dr_str_add(out, ".npz");
}

static dr_status check_age(const char *path, const char *picture)
{
    struct stat a, b;
    if (stat(path, &a) == 0 && stat(picture, &b) == 0 &&
        (a.st_mtim.tv_sec < b.st_mtim.tv_sec ||
         (a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec < b.st_mtim.tv_nsec))) {
        DR_FAIL(DR_FORMAT, "%s: older than its picture, which may have been edited since", path);
    }
    return DR_OK;
}

static dr_status expect_numbers(const dr_npz *z, const char *path, const char *name,
                                const double *want, size_t n)
{
    double got[4];
    if (!dr_npz_has(z, name)) {
        return DR_OK; /* the oldest files have neither */
    }
    DR_TRY(dr_npz_read_numbers(z, name, n, got));
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(got[i] - want[i]) <= 1e-6 * (1.0 + fabs(want[i])))) {
            DR_FAIL(DR_FORMAT, "%s: %s[%zu] is %g, of this picture and bucket it would be %g", path,
                    name, i, got[i], want[i]);
        }
    }
    return DR_OK;
}

/* sd-scripts' crop_ltrb: from the aspect ratios of bucket and picture, in Python's arithmetic. */
static void crop_of(const dr_dataset_image *im, double out[4])
{
    double bw = im->fit.bucket.w;
    double bh = im->fit.bucket.h;
    double ratio = (double)im->size.w / (double)im->size.h;
    bool wider = bw / bh > ratio;
    double w = wider ? bh * ratio : bw;
    double h = wider ? bh : bw / ratio;
    out[0] = floor((bw - w) / 2.0);
    out[1] = floor((bh - h) / 2.0);
    out[2] = out[0] + w;
    out[3] = out[1] + h;
}

static dr_status check_contents(importing *s, const dr_npz *z, const char *path, size_t entry)
{
    const dr_dataset_image *im = dr_latents_image(s->l, entry);
    dr_latent_shape shape = dr_latents_shape(s->l, entry, CHANNELS);
    const char *name = dr_latents_is_flipped(s->l, entry) ? "latents_flipped" : "latents";
    const double size[2] = {im->size.w, im->size.h};
    double crop[4];
    crop_of(im, crop);
    DR_TRY(expect_numbers(z, path, "original_size", size, 2));
    DR_TRY(expect_numbers(z, path, "crop_ltrb", crop, 4));
    const int64_t dim[3] = {shape.c, shape.h, shape.w};
    DR_TRY(dr_npz_read_f32(z, name, 3, dim, s->chw));
    for (int64_t i = 0; i < shape.c * shape.h * shape.w; i++) {
        if (!isfinite(s->chw[i])) {
            DR_FAIL(DR_FORMAT, "%s: '%s' holds numbers that are not finite", path, name);
        }
    }
    dr_latents_chw_to_hwc(s->chw, shape, s->hwc);
    return DR_OK;
}

/*
 * Whether the latent is a draw of our VAE's posterior of this picture: its distance from the mean
 * is that of the posterior's deviation, and a share of the mean for 16-bit arithmetic.
 */
static dr_status check_vae(importing *s, const char *path, size_t entry)
{
    static const double half_precision = 0.3; /* bf16 gives 0.02; another VAE or picture over 1 */
    int64_t channels = 0;
    DR_TRY(s->l->c.moments(s->l->c.user, entry, s->moments, &channels));
    dr_latent_shape shape = dr_latents_shape(s->l, entry, CHANNELS);
    double apart = 0.0;
    double means = 0.0;
    double deviations = 0.0;
    for (int64_t i = 0; i < shape.h * shape.w; i++) {
        for (int64_t c = 0; c < CHANNELS; c++) {
            double mean = s->moments[i * channels + c];
            double log_variance = channels == 8 ? s->moments[i * channels + 4 + c] : -30.0;
            double d = s->hwc[i * CHANNELS + c] - mean;
            apart += d * d;
            means += mean * mean;
            deviations += exp(fmin(fmax(log_variance, -30.0), 20.0));
        }
    }
    double limit = half_precision * sqrt(means) + 1.5 * sqrt(deviations);
    if (!(sqrt(apart) <= limit)) {
        DR_FAIL(
            DR_FORMAT,
            "%s: not what this VAE makes of the picture (distance %.3g, expected at most %.3g): "
            "made with another VAE, or the picture was read in another way",
            path, sqrt(apart), limit);
    }
    return DR_OK;
}

/*
 * Of a picture whose alpha weighs the loss: what the file says of it must be what the picture says,
 * within a step of 8 bits (another version of OpenCV or Pillow); it is read from the picture then.
 */
static dr_status check_alpha(importing *s, const dr_npz *z, const char *path, size_t entry)
{
    const dr_dataset_image *im = dr_latents_image(s->l, entry);
    if (!dr_mask_is_used(im) || im->mask != NULL || !dr_npz_has(z, "alpha_mask")) {
        return DR_OK;
    }
    const dr_latent_shape shape = dr_latents_shape(s->l, entry, 1);
    const int64_t w = shape.w * 8;
    const int64_t dim[2] = {shape.h * 8, w};
    float *alpha = dr_xcalloc((size_t)(dim[0] * w), sizeof *alpha);
    float *mask = dr_xcalloc((size_t)(shape.h * shape.w), sizeof *mask);
    dr_status st = dr_npz_read_f32(z, "alpha_mask", 2, dim, alpha);
    if (st == DR_OK) {
        st = dr_mask_load(im, NULL, false, mask);
    }
    for (int64_t i = 0; st == DR_OK && i < shape.h * shape.w; i++) {
        const float *block = alpha + i / shape.w * 8 * w + i % shape.w * 8;
        double sum = 0.0;
        for (int64_t k = 0; k < 64; k++) {
            sum += (double)block[k / 8 * w + k % 8];
        }
        if (!(fabs(sum / 64.0 - (double)mask[i]) <= 1.0 / 255.0)) {
            st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                              "%s: 'alpha_mask' is not the alpha of the picture", path);
        }
    }
    free(alpha);
    free(mask);
    return st;
}

static dr_status import_file(importing *s, const char *path, size_t entry, int kind)
{
    dr_npz *z = NULL;
    DR_TRY(check_age(path, dr_latents_image(s->l, entry)->path));
    DR_TRY(dr_npz_open(&z, path));
    dr_status st = check_contents(s, z, path, entry);
    if (st == DR_OK) {
        st = check_alpha(s, z, path, entry);
    }
    dr_npz_close(z);
    DR_TRY(st);
    if (s->trusted[kind] == 0) {
        st = check_vae(s, path, entry);
        s->trusted[kind] = st == DR_OK ? 1 : -1;
        DR_TRY(st);
    }
    if (s->trusted[kind] < 0) {
        DR_FAIL(DR_FORMAT, "%s: of the same kind as one that is not of this VAE", path);
    }
    return DR_OK;
}

static void refuse(importing *s)
{
    if (s->n_refused++ < MAX_NAMED) {
        dr_warn("%s; it is not used", dr_error_message());
    }
    dr_error_clear();
}

static dr_status import_entry(importing *s, size_t entry)
{
    for (int kind = 0; kind < N_KINDS && s->l->channels[entry] == 0; kind++) {
        dr_str path = {0};
        file_name(s, entry, kind, &path);
        bool exists = dr_path_exists(dr_str_get(&path));
        dr_status st = DR_OK;
        if (exists && import_file(s, dr_str_get(&path), entry, kind) != DR_OK) {
            refuse(s);
        } else if (exists) {
            st = dr_latents_keep(s->l, entry, CHANNELS, "npz", s->hwc);
            s->l->imported[entry] = true;
            s->n++;
        }
        dr_str_free(&path);
        DR_TRY(st);
    }
    return DR_OK;
}

dr_status dr_latents_import(dr_cached_latents *l)
{
    size_t most = dr_cached_latents_max_values(l);
    importing s = {.l = l,
                   .chw = dr_xcalloc(most, sizeof(float)),
                   .hwc = dr_xcalloc(most, sizeof(float)),
                   .moments = dr_xcalloc(most, sizeof(float))};
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < l->n; i++) {
        st = l->channels[i] == 0 ? import_entry(&s, i) : DR_OK;
    }
    if (s.n_refused > MAX_NAMED) {
        dr_warn("%zu more .npz files are not used", s.n_refused - MAX_NAMED);
    }
    if (s.n > 0) {
        dr_info("latents: %zu imported from sd-scripts' .npz files beside the pictures (checked: "
                "shape, size, crop, age, and the VAE on the first one; one draw for all uses)",
                s.n);
    }
    free(s.chw);
    free(s.hwc);
    free(s.moments);
    return st;
}
