#include "apps/options.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

enum { TRAIN_DB = 1 << DR_PROGRAM_TRAIN_DB, TRAIN_NETWORK = 1 << DR_PROGRAM_TRAIN_NETWORK };
enum { BOTH = TRAIN_DB | TRAIN_NETWORK };

static const dr_opt_spec option_specs[DR_OPTION_COUNT] = {
#define GROUP(id, title) {.help = title},
#define OPT(name_, programs_, type_, def_, range_, unit_, a_, why_, help_)                         \
    OPT_AS(name_, #name_, programs_, type_, def_, range_, unit_, a_, why_, help_)
#define OPT_AS(id_, name_, programs_, type_, def_, range_, unit_, a_, why_, help_)                 \
    {.name = (name_),                                                                              \
     .programs = (programs_),                                                                      \
     .type = DR_OPT_TYPE_##type_,                                                                  \
     .def = (def_),                                                                                \
     .range = (range_),                                                                            \
     .unit = (unit_),                                                                              \
     .availability = DR_OPT_##a_,                                                                  \
     .reason = (why_),                                                                             \
     .help = (help_)},
#include "apps/option_list.def"
#undef GROUP
#undef OPT
#undef OPT_AS
};

static const char *const program_names[] = {"train_db", "train_network"};

static const dr_opt_table option_table = {
    .specs = option_specs,
    .n = DR_OPTION_COUNT,
    .programs = program_names,
    .n_programs = 2,
    .syntax = DR_OPT_PREFIXES,
    .own_first = DR_OPT_GROUP_own,
};

const dr_opt_table *dr_options_table(void)
{
    return &option_table;
}

void dr_options_init(dr_options *o, dr_program program)
{
    dr_optset_init(o, &option_table, (int)program);
}

void dr_options_deinit(dr_options *o)
{
    dr_optset_deinit(o);
}

dr_status dr_options_parse(dr_options *o, int argc, const char *const *argv)
{
    DR_TRY(dr_optset_parse(o, argc, argv, NULL));
    return DR_OK;
}

void dr_options_help(dr_program program, dr_str *out)
{
    static const char *const what[] = {
        "Fine-tunes Stable Diffusion 1.x or 2.x on your own pictures (DreamBooth).",
        "Trains a LoRA for Stable Diffusion 1.x or 2.x on your own pictures."};
    dr_str_printf(out,
                  "Usage: %s --pretrained_model_name_or_path MODEL --train_data_dir DIR\n"
                  "       --resolution SIZE --output_dir DIR [options]\n\n%s\n"
                  "Values follow as --option value or --option=value; names may be shortened as\n"
                  "long as they stay unambiguous.\n",
                  program_names[program], what[program]);
    dr_options o;
    dr_options_init(&o, program);
    dr_optset_help(&o, out);
    dr_options_deinit(&o);
}

/* --- options that exclude or need each other ------------------------------------------------ */

static bool is_on(const dr_options *o, int id)
{
    bool ours = (option_specs[id].programs >> (unsigned)o->program & 1U) != 0;
    return ours && dr_opt_given(o, id);
}

static dr_status check_exclusions(const dr_options *o)
{
    static const struct {
        int a, b;
        const char *why;
    } rules[] = {
        {DR_OPT_cache_latents, DR_OPT_color_aug, "cached latents cannot change from use to use"},
        {DR_OPT_cache_latents, DR_OPT_random_crop, "cached latents cannot change from use to use"},
        {DR_OPT_cache_latents_to_disk, DR_OPT_color_aug,
         "cached latents cannot change from use to use"},
        {DR_OPT_cache_latents_to_disk, DR_OPT_random_crop,
         "cached latents cannot change from use to use"},
        {DR_OPT_use_8bit_adam, DR_OPT_use_lion_optimizer, "both choose the optimizer"},
        {DR_OPT_use_8bit_adam, DR_OPT_optimizer_type, "both choose the optimizer"},
        {DR_OPT_use_lion_optimizer, DR_OPT_optimizer_type, "both choose the optimizer"},
        {DR_OPT_no_token_padding, DR_OPT_max_token_length,
         "long captions are cut into padded rows"},
        {DR_OPT_v_pred_like_loss, DR_OPT_v_parameterization, "the loss is that of v already"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (is_on(o, rules[i].a) && is_on(o, rules[i].b)) {
            DR_FAIL(DR_INVALID, "--%s and --%s exclude each other: %s; leave one out",
                    option_specs[rules[i].a].name, option_specs[rules[i].b].name, rules[i].why);
        }
    }
    return DR_OK;
}

static dr_status check_full(const dr_options *o, int option, const char *precision)
{
    if (is_on(o, option) && !dr_opt_is(o, DR_OPT_mixed_precision, precision)) {
        DR_FAIL(DR_INVALID, "--full_%s needs --mixed_precision %s, found %s", precision, precision,
                dr_opt_str(o, DR_OPT_mixed_precision));
    }
    return DR_OK;
}

static dr_status check_companions(const dr_options *o)
{
    static const struct {
        int option, needs;
    } rules[] = {
        {DR_OPT_adaptive_noise_scale, DR_OPT_noise_offset},
        {DR_OPT_scale_v_pred_loss_like_noise_pred, DR_OPT_v_parameterization},
        {DR_OPT_dump_steps, DR_OPT_dump_dir},
        {DR_OPT_profile_steps, DR_OPT_profile},
        {DR_OPT_conditioning_data_dir, DR_OPT_masked_loss},
        {DR_OPT_full_fp16, DR_OPT_mixed_precision},
        {DR_OPT_full_bf16, DR_OPT_mixed_precision},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (is_on(o, rules[i].option) && !is_on(o, rules[i].needs)) {
            DR_FAIL(DR_INVALID, "--%s needs --%s too", option_specs[rules[i].option].name,
                    option_specs[rules[i].needs].name);
        }
    }
    DR_TRY(check_full(o, DR_OPT_full_fp16, "fp16"));
    return check_full(o, DR_OPT_full_bf16, "bf16");
}

/* When sample pictures are drawn, and of what. */
static dr_status check_samples(const dr_options *o)
{
    static const int times[] = {DR_OPT_sample_every_n_steps, DR_OPT_sample_every_n_epochs};
    bool any = dr_opt_flag(o, DR_OPT_sample_at_first);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        const bool on = dr_opt_int_or(o, times[i], 0) > 0;
        if (dr_opt_given(o, times[i]) && !on) {
            dr_warn("--%s %lld: below 1, so it draws nothing", option_specs[times[i]].name,
                    (long long)dr_opt_int(o, times[i]));
        }
        any = any || on;
    }
    if (any && !dr_opt_has(o, DR_OPT_sample_prompts)) {
        DR_FAIL(DR_INVALID, "sample pictures need --sample_prompts, a file of prompts");
    }
    if (!any && dr_opt_given(o, DR_OPT_sample_prompts)) {
        dr_warn("--sample_prompts: no pictures are drawn without --sample_every_n_steps, "
                "--sample_every_n_epochs or --sample_at_first");
    }
    return DR_OK;
}

static dr_status check_required(const dr_options *o, unsigned without)
{
    static const struct {
        int id;
        const char *what;
        unsigned unless;
    } required[] = {
        {DR_OPT_pretrained_model_name_or_path, "the model to start from", DR_WITHOUT_MODEL},
        {DR_OPT_train_data_dir, "the folder that holds <repeats>_<class> folders of pictures", 0},
        {DR_OPT_resolution, "the training resolution, for example 512", 0},
        {DR_OPT_output_dir, "the folder for the trained model", DR_WITHOUT_OUTPUT},
    };
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        const char *text = dr_opt_str(o, required[i].id);
        bool of_data =
            required[i].id == DR_OPT_train_data_dir || required[i].id == DR_OPT_resolution;
        if (of_data && dr_opt_has(o, DR_OPT_dataset_config)) {
            continue; /* the file says it */
        }
        if (required[i].id == DR_OPT_train_data_dir && dr_opt_has(o, DR_OPT_in_json)) {
            continue; /* its paths may be whole */
        }
        if ((required[i].unless & without) == 0 && (text == NULL || text[0] == '\0')) {
            DR_FAIL(DR_INVALID, "--%s is missing: %s", option_specs[required[i].id].name,
                    required[i].what);
        }
    }
    return DR_OK;
}

