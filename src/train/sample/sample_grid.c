#include "train/sample/sample_grid.h"

#include "base/arena.h"
#include "base/file.h"
#include "image/png_write.h"
#include "image/resize.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 24, CELL = 256, PAD = 2 };

typedef struct cell { /* a picture's file */
    int64_t number;
    size_t column;
    const char *name; /* of the list of names */
    char time[16];
} cell;

typedef struct table {
    cell *at;
    size_t n;
    int64_t rows[MAX_ROWS]; /* their numbers */
    size_t n_rows;
} table;

/* Whether a file is a picture of this run, and where it stands. */
static bool take(const dr_sample_grid *g, const char *name, cell *out)
{
    dr_sample_name_parts parts;
    if (!dr_sample_name_parse(g->output_name, name, &parts)) {
        return false;
    }
    const bool other_kind = parts.at_epoch != g->last.at_epoch && parts.number != 0;
    if (other_kind || parts.number > g->last.number || parts.index >= (int64_t)g->n_prompts ||
        (g->since != NULL && strcmp(parts.time, g->since) < 0)) {
        return false;
    }
    *out = (cell){.number = parts.number, .column = (size_t)parts.index, .name = name};
    memcpy(out->time, parts.time, sizeof out->time);
    return true;
}

/* By row, then column, the newest file of a place first. */
static int compare(const void *a, const void *b)
{
    const cell *x = a;
    const cell *y = b;
    if (x->number != y->number) {
        return x->number < y->number ? -1 : 1;
    }
    if (x->column != y->column) {
        return x->column < y->column ? -1 : 1;
    }
    return strcmp(y->time, x->time);
}

static void choose_rows(table *t)
{
    int64_t *all = dr_xcalloc(t->n, sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (n == 0 || all[n - 1] != t->at[i].number) {
            all[n++] = t->at[i].number;
        }
    }
    t->n_rows = n < MAX_ROWS ? n : MAX_ROWS;
    for (size_t i = 0; i < t->n_rows; i++) {
        t->rows[i] = all[n <= MAX_ROWS ? i : i * (n - 1) / (MAX_ROWS - 1)];
    }
    free(all);
}

static const cell *find(const table *t, int64_t number, size_t column)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->at[i].number == number && t->at[i].column == column) {
            return &t->at[i];
        }
    }
    return NULL;
}

/* The picture, shrunk; black where there is none. */
static dr_status load_cell(const dr_sample_grid *g, const cell *c, dr_image *out)
{
    if (c == NULL) {
        return dr_image_alloc(out, 1, 1);
    }
    dr_image whole = {0};
    char *path = dr_path_join(g->dir, c->name);
    dr_status st = dr_image_load(path, NULL, &whole);
    free(path);
    DR_TRY(st);
    const int longer = whole.width > whole.height ? whole.width : whole.height;
    const int most = longer < CELL ? longer : CELL;
    const int w = whole.width * most / longer;
    const int h = whole.height * most / longer;
    st = dr_image_resize(&whole, w > 0 ? w : 1, h > 0 ? h : 1, DR_RESIZE_AREA, out);
    dr_image_free(&whole);
    return st;
}

static dr_status write_grid(const dr_sample_grid *g, const table *t, const dr_image *cells)
{
    dr_str name = {0};
    dr_str rows = {0};
    dr_image grid = {0};
    dr_str_printf(&name, "%s%sgrid.png", g->output_name != NULL ? g->output_name : "",
                  g->output_name != NULL ? "_" : "");
    dr_str_printf(&rows, "rows: after %s", g->last.at_epoch ? "epochs" : "steps");
    for (size_t i = 0; i < t->n_rows; i++) {
        dr_str_printf(&rows, "%s %lld", i > 0 ? "," : "", (long long)t->rows[i]);
    }
    char *path = dr_path_join(g->dir, dr_str_get(&name));
    const dr_png_text text = {"Comment", dr_str_get(&rows)};
    dr_status st =
        dr_image_grid(cells, (int)(t->n_rows * g->n_prompts), (int)g->n_prompts, PAD, &grid);
    if (st == DR_OK) {
        st = dr_png_write(path, &grid, &text, 1);
    }
    dr_image_free(&grid);
    free(path);
    dr_str_free(&rows);
    dr_str_free(&name);
    return st;
}

static dr_status fill_and_write(const dr_sample_grid *g, table *t)
{
    if (t->n == 0) {
        return DR_OK;
    }
    qsort(t->at, t->n, sizeof *t->at, compare);
    choose_rows(t);
    const size_t n = t->n_rows * g->n_prompts;
    dr_image *cells = dr_xcalloc(n, sizeof *cells);
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < n; i++) {
        st = load_cell(g, find(t, t->rows[i / g->n_prompts], i % g->n_prompts), &cells[i]);
    }
    if (st == DR_OK) {
        st = write_grid(g, t, cells);
    }
    for (size_t i = 0; i < n; i++) {
        dr_image_free(&cells[i]);
    }
    free(cells);
    return st;
}

dr_status dr_sample_grid_write(const dr_sample_grid *g)
{
    dr_strv names = {0};
    table t = {0};
    dr_status st = dr_list_dir(g->dir, &names);
    if (st == DR_OK) {
        t.at = dr_xcalloc(names.n + 1, sizeof *t.at);
        for (size_t i = 0; i < names.n; i++) {
            t.n += take(g, names.at[i], &t.at[t.n]) ? 1 : 0;
        }
        st = fill_and_write(g, &t);
    }
    free(t.at);
    dr_strv_free(&names);
    return st;
}
