/*
 * Folders and picture files: what is there and not used, what is there twice, what the sizes do.
 */
#include "train/check/dataset_check_internal.h"

#include "base/arena.h"
#include "base/file.h"
#include "image/image.h"
#include "io/xxh3.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const double much_cropped = 0.2;  /* a fifth of the picture is gone */
static const double much_enlarged = 1.5; /* half as much again: visibly soft */

/* ---- folders ---- */

static bool ends_with_any(const char *name, const char *const *endings)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot != NULL && endings[i] != NULL; i++) {
        if (strcasecmp(dot, endings[i]) == 0) {
            return true;
        }
    }
    return false;
}

static const char *const picture_endings[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp", NULL};
static const char *const foreign_endings[] = {".gif", ".tif",  ".tiff", ".heic", ".heif",
                                              ".psd", ".jfif", ".cr2",  ".nef",  ".arw",
                                              ".dng", ".svg",  ".jp2",  ".ppm",  NULL};

/* One folder's names, sorted. */
typedef struct folder_findings {
    dr_examples foreign, nested, orphans, twins, npz;
} folder_findings;

static void look_at_name(dr_checking *c, const dr_subset *s, const dr_strv *names, size_t i,
                         folder_findings *f)
{
    const char *name = names->at[i];
    char *path = dr_path_join(s->dir, name);
    const char *dot = strrchr(name, '.');
    size_t stem = dot != NULL ? (size_t)(dot - name) : strlen(name);
    if (dr_path_is_dir(path)) {
        dr_strv below = {0};
        size_t n = 0;
        if (name[0] != '.' && dr_list_dir(path, &below) == DR_OK) {
            for (size_t k = 0; k < below.n; k++) {
                n += ends_with_any(below.at[k], picture_endings);
            }
        }
        dr_error_clear();
        if (n > 0) {
            dr_examples_add(&f->nested, "%s: %zu pictures", path, n);
        }
        dr_strv_free(&below);
    } else if (ends_with_any(name, foreign_endings)) {
        dr_examples_add(&f->foreign, "%s", path);
    } else if (ends_with_any(name, picture_endings) && i > 0) {
        const char *before = names->at[i - 1]; /* sorted: "a.jpg", "a.png" often stand together */
        for (size_t k = i; k > 0 && strncmp(names->at[k - 1], name, stem) == 0; k--) {
            before = names->at[k - 1];
            if (before[stem] == '.' && ends_with_any(before, picture_endings) &&
                strrchr(before, '.') == before + stem) {
                dr_examples_add(&f->twins, "%s and %s", path, before);
                break;
            }
        }
    } else if (dot != NULL && strcmp(dot + 1, dr_checking_extension(c, s)) == 0) {
        bool used = false;
        for (size_t k = 0; !used && k < names->n; k++) {
            used = strncmp(names->at[k], name, stem) == 0 &&
                   ends_with_any(names->at[k], picture_endings);
        }
        if (!used) {
            dr_examples_add(&f->orphans, "%s", path);
        }
    }
    free(path);
}

dr_status dr_check_folders(dr_checking *c)
{
    folder_findings f = {0};
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < c->d->n_subsets; i++) {
        dr_strv names = {0};
        if (c->d->subsets[i].is_validation || c->d->subsets[i].metadata_file != NULL) {
            continue; /* the folder of another one, or nothing in it was looked for */
        }
        st = dr_list_dir(c->d->subsets[i].dir, &names);
        for (size_t k = 0; st == DR_OK && k < names.n; k++) {
            look_at_name(c, &c->d->subsets[i], &names, k, &f);
        }
        dr_strv_free(&names);
    }
    dr_checking_report(
        c, DR_CHECK_WARNING, "format-not-read", "pictures of a format that is not read", &f.foreign,
        "convert them to PNG, JPEG or WebP (ImageMagick: mogrify -format png FILES)");
    dr_checking_report(
        c, DR_CHECK_WARNING, "nested-folders",
        "folders with pictures inside <repeats>_<class> folders, which are not searched", &f.nested,
        "move their pictures up");
    dr_checking_report(
        c, DR_CHECK_WARNING, "shared-caption",
        "pictures with the name of another one but another ending: both share one caption file",
        &f.twins, "rename one of each two, with its own caption file");
    dr_checking_report(c, DR_CHECK_NOTE, "caption-without-picture",
                       "caption files without a picture", &f.orphans, "");
    return st;
}

/* ---- sizes ---- */

typedef struct ranked { /* an image and what it is ranked by */
    size_t image;
    double value;
} ranked;

static int larger_first(const void *a, const void *b)
{
    const ranked *x = a;
    const ranked *y = b;
    return x->value != y->value ? (x->value < y->value ? 1 : -1)
                                : (x->image > y->image) - (x->image < y->image);
}

