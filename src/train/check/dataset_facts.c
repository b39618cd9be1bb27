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

/* ---- folders
 * ------------------------------------------------------------------------------------- */

enum { REG = 1, NOT_REG = 2 };

typedef struct listing { /* which subsets */
    const dr_dataset *d;
    uint32_t part;  /* UINT32_MAX: of all datasets */
    unsigned which; /* REG, NOT_REG */
} listing;

static bool is_listed(const listing *l, uint32_t i)
{
    const dr_subset *u = &l->d->subsets[i];
    return ((u->is_reg ? REG : NOT_REG) & l->which) != 0 && !u->is_validation &&
           (l->part == UINT32_MAX || u->part == l->part);
}

static bool same_name(const dr_dataset *d, uint32_t i, uint32_t k)
{
    return strcmp(dr_path_base(d->subsets[i].dir), dr_path_base(d->subsets[k].dir)) == 0;
}

/* Listed subsets of that folder's name before it. */
static int n_before(const listing *l, uint32_t subset)
{
    int n = 0;
    for (uint32_t i = 0; i < subset; i++) {
        n += is_listed(l, i) && same_name(l->d, i, subset);
    }
    return n;
}

/* {"tag": n, ...} of the captions in the dataset's folders of that name. */
static void add_tags(const listing *l, uint32_t subset, dr_arena *arena, dr_str *s)
{
    const dr_dataset *d = l->d;
    tags t = {0};
    for (size_t i = 0; i < d->n_images; i++) {
        const uint32_t own = d->images[i].subset;
        const char *caption = d->images[i].caption;
        const bool counts = is_listed(l, own) && same_name(d, own, subset) &&
                            d->subsets[own].part == d->subsets[subset].part;
        for (size_t n; counts && *caption != '\0'; caption += n) {
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

/* {"folder": {"tag": n, ...}, ...}: a name that several datasets have is counted in the first. */
static void add_tag_folders(const listing *l, dr_arena *arena, dr_str *s)
{
    const char *between = "{";
    for (uint32_t i = 0; i < l->d->n_subsets; i++) {
        if (is_listed(l, i) && n_before(l, i) == 0) {
            dr_str_add(s, between);
            dr_json_add_ascii(s, dr_path_base(l->d->subsets[i].dir));
            dr_str_add(s, ": ");
            add_tags(l, i, arena, s);
            between = ", ";
        }
    }
    dr_str_add(s, between[0] == '{' ? "{}" : "}");
}

/* {"folder": counts, ...}; as sd-scripts, a name that an earlier folder has gets " (2)". */
static void add_count_folders(const listing *l, dr_str *s)
{
    const char *between = "{";
    for (uint32_t i = 0; i < l->d->n_subsets; i++) {
        const dr_subset *u = &l->d->subsets[i];
        const int before = n_before(l, i);
        dr_str name = {0};
        if (!is_listed(l, i)) {
            continue;
        }
        dr_str_add(&name, dr_path_base(u->dir));
        if (before > 0) {
            dr_str_printf(&name, " (%d)", before + 1);
        }
        dr_str_add(s, between);
        dr_json_add_ascii(s, dr_str_get(&name));
        dr_str_printf(s, ": {\"n_repeats\": %lld, \"img_count\": %zu}", (long long)u->repeats,
                      u->n_images);
        dr_str_free(&name);
        between = ", ";
    }
    dr_str_add(s, between[0] == '{' ? "{}" : "}");
}

static dr_fact counts_fact(const dr_dataset *d, unsigned which, dr_arena *arena)
{
    dr_str s = {0};
    add_count_folders(&(listing){d, UINT32_MAX, which}, &s);
    const dr_fact fact = dr_fact_text(dr_arena_strdup(arena, dr_str_get(&s)));
    dr_str_free(&s);
    return fact;
}

static dr_fact tags_fact(const dr_dataset *d, dr_arena *arena)
{
    dr_str s = {0};
    add_tag_folders(&(listing){d, UINT32_MAX, REG | NOT_REG}, arena, &s);
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

/* "key": text, (NULL: null). */
static void add_text(const char *key, const char *text, dr_str *s)
{
    dr_str_printf(s, "\"%s\": ", key);
    if (text != NULL) {
        dr_json_add_ascii(s, text);
    } else {
        dr_str_add(s, "null");
    }
    dr_str_add(s, ", ");
}

/* Of a subset's pictures; NULL: as their sizes ask for it. */
static const char *resizing_of(const dr_dataset *d, uint32_t subset)
{
    for (size_t i = 0; i < d->n_images; i++) {
        const dr_picture_options *o = d->images[i].picture;
        if (d->images[i].subset == subset && o != NULL && o->resizing != DR_RESIZE_AUTO) {
            return dr_resize_filter_name(o->resizing);
        }
    }
    return NULL;
}

static void add_subset(const dr_dataset *d, uint32_t subset, dr_str *s)
{
    const dr_subset *u = &d->subsets[subset];
    const dr_subset_options *o = u->options;
    dr_str_printf(s,
                  "{\"img_count\": %zu, \"num_repeats\": %lld, \"color_aug\": %s, "
                  "\"flip_aug\": %s, \"random_crop\": %s, \"shuffle_caption\": %s, "
                  "\"keep_tokens\": %d, ",
                  u->n_images, (long long)u->repeats, json_bool(o->color_aug),
                  json_bool(o->flip_aug), json_bool(o->random_crop), json_bool(o->captions.shuffle),
                  (int)o->captions.keep_tokens);
    const dr_caption_options *c = &o->captions;
    add_text("keep_tokens_separator", c->keep_separator != NULL ? c->keep_separator : "", s);
    add_text("secondary_separator", c->secondary, s);
    dr_str_printf(s, "\"enable_wildcard\": %s, ", json_bool(c->wildcard));
    add_text("caption_prefix", c->prefix, s);
    add_text("caption_suffix", c->suffix, s);
    add_text("resize_interpolation", resizing_of(d, subset), s);
    dr_str_add(s, "\"image_dir\": ");
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
    add_tag_folders(&(listing){d, part, REG | NOT_REG}, arena, s);
    dr_str_add(s, ", \"bucket_info\": ");
    if (p->buckets.enable) {
        add_bucket_info(d, part, s);
    } else {
        dr_str_add(s, "null");
    }
    const char *resizing = NULL;
    for (uint32_t i = 0; i < d->n_subsets && resizing == NULL; i++) {
        resizing = d->subsets[i].part == part ? resizing_of(d, i) : NULL;
    }
    dr_str_add(s, ", ");
    add_text("resize_interpolation", resizing, s);
    dr_str_add(s, "\"subsets\": [");
    const char *between = "";
    for (uint32_t i = 0; i < d->n_subsets; i++) {
        if (d->subsets[i].part == part && !d->subsets[i].is_validation) {
            dr_str_add(s, between);
            add_subset(d, i, s);
            between = ", ";
        }
    }
    dr_str_add(s, "]}");
}

void dr_dataset_facts(const dr_dataset *d, const dr_dataset_options *o, uint32_t batch_size,
                      dr_arena *arena, dr_ss_facts *out)
{
    dr_str s = {0};
    out->tag_frequency = tags_fact(d, arena);
    if (o->n_parts == 0) {
        out->dataset_dirs = counts_fact(d, NOT_REG, arena);
        out->reg_dataset_dirs = counts_fact(d, REG, arena);
        dr_dataset_bucket_info(d, &s);
        out->bucket_info = dr_fact_text(dr_arena_strdup(arena, dr_str_get(&s)));
    } else {
        out->dataset_dirs = counts_fact(d, NOT_REG, arena);
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
