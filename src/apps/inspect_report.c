#include "apps/inspect_report.h"

#include "base/file.h"
#include "base/log.h"
#include "io/safetensors.h"
#include "train/lora/lora_file.h"
#include "train/model/model_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Parts of a single-file checkpoint, by the beginnings of names; the last takes the rest. */
static const struct {
    const char *name, *start;
} part_names[DR_INSPECT_PARTS] = {{"unet", "model.diffusion_model."},
                                  {"text_encoder", "cond_stage_model."},
                                  {"vae", "first_stage_model."},
                                  {"ema", "model_ema."},
                                  {"other", ""}};

static dr_inspect_count *find_count(dr_inspect_count *list, int *n, const char *name)
{
    for (int i = 0; i < *n; i++) {
        if (strcmp(list[i].name, name) == 0) {
            return &list[i];
        }
    }
    DR_CHECK(*n < DR_INSPECT_DTYPES, "more dtypes than any format has");
    list[*n] = (dr_inspect_count){.name = name};
    return &list[(*n)++];
}

static void add(dr_inspect_count *c, const dr_file_tensor *t)
{
    c->tensors++;
    c->params += t->n_elems;
}

/* Tables of the noise schedule, which LDM's programs keep in their checkpoints. */
static bool is_schedule(const char *name)
{
    static const char *const starts[] = {
        "alphas_cumprod", "betas",  "sqrt_",        "log_one_minus_", "posterior_",
        "lvlb_weights",   "logvar", "scale_factor", "cond_stage_key", "denoiser."};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        if (dr_str_starts(name, starts[i])) {
            return true;
        }
    }
    return false;
}

/* Kinds that cannot be read have no modules to look at. */
static void count_zero_modules(dr_inspect_file *r)
{
    dr_lora_file *f = NULL;
    const dr_lora_module *first = NULL;
    if (dr_lora_file_open_quiet(&f, r->path) != DR_OK ||
        dr_lora_file_count_zero(f, &r->lora_zero, &first) != DR_OK) {
        dr_error_clear();
        r->lora_zero = 0;
    } else if (first != NULL) {
        dr_str name = {0};
        dr_str_add(&name, first->source);
        r->first_zero = name.data;
    }
    dr_lora_file_close(f);
}

static void measure(dr_inspect_file *r)
{
    for (int i = 0; i < DR_INSPECT_PARTS; i++) {
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
        r->tensor_bytes += t->bytes;
    }
    r->kind = dr_model_kind_of(r->file);
    r->single = r->part[DR_INSPECT_PARTS - 1].tensors < r->total.tensors;
    r->is_lora = r->kind == DR_KIND_LORA && dr_lora_facts_read(&r->lora, r->file);
    if (r->is_lora) {
        count_zero_modules(r);
    }
    for (size_t i = 0; r->single && i < dr_tensor_file_count(r->file); i++) {
        const char *name = dr_tensor_file_at(r->file, i)->name;
        bool listed = is_schedule(name);
        for (int k = 0; k < DR_INSPECT_PARTS - 1; k++) {
            listed = listed || dr_str_starts(name, part_names[k].start);
        }
        if (!listed) {
            dr_strv_push(&r->unknown, name);
        }
    }
}

/* ---- hashes -------------------------------------------------------------------------------- */

static dr_status hash_file(dr_inspect_file *r)
{
    enum { PIECE = 16 << 20, OLD_AT = 0x100000, OLD_BYTES = 0x10000 };
    dr_map m = {0};
    char old[DR_DIGEST_HEX];
    char bytes[24];
    DR_TRY(dr_digest_file(DR_SHA256, r->path, OLD_AT, OLD_BYTES, old));
    memcpy(r->hashes.auto_v1, old, sizeof r->hashes.auto_v1 - 1);
    DR_TRY(dr_map_open(&m, r->path));
    dr_format_bytes(m.size, bytes);
    if (m.size > 1U << 30) {
        dr_info("%s: hashing %s ...", r->path, bytes);
    }
    const bool safetensors = dr_tensor_file_container(r->file) == DR_CONTAINER_SAFETENSORS;
    const size_t data = safetensors ? dr_safetensors_data_at(m.data, m.size) : 0;
    dr_digest *all = dr_digest_create(DR_SHA256);
    dr_digest *tail = dr_digest_create(DR_SHA256);
    dr_digest_add(all, m.data, data);
    for (size_t at = data; at < m.size; at += PIECE) {
        const size_t n = m.size - at < PIECE ? m.size - at : PIECE;
        dr_digest_add(all, m.data + at, n);
        if (data > 0) {
            dr_digest_add(tail, m.data + at, n);
        }
    }
    dr_map_close(&m);
    dr_digest_finish(all, r->hashes.sha256);
    if (data > 0) {
        dr_digest_finish(tail, r->hashes.data_sha256);
    } else {
        dr_digest_destroy(tail);
    }
    r->known = dr_known_model_by_hash(r->hashes.sha256);
    return DR_OK;
}

