/*
 * Which files hold the parts of a model, in every form that is accepted.
 */
#include "base/file.h"
#include "models/unet/unet_names.h"
#include "models/vae/vae_names.h"
#include "train/model/model_file_internal.h"
#include "train/model/model_kind.h"

#include <stdlib.h>
#include <string.h>

static bool exists_in(const char *dir, const char *name)
{
    char *path = dr_path_join(dir, name);
    const bool there = dr_path_exists(path);
    free(path);
    return there;
}

dr_status dr_model_check_path(const char *path)
{
    if (!dr_path_exists(path)) {
        DR_FAIL(DR_INVALID,
                "%s: no such file or directory. A model is a Diffusers directory, or a single "
                ".safetensors, .ckpt or .pt file",
                path);
    }
    return DR_OK;
}

/* ---- Diffusers directory ------------------------------------------------------------------- */

enum { NO_WEIGHTS = 1000 };

/* 0 for the variant that is liked best; -1 when text is no variant of a file ("fp16"). */
static int variant_rank(const char *text, size_t n)
{
    if (n == 0 || (n > 4 && memchr(text, '.', n) != NULL)) {
        return -1;
    }
    for (size_t i = 0; i + 4 <= n; i++) {
        if (strncmp(text + i, "-of-", 4) == 0) { /* a shard: its index leads to it */
            return -1;
        }
    }
    return n == 4 && strncmp(text, "fp16", n) == 0   ? 0
           : n == 4 && strncmp(text, "bf16", n) == 0 ? 1
                                                     : 2;
}

/* What stands between start and end of a name, and its length; NULL when it has not both. */
static const char *between(const char *name, const char *start, const char *end, size_t *n)
{
    const size_t a = strlen(start);
    const size_t b = strlen(end);
    const size_t all = strlen(name);
    if (all < a + b || strncmp(name, start, a) != 0 || strcmp(name + all - b, end) != 0) {
        return NULL;
    }
    *n = all - a - b;
    return name + a;
}

/*
 * How much a file of a folder is liked as its weights, the least the best: whole files before sets
 * of shards, .safetensors before .bin, full precision before variants; NO_WEIGHTS for other files.
 */
static int weights_rank(const char *name, bool text_encoder)
{
    static const struct {
        const char *ending, *index, *variant_index;
    } kinds[] = {{".safetensors", ".safetensors.index.json", ".safetensors.index."},
                 {".bin", ".bin.index.json", ".bin.index."}};
    for (int i = 0; i < 2; i++) {
        const char *stem = !text_encoder ? "diffusion_pytorch_model"
                           : i == 0      ? "model"
                                         : "pytorch_model";
        char start[64];
        size_t n = 0;
        const char *rest = between(name, stem, "", &n);
        if (rest != NULL && strcmp(rest, kinds[i].ending) == 0) {
            return 2 * i;
        }
        if (rest != NULL && strcmp(rest, kinds[i].index) == 0) {
            return 2 * i + 1;
        }
        (void)snprintf(start, sizeof start, "%s.", stem);
        const char *variant = between(name, start, kinds[i].ending, &n);
        if (variant == NULL) {
            variant = between(name, start, kinds[i].index, &n);
        }
        if (variant == NULL) {
            (void)snprintf(start, sizeof start, "%s%s", stem, kinds[i].variant_index);
            variant = between(name, start, ".json", &n);
        }
        const int rank = variant != NULL ? variant_rank(variant, n) : -1;
        if (rank >= 0) {
            return 4 + 8 * rank + 4 * i + (dr_str_ends(name, ".json") ? 1 : 0);
        }
    }
    return NO_WEIGHTS;
}

/* The part's weights in dir. */
static dr_status find_weights(dr_model_file *f, const char *dir, bool text_encoder,
                              const dr_tensor_file **out)
{
    dr_strv names = {0};
    const char *best = NULL;
    int best_rank = NO_WEIGHTS;
    DR_TRY(dr_list_dir(dir, &names));
    for (size_t i = 0; i < names.n; i++) {
        const int rank = weights_rank(names.at[i], text_encoder);
        if (rank < best_rank) {
            best_rank = rank;
            best = names.at[i];
        }
    }
    const char *path = best != NULL ? dr_model_path(f, dir, best) : NULL;
    dr_strv_free(&names);
    if (path == NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: no weights in this folder of the model: expected %s.safetensors, %s.bin, or "
                "such files with a variant or an index",
                dir, text_encoder ? "model" : "diffusion_pytorch_model",
                text_encoder ? "pytorch_model" : "diffusion_pytorch_model");
    }
    return dr_model_add_file(f, path, out);
}

