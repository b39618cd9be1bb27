/*
 * Opening, checking and loading. Every parameter of the networks is found in a file by its name in
 * that file's form; nothing is read until it is loaded.
 */
#include "train/model/model_file_internal.h"

#include "base/file.h"
#include "models/unet/unet_names.h"
#include "models/vae/vae_names.h"
#include "text/tokenizer.h"
#include "train/model/model_kind.h"

#include <stdlib.h>
#include <string.h>

const char *dr_model_part_name(dr_model_part part)
{
    static const char *const names[] = {"unet", "text_encoder", "vae"};
    return names[part];
}

const dr_model_config *dr_model_file_config(const dr_model_file *f)
{
    return &f->config;
}

bool dr_model_file_is_directory(const dr_model_file *f)
{
    return f->directory;
}

const char *dr_model_path(dr_model_file *f, const char *dir, const char *name)
{
    char *joined = dr_path_join(dir, name);
    const char *kept = dr_arena_strdup(&f->arena, joined);
    free(joined);
    return kept;
}

dr_status dr_model_add_file(dr_model_file *f, const char *path, const dr_tensor_file **out)
{
    DR_CHECK(f->n_files < DR_MODEL_MAX_FILES, "%s: too many files", path);
    DR_TRY(dr_tensor_file_open(&f->file[f->n_files], path));
    *out = f->file[f->n_files++];
    return DR_OK;
}

static bool shape_of(void *user, const char *name, int *rank, int64_t dim[DR_MAX_RANK])
{
    const dr_file_tensor *t = dr_tensor_file_find(user, name);
    if (t == NULL || t->rank > DR_MAX_RANK) {
        return false;
    }
    *rank = t->rank;
    for (int i = 0; i < t->rank; i++) {
        dim[i] = t->shape[i];
    }
    return true;
}

dr_shape_source dr_model_shapes(const dr_tensor_file *s)
{
    return (dr_shape_source){.shape_of = shape_of, .user = (void *)(uintptr_t)s};
}

/* ---- where a parameter lies ---------------------------------------------------------------- */

void dr_model_part_params(const dr_model_config *c, dr_model_part part, dr_params *set)
{
    if (part == DR_PART_UNET) {
        dr_unet *u = dr_xcalloc(1, sizeof *u); /* large, and only its registry entries matter */
        dr_unet_init(u, &c->unet, set);
        free(u);
    } else if (part == DR_PART_TEXT_ENCODER) {
        dr_clip m;
        dr_clip_init(&m, &c->clip, set);
    } else {
        dr_autoencoder ae;
        dr_autoencoder_init(&ae, &c->vae, set, true, true);
    }
}

static void own_slice(const dr_param *p, dr_file_slice *out)
{
    *out = (dr_file_slice){.rank = p->rank, .n_rows = p->dim[0]};
    memcpy(out->dim, p->dim, sizeof out->dim);
    (void)snprintf(out->name, sizeof out->name, "%s", p->name);
}

void dr_model_ldm_slice(const dr_model_config *c, dr_model_part part, dr_clip_layout layout,
                        const dr_param *p, dr_file_slice *out)
{
    if (part == DR_PART_TEXT_ENCODER) {
        dr_clip_ldm_slice(layout, p, out);
    } else if (part == DR_PART_VAE) {
        dr_vae_ldm_slice(&c->vae.kl, p, out);
    } else {
        own_slice(p, out);
        DR_CHECK(dr_unet_ldm_name(&c->unet, p->name, out->name, sizeof out->name),
                 "unet: %s has no single-file name", p->name);
    }
}

/* The parameter's name and shape in the files of its part, and which of two files. */
static void source_slice(const dr_model_file *f, dr_model_part part, const dr_param *p,
                         dr_file_slice *out, const dr_tensor_file **file)
{
    const dr_part_source *s = &f->part[part];
    *file = s->file;
    own_slice(p, out);
    if (s->form == DR_FORM_TAESD) {
        bool in_decoder = false;
        DR_CHECK(dr_taesd_raw_name(p->name, out->name, sizeof out->name, &in_decoder),
                 "vae: %s has no name in TAESD's files", p->name);
        *file = in_decoder ? s->decoder : s->file;
    } else if (s->form != DR_FORM_DIFFUSERS) {
        dr_model_ldm_slice(&f->config, part, s->clip_layout, p, out);
        if (s->form == DR_FORM_LDM_BARE) {
            (void)dr_name_replace(out->name, sizeof out->name, DR_VAE_LDM_PREFIX, "");
        }
    }
}

