#include "apps/draw_pictures.h"

#include "base/file.h"
#include "base/philox.h"
#include "image/png_write.h"

#include <math.h>
#include <string.h>

/* ---- drawing ------------------------------------------------------------------------------- */

typedef struct colour {
    const char *name;
    unsigned char rgb[3];
} colour;

static const colour backgrounds[] = {
    {"white", {250, 250, 250}},       {"light gray", {205, 205, 205}},
    {"pale yellow", {250, 240, 170}}, {"pale green", {195, 235, 195}},
    {"pink", {250, 205, 215}},        {"beige", {230, 215, 185}},
    {"lavender", {215, 205, 240}}};
static const colour red = {"red", {215, 25, 30}};
static const colour blue = {"blue", {25, 55, 215}};
static const colour others[] = {{"green", {20, 140, 60}},   {"orange", {240, 130, 20}},
                                {"purple", {120, 40, 160}}, {"black", {20, 20, 20}},
                                {"teal", {0, 130, 130}},    {"brown", {120, 70, 30}}};
enum { N_BACKGROUNDS = sizeof backgrounds / sizeof *backgrounds };
enum { N_OTHERS = sizeof others / sizeof *others };

typedef enum form { RING, SQUARE, CIRCLE, TRIANGLE, CROSS, N_FORMS } form;
static const char *const form_names[N_FORMS] = {"ring", "square", "circle", "triangle", "cross"};

/* Signed distance in pixels from (x,y), relative to the centre, to the edge of a form of size r. */
static double distance(form f, double x, double y, double r)
{
    const double ax = fabs(x);
    const double ay = fabs(y);
    switch (f) {
    case RING:
        return fabs(hypot(x, y) - r) - 0.15 * r;
    case SQUARE:
        return fmax(ax, ay) - r;
    case CIRCLE:
        return hypot(x, y) - r;
    case TRIANGLE:
        return fmax(y, ax * sqrt(0.75) - y / 2.0) - r / 2.0;
    default:
        return fmin(fmax(ax - r, ay - r / 3.0), fmax(ax - r / 3.0, ay - r));
    }
}

typedef struct place {
    double x, y, r; /* pixels */
} place;

/* A pixel whose centre lies d inside the edge is covered by 0.5 + d, at most wholly. */
static void draw(dr_image *img, form f, const colour *c, place at)
{
    for (int y = 0; y < img->height; y++) {
        for (int x = 0; x < img->width; x++) {
            unsigned char *p = img->pixels + 3 * ((size_t)y * (size_t)img->width + (size_t)x);
            double d = distance(f, x + 0.5 - at.x, y + 0.5 - at.y, at.r);
            double cover = fmin(fmax(0.5 - d, 0.0), 1.0);
            for (int k = 0; k < 3; k++) {
                p[k] = (unsigned char)lrint(p[k] + cover * (c->rgb[k] - p[k]));
            }
        }
    }
}

static double between(dr_philox *stream, double low, double high)
{
    return low + (high - low) * (double)dr_philox_uniform(stream);
}

/* ---- pictures and captions ----------------------------------------------------------------- */

/* Square, landscape, portrait in turn. */
static dr_status blank(const dr_picture_set *set, int i, const colour *c, dr_image *img)
{
    const int width = i % 3 == 2 ? set->size * 3 / 4 : set->size;
    const int height = i % 3 == 1 ? set->size * 3 / 4 : set->size;
    DR_TRY(dr_image_alloc(img, width, height));
    for (int p = 0; p < width * height; p++) {
        memcpy(img->pixels + 3 * p, c->rgb, 3);
    }
    return DR_OK;
}

static dr_status paint(const dr_picture_set *set, int i, dr_image *img, dr_str *caption)
{
    dr_philox stream;
    dr_philox_init(&stream, set->seed, DR_RANDOM_SAMPLE, set->subject ? 0 : 1, (uint64_t)i);
    const colour *back = &backgrounds[dr_philox_below(&stream, N_BACKGROUNDS)];
    DR_TRY(blank(set, i, back, img));
    const double side = fmin(img->width, img->height);
    place at = {.r = side * between(&stream, 0.2, 0.38)};
    const double margin = 1.2 * at.r; /* the ring's outer edge lies at 1.15 r */
    at.x = between(&stream, margin, img->width - margin);
    at.y = between(&stream, margin, img->height - margin);
    if (set->subject) {
        draw(img, RING, &red, at);
        draw(img, SQUARE, &blue, (place){at.x, at.y, 0.4 * at.r});
        dr_str_printf(caption, "sks shape, a red ring with a blue square, %s background\n",
                      back->name);
        return DR_OK;
    }
    const form f = (form)(SQUARE + i % (N_FORMS - SQUARE));
    const colour *c = &others[dr_philox_below(&stream, N_OTHERS)];
    draw(img, f, c, at);
    dr_str_printf(caption, "shape, %s %s, %s background\n", c->name, form_names[f], back->name);
    return DR_OK;
}

/* Every second picture gets a caption file; the others take theirs from the folder's name. */
static dr_status write_picture(const dr_picture_set *set, int i)
{
    dr_image img = {0};
    dr_str caption = {0};
    dr_str path = {0};
    dr_status st = paint(set, i, &img, &caption);
    if (st == DR_OK) {
        dr_str_printf(&path, "%s/%02d.png", set->dir, i);
        st = dr_png_write(dr_str_get(&path), &img, NULL, 0);
    }
    dr_str_free(&path);
    if (st == DR_OK && i % 2 == 0) {
        dr_str_printf(&path, "%s/%02d.caption", set->dir, i);
        st = dr_file_write(dr_str_get(&path), dr_str_get(&caption), caption.len);
    }
    dr_str_free(&path);
    dr_str_free(&caption);
    dr_image_free(&img);
    return st;
}

dr_status dr_picture_set_write(const dr_picture_set *set)
{
    DR_TRY(dr_mkdirs(set->dir));
    for (int i = 0; i < set->n; i++) {
        DR_TRY(write_picture(set, i));
    }
    return DR_OK;
}
