#include "apps/network_facts.h"

#include "train/check/dataset_facts.h"

#include <stdio.h>
#include <string.h>

/* Facts that have the name and the value of an option of every kind of dataset ... */
#define SAME_NAMES(X)                                                                              \
    X(learning_rate)                                                                               \
    X(unet_lr)                                                                                     \
    X(output_name)                                                                                 \
    X(gradient_checkpointing)                                                                      \
    X(lr_scheduler)                                                                                \
    X(network_module)                                                                              \
    X(network_dim)                                                                                 \
    X(network_dropout)                                                                             \
    X(mixed_precision)                                                                             \
    X(full_fp16)                                                                                   \
    X(v2)                                                                                          \
    X(clip_skip)                                                                                   \
    X(max_token_length)                                                                            \
    X(cache_latents)                                                                               \
    X(lowram)                                                                                      \
    X(noise_offset)                                                                                \
    X(multires_noise_iterations)                                                                   \
    X(multires_noise_discount)                                                                     \
    X(adaptive_noise_scale)                                                                        \
    X(zero_terminal_snr)                                                                           \
    X(training_comment)                                                                            \
    X(max_grad_norm)                                                                               \
    X(caption_dropout_rate)                                                                        \
    X(caption_dropout_every_n_epochs)                                                              \
    X(caption_tag_dropout_rate)                                                                    \
    X(face_crop_aug_range)                                                                         \
    X(prior_loss_weight)                                                                           \
    X(min_snr_gamma)                                                                               \
    X(scale_weight_norms)                                                                          \
    X(ip_noise_gamma)                                                                              \
    X(noise_offset_random_strength)                                                                \
    X(ip_noise_gamma_random_strength)                                                              \
    X(loss_type)                                                                                   \
    X(huber_schedule)                                                                              \
    X(huber_scale)                                                                                 \
    X(huber_c)                                                                                     \
    X(fp8_base)                                                                                    \
    X(fp8_base_unet)                                                                               \
    X(validation_seed)                                                                             \
    X(validation_split)                                                                            \
    X(max_validation_steps)                                                                        \
    X(validate_every_n_epochs)                                                                     \
    X(validate_every_n_steps)                                                                      \
    X(resize_interpolation)
/* ... and those of folders that no dataset file names. */
#define FOLDER_NAMES(X)                                                                            \
    X(color_aug)                                                                                   \
    X(flip_aug)                                                                                    \
    X(random_crop)                                                                                 \
    X(shuffle_caption)                                                                             \
    X(enable_bucket)                                                                               \
    X(bucket_no_upscale)                                                                           \
    X(keep_tokens)

static dr_fact fact_of(const dr_options *o, int id)
{
    const dr_opt_spec *spec = &o->table->specs[id];
    if (spec->type == DR_OPT_TYPE_FLAG) {
        return dr_fact_bool(dr_opt_flag(o, id));
    }
    if (!dr_opt_has(o, id)) {
        return dr_fact_none();
    }
    if (spec->type == DR_OPT_TYPE_INT) {
        return dr_fact_int(dr_opt_int(o, id));
    }
    return spec->type == DR_OPT_TYPE_FLOAT ? dr_fact_float(dr_opt_float(o, id))
                                           : dr_fact_text(dr_opt_str(o, id));
}

/* Numbers between commas, in brackets or without: a tuple or a list. */
static void add_python_tuple(dr_str *out, const char *text)
{
    const bool list = text[0] == '[';
    const char *at = text + strspn(text, "([ ");
    const char *between = list ? "[" : "(";
    while (*at != '\0') {
        char item[32];
        double number;
        const size_t n = strcspn(at, ",)] ");
        (void)snprintf(item, sizeof item, "%.*s", (int)n, at);
        if (strpbrk(item, ".eE") != NULL && dr_parse_f64(item, &number)) {
            dr_float_repr(number, item);
        }
        dr_str_printf(out, "%s%s", between, item);
        between = ", ";
        at += n;
        at += strspn(at, ",)] ");
    }
    dr_str_add(out, list ? "]" : ")");
}

