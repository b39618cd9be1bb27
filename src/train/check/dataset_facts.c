#include "train/check/dataset_facts.h"

#include "base/file.h"
#include "io/json.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON --------------------------------------------------------------------------------------
 */

static void add_escape(dr_str *s, uint32_t c)
{
    if (c >= 0x10000) {
        c -= 0x10000;
        dr_str_printf(s, "\\u%04x\\u%04x", (unsigned)(0xD800 + (c >> 10)),
                      (unsigned)(0xDC00 + (c & 0x3FF)));
    } else {
        dr_str_printf(s, "\\u%04x", (unsigned)c);
    }
}

/* One code point of text, which is valid UTF-8 up to its end; its length. */
static size_t next_codepoint(const unsigned char *p, uint32_t *c)
{
    const size_t n = *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    *c = *p & (0xFFU >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        *c = *c << 6 | (p[i] & 0x3F);
    }
    return n;
}

void dr_json_add_ascii(dr_str *s, const char *text)
{
    dr_str quoted = {0};
    const bool valid = dr_json_utf8_valid(text);
    dr_json_add_string(&quoted, text);
    for (const unsigned char *p = (const unsigned char *)dr_str_get(&quoted); *p != '\0';) {
        uint32_t c = 0xFFFD;
        size_t n = 1;
        if (*p < 0x80) {
            dr_str_add_n(s, (const char *)p, 1);
        } else {
            n = valid ? next_codepoint(p, &c) : 1;
            add_escape(s, c);
        }
        p += n;
    }
    dr_str_free(&quoted);
}

/* ---- tags --------------------------------------------------------------------------------------
 */

typedef struct tag {
    const char *text; /* in lower case */
    int64_t n;
} tag;

typedef struct tags { /* in the order of their first appearance */
    tag *at;
    size_t n, cap;
} tags;

static void count_tag(tags *t, dr_arena *arena, const char *text, size_t n)
{
    while (n > 0 && isspace((unsigned char)*text)) {
        text++;
        n--;
    }
    while (n > 0 && isspace((unsigned char)text[n - 1])) {
        n--;
    }
    if (n == 0) {
        return;
    }
    char *lower = dr_arena_strndup(arena, text, n);
    for (char *c = lower; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c); /* of ASCII: a capital beyond it stays */
    }
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->at[i].text, lower) == 0) {
            t->at[i].n++;
            return;
        }
    }
    if (t->n == t->cap) {
        t->cap = t->cap > 0 ? 2 * t->cap : 64;
        t->at = dr_xrealloc(t->at, t->cap, sizeof *t->at);
    }
    t->at[t->n++] = (tag){lower, 1};
}

/* {"tag": n, ...} of the captions of a subset's pictures. */
static void add_tags(const dr_dataset *d, uint32_t subset, dr_arena *arena, dr_str *s)
{
    tags t = {0};
    for (size_t i = 0; i < d->n_images; i++) {
        const char *caption = d->images[i].caption;
        for (size_t n; d->images[i].subset == subset && *caption != '\0'; caption += n) {
            n = strcspn(caption, ",");
            count_tag(&t, arena, caption, n);
            n += caption[n] == ',';
        }
    }
    dr_str_add(s, "{");
    for (size_t i = 0; i < t.n; i++) {
        dr_str_add(s, i > 0 ? ", " : "");
        dr_json_add_ascii(s, t.at[i].text);
        dr_str_printf(s, ": %lld", (long long)t.at[i].n);
    }
    dr_str_add(s, "}");
    free(t.at);
}

/* ---- folders
 * ------------------------------------------------------------------------------------- */

typedef void (*describe)(const dr_dataset *d, uint32_t subset, dr_arena *arena, dr_str *s);

static void add_counts(const dr_dataset *d, uint32_t subset, dr_arena *arena, dr_str *s)
{
    (void)arena;
    dr_str_printf(s, "{\"n_repeats\": %lld, \"img_count\": %zu}",
                  (long long)d->subsets[subset].repeats, d->subsets[subset].n_images);
}

/* Name of a folder; as sd-scripts, one that an earlier folder has gets " (2)". */
static void add_folder_name(const dr_dataset *d, uint32_t subset, dr_str *s)
{
    int before = 0;
    const char *name = dr_path_base(d->subsets[subset].dir);
    for (uint32_t i = 0; i < subset; i++) {
        before += strcmp(dr_path_base(d->subsets[i].dir), name) == 0;
    }
    dr_str text = {0};
    dr_str_add(&text, name);
    if (before > 0) {
        dr_str_printf(&text, " (%d)", before + 1);
    }
    dr_json_add_ascii(s, dr_str_get(&text));
    dr_str_free(&text);
}

enum { REG = 1, NOT_REG = 2 };

/* {"folder": ..., ...} of those folders of the part (UINT32_MAX: all). */
static void add_folders(const dr_dataset *d, uint32_t part, unsigned which, describe f,
                        dr_arena *arena, dr_str *s)
{
    const char *between = "";
    dr_str_add(s, "{");
    for (uint32_t i = 0; i < d->n_subsets; i++) {
        const dr_subset *subset = &d->subsets[i];
        if (((subset->is_reg ? REG : NOT_REG) & which) == 0 || subset->is_validation ||
            (part != UINT32_MAX && subset->part != part)) {
            continue;
        }
        dr_str_add(s, between);
        add_folder_name(d, i, s);
        dr_str_add(s, ": ");
        f(d, i, arena, s);
        between = ", ";
    }
    dr_str_add(s, "}");
}

