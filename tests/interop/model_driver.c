/*
 * model_driver COMMAND ...: what train/model_file does, for models_peers.py.
 *   dump  MODEL OUT            every parameter, as loaded, under "unet.", "text_encoder.", "vae."
 *   save  MODEL OUT FORMAT     FORMAT: as --save_model_as; untrained: all tensors are kept
 *   train MODEL OUT FORMAT DTYPE   the same with U-Net and text encoder given as trained values
 *   config MODEL               what the configs of a Diffusers directory (weights or not) say
 *   yaml KIND OUT              the config beside a checkpoint of that kind
 *   names 1|2                  "single-file name <TAB> first row <TAB> part.Diffusers name" of a
 *                              full-size model
 * Options after the command: --v2, --v_parameterization, --vae PATH.
 */
#include "base/arena.h"
#include "base/log.h"
#include "train/model/model_file_internal.h"
#include "train/model/model_output.h"
#include "train/model/model_presets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct part_values { /* one part with bound f32 values */
    dr_arena arena;
    dr_params set;
    float *values;
} part_values;

static void part_close(part_values *v)
{
    free(v->values);
    dr_params_deinit(&v->set);
    dr_arena_deinit(&v->arena);
}

static dr_status part_load(part_values *v, const dr_model_file *f, dr_model_part part)
{
    dr_arena_init(&v->arena);
    dr_params_init(&v->set, &v->arena);
    dr_model_part_params(dr_model_file_config(f), part, &v->set);
    v->values = dr_xcalloc((size_t)v->set.n_elems, sizeof(float));
    dr_params_bind(&v->set, DR_F32, v->values, NULL);
    return dr_model_file_load(f, part, &v->set);
}

/* ---- dump ---------------------------------------------------------------------------------- */

typedef struct dump {
    part_values part[DR_MODEL_PARTS];
    size_t n;
    dr_safetensors_entry *entries;
    const dr_param **params;
} dump;

static dr_status emit_param(void *ctx, dr_safetensors_writer *w, size_t i)
{
    const dump *d = ctx;
    const dr_param *p = d->params[i];
    float *buf = dr_xcalloc((size_t)p->n, sizeof(float));
    dr_param_to_file_order(p, p->value.data, DR_F32, buf, DR_F32);
    const dr_status st = dr_safetensors_writer_write(w, buf, (size_t)p->n * sizeof(float));
    free(buf);
    return st;
}

static dr_status dump_model(const dr_model_file *f, const char *out)
{
    dump d = {0};
    dr_arena names;
    dr_arena_init(&names);
    for (int k = 0; k < DR_MODEL_PARTS; k++) {
        const dr_model_part part = (dr_model_part)k;
        DR_TRY(part_load(&d.part[k], f, part));
        const dr_params *set = &d.part[k].set;
        d.entries = dr_xrealloc(d.entries, d.n + set->n, sizeof *d.entries);
        d.params = dr_xrealloc((void *)d.params, d.n + set->n, sizeof *d.params);
        for (size_t i = 0; i < set->n; i++) {
            const dr_param *p = set->at[i];
            d.params[d.n] = p;
            d.entries[d.n++] = (dr_safetensors_entry){
                .name = dr_arena_printf(&names, "%s.%s", dr_model_part_name(part), p->name),
                .dtype = DR_F32,
                .rank = p->rank,
                .shape = p->dim};
        }
    }
    const dr_safetensors_content content = {.entries = d.entries, .n_entries = d.n};
    const dr_status st = dr_safetensors_write(out, &content, emit_param, &d);
    for (int k = 0; k < DR_MODEL_PARTS; k++) {
        part_close(&d.part[k]);
    }
    free(d.entries);
    free((void *)d.params);
    dr_arena_deinit(&names);
    return st;
}

/* ---- save ---------------------------------------------------------------------------------- */

static dr_status save_model(dr_model_file *f, const char *out, const char *format,
                            const char *dtype)
{
    part_values unet = {0};
    part_values text = {0};
    dr_model_save s = {.path = out, .dtype = DR_F32};
    DR_CHECK(dr_save_format_from_name(format, &s.format), "format %s", format);
    if (dtype != NULL) {
        DR_CHECK(dr_dtype_from_name(dtype, &s.dtype), "dtype %s", dtype);
        DR_TRY(part_load(&unet, f, DR_PART_UNET));
        DR_TRY(part_load(&text, f, DR_PART_TEXT_ENCODER));
        s.unet = &unet.set;
        s.text_encoder = &text.set;
    }
    const dr_status st = dr_model_file_save(f, &s);
    part_close(&unet);
    part_close(&text);
    return st;
}