/* The tensor by its name or by the other spellings that files have. */
static const dr_file_tensor *find_tensor(const dr_tensor_file *file, dr_model_part part,
                                         const char *name)
{
    char other[192];
    const dr_file_tensor *t = dr_tensor_file_find(file, name);
    if (t == NULL && part == DR_PART_TEXT_ENCODER &&
        dr_clip_other_name(name, other, sizeof other)) {
        t = dr_tensor_file_find(file, other);
    }
    if (t == NULL && part == DR_PART_VAE && dr_vae_other_name(name, other, sizeof other)) {
        t = dr_tensor_file_find(file, other);
    }
    return t;
}

/* Sizes agree but for trailing ones: [C,C] and [C,C,1,1] hold the same numbers. */
static bool same_shape(const dr_file_tensor *t, const dr_file_slice *s)
{
    const int n = t->rank > s->rank ? t->rank : s->rank;
    for (int i = 0; i < n; i++) {
        if ((i < t->rank ? t->shape[i] : 1) != (i < s->rank ? s->dim[i] : 1)) {
            return false;
        }
    }
    return true;
}

static void add_shape(dr_str *out, int rank, const int64_t *dim)
{
    dr_str_add(out, "[");
    for (int i = 0; i < rank; i++) {
        dr_str_printf(out, "%s%lld", i > 0 ? "," : "", (long long)dim[i]);
    }
    dr_str_add(out, "]");
}

static dr_status fail_missing(const dr_model_file *f, dr_model_part part,
                              const dr_tensor_file *file, const dr_file_slice *want)
{
    dr_str shape = {0};
    add_shape(&shape, want->rank, want->dim);
    (void)dr_error_set(DR_FORMAT, __FILE__, __LINE__, "%s: tensor %s %s of the %s is missing: %s",
                       dr_tensor_file_path(file), want->name, dr_str_get(&shape),
                       dr_model_part_name(part),
                       f->part[part].form == DR_FORM_DIFFUSERS
                           ? "the file does not belong to the config.json beside it"
                           : dr_model_kind_text(dr_model_kind_of(file)));
    dr_str_free(&shape);
    return DR_FORMAT;
}

static dr_status fail_shape(dr_model_part part, const dr_tensor_file *file, const dr_file_tensor *t,
                            const dr_file_slice *want)
{
    dr_str found = {0};
    dr_str expected = {0};
    add_shape(&found, t->rank, t->shape);
    add_shape(&expected, want->rank, want->dim);
    const bool conv_in = part == DR_PART_UNET && t->rank == 4 &&
                         (t->shape[1] == 9 || t->shape[1] == 8) && want->dim[1] == 4;
    (void)dr_error_set(DR_FORMAT, __FILE__, __LINE__, "%s: tensor %s is %s, expected %s%s",
                       dr_tensor_file_path_of(file, t), t->name, dr_str_get(&found),
                       dr_str_get(&expected),
                       conv_in ? ": an inpainting or instruct-pix2pix model, which cannot be "
                                 "trained here"
                               : "");
    dr_str_free(&found);
    dr_str_free(&expected);
    return DR_FORMAT;
}

static bool is_floating(const dr_file_tensor *t)
{
    return t->readable &&
           (t->dtype == DR_F64 || t->dtype == DR_F32 || t->dtype == DR_F16 || t->dtype == DR_BF16);
}

