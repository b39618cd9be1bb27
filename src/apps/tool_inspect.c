/*
 * What is told is gathered once (report) and printed as text or JSON. Only the headers of files
 * are read.
 */
#include "apps/tool_inspect.h"

#include "apps/tool_words.h"
#include "base/file.h"
#include "io/json.h"
#include "train/hub.h"
#include "train/model_file.h"
#include "train/model_kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INSPECT_json, INSPECT_tensors, INSPECT_OPTION_COUNT };

static const dr_opt_spec inspect_specs[INSPECT_OPTION_COUNT] = {
    {.name = "json",
     .programs = 1,
     .type = DR_OPT_TYPE_FLAG,
     .range = "",
     .unit = "",
     .reason = "",
     .help = "Prints JSON."},
    {.name = "tensors",
     .programs = 1,
     .type = DR_OPT_TYPE_FLAG,
     .range = "",
     .unit = "",
     .reason = "",
     .help = "Lists every tensor: name, dtype, shape, in the order of the file."}};

static const char *const program_names[] = {"dreamrun inspect"};

static const dr_opt_table inspect_table = {.specs = inspect_specs,
                                           .n = INSPECT_OPTION_COUNT,
                                           .programs = program_names,
                                           .n_programs = 1,
                                           .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                           .own_first = -1};

static const dr_tool_text text = {
    .usage = "Usage: dreamrun inspect FILE|DIR [options]\n\n"
             "Tells what a .safetensors file, or a directory with such files, holds: the family\n"
             "of the model, parameters, dtypes and metadata. Reads headers only.\n\n",
    .operands = "FILE|DIR",
    .n_operands = 1};

typedef struct count { /* tensors of one dtype or of one part */
    const char *name;
    int64_t tensors, params;
} count;

enum { MAX_DTYPES = 32, N_PARTS = 5 };

/* Parts of a single-file checkpoint, by the beginnings of names; the last takes the rest. */
static const struct {
    const char *name, *start;
} part_names[N_PARTS] = {{"unet", "model.diffusion_model."},
                         {"text_encoder", "cond_stage_model."},
                         {"vae", "first_stage_model."},
                         {"ema", "model_ema."},
                         {"other", ""}};

typedef struct file_report {
    dr_tensor_file *file;
    dr_model_kind kind;
    uint64_t bytes; /* of tensors */
    count total, dtype[MAX_DTYPES], part[N_PARTS];
    int n_dtypes;
    bool single; /* a checkpoint with several parts in one file */
} file_report;

typedef struct report {
    const char *path;
    const char *label;
    bool directory;
    bool known;            /* a model that can be trained; then: */
    bool v2, v_prediction; /* as its files say */
    bool told;             /* v_prediction is known */
    file_report *files;
    size_t n;
} report;

/* ---- gathering ----------------------------------------------------------------------------- */

static count *find_count(count *list, int *n, const char *name)
{
    for (int i = 0; i < *n; i++) {
        if (strcmp(list[i].name, name) == 0) {
            return &list[i];
        }
    }
    DR_CHECK(*n < MAX_DTYPES, "more dtypes than safetensors has");
    list[*n] = (count){.name = name};
    return &list[(*n)++];
}

static void add(count *c, const dr_file_tensor *t)
{
    c->tensors++;
    c->params += t->n_elems;
}

static void measure(file_report *r)
{
    for (int i = 0; i < N_PARTS; i++) {
        r->part[i].name = part_names[i].name;
    }
    for (size_t i = 0; i < dr_tensor_file_count(r->file); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(r->file, i);
        int part = 0;
        while (!dr_str_starts(t->name, part_names[part].start)) {
            part++;
        }
        add(&r->total, t);
        add(&r->part[part], t);
        add(find_count(r->dtype, &r->n_dtypes, t->dtype_name), t);
        r->bytes += t->bytes;
    }
    r->kind = dr_model_kind_of(r->file);
    r->single = r->part[N_PARTS - 1].tensors < r->total.tensors;
}

static dr_status add_file(report *r, const char *path)
{
    r->files = dr_xrealloc(r->files, r->n + 1, sizeof *r->files);
    r->files[r->n] = (file_report){0};
    DR_TRY(dr_tensor_file_open(&r->files[r->n].file, path));
    measure(&r->files[r->n++]);
    return DR_OK;
}

/* .safetensors files of a directory and of the folders in it. */
static dr_status add_directory(report *r, const char *dir, int depth)
{
    dr_strv names = {0};
    dr_status st = dr_list_dir(dir, &names);
    for (size_t i = 0; st == DR_OK && i < names.n; i++) {
        char *path = dr_path_join(dir, names.at[i]);
        if (dr_path_is_dir(path)) {
            st = depth > 0 ? add_directory(r, path, depth - 1) : DR_OK;
        } else if (dr_str_ends(path, ".safetensors")) {
            st = add_file(r, path);
        }
        free(path);
    }
    dr_strv_free(&names);
    return st;
}

