#include "data/dataset_config.h"

#include "base/log.h"
#include "io/config_doc.h"

#include <stdlib.h>
#include <string.h>

enum { GENERAL = 1, DATASET = 2, SUBSET = 4 }; /* where a key may stand */
enum { ALL = GENERAL | DATASET | SUBSET, UPPER = GENERAL | DATASET };

typedef enum key_type {
    KEY_BOOL,
    KEY_INT,
    KEY_NUMBER,
    KEY_STRING,
    KEY_SIZE,  /* a whole number, or a list of two */
    KEY_RANGE, /* a list of two numbers */
    KEY_TABLE  /* kept as it is */
} key_type;

typedef struct settings { /* of one subset, after inheritance; of a dataset, before its subsets */
    int64_t batch_size, min_bucket_reso, max_bucket_reso, bucket_reso_steps;
    bool enable_bucket, bucket_no_upscale;
    int64_t resolution[2];
    double network_multiplier, validation_split;
    int64_t validation_seed;
    const char *resize_interpolation;
    bool color_aug, flip_aug, random_crop, shuffle_caption, enable_wildcard;
    double face_crop_aug_range[2];
    int64_t num_repeats, keep_tokens, token_warmup_min, caption_dropout_every_n_epochs;
    double token_warmup_step, caption_dropout_rate, caption_tag_dropout_rate;
    const char *keep_tokens_separator, *secondary_separator, *caption_separator;
    const char *caption_prefix, *caption_suffix, *caption_extension, *class_tokens;
    const dr_config_value *custom_attributes;
    bool cache_info, is_reg, alpha_mask;
    const char *image_dir, *metadata_file, *conditioning_data_dir;
} settings;

typedef struct key {
    const char *name;
    key_type type;
    int levels;
    size_t offset;
    double least, most; /* of numbers */
} key;

#define ROW(name, type, levels, least, most)                                                       \
    {                                                                                              \
#name, type, levels, offsetof(settings, name), least, most                                 \
    }
#define MOST 2147483647.0

static const key keys[] = {
    ROW(batch_size, KEY_INT, UPPER, 1, MOST),
    ROW(min_bucket_reso, KEY_INT, UPPER, 1, MOST),
    ROW(max_bucket_reso, KEY_INT, UPPER, 1, MOST),
    ROW(bucket_reso_steps, KEY_INT, UPPER, 1, MOST),
    ROW(enable_bucket, KEY_BOOL, UPPER, 0, 0),
    ROW(bucket_no_upscale, KEY_BOOL, UPPER, 0, 0),
    ROW(resolution, KEY_SIZE, UPPER, 1, 65536),
    ROW(network_multiplier, KEY_NUMBER, UPPER, -MOST, MOST),
    ROW(validation_seed, KEY_INT, UPPER, 0, MOST),
    ROW(validation_split, KEY_NUMBER, UPPER, 0, 1),
    ROW(resize_interpolation, KEY_STRING, ALL, 0, 0),
    ROW(color_aug, KEY_BOOL, ALL, 0, 0),
    ROW(flip_aug, KEY_BOOL, ALL, 0, 0),
    ROW(random_crop, KEY_BOOL, ALL, 0, 0),
    ROW(shuffle_caption, KEY_BOOL, ALL, 0, 0),
    ROW(enable_wildcard, KEY_BOOL, ALL, 0, 0),
    ROW(face_crop_aug_range, KEY_RANGE, ALL, 0, MOST),
    ROW(num_repeats, KEY_INT, ALL, -MOST, MOST),
    ROW(keep_tokens, KEY_INT, ALL, 0, MOST),
    ROW(token_warmup_min, KEY_INT, ALL, 0, MOST),
    ROW(token_warmup_step, KEY_NUMBER, ALL, 0, MOST),
    ROW(keep_tokens_separator, KEY_STRING, ALL, 0, 0),
    ROW(secondary_separator, KEY_STRING, ALL, 0, 0),
    ROW(caption_separator, KEY_STRING, ALL, 0, 0),
    ROW(caption_prefix, KEY_STRING, ALL, 0, 0),
    ROW(caption_suffix, KEY_STRING, ALL, 0, 0),
    ROW(custom_attributes, KEY_TABLE, ALL, 0, 0),
    ROW(caption_dropout_rate, KEY_NUMBER, ALL, 0, 1),
    ROW(caption_tag_dropout_rate, KEY_NUMBER, ALL, 0, 1),
    ROW(caption_dropout_every_n_epochs, KEY_INT, ALL, 0, MOST),
    ROW(caption_extension, KEY_STRING, ALL, 0, 0),
    ROW(class_tokens, KEY_STRING, ALL, 0, 0),
    ROW(cache_info, KEY_BOOL, ALL, 0, 0),
    ROW(image_dir, KEY_STRING, SUBSET, 0, 0),
    ROW(is_reg, KEY_BOOL, SUBSET, 0, 0),
    ROW(alpha_mask, KEY_BOOL, SUBSET, 0, 0),
    ROW(metadata_file, KEY_STRING, SUBSET, 0, 0),
    ROW(conditioning_data_dir, KEY_STRING, SUBSET, 0, 0),
};
enum { N_KEYS = sizeof keys / sizeof *keys };