/* str() of what Python reads: 1e-7 is 1e-07, 0.9,0.99 is (0.9, 0.99), 'text' is text. */
static void add_python_text(dr_str *out, const char *text)
{
    const size_t n = strlen(text);
    int64_t whole;
    double number;
    char repr[32];
    if (dr_parse_i64(text, &whole)) {
        dr_str_printf(out, "%lld", (long long)whole);
    } else if (dr_parse_f64(text, &number)) {
        dr_float_repr(number, repr);
        dr_str_add(out, repr);
    } else if (n >= 2 && (text[0] == '\'' || text[0] == '"') && text[n - 1] == text[0]) {
        dr_str_printf(out, "%.*s", (int)(n - 2), text + 1);
    } else if (strchr(text, ',') != NULL) {
        add_python_tuple(out, text);
    } else {
        dr_str_add(out, text);
    }
}

/* What sd-scripts' get_optimizer adds to the settings where they do not say it. */
static const char *added_arg(dr_optim_kind kind, const dr_strv *args)
{
    const bool sgd = kind == DR_OPTIM_SGD_NESTEROV || kind == DR_OPTIM_SGD_NESTEROV8BIT;
    const char *added = sgd                          ? "momentum=0.9"
                        : kind == DR_OPTIM_ADAFACTOR ? "relative_step=True"
                                                     : NULL;
    for (size_t i = 0; added != NULL && i < args->n; i++) {
        if (strncmp(args->at[i], added, strcspn(added, "=") + 1) == 0) {
            return NULL;
        }
    }
    return added;
}

/* "torch.optim.adamw.AdamW(weight_decay=0.1)": the class in its Python package, and its settings.
 */
static dr_fact optimizer_fact(const dr_options *o, dr_arena *arena)
{
    static const char *const classes[DR_OPTIM_COUNT] = {
        [DR_OPTIM_ADAMW] = "torch.optim.adamw.AdamW",
        [DR_OPTIM_ADAMW8BIT] = "bitsandbytes.optim.adamw.AdamW8bit",
        [DR_OPTIM_PAGED_ADAMW] = "bitsandbytes.optim.adamw.PagedAdamW",
        [DR_OPTIM_PAGED_ADAMW8BIT] = "bitsandbytes.optim.adamw.PagedAdamW8bit",
        [DR_OPTIM_PAGED_ADAMW32BIT] = "bitsandbytes.optim.adamw.PagedAdamW32bit",
        [DR_OPTIM_LION] = "lion_pytorch.lion_pytorch.Lion",
        [DR_OPTIM_LION8BIT] = "bitsandbytes.optim.lion.Lion8bit",
        [DR_OPTIM_PAGED_LION8BIT] = "bitsandbytes.optim.lion.PagedLion8bit",
        [DR_OPTIM_SGD_NESTEROV] = "torch.optim.sgd.SGD",
        [DR_OPTIM_SGD_NESTEROV8BIT] = "bitsandbytes.optim.sgd.SGD8bit",
        [DR_OPTIM_DADAPTATION] = "dadaptation.experimental.dadapt_adam_preprint.DAdaptAdamPreprint",
        [DR_OPTIM_DADAPT_ADAM_PREPRINT] =
            "dadaptation.experimental.dadapt_adam_preprint.DAdaptAdamPreprint",
        [DR_OPTIM_DADAPT_ADAM] = "dadaptation.dadapt_adam.DAdaptAdam",
        [DR_OPTIM_DADAPT_LION] = "dadaptation.dadapt_lion.DAdaptLion",
        [DR_OPTIM_PRODIGY] = "prodigyopt.prodigy.Prodigy",
        [DR_OPTIM_ADAFACTOR] = "transformers.optimization.Adafactor",
        [DR_OPTIM_RADAM_SCHEDULE_FREE] = "schedulefree.radam_schedulefree.RAdamScheduleFree",
        [DR_OPTIM_ADAMW_SCHEDULE_FREE] = "schedulefree.adamw_schedulefree.AdamWScheduleFree",
        [DR_OPTIM_SGD_SCHEDULE_FREE] = "schedulefree.sgd_schedulefree.SGDScheduleFree",
    };
    dr_optim_settings s = {0};
    const dr_strv *args = dr_opt_list(o, DR_OPT_optimizer_args);
    dr_str text = {0};
    if (dr_options_optimizer(o, &s) != DR_OK) { /* dr_options_check has seen it */
        dr_error_clear();
        return dr_fact_none();
    }
    dr_str_add(&text, classes[s.kind]);
    const char *between = "(";
    for (size_t i = 0; i < args->n; i++) {
        const size_t n = strcspn(args->at[i], "=");
        dr_str_printf(&text, "%s%.*s=", between, (int)n, args->at[i]);
        add_python_text(&text, args->at[i] + n + (args->at[i][n] == '='));
        between = ",";
    }
    if (added_arg(s.kind, args) != NULL) {
        dr_str_printf(&text, "%s%s", between, added_arg(s.kind, args));
        between = ",";
    }
    dr_str_add(&text, between[0] == ',' ? ")" : "");
    const dr_fact fact = dr_fact_text(dr_arena_strdup(arena, dr_str_get(&text)));
    dr_str_free(&text);
    return fact;
}