static void find_family(report *r)
{
    dr_model_open_options o = {.path = r->path};
    r->known = dr_model_file_probe(&o, &r->told) == DR_OK;
    if (r->known) {
        r->v2 = o.v2;
        r->v_prediction = o.v_parameterization;
    }
    dr_error_clear(); /* what cannot be trained can still be inspected */
    r->label = !r->directory && r->n > 0 ? dr_model_kind_label(r->files[0].kind)
               : r->known                ? (r->v2 ? "Stable Diffusion 2.x, Diffusers directory"
                                                  : "Stable Diffusion 1.x, Diffusers directory")
                                         : "a directory that is no Stable Diffusion model";
}

static dr_status gather(report *r, const char *path)
{
    *r = (report){.path = path, .directory = dr_path_is_dir(path)};
    if (!dr_path_exists(path)) {
        DR_FAIL(DR_INVALID, "%s: no such file or directory", path);
    }
    DR_TRY(r->directory ? add_directory(r, path, 1) : add_file(r, path));
    if (r->n == 0) {
        DR_FAIL(DR_FORMAT, "%s: no .safetensors file in this directory or the folders in it", path);
    }
    find_family(r);
    return DR_OK;
}

static void release(report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        dr_tensor_file_close(r->files[i].file);
    }
    free(r->files);
}

/* ---- text ---------------------------------------------------------------------------------- */

static void print_shape(dr_str *s, const dr_file_tensor *t)
{
    dr_str_add(s, "[");
    for (int i = 0; i < t->rank; i++) {
        dr_str_printf(s, "%s%lld", i > 0 ? "," : "", (long long)t->shape[i]);
    }
    dr_str_add(s, "]");
}

static void print_count(dr_str *s, const count *c)
{
    dr_str_printf(s, "  %-14s %13lld parameters in %lld tensors\n", c->name, (long long)c->params,
                  (long long)c->tensors);
}

/* Metadata can be long (tag frequencies of a LoRA): the first characters; --json has all. */
static void print_meta(dr_str *s, const dr_tensor_file *file)
{
    enum { SHOWN = 200 };
    for (size_t i = 0; i < dr_tensor_file_meta_count(file); i++) {
        const dr_safetensors_meta m = dr_tensor_file_meta_at(file, i);
        dr_str one = {0};
        dr_json_add_string(&one, m.value); /* control characters must not reach a terminal */
        size_t n = one.len;
        if (n > SHOWN) {
            n = SHOWN;
            while (n > 0 && ((unsigned char)one.data[n] & 0xc0) == 0x80) {
                n--; /* not inside a UTF-8 character */
            }
        }
        dr_str key = {0};
        dr_json_add_string(&key, m.key);
        dr_str_printf(s, "  metadata %s: %.*s%s\n", dr_str_get(&key), (int)n, one.data,
                      n < one.len ? " ..." : "");
        dr_str_free(&key);
        dr_str_free(&one);
    }
}

static void print_file(dr_str *s, const file_report *r, bool tensors)
{
    char bytes[24];
    dr_format_bytes(r->bytes, bytes);
    dr_str_printf(s, "%s: %s, %s\n", dr_tensor_file_path(r->file), dr_model_kind_label(r->kind),
                  bytes);
    print_count(s, &(count){"all", r->total.tensors, r->total.params});
    for (int i = 0; r->single && i < N_PARTS; i++) {
        if (r->part[i].tensors > 0) {
            print_count(s, &r->part[i]);
        }
    }
    for (int i = 0; i < r->n_dtypes; i++) {
        print_count(s, &r->dtype[i]);
    }
    print_meta(s, r->file);
    for (size_t i = 0; tensors && i < dr_tensor_file_count(r->file); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(r->file, i);
        dr_str name = {0};
        dr_json_add_string(&name, t->name);
        dr_str_printf(s, "  %.*s %s ", (int)name.len - 2, name.data + 1, t->dtype_name);
        print_shape(s, t);
        dr_str_add(s, "\n");
        dr_str_free(&name);
    }
}