/* --- resolution and buckets ------------------------------------------------------------------ */

static bool take_size(const char *text, size_t n, int *out)
{
    char number[16];
    int64_t v = 0;
    if (n == 0 || n >= sizeof number) {
        return false;
    }
    memcpy(number, text, n);
    number[n] = '\0';
    if (!dr_parse_i64(number, &v) || v < 1 || v > 65536) {
        return false;
    }
    *out = (int)v;
    return true;
}

dr_status dr_options_resolution(const dr_options *o, int *width, int *height)
{
    const char *text = dr_opt_str(o, DR_OPT_resolution);
    DR_CHECK(text != NULL, "--resolution is unset");
    const char *comma = strchr(text, ',');
    size_t n = comma != NULL ? (size_t)(comma - text) : strlen(text);
    const char *second = comma != NULL ? comma + 1 : text;
    if (!take_size(text, n, width) || !take_size(second, strlen(second), height)) {
        DR_FAIL(DR_INVALID,
                "--resolution: found '%s', expected a size in pixels such as 512, or "
                "width,height such as 512,768",
                text);
    }
    if (*width % 64 != 0 || *height % 64 != 0) {
        int bad = *width % 64 != 0 ? *width : *height;
        int below = bad / 64 * 64;
        DR_FAIL(DR_INVALID,
                "--resolution: found %d, expected a multiple of 64; the nearest are %d "
                "and %d",
                bad, below > 0 ? below : 64, below > 0 ? below + 64 : 128);
    }
    return DR_OK;
}