dr_status dr_model_place(const dr_model_file *f, dr_model_part part, const dr_param *p,
                         dr_place *out)
{
    dr_file_slice want;
    const dr_tensor_file *file = NULL;
    source_slice(f, part, p, &want, &file);
    const dr_file_tensor *t = find_tensor(file, part, want.name);
    if (t == NULL) {
        return fail_missing(f, part, file, &want);
    }
    if (!same_shape(t, &want)) {
        return fail_shape(part, file, t, &want);
    }
    if (!is_floating(t)) {
        DR_FAIL(DR_FORMAT, "%s: tensor %s has dtype %s, expected F32, F16, BF16 or F64",
                dr_tensor_file_path_of(file, t), t->name, t->dtype_name);
    }
    const size_t row = t->bytes / (size_t)want.dim[0];
    *out = (dr_place){.file = file,
                      .tensor = t,
                      .offset = (size_t)want.first_row * row,
                      .bytes = (size_t)want.n_rows * row};
    return DR_OK;
}

dr_status dr_place_data(const dr_place *place, const void **data)
{
    const void *whole = NULL;
    DR_TRY(dr_tensor_file_data(place->file, place->tensor, &whole));
    *data = (const char *)whole + place->offset;
    return DR_OK;
}

void dr_place_release(const dr_place *place)
{
    dr_tensor_file_release(place->file, place->tensor);
}

/* True when a parameter of the set lies in t. */
static bool is_used(const dr_model_file *f, const dr_params *set, const dr_file_tensor *t)
{
    for (size_t i = 0; i < set->n; i++) {
        dr_place place;
        if (dr_model_place(f, DR_PART_UNET, set->at[i], &place) == DR_OK && place.tensor == t) {
            return true;
        }
    }
    return false;
}

/* The U-Net's file, or its part of a single file, holds nothing that our network lacks. */
static dr_status check_unknown(const dr_model_file *f, const dr_params *set)
{
    const dr_part_source *s = &f->part[DR_PART_UNET];
    const char *prefix = s->form == DR_FORM_LDM ? "model.diffusion_model." : "";
    size_t n = 0;
    for (size_t i = 0; i < dr_tensor_file_count(s->file); i++) {
        n += dr_str_starts(dr_tensor_file_at(s->file, i)->name, prefix) ? 1 : 0;
    }
    for (size_t i = 0; n != set->n && i < dr_tensor_file_count(s->file); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(s->file, i);
        if (dr_str_starts(t->name, prefix) && !is_used(f, set, t)) {
            DR_FAIL(DR_FORMAT,
                    "%s: tensor %s belongs to no part of the network that the other tensors "
                    "describe: not a Stable Diffusion 1.x or 2.x U-Net",
                    dr_tensor_file_path_of(s->file, t), t->name);
        }
    }
    return DR_OK;
}

/* ---- open ---------------------------------------------------------------------------------- */

static dr_status check_part(const dr_model_file *f, dr_model_part part)
{
    dr_arena arena;
    dr_params set;
    dr_place place;
    dr_status st = DR_OK;
    dr_arena_init(&arena);
    dr_params_init(&set, &arena);
    dr_model_part_params(&f->config, part, &set);
    for (size_t i = 0; st == DR_OK && i < set.n; i++) {
        st = dr_model_place(f, part, set.at[i], &place);
    }
    if (st == DR_OK && part == DR_PART_UNET) {
        st = check_unknown(f, &set);
    }
    dr_params_deinit(&set);
    dr_arena_deinit(&arena);
    return st;
}

/* What the trainer needs of the three networks together. */
static dr_status check_config(const dr_model_file *f)
{
    const dr_model_config *c = &f->config;
    const int64_t latent =
        c->vae.kind == DR_VAE_KL ? c->vae.kl.latent_channels : c->vae.tiny.latent_channels;
    if (c->clip.vocab < DR_TOKEN_VOCAB || c->clip.positions < DR_TOKEN_ROW) {
        DR_FAIL(DR_FORMAT,
                "%s: the text encoder has a vocabulary of %lld and %lld positions, expected at "
                "least %d and %d, which CLIP's tokenizer needs",
                f->path, (long long)c->clip.vocab, (long long)c->clip.positions, DR_TOKEN_VOCAB,
                DR_TOKEN_ROW);
    }
    if (c->clip.width != c->unet.context_dim) {
        DR_FAIL(DR_FORMAT,
                "%s: the text encoder is %lld wide, the U-Net's cross attention expects %lld: the "
                "two belong to different models",
                f->path, (long long)c->clip.width, (long long)c->unet.context_dim);
    }
    if (latent != c->unet.in_channels || latent != c->unet.out_channels) {
        DR_FAIL(DR_FORMAT,
                "%s: the VAE's latents have %lld channels, the U-Net has %lld in and %lld out: the "
                "VAE belongs to another model",
                f->path, (long long)latent, (long long)c->unet.in_channels,
                (long long)c->unet.out_channels);
    }
    return DR_OK;
}