static void print_text(dr_str *s, const report *r, bool tensors)
{
    dr_str_printf(s, "%s: %s", r->path, r->label);
    if (r->known) {
        dr_str_printf(s, "; train it with%s%s%s", r->v2 ? " --v2" : "out --v2",
                      r->v_prediction ? " --v_parameterization" : "",
                      r->v2 && !r->told ? " (and --v_parameterization if it is a 768-v model: the "
                                          "file does not tell)"
                                        : "");
    }
    dr_str_add(s, "\n");
    for (size_t i = 0; i < r->n; i++) {
        print_file(s, &r->files[i], tensors);
    }
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static void json_counts(dr_str *s, const char *key, const count *list, int n)
{
    bool first = true;
    dr_str_printf(s, ", \"%s\": {", key);
    for (int i = 0; i < n; i++) {
        if (list[i].tensors == 0) {
            continue;
        }
        dr_str_add(s, first ? "" : ", ");
        dr_json_add_string(s, list[i].name);
        dr_str_printf(s, ": {\"tensors\": %lld, \"parameters\": %lld}", (long long)list[i].tensors,
                      (long long)list[i].params);
        first = false;
    }
    dr_str_add(s, "}");
}

static void json_tensors(dr_str *s, const dr_tensor_file *file)
{
    dr_str_add(s, ", \"tensors\": [");
    for (size_t i = 0; i < dr_tensor_file_count(file); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(file, i);
        dr_str_add(s, i > 0 ? ",\n  {\"name\": " : "\n  {\"name\": ");
        dr_json_add_string(s, t->name);
        dr_str_add(s, ", \"dtype\": ");
        dr_json_add_string(s, t->dtype_name);
        dr_str_add(s, ", \"shape\": ");
        print_shape(s, t);
        dr_str_add(s, "}");
    }
    dr_str_add(s, "]");
}

static void json_file(dr_str *s, const file_report *r, bool tensors)
{
    dr_str_add(s, "{\"path\": ");
    dr_json_add_string(s, dr_tensor_file_path(r->file));
    dr_str_add(s, ", \"kind\": ");
    dr_json_add_string(s, dr_model_kind_label(r->kind));
    dr_str_printf(s, ", \"n_tensors\": %lld, \"n_parameters\": %lld, \"tensor_bytes\": %llu",
                  (long long)r->total.tensors, (long long)r->total.params,
                  (unsigned long long)r->bytes);
    json_counts(s, "dtypes", r->dtype, r->n_dtypes);
    if (r->single) {
        json_counts(s, "parts", r->part, N_PARTS);
    }
    dr_str_add(s, ", \"metadata\": {");
    for (size_t i = 0; i < dr_tensor_file_meta_count(r->file); i++) {
        const dr_safetensors_meta m = dr_tensor_file_meta_at(r->file, i);
        dr_str_add(s, i > 0 ? ", " : "");
        dr_json_add_string(s, m.key);
        dr_str_add(s, ": ");
        dr_json_add_string(s, m.value);
    }
    dr_str_add(s, "}");
    if (tensors) {
        json_tensors(s, r->file);
    }
    dr_str_add(s, "}");
}

static void print_json(dr_str *s, const report *r, bool tensors)
{
    dr_str_add(s, "{\"path\": ");
    dr_json_add_string(s, r->path);
    dr_str_printf(s,
                  ", \"format\": \"%s\", \"kind\": ", r->directory ? "directory" : "safetensors");
    dr_json_add_string(s, r->label);
    dr_str_printf(s, ", \"v2\": %s, \"v_prediction\": %s",
                  !r->known ? "null"
                  : r->v2   ? "true"
                            : "false",
                  !r->known || !r->told ? "null"
                  : r->v_prediction     ? "true"
                                        : "false");
    dr_str_add(s, ", \"files\": [");
    for (size_t i = 0; i < r->n; i++) {
        dr_str_add(s, i > 0 ? ",\n " : "\n ");
        json_file(s, &r->files[i], tensors);
    }
    dr_str_add(s, "]}\n");
}

static dr_status inspect(const dr_optset *o, const char *path)
{
    report r = {0};
    dr_arena arena;
    const bool tensors = dr_opt_flag(o, INSPECT_tensors);
    dr_arena_init(&arena);
    dr_status st = dr_hub_resolve(&arena, DR_HUB_MODEL, path, &path);
    if (st == DR_OK) {
        st = gather(&r, path);
    }
    if (st == DR_OK) {
        dr_str page = {0};
        if (dr_opt_flag(o, INSPECT_json)) {
            print_json(&page, &r, tensors);
        } else {
            print_text(&page, &r, tensors);
        }
        (void)fputs(dr_str_get(&page), stdout);
        dr_str_free(&page);
    }
    release(&r);
    dr_arena_deinit(&arena);
    return st;
}

dr_status dr_tool_inspect(int argc, const char *const *argv)
{
    const char *word = NULL;
    dr_optset o;
    dr_optset_init(&o, &inspect_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, &word);
    if (st == DR_OK && !o.help) {
        st = inspect(&o, word);
    }
    dr_optset_deinit(&o);
    return st;
}
