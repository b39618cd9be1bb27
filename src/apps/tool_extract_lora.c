#include "apps/tool_extract_lora.h"

#include "apps/lora_tools.h"
#include "apps/save_meter.h"
#include "apps/tool_words.h"
#include "base/clock.h"
#include "base/log.h"
#include "train/hub/hub.h"
#include "train/lora/lora_merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXTRACT_model_org,
    EXTRACT_model_tuned,
    EXTRACT_save_to,
    EXTRACT_dim,
    EXTRACT_conv_dim,
    EXTRACT_clamp_quantile,
    EXTRACT_min_diff,
    EXTRACT_v2,
    EXTRACT_v_parameterization,
    EXTRACT_load_precision,
    EXTRACT_save_precision,
    EXTRACT_no_metadata,
    EXTRACT_device,
    EXTRACT_sdxl,
    EXTRACT_OPTION_COUNT
};

static const dr_opt_spec extract_specs[EXTRACT_OPTION_COUNT] = {
    DR_TOOL_OPT(model_org, STR, NULL, "", "",
                "The model before, in every form that train_db reads."),
    DR_TOOL_OPT(model_tuned, STR, NULL, "", "",
                "The model after: the LoRA is what was done to it."),
    DR_TOOL_OPT(save_to, STR, NULL, "", "", "The LoRA: .safetensors, .ckpt, .pt, .pth or .bin."),
    DR_TOOL_OPT(dim, INT, "4", ">=1", "", "Rank; alpha is the rank."),
    DR_TOOL_OPT(
        conv_dim, INT, NULL, ">=1", "",
        "Takes the residual blocks and samplers of the U-Net too, their 3x3 convolutions with "
        "this rank; unset: the transformer blocks only."),
    DR_TOOL_OPT(
        clamp_quantile, FLOAT, "0.99", "0..1", "",
        "Both matrices of a module are clamped at this quantile of all their numbers; 1: not."),
    DR_TOOL_OPT(min_diff, FLOAT, "0.01", ">=0", "",
                "The text encoder is left out when none of its weights differs by more."),
    DR_TOOL_OPT(v2, FLAG, NULL, "", "",
                "The models must be of the SD 2.x family; the tensors show it without the flag."),
    DR_TOOL_OPT(
        v_parameterization, FLAG, NULL, "", "",
        "The metadata says that the models predict v; unset: what the tuned model's files say."),
    DR_TOOL_OPT(load_precision, CHOICE, NULL, DR_PRECISION_RANGE, "",
                "Weights of both models are rounded to it before they are subtracted; unset: not."),
    DR_TOOL_OPT(save_precision, CHOICE, NULL, DR_PRECISION_RANGE, "",
                "Precision of the LoRA; unset: float."),
    DR_TOOL_OPT(no_metadata, FLAG, NULL, "", "",
                "Only the few keys that programs need to use a LoRA."),
    {.name = "device",
     .programs = 1,
     .type = DR_OPT_TYPE_STR,
     .availability = DR_OPT_NOTED,
     .range = "",
     .unit = "",
     .reason = "singular values are computed by LAPACK on the CPU",
     .help = "Of sd-scripts' extract_lora_from_models.py."},
    {.name = "sdxl",
     .programs = 1,
     .type = DR_OPT_TYPE_FLAG,
     .availability = DR_OPT_REFUSED,
     .range = "",
     .unit = "",
     .reason = "only models of Stable Diffusion 1.x and 2.x can be read",
     .help = "Of sd-scripts' extract_lora_from_models.py."}};

static const char *const program_names[] = {"dreamrun extract_lora"};

static const dr_opt_table extract_table = {.specs = extract_specs,
                                           .n = EXTRACT_OPTION_COUNT,
                                           .programs = program_names,
                                           .n_programs = 1,
                                           .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                           .own_first = -1};

static const dr_tool_text text = {
    .usage = "Usage: dreamrun extract_lora --model_org MODEL --model_tuned MODEL --save_to FILE\n"
             "       [options]\n\n"
             "Writes the LoRA that comes nearest to the difference of two models of one shape, by\n"
             "singular values. Weights are read and compared one by one.\n\n",
    .operands = "",
    .n_operands = 0};

typedef struct extraction {
    const dr_optset *o;
    dr_arena arena;
    dr_model_file *org, *tuned;
    dr_lora_set set;
    double kept, total; /* squared Frobenius norms, before clamping */
} extraction;

