#include "apps/inspect_report.h"
#include "base/file.h"
#include "io/json.h"

#include <string.h>

void dr_inspect_shape(dr_str *s, const dr_file_tensor *t)
{
    dr_str_add(s, "[");
    for (int i = 0; i < t->rank; i++) {
        dr_str_printf(s, "%s%lld", i > 0 ? "," : "", (long long)t->shape[i]);
    }
    dr_str_add(s, "]");
}

/* Text from a file without control characters, which must not reach a terminal; no quotes. */
static void add_name(dr_str *s, const char *name)
{
    dr_str quoted = {0};
    dr_json_add_string(&quoted, name);
    dr_str_add_n(s, quoted.data + 1, quoted.len - 2);
    dr_str_free(&quoted);
}

static void add_count(dr_str *s, const dr_inspect_count *c)
{
    dr_str_printf(s, "  %-14s %13lld parameters in %lld tensors\n", c->name, (long long)c->params,
                  (long long)c->tensors);
}

/* Metadata can be long (tag frequencies of a LoRA): the first characters; --json has all. */
static void add_meta(dr_str *s, const dr_tensor_file *file)
{
    enum { SHOWN = 200 };
    for (size_t i = 0; i < dr_tensor_file_meta_count(file); i++) {
        const dr_safetensors_meta m = dr_tensor_file_meta_at(file, i);
        dr_str one = {0};
        dr_str key = {0};
        dr_json_add_string(&one, m.value);
        dr_json_add_string(&key, m.key);
        size_t n = one.len;
        if (n > SHOWN) {
            n = SHOWN;
            while (n > 0 && ((unsigned char)one.data[n] & 0xc0) == 0x80) {
                n--; /* not inside a UTF-8 character */
            }
        }
        dr_str_printf(s, "  metadata %s: ", dr_str_get(&key));
        dr_str_add_n(s, one.data, n);
        dr_str_add(s, n < one.len ? " ...\n" : "\n");
        dr_str_free(&key);
        dr_str_free(&one);
    }
}

static void add_range(dr_str *s, double low, double high)
{
    dr_str_printf(s, low < high ? "%g to %g" : "%g", low, high);
}

static void add_lora(dr_str *s, const dr_lora_facts *f)
{
    const struct {
        const char *name;
        int64_t n;
    } parts[] = {{"U-Net", f->unet},
                 {"text encoder", f->text_encoder},
                 {"second text encoder", f->text_encoder_2},
                 {"other", f->other}};
    bool first = true;
    dr_str_printf(s, "  %s with names of %s", f->method, f->names);
    dr_str_printf(s, "%s%s\n", f->family != NULL ? ", made for " : "",
                  f->family != NULL ? f->family : "");
    dr_str_add(s, "  modules: ");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].n > 0) {
            dr_str_printf(s, "%s%s %lld", first ? "" : ", ", parts[i].name, (long long)parts[i].n);
            first = false;
        }
    }
    if (f->conv > 0) {
        dr_str_printf(s, "; %lld of them convolutions over 1x1", (long long)f->conv);
    }
    if (f->rank_max > 0) {
        dr_str_add(s, "\n  rank ");
        add_range(s, (double)f->rank_min, (double)f->rank_max);
        dr_str_add(s, ", alpha ");
        if (f->has_alpha) {
            add_range(s, f->alpha_min, f->alpha_max);
        } else {
            dr_str_add(s, "not given (counts as the rank)");
        }
    }
    dr_str_add(s, "\n");
    if (f->embeddings > 0) {
        dr_str_printf(s, "  and %lld token embeddings\n", (long long)f->embeddings);
    }
    if (f->doubled_prefix) {
        dr_str_add(s, "  broken: names begin with the network's prefix twice (lora_unet_unet_...), "
                      "so no program finds its modules; convert the source again\n");
    }
}