typedef struct reader {
    const dr_config_doc *doc;
    const dr_dataset_defaults *defaults;
    dr_arena *arena;
    dr_dataset_part *parts;
    size_t n_parts;
    dr_subset_spec *specs;
    size_t n_specs, cap_specs;
} reader;

/* --- messages --------------------------------------------------------------------------------- */

typedef struct scope { /* a table of the file, and its name in messages */
    const dr_config_value *table;
    int level;
    size_t dataset, subset;
} scope;

static void name_scope(const scope *s, dr_str *out)
{
    if (s->level == GENERAL) {
        dr_str_add(out, "general");
    } else {
        dr_str_printf(out, "datasets[%zu]", s->dataset);
    }
    if (s->level == SUBSET) {
        dr_str_printf(out, ".subsets[%zu]", s->subset);
    }
}

/* Puts the place in front of the record's message; m NULL: of the table. */
static dr_status place_error(const reader *r, const scope *s, const dr_config_member *m,
                             dr_status st)
{
    dr_str place = {0};
    dr_config_place(r->doc, m != NULL ? m->line : s->table->line,
                    m != NULL ? m->column : s->table->column, &place);
    dr_str_add(&place, ": ");
    name_scope(s, &place);
    if (m != NULL) {
        dr_str_printf(&place, ".%s", m->name);
    }
    (void)dr_error_prefix(st, "%s", dr_str_get(&place));
    dr_str_free(&place);
    return st;
}

#define PLACE(r, s, m, st, ...)                                                                    \
    place_error((r), (s), (m), dr_error_set((st), __FILE__, __LINE__, __VA_ARGS__))

static const char *nearest_key(const char *name, int level)
{
    const char *best = NULL;
    int limit = (int)strlen(name) / 3 + 1; /* a third of the letters may be wrong */
    for (size_t i = 0; i < N_KEYS; i++) {
        int distance = dr_edit_distance(keys[i].name, name);
        if ((keys[i].levels & level) != 0 && distance <= limit) {
            limit = distance - 1;
            best = keys[i].name;
        }
    }
    return best;
}

static dr_status refuse_key(const reader *r, const scope *s, const dr_config_member *m)
{
    static const char *const of_command_line[] = {
        "prior_loss_weight", "max_token_length", "debug_dataset", "masked_loss", "cache_latents",
        "weighted_captions", "train_data_dir",   "reg_data_dir",  "seed"};
    for (size_t i = 0; i < sizeof of_command_line / sizeof *of_command_line; i++) {
        if (strcmp(m->name, of_command_line[i]) == 0) {
            return PLACE(r, s, m, DR_INVALID,
                         "this is an option of the command line (--%s), not of a dataset file",
                         m->name);
        }
    }
    for (size_t i = 0; i < N_KEYS; i++) {
        if (strcmp(m->name, keys[i].name) == 0) {
            return PLACE(r, s, m, DR_INVALID, "this key stands %s",
                         keys[i].levels == SUBSET ? "in [[datasets.subsets]] only"
                                                  : "in [general] or [[datasets]] only");
        }
    }
    const char *near = strcmp(m->name, "train_batch_size") == 0  ? "batch_size"
                       : strcmp(m->name, "dataset_repeats") == 0 ? "num_repeats"
                                                                 : nearest_key(m->name, s->level);
    if (near != NULL) {
        return PLACE(r, s, m, DR_INVALID, "unknown key; did you mean %s?", near);
    }
    return PLACE(r, s, m, DR_INVALID, "unknown key");
}