static dr_status check_buckets(const dr_options *o, int width, int height)
{
    int64_t steps = dr_opt_int(o, DR_OPT_bucket_reso_steps);
    if (steps % 64 != 0) {
        DR_FAIL(DR_INVALID,
                "--bucket_reso_steps: found %lld, expected a multiple of 64 with "
                "--enable_bucket",
                (long long)steps);
    }
    if (dr_opt_flag(o, DR_OPT_bucket_no_upscale)) {
        return DR_OK; /* the limits are not used */
    }
    int64_t least = dr_opt_int(o, DR_OPT_min_bucket_reso) / steps * steps;
    int64_t most = (dr_opt_int(o, DR_OPT_max_bucket_reso) + steps - 1) / steps * steps;
    int shorter = width < height ? width : height;
    int longer = width < height ? height : width;
    if (least < 1 || least > shorter) {
        DR_FAIL(DR_INVALID,
                "--min_bucket_reso: found %lld, expected %lld to the shorter side of "
                "--resolution, %d",
                (long long)dr_opt_int(o, DR_OPT_min_bucket_reso), (long long)steps, shorter);
    }
    if (most < longer) {
        DR_FAIL(DR_INVALID,
                "--max_bucket_reso: found %lld, expected at least the longer side of "
                "--resolution, %d",
                (long long)dr_opt_int(o, DR_OPT_max_bucket_reso), longer);
    }
    return DR_OK;
}

/* --- optimizer and schedule ------------------------------------------------------------------ */

dr_status dr_options_optimizer(const dr_options *o, dr_optim_settings *out)
{
    dr_optim_kind kind = DR_OPTIM_ADAMW;
    const char *name = dr_opt_str(o, DR_OPT_optimizer_type);
    if (dr_opt_flag(o, DR_OPT_use_8bit_adam)) {
        kind = DR_OPTIM_ADAMW8BIT;
    } else if (dr_opt_flag(o, DR_OPT_use_lion_optimizer)) {
        kind = DR_OPTIM_LION;
    } else if (name != NULL && name[0] != '\0') {
        DR_TRY(dr_optim_kind_from_name(name, &kind));
    }
    return dr_optim_settings_parse(kind, dr_opt_list(o, DR_OPT_optimizer_args), out);
}

