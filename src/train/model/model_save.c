/*
 * Saving: where the numbers come from (trained values, or the source's bytes), and single files.
 */
#include "base/file.h"
#include "base/log.h"
#include "models/vae/vae_names.h"
#include "train/model/metadata.h"
#include "train/model/model_output.h"

#include <stdlib.h>
#include <string.h>

static const char text_prefix[] = "cond_stage_model.transformer.";

/* ---- where numbers come from --------------------------------------------------------------- */

typedef struct saving {
    const dr_model_file *file;
    const dr_params *trained[DR_MODEL_PARTS]; /* NULL: the source's */
    const dr_model_edit *edit;                /* NULL: none */
    dr_dtype dtype;
    bool cast_all;
} saving;

static dr_status value_dtype(void *user, dr_model_part part, const dr_param *p, dr_dtype *out)
{
    const saving *s = user;
    dr_place place;
    if (s->trained[part] != NULL || s->cast_all) {
        *out = s->dtype;
        return DR_OK;
    }
    DR_TRY(dr_model_place(s->file, part, p, &place));
    *out = place.tensor->dtype;
    return DR_OK;
}

static dr_status read_edited(const saving *s, dr_model_part part, const dr_param *p, dr_dtype dtype,
                             void *out)
{
    void *values = NULL;
    DR_TRY(dr_try_calloc((size_t)p->n, sizeof(float), &values));
    dr_status st = dr_model_file_read(s->file, part, p, values);
    if (st == DR_OK) {
        st = s->edit->apply(s->edit->user, part, p, values);
    }
    if (st == DR_OK) {
        dr_convert(out, dtype, values, DR_F32, (size_t)p->n);
    }
    free(values);
    return st;
}

static dr_status value_read(void *user, dr_model_part part, const dr_param *p, dr_dtype dtype,
                            void *out)
{
    const saving *s = user;
    dr_place place;
    if (s->trained[part] != NULL) {
        const dr_param *t = dr_params_find(s->trained[part], p->name);
        DR_CHECK(t != NULL && t->n == p->n && t->value.data != NULL,
                 "%s is not among the values to save", p->name);
        dr_param_to_file_order(t, t->value.data, t->value.dtype, out, dtype);
        return DR_OK;
    }
    if (part != DR_PART_VAE && s->edit != NULL && s->edit->touches(s->edit->user, part, p)) {
        return read_edited(s, part, p, dtype, out);
    }
    const void *data = NULL;
    DR_TRY(dr_model_place(s->file, part, p, &place));
    DR_TRY(dr_place_data(&place, &data));
    dr_convert(out, dtype, data, place.tensor->dtype, (size_t)p->n);
    dr_place_release(&place);
    return DR_OK;
}

/* ---- what can be saved --------------------------------------------------------------------- */

static const struct {
    const char *name, *ending;
    bool directory;
} formats[] = {
    [DR_SAVE_SAFETENSORS] = {"safetensors", ".safetensors", false},
    [DR_SAVE_CKPT] = {"ckpt", ".ckpt", false},
    [DR_SAVE_DIFFUSERS] = {"diffusers_safetensors", "", true},
    [DR_SAVE_DIFFUSERS_BIN] = {"diffusers", "", true},
};

bool dr_save_is_directory(dr_save_format format)
{
    return formats[format].directory;
}

const char *dr_save_ending(dr_save_format format)
{
    return formats[format].ending;
}

bool dr_save_format_from_name(const char *name, dr_save_format *out)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name) == 0) {
            *out = (dr_save_format)i;
            return true;
        }
    }
    return false;
}

dr_save_format dr_save_format_of_path(const char *path)
{
    return dr_str_ends(path, ".safetensors") ? DR_SAVE_SAFETENSORS
           : dr_str_ends(path, ".ckpt")      ? DR_SAVE_CKPT
                                             : DR_SAVE_DIFFUSERS;
}