static dr_status refuse_value(const reader *r, const scope *s, const dr_config_member *m,
                              const key *k)
{
    static const char *const expected[] = {
        "true or false",
        "a whole number",
        "a number",
        "text in quotes",
        "a whole number, or a list of two: [width, height]",
        "a list of two numbers: [least, most]",
        "a table",
    };
    return PLACE(r, s, m, DR_INVALID, "found %s, expected %s", dr_config_kind_name(m->value->kind),
                 expected[k->type]);
}

/* --- values ------------------------------------------------------------------------------------
 */

static bool is_number(const dr_config_value *v)
{
    return v->kind == DR_CONFIG_INT || v->kind == DR_CONFIG_REAL;
}

static bool in_range(const key *k, const dr_config_value *v)
{
    return v->f >= k->least && v->f <= k->most;
}

static dr_status refuse_range(const reader *r, const scope *s, const dr_config_member *m,
                              const key *k)
{
    return PLACE(r, s, m, DR_INVALID, "expected %.16g to %.16g", k->least, k->most);
}

/* Two numbers of a list, or one twice. */
static bool take_two(const dr_config_value *v, bool whole, const dr_config_value *out[2])
{
    bool list = v->kind == DR_CONFIG_LIST;
    if (list && v->n != 2) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        out[i] = list ? v->items[i] : v;
        if (whole ? out[i]->kind != DR_CONFIG_INT : !is_number(out[i])) {
            return false;
        }
    }
    return list || whole;
}

static dr_status take_pair(const reader *r, const scope *s, const dr_config_member *m, const key *k,
                           void *to)
{
    const dr_config_value *two[2];
    if (!take_two(m->value, k->type == KEY_SIZE, two)) {
        return refuse_value(r, s, m, k);
    }
    for (int i = 0; i < 2; i++) {
        if (!in_range(k, two[i])) {
            return refuse_range(r, s, m, k);
        }
        if (k->type == KEY_SIZE) {
            ((int64_t *)to)[i] = two[i]->i;
        } else {
            ((double *)to)[i] = two[i]->f;
        }
    }
    return DR_OK;
}

static dr_status take_value(const reader *r, const scope *s, const dr_config_member *m,
                            const key *k, settings *out)
{
    const dr_config_value *v = m->value;
    void *to = (char *)out + k->offset;
    bool fits = false;
    switch (k->type) {
    case KEY_SIZE:
    case KEY_RANGE:
        return take_pair(r, s, m, k, to);
    case KEY_BOOL:
        fits = v->kind == DR_CONFIG_BOOL;
        *(bool *)to = fits ? v->i != 0 : *(bool *)to;
        break;
    case KEY_INT:
        fits = v->kind == DR_CONFIG_INT;
        *(int64_t *)to = fits ? v->i : *(int64_t *)to;
        break;
    case KEY_NUMBER:
        fits = is_number(v);
        *(double *)to = fits ? v->f : *(double *)to;
        break;
    case KEY_STRING:
        fits = dr_config_is_plain(v);
        *(const char **)to = fits ? dr_arena_strdup(r->arena, v->text) : *(const char **)to;
        break;
    case KEY_TABLE:
        fits = v->kind == DR_CONFIG_TABLE;
        *(const dr_config_value **)to = fits ? v : *(const dr_config_value **)to;
        break;
    }
    if (!fits) {
        return refuse_value(r, s, m, k);
    }
    bool number = k->type == KEY_INT || k->type == KEY_NUMBER;
    return number && !in_range(k, v) ? refuse_range(r, s, m, k) : DR_OK;
}

/* Every key of the table into out, over what stands there. */
static dr_status take_keys(const reader *r, const scope *s, settings *out)
{
    for (size_t i = 0; i < s->table->n; i++) {
        const dr_config_member *m = &s->table->members[i];
        if (s->level == DATASET && strcmp(m->name, "subsets") == 0) {
            continue;
        }
        const key *k = NULL;
        for (size_t j = 0; j < N_KEYS && k == NULL; j++) {
            if ((keys[j].levels & s->level) != 0 && strcmp(keys[j].name, m->name) == 0) {
                k = &keys[j];
            }
        }
        if (k == NULL) {
            return refuse_key(r, s, m);
        }
        if (m->value->kind != DR_CONFIG_NULL) { /* JSON's null never counts */
            DR_TRY(take_value(r, s, m, k, out));
        }
    }
    return DR_OK;
}

