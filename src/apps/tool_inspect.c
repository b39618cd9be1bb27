#include "apps/tool_inspect.h"

#include "apps/inspect_report.h"
#include "apps/tool_words.h"
#include "base/file.h"
#include "train/hub/hub.h"

#include <stdio.h>

enum { INSPECT_json, INSPECT_tensors, INSPECT_hash, INSPECT_OPTION_COUNT };

#define FLAG(word, text)                                                                           \
    {                                                                                              \
        .name = word, .programs = 1, .type = DR_OPT_TYPE_FLAG, .range = "", .unit = "",            \
        .reason = "", .help = text                                                                 \
    }
static const dr_opt_spec inspect_specs[INSPECT_OPTION_COUNT] = {
    FLAG("json", "Prints JSON (docs/inspect.md)."),
    FLAG("tensors", "Lists every tensor: name, dtype, shape, in the order of the file."),
    FLAG("hash", "Reads the whole files and prints their hashes: SHA-256, and as A1111 and civitai "
                 "show them AutoV1, AutoV2, AutoV3. Names official files by them.")};
#undef FLAG

static const char *const program_names[] = {"dreamrun inspect"};

static const dr_opt_table inspect_table = {.specs = inspect_specs,
                                           .n = INSPECT_OPTION_COUNT,
                                           .programs = program_names,
                                           .n_programs = 1,
                                           .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                           .own_first = -1};

static const dr_tool_text text = {
    .usage =
        "Usage: dreamrun inspect FILE|DIR|ID [options]\n\n"
        "Tells what a file of weights (.safetensors, .ckpt, .pt, .bin), a directory with such\n"
        "files or a model of the Hugging Face hub holds: the family of the model, the flags\n"
        "that train it, parts, dtypes, LoRA rank and alpha, metadata; or what is wrong with\n"
        "it. Reads headers only, and runs nothing that is in a file.\n\n",
    .operands = "FILE|DIR|ID",
    .n_operands = 1};

/* A directory with damaged files: all is printed, and the first of them is the error. */
static dr_status check_files(const dr_inspect_report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->files[i].problem != NULL) {
            DR_FAIL(DR_FORMAT, "%s", r->files[i].problem);
        }
    }
    return DR_OK;
}

static dr_status inspect(const dr_optset *o, const char *path)
{
    dr_inspect_report r = {0};
    dr_arena arena;
    const bool tensors = dr_opt_flag(o, INSPECT_tensors);
    dr_arena_init(&arena);
    dr_status st = dr_hub_resolve(&arena, DR_HUB_MODEL, path, &path);
    if (st == DR_OK) {
        st = dr_inspect_gather(&r, path, dr_opt_flag(o, INSPECT_hash));
    }
    if (st == DR_OK) {
        dr_str page = {0};
        if (dr_opt_flag(o, INSPECT_json)) {
            dr_inspect_json(&page, &r, tensors);
        } else {
            dr_inspect_text(&page, &r, tensors);
        }
        (void)fputs(dr_str_get(&page), stdout);
        dr_str_free(&page);
        st = check_files(&r);
    }
    dr_inspect_free(&r);
    dr_arena_deinit(&arena);
    return st;
}

dr_status dr_tool_inspect(int argc, const char *const *argv)
{
    const char *word = NULL;
    dr_optset o;
    dr_optset_init(&o, &inspect_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, &word);
    if (st == DR_OK && !o.help) {
        st = inspect(&o, word);
    }
    dr_optset_deinit(&o);
    return st;
}
