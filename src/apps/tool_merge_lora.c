#include "apps/tool_merge_lora.h"

#include "apps/lora_join.h"
#include "apps/lora_tools.h"
#include "apps/save_meter.h"
#include "apps/tool_words.h"
#include "base/clock.h"
#include "base/file.h"
#include "train/hub/hub.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MERGE_sd_model,
    MERGE_save_to,
    MERGE_models,
    MERGE_ratios,
    MERGE_v2,
    MERGE_precision,
    MERGE_save_precision,
    MERGE_no_metadata,
    MERGE_concat,
    MERGE_new_rank,
    MERGE_new_conv_rank,
    MERGE_shuffle,
    MERGE_OPTION_COUNT
};

static const dr_opt_spec merge_specs[MERGE_OPTION_COUNT] = {
    DR_TOOL_OPT(sd_model, STR, NULL, "", "",
                "Model that the LoRAs are put into, in every form that train_db reads; unset: the "
                "LoRAs become one LoRA."),
    DR_TOOL_OPT(save_to, STR, NULL, "", "",
                "The new file: a model as .safetensors or .ckpt, with another name a Diffusers "
                "directory; a LoRA as .safetensors, .ckpt, .pt, .pth or .bin."),
    DR_TOOL_OPT(models, STRS, NULL, "", "", "LoRA files, of any dialect that inspect knows."),
    DR_TOOL_OPT(
        ratios, FLOATS, NULL, "", "",
        "How much of each LoRA, one number for each file; unset: 1 for all. Negative numbers "
        "take a LoRA out. A ratio is exact: 0.5 is half of the effect."),
    DR_TOOL_OPT(v2, FLAG, NULL, "", "",
                "The model must be of the SD 2.x family; the tensors show it without the flag. Of "
                "LoRAs alone: they are for SD 2.x, where their files do not show it."),
    DR_TOOL_OPT(
        precision, CHOICE, NULL, DR_PRECISION_RANGE, "",
        "Weights are rounded to it after each LoRA; the sums themselves are of floats. Unset: "
        "not rounded before they are saved."),
    DR_TOOL_OPT(
        save_precision, CHOICE, NULL, DR_PRECISION_RANGE, "",
        "Precision of the new file. Unset: --precision; without that one too, every tensor of "
        "a model keeps its own, and a LoRA is written as float."),
    DR_TOOL_OPT(no_metadata, FLAG, NULL, "", "",
                "No modelspec metadata; a LoRA keeps the few keys that programs need to use it."),
    DR_TOOL_OPT(
        concat, FLAG, NULL, "", "",
        "LoRAs into one: put them side by side. The result is the exact sum, and its rank is "
        "the sum of the ranks."),
    DR_TOOL_OPT(
        new_rank, INT, NULL, ">=1", "",
        "LoRAs into one, without --concat: rank of the result, which is the nearest LoRA of "
        "that rank to the sum; unset: the largest rank of the files."),
    DR_TOOL_OPT(new_conv_rank, INT, NULL, ">=1", "",
                "The same of 3x3 convolutions; unset: --new_rank."),
    {.name = "shuffle",
     .programs = 1,
     .type = DR_OPT_TYPE_FLAG,
     .availability = DR_OPT_NOTED,
     .range = "",
     .unit = "",
     .reason = "the order of ranks, which it would mix, has no part in the sum that is computed "
               "here",
     .help = "Of sd-scripts' merge_lora.py."}};

static const char *const program_names[] = {"dreamrun merge_lora"};

static const dr_opt_table merge_table = {.specs = merge_specs,
                                         .n = MERGE_OPTION_COUNT,
                                         .programs = program_names,
                                         .n_programs = 1,
                                         .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                         .own_first = -1};

static const dr_tool_text text = {
    .usage =
        "Usage: dreamrun merge_lora --save_to FILE --models FILE... [options]\n\n"
        "Puts LoRAs into the Stable Diffusion 1.x or 2.x model of --sd_model, which then\n"
        "needs no LoRA, or makes one LoRA of several. LoRA, LoCon, LoHa, LoKr, DoRA and whole\n"
        "differences are read, with names of sd-scripts, Diffusers, PEFT or cloneofsimo.\n\n",
    .operands = "",
    .n_operands = 0};

typedef struct merging { /* a run of the tool */
    const dr_optset *o;
    dr_arena arena;
    dr_lora_layer *layer; /* files are owned */
    size_t n;
    const char *save_to;
} merging;

/* ---- the words ----------------------------------------------------------------------------- */