dr_save_format dr_model_file_format(const dr_model_file *f)
{
    const bool safetensors =
        dr_tensor_file_container(f->part[DR_PART_UNET].file) == DR_CONTAINER_SAFETENSORS;
    if (f->directory) {
        return safetensors ? DR_SAVE_DIFFUSERS : DR_SAVE_DIFFUSERS_BIN;
    }
    return safetensors ? DR_SAVE_SAFETENSORS : DR_SAVE_CKPT;
}

static bool source_is_single(const dr_model_file *f)
{
    return f->part[DR_PART_UNET].form == DR_FORM_LDM;
}

static dr_status check_single(const dr_model_file *f)
{
    const dr_tensor_file *s = f->part[DR_PART_UNET].file;
    const bool has_vae =
        source_is_single(f) &&
        dr_tensor_file_find(s, DR_VAE_LDM_PREFIX "decoder.conv_out.weight") != NULL;
    if (f->config.vae.kind == DR_VAE_TINY && !has_vae) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: a single file cannot hold a tiny VAE (TAESD); save with "
                "--save_model_as=diffusers_safetensors",
                f->path);
    }
    for (size_t i = 0; source_is_single(f) && i < dr_tensor_file_count(s); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(s, i);
        if (!t->readable) {
            DR_FAIL(DR_UNSUPPORTED,
                    "%s: tensor %s has dtype %s, which cannot be written into a single file; save "
                    "with --save_model_as=diffusers_safetensors",
                    f->path, t->name, t->dtype_name);
        }
    }
    return DR_OK;
}

dr_status dr_model_file_check_save(const dr_model_file *f, dr_save_format format)
{
    return dr_save_is_directory(format) ? DR_OK : check_single(f);
}

/* ---- single file --------------------------------------------------------------------------- */

/* The name under which a tensor of the source is written: some files lack "text_model.". */
static const char *canonical_name(const char *name, char *buf, size_t size)
{
    static const char *const roots[] = {"embeddings.", "encoder.", "final_layer_norm."};
    const size_t n = strlen(text_prefix);
    for (size_t i = 0; dr_str_starts(name, text_prefix) && i < 3; i++) {
        if (dr_str_starts(name + n, roots[i])) {
            (void)snprintf(buf, size, "%stext_model.%s", text_prefix, name + n);
            return buf;
        }
    }
    return name;
}

/* True for the networks' own tensors, as opposed to EMA copies and schedules. */
static bool is_of_networks(const dr_file_tensor *t)
{
    static const char *const prefixes[] = {"model.diffusion_model.", "cond_stage_model.",
                                           DR_VAE_LDM_PREFIX};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (dr_str_starts(t->name, prefixes[i])) {
            return t->dtype == DR_F64 || t->dtype == DR_F32 || t->dtype == DR_F16 ||
                   t->dtype == DR_BF16;
        }
    }
    return false;
}

/* All tensors of the source; those that are trained are replaced afterwards. */
static void add_template(dr_out_list *l, const dr_model_job *job)
{
    const dr_tensor_file *s = job->source->part[DR_PART_UNET].file;
    for (size_t i = 0; i < dr_tensor_file_count(s); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(s, i);
        char buf[256];
        const char *name = canonical_name(t->name, buf, sizeof buf);
        if (name != t->name && dr_tensor_file_find(s, name) != NULL) {
            continue;
        }
        dr_out_add_copy(l, name, s, t);
        if (job->cast_all && is_of_networks(t)) {
            l->at[l->n - 1].dtype = job->dtype;
        }
    }
}

static dr_status fill_single(dr_out_list *l, const dr_model_job *job)
{
    const bool v2 = job->config->v2;
    const bool from_single = job->source != NULL && source_is_single(job->source);
    const dr_clip_layout layout = v2 ? DR_CLIP_OPENCLIP : DR_CLIP_TRANSFORMERS;
    if (from_single) {
        add_template(l, job);
    }
    const bool has_kl = job->config->vae.kind == DR_VAE_KL;
    const bool wanted[DR_MODEL_PARTS] = {
        [DR_PART_UNET] = !from_single || job->changed[DR_PART_UNET],
        [DR_PART_TEXT_ENCODER] = !from_single || job->changed[DR_PART_TEXT_ENCODER],
        [DR_PART_VAE] = has_kl && (!from_single || job->changed[DR_PART_VAE])};
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        if (wanted[i]) {
            DR_TRY(dr_out_add_ldm(l, (dr_model_part)i, layout));
        }
    }
    if (v2 && !from_single) {
        dr_out_add_openclip_rest(l);
    }
    return DR_OK;
}

