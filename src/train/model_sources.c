/*
 * Which files hold the parts of a model, in every form that is accepted.
 */
#include "base/file.h"
#include "models/unet/unet_names.h"
#include "models/vae/vae_names.h"
#include "train/model_file_internal.h"
#include "train/model_kind.h"

#include <stdlib.h>
#include <string.h>

static bool exists_in(const char *dir, const char *name)
{
    char *path = dr_path_join(dir, name);
    const bool there = dr_path_exists(path);
    free(path);
    return there;
}

static bool is_pickle(const char *path)
{
    static const char *const endings[] = {".ckpt", ".pt", ".pth", ".bin"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (dr_str_ends(path, endings[i])) {
            return true;
        }
    }
    return false;
}

dr_status dr_model_check_path(const char *path)
{
    if (!dr_path_exists(path)) {
        DR_FAIL(DR_INVALID,
                "%s: no such file or directory. A model is a Diffusers directory or a .safetensors "
                "file on this machine; names of models on the Hugging Face hub are not available "
                "yet: download the model and give its path",
                path);
    }
    if (!dr_path_is_dir(path) && is_pickle(path)) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: .ckpt, .pt and .bin files are not available yet: convert the file to "
                ".safetensors",
                path);
    }
    return DR_OK;
}

/* ---- Diffusers directory ------------------------------------------------------------------- */

/* The part's weights in dir. */
static dr_status find_weights(dr_model_file *f, const char *dir, bool text_encoder,
                              const dr_safetensors **out)
{
    const char *stem = text_encoder ? "model" : "diffusion_pytorch_model";
    static const char *const endings[] = {".safetensors", ".fp16.safetensors", ".bf16.safetensors"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const char *name = dr_arena_printf(&f->arena, "%s%s", stem, endings[i]);
        if (exists_in(dir, name)) {
            return dr_model_add_file(f, dr_model_path(f, dir, name), out);
        }
    }
    const char *index = dr_arena_printf(&f->arena, "%s.safetensors.index.json", stem);
    if (exists_in(dir, index)) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: weights split over several files (%s) are not available yet: save the model "
                "again with one file per part (max_shard_size=\"20GB\")",
                dir, index);
    }
    if (exists_in(dir, text_encoder ? "pytorch_model.bin" : "diffusion_pytorch_model.bin")) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: .bin weights are not available yet: convert them to %s.safetensors "
                "(save_pretrained with safe_serialization=True)",
                dir, stem);
    }
    DR_FAIL(DR_FORMAT, "%s: no %s.safetensors in this folder of the model", dir, stem);
}

static dr_status open_folder(dr_model_file *f, dr_model_part part, const char *dir)
{
    dr_part_source *s = &f->part[part];
    *s = (dr_part_source){.form = DR_FORM_DIFFUSERS, .dir = dr_arena_strdup(&f->arena, dir)};
    const char *config = dr_model_path(f, dir, "config.json");
    switch (part) {
    case DR_PART_UNET:
        DR_TRY(dr_unet_config_read(&f->config.unet, config));
        break;
    case DR_PART_TEXT_ENCODER:
        DR_TRY(dr_clip_config_read(&f->config.clip, config));
        break;
    default:
        DR_TRY(dr_autoencoder_config_read(&f->config.vae, config));
        break;
    }
    return find_weights(f, dir, part == DR_PART_TEXT_ENCODER, &s->file);
}

dr_status dr_model_open_directory(dr_model_file *f, bool with_vae)
{
    if (exists_in(f->path, "text_encoder_2")) {
        DR_FAIL(DR_FORMAT,
                "%s: the model has a second text encoder: an SDXL model; only Stable Diffusion 1.x "
                "and 2.x can be trained here",
                f->path);
    }
    if (!exists_in(f->path, "unet") || !exists_in(f->path, "text_encoder")) {
        const bool part = exists_in(f->path, "config.json");
        DR_FAIL(DR_FORMAT,
                "%s: no Diffusers model: expected model_index.json and the folders unet, "
                "text_encoder and vae in this directory%s",
                f->path,
                part ? "; it is one of these folders, so give the directory above it" : "");
    }
    DR_TRY(open_folder(f, DR_PART_UNET, dr_model_path(f, f->path, "unet")));
    DR_TRY(open_folder(f, DR_PART_TEXT_ENCODER, dr_model_path(f, f->path, "text_encoder")));
    if (with_vae) {
        DR_TRY(open_folder(f, DR_PART_VAE, dr_model_path(f, f->path, "vae")));
    }
    f->config.v2 = f->config.clip.act == DR_ACT_GELU;
    const char *scheduler = dr_model_path(f, f->path, "scheduler/scheduler_config.json");
    if (!dr_path_exists(scheduler)) {
        DR_FAIL(DR_FORMAT, "%s: missing; it says what the model predicts", scheduler);
    }
    f->prediction_known = true;
    return dr_prediction_read(&f->config.v_prediction, scheduler);
}

/* ---- single file --------------------------------------------------------------------------- */

static dr_status prefix_path(dr_status st, const dr_safetensors *s)
{
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", dr_safetensors_path(s));
}

static dr_status open_ldm_vae(dr_model_file *f, const dr_safetensors *s, bool bare)
{
    const dr_shape_source shapes = dr_model_shapes(s);
    f->part[DR_PART_VAE] =
        (dr_part_source){.form = bare ? DR_FORM_LDM_BARE : DR_FORM_LDM, .file = s};
    f->config.vae = (dr_autoencoder_config){.kind = DR_VAE_KL};
    DR_TRY(prefix_path(
        dr_vae_config_from_ldm(&f->config.vae.kl, &shapes, bare ? "" : DR_VAE_LDM_PREFIX), s));
    DR_TRY(dr_model_facts_read(&f->config, DR_PART_VAE, NULL, s));
    return prefix_path(dr_autoencoder_config_check(&f->config.vae), s);
}