static const char rules_key[] = "step_rules=";

const char *dr_options_lr_rules(const dr_options *o)
{
    const dr_strv *list = dr_opt_list(o, DR_OPT_lr_scheduler_args);
    for (size_t i = 0; i < list->n; i++) {
        if (dr_str_starts(list->at[i], rules_key)) {
            return list->at[i] + strlen(rules_key);
        }
    }
    return NULL;
}

static dr_status check_schedule_args(const dr_options *o)
{
    const dr_strv *list = dr_opt_list(o, DR_OPT_lr_scheduler_args);
    const bool piecewise = dr_opt_is(o, DR_OPT_lr_scheduler, "piecewise_constant");
    for (size_t i = 0; i < list->n; i++) {
        if (!piecewise || !dr_str_starts(list->at[i], rules_key)) {
            DR_FAIL(DR_INVALID,
                    "--lr_scheduler_args: found '%s'; only piecewise_constant has a setting: "
                    "step_rules=1:10,0.1:20,0.01",
                    list->at[i]);
        }
    }
    if (piecewise && dr_options_lr_rules(o) == NULL) {
        DR_FAIL(DR_INVALID, "--lr_scheduler piecewise_constant needs its rules, as in "
                            "--lr_scheduler_args step_rules=1:10,0.1:20,0.01");
    }
    return DR_OK;
}

static dr_status check_schedule(const dr_options *o)
{
    dr_optim_settings optimizer;
    DR_TRY(dr_options_optimizer(o, &optimizer));
    const bool own_rate = optimizer.kind == DR_OPTIM_ADAFACTOR && optimizer.relative_step != 0.0;
    if (own_rate || dr_optim_is_schedule_free(optimizer.kind)) {
        return DR_OK; /* no schedule is used */
    }
    DR_TRY(check_schedule_args(o));
    if (dr_opt_is(o, DR_OPT_lr_scheduler, "adafactor")) {
        DR_FAIL(DR_INVALID, "--lr_scheduler adafactor is for --optimizer_type AdaFactor with "
                            "relative_step=True, which chooses it by itself");
    }
    if (dr_opt_is(o, DR_OPT_lr_scheduler, "cosine_with_min_lr") &&
        !dr_opt_has(o, DR_OPT_lr_scheduler_min_lr_ratio)) {
        DR_FAIL(DR_INVALID, "--lr_scheduler cosine_with_min_lr needs --lr_scheduler_min_lr_ratio");
    }
    bool warm_up = dr_opt_steps(o, DR_OPT_lr_warmup_steps, INT32_MAX) > 0;
    if (dr_opt_is(o, DR_OPT_lr_scheduler, "constant") && warm_up) {
        DR_FAIL(DR_INVALID, "--lr_scheduler constant has no warm-up; use constant_with_warmup, or "
                            "leave --lr_warmup_steps out");
    }
    /* 1e-7 is where diffusers' polynomial schedule ends */
    if (dr_opt_is(o, DR_OPT_lr_scheduler, "polynomial") &&
        !(dr_opt_float(o, DR_OPT_learning_rate) > 1e-7)) {
        DR_FAIL(DR_INVALID,
                "--lr_scheduler polynomial ends at 1e-07, so --learning_rate must be "
                "larger; found %g",
                dr_opt_float(o, DR_OPT_learning_rate));
    }
    return DR_OK;
}