/* --- from keys to settings
 * ------------------------------------------------------------------------ */

static settings of_command_line(const dr_dataset_defaults *d)
{
    const dr_caption_options *c = &d->subset.captions;
    return (settings){
        .batch_size = d->batch_size,
        .min_bucket_reso = d->buckets.min_px,
        .max_bucket_reso = d->buckets.max_px,
        .bucket_reso_steps = d->buckets.step_px,
        .enable_bucket = d->buckets.enable,
        .bucket_no_upscale = d->buckets.no_upscale,
        .resolution = {d->buckets.resolution.w, d->buckets.resolution.h},
        .network_multiplier = 1.0,
        .flip_aug = d->subset.flip_aug,
        .conditioning_data_dir = d->subset.mask_dir,
        .alpha_mask = d->subset.alpha_mask,
        .cache_info = d->subset.cache_info,
        .color_aug = d->subset.color_aug,
        .random_crop = d->subset.random_crop,
        .face_crop_aug_range = {d->subset.face_least, d->subset.face_most},
        .shuffle_caption = c->shuffle,
        .enable_wildcard = c->wildcard,
        .num_repeats = d->repeats,
        .validation_split = d->validation_split,
        .validation_seed = d->validation_seed,
        .keep_tokens = c->keep_tokens,
        .token_warmup_min = c->warmup_min,
        .token_warmup_step = c->warmup_steps,
        .keep_tokens_separator = c->keep_separator,
        .secondary_separator = c->secondary,
        .caption_separator = c->separator,
        .caption_prefix = c->prefix,
        .caption_suffix = c->suffix,
        .caption_dropout_rate = c->dropout_rate,
        .caption_tag_dropout_rate = c->tag_dropout_rate,
        .caption_dropout_every_n_epochs = c->dropout_every_n_epochs,
        .caption_extension = d->subset.caption_extension,
    };
}

/* What a dataset file may say, and this program cannot do. */
static dr_status refuse_unbuilt(const reader *r, const scope *s, const settings *v)
{
    const struct {
        bool asked;
        const char *what;
    } rows[] = {
        {v->conditioning_data_dir != NULL && !r->defaults->masked_loss,
         "conditioning_data_dir without --masked_loss (ControlNet)"},
        {v->custom_attributes != NULL && v->custom_attributes->n > 0, "custom_attributes"},
        {v->network_multiplier < 1.0 || v->network_multiplier > 1.0, "network_multiplier"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].asked) {
            return PLACE(r, s, NULL, DR_UNSUPPORTED, "%s is not available yet", rows[i].what);
        }
    }
    return DR_OK;
}

static dr_status set_picture(const reader *r, const scope *s, const settings *v,
                             dr_subset_options *o)
{
    o->picture = r->defaults->subset.picture;
    if (v->resize_interpolation == NULL) {
        return DR_OK;
    }
    dr_picture_options *own = dr_arena_alloc(r->arena, sizeof *own);
    *own = *o->picture;
    o->picture = own;
    if (!dr_resize_filter_parse(v->resize_interpolation, &own->resizing)) {
        return PLACE(
            r, s, NULL, DR_INVALID,
            "resize_interpolation '%s': expected lanczos, nearest, bilinear, bicubic, area "
            "or box",
            v->resize_interpolation);
    }
    return DR_OK;
}