static dr_status open_ldm_text(dr_model_file *f, const dr_safetensors *s)
{
    const dr_shape_source shapes = dr_model_shapes(s);
    dr_part_source *part = &f->part[DR_PART_TEXT_ENCODER];
    *part = (dr_part_source){.form = DR_FORM_LDM, .file = s};
    if (!dr_clip_find_layout(&shapes, &part->clip_layout)) {
        DR_FAIL(DR_FORMAT,
                "%s: no text encoder (neither cond_stage_model.transformer.* of SD 1.x nor "
                "cond_stage_model.model.* of SD 2.x): %s",
                f->path, dr_model_kind_text(dr_model_kind_of(s)));
    }
    f->config.v2 = part->clip_layout == DR_CLIP_OPENCLIP;
    return prefix_path(dr_clip_config_from_ldm(&f->config.clip, &shapes, part->clip_layout), s);
}

static dr_status check_ldm_config(const dr_model_file *f, const dr_safetensors *s)
{
    if (f->config.clip.heads == 0) {
        DR_FAIL(DR_FORMAT,
                "%s: the text encoder is %lld wide, which is no multiple of 64, so its number of "
                "heads does not show in a single file; use the model's Diffusers directory",
                f->path, (long long)f->config.clip.width);
    }
    DR_TRY(prefix_path(dr_clip_config_check(&f->config.clip), s));
    return prefix_path(dr_unet_config_check(&f->config.unet), s);
}

dr_status dr_model_open_single(dr_model_file *f, bool with_vae)
{
    const dr_safetensors *s = NULL;
    DR_TRY(dr_model_add_file(f, f->path, &s));
    const dr_model_kind kind = dr_model_kind_of(s);
    if (kind != DR_KIND_SD1 && kind != DR_KIND_SD2) {
        DR_FAIL(DR_FORMAT, "%s: %s", f->path, dr_model_kind_text(kind));
    }
    const dr_shape_source shapes = dr_model_shapes(s);
    DR_TRY(open_ldm_text(f, s));
    f->part[DR_PART_UNET] = (dr_part_source){.form = DR_FORM_LDM, .file = s};
    DR_TRY(prefix_path(dr_unet_config_from_ldm(&f->config.unet, &shapes, f->config.v2), s));
    DR_TRY(dr_model_facts_read(&f->config, DR_PART_UNET, &f->prediction_known, s));
    DR_TRY(dr_model_facts_read(&f->config, DR_PART_TEXT_ENCODER, NULL, s));
    DR_TRY(check_ldm_config(f, s));
    return with_vae ? open_ldm_vae(f, s, false) : DR_OK;
}

/* ---- --vae --------------------------------------------------------------------------------- */

static dr_status open_taesd(dr_model_file *f, const char *dir)
{
    dr_part_source *s = &f->part[DR_PART_VAE];
    *s = (dr_part_source){.form = DR_FORM_TAESD};
    f->config.vae = (dr_autoencoder_config){.kind = DR_VAE_TINY, .tiny = dr_taesd_config_default()};
    DR_TRY(dr_model_add_file(f, dr_model_path(f, dir, "taesd_encoder.safetensors"), &s->file));
    return dr_model_add_file(f, dr_model_path(f, dir, "taesd_decoder.safetensors"), &s->decoder);
}

static dr_status open_vae_directory(dr_model_file *f, const char *dir)
{
    if (exists_in(dir, "vae/config.json")) {
        return open_folder(f, DR_PART_VAE, dr_model_path(f, dir, "vae"));
    }
    if (exists_in(dir, "config.json")) {
        return open_folder(f, DR_PART_VAE, dir);
    }
    if (exists_in(dir, "taesd_encoder.safetensors")) {
        return open_taesd(f, dir);
    }
    DR_FAIL(DR_FORMAT,
            "%s: no VAE here: expected config.json with diffusion_pytorch_model.safetensors, a "
            "folder vae, or taesd_encoder.safetensors with taesd_decoder.safetensors",
            dir);
}

/* The directory of a path, in the file's arena. */
static const char *parent_of(dr_model_file *f, const char *path)
{
    const size_t n = (size_t)(dr_path_base(path) - path);
    return n == 0 ? "." : dr_arena_strndup(&f->arena, path, n);
}

dr_status dr_model_open_vae(dr_model_file *f, const char *path)
{
    DR_TRY(dr_model_check_path(path));
    if (dr_path_is_dir(path)) {
        return open_vae_directory(f, path);
    }
    const char *dir = parent_of(f, path);
    if (strcmp(dr_path_base(path), "taesd_encoder.safetensors") == 0) {
        return open_taesd(f, dir);
    }
    const dr_safetensors *s = NULL;
    DR_TRY(dr_model_add_file(f, path, &s));
    if (dr_safetensors_find(s, DR_VAE_LDM_PREFIX "encoder.conv_in.weight") != NULL) {
        return open_ldm_vae(f, s, false);
    }
    if (dr_safetensors_find(s, "encoder.mid.block_1.conv1.weight") != NULL) {
        return open_ldm_vae(f, s, true);
    }
    if (dr_model_kind_of(s) == DR_KIND_VAE && exists_in(dir, "config.json")) {
        return open_folder(f, DR_PART_VAE, dir);
    }
    DR_FAIL(
        DR_FORMAT,
        "%s: no VAE in this file (it holds: %s); expected the tensors of an AutoencoderKL, with "
        "or without first_stage_model., or a Diffusers VAE file beside its config.json",
        path, dr_model_kind_label(dr_model_kind_of(s)));
}