/* ---- which weights ------------------------------------------------------------------------- */

static bool is_target(const extraction *e, dr_model_part part, const dr_param *p)
{
    if (p->rank < 2) {
        return false;
    }
    if (part == DR_PART_TEXT_ENCODER) {
        return strstr(p->name, ".self_attn.") != NULL || strstr(p->name, ".mlp.") != NULL;
    }
    return strstr(p->name, ".attentions.") != NULL ||
           (dr_opt_given(e->o, EXTRACT_conv_dim) &&
            (strstr(p->name, ".resnets.") != NULL || strstr(p->name, "samplers.") != NULL));
}

static int64_t window_of(const dr_param *p)
{
    return p->rank == 4 ? p->dim[2] * p->dim[3] : 1;
}

static int64_t rank_of(const extraction *e, const dr_param *p)
{
    const int64_t wish =
        window_of(p) > 1 ? dr_opt_int(e->o, EXTRACT_conv_dim) : dr_opt_int(e->o, EXTRACT_dim);
    const int64_t most = p->dim[0] < p->dim[1] ? p->dim[0] : p->dim[1];
    return wish < most ? wish : most;
}

/* ---- differences --------------------------------------------------------------------------- */

static dr_status read_weight(const extraction *e, const dr_model_file *f, dr_model_part part,
                             const dr_param *p, void **out)
{
    const dr_dtype dtype = dr_precision_option(e->o, EXTRACT_load_precision, DR_F32);
    DR_TRY(dr_try_calloc((size_t)p->n, sizeof(float), out));
    DR_TRY(dr_model_file_read(f, part, p, *out));
    dr_round_floats(*out, dtype, (size_t)p->n);
    return DR_OK;
}

