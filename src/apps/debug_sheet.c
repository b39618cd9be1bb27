/*
 * Without a terminal: one PNG of the first samples, numbered, and one HTML page that holds it.
 */
#include "apps/debug_dataset.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "data/epoch_plan.h"
#include "image/png_write.h"
#include "image/resize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 192, COLUMNS = 8, MAX_SAMPLES = 96, GAP = 4, MAX_PAGE_BYTES = 64 << 20 };

/* Digits of 3 x 5 points, one row after the other, the left point first. */
static const char *const digits[10] = {
    "111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001",
    "111100111001111", "111100111101111", "111001001001001", "111101111101111", "111101111001111"};

static void paint(dr_image *img, int x, int y, unsigned char value)
{
    if (x < img->width && y < img->height) {
        memset(img->pixels + ((size_t)y * (size_t)img->width + (size_t)x) * 3, value, 3);
    }
}

/* The number in the top left corner, white on black. */
static void draw_number(dr_image *img, uint32_t number)
{
    enum { POINT = 2, STEP = 4 * POINT, HEIGHT = 5 * POINT };
    char text[16];
    int n = snprintf(text, sizeof text, "%lu", (unsigned long)number);
    for (int y = 0; y < HEIGHT + 4; y++) {
        for (int x = 0; x < n * STEP + 4; x++) {
            int px = (x - 2) % STEP / POINT;
            int i = (x - 2) / STEP;
            int py = (y - 2) / POINT;
            bool inside = x >= 2 && y >= 2 && i < n && px < 3 && py < 5;
            bool on = inside && digits[text[i] - '0'][py * 3 + px] == '1';
            paint(img, x, y, on ? 255 : 0);
        }
    }
}

static void add_escaped(dr_str *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        switch (*c) {
        case '&':
            dr_str_add(out, "&amp;");
            break;
        case '<':
            dr_str_add(out, "&lt;");
            break;
        case '\n':
            dr_str_add(out, "<br>");
            break;
        default:
            dr_str_add_n(out, c, 1);
        }
    }
}

static dr_status make_cell(const dr_debug_view *v, uint32_t i, dr_image *cell, dr_str *text)
{
    dr_image img = {0};
    DR_TRY(dr_debug_sample(v, i, &img, text));
    int longer = img.width > img.height ? img.width : img.height;
    int w = img.width * SIDE / longer;
    int h = img.height * SIDE / longer;
    dr_status st = dr_image_resize(&img, w > 0 ? w : 1, h > 0 ? h : 1, DR_RESIZE_AUTO, cell);
    dr_image_free(&img);
    if (st == DR_OK) {
        draw_number(cell, i + 1);
    }
    return st;
}

/* Every cell is SIDE wide and high, so that the page finds them. */
static dr_status make_sheet(const dr_image *cells, int n, dr_image *sheet)
{
    int rows = (n + COLUMNS - 1) / COLUMNS;
    int pitch = SIDE + GAP;
    DR_TRY(dr_image_alloc(sheet, GAP + (n < COLUMNS ? n : COLUMNS) * pitch, GAP + rows * pitch));
    for (int i = 0; i < n; i++) {
        size_t left = (size_t)(GAP + i % COLUMNS * pitch);
        size_t top = (size_t)(GAP + i / COLUMNS * pitch);
        size_t bytes = (size_t)cells[i].width * 3;
        for (int y = 0; y < cells[i].height; y++) {
            memcpy(sheet->pixels + ((top + (size_t)y) * (size_t)sheet->width + left) * 3,
                   cells[i].pixels + (size_t)y * bytes, bytes);
        }
    }
    return DR_OK;
}

static dr_status write_page(const dr_debug_view *v, const char *path, const char *png,
                            const dr_str *texts, int n)
{
    char *data = NULL;
    size_t size = 0;
    dr_str page = {0};
    DR_TRY(dr_file_read(png, MAX_PAGE_BYTES, &data, &size));
    dr_str_printf(
        &page,
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Dataset</title>\n"
        "<style>body{font:14px sans-serif;background:#222;color:#ddd}"
        "figure{display:inline-block;vertical-align:top;margin:8px;width:%dpx}"
        "figcaption{overflow-wrap:anywhere}"
        "i{display:block;width:%dpx;height:%dpx;background:url(data:image/png;base64,",
        SIDE, SIDE, SIDE);
    dr_str_add_base64(&page, data, size);
    free(data);
    dr_str_printf(&page, ")}</style>\n<h1>Samples 1 to %d of %lu of the first epoch</h1>\n", n,
                  (unsigned long)v->plan->n_samples);
    for (int i = 0; i < n; i++) {
        dr_str_printf(&page,
                      "<figure><i style=\"background-position:-%dpx -%dpx\"></i><figcaption>%d. ",
                      GAP + i % COLUMNS * (SIDE + GAP), GAP + i / COLUMNS * (SIDE + GAP), i + 1);
        add_escaped(&page, dr_str_get(&texts[i]));
        dr_str_add(&page, "</figcaption></figure>\n");
    }
    dr_str_add(&page, "</html>\n");
    dr_status st = dr_file_write(path, page.data, page.len);
    dr_str_free(&page);
    return st;
}

static char *output_path(const dr_debug_view *v, const char *ending)
{
    dr_str name = {0};
    dr_str_printf(&name, "%s-dataset.%s", v->c->save.name != NULL ? v->c->save.name : "last",
                  ending);
    char *path = dr_path_join(v->c->output_dir, dr_str_get(&name));
    dr_str_free(&name);
    return path;
}

static dr_status write_all(const dr_debug_view *v, const dr_image *cells, const dr_str *texts,
                           int n)
{
    dr_image sheet = {0};
    char *png = output_path(v, "png");
    char *html = output_path(v, "html");
    dr_status st = make_sheet(cells, n, &sheet);
    if (st == DR_OK) {
        st = dr_mkdirs(v->c->output_dir);
    }
    if (st == DR_OK) {
        st = dr_png_write(png, &sheet, NULL, 0);
    }
    if (st == DR_OK) {
        st = write_page(v, html, png, texts, n);
    }
    if (st == DR_OK) {
        dr_info("no terminal: wrote the first %d of %lu samples of epoch 1 to %s and %s", n,
                (unsigned long)v->plan->n_samples, png, html);
    }
    dr_image_free(&sheet);
    free(png);
    free(html);
    return st;
}

dr_status dr_debug_sheet(const dr_debug_view *v)
{
    int n = v->plan->n_samples < MAX_SAMPLES ? (int)v->plan->n_samples : MAX_SAMPLES;
    dr_image *cells = dr_xcalloc((size_t)n, sizeof *cells);
    dr_str *texts = dr_xcalloc((size_t)n, sizeof *texts);
    dr_status st = DR_OK;
    for (int i = 0; st == DR_OK && i < n; i++) {
        st = make_cell(v, (uint32_t)i, &cells[i], &texts[i]);
    }
    if (st == DR_OK) {
        st = write_all(v, cells, texts, n);
    }
    for (int i = 0; i < n; i++) {
        dr_image_free(&cells[i]);
        dr_str_free(&texts[i]);
    }
    free(cells);
    free(texts);
    return st;
}