/* ---- names --------------------------------------------------------------------------------- */

static dr_status print_names(bool v2)
{
    dr_model_config c;
    DR_TRY(dr_model_preset(v2 ? "sd2" : "sd1", &c));
    for (int k = 0; k < DR_MODEL_PARTS; k++) {
        const dr_model_part part = (dr_model_part)k;
        dr_arena arena;
        dr_params set;
        dr_arena_init(&arena);
        dr_params_init(&set, &arena);
        dr_model_part_params(&c, part, &set);
        for (size_t i = 0; i < set.n; i++) {
            dr_file_slice s;
            dr_model_ldm_slice(&c, part, v2 ? DR_CLIP_OPENCLIP : DR_CLIP_TRANSFORMERS, set.at[i],
                               &s);
            printf("%s\t%lld\t%s.%s\n", s.name, (long long)s.first_row, dr_model_part_name(part),
                   set.at[i]->name);
        }
        dr_params_deinit(&set);
        dr_arena_deinit(&arena);
    }
    return DR_OK;
}

/* ---- configs ------------------------------------------------------------------------------- */

static dr_status print_configs(const char *dir)
{
    dr_model_config c = {0};
    dr_arena a;
    dr_arena_init(&a);
    DR_TRY(dr_unet_config_read(&c.unet, dr_arena_printf(&a, "%s/unet/config.json", dir)));
    DR_TRY(dr_clip_config_read(&c.clip, dr_arena_printf(&a, "%s/text_encoder/config.json", dir)));
    DR_TRY(dr_autoencoder_config_read(&c.vae, dr_arena_printf(&a, "%s/vae/config.json", dir)));
    DR_TRY(dr_scheduler_config_read(
        &c, dr_arena_printf(&a, "%s/scheduler/scheduler_config.json", dir)));
    printf("channels %lld..%lld heads %d..%d context %lld layers %d act %s vae %lld v %d\n",
           (long long)c.unet.channels[0], (long long)c.unet.channels[c.unet.n_levels - 1],
           c.unet.heads[0], c.unet.heads[c.unet.n_levels - 1], (long long)c.unet.context_dim,
           c.clip.layers, dr_clip_act_name(c.clip.act), (long long)c.vae.kl.channels[0],
           c.v_prediction ? 1 : 0);
    dr_arena_deinit(&a);
    return DR_OK;
}

static dr_status write_yaml(const char *kind, const char *out)
{
    dr_model_config c;
    bool written = false;
    DR_TRY(dr_model_preset(kind, &c));
    DR_TRY(dr_model_yaml_write(&c, out, &written));
    DR_CHECK(written, "%s can be described", kind);
    return DR_OK;
}

static dr_status run(int argc, char **argv)
{
    enum { MAX_WORDS = 5 };
    const char *word[MAX_WORDS] = {0};
    int n = 0;
    dr_model_open_options o = {0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--v2") == 0) {
            o.v2 = true;
        } else if (strcmp(argv[i], "--v_parameterization") == 0) {
            o.v_parameterization = true;
        } else if (strcmp(argv[i], "--vae") == 0 && i + 1 < argc) {
            o.vae = argv[++i];
        } else if (n < MAX_WORDS) {
            word[n++] = argv[i];
        }
    }
    if (n == 2 && strcmp(word[0], "names") == 0) {
        return print_names(word[1][0] == '2');
    }
    if (n == 2 && strcmp(word[0], "config") == 0) {
        return print_configs(word[1]);
    }
    if (n == 3 && strcmp(word[0], "yaml") == 0) {
        return write_yaml(word[1], word[2]);
    }
    if (n < 3) {
        DR_FAIL(DR_INVALID, "usage: model_driver dump|save|train MODEL OUT [FORMAT [DTYPE]]");
    }
    dr_model_file *f = NULL;
    o.path = word[1];
    DR_TRY(dr_model_file_open(&o, &f));
    const dr_status st = strcmp(word[0], "dump") == 0
                             ? dump_model(f, word[2])
                             : save_model(f, word[2], n > 3 ? word[3] : "", n > 4 ? word[4] : NULL);
    if (st == DR_OK) {
        printf("vae %s\n", dr_model_file_vae_hash(f));
    }
    dr_model_file_close(f);
    return st;
}

int main(int argc, char **argv)
{
    const dr_status st = run(argc, argv);
    if (st != DR_OK) {
        dr_log_error_record();
    }
    return dr_status_exit_code(st);
}
