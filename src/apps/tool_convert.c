#include "apps/tool_convert.h"

#include "apps/save_meter.h"
#include "apps/tool_words.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "train/hub/hub.h"
#include "train/model/model_file.h"

#include <stdio.h>
#include <string.h>

enum {
    CONVERT_to,
    CONVERT_precision,
    CONVERT_vae,
    CONVERT_v2,
    CONVERT_v_parameterization,
    CONVERT_prediction_type,
    CONVERT_OPTION_COUNT
};

static const dr_opt_spec convert_specs[CONVERT_OPTION_COUNT] = {
    DR_TOOL_OPT(to, CHOICE, NULL, "safetensors|ckpt|diffusers_safetensors|diffusers", "",
                "Form of the new model, as --save_model_as names it; unset: what the ending of DST "
                "says (.safetensors, .ckpt), else a Diffusers directory with safetensors."),
    DR_TOOL_OPT(
        precision, CHOICE, NULL, "float|fp16|bf16", "",
        "Precision of U-Net, text encoder and VAE; unset: every tensor keeps its own, bit for "
        "bit. Other tensors of a single file (EMA, schedules) keep theirs always."),
    DR_TOOL_OPT(vae, STR, NULL, "", "", "VAE to put in, in every form that train_db --vae takes."),
    DR_TOOL_OPT(v2, FLAG, NULL, "", "",
                "The model must be of the SD 2.x family; the tensors show it without the flag."),
    DR_TOOL_OPT(v_parameterization, FLAG, NULL, "", "", "Same as --prediction_type v."),
    DR_TOOL_OPT(prediction_type, CHOICE, NULL, "epsilon|v", "",
                "What the model predicts, where its files do not tell or are wrong; the new model "
                "says so.")};

static const char *const program_names[] = {"dreamrun convert"};

static const dr_opt_table convert_table = {.specs = convert_specs,
                                           .n = CONVERT_OPTION_COUNT,
                                           .programs = program_names,
                                           .n_programs = 1,
                                           .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                           .own_first = -1};

static const dr_tool_text text = {
    .usage =
        "Usage: dreamrun convert SRC DST [options]\n\n"
        "Writes the Stable Diffusion 1.x or 2.x model SRC in another form: a single file in\n"
        "the names of the original programs, or a Diffusers directory. What SRC is shows in\n"
        "its bytes. A model that is already at DST is replaced when the new one is complete.\n\n",
    .operands = "SRC DST",
    .n_operands = 2};

/* ---- the job ------------------------------------------------------------------------------- */

static dr_save_format format_of(const dr_optset *o, const char *path)
{
    dr_save_format format = dr_save_format_of_path(path);
    if (dr_opt_given(o, CONVERT_to)) {
        const bool known = dr_save_format_from_name(dr_opt_str(o, CONVERT_to), &format);
        DR_CHECK(known, "--to has the names of the formats");
    }
    return format;
}

/* What the model is by its files, corrected by the options. */
static dr_status settle_flags(const dr_optset *o, dr_model_open_options *open)
{
    bool told = false;
    DR_TRY(dr_model_file_probe(open, &told));
    if (dr_opt_flag(o, CONVERT_v2) && !open->v2) {
        DR_FAIL(DR_INVALID,
                "%s: this is a Stable Diffusion 1.x model, but --v2 is given: leave it out",
                open->path);
    }
    const bool found = open->v_parameterization;
    const bool given = dr_opt_given(o, CONVERT_prediction_type);
    const bool flag = dr_opt_flag(o, CONVERT_v_parameterization);
    if (given && flag && dr_opt_is(o, CONVERT_prediction_type, "epsilon")) {
        DR_FAIL(DR_INVALID, "--v_parameterization contradicts --prediction_type epsilon");
    }
    if (given || flag) {
        open->v_parameterization = flag || dr_opt_is(o, CONVERT_prediction_type, "v");
        open->correct_prediction = true;
    } else if (open->v2 && !told) {
        dr_warn("%s: nothing in the file tells whether it predicts noise (the 512 model) or v (the "
                "768 model); the new one says noise (epsilon). If that is wrong, convert with "
                "--prediction_type v",
                open->path);
    }
    if (told && found != open->v_parameterization) {
        dr_warn("%s: says that it predicts %s; the new model says %s", open->path,
                found ? "v" : "noise (epsilon)",
                open->v_parameterization ? "v" : "noise (epsilon)");
    }
    return DR_OK;
}

static dr_status save(const dr_optset *o, const dr_model_file *f, const char *path,
                      dr_save_meter *m)
{
    const char *precision = dr_opt_str(o, CONVERT_precision);
    const dr_model_save s = {.path = path,
                             .format = format_of(o, path),
                             .dtype = precision == NULL                ? DR_F32
                                      : strcmp(precision, "fp16") == 0 ? DR_F16
                                      : strcmp(precision, "bf16") == 0 ? DR_BF16
                                                                       : DR_F32,
                             .cast_all = precision != NULL,
                             .keep_meta = true,
                             .progress = dr_save_meter_show,
                             .user = m};
    DR_TRY(dr_model_file_check_save(f, s.format));
    DR_TRY(dr_model_check_target(path, s.format));
    return dr_model_file_save(f, &s);
}

static dr_status convert(const dr_optset *o, dr_arena *paths, const char *from, const char *to)
{
    dr_model_file *f = NULL;
    dr_model_open_options open = {.path = from, .vae = dr_opt_str(o, CONVERT_vae)};
    DR_TRY(dr_hub_resolve_model(NULL, paths, &open));
    DR_TRY(settle_flags(o, &open));
    DR_TRY(dr_model_file_open(&open, &f));
    dr_save_meter m = dr_save_meter_begin();
    const dr_status st = save(o, f, to, &m);
    dr_save_meter_end(&m);
    dr_model_file_close(f);
    if (st == DR_OK) {
        (void)printf("%s: Stable Diffusion %s, predicts %s; written in %.1f s\n", to,
                     open.v2 ? "2.x" : "1.x", open.v_parameterization ? "v" : "noise (epsilon)",
                     dr_now_s() - m.start_s);
    }
    return st;
}

dr_status dr_tool_convert(int argc, const char *const *argv)
{
    const char *words[2] = {0};
    dr_optset o;
    dr_arena paths;
    dr_arena_init(&paths);
    dr_optset_init(&o, &convert_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, words);
    if (st == DR_OK && !o.help) {
        st = convert(&o, &paths, words[0], words[1]);
    }
    dr_optset_deinit(&o);
    dr_arena_deinit(&paths);
    return st;
}