static void check_sizes(dr_checking *c)
{
    ranked *at = dr_xcalloc(c->d->n_images, sizeof *at);
    dr_examples cropped = {0};
    dr_examples enlarged = {0};
    for (int what = 0; what < 2; what++) {
        for (size_t i = 0; i < c->d->n_images; i++) {
            const dr_dataset_image *im = &c->d->images[i];
            at[i] = (ranked){i, what == 0 ? dr_crop_loss(im) : dr_enlargement(im)};
        }
        qsort(at, c->d->n_images, sizeof *at, larger_first); /* the worst are the examples */
        for (size_t i = 0; i < c->d->n_images; i++) {
            const dr_dataset_image *im = &c->d->images[at[i].image];
            if (what == 0 && at[i].value > much_cropped) {
                dr_examples_add(&cropped, "%s: %dx%d in %dx%d, %.0f%% is cut off", im->path,
                                (int)im->size.w, (int)im->size.h, (int)im->fit.bucket.w,
                                (int)im->fit.bucket.h, 100.0 * at[i].value);
            } else if (what == 1 && at[i].value > much_enlarged) {
                dr_examples_add(&enlarged, "%s: %dx%d, enlarged %.1f times", im->path,
                                (int)im->size.w, (int)im->size.h, at[i].value);
            }
        }
    }
    free(at);
    dr_checking_report(c, DR_CHECK_WARNING, "cropped",
                       "pictures that lose more than 20% to the crop", &cropped,
                       c->d->bucketed ? "a larger --max_bucket_reso and a smaller "
                                        "--min_bucket_reso, or crop them yourself"
                                      : "--enable_bucket, or crop them yourself");
    dr_checking_report(c, DR_CHECK_WARNING, "enlarged",
                       "pictures that are enlarged more than 1.5 times", &enlarged,
                       "a smaller --resolution, --bucket_no_upscale, or larger pictures");
}

/* ---- files ---- */

typedef struct hashed {
    dr_xxh3 hash;
    size_t image;
} hashed;

static int by_hash(const void *a, const void *b)
{
    const hashed *x = a;
    const hashed *y = b;
    if (x->hash.high != y->hash.high) {
        return x->hash.high < y->hash.high ? -1 : 1;
    }
    if (x->hash.low != y->hash.low) {
        return x->hash.low < y->hash.low ? -1 : 1;
    }
    return (x->image > y->image) - (x->image < y->image);
}

static dr_status check_twice(dr_checking *c)
{
    hashed *at = dr_xcalloc(c->d->n_images, sizeof *at);
    dr_examples same = {0};
    dr_examples reg = {0};
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < c->d->n_images; i++) {
        at[i].image = i;
        st = dr_xxh3_file(c->d->images[i].path, &at[i].hash);
    }
    if (st == DR_OK) {
        qsort(at, c->d->n_images, sizeof *at, by_hash);
    }
    for (size_t i = 1; st == DR_OK && i < c->d->n_images; i++) {
        const dr_dataset_image *a = &c->d->images[at[i - 1].image];
        const dr_dataset_image *b = &c->d->images[at[i].image];
        if (dr_xxh3_equal(at[i - 1].hash, at[i].hash)) {
            dr_examples_add(a->is_reg != b->is_reg ? &reg : &same, "%s is %s", b->path, a->path);
        }
    }
    free(at);
    dr_checking_report(c, DR_CHECK_WARNING, "duplicates", "pictures that are there twice", &same,
                       "remove one of each two, or say with the folder's repeats what should count "
                       "more");
    dr_checking_report(c, DR_CHECK_WARNING, "reg-is-train",
                       "regularisation pictures that are training pictures too", &reg,
                       "remove them from --reg_data_dir: they would teach the class the subject");
    return st;
}

/* Pictures that EXIF turns by a quarter: other programs train them lying on their side. */
static void check_orientation(dr_checking *c)
{
    dr_examples e = {0};
    dr_image_options raw = dr_image_defaults;
    raw.as_pillow = true;
    for (size_t i = 0; i < c->d->n_images; i++) {
        const dr_dataset_image *im = &c->d->images[i];
        int w = 0;
        int h = 0;
        bool read =
            im->size.w != im->size.h && dr_image_probe(im->path, &raw, &w, &h, NULL) == DR_OK;
        if (read && w == im->size.h && h == im->size.w) {
            dr_examples_add(&e, "%s: %dx%d in the file", im->path, w, h);
        }
    }
    dr_error_clear();
    dr_checking_report(c, DR_CHECK_NOTE, "exif-turned",
                       "pictures turned upright as their EXIF orientation says", &e,
                       "nothing; sd-scripts trains them lying on their side (--compat sd-scripts)");
}

static bool is_one_colour(const dr_image *img)
{
    size_t n = (size_t)img->width * (size_t)img->height * 3;
    for (size_t i = 3; i < n; i++) {
        if (img->pixels[i] != img->pixels[i - 3]) {
            return false;
        }
    }
    return true;
}

static void check_deep(dr_checking *c)
{
    dr_examples bad = {0};
    dr_examples plain = {0};
    for (size_t i = 0; i < c->d->n_images; i++) {
        const dr_dataset_image *im = &c->d->images[i];
        dr_image img = {0};
        if (dr_image_load(im->path, im->picture != NULL ? &im->picture->decode : NULL, &img) !=
            DR_OK) {
            dr_examples_add(&bad, "%s", dr_error_message());
            dr_error_clear();
        } else if (is_one_colour(&img)) {
            dr_examples_add(&plain, "%s", im->path);
        }
        dr_image_free(&img);
    }
    dr_checking_report(c, DR_CHECK_ERROR, "damaged", "pictures that cannot be decoded", &bad,
                       "repair or remove them, or give --skip_bad_images to train without");
    dr_checking_report(c, DR_CHECK_WARNING, "one-colour", "pictures of one colour", &plain,
                       "remove them, unless they are meant");
}

dr_status dr_check_pictures(dr_checking *c)
{
    check_sizes(c);
    check_orientation(c);
    if (c->o->deep) {
        check_deep(c);
    }
    return c->o->hash ? check_twice(c) : DR_OK;
}