/* {"conv_dim": "4", "dropout": null} */
static dr_fact args_fact(const dr_options *o, dr_arena *arena)
{
    const dr_strv *args = dr_opt_list(o, DR_OPT_network_args);
    dr_str text = {0};
    if (args->n == 0) {
        return (dr_fact){0};
    }
    bool given_dropout = false;
    dr_str_add(&text, "{");
    for (size_t i = 0; i < args->n; i++) {
        const size_t n = strcspn(args->at[i], "=");
        dr_str_add(&text, i > 0 ? ", " : "");
        given_dropout = given_dropout || dr_str_starts(args->at[i], "dropout=");
        dr_json_add_ascii(&text, dr_arena_strndup(arena, args->at[i], n));
        dr_str_add(&text, ": ");
        dr_json_add_ascii(&text, args->at[i] + n + (args->at[i][n] == '='));
    }
    if (!given_dropout && !dr_opt_flag(o, DR_OPT_dim_from_weights)) { /* as sd-scripts adds it */
        char number[32] = "null";
        if (dr_opt_has(o, DR_OPT_network_dropout)) {
            dr_float_repr(dr_opt_float(o, DR_OPT_network_dropout), number);
        }
        dr_str_printf(&text, ", \"dropout\": %s", number);
    }
    dr_str_add(&text, "}");
    const dr_fact fact = dr_fact_text(dr_arena_strdup(arena, dr_str_get(&text)));
    dr_str_free(&text);
    return fact;
}

static void add_folder_facts(const dr_options *o, dr_arena *arena, dr_ss_facts *f)
{
    int width = 0;
    int height = 0;
    const bool buckets = dr_opt_flag(o, DR_OPT_enable_bucket);
#define FOLDER_FACT(name) f->name = fact_of(o, DR_OPT_##name);
    FOLDER_NAMES(FOLDER_FACT)
#undef FOLDER_FACT
    f->batch_size_per_device = fact_of(o, DR_OPT_train_batch_size);
    f->min_bucket_reso = buckets ? fact_of(o, DR_OPT_min_bucket_reso) : dr_fact_none();
    f->max_bucket_reso = buckets ? fact_of(o, DR_OPT_max_bucket_reso) : dr_fact_none();
    if (dr_options_resolution(o, &width, &height) == DR_OK) {
        f->resolution = dr_fact_text(dr_arena_printf(arena, "(%d, %d)", width, height));
    } else { /* dr_options_check has seen it */
        dr_error_clear();
    }
}

const dr_ss_facts *dr_network_facts(const dr_options *o, dr_arena *arena)
{
    dr_ss_facts *f = dr_arena_alloc(arena, sizeof *f);
#define SAME_FACT(name) f->name = fact_of(o, DR_OPT_##name);
    SAME_NAMES(SAME_FACT)
#undef SAME_FACT
    const dr_strv *text_lr = dr_opt_list(o, DR_OPT_text_encoder_lr);
    double lr = 0.0;
    f->text_encoder_lr =
        text_lr->n > 0 && dr_parse_f64(text_lr->at[0], &lr) ? dr_fact_float(lr) : dr_fact_none();
    f->network_alpha = dr_opt_given(o, DR_OPT_network_alpha) /* the default is a whole number */
                           ? fact_of(o, DR_OPT_network_alpha)
                           : dr_fact_int(1);
    f->debiased_estimation = fact_of(o, DR_OPT_debiased_estimation_loss);
    f->optimizer = optimizer_fact(o, arena);
    f->network_args = args_fact(o, arena);
    if (!dr_opt_has(o, DR_OPT_dataset_config)) {
        add_folder_facts(o, arena, f);
    }
    return f;
}