static const char *family_flags(bool v2, bool v_parameterization)
{
    if (v2) {
        return v_parameterization ? "--v2 --v_parameterization" : "--v2";
    }
    return v_parameterization ? "--v_parameterization" : "neither --v2 nor --v_parameterization";
}

static dr_status check_family(const dr_model_file *f, const dr_model_open_options *o)
{
    const dr_model_config *c = &f->config;
    if (c->v2 != o->v2) {
        DR_FAIL(DR_INVALID,
                "%s: this is a Stable Diffusion %s model (its text encoder is %s), but --v2 is "
                "%sgiven; use %s",
                f->path, c->v2 ? "2.x" : "1.x",
                c->v2 ? "OpenCLIP's, hidden_act gelu" : "CLIP's, hidden_act quick_gelu",
                o->v2 ? "" : "not ", family_flags(c->v2, c->v_prediction));
    }
    if (f->prediction_by == NULL || o->correct_prediction ||
        c->v_prediction == o->v_parameterization) {
        return DR_OK;
    }
    DR_FAIL(DR_INVALID,
            "%s: %s says that this model predicts %s, but --v_parameterization is %sgiven; use %s",
            f->path, f->prediction_by, c->v_prediction ? "v (v_prediction)" : "noise (epsilon)",
            o->v_parameterization ? "" : "not ", family_flags(c->v2, c->v_prediction));
}

/* Sources and configs, nothing checked against each other. */
static dr_status open_parts(dr_model_file *f, const char *vae)
{
    f->foreign_vae = vae != NULL;
    f->directory = dr_path_is_dir(f->path);
    DR_TRY(f->directory ? dr_model_open_directory(f, vae == NULL)
                        : dr_model_open_single(f, vae == NULL));
    if (vae == NULL) {
        return DR_OK;
    }
    const dr_status st = dr_model_open_vae(f, vae);
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "--vae");
}

static dr_status open_model(dr_model_file *f, const dr_model_open_options *o)
{
    DR_TRY(open_parts(f, o->vae));
    DR_TRY(check_family(f, o));
    f->told_v_prediction = f->config.v_prediction;
    f->config.v_prediction = o->v_parameterization;
    DR_TRY(check_config(f));
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        DR_TRY(check_part(f, (dr_model_part)i));
    }
    return DR_OK;
}

static dr_model_file *create(const char *path)
{
    dr_model_file *f = dr_xcalloc(1, sizeof *f);
    dr_arena_init(&f->arena);
    f->path = dr_arena_strdup(&f->arena, path);
    return f;
}

dr_status dr_model_file_open(const dr_model_open_options *o, dr_model_file **out)
{
    *out = NULL;
    DR_TRY(dr_model_check_path(o->path));
    dr_model_file *f = create(o->path);
    f->threads = o->threads;
    const dr_status st = open_model(f, o);
    if (st != DR_OK) {
        dr_model_file_close(f);
        return dr_error_frame(st, __FILE__, __LINE__);
    }
    *out = f;
    return DR_OK;
}

dr_status dr_model_file_probe(dr_model_open_options *o, bool *told)
{
    DR_TRY(dr_model_check_path(o->path));
    dr_model_file *f = create(o->path);
    const dr_status st = open_parts(f, o->vae);
    if (st == DR_OK) {
        o->v2 = f->config.v2;
        o->v_parameterization = f->config.v_prediction;
        if (told != NULL) {
            *told = f->prediction_by != NULL;
        }
    }
    dr_model_file_close(f);
    return st;
}

void dr_model_file_close(dr_model_file *f)
{
    if (f == NULL) {
        return;
    }
    for (int i = 0; i < f->n_files; i++) {
        dr_tensor_file_close(f->file[i]);
    }
    dr_arena_deinit(&f->arena);
    free(f);
}