static dr_status take_options(const reader *r, const scope *s, const settings *v,
                              const dr_subset_options **out)
{
    dr_subset_options *o = dr_arena_alloc(r->arena, sizeof *o);
    *o = (dr_subset_options){
        .captions = {.prefix = v->caption_prefix,
                     .suffix = v->caption_suffix,
                     .wildcard = v->enable_wildcard,
                     .shuffle = v->shuffle_caption,
                     .keep_tokens = (int32_t)v->keep_tokens,
                     .keep_separator = v->keep_tokens_separator,
                     .separator = v->caption_separator,
                     .secondary = v->secondary_separator,
                     .dropout_rate = v->caption_dropout_rate,
                     .dropout_every_n_epochs = (int32_t)v->caption_dropout_every_n_epochs,
                     .tag_dropout_rate = v->caption_tag_dropout_rate,
                     .warmup_min = (int32_t)v->token_warmup_min,
                     .warmup_steps = v->token_warmup_step},
        .caption_extension = v->caption_extension,
        .flip_aug = v->flip_aug,
        .mask_dir = v->conditioning_data_dir,
        .alpha_mask = v->alpha_mask,
        .cache_info = v->cache_info,
        .color_aug = v->color_aug,
        .random_crop = v->random_crop,
        .face_least = v->face_crop_aug_range[0],
        .face_most = v->face_crop_aug_range[1],
    };
    *out = o;
    if (o->face_least > o->face_most || (o->face_most > 0.0 && o->face_least <= 0.0)) {
        return PLACE(r, s, NULL, DR_INVALID,
                     "face_crop_aug_range: expected two numbers above 0, the lesser first");
    }
    DR_TRY(refuse_unbuilt(r, s, v));
    DR_TRY(set_picture(r, s, v, o));
    dr_status st = dr_caption_options_validate(&o->captions);
    return st == DR_OK ? DR_OK : place_error(r, s, NULL, st);
}

static dr_subset_spec *add_spec(reader *r)
{
    if (r->n_specs == r->cap_specs) {
        size_t cap = r->cap_specs > 0 ? r->cap_specs * 2 : 16;
        dr_subset_spec *wider = dr_arena_array(r->arena, cap, sizeof *wider);
        if (r->n_specs > 0) {
            memcpy(wider, r->specs, r->n_specs * sizeof *wider);
        }
        r->specs = wider;
        r->cap_specs = cap;
    }
    return &r->specs[r->n_specs++];
}

static dr_status take_subset(reader *r, const scope *s, settings v)
{
    const dr_subset_options *options = NULL;
    DR_TRY(take_keys(r, s, &v));
    bool has_dir = v.image_dir != NULL && v.image_dir[0] != '\0';
    if (!has_dir && v.metadata_file == NULL) {
        return PLACE(r, s, NULL, DR_INVALID, "image_dir is missing: the folder with the pictures");
    }
    if (v.metadata_file != NULL && v.is_reg) {
        return PLACE(r, s, NULL, DR_INVALID,
                     "is_reg and metadata_file exclude each other: regularisation is for folders");
    }
    DR_TRY(take_options(r, s, &v, &options));
    if (v.num_repeats < 1) {
        dr_warn("%s: datasets[%zu].subsets[%zu]: ignored; num_repeats is %lld",
                dr_config_source(r->doc), s->dataset, s->subset, (long long)v.num_repeats);
        return DR_OK;
    }
    *add_spec(r) = (dr_subset_spec){.image_dir = has_dir ? v.image_dir : NULL,
                                    .metadata_file = v.metadata_file,
                                    .class_tokens = v.class_tokens,
                                    .repeats = v.num_repeats,
                                    .is_reg = v.is_reg,
                                    .part = (uint32_t)s->dataset,
                                    .options = options};
    return DR_OK;
}

/* --- the file's tables
 * ---------------------------------------------------------------------------- */

static dr_status check_list(const reader *r, const scope *s, const dr_config_member *m)
{
    bool good = m->value->kind == DR_CONFIG_LIST && m->value->n > 0;
    for (size_t i = 0; good && i < m->value->n; i++) {
        good = m->value->items[i]->kind == DR_CONFIG_TABLE;
    }
    if (good) {
        return DR_OK;
    }
    dr_str place = {0};
    dr_config_place(r->doc, m->line, m->column, &place);
    dr_status st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                                "%s: '%s' is a list of tables, each written [[%s%s]]",
                                dr_str_get(&place), m->name, s != NULL ? "datasets." : "", m->name);
    dr_str_free(&place);
    return st;
}

