#include "apps/tool_init_model.h"

#include "apps/tool_words.h"
#include "train/model/model_presets.h"

#include <stdio.h>

enum { INIT_seed, INIT_format, INIT_OPTION_COUNT };

static const dr_opt_spec init_specs[INIT_OPTION_COUNT] = {
    {.name = "seed",
     .programs = 1,
     .type = DR_OPT_TYPE_INT,
     .def = "0",
     .range = ">=0",
     .unit = "",
     .reason = "",
     .help = "Same seed, same weights."},
    {.name = "format",
     .programs = 1,
     .type = DR_OPT_TYPE_CHOICE,
     .def = NULL,
     .range = "diffusers|safetensors",
     .unit = "",
     .reason = "",
     .help = "A Diffusers directory, or a single checkpoint file; unset: the file when PATH ends "
             "in .safetensors, else the directory."}};

static const char *const program_names[] = {"dreamrun init_model"};

static const dr_opt_table init_table = {.specs = init_specs,
                                        .n = INIT_OPTION_COUNT,
                                        .programs = program_names,
                                        .n_programs = 1,
                                        .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                        .own_first = -1};

static const dr_tool_text text = {
    .usage = "Usage: dreamrun init_model KIND PATH [options]\n\n"
             "Writes a model with random weights. KIND is one of\n"
             "  sd1             Stable Diffusion 1.x, 4.3 GB\n"
             "  sd2, sd2v       Stable Diffusion 2.x: 512 (epsilon), 768 (v), 5.2 GB\n"
             "  tiny            SD 1.x in small: trains in seconds on a CPU\n"
             "  tiny2, tiny2v   SD 2.x in small: epsilon, v\n"
             "A model that is already at PATH is replaced.\n\n",
    .operands = "KIND PATH",
    .n_operands = 2};

static dr_status init_model(const dr_optset *o, const char *kind, const char *path)
{
    dr_model_config config;
    const bool single = dr_opt_given(o, INIT_format) ? dr_opt_is(o, INIT_format, "safetensors")
                                                     : dr_str_ends(path, ".safetensors");
    const dr_model_init init = {.path = path,
                                .format = single ? DR_SAVE_SAFETENSORS : DR_SAVE_DIFFUSERS,
                                .seed = (uint64_t)dr_opt_int(o, INIT_seed)};
    DR_TRY(dr_model_preset(kind, &config));
    DR_TRY(dr_model_write_random(&config, &init));
    (void)printf("%s: %s with random weights; train it with%s%s\n", path, kind,
                 config.v2 ? " --v2" : "out --v2",
                 config.v_prediction ? " --v_parameterization" : "");
    return DR_OK;
}

dr_status dr_tool_init_model(int argc, const char *const *argv)
{
    const char *words[2] = {0};
    dr_optset o;
    dr_optset_init(&o, &init_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, words);
    if (st == DR_OK && !o.help) {
        st = init_model(&o, words[0], words[1]);
    }
    dr_optset_deinit(&o);
    return st;
}
