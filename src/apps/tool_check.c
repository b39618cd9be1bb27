#include "apps/tool_check.h"

#include "apps/check_print.h"
#include "apps/config_file.h"
#include "apps/train_settings.h"
#include "base/arena.h"
#include "data/epoch_plan.h"
#include "data/picture_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: dreamrun check [train_db | train_network] [--json] [--deep] [--num_processes N]\n"
    "                      [options of the training]\n\n"
    "Looks at the dataset that a training with these options would use: folders, pictures,\n"
    "captions, buckets, steps. Needs no model. A training shows the same warnings and stops at "
    "the\n"
    "same errors, --deep and duplicates excepted.\n\n"
    "  --json               one JSON object on stdout (docs/check.md)\n"
    "  --deep               decodes every picture, to find damage\n"
    "  --num_processes N    ranks that the steps are counted for; default 1\n\n"
    "Exit codes: 0 no errors (warnings are possible), 64 wrong options, 65 errors in the "
    "dataset.\n";

typedef struct check_words { /* the tool's own words */
    bool json, deep, help;
    int64_t n_ranks;
    dr_program program;
    const char **rest; /* the training's */
    int n_rest;
} check_words;

static dr_status take_ranks(const char *text, int64_t *n)
{
    if (text == NULL || !dr_parse_i64(text, n) || *n < 1 || *n > 4096) {
        DR_FAIL(DR_INVALID, "--num_processes: found '%s', expected a number in 1..4096",
                text != NULL ? text : "");
    }
    return DR_OK;
}

static dr_status split_words(check_words *w, int argc, const char *const *argv)
{
    static const char ranks[] = "--num_processes";
    int i = 0;
    if (argc > 0 && (strcmp(argv[0], "train_db") == 0 || strcmp(argv[0], "train_network") == 0)) {
        w->program =
            strcmp(argv[0], "train_db") == 0 ? DR_PROGRAM_TRAIN_DB : DR_PROGRAM_TRAIN_NETWORK;
        i = 1;
    }
    for (; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            w->json = true;
        } else if (strcmp(argv[i], "--deep") == 0) {
            w->deep = true;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            w->help = true;
        } else if (strcmp(argv[i], ranks) == 0) {
            DR_TRY(take_ranks(i + 1 < argc ? argv[i + 1] : NULL, &w->n_ranks));
            i++;
        } else if (strncmp(argv[i], ranks, sizeof ranks - 1) == 0 &&
                   argv[i][sizeof ranks - 1] == '=') {
            DR_TRY(take_ranks(argv[i] + sizeof ranks, &w->n_ranks));
        } else {
            w->rest[w->n_rest++] = argv[i];
        }
    }
    return DR_OK;
}

static dr_check_options check_options(const check_words *w, const dr_train_config *c,
                                      const dr_dataset *d)
{
    int64_t shards = c->virtual_shards > 0 ? c->virtual_shards : w->n_ranks;
    dr_check_options o = {.caption_extension = c->data.folders.caption_extension,
                          .token_rows = c->n_token_rows,
                          .v2 = c->model.v2,
                          .batch_size = c->batch_size,
                          .n_ranks = (uint32_t)shards,
                          .accumulation = (uint32_t)c->accumulation,
                          .hash = true,
                          .deep = w->deep};
    if (d->n_images > 0) {
        o.steps_per_epoch =
            dr_steps_per_epoch(d, c->batch_size, (uint32_t)(shards * c->accumulation));
        o.n_steps = c->max_epochs > 0 ? c->max_epochs * o.steps_per_epoch : c->max_steps;
    }
    return o;
}

static dr_status print(const check_words *w, const dr_check_result *r)
{
    dr_str text = {0};
    if (w->json) {
        dr_check_print_json(r, &text);
    } else if (r->error == NULL) {
        dr_check_print_text(r, &text);
    }
    (void)fputs(dr_str_get(&text), stdout);
    dr_str_free(&text);
    if (r->report->n_errors > 0) {
        DR_FAIL(DR_FORMAT, "the dataset has %zu error%s; %s", r->report->n_errors,
                r->report->n_errors > 1 ? "s" : "",
                w->json ? "they stand in findings" : "they stand above");
    }
    return DR_OK;
}

static dr_status check(const check_words *w, const dr_train_config *c, dr_arena *arena)
{
    dr_dataset dataset = {0};
    dr_dataset_report report = {0};
    dr_strv warnings = {0};
    dr_error_copy error = {0};
    dr_log_collect_warnings(&warnings);
    dr_status st = dr_dataset_open(arena, &c->data, &dataset);
    dr_log_collect_warnings(NULL);
    if (st != DR_OK) {
        dr_error_export(&error);
        dataset = (dr_dataset){0};
    }
    const dr_check_options o = check_options(w, c, &dataset);
    dr_check_result result = {.dataset = &dataset,
                              .report = &report,
                              .options = &o,
                              .scan_warnings = &warnings,
                              .error = st != DR_OK ? error.message : NULL};
    if (st == DR_OK) {
        result.batches_per_epoch = dr_steps_per_epoch(&dataset, c->batch_size, 1);
        st = dr_dataset_check(&dataset, &o, &report);
    } else {
        for (size_t i = 0; !w->json && i < warnings.n; i++) {
            dr_warn("%s", warnings.at[i]);
        }
    }
    if (st == DR_OK || result.error != NULL) {
        DR_KEEP_FIRST(print(w, &result), st);
    }
    if (result.error != NULL) {
        dr_error_import(&error);
    }
    dr_dataset_report_deinit(&report);
    dr_strv_free(&warnings);
    return st;
}

static dr_status run(const check_words *w)
{
    dr_options o;
    dr_train_config c = {0};
    dr_setting_texts texts = {0};
    dr_arena arena;
    dr_arena_init(&arena);
    dr_options_init(&o, w->program);
    dr_status st = dr_options_parse(&o, w->n_rest, w->rest);
    if (st == DR_OK) {
        st = dr_config_file_read(&o);
    }
    if (st == DR_OK) {
        st = dr_options_check_without(&o, DR_WITHOUT_MODEL | DR_WITHOUT_OUTPUT);
    }
    if (st == DR_OK) {
        st = dr_settings_all(&o, &texts, &c);
    }
    if (st == DR_OK) {
        c.data.folders.probe = dr_picture_check; /* --deep decodes, and goes on after damage */
        st = check(w, &c, &arena);
    }
    dr_setting_texts_free(&texts);
    dr_options_deinit(&o);
    dr_arena_deinit(&arena);
    return st;
}

dr_status dr_tool_check(int argc, const char *const *argv)
{
    check_words w = {.n_ranks = 1, .program = DR_PROGRAM_TRAIN_DB};
    w.rest = dr_xcalloc((size_t)argc + 1, sizeof *w.rest);
    dr_status st = split_words(&w, argc, argv);
    if (st == DR_OK && w.help) {
        (void)fputs(usage, stdout);
    } else if (st == DR_OK) {
        st = run(&w);
    }
    free(w.rest);
    return st;
}
