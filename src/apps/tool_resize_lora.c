/*
 * Ranks are chosen as sd-scripts' networks/resize_lora.py chooses them, off-by-one included: the
 * number of values that a rule asks for, and one more.
 */
#include "apps/tool_resize_lora.h"

#include "apps/lora_tools.h"
#include "apps/tool_words.h"
#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RESIZE_model,
    RESIZE_save_to,
    RESIZE_new_rank,
    RESIZE_new_conv_rank,
    RESIZE_dynamic_method,
    RESIZE_dynamic_param,
    RESIZE_save_precision,
    RESIZE_verbose,
    RESIZE_device,
    RESIZE_OPTION_COUNT
};

static const dr_opt_spec resize_specs[RESIZE_OPTION_COUNT] = {
    DR_TOOL_OPT(model, STR, NULL, "", "", "LoRA file, of any dialect that inspect knows."),
    DR_TOOL_OPT(save_to, STR, NULL, "", "",
                "The new file: .safetensors, .ckpt, .pt, .pth or .bin."),
    DR_TOOL_OPT(
        new_rank, INT, "4", ">=1", "",
        "Rank of every module; with --dynamic_method the largest that one may have. No module "
        "gets a larger rank than it has."),
    DR_TOOL_OPT(new_conv_rank, INT, NULL, ">=1", "",
                "The same of convolutions, 1x1 included; unset: --new_rank."),
    DR_TOOL_OPT(
        dynamic_method, CHOICE, NULL, "sv_ratio|sv_fro|sv_cumulative", "",
        "Rank by module: sv_ratio keeps singular values over the largest divided by "
        "--dynamic_param; sv_fro keeps that share of the Frobenius norm; sv_cumulative that "
        "share of the sum of singular values."),
    DR_TOOL_OPT(dynamic_param, FLOAT, NULL, ">0", "",
                "For --dynamic_method: a ratio (2 to 200 are usual), or a share below 1."),
    DR_TOOL_OPT(save_precision, CHOICE, NULL, DR_PRECISION_RANGE, "",
                "Precision of the new file; unset: float."),
    DR_TOOL_OPT(verbose, FLAG, NULL, "", "", "A line for every module."),
    {.name = "device",
     .programs = 1,
     .type = DR_OPT_TYPE_STR,
     .availability = DR_OPT_NOTED,
     .range = "",
     .unit = "",
     .reason = "singular values are computed by LAPACK on the CPU",
     .help = "Of sd-scripts' resize_lora.py."}};

static const char *const program_names[] = {"dreamrun resize_lora"};

static const dr_opt_table resize_table = {.specs = resize_specs,
                                          .n = RESIZE_OPTION_COUNT,
                                          .programs = program_names,
                                          .n_programs = 1,
                                          .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                          .own_first = -1};

static const dr_tool_text text = {
    .usage = "Usage: dreamrun resize_lora --model FILE --save_to FILE [options]\n\n"
             "Writes the LoRA with smaller ranks: each module becomes the nearest one of its new\n"
             "rank. LoCon with a core, LoHa, LoKr and whole differences become LoRA.\n\n",
    .operands = "",
    .n_operands = 0};

typedef struct resizing {
    const dr_optset *o;
    const dr_lora_file *file;
    dr_lora_set set;
    double kept, total;       /* squared Frobenius norms, all modules */
    double least;             /* kept share of a module's norm */
    int64_t old_min, old_max; /* ranks */
} resizing;

/* ---- how many singular values -------------------------------------------------------------- */

/* The first i with (v[0] + .. + v[i]) / sum >= share, of values to a power; n when there is none.
 */
static int64_t first_at(const dr_svd *svd, int power, double share)
{
    double sum = 0.0;
    double so_far = 0.0;
    for (int64_t i = 0; i < svd->n_values; i++) {
        sum += pow(svd->s[i], power);
    }
    for (int64_t i = 0; i < svd->n_values; i++) {
        so_far += pow(svd->s[i], power);
        if (so_far / sum >= share) {
            return i;
        }
    }
    return svd->n_values;
}

static int64_t count_over(const dr_svd *svd, double least)
{
    int64_t n = 0;
    while (n < svd->n_values && svd->s[n] > least) {
        n++;
    }
    return n;
}

static int64_t choose_rank(const resizing *r, const dr_svd *svd, int64_t limit)
{
    const double nothing = 1e-6; /* sd-scripts' MIN_SV */
    const int64_t full = svd->m < svd->n ? svd->m : svd->n;
    int64_t rank = limit;
    if (svd->s[0] <= nothing) {
        return 1;
    }
    if (dr_opt_has(r->o, RESIZE_dynamic_method)) {
        const double p = dr_opt_float(r->o, RESIZE_dynamic_param);
        int64_t index =
            dr_opt_is(r->o, RESIZE_dynamic_method, "sv_ratio") ? count_over(svd, svd->s[0] / p)
            : dr_opt_is(r->o, RESIZE_dynamic_method, "sv_fro") ? first_at(svd, 2, p * p) + 1
                                                               : first_at(svd, 1, p) + 1;
        index = index < full - 1 ? index : full - 1;
        index = index > 1 ? index : 1;
        rank = index + 1 < limit ? index + 1 : limit;
    }
    return rank < svd->k ? rank : svd->k;
}

