/*
 * Saving: where the numbers come from (trained values, or the source's bytes), and single files.
 */
#include "base/file.h"
#include "base/log.h"
#include "models/vae/vae_names.h"
#include "train/model_output.h"

#include <stdlib.h>
#include <string.h>

static const char text_prefix[] = "cond_stage_model.transformer.";

/* ---- where numbers come from --------------------------------------------------------------- */

typedef struct saving {
    const dr_model_file *file;
    const dr_params *trained[DR_MODEL_PARTS]; /* NULL: the source's */
    dr_dtype dtype;
} saving;

static dr_status value_dtype(void *user, dr_model_part part, const dr_param *p, dr_dtype *out)
{
    const saving *s = user;
    dr_place place;
    if (s->trained[part] != NULL) {
        *out = s->dtype;
        return DR_OK;
    }
    DR_TRY(dr_model_place(s->file, part, p, &place));
    *out = place.tensor->dtype;
    return DR_OK;
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
    const void *data = NULL;
    DR_TRY(dr_model_place(s->file, part, p, &place));
    DR_TRY(dr_place_data(&place, &data));
    dr_convert(out, dtype, data, place.tensor->dtype, (size_t)p->n);
    dr_place_release(&place);
    return DR_OK;
}

/* ---- what can be saved --------------------------------------------------------------------- */

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
    return format == DR_SAVE_SAFETENSORS ? check_single(f) : DR_OK;
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

/* All tensors of the source; those that are trained are replaced afterwards. */
static void add_template(dr_out_list *l, const dr_tensor_file *s)
{
    for (size_t i = 0; i < dr_tensor_file_count(s); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(s, i);
        char buf[256];
        const char *name = canonical_name(t->name, buf, sizeof buf);
        if (name == t->name || dr_tensor_file_find(s, name) == NULL) {
            dr_out_add_copy(l, name, s, t);
        }
    }
}

static dr_status fill_single(dr_out_list *l, const dr_model_job *job)
{
    const bool v2 = job->config->v2;
    const bool from_single = job->source != NULL && source_is_single(job->source);
    const dr_clip_layout layout = v2 ? DR_CLIP_OPENCLIP : DR_CLIP_TRANSFORMERS;
    if (from_single) {
        add_template(l, job->source->part[DR_PART_UNET].file);
    }
    const bool has_kl = job->config->vae.kind == DR_VAE_KL;
    const bool wanted[DR_MODEL_PARTS] = {
        [DR_PART_UNET] = !from_single || job->trained[DR_PART_UNET],
        [DR_PART_TEXT_ENCODER] = !from_single || job->trained[DR_PART_TEXT_ENCODER],
        [DR_PART_VAE] = has_kl && (!from_single || job->source->foreign_vae)};
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

/* The run's metadata, then what shapes do not tell. */
static dr_safetensors_meta *join_meta(const dr_model_job *job, dr_arena *arena, size_t *n)
{
    const dr_tensor_file *s = job->source != NULL ? job->source->part[DR_PART_UNET].file : NULL;
    const bool kept_vae = job->config->vae.kind == DR_VAE_TINY;
    const size_t n_source = s != NULL ? dr_tensor_file_meta_count(s) : 0;
    dr_safetensors_meta *all =
        dr_arena_array(arena, job->n_meta + DR_MODEL_MAX_FACTS + n_source, sizeof *all);
    *n = dr_model_facts_write(job->config, arena, all);
    for (size_t i = 0; i < job->n_meta; i++) {
        all[(*n)++] = job->meta[i];
    }
    for (size_t i = 0; kept_vae && i < n_source; i++) { /* facts of the VAE that stays */
        const dr_safetensors_meta m = dr_tensor_file_meta_at(s, i);
        if (dr_str_starts(m.key, "dreamrun.vae.")) {
            all[(*n)++] = m;
        }
    }
    return all;
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
    DR_TRY(format == DR_SAVE_DIFFUSERS ? dr_model_check_directory(path) : check_file(path));
    DR_TRY(dr_outfile_open(&probe, path));
    dr_outfile_abort(&probe);
    return DR_OK;
}

dr_status dr_model_write_single(const dr_model_job *job)
{
    DR_TRY(check_file(job->path));
    dr_out_list l;
    size_t n_meta = 0;
    dr_out_init(&l, job->config, job->values);
    dr_status st = fill_single(&l, job);
    if (st == DR_OK) {
        const dr_safetensors_meta *meta = join_meta(job, &l.arena, &n_meta);
        st = dr_out_write(&l, job->path, meta, n_meta);
    }
    dr_out_deinit(&l);
    return st;
}

/* ---- entry --------------------------------------------------------------------------------- */

dr_status dr_model_file_save(const dr_model_file *f, const dr_model_save *o)
{
    saving s = {.file = f, .dtype = o->dtype};
    s.trained[DR_PART_UNET] = o->unet;
    s.trained[DR_PART_TEXT_ENCODER] = o->text_encoder;
    const dr_model_job job = {.path = o->path,
                              .config = &f->config,
                              .source = f,
                              .values = {value_dtype, value_read, &s},
                              .trained = {o->unet != NULL, o->text_encoder != NULL, false},
                              .meta = o->meta,
                              .n_meta = o->n_meta};
    DR_TRY(dr_model_file_check_save(f, o->format));
    if (o->format == DR_SAVE_DIFFUSERS) {
        return dr_model_write_directory(&job);
    }
    if (f->foreign_vae && f->config.vae.kind == DR_VAE_TINY) {
        dr_warn("%s: a single file cannot hold the tiny VAE of --vae; the VAE of %s is kept",
                o->path, f->path);
    }
    return dr_model_write_single(&job);
}
