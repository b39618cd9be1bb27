/*
 * A curve as SVG: the mean of what falls into each of a few hundred columns, the band from the
 * least to the largest behind it.
 */
#include "base/arena.h"
#include "train/report/report.h"

#include <math.h>
#include <stdlib.h>

enum { WIDTH = 640, HEIGHT = 200, LEFT = 70, RIGHT = 10, TOP = 10, BOTTOM = 24, COLUMNS = 280 };

typedef struct column {
    double sum, least, largest;
    size_t n;
} column;

typedef struct plot {
    column columns[COLUMNS];
    int64_t first, last; /* x */
    double least, largest;
    size_t n_finite;
} plot;

static void find_limits(const dr_log_series *s, plot *p)
{
    p->first = s->at[0].x;
    p->last = s->at[s->n - 1].x;
    p->least = INFINITY;
    p->largest = -INFINITY;
    for (size_t i = 0; i < s->n; i++) {
        if (isfinite(s->at[i].y)) {
            p->least = s->at[i].y < p->least ? s->at[i].y : p->least;
            p->largest = s->at[i].y > p->largest ? s->at[i].y : p->largest;
            p->n_finite++;
        }
    }
}

static void fill_columns(const dr_log_series *s, plot *p)
{
    const double span = (double)(p->last - p->first);
    for (size_t i = 0; i < s->n; i++) {
        const double y = s->at[i].y;
        if (!isfinite(y)) {
            continue;
        }
        const double share = (double)(s->at[i].x - p->first) / span;
        const int at = (int)(share * (COLUMNS - 1) + 0.5);
        column *c = &p->columns[at < 0 ? 0 : at >= COLUMNS ? COLUMNS - 1 : at];
        c->least = c->n == 0 || y < c->least ? y : c->least;
        c->largest = c->n == 0 || y > c->largest ? y : c->largest;
        c->sum += y;
        c->n++;
    }
}

static double place_x(int i)
{
    return LEFT + (double)i / (COLUMNS - 1) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const plot *p, double y)
{
    const double span = p->largest > p->least ? p->largest - p->least : 1.0;
    const double share = p->largest > p->least ? (y - p->least) / span : 0.5;
    return TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM);
}

static void add_label(dr_str *html, int x, double y, const char *anchor, double value)
{
    dr_str_printf(html, "<text x=\"%d\" y=\"%.0f\" text-anchor=\"%s\">%.4g</text>\n", x, y, anchor,
                  value);
}

static void add_line(dr_str *html, const plot *p)
{
    dr_str_add(html, "<polygon class=\"band\" points=\"");
    for (int i = 0; i < COLUMNS; i++) {
        if (p->columns[i].n > 0) {
            dr_str_printf(html, "%.1f,%.1f ", place_x(i), place_y(p, p->columns[i].largest));
        }
    }
    for (int i = COLUMNS - 1; i >= 0; i--) {
        if (p->columns[i].n > 0) {
            dr_str_printf(html, "%.1f,%.1f ", place_x(i), place_y(p, p->columns[i].least));
        }
    }
    dr_str_add(html, "\"/>\n<polyline class=\"line\" points=\"");
    for (int i = 0; i < COLUMNS; i++) {
        const column *c = &p->columns[i];
        if (c->n > 0) {
            dr_str_printf(html, "%.1f,%.1f ", place_x(i), place_y(p, c->sum / (double)c->n));
        }
    }
    dr_str_add(html, "\"/>\n");
}

void dr_report_add_curve(dr_str *html, const dr_log_series *s)
{
    if (s->n < 2 || s->at[0].x >= s->at[s->n - 1].x) {
        return;
    }
    plot *p = dr_xcalloc(1, sizeof *p);
    find_limits(s, p);
    if (p->n_finite > 0) {
        fill_columns(s, p);
        dr_str_add(html, "<figure><figcaption>");
        dr_report_add_text(html, s->tag);
        dr_str_printf(html, " by %s; last %.6g</figcaption>\n", s->of_epochs ? "epoch" : "step",
                      s->at[s->n - 1].y);
        dr_str_printf(html, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\">\n", WIDTH,
                      HEIGHT, WIDTH);
        dr_str_printf(html, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n", LEFT, TOP,
                      WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        add_label(html, LEFT - 4, place_y(p, p->largest) + 4.0, "end", p->largest);
        if (p->largest > p->least) {
            add_label(html, LEFT - 4, place_y(p, p->least) + 4.0, "end", p->least);
        }
        add_label(html, LEFT, HEIGHT - 8, "start", (double)p->first);
        add_label(html, WIDTH - RIGHT, HEIGHT - 8, "end", (double)p->last);
        add_line(html, p);
        dr_str_add(html, "</svg></figure>\n");
    }
    free(p);
}