static dr_status check_words(const dr_optset *o)
{
    const size_t n = dr_opt_list(o, MERGE_models)->n;
    const size_t n_ratios = dr_opt_list(o, MERGE_ratios)->n;
    static const int of_loras[] = {MERGE_concat, MERGE_new_rank, MERGE_new_conv_rank};
    DR_TRY(dr_optset_check_available(o));
    if (dr_opt_str(o, MERGE_save_to) == NULL || n == 0) {
        DR_FAIL(DR_INVALID, "%s is missing (see --help)", n == 0 ? "--models" : "--save_to");
    }
    if (dr_opt_given(o, MERGE_ratios) && n_ratios != n) {
        DR_FAIL(DR_INVALID, "--ratios has %zu numbers, but --models has %zu files", n_ratios, n);
    }
    for (size_t i = 0; dr_opt_has(o, MERGE_sd_model) && i < 3; i++) {
        if (dr_opt_given(o, of_loras[i])) {
            DR_FAIL(
                DR_INVALID,
                "--%s is for LoRAs that become one LoRA; with --sd_model the result has no rank",
                merge_specs[of_loras[i]].name);
        }
    }
    if (dr_opt_flag(o, MERGE_concat) &&
        (dr_opt_given(o, MERGE_new_rank) || dr_opt_given(o, MERGE_new_conv_rank))) {
        DR_FAIL(DR_INVALID, "--concat keeps all ranks: leave out --new_rank and --new_conv_rank");
    }
    return DR_OK;
}

static dr_status open_loras(merging *m)
{
    const dr_strv *models = dr_opt_list(m->o, MERGE_models);
    const dr_strv *ratios = dr_opt_list(m->o, MERGE_ratios);
    m->layer = dr_arena_array(&m->arena, models->n, sizeof *m->layer);
    for (size_t i = 0; i < models->n; i++) {
        dr_lora_file *f = NULL;
        double ratio = 1.0;
        if (ratios->n > 0 && (!dr_parse_f64(ratios->at[i], &ratio) || !isfinite(ratio))) {
            DR_FAIL(DR_INVALID, "--ratios: '%s' is no finite number", ratios->at[i]);
        }
        DR_TRY(dr_lora_tool_open(models->at[i], &f));
        m->layer[m->n++] = (dr_lora_layer){f, ratio};
    }
    return DR_OK;
}

static const char *merged_from(merging *m)
{
    const dr_strv *models = dr_opt_list(m->o, MERGE_models);
    const char *base = dr_opt_str(m->o, MERGE_sd_model);
    dr_str s = {0};
    if (base != NULL) {
        dr_str_add(&s, dr_model_title(&m->arena, base));
    }
    for (size_t i = 0; i < models->n; i++) {
        dr_str_printf(&s, "%s%s", s.len > 0 ? ", " : "", dr_model_title(&m->arena, models->at[i]));
    }
    const char *kept = dr_arena_strdup(&m->arena, dr_str_get(&s));
    dr_str_free(&s);
    return kept;
}

static void add_modelspec(merging *m, bool v2, bool v_prediction, dr_metadata *meta)
{
    if (!dr_opt_flag(m->o, MERGE_no_metadata)) {
        dr_metadata_add_modelspec(
            meta, &(dr_modelspec){.v2 = v2,
                                  .v_prediction = v_prediction,
                                  .lora = !dr_opt_has(m->o, MERGE_sd_model),
                                  .output_name = dr_path_title(&m->arena, m->save_to),
                                  .min_timestep = -1,
                                  .max_timestep = -1,
                                  .time_s = dr_metadata_now(),
                                  .texts = {.merged_from = merged_from(m)}});
    }
}

/* ---- into a model -------------------------------------------------------------------------- */

static dr_status check_job(const merging *m, const dr_model_file *f)
{
    const dr_save_format format = dr_save_format_of_path(m->save_to);
    DR_TRY(dr_model_file_check_save(f, format));
    DR_TRY(dr_model_check_target(m->save_to, format));
    for (size_t i = 0; i < m->n; i++) {
        DR_TRY(dr_lora_check_model(m->layer[i].file, dr_model_file_config(f)));
    }
    return DR_OK;
}

static dr_status save_model(merging *m, const dr_model_file *f)
{
    const dr_model_config *c = dr_model_file_config(f);
    const dr_lora_stack stack = {m->layer, m->n,
                                 dr_precision_option(m->o, MERGE_precision, DR_F32)};
    const dr_model_edit edit = dr_lora_stack_edit(&stack);
    const bool cast =
        dr_opt_given(m->o, MERGE_precision) || dr_opt_given(m->o, MERGE_save_precision);
    dr_metadata meta;
    dr_metadata_init(&meta);
    add_modelspec(m, c->v2, c->v_prediction, &meta);
    dr_save_meter meter = dr_save_meter_begin();
    const dr_model_save s = {
        .path = m->save_to,
        .format = dr_save_format_of_path(m->save_to),
        .dtype = dr_precision_option(m->o, MERGE_save_precision,
                                     dr_precision_option(m->o, MERGE_precision, DR_F32)),
        .cast_all = cast,
        .edit = &edit,
        .meta = meta.at,
        .n_meta = meta.n,
        .progress = dr_save_meter_show,
        .user = &meter};
    const dr_status st = dr_model_file_save(f, &s);
    dr_save_meter_end(&meter);
    dr_metadata_deinit(&meta);
    if (st == DR_OK) {
        (void)printf("%s: Stable Diffusion %s with %zu LoRA(s) in it, written in %.1f s\n",
                     m->save_to, c->v2 ? "2.x" : "1.x", m->n, dr_now_s() - meter.start_s);
    }
    return st;
}