static void compare_sizes(dr_inspect_file *r)
{
    DR_CHECK(dr_known_model_count() <= sizeof r->same_size / sizeof *r->same_size,
             "%zu known models", dr_known_model_count());
    for (size_t i = 0; i < dr_known_model_count(); i++) {
        r->same_size[i] = (uint64_t)dr_known_model_at(i)->bytes == r->file_bytes;
    }
}

/* ---- files --------------------------------------------------------------------------------- */

static char *copy_text(const char *text)
{
    dr_str s = {0};
    dr_str_add(&s, text);
    return s.data;
}

static dr_status add_file(dr_inspect_report *r, const char *path, bool hash)
{
    struct stat st;
    r->files = dr_xrealloc(r->files, r->n + 1, sizeof *r->files);
    dr_inspect_file *f = &r->files[r->n++];
    *f = (dr_inspect_file){.path = copy_text(path)};
    f->file_bytes = stat(path, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
    DR_TRY(dr_tensor_file_open(&f->file, path));
    measure(f);
    compare_sizes(f);
    return hash ? hash_file(f) : DR_OK;
}

static bool is_weights(const char *name)
{
    static const char *const ends[] = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (dr_str_ends(name, ends[i])) {
            return true;
        }
    }
    return false;
}

/* Files of weights in a directory and in the folders in it; damaged ones are told of and passed. */
static dr_status add_directory(dr_inspect_report *r, const char *dir, int depth, bool hash)
{
    dr_strv names = {0};
    dr_status st = dr_list_dir(dir, &names);
    for (size_t i = 0; st == DR_OK && i < names.n; i++) {
        char *path = dr_path_join(dir, names.at[i]);
        if (dr_path_is_dir(path)) {
            st = depth > 0 ? add_directory(r, path, depth - 1, hash) : DR_OK;
        } else if (is_weights(path) && add_file(r, path, hash) != DR_OK) {
            r->files[r->n - 1].problem = copy_text(dr_error_message());
            dr_error_clear();
        }
        free(path);
    }
    dr_strv_free(&names);
    return st;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static const char *family_of_kind(dr_model_kind kind, const dr_lora_facts *lora)
{
    switch (kind) {
    case DR_KIND_SD1:
        return "sd1";
    case DR_KIND_SD2:
        return "sd2";
    case DR_KIND_SDXL:
        return "sdxl";
    case DR_KIND_SD3:
        return "sd3";
    case DR_KIND_FLUX:
        return "flux";
    case DR_KIND_LORA:
        return lora->family == NULL                  ? NULL
               : strcmp(lora->family, "SD 1.x") == 0 ? "sd1"
               : strcmp(lora->family, "SD 2.x") == 0 ? "sd2"
                                                     : "sdxl";
    default:
        return NULL;
    }
}

static void find_family(dr_inspect_report *r)
{
    dr_model_open_options o = {.path = r->path};
    r->known = dr_model_file_probe(&o, &r->told) == DR_OK;
    if (r->known) {
        r->v2 = o.v2;
        r->v_prediction = o.v_parameterization;
    }
    dr_error_clear(); /* what cannot be trained can still be inspected */
    r->family = r->known        ? (r->v2 ? "sd2" : "sd1")
                : !r->directory ? family_of_kind(r->files[0].kind, &r->files[0].lora)
                                : NULL;
    r->label = !r->directory ? dr_model_kind_label(r->files[0].kind)
               : r->known    ? (r->v2 ? "Stable Diffusion 2.x, Diffusers directory"
                                      : "Stable Diffusion 1.x, Diffusers directory")
                             : "a directory that is no Stable Diffusion model";
}

dr_status dr_inspect_gather(dr_inspect_report *r, const char *path, bool hash)
{
    *r = (dr_inspect_report){.path = path, .directory = dr_path_is_dir(path)};
    if (!dr_path_exists(path)) {
        DR_FAIL(DR_INVALID, "%s: no such file or directory", path);
    }
    DR_TRY(r->directory ? add_directory(r, path, 1, hash) : add_file(r, path, hash));
    if (r->n == 0) {
        DR_FAIL(DR_FORMAT,
                "%s: no .safetensors, .ckpt, .pt or .bin file in this directory or the folders in "
                "it",
                path);
    }
    find_family(r);
    return DR_OK;
}

void dr_inspect_free(dr_inspect_report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        dr_tensor_file_close(r->files[i].file);
        dr_strv_free(&r->files[i].unknown);
        free(r->files[i].path);
        free(r->files[i].problem);
        free(r->files[i].first_zero);
    }
    free(r->files);
    *r = (dr_inspect_report){0};
}