static void add_known(dr_str *s, const dr_inspect_file *f)
{
    int n = 0;
    if (f->known != NULL) {
        dr_str_printf(s, "  known file: %s, %s (by its SHA-256)\n", f->known->model,
                      f->known->file);
        return;
    }
    for (size_t i = 0; f->hashes.sha256[0] == '\0' && i < dr_known_model_count(); i++) {
        const dr_known_model *k = dr_known_model_at(i);
        if (f->same_size[i]) {
            dr_str_printf(s, "%s%s, %s", n++ == 0 ? "  has the size of: " : "; ", k->model,
                          k->file);
        }
    }
    dr_str_add(s, n > 0 ? " (--hash tells whether it is)\n" : "");
}

static void add_hashes(dr_str *s, const dr_inspect_file *f)
{
    const dr_inspect_hashes *h = &f->hashes;
    if (h->sha256[0] == '\0') {
        return;
    }
    dr_str_printf(s, "  sha256 %s\n  AutoV2 (model hash) %.10s, AutoV1 %s", h->sha256, h->sha256,
                  h->auto_v1);
    if (h->data_sha256[0] != '\0') {
        dr_str_printf(s, ", AutoV3 (LoRA hash) %.12s", h->data_sha256);
    }
    dr_str_add(s, "\n");
}

static void add_unknown(dr_str *s, const dr_strv *names)
{
    enum { SHOWN = 5 };
    if (names->n == 0) {
        return;
    }
    dr_str_printf(s, "  belongs to no part: %zu tensors: ", names->n);
    for (size_t i = 0; i < names->n && i < SHOWN; i++) {
        dr_str_add(s, i > 0 ? ", " : "");
        add_name(s, names->at[i]);
    }
    dr_str_add(s, names->n > SHOWN ? ", ... (--json has all)\n" : "\n");
}

static void add_file(dr_str *s, const dr_inspect_file *f, bool tensors)
{
    char bytes[24];
    dr_format_bytes(f->file_bytes, bytes);
    dr_str_printf(s, "  %s, %s\n", dr_tensor_file_kind(f->file), bytes);
    add_count(s, &(dr_inspect_count){"all", f->total.tensors, f->total.params});
    for (int i = 0; f->single && i < DR_INSPECT_PARTS; i++) {
        if (f->part[i].tensors > 0) {
            add_count(s, &f->part[i]);
        }
    }
    for (int i = 0; i < f->n_dtypes; i++) {
        add_count(s, &f->dtype[i]);
    }
    if (f->is_lora) {
        add_lora(s, &f->lora);
        if (f->lora_zero > 0) {
            dr_str_printf(s,
                          "  %zu of the modules are all zero in a factor and change nothing; the "
                          "first is %s\n",
                          f->lora_zero, f->first_zero);
        }
    }
    add_known(s, f);
    add_hashes(s, f);
    add_unknown(s, &f->unknown);
    add_meta(s, f->file);
    for (size_t i = 0; tensors && i < dr_tensor_file_count(f->file); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(f->file, i);
        dr_str_add(s, "  ");
        add_name(s, t->name);
        dr_str_printf(s, " %s ", t->dtype_name);
        dr_inspect_shape(s, t);
        dr_str_add(s, "\n");
    }
}

static void add_training(dr_str *s, const dr_inspect_report *r)
{
    if (!r->known) {
        return;
    }
    dr_str_printf(s, "; train it with%s%s%s", r->v2 ? " --v2" : "out --v2",
                  r->v_prediction ? " --v_parameterization" : "",
                  r->v2 && !r->told ? " (and --v_parameterization if it is a 768-v model: the file "
                                      "does not tell)"
                                    : "");
}

void dr_inspect_text(dr_str *s, const dr_inspect_report *r, bool tensors)
{
    dr_str_printf(s, "%s: %s", r->path, r->label);
    add_training(s, r);
    dr_str_add(s, "\n");
    for (size_t i = 0; i < r->n; i++) {
        const dr_inspect_file *f = &r->files[i];
        if (r->directory) { /* its path inside the directory */
            const char *name = f->path + strlen(r->path);
            dr_str_printf(s, "%s: %s\n", name + strspn(name, "/"),
                          f->problem != NULL ? f->problem : dr_model_kind_label(f->kind));
        }
        if (f->problem == NULL) {
            add_file(s, f, tensors);
        }
    }
}