static dr_status into_model(merging *m)
{
    dr_model_file *f = NULL;
    dr_model_open_options open = {.path = dr_opt_str(m->o, MERGE_sd_model)};
    DR_TRY(dr_hub_resolve_model(NULL, &m->arena, &open));
    DR_TRY(dr_model_file_probe(&open, NULL));
    if (dr_opt_flag(m->o, MERGE_v2) && !open.v2) {
        DR_FAIL(DR_INVALID,
                "%s: this is a Stable Diffusion 1.x model, but --v2 is given: leave it out",
                open.path);
    }
    DR_TRY(dr_model_file_open(&open, &f));
    dr_status st = check_job(m, f);
    if (st == DR_OK) {
        st = save_model(m, f);
    }
    dr_model_file_close(f);
    return st;
}

/* ---- into one LoRA ------------------------------------------------------------------------- */

/* What the LoRAs are for: as the first says that tells, else by their shapes and --v2. */
static void find_family(const merging *m, bool *v2, bool *v_prediction)
{
    bool any = dr_opt_flag(m->o, MERGE_v2);
    for (size_t i = 0; i < m->n; i++) {
        if (dr_lora_told_family(m->layer[i].file, v2, v_prediction)) {
            return;
        }
        dr_lora_family(m->layer[i].file, v2, v_prediction);
        any = any || *v2;
    }
    *v2 = any;
    *v_prediction = false;
}

static void print_joined(const merging *m, const dr_lora_set *set, const dr_join_report *r)
{
    (void)printf("%s: %zu modules of %zu LoRA(s), %zu of them exact", m->save_to, set->n, m->n,
                 r->exact);
    if (r->cut > 0) {
        (void)printf("; the others keep %.4f %% of their norm (Frobenius) in the rank they have",
                     r->total > 0.0 ? 100.0 * sqrt(r->kept / r->total) : 100.0);
    }
    (void)fputs("\n", stdout);
}

static dr_status save_lora(merging *m, const dr_lora_set *set)
{
    bool v2 = false;
    bool v_prediction = false;
    dr_metadata meta;
    dr_metadata_init(&meta);
    find_family(m, &v2, &v_prediction);
    dr_lora_set_describe(set, v2, v_prediction, NULL, &meta);
    add_modelspec(m, v2, v_prediction, &meta);
    const dr_status st =
        dr_lora_set_write(set, m->save_to,
                          dr_precision_option(m->o, MERGE_save_precision,
                                              dr_precision_option(m->o, MERGE_precision, DR_F32)),
                          &meta);
    dr_metadata_deinit(&meta);
    return st;
}

static dr_status into_lora(merging *m)
{
    const dr_lora_stack stack = {.at = m->layer, .n = m->n};
    const dr_join_options options = {.concat = dr_opt_flag(m->o, MERGE_concat),
                                     .new_rank = dr_opt_int_or(m->o, MERGE_new_rank, 0),
                                     .new_conv_rank = dr_opt_int_or(m->o, MERGE_new_conv_rank, 0)};
    dr_lora_set set;
    dr_join_report report;
    DR_TRY(dr_lora_check_target(m->save_to));
    dr_lora_set_init(&set);
    dr_status st = dr_lora_join(&stack, &options, &set, &report);
    if (st == DR_OK) {
        st = save_lora(m, &set);
    }
    if (st == DR_OK) {
        print_joined(m, &set, &report);
    }
    dr_lora_set_deinit(&set);
    return st;
}

static dr_status merge(merging *m)
{
    DR_TRY(check_words(m->o));
    m->save_to = dr_opt_str(m->o, MERGE_save_to);
    DR_TRY(open_loras(m));
    return dr_opt_has(m->o, MERGE_sd_model) ? into_model(m) : into_lora(m);
}

dr_status dr_tool_merge_lora(int argc, const char *const *argv)
{
    dr_optset o;
    merging m = {.o = &o};
    dr_arena_init(&m.arena);
    dr_optset_init(&o, &merge_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, NULL);
    if (st == DR_OK && !o.help) {
        st = merge(&m);
    }
    for (size_t i = 0; i < m.n; i++) {
        dr_lora_file_close((dr_lora_file *)(uintptr_t)m.layer[i].file);
    }
    dr_optset_deinit(&o);
    dr_arena_deinit(&m.arena);
    return st;
}
