#include "train/report/report.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

static const char head[] = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                           "<meta name=\"viewport\" content=\"width=device-width\">\n<title>";
static const char style[] =
    "</title>\n<style>\n"
    ":root{color-scheme:light dark}\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1320px;margin:2em auto;padding:0 1em}\n"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.1em 1em .1em 0}\n"
    "th{font-weight:600}td{font-family:monospace}pre{overflow:auto}\n"
    "figure{display:inline-block;margin:.5em 1em .5em 0;vertical-align:top}\n"
    "figcaption{font-size:13px}svg{max-width:100%;height:auto}\n"
    "svg rect{fill:none;stroke:#8888}svg text{font-size:11px;fill:currentColor}\n"
    ".band{fill:#3b82f633;stroke:none}.line{fill:none;stroke:#3b82f6;stroke-width:1.5}\n"
    "img{max-width:300px;height:auto}.given td,.given th{font-weight:700}\n"
    "</style></head><body>\n";

void dr_report_add_text(dr_str *html, const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        switch (*c) {
        case '<':
            dr_str_add(html, "&lt;");
            break;
        case '>':
            dr_str_add(html, "&gt;");
            break;
        case '&':
            dr_str_add(html, "&amp;");
            break;
        case '"':
            dr_str_add(html, "&quot;");
            break;
        default:
            dr_str_add_n(html, c, 1);
            break;
        }
    }
}

static void add_heading(dr_str *html, const char *text)
{
    dr_str_printf(html, "<h2>%s</h2>\n", text);
}

static void add_table(dr_str *html, const dr_report_fact *facts, size_t n)
{
    dr_str_add(html, "<table>\n");
    for (size_t i = 0; i < n; i++) {
        dr_str_printf(html, "<tr%s><th>", facts[i].given ? " class=\"given\"" : "");
        dr_report_add_text(html, facts[i].name);
        dr_str_add(html, "</th><td>");
        dr_report_add_text(html, facts[i].value);
        dr_str_add(html, "</td></tr>\n");
    }
    dr_str_add(html, "</table>\n");
}

/* ---- curves -------------------------------------------------------------------------------- */

/* What people look for comes first. */
static const char *const groups[] = {"loss", "lr/", "norm/", "fp16/", "perf/", "data/", "mem/"};
enum { N_GROUPS = (int)(sizeof groups / sizeof *groups) };

static int group_of(const char *tag)
{
    for (int i = 0; i < N_GROUPS; i++) {
        if (dr_str_starts(tag, groups[i])) {
            return i;
        }
    }
    return N_GROUPS;
}

static void add_curves(dr_str *html, const dr_run_log *log)
{
    add_heading(html, "Curves");
    for (int group = 0; group <= N_GROUPS; group++) {
        for (size_t i = 0; i < dr_run_log_n_series(log); i++) {
            const dr_log_series *s = dr_run_log_series(log, i);
            if (group_of(s->tag) == group) {
                dr_report_add_curve(html, s);
            }
        }
    }
}

/* ---- sample pictures ----------------------------------------------------------------------- */

enum { MOST_PICTURES = 48, MOST_PICTURE_BYTES = 8 << 20 };

static void add_picture(dr_str *html, const char *dir, const char *name)
{
    char *path = dr_path_join(dir, name);
    char *data = NULL;
    size_t n = 0;
    if (dr_file_read(path, MOST_PICTURE_BYTES, &data, &n) == DR_OK) {
        dr_str_add(html, "<figure><img alt=\"\" src=\"data:image/png;base64,");
        dr_str_add_base64(html, data, n);
        dr_str_add(html, "\"><figcaption>");
        dr_report_add_text(html, name);
        dr_str_add(html, "</figcaption></figure>\n");
        free(data);
    } else { /* too large, or gone: its name stands for it */
        dr_error_clear();
        dr_str_add(html, "<p>");
        dr_report_add_text(html, path);
        dr_str_add(html, "</p>\n");
    }
    free(path);
}

/* The newest by name, which begins with the model's and goes on with the step or epoch. */
static void add_samples(dr_str *html, const char *dir)
{
    dr_strv names = {0};
    dr_strv pictures = {0};
    if (dir == NULL || !dr_path_is_dir(dir) || dr_list_dir(dir, &names) != DR_OK) {
        dr_error_clear();
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        if (dr_str_ends(names.at[i], ".png")) {
            dr_strv_push(&pictures, names.at[i]);
        }
    }
    const size_t first = pictures.n > MOST_PICTURES ? pictures.n - MOST_PICTURES : 0;
    if (pictures.n > 0) {
        add_heading(html, "Sample pictures");
    }
    if (first > 0) {
        dr_str_printf(html, "<p>The last %d of %zu by name.</p>\n", (int)MOST_PICTURES, pictures.n);
    }
    for (size_t i = first; i < pictures.n; i++) {
        add_picture(html, dir, pictures.at[i]);
    }
    dr_strv_free(&names);
    dr_strv_free(&pictures);
}

/* ---- the page ------------------------------------------------------------------------------ */

static void add_warnings(dr_str *html, const dr_strv *warnings)
{
    add_heading(html, "Warnings");
    if (warnings->n == 0) {
        dr_str_add(html, "<p>None.</p>\n");
        return;
    }
    dr_str_add(html, "<ul>\n");
    for (size_t i = 0; i < warnings->n; i++) {
        dr_str_add(html, "<li><pre>");
        dr_report_add_text(html, warnings->at[i]);
        dr_str_add(html, "</pre></li>\n");
    }
    dr_str_add(html, "</ul>\n");
}

dr_status dr_report_write(const dr_report *r, const char *path)
{
    dr_str html = {0};
    dr_str_add(&html, head);
    dr_report_add_text(&html, r->title);
    dr_str_add(&html, style);
    dr_str_add(&html, "<h1>");
    dr_report_add_text(&html, r->title);
    dr_str_add(&html, "</h1>\n<p>");
    dr_report_add_text(&html, r->state);
    dr_str_add(&html, "</p>\n");
    add_table(&html, r->facts, r->n_facts);
    add_warnings(&html, r->warnings);
    add_curves(&html, r->log);
    add_samples(&html, r->sample_dir);
    add_heading(&html, "Dataset");
    dr_str_add(&html, "<pre>");
    dr_report_add_text(&html, r->dataset);
    dr_str_add(&html, "</pre>\n");
    add_heading(&html, "Options");
    dr_str_add(&html, "<p>Bold: given; the others are at their defaults.</p>\n");
    add_table(&html, r->options, r->n_options);
    dr_str_add(&html, "</body></html>\n");
    const dr_status st = dr_file_write(path, html.data, html.len);
    dr_str_free(&html);
    return st;
}