/* Metadata of a source that is kept: facts of ours are written anew, hashes are of other bytes. */
static void keep_meta(dr_metadata *m, const dr_model_job *job, const dr_tensor_file *s)
{
    const bool kept_vae = job->config->vae.kind == DR_VAE_TINY;
    for (size_t i = 0; i < dr_tensor_file_meta_count(s); i++) {
        const dr_safetensors_meta at = dr_tensor_file_meta_at(s, i);
        const bool fact = dr_str_starts(at.key, "dreamrun.");
        const bool fact_of_vae = dr_str_starts(at.key, "dreamrun.vae.");
        const bool hash = strcmp(at.key, DR_MODELSPEC_HASH) == 0 || dr_str_starts(at.key, "sshs_");
        if (fact ? fact_of_vae && kept_vae : job->keep_meta && !hash) {
            dr_metadata_add(m, at.key, at.value);
        }
    }
    if (dr_metadata_get(m, "modelspec.prediction_type") != NULL) {
        dr_metadata_add(m, "modelspec.prediction_type",
                        job->config->v_prediction ? "v" : "epsilon");
    }
}

/* The source's hash is kept by computing that of the new file. */
static bool had_hash(const dr_model_job *job)
{
    return job->keep_meta && job->source != NULL && source_is_single(job->source) &&
           dr_tensor_file_meta_get(job->source->part[DR_PART_UNET].file, DR_MODELSPEC_HASH) != NULL;
}

/* What the source says of itself where that is wanted, the run's metadata, what shapes do not tell.
 */
static void join_meta(dr_metadata *m, const dr_model_job *job)
{
    dr_safetensors_meta facts[DR_MODEL_MAX_FACTS];
    if (job->source != NULL && source_is_single(job->source)) {
        keep_meta(m, job, job->source->part[DR_PART_UNET].file);
    }
    for (size_t i = 0; i < job->n_meta; i++) {
        dr_metadata_add(m, job->meta[i].key, job->meta[i].value);
    }
    const size_t n = dr_model_facts_write(job->config, &m->arena, facts);
    for (size_t i = 0; i < n; i++) {
        dr_metadata_add(m, facts[i].key, facts[i].value);
    }
}

static dr_status check_file(const char *path)
{
    if (dr_path_is_dir(path)) {
        DR_FAIL(DR_OUTPUT,
                "%s: a directory is in the way of the file to write; remove it or choose "
                "another name",
                path);
    }
    return DR_OK;
}

dr_status dr_model_check_target(const char *path, dr_save_format format)
{
    dr_outfile probe;
    DR_TRY(dr_save_is_directory(format) ? dr_model_check_directory(path) : check_file(path));
    DR_TRY(dr_outfile_open(&probe, path));
    dr_outfile_abort(&probe);
    return DR_OK;
}

/* "dir/dog.safetensors" -> "dir/dog.yaml"; the caller frees it. */
static char *yaml_path(const char *path)
{
    dr_str s = {0};
    const char *dot = strrchr(dr_path_base(path), '.');
    dr_str_add_n(&s, path, dot != NULL ? (size_t)(dot - path) : strlen(path));
    dr_str_add(&s, ".yaml");
    return s.data;
}

/* Whether the file at path may be replaced by such a config: it is one, or there is none. */
static bool may_replace_yaml(const char *path)
{
    enum { MAX_YAML = 1 << 20 };
    char *text = NULL;
    size_t n = 0;
    if (!dr_path_exists(path)) {
        return true;
    }
    if (dr_file_read(path, MAX_YAML, &text, &n) != DR_OK) {
        dr_error_clear();
        return false;
    }
    const bool is_ldm = strstr(text, "LatentDiffusion") != NULL;
    free(text);
    return is_ldm;
}