static dr_fact folders_fact(const dr_dataset *d, unsigned which, describe f, dr_arena *arena)
{
    dr_str s = {0};
    add_folders(d, UINT32_MAX, which, f, arena, &s);
    const dr_fact fact = dr_fact_text(dr_arena_strdup(arena, dr_str_get(&s)));
    dr_str_free(&s);
    return fact;
}

/* ---- datasets of a file
 * ---------------------------------------------------------------------------- */

static const char *json_bool(bool v)
{
    return v ? "true" : "false";
}

static void add_subset(const dr_subset *u, dr_str *s)
{
    const dr_subset_options *o = u->options;
    dr_str_printf(s,
                  "{\"img_count\": %zu, \"num_repeats\": %lld, \"color_aug\": %s, "
                  "\"flip_aug\": %s, \"random_crop\": %s, \"shuffle_caption\": %s, "
                  "\"keep_tokens\": %d, \"image_dir\": ",
                  u->n_images, (long long)u->repeats, json_bool(o->color_aug),
                  json_bool(o->flip_aug), json_bool(o->random_crop), json_bool(o->captions.shuffle),
                  (int)o->captions.keep_tokens);
    dr_json_add_ascii(s, dr_path_base(u->dir));
    dr_str_add(s, ", \"class_tokens\": ");
    if (u->class_tokens != NULL) {
        dr_json_add_ascii(s, u->class_tokens);
    } else {
        dr_str_add(s, "null");
    }
    dr_str_printf(s, ", \"is_reg\": %s}", json_bool(u->is_reg));
}

static void add_bucket_info(const dr_dataset *d, uint32_t part, dr_str *s)
{
    size_t n = 0;
    dr_str_add(s, "{\"buckets\": {");
    for (size_t i = 0; i < d->n_buckets; i++) {
        const dr_bucket *b = &d->buckets[i];
        if (b->part == part) {
            dr_str_printf(s, "%s\"%zu\": {\"resolution\": [%d, %d], \"count\": %lu}",
                          n > 0 ? ", " : "", n, b->size.w, b->size.h, (unsigned long)b->n_samples);
            n++;
        }
    }
    char number[32];
    dr_float_repr(d->mean_aspect_error, number);
    dr_str_printf(s, "}, \"mean_img_ar_error\": %s}", number);
}

static void add_part(const dr_dataset *d, const dr_dataset_part *p, uint32_t part,
                     uint32_t batch_size, dr_arena *arena, dr_str *s)
{
    int64_t n[2] = {0, 0};
    for (size_t i = 0; i < d->n_subsets; i++) {
        const dr_subset *u = &d->subsets[i];
        n[u->is_reg] +=
            u->part == part && !u->is_validation ? u->repeats * (int64_t)u->n_images : 0;
    }
    dr_str_printf(
        s,
        "{\"is_dreambooth\": true, \"batch_size_per_device\": %u, \"num_train_images\": "
        "%lld, \"num_reg_images\": %lld, \"resolution\": [%d, %d], \"enable_bucket\": %s, ",
        p->batch_size > 0 ? p->batch_size : batch_size, (long long)n[0], (long long)n[1],
        (int)p->buckets.resolution.w, (int)p->buckets.resolution.h, json_bool(p->buckets.enable));
    if (p->buckets.enable) {
        dr_str_printf(s, "\"min_bucket_reso\": %d, \"max_bucket_reso\": %d, ",
                      (int)p->buckets.min_px, (int)p->buckets.max_px);
    } else {
        dr_str_add(s, "\"min_bucket_reso\": null, \"max_bucket_reso\": null, ");
    }
    dr_str_add(s, "\"tag_frequency\": ");
    add_folders(d, part, REG | NOT_REG, add_tags, arena, s);
    dr_str_add(s, ", \"bucket_info\": ");
    if (p->buckets.enable) {
        add_bucket_info(d, part, s);
    } else {
        dr_str_add(s, "null");
    }
    dr_str_add(s, ", \"subsets\": [");
    const char *between = "";
    for (size_t i = 0; i < d->n_subsets; i++) {
        if (d->subsets[i].part == part && !d->subsets[i].is_validation) {
            dr_str_add(s, between);
            add_subset(&d->subsets[i], s);
            between = ", ";
        }
    }
    dr_str_add(s, "]}");
}

void dr_dataset_facts(const dr_dataset *d, const dr_dataset_options *o, uint32_t batch_size,
                      dr_arena *arena, dr_ss_facts *out)
{
    dr_str s = {0};
    out->tag_frequency = folders_fact(d, REG | NOT_REG, add_tags, arena);
    if (o->n_parts == 0) {
        out->dataset_dirs = folders_fact(d, NOT_REG, add_counts, arena);
        out->reg_dataset_dirs = folders_fact(d, REG, add_counts, arena);
        dr_dataset_bucket_info(d, &s);
        out->bucket_info = dr_fact_text(dr_arena_strdup(arena, dr_str_get(&s)));
    } else {
        out->dataset_dirs = folders_fact(d, REG | NOT_REG, add_counts, arena);
        dr_str_add(&s, "[");
        for (uint32_t i = 0; i < o->n_parts; i++) {
            dr_str_add(&s, i > 0 ? ", " : "");
            add_part(d, &o->parts[i], i, batch_size, arena, &s);
        }
        dr_str_add(&s, "]");
        out->datasets = dr_fact_text(dr_arena_strdup(arena, dr_str_get(&s)));
    }
    dr_str_free(&s);
}