/* The part's config in dir; its weights are still to be found. */
static dr_status open_config(dr_model_file *f, dr_model_part part, const char *dir)
{
    const char *config = dr_model_path(f, dir, "config.json");
    f->part[part] =
        (dr_part_source){.form = DR_FORM_DIFFUSERS, .dir = dr_arena_strdup(&f->arena, dir)};
    switch (part) {
    case DR_PART_UNET:
        return dr_unet_config_read(&f->config.unet, config);
    case DR_PART_TEXT_ENCODER:
        return dr_clip_config_read(&f->config.clip, config);
    default:
        return dr_autoencoder_config_read(&f->config.vae, config);
    }
}

static dr_status open_folder(dr_model_file *f, dr_model_part part, const char *dir)
{
    DR_TRY(open_config(f, part, dir));
    return find_weights(f, dir, part == DR_PART_TEXT_ENCODER, &f->part[part].file);
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
    f->prediction_by = "scheduler/scheduler_config.json";
    return dr_scheduler_config_read(&f->config, scheduler);
}

/* ---- single file --------------------------------------------------------------------------- */

static dr_status prefix_path(dr_status st, const dr_tensor_file *s)
{
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", dr_tensor_file_path(s));
}

static dr_status open_ldm_vae(dr_model_file *f, const dr_tensor_file *s, bool bare)
{
    const dr_shape_source shapes = dr_model_shapes(s);
    f->part[DR_PART_VAE] =
        (dr_part_source){.form = bare ? DR_FORM_LDM_BARE : DR_FORM_LDM, .file = s};
    f->config.vae = (dr_autoencoder_config){.kind = DR_VAE_KL};
    DR_TRY(prefix_path(
        dr_vae_config_from_ldm(&f->config.vae.kl, &shapes, bare ? "" : DR_VAE_LDM_PREFIX), s));
    DR_TRY(dr_model_facts_read(&f->config, DR_PART_VAE, s));
    return prefix_path(dr_autoencoder_config_check(&f->config.vae), s);
}

static dr_status open_ldm_text(dr_model_file *f, const dr_tensor_file *s)
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

static dr_status check_ldm_config(const dr_model_file *f, const dr_tensor_file *s)
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
    const dr_tensor_file *s = NULL;
    DR_TRY(dr_model_add_file(f, f->path, &s));
    const dr_model_kind kind = dr_model_kind_of(s);
    if (kind != DR_KIND_SD1 && kind != DR_KIND_SD2) {
        DR_FAIL(DR_FORMAT, "%s: %s", f->path, dr_model_kind_text(kind));
    }
    const dr_shape_source shapes = dr_model_shapes(s);
    DR_TRY(open_ldm_text(f, s));
    f->part[DR_PART_UNET] = (dr_part_source){.form = DR_FORM_LDM, .file = s};
    DR_TRY(prefix_path(dr_unet_config_from_ldm(&f->config.unet, &shapes, f->config.v2), s));
    DR_TRY(dr_model_facts_read(&f->config, DR_PART_UNET, s));
    dr_model_find_prediction(f, s);
    DR_TRY(dr_model_facts_read(&f->config, DR_PART_TEXT_ENCODER, s));
    DR_TRY(check_ldm_config(f, s));
    return with_vae ? open_ldm_vae(f, s, false) : DR_OK;
}

/* ---- --vae --------------------------------------------------------------------------------- */

static const char *const taesd_endings[] = {".safetensors", ".pth", ".pt", ".bin"};
enum { TAESD_ENDINGS = sizeof taesd_endings / sizeof *taesd_endings };