/* tuned - org into *out, which the caller frees, on error too; *most: the largest absolute one. */
static dr_status subtract(const extraction *e, dr_model_part part, const dr_param *p, float **out,
                          double *most)
{
    void *before = NULL;
    void *after = NULL;
    dr_status st = read_weight(e, e->org, part, p, &before);
    if (st == DR_OK) {
        st = read_weight(e, e->tuned, part, p, &after);
    }
    *out = after;
    for (int64_t i = 0; st == DR_OK && i < p->n; i++) {
        (*out)[i] -= ((const float *)before)[i];
        const double size = fabs((double)(*out)[i]);
        *most = size > *most ? size : *most;
    }
    free(before);
    return st;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The quantile of all numbers of both factors, between two of them as torch.quantile has it. */
static dr_status find_quantile(const dr_lora_factors *f, double q, float *out)
{
    const size_t n_up = (size_t)(f->shape.out * f->rank);
    const size_t n = n_up + (size_t)(f->rank * dr_lora_columns(&f->shape));
    void *all = NULL;
    DR_TRY(dr_try_calloc(n, sizeof(float), &all));
    float *v = all;
    memcpy(v, f->up, n_up * sizeof *v);
    memcpy(v + n_up, f->down, (n - n_up) * sizeof *v);
    qsort(v, n, sizeof *v, by_size);
    const double at = q * (double)(n - 1);
    const size_t low = (size_t)at;
    const size_t high = low + 1 < n ? low + 1 : low;
    *out = (float)((double)v[low] + (at - (double)low) * ((double)v[high] - (double)v[low]));
    free(all);
    return DR_OK;
}

static void clamp(float *v, int64_t n, float limit)
{
    for (int64_t i = 0; i < n; i++) {
        v[i] = v[i] > limit ? limit : v[i] < -limit ? -limit : v[i];
    }
}

static dr_status clamp_factors(const extraction *e, dr_lora_factors *f)
{
    const double q = dr_opt_float(e->o, EXTRACT_clamp_quantile);
    float limit = 0.0F;
    if (q >= 1.0) {
        return DR_OK;
    }
    DR_TRY(find_quantile(f, q, &limit));
    clamp(f->up, f->shape.out * f->rank, limit);
    clamp(f->down, f->rank * dr_lora_columns(&f->shape), limit);
    return DR_OK;
}

static dr_status add_module(extraction *e, dr_model_part part, const dr_param *p, float *diff)
{
    const dr_lora_shape shape = {
        .out = p->dim[0],
        .in = p->dim[1],
        .kernel = {p->rank == 4 ? p->dim[2] : 1, p->rank == 4 ? p->dim[3] : 1},
        .conv = p->rank == 4};
    dr_str name = {0};
    dr_svd svd = {0};
    dr_lora_factors *f = NULL;
    const bool named = dr_lora_param_module(part, p, &name);
    DR_CHECK(named, "%s is no weight of a LoRA", p->name);
    const int64_t rank = rank_of(e, p);
    dr_status st = dr_svd_dense(diff, shape.out, dr_lora_columns(&shape), rank, &svd);
    if (st == DR_OK) {
        st = dr_lora_add_svd(&e->set, dr_str_get(&name), &shape, &svd, rank, &f);
        e->kept += dr_svd_squares(&svd, rank);
        e->total += dr_svd_squares(&svd, svd.n_values);
    }
    if (st == DR_OK) {
        st = clamp_factors(e, f);
    }
    dr_svd_deinit(&svd);
    dr_str_free(&name);
    return st;
}

/* ---- parts --------------------------------------------------------------------------------- */

static dr_status check_same(const extraction *e, const dr_params *org, const dr_params *tuned)
{
    for (size_t i = 0; i < org->n || i < tuned->n; i++) {
        const dr_param *a = i < org->n ? org->at[i] : NULL;
        const dr_param *b = i < tuned->n ? tuned->at[i] : NULL;
        if (a == NULL || b == NULL || strcmp(a->name, b->name) != 0 || a->n != b->n ||
            a->dim[0] != b->dim[0]) {
            DR_FAIL(DR_FORMAT,
                    "%s and %s are models of different shapes, from %s on: their difference is no "
                    "LoRA",
                    dr_opt_str(e->o, EXTRACT_model_org), dr_opt_str(e->o, EXTRACT_model_tuned),
                    a != NULL ? a->name : b->name);
        }
    }
    return DR_OK;
}

/* The text encoder is told from the same one by the largest difference of its weights. */
static dr_status text_differs(const extraction *e, const dr_params *set, bool *differs)
{
    double most = 0.0;
    for (size_t i = 0; i < set->n; i++) {
        float *diff = NULL;
        if (is_target(e, DR_PART_TEXT_ENCODER, set->at[i])) {
            const dr_status st = subtract(e, DR_PART_TEXT_ENCODER, set->at[i], &diff, &most);
            free(diff);
            DR_TRY(st);
        }
    }
    *differs = most > dr_opt_float(e->o, EXTRACT_min_diff);
    if (!*differs) {
        dr_warn("the text encoders are the same: no weight differs by more than --min_diff %g (the "
                "largest difference is %g); the LoRA is one of the U-Net alone",
                dr_opt_float(e->o, EXTRACT_min_diff), most);
    }
    return DR_OK;
}

static dr_status extract_set(extraction *e, dr_model_part part, const dr_params *set)
{
    dr_save_meter meter = dr_save_meter_begin();
    uint64_t all = 0;
    uint64_t done = 0;
    dr_status st = DR_OK;
    for (size_t i = 0; i < set->n; i++) {
        all += is_target(e, part, set->at[i]) ? (uint64_t)set->at[i]->n * sizeof(float) : 0;
    }
    for (size_t i = 0; st == DR_OK && i < set->n; i++) {
        const dr_param *p = set->at[i];
        float *diff = NULL;
        double most = 0.0;
        if (is_target(e, part, p)) {
            st = subtract(e, part, p, &diff, &most);
            st = st == DR_OK ? add_module(e, part, p, diff) : st;
            free(diff);
            done += (uint64_t)p->n * sizeof(float);
            dr_save_meter_show(&meter, done, all);
        }
    }
    dr_save_meter_end(&meter);
    return st;
}

static dr_status extract_part(extraction *e, dr_model_part part)
{
    dr_params org;
    dr_params tuned;
    bool wanted = true;
    dr_params_init(&org, &e->arena);
    dr_params_init(&tuned, &e->arena);
    dr_model_part_params(dr_model_file_config(e->org), part, &org);
    dr_model_part_params(dr_model_file_config(e->tuned), part, &tuned);
    dr_status st = check_same(e, &org, &tuned);
    if (st == DR_OK && part == DR_PART_TEXT_ENCODER) {
        st = text_differs(e, &org, &wanted);
    }
    if (st == DR_OK && wanted) {
        st = extract_set(e, part, &org);
    }
    dr_params_deinit(&org);
    dr_params_deinit(&tuned);
    return st;
}

/* ---- the run ------------------------------------------------------------------------------- */

static dr_status check_words(const dr_optset *o)
{
    static const int needed[] = {EXTRACT_model_org, EXTRACT_model_tuned, EXTRACT_save_to};
    DR_TRY(dr_optset_check_available(o));
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (dr_opt_str(o, needed[i]) == NULL) {
            DR_FAIL(DR_INVALID, "--%s is missing (see --help)", extract_specs[needed[i]].name);
        }
    }
    return dr_lora_check_target(dr_opt_str(o, EXTRACT_save_to));
}