static dr_status check_log(const dr_options *o)
{
    static const int parts[] = {DR_OPT_log_prefix, DR_OPT_log_tracker_name, DR_OPT_log_config};
    const char *tracker = dr_opt_str(o, DR_OPT_log_tracker_name);
    const char *prefix = dr_opt_str(o, DR_OPT_log_prefix);
    const bool logs = dr_opt_has(o, DR_OPT_logging_dir);
    if (dr_opt_is(o, DR_OPT_log_with, "wandb")) {
        DR_FAIL(DR_UNSUPPORTED, "--log_with wandb: there is no client of that service here; use "
                                "tensorboard, whose event files wandb can import");
    }
    if (!logs && dr_opt_given(o, DR_OPT_log_with)) {
        DR_FAIL(DR_INVALID, "--log_with %s needs --logging_dir: the folder for logs",
                dr_opt_str(o, DR_OPT_log_with));
    }
    for (size_t i = 0; !logs && i < sizeof parts / sizeof *parts; i++) {
        if (dr_opt_given(o, parts[i])) {
            dr_warn("--%s changes nothing without --logging_dir", option_specs[parts[i]].name);
        }
    }
    if ((prefix != NULL && strchr(prefix, '/') != NULL) ||
        (tracker != NULL &&
         (strchr(tracker, '/') != NULL || tracker[0] == '\0' || strcmp(tracker, "..") == 0))) {
        DR_FAIL(DR_INVALID, "--log_prefix and --log_tracker_name are names of folders, without /");
    }
    return DR_OK;
}

/* Settings are kept in 32 bits, seeds excepted. */
static dr_status check_sizes(const dr_options *o)
{
    for (int id = 0; id < DR_OPTION_COUNT; id++) {
        const dr_opt_value *v = &o->values[id];
        if (option_specs[id].name != NULL && option_specs[id].type == DR_OPT_TYPE_INT && v->given &&
            v->i > INT32_MAX && strstr(option_specs[id].name, "seed") == NULL) {
            DR_FAIL(DR_INVALID, "--%s: found %s, expected at most %ld", option_specs[id].name,
                    v->text, (long)INT32_MAX);
        }
    }
    return DR_OK;
}

/* --- the check as a whole --------------------------------------------------------------------- */

dr_status dr_options_caption_extension(const dr_options *o, char *buf, size_t size)
{
    bool old = dr_opt_given(o, DR_OPT_caption_extention);
    const char *text = dr_opt_str(o, old ? DR_OPT_caption_extention : DR_OPT_caption_extension);
    int n = snprintf(buf, size, "%s%s", text[0] == '.' ? "" : ".", text);
    if (n < 2 || (size_t)n >= size || strchr(text, '/') != NULL) {
        DR_FAIL(DR_INVALID, "--caption_extension: found '%s', expected an ending such as .txt",
                text);
    }
    return DR_OK;
}

static void apply_implications(dr_options *o)
{
    if (dr_opt_flag(o, DR_OPT_cache_latents_to_disk)) {
        o->values[DR_OPT_cache_latents].i = 1;
    }
    if (dr_opt_flag(o, DR_OPT_v2) && dr_opt_given(o, DR_OPT_clip_skip)) {
        dr_warn("--clip_skip with --v2 is unusual: SD 2.x takes the layer before the last already");
    }
}

dr_status dr_options_check(dr_options *o)
{
    return dr_options_check_without(o, dr_opt_flag(o, DR_OPT_debug_dataset) ? DR_WITHOUT_MODEL : 0);
}

dr_status dr_options_check_without(dr_options *o, unsigned without)
{
    char extension[64];
    dr_optim_settings optimizer;
    int width = 0;
    int height = 0;
    DR_TRY(check_exclusions(o));
    DR_TRY(check_companions(o));
    DR_TRY(check_samples(o));
    DR_TRY(check_sizes(o));
    DR_TRY(check_log(o));
    DR_TRY(dr_optset_check_available(o));
    DR_TRY(check_required(o, without));
    if (dr_opt_has(o, DR_OPT_resolution)) {
        DR_TRY(dr_options_resolution(o, &width, &height));
    }
    if (dr_opt_flag(o, DR_OPT_enable_bucket) && !dr_opt_has(o, DR_OPT_dataset_config)) {
        DR_TRY(check_buckets(o, width, height));
    }
    DR_TRY(dr_options_optimizer(o, &optimizer));
    DR_TRY(check_schedule(o));
    DR_TRY(dr_options_caption_extension(o, extension, sizeof extension));
    apply_implications(o);
    return DR_OK;
}