/* ---- modules ------------------------------------------------------------------------------- */

/* Singular values of the unscaled product, or of the whole delta where the kind has none, then with
 * limit vectors; *scale is what the product counts. */
static dr_status decompose(const dr_lora_file *f, const dr_lora_module *m, int64_t limit,
                           dr_svd *svd, double *scale)
{
    const dr_lora_shape shape = dr_lora_module_shape(m);
    const int64_t cols = dr_lora_columns(&shape);
    const int64_t most = m->out < cols ? m->out : cols;
    void *up = NULL;
    void *down = NULL;
    dr_status st;
    *scale = m->scale;
    if (m->kind != DR_LORA_FACTORS) {
        *scale = 1.0;
        DR_TRY(dr_try_calloc((size_t)(m->out * cols), sizeof(float), &up));
        st = dr_lora_delta(f, m, up);
        st = st == DR_OK ? dr_svd_dense(up, m->out, cols, limit < most ? limit : most, svd) : st;
        free(up);
        return st;
    }
    st = dr_try_calloc((size_t)(m->out * m->rank), sizeof(float), &up);
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)(m->rank * cols), sizeof(float), &down);
    }
    if (st == DR_OK) {
        st = dr_lora_factors_read(f, m, up, down);
    }
    if (st == DR_OK) {
        st = dr_svd_product(up, down, m->out, cols, m->rank, svd);
    }
    free(up);
    free(down);
    return st;
}

static void account(resizing *r, const dr_lora_module *m, const dr_svd *svd, double scale,
                    int64_t rank)
{
    const double kept = dr_svd_squares(svd, rank);
    const double total = dr_svd_squares(svd, svd->n_values);
    const double share = total > 0.0 ? sqrt(kept / total) : 1.0;
    r->kept += scale * scale * kept;
    r->total += scale * scale * total;
    r->least = share < r->least ? share : r->least;
    r->old_max = m->rank > r->old_max ? m->rank : r->old_max;
    r->old_min = r->old_min == 0 || m->rank < r->old_min ? m->rank : r->old_min;
    if (dr_opt_flag(r->o, RESIZE_verbose)) {
        (void)printf("%-80s rank %lld to %lld, keeps %.2f %% of its norm (Frobenius), largest / "
                     "smallest singular value %.4g\n",
                     m->name, (long long)m->rank, (long long)rank, 100.0 * share,
                     svd->s[rank - 1] > 0.0 ? svd->s[0] / svd->s[rank - 1] : (double)INFINITY);
    }
}

static dr_status resize_module(resizing *r, const dr_lora_module *m)
{
    const dr_lora_shape shape = dr_lora_module_shape(m);
    const int64_t new_rank = dr_opt_int(r->o, RESIZE_new_rank);
    const int64_t limit =
        shape.conv ? dr_opt_int_or(r->o, RESIZE_new_conv_rank, new_rank) : new_rank;
    dr_svd svd = {0};
    double scale = 1.0;
    dr_lora_factors *out = NULL;
    if (m->part[DR_LORA_MAGNITUDE] != NULL) {
        DR_FAIL(DR_UNSUPPORTED,
                "module %s is a DoRA, whose effect depends on the model's weights: it has no rank "
                "that could be cut",
                m->source);
    }
    DR_TRY(dr_lora_check_factors(m));
    DR_TRY(decompose(r->file, m, limit, &svd, &scale));
    const int64_t rank = choose_rank(r, &svd, limit);
    const dr_status st = dr_lora_add_svd(&r->set, m->name, &shape, &svd, rank, &out);
    if (st == DR_OK) {
        out->alpha = scale * (double)rank;
        account(r, m, &svd, scale, rank);
    }
    dr_svd_deinit(&svd);
    return st;
}

/* ---- the file ------------------------------------------------------------------------------ */