static dr_status open_taesd(dr_model_file *f, const char *dir, const char *ending)
{
    dr_part_source *s = &f->part[DR_PART_VAE];
    *s = (dr_part_source){.form = DR_FORM_TAESD};
    f->config.vae = (dr_autoencoder_config){.kind = DR_VAE_TINY, .tiny = dr_taesd_config_default()};
    const char *encoder = dr_arena_printf(&f->arena, "taesd_encoder%s", ending);
    const char *decoder = dr_arena_printf(&f->arena, "taesd_decoder%s", ending);
    DR_TRY(dr_model_add_file(f, dr_model_path(f, dir, encoder), &s->file));
    return dr_model_add_file(f, dr_model_path(f, dir, decoder), &s->decoder);
}

static dr_status open_vae_directory(dr_model_file *f, const char *dir)
{
    if (exists_in(dir, "vae/config.json")) {
        return open_folder(f, DR_PART_VAE, dr_model_path(f, dir, "vae"));
    }
    if (exists_in(dir, "config.json")) {
        return open_folder(f, DR_PART_VAE, dir);
    }
    for (int i = 0; i < TAESD_ENDINGS; i++) {
        if (exists_in(dir, dr_arena_printf(&f->arena, "taesd_encoder%s", taesd_endings[i]))) {
            return open_taesd(f, dir, taesd_endings[i]);
        }
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

/* Answers for LDM's names out of a file with Diffusers' names, as far as a config is read off. */
static bool shape_by_ldm_name(void *user, const char *name, int *rank, int64_t dim[DR_MAX_RANK])
{
    char buf[160];
    const dr_shape_source own = dr_model_shapes(user);
    (void)snprintf(buf, sizeof buf, "%s", name);
    (void)dr_name_replace(buf, sizeof buf, "encoder.down.", "encoder.down_blocks.");
    (void)dr_name_replace(buf, sizeof buf, ".block.", ".resnets.");
    return dr_shape_find(&own, buf, rank, dim);
}

/* A VAE in Diffusers' names without its config: SD's own, of any size. */
static dr_status open_lone_vae(dr_model_file *f, const dr_tensor_file *s)
{
    const dr_shape_source shapes = {.shape_of = shape_by_ldm_name, .user = (void *)(uintptr_t)s};
    f->part[DR_PART_VAE] = (dr_part_source){.form = DR_FORM_DIFFUSERS, .file = s};
    f->config.vae = (dr_autoencoder_config){.kind = DR_VAE_KL};
    DR_TRY(prefix_path(dr_vae_config_from_ldm(&f->config.vae.kl, &shapes, ""), s));
    DR_TRY(dr_model_facts_read(&f->config, DR_PART_VAE, s));
    return prefix_path(dr_autoencoder_config_check(&f->config.vae), s);
}

static dr_status open_vae_file(dr_model_file *f, const char *path)
{
    const char *dir = parent_of(f, path);
    const char *base = dr_path_base(path);
    for (int i = 0; i < TAESD_ENDINGS; i++) {
        if (dr_str_starts(base, "taesd_encoder") &&
            strcmp(base + strlen("taesd_encoder"), taesd_endings[i]) == 0) {
            return open_taesd(f, dir, taesd_endings[i]);
        }
    }
    const dr_tensor_file *s = NULL;
    DR_TRY(dr_model_add_file(f, path, &s));
    if (dr_tensor_file_find(s, DR_VAE_LDM_PREFIX "encoder.conv_in.weight") != NULL) {
        return open_ldm_vae(f, s, false);
    }
    if (dr_tensor_file_find(s, "encoder.mid.block_1.conv1.weight") != NULL) {
        return open_ldm_vae(f, s, true);
    }
    const dr_model_kind kind = dr_model_kind_of(s);
    if ((kind == DR_KIND_VAE || kind == DR_KIND_TAESD) && exists_in(dir, "config.json")) {
        DR_TRY(open_config(f, DR_PART_VAE, dir));
        f->part[DR_PART_VAE].file = s;
        return DR_OK;
    }
    if (kind == DR_KIND_VAE) {
        return open_lone_vae(f, s);
    }
    DR_FAIL(DR_FORMAT,
            "%s: no VAE in this file (it holds: %s); expected the tensors of an AutoencoderKL in "
            "single-file names, with or without first_stage_model., or in Diffusers' names",
            path, dr_model_kind_label(kind));
}

dr_status dr_model_open_vae(dr_model_file *f, const char *path)
{
    DR_TRY(dr_model_check_path(path));
    return dr_path_is_dir(path) ? open_vae_directory(f, path) : open_vae_file(f, path);
}