static dr_status write_yaml(const dr_model_job *job)
{
    char *path = yaml_path(job->path);
    bool written = true;
    dr_status st = DR_OK;
    if (!may_replace_yaml(path)) {
        dr_warn("%s: not replaced, because it is no config of a Stable Diffusion model; programs "
                "that look for one beside the checkpoint need another name for this file",
                path);
    } else {
        st = dr_model_yaml_write(job->config, path, &written);
        if (!written) {
            dr_warn("%s: not written: a config of that kind cannot describe this network", path);
        }
    }
    free(path);
    return st;
}

/* The source's counter and the run's. */
static int64_t add_counter(const dr_model_job *job, const char *key, int64_t ours)
{
    int64_t before = 0;
    const bool has = job->source != NULL && source_is_single(job->source) &&
                     dr_tensor_file_number(job->source->part[DR_PART_UNET].file, key, &before);
    return has && before > 0 && before < INT64_MAX - ours ? before + ours : ours;
}

dr_status dr_model_write_single(dr_model_job *job)
{
    DR_TRY(check_file(job->path));
    dr_out_list l;
    dr_metadata meta;
    dr_metadata_init(&meta);
    dr_out_init(&l, job->config, job->values);
    dr_status st = fill_single(&l, job);
    if (st == DR_OK) {
        dr_out_file file = {.path = job->path,
                            .container = job->format == DR_SAVE_CKPT ? DR_OUT_CHECKPOINT
                                                                     : DR_OUT_SAFETENSORS,
                            .hash = job->hash || had_hash(job),
                            .epoch = add_counter(job, "epoch", job->epoch),
                            .global_step = add_counter(job, "global_step", job->global_step),
                            .progress = &job->progress};
        join_meta(&meta, job);
        file.meta = meta.at;
        file.n_meta = meta.n;
        job->progress.all = dr_out_bytes(&l);
        st = dr_out_write(&l, &file);
    }
    dr_out_deinit(&l);
    dr_metadata_deinit(&meta);
    return st == DR_OK && job->config->v2 ? write_yaml(job) : st;
}

dr_status dr_model_write(dr_model_job *job)
{
    return dr_save_is_directory(job->format) ? dr_model_write_directory(job)
                                             : dr_model_write_single(job);
}

/* ---- entry --------------------------------------------------------------------------------- */

dr_status dr_model_file_save(const dr_model_file *f, const dr_model_save *o)
{
    saving s = {.file = f, .edit = o->edit, .dtype = o->dtype, .cast_all = o->cast_all};
    const bool edited = o->edit != NULL;
    s.trained[DR_PART_UNET] = o->unet;
    s.trained[DR_PART_TEXT_ENCODER] = o->text_encoder;
    dr_model_job job = {.path = o->path,
                        .config = &f->config,
                        .source = f,
                        .values = {value_dtype, value_read, &s},
                        .changed = {o->unet != NULL || edited || o->cast_all,
                                    o->text_encoder != NULL || edited || o->cast_all,
                                    f->foreign_vae || o->cast_all},
                        .cast_all = o->cast_all,
                        .dtype = o->dtype,
                        .format = o->format,
                        .meta = o->meta,
                        .n_meta = o->n_meta,
                        .keep_meta = o->keep_meta,
                        .hash = o->hash,
                        .epoch = o->epoch,
                        .global_step = o->global_step,
                        .progress = {.report = o->progress, .user = o->user}};
    DR_TRY(dr_model_file_check_save(f, o->format));
    if (!dr_save_is_directory(o->format) && f->foreign_vae && f->config.vae.kind == DR_VAE_TINY) {
        dr_warn("%s: a single file cannot hold the tiny VAE of --vae; the VAE of %s is kept",
                o->path, f->path);
    }
    return dr_model_write(&job);
}
