/*
 * The keys are documented in docs/inspect.md.
 */
#include "apps/inspect_report.h"
#include "io/json.h"

#include <stdio.h>

static void add_key(dr_str *s, const char *key, const char *text)
{
    dr_str_printf(s, ", \"%s\": ", key);
    if (text == NULL) {
        dr_str_add(s, "null");
    } else {
        dr_json_add_string(s, text);
    }
}

static void add_int(dr_str *s, const char *key, int64_t v)
{
    dr_str_printf(s, ", \"%s\": %lld", key, (long long)v);
}

static void add_counts(dr_str *s, const char *key, const dr_inspect_count *list, int n)
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

static void add_tensors(dr_str *s, const dr_tensor_file *file)
{
    dr_str_add(s, ", \"tensors\": [");
    for (size_t i = 0; i < dr_tensor_file_count(file); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(file, i);
        dr_str_add(s, i > 0 ? ",\n  {\"name\": " : "\n  {\"name\": ");
        dr_json_add_string(s, t->name);
        add_key(s, "dtype", t->dtype_name);
        dr_str_add(s, ", \"shape\": ");
        dr_inspect_shape(s, t);
        dr_str_add(s, "}");
    }
    dr_str_add(s, "]");
}

static void add_lora(dr_str *s, const dr_lora_facts *f, size_t n_zero)
{
    dr_str_add(s, ", \"lora\": {\"method\": ");
    dr_json_add_string(s, f->method);
    add_key(s, "names", f->names);
    add_key(s, "family", f->family);
    add_int(s, "unet_modules", f->unet);
    add_int(s, "text_encoder_modules", f->text_encoder);
    add_int(s, "text_encoder_2_modules", f->text_encoder_2);
    add_int(s, "other_modules", f->other);
    add_int(s, "conv_modules", f->conv);
    add_int(s, "rank_min", f->rank_min);
    add_int(s, "rank_max", f->rank_max);
    dr_str_add(s, ", \"alpha_min\": ");
    dr_json_add_double(s, f->has_alpha ? f->alpha_min : (double)f->rank_min);
    dr_str_add(s, ", \"alpha_max\": ");
    dr_json_add_double(s, f->has_alpha ? f->alpha_max : (double)f->rank_max);
    dr_str_printf(s, ", \"has_alpha\": %s, \"doubled_prefix\": %s", f->has_alpha ? "true" : "false",
                  f->doubled_prefix ? "true" : "false");
    add_int(s, "embeddings", f->embeddings);
    add_int(s, "zero_modules", (int64_t)n_zero);
    dr_str_add(s, "}");
}

static void add_known(dr_str *s, const dr_inspect_file *f)
{
    bool first = true;
    const bool hashed = f->hashes.sha256[0] != '\0';
    dr_str_add(s, ", \"known_files\": [");
    for (size_t i = 0; i < dr_known_model_count(); i++) {
        const dr_known_model *k = dr_known_model_at(i);
        if (hashed ? k != f->known : !f->same_size[i]) {
            continue;
        }
        dr_str_add(s, first ? "{\"model\": " : ", {\"model\": ");
        dr_json_add_string(s, k->model);
        add_key(s, "file", k->file);
        dr_str_printf(s, ", \"by\": \"%s\"}", hashed ? "sha256" : "size");
        first = false;
    }
    dr_str_add(s, "]");
}

static void add_hashes(dr_str *s, const dr_inspect_hashes *h)
{
    char auto_v2[11];
    char auto_v3[DR_INSPECT_SHORT];
    (void)snprintf(auto_v2, sizeof auto_v2, "%.10s", h->sha256);
    (void)snprintf(auto_v3, sizeof auto_v3, "%.12s", h->data_sha256);
    dr_str_add(s, ", \"hashes\": {\"sha256\": ");
    dr_json_add_string(s, h->sha256);
    add_key(s, "autov1", h->auto_v1);
    add_key(s, "autov2", auto_v2);
    add_key(s, "autov3", h->data_sha256[0] != '\0' ? auto_v3 : NULL);
    add_key(s, "data_sha256", h->data_sha256[0] != '\0' ? h->data_sha256 : NULL);
    dr_str_add(s, "}");
}

static void add_strings(dr_str *s, const char *key, const dr_strv *v)
{
    dr_str_printf(s, ", \"%s\": [", key);
    for (size_t i = 0; i < v->n; i++) {
        dr_str_add(s, i > 0 ? ", " : "");
        dr_json_add_string(s, v->at[i]);
    }
    dr_str_add(s, "]");
}

static void add_contents(dr_str *s, const dr_inspect_file *f, bool tensors)
{
    add_key(s, "format", dr_tensor_file_kind(f->file));
    add_key(s, "kind", dr_model_kind_label(f->kind));
    add_int(s, "n_tensors", f->total.tensors);
    add_int(s, "n_parameters", f->total.params);
    add_int(s, "tensor_bytes", (int64_t)f->tensor_bytes);
    add_counts(s, "dtypes", f->dtype, f->n_dtypes);
    if (f->single) {
        add_counts(s, "parts", f->part, DR_INSPECT_PARTS);
        add_strings(s, "unknown_tensors", &f->unknown);
    }
    if (f->is_lora) {
        add_lora(s, &f->lora, f->lora_zero);
    }
    add_known(s, f);
    if (f->hashes.sha256[0] != '\0') {
        add_hashes(s, &f->hashes);
    }
    dr_str_add(s, ", \"metadata\": {");
    for (size_t i = 0; i < dr_tensor_file_meta_count(f->file); i++) {
        const dr_safetensors_meta m = dr_tensor_file_meta_at(f->file, i);
        dr_str_add(s, i > 0 ? ", " : "");
        dr_json_add_string(s, m.key);
        dr_str_add(s, ": ");
        dr_json_add_string(s, m.value);
    }
    dr_str_add(s, "}");
    if (tensors) {
        add_tensors(s, f->file);
    }
}

void dr_inspect_json(dr_str *s, const dr_inspect_report *r, bool tensors)
{
    dr_str_add(s, "{\"path\": ");
    dr_json_add_string(s, r->path);
    add_key(s, "format", r->directory ? "directory" : dr_tensor_file_kind(r->files[0].file));
    add_key(s, "kind", r->label);
    add_key(s, "family", r->family);
    dr_str_printf(s, ", \"trainable\": %s", r->known ? "true" : "false");
    dr_str_printf(s, ", \"v2\": %s", !r->known ? "null" : r->v2 ? "true" : "false");
    dr_str_printf(s, ", \"v_prediction\": %s",
                  !r->known || !r->told ? "null"
                  : r->v_prediction     ? "true"
                                        : "false");
    dr_str_add(s, ", \"files\": [");
    for (size_t i = 0; i < r->n; i++) {
        const dr_inspect_file *f = &r->files[i];
        dr_str_add(s, i > 0 ? ",\n {\"path\": " : "\n {\"path\": ");
        dr_json_add_string(s, f->path);
        add_int(s, "file_bytes", (int64_t)f->file_bytes);
        add_key(s, "problem", f->problem);
        if (f->problem == NULL) {
            add_contents(s, f, tensors);
        }
        dr_str_add(s, "}");
    }
    dr_str_add(s, "]}\n");
}