static dr_status take_part(const reader *r, const scope *s, const settings *v, dr_dataset_part *out)
{
    if (v->resolution[0] == 0) {
        return PLACE(r, s, NULL, DR_INVALID,
                     "resolution is missing: write it here, in [general], or give --resolution");
    }
    *out = (dr_dataset_part){
        .buckets = {.resolution = {(int32_t)v->resolution[0], (int32_t)v->resolution[1]},
                    .enable = v->enable_bucket,
                    .no_upscale = v->bucket_no_upscale,
                    .min_px = (int32_t)v->min_bucket_reso,
                    .max_px = (int32_t)v->max_bucket_reso,
                    .step_px = (int32_t)v->bucket_reso_steps},
        .batch_size = (uint32_t)v->batch_size,
        .validation_split = v->validation_split,
        .validation_seed = (uint64_t)v->validation_seed,
    };
    dr_status st = dr_bucket_options_validate(&out->buckets);
    return st == DR_OK ? DR_OK : place_error(r, s, NULL, st);
}

static dr_status take_dataset(reader *r, size_t i, const dr_config_value *table, settings v)
{
    scope s = {.table = table, .level = DATASET, .dataset = i};
    DR_TRY(take_keys(r, &s, &v));
    DR_TRY(take_part(r, &s, &v, &r->parts[i]));
    const dr_config_member *subsets = NULL;
    for (size_t k = 0; k < table->n; k++) {
        if (strcmp(table->members[k].name, "subsets") == 0) {
            subsets = &table->members[k];
        }
    }
    if (subsets == NULL) {
        return PLACE(r, &s, NULL, DR_INVALID,
                     "a dataset needs [[datasets.subsets]] with its folders");
    }
    DR_TRY(check_list(r, &s, subsets));
    s.level = SUBSET;
    for (s.subset = 0; s.subset < subsets->value->n; s.subset++) {
        s.table = subsets->value->items[s.subset];
        DR_TRY(take_subset(r, &s, v));
    }
    return DR_OK;
}

static dr_status refuse_table(const reader *r, const dr_config_member *m)
{
    dr_str place = {0};
    dr_config_place(r->doc, m->line, m->column, &place);
    dr_status st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                                "%s: '%s' has no place here; a dataset file holds [general] and "
                                "[[datasets]] with [[datasets.subsets]]",
                                dr_str_get(&place), m->name);
    dr_str_free(&place);
    return st;
}

static dr_status read_tables(reader *r)
{
    const dr_config_value *root = dr_config_root(r->doc);
    const dr_config_member *datasets = NULL;
    settings general = of_command_line(r->defaults);
    if (root->kind != DR_CONFIG_TABLE) {
        DR_FAIL(DR_INVALID, "%s: found %s, expected a table with [[datasets]]",
                dr_config_source(r->doc), dr_config_kind_name(root->kind));
    }
    for (size_t i = 0; i < root->n; i++) {
        const dr_config_member *m = &root->members[i];
        if (strcmp(m->name, "general") == 0 && m->value->kind == DR_CONFIG_TABLE) {
            DR_TRY(take_keys(r, &(scope){.table = m->value, .level = GENERAL}, &general));
        } else if (strcmp(m->name, "datasets") == 0) {
            datasets = m;
        } else {
            return refuse_table(r, m);
        }
    }
    if (datasets == NULL) {
        DR_FAIL(DR_INVALID, "%s: no [[datasets]] in this file", dr_config_source(r->doc));
    }
    DR_TRY(check_list(r, NULL, datasets));
    r->n_parts = datasets->value->n;
    r->parts = dr_arena_array(r->arena, r->n_parts, sizeof *r->parts);
    for (size_t i = 0; i < r->n_parts; i++) {
        DR_TRY(take_dataset(r, i, datasets->value->items[i], general));
    }
    if (r->n_specs == 0) {
        DR_FAIL(DR_INVALID, "%s: no subset with num_repeats of 1 or more",
                dr_config_source(r->doc));
    }
    return DR_OK;
}

dr_status dr_dataset_config_read(dr_arena *arena, const char *path,
                                 const dr_dataset_defaults *defaults, dr_dataset_options *o)
{
    dr_config_doc *doc = NULL;
    DR_TRY(dr_config_open(&doc, path));
    reader r = {.doc = doc, .defaults = defaults, .arena = arena};
    dr_status st = read_tables(&r);
    dr_config_close(doc);
    DR_TRY(st);
    o->parts = r.parts;
    o->n_parts = r.n_parts;
    o->specs = r.specs;
    o->n_specs = r.n_specs;
    return DR_OK;
}