static void add_comment(const resizing *r, dr_metadata *m)
{
    char from[48];
    const char *before = dr_metadata_get(m, "ss_training_comment");
    const long long rank = (long long)dr_opt_int(r->o, RESIZE_new_rank);
    const long long conv = (long long)dr_opt_int_or(r->o, RESIZE_new_conv_rank, rank);
    dr_str s = {0};
    (void)snprintf(from, sizeof from, r->old_min == r->old_max ? "%lld" : "%lld-%lld",
                   (long long)r->old_min, (long long)r->old_max);
    if (dr_opt_has(r->o, RESIZE_dynamic_method)) {
        dr_str_printf(&s, "Dynamic resize with %s: %s from %s; ",
                      dr_opt_str(r->o, RESIZE_dynamic_method),
                      r->o->values[RESIZE_dynamic_param].text, from);
    } else {
        dr_str_printf(&s, "dimension is resized from %s to %lld", from, rank);
        if (conv != rank) {
            dr_str_printf(&s, " (conv: %lld)", conv);
        }
        dr_str_add(&s, "; ");
    }
    dr_str_add(&s, before != NULL && strcmp(before, "None") != 0 ? before : "");
    dr_metadata_add(m, "ss_training_comment", dr_str_get(&s));
    dr_str_free(&s);
}

/* What the source says of itself, but for hashes and the keys of the container. */
static void keep_meta(const dr_tensor_file *f, dr_metadata *m)
{
    for (size_t i = 0; i < dr_tensor_file_meta_count(f); i++) {
        const dr_safetensors_meta at = dr_tensor_file_meta_at(f, i);
        const bool known = dr_str_starts(at.key, "ss_") || dr_str_starts(at.key, "modelspec.");
        if (known && strcmp(at.key, DR_MODELSPEC_HASH) != 0) {
            dr_metadata_add(m, at.key, at.value);
        }
    }
}

static dr_status write_resized(const resizing *r)
{
    bool v2 = false;
    bool v_prediction = false;
    dr_metadata m;
    dr_metadata_init(&m);
    keep_meta(dr_lora_file_tensors(r->file), &m);
    dr_lora_family(r->file, &v2, &v_prediction);
    dr_lora_set_describe(&r->set, v2, v_prediction, NULL, &m);
    add_comment(r, &m);
    const char *path = dr_opt_str(r->o, RESIZE_save_to);
    const dr_status st = dr_lora_set_write(
        &r->set, path, dr_precision_option(r->o, RESIZE_save_precision, DR_F32), &m);
    if (st == DR_OK) {
        (void)printf("%s: %zu modules, rank %s; keeps %.4f %% of the norm (Frobenius), the least "
                     "of a module %.2f %%\n",
                     path, r->set.n, dr_metadata_get(&m, "ss_network_dim"),
                     r->total > 0.0 ? 100.0 * sqrt(r->kept / r->total) : 100.0, 100.0 * r->least);
    }
    dr_metadata_deinit(&m);
    return st;
}

static dr_status check_words(const dr_optset *o)
{
    DR_TRY(dr_optset_check_available(o));
    if (dr_opt_str(o, RESIZE_model) == NULL || dr_opt_str(o, RESIZE_save_to) == NULL) {
        DR_FAIL(DR_INVALID, "%s is missing (see --help)",
                dr_opt_str(o, RESIZE_model) == NULL ? "--model" : "--save_to");
    }
    const bool dynamic = dr_opt_has(o, RESIZE_dynamic_method);
    if (dynamic != dr_opt_has(o, RESIZE_dynamic_param)) {
        DR_FAIL(DR_INVALID, "--dynamic_method and --dynamic_param belong together: give both or "
                            "neither");
    }
    if (dynamic) {
        const bool ratio = dr_opt_is(o, RESIZE_dynamic_method, "sv_ratio");
        const double p = dr_opt_float(o, RESIZE_dynamic_param);
        if (ratio ? p < 1.0 : p > 1.0) {
            DR_FAIL(DR_INVALID, "--dynamic_param %g: %s", p,
                    ratio ? "sv_ratio takes a ratio of at least 1"
                          : "sv_fro and sv_cumulative take a share of at most 1");
        }
    }
    return dr_lora_check_target(dr_opt_str(o, RESIZE_save_to));
}

static dr_status resize(resizing *r)
{
    dr_lora_file *f = NULL;
    DR_TRY(check_words(r->o));
    DR_TRY(dr_lora_tool_open(dr_opt_str(r->o, RESIZE_model), &f));
    r->file = f;
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < dr_lora_file_count(f); i++) {
        st = resize_module(r, dr_lora_file_at(f, i));
    }
    if (st != DR_OK) {
        st = dr_error_prefix(st, "%s", dr_opt_str(r->o, RESIZE_model));
    } else {
        st = write_resized(r);
    }
    dr_lora_file_close(f);
    return st;
}

dr_status dr_tool_resize_lora(int argc, const char *const *argv)
{
    dr_optset o;
    resizing r = {.o = &o, .least = 1.0};
    dr_lora_set_init(&r.set);
    dr_optset_init(&o, &resize_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, NULL);
    if (st == DR_OK && !o.help) {
        st = resize(&r);
    }
    dr_lora_set_deinit(&r.set);
    dr_optset_deinit(&o);
    return st;
}