static dr_status open_model(extraction *e, int option, dr_model_file **out)
{
    dr_model_open_options open = {.path = dr_opt_str(e->o, option)};
    DR_TRY(dr_hub_resolve_model(NULL, &e->arena, &open));
    DR_TRY(dr_model_file_probe(&open, NULL));
    if (dr_opt_flag(e->o, EXTRACT_v2) && !open.v2) {
        DR_FAIL(DR_INVALID,
                "%s: this is a Stable Diffusion 1.x model, but --v2 is given: leave it out",
                open.path);
    }
    return dr_model_file_open(&open, out);
}

/* As sd-scripts names them, all texts. */
static const char *network_args(const extraction *e)
{
    if (!dr_opt_given(e->o, EXTRACT_conv_dim)) {
        return "{}";
    }
    const long long dim = (long long)dr_opt_int(e->o, EXTRACT_conv_dim);
    return dr_arena_printf((dr_arena *)(uintptr_t)&e->arena,
                           "{\"conv_dim\": \"%lld\", \"conv_alpha\": \"%lld.0\"}", dim, dim);
}

static dr_status write_lora(extraction *e)
{
    const dr_model_config *c = dr_model_file_config(e->tuned);
    const char *path = dr_opt_str(e->o, EXTRACT_save_to);
    const bool v = dr_opt_flag(e->o, EXTRACT_v_parameterization) || c->v_prediction;
    dr_metadata m;
    dr_metadata_init(&m);
    dr_lora_set_describe(&e->set, c->v2, v, network_args(e), &m);
    if (!dr_opt_flag(e->o, EXTRACT_no_metadata)) {
        dr_metadata_add_modelspec(&m, &(dr_modelspec){.v2 = c->v2,
                                                      .v_prediction = v,
                                                      .lora = true,
                                                      .output_name = dr_path_title(&e->arena, path),
                                                      .min_timestep = -1,
                                                      .max_timestep = -1,
                                                      .time_s = dr_metadata_now()});
    }
    const dr_status st = dr_lora_set_write(
        &e->set, path, dr_precision_option(e->o, EXTRACT_save_precision, DR_F32), &m);
    dr_metadata_deinit(&m);
    return st;
}

static dr_status extract(extraction *e)
{
    const double start_s = dr_now_s();
    DR_TRY(check_words(e->o));
    DR_TRY(open_model(e, EXTRACT_model_org, &e->org));
    DR_TRY(open_model(e, EXTRACT_model_tuned, &e->tuned));
    DR_TRY(extract_part(e, DR_PART_TEXT_ENCODER));
    DR_TRY(extract_part(e, DR_PART_UNET));
    if (e->total == 0.0) {
        DR_FAIL(DR_FORMAT, "%s and %s do not differ in any weight that a LoRA changes",
                dr_opt_str(e->o, EXTRACT_model_org), dr_opt_str(e->o, EXTRACT_model_tuned));
    }
    DR_TRY(write_lora(e));
    (void)printf("%s: %zu modules, which hold %.4f %% of the norm (Frobenius) of the difference "
                 "before clamping; %.1f s\n",
                 dr_opt_str(e->o, EXTRACT_save_to), e->set.n, 100.0 * sqrt(e->kept / e->total),
                 dr_now_s() - start_s);
    return DR_OK;
}

dr_status dr_tool_extract_lora(int argc, const char *const *argv)
{
    dr_optset o;
    extraction e = {.o = &o};
    dr_arena_init(&e.arena);
    dr_lora_set_init(&e.set);
    dr_optset_init(&o, &extract_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, NULL);
    if (st == DR_OK && !o.help) {
        st = extract(&e);
    }
    dr_model_file_close(e.org);
    dr_model_file_close(e.tuned);
    dr_lora_set_deinit(&e.set);
    dr_optset_deinit(&o);
    dr_arena_deinit(&e.arena);
    return st;
}
