#include "apps/train_settings.h"

#include "apps/network_settings.h"
#include "apps/objective_settings.h"
#include "apps/option_facts.h"
#include "base/file.h"
#include "data/picture_check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* .latent_cache beside the pictures, or beside the file that names them; the caller frees it. */
static char *default_cache_dir(const dr_options *o)
{
    const char *config = dr_opt_str(o, DR_OPT_dataset_config);
    const char *dir = dr_opt_str(o, DR_OPT_train_data_dir);
    if (config == NULL && (dir == NULL || dir[0] == '\0')) {
        config = dr_opt_str(o, DR_OPT_in_json);
    }
    if (config == NULL) {
        return dr_path_join(dir, ".latent_cache");
    }
    dr_str beside = {0};
    dr_str_add_n(&beside, config, (size_t)(dr_path_base(config) - config));
    dr_str_add(&beside, ".latent_cache");
    return beside.data;
}

static void cache_settings(const dr_options *o, dr_setting_texts *texts, dr_train_config *c)
{
    c->cache_latents = dr_opt_flag(o, DR_OPT_cache_latents);
    if (dr_opt_flag(o, DR_OPT_cache_latents_to_disk)) {
        const char *dir = dr_opt_str(o, DR_OPT_latent_cache_dir);
        if (dir == NULL) {
            texts->cache_dir = default_cache_dir(o);
        }
        c->cache_dir = dir != NULL ? dir : texts->cache_dir;
    }
    const char *dtype = dr_opt_str(o, DR_OPT_latent_cache_dtype);
    c->latent_dtype = strcmp(dtype, "f16") == 0    ? DR_F16
                      : strcmp(dtype, "bf16") == 0 ? DR_BF16
                                                   : DR_F32;
    c->keep_latent_draw = strcmp(dr_opt_str(o, DR_OPT_latent_cache_content), "latents") == 0;
    c->text_cache_bytes = (size_t)dr_opt_int(o, DR_OPT_text_encoder_cache_mib) << 20;
    c->vae_batch_size = (uint32_t)dr_opt_int(o, DR_OPT_vae_batch_size);
}

/* How files become pixels. */
static dr_status picture_settings(const dr_options *o, dr_picture_options *p)
{
    *p = dr_picture_defaults;
    const char *filter = dr_opt_str(o, DR_OPT_resize_interpolation);
    if (filter != NULL && !dr_resize_filter_parse(filter, &p->resizing)) {
        DR_FAIL(DR_INVALID, "--resize_interpolation %s: no such filter", filter);
    }
    p->decode.as_pillow = dr_opt_str(o, DR_OPT_compat) != NULL;
    p->decode.max_pixels = (uint64_t)dr_opt_int(o, DR_OPT_max_image_pixels);
    if (dr_alpha_color_parse(dr_opt_str(o, DR_OPT_alpha_color), &p->decode) != DR_OK) {
        return dr_error_prefix(DR_INVALID, "--alpha_color");
    }
    return DR_OK;
}

/* What the command line says of every folder. */
static dr_subset_options subset_settings(const dr_options *o, const dr_setting_texts *texts)
{
    return (dr_subset_options){
        .captions = {.prefix = dr_opt_str(o, DR_OPT_caption_prefix),
                     .suffix = dr_opt_str(o, DR_OPT_caption_suffix),
                     .wildcard = dr_opt_flag(o, DR_OPT_enable_wildcard),
                     .shuffle = dr_opt_flag(o, DR_OPT_shuffle_caption),
                     .keep_tokens = (int32_t)dr_opt_int(o, DR_OPT_keep_tokens),
                     .keep_separator = dr_opt_str(o, DR_OPT_keep_tokens_separator),
                     .separator = dr_opt_str(o, DR_OPT_caption_separator),
                     .secondary = dr_opt_str(o, DR_OPT_secondary_separator),
                     .dropout_rate = dr_opt_float(o, DR_OPT_caption_dropout_rate),
                     .dropout_every_n_epochs =
                         (int32_t)dr_opt_int(o, DR_OPT_caption_dropout_every_n_epochs),
                     .tag_dropout_rate = dr_opt_float(o, DR_OPT_caption_tag_dropout_rate),
                     .warmup_min = (int32_t)dr_opt_int(o, DR_OPT_token_warmup_min),
                     .warmup_steps = dr_opt_float(o, DR_OPT_token_warmup_step)},
        .caption_extension = texts->caption_extension,
        .flip_aug = dr_opt_flag(o, DR_OPT_flip_aug),
        .mask_dir = dr_opt_str(o, DR_OPT_conditioning_data_dir),
        .alpha_mask = dr_opt_flag(o, DR_OPT_alpha_mask),
        .cache_info = dr_opt_flag(o, DR_OPT_cache_info),
        .color_aug = dr_opt_flag(o, DR_OPT_color_aug),
        .random_crop = dr_opt_flag(o, DR_OPT_random_crop),
    };
}

/* --face_crop_aug_range least,most */
static dr_status take_face_range(const dr_options *o, dr_subset_options *out)
{
    const char *text = dr_opt_str(o, DR_OPT_face_crop_aug_range);
    const char *comma = text != NULL ? strchr(text, ',') : NULL;
    char least[32] = "";
    if (text == NULL) {
        return DR_OK;
    }
    if (comma != NULL && (size_t)(comma - text) < sizeof least) {
        memcpy(least, text, (size_t)(comma - text));
    }
    if (comma == NULL || !dr_parse_f64(least, &out->face_least) ||
        !dr_parse_f64(comma + 1, &out->face_most) || !(out->face_least > 0.0) ||
        !(out->face_most >= out->face_least)) {
        DR_FAIL(DR_INVALID,
                "--face_crop_aug_range: found '%s', expected two numbers above 0, the lesser "
                "first, such as 2.0,4.0",
                text);
    }
    return DR_OK;
}

static void warn_ignored(const dr_options *o, int option, const char *why)
{
    if (dr_opt_given(o, option)) {
        dr_warn("--%s is ignored: %s", dr_options_table()->specs[option].name, why);
    }
}

/* --in_json: one dataset of one subset; nothing without it. */
static dr_status metadata_file_settings(const dr_options *o, dr_setting_texts *texts,
                                        dr_dataset_options *data)
{
    const char *path = dr_opt_str(o, DR_OPT_in_json);
    if (path == NULL) {
        warn_ignored(o, DR_OPT_dataset_repeats, "the names of the folders say their repeats");
        return DR_OK;
    }
    warn_ignored(o, DR_OPT_reg_data_dir, "--in_json has no regularisation pictures");
    dr_dataset_part *part = dr_arena_alloc(&texts->arena, sizeof *part);
    dr_subset_spec *spec = dr_arena_alloc(&texts->arena, sizeof *spec);
    *part = (dr_dataset_part){.buckets = data->buckets,
                              .batch_size = (uint32_t)dr_opt_int(o, DR_OPT_train_batch_size),
                              .validation_split = data->validation_split,
                              .validation_seed = data->validation_seed};
    const char *dir = data->folders.train_data_dir;
    *spec = (dr_subset_spec){.image_dir = dir != NULL && dir[0] != '\0' ? dir : NULL,
                             .metadata_file = path,
                             .repeats = dr_opt_int(o, DR_OPT_dataset_repeats),
                             .options = &texts->subset};
    data->parts = part;
    data->specs = spec;
    data->n_parts = data->n_specs = 1;
    data->folders.reg_data_dir = NULL;
    if (!dr_path_exists(path)) {
        DR_FAIL(DR_INVALID, "--in_json: %s: no such file", path);
    }
    return DR_OK;
}

/* --dataset_config over what the command line says; without it --in_json, or folders. */
static dr_status dataset_file_settings(const dr_options *o, dr_setting_texts *texts,
                                       dr_dataset_options *data)
{
    static const int ignored[] = {DR_OPT_train_data_dir, DR_OPT_reg_data_dir, DR_OPT_in_json};
    const char *path = dr_opt_str(o, DR_OPT_dataset_config);
    if (path == NULL) {
        return metadata_file_settings(o, texts, data);
    }
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        warn_ignored(o, ignored[i], "--dataset_config names the folders");
    }
    texts->defaults = (dr_dataset_defaults){.buckets = data->buckets,
                                            .batch_size = dr_opt_int(o, DR_OPT_train_batch_size),
                                            .repeats = dr_opt_int(o, DR_OPT_dataset_repeats),
                                            .validation_split = data->validation_split,
                                            .validation_seed = (int64_t)data->validation_seed,
                                            .masked_loss = dr_opt_flag(o, DR_OPT_masked_loss),
                                            .subset = texts->subset};
    texts->defaults.subset.picture = &texts->picture;
    data->folders.train_data_dir = NULL;
    data->folders.reg_data_dir = NULL;
    return dr_dataset_config_read(&texts->arena, path, &texts->defaults, data);
}

dr_status dr_settings_data(const dr_options *o, dr_setting_texts *texts, dr_train_config *c)
{
    dr_dataset_options *data = &c->data;
    bool skip_bad = dr_opt_flag(o, DR_OPT_skip_bad_images);
    /* Damage inside a picture must be found before step 1; caching finds it by encoding all. */
    bool decode = skip_bad || !dr_opt_flag(o, DR_OPT_cache_latents);
    DR_TRY(
        dr_options_caption_extension(o, texts->caption_extension, sizeof texts->caption_extension));
    DR_TRY(picture_settings(o, &texts->picture));
    data->folders = (dr_folder_options){
        .train_data_dir = dr_opt_str(o, DR_OPT_train_data_dir),
        .reg_data_dir = dr_opt_str(o, DR_OPT_reg_data_dir),
        .caption_extension = texts->caption_extension,
        .skip_bad_images = skip_bad,
        .picture = &texts->picture,
        .threads = (int)dr_opt_int(o, DR_OPT_max_data_loader_n_workers),
        .probe = decode ? dr_picture_check_decoding : dr_picture_check,
    };
    data->buckets = (dr_bucket_options){
        .enable = dr_opt_flag(o, DR_OPT_enable_bucket),
        .no_upscale = dr_opt_flag(o, DR_OPT_bucket_no_upscale),
        .min_px = (int32_t)dr_opt_int(o, DR_OPT_min_bucket_reso),
        .max_px = (int32_t)dr_opt_int(o, DR_OPT_max_bucket_reso),
        .step_px = (int32_t)dr_opt_int(o, DR_OPT_bucket_reso_steps),
    };
    if (dr_opt_has(o, DR_OPT_resolution)) {
        DR_TRY(dr_resolution_parse(dr_opt_str(o, DR_OPT_resolution), &data->buckets.resolution));
    }
    if (!dr_opt_has(o, DR_OPT_dataset_config)) {
        DR_TRY(dr_bucket_options_validate(&data->buckets));
    }
    data->validation_split = dr_opt_float(o, DR_OPT_validation_split);
    data->validation_seed = (uint64_t)dr_opt_int_or(o, DR_OPT_validation_seed, 0);
    data->prior_loss_weight = (float)dr_opt_float(o, DR_OPT_prior_loss_weight);
    texts->subset = subset_settings(o, texts);
    DR_TRY(take_face_range(o, &texts->subset));
    data->folders.subset = &texts->subset;
    DR_TRY(dataset_file_settings(o, texts, data));
    cache_settings(o, texts, c);
    return dr_caption_options_validate(&texts->subset.captions);
}

static dr_status optimizer_settings(const dr_options *o, dr_train_config *c)
{
    DR_TRY(dr_options_optimizer(o, &c->optimizer));
    c->lr = dr_opt_float(o, DR_OPT_learning_rate);
    c->lr_text_encoder = o->program == DR_PROGRAM_TRAIN_DB
                             ? dr_opt_float_or(o, DR_OPT_learning_rate_te, c->lr)
                             : c->lr;
    c->max_grad_norm = dr_opt_float(o, DR_OPT_max_grad_norm);
    const char *schedule = dr_opt_str(o, DR_OPT_lr_scheduler);
    if (!dr_lr_kind_from_name(schedule, &c->lr_kind)) {
        DR_FAIL(DR_UNSUPPORTED, "--lr_scheduler %s is not available yet", schedule);
    }
    const dr_opt_value *warmup = &o->values[DR_OPT_lr_warmup_steps];
    c->warmup = warmup->i > 0 ? (double)warmup->i : warmup->f;
    const dr_opt_value *decay = &o->values[DR_OPT_lr_decay_steps];
    c->decay = decay->i > 0 ? (double)decay->i : decay->f;
    c->lr_cycles = dr_opt_int(o, DR_OPT_lr_scheduler_num_cycles);
    c->lr_timescale = dr_opt_int_or(o, DR_OPT_lr_scheduler_timescale, 0);
    c->lr_min_ratio = dr_opt_float_or(o, DR_OPT_lr_scheduler_min_lr_ratio, 0.0);
    c->lr_rules = dr_options_lr_rules(o);
    c->ema_decay = dr_opt_float_or(o, DR_OPT_ema_decay, 0.0);
    c->fused_backward = dr_opt_flag(o, DR_OPT_fused_backward_pass);
    if (c->optimizer.kind == DR_OPTIM_ADAFACTOR && c->optimizer.relative_step != 0.0) {
        c->lr_kind = DR_LR_ADAFACTOR; /* as sd-scripts forces it */
    }
    if (dr_optim_is_schedule_free(c->optimizer.kind)) {
        c->lr_kind = DR_LR_CONSTANT; /* sd-scripts' dummy scheduler */
        c->warmup = 0.0;
    }
    c->lr_power = dr_opt_float(o, DR_OPT_lr_scheduler_power);
    return DR_OK;
}

static void precision_settings(const dr_options *o, dr_train_config *c)
{
    const char *name = dr_opt_str(o, DR_OPT_mixed_precision);
    const bool full = dr_opt_flag(o, DR_OPT_full_fp16) || dr_opt_flag(o, DR_OPT_full_bf16);
    c->precision = (dr_precision){0};
    if (strcmp(name, "no") != 0) {
        c->precision.kind = full ? DR_PRECISION_FULL : DR_PRECISION_MIXED;
        c->precision.bf16 = strcmp(name, "bf16") == 0;
    }
}

/* Without --save_precision: the type in which the weights are trained, as sd-scripts saves. */
static void save_settings(const dr_options *o, dr_train_config *c)
{
    const bool lora = o->program == DR_PROGRAM_TRAIN_NETWORK;
    const char *format = lora ? NULL : dr_opt_str(o, DR_OPT_save_model_as);
    const char *precision = dr_opt_str(o, DR_OPT_save_precision);
    c->save_as_given = format != NULL && dr_save_format_from_name(format, &c->save_format);
    c->use_safetensors = !lora && dr_opt_flag(o, DR_OPT_use_safetensors);
    c->save_dtype = precision == NULL                 ? dr_precision_trained(c->precision)
                    : strcmp(precision, "float") == 0 ? DR_F32
                    : strcmp(precision, "fp16") == 0  ? DR_F16
                                                      : DR_BF16;
    c->min_timestep = dr_opt_int_or(o, DR_OPT_min_timestep, -1);
    c->max_timestep = dr_opt_int_or(o, DR_OPT_max_timestep, -1);
    c->metadata.title = dr_opt_str(o, DR_OPT_metadata_title);
#define METADATA_TEXT(name) c->metadata.name = dr_opt_str(o, DR_OPT_metadata_##name);
    DR_MODELSPEC_TEXT_LIST(METADATA_TEXT)
#undef METADATA_TEXT
}

static void run_settings(const dr_options *o, dr_train_config *c)
{
    int64_t stop = o->program == DR_PROGRAM_TRAIN_DB
                       ? dr_opt_int_or(o, DR_OPT_stop_text_encoder_training, DR_TRAIN_TO_THE_END)
                       : DR_TRAIN_TO_THE_END;
    const char *progress = dr_opt_str(o, DR_OPT_progress);
    c->model = (dr_model_open_options){
        .path = dr_opt_str(o, DR_OPT_pretrained_model_name_or_path),
        .v2 = dr_opt_flag(o, DR_OPT_v2),
        .v_parameterization = dr_opt_flag(o, DR_OPT_v_parameterization),
        .vae = dr_opt_str(o, DR_OPT_vae),
    };
    c->output_dir = dr_opt_str(o, DR_OPT_output_dir);
    precision_settings(o, c);
    save_settings(o, c);
    c->profile = dr_opt_str(o, DR_OPT_profile);
    c->profile_steps = dr_opt_int(o, DR_OPT_profile_steps);
    c->dump_dir = dr_opt_str(o, DR_OPT_dump_dir);
    c->dump_steps = dr_opt_int(o, DR_OPT_dump_steps);
    c->wait_limit_s = 60.0 * (double)dr_opt_int_or(o, DR_OPT_ddp_timeout, 0);
    c->batch_size = (uint32_t)dr_opt_int(o, DR_OPT_train_batch_size);
    c->accumulation = (int)dr_opt_int(o, DR_OPT_gradient_accumulation_steps);
    c->virtual_shards = dr_opt_int_or(o, DR_OPT_virtual_shards, 0);
    c->max_steps = dr_opt_int(o, DR_OPT_max_train_steps);
    c->max_epochs = dr_opt_int_or(o, DR_OPT_max_train_epochs, 0);
    c->checkpointing = dr_opt_flag(o, DR_OPT_gradient_checkpointing);
    c->loader_threads = (int)dr_opt_int(o, DR_OPT_max_data_loader_n_workers);
    c->n_token_rows = (int)dr_opt_int_or(o, DR_OPT_max_token_length, 75) / 75;
    c->masked_loss = dr_opt_flag(o, DR_OPT_masked_loss);
    c->weighted_captions = dr_opt_flag(o, DR_OPT_weighted_captions);
    c->no_token_padding =
        o->program == DR_PROGRAM_TRAIN_DB && dr_opt_flag(o, DR_OPT_no_token_padding);
    c->clip_skip = (int)dr_opt_int_or(o, DR_OPT_clip_skip, 1);
    c->stop_text_encoder = stop;
    c->validation = (dr_validation_options){
        .seed = (uint64_t)dr_opt_int_or(o, DR_OPT_validation_seed, 0),
        .every_n_steps = dr_opt_int_or(o, DR_OPT_validate_every_n_steps, 0),
        .every_n_epochs = dr_opt_int_or(o, DR_OPT_validate_every_n_epochs, 1),
        .most_batches = dr_opt_int_or(o, DR_OPT_max_validation_steps, 0),
    };
    c->progress = strcmp(progress, "json") == 0    ? DR_PROGRESS_JSON
                  : strcmp(progress, "plain") == 0 ? DR_PROGRESS_PLAIN
                                                   : DR_PROGRESS_AUTO;
}

static dr_alarm_choice alarm_choice(const dr_options *o, int id)
{
    return dr_opt_is(o, id, "stop")   ? DR_ALARM_STOP
           : dr_opt_is(o, id, "warn") ? DR_ALARM_WARN
                                      : DR_ALARM_OFF;
}

static void alarm_settings(const dr_options *o, dr_train_config *c)
{
    c->nan = dr_opt_is(o, DR_OPT_nan, "skip")       ? DR_NAN_SKIP
             : dr_opt_is(o, DR_OPT_nan, "rollback") ? DR_NAN_ROLLBACK
                                                    : DR_NAN_STOP;
    c->dead_check = alarm_choice(o, DR_OPT_dead_check);
    c->base_check = alarm_choice(o, DR_OPT_base_check);
    c->check_ranks_every = dr_opt_int(o, DR_OPT_check_ranks_every);
}

/* The table's default is that of sd-scripts, which means something with DeepSpeed only. */
static dr_status zero_settings(const dr_options *o, dr_train_config *c)
{
    c->zero_stage = dr_opt_given(o, DR_OPT_zero_stage) ? (int)dr_opt_int(o, DR_OPT_zero_stage) : 0;
    if (c->zero_stage > 1) {
        DR_FAIL(DR_INVALID,
                "--zero_stage %d: gradients and weights are not sharded here; 1 shards the "
                "optimizer's state",
                c->zero_stage);
    }
    return DR_OK;
}

static void log_settings(const dr_options *o, dr_setting_texts *texts, dr_train_config *c)
{
    const char *prefix = dr_opt_str(o, DR_OPT_log_prefix);
    const char *tracker = dr_opt_str(o, DR_OPT_log_tracker_name);
    c->network_tags = o->program == DR_PROGRAM_TRAIN_NETWORK;
    c->logging_dir = dr_opt_str(o, DR_OPT_logging_dir);
    c->report = dr_opt_str(o, DR_OPT_report);
    c->log_prefix = prefix != NULL ? prefix : "";
    c->log_tracker = tracker != NULL ? tracker : c->network_tags ? "network_train" : "dreambooth";
    if (dr_opt_flag(o, DR_OPT_log_config)) {
        c->hparams = dr_options_hparams(o, &texts->arena, &c->n_hparams);
    }
    c->options = dr_options_effective(o, &texts->arena, &c->n_options);
}

static void sample_settings(const dr_options *o, dr_train_config *c)
{
    c->samples = (dr_sample_plan){
        .prompts = dr_opt_str(o, DR_OPT_sample_prompts),
        .every_n_steps = dr_opt_int_or(o, DR_OPT_sample_every_n_steps, 0),
        .every_n_epochs = dr_opt_int_or(o, DR_OPT_sample_every_n_epochs, 0),
        .at_first = dr_opt_flag(o, DR_OPT_sample_at_first),
        .karras = dr_opt_flag(o, DR_OPT_sample_karras),
    };
    const char *sampler = dr_opt_str(o, DR_OPT_sample_sampler);
    DR_CHECK(dr_sampler_kind_from_name(sampler, &c->samples.sampler) == DR_OK, "%s", sampler);
}

static void checkpoint_settings(const dr_options *o, dr_setting_texts *texts, dr_train_config *c)
{
    c->save = (dr_save_options){
        .name = dr_opt_str(o, DR_OPT_output_name),
        .every_n_epochs = dr_opt_int_or(o, DR_OPT_save_every_n_epochs, 0),
        .n_epoch_ratio = dr_opt_int_or(o, DR_OPT_save_n_epoch_ratio, 0),
        .every_n_steps = dr_opt_int_or(o, DR_OPT_save_every_n_steps, 0),
        .last_n_epochs = dr_opt_int_or(o, DR_OPT_save_last_n_epochs, 0),
        .last_n_epochs_state = dr_opt_int_or(o, DR_OPT_save_last_n_epochs_state, 0),
        .last_n_steps = dr_opt_int_or(o, DR_OPT_save_last_n_steps, 0),
        .last_n_steps_state = dr_opt_int_or(o, DR_OPT_save_last_n_steps_state, 0),
        .state = dr_opt_flag(o, DR_OPT_save_state),
        .state_at_end = dr_opt_flag(o, DR_OPT_save_state_on_train_end),
    };
    sample_settings(o, c);
    c->resume = dr_opt_str(o, DR_OPT_resume);
    c->estimate = dr_opt_flag(o, DR_OPT_estimate);
    c->resume_changed = dr_opt_flag(o, DR_OPT_resume_changed);
    c->seed_given = dr_opt_given(o, DR_OPT_seed);
    texts->facts = dr_options_facts(o, &texts->arena, &c->n_facts);
    c->facts = texts->facts;
}

dr_status dr_settings_all(const dr_options *o, dr_setting_texts *texts, dr_train_config *c)
{
    dr_status st = dr_settings_data(o, texts, c);
    if (st == DR_OK) {
        st = optimizer_settings(o, c);
    }
    if (st == DR_OK) {
        st = zero_settings(o, c);
    }
    if (st == DR_OK && o->program == DR_PROGRAM_TRAIN_NETWORK) {
        st = dr_network_settings(o, &texts->arena, c);
    }
    dr_settings_objective(o, c);
    run_settings(o, c);
    checkpoint_settings(o, texts, c);
    log_settings(o, texts, c);
    alarm_settings(o, c);
    c->graphs = dr_opt_is(o, DR_OPT_cuda_graphs, "auto");
    return st;
}

/* --seed, or a random one; rank 0's holds for all ranks. */
dr_status dr_settings_seed(const dr_options *o, dr_dist *d, uint64_t *seed)
{
    uint32_t random = 0;
    if (dr_opt_given(o, DR_OPT_seed)) {
        *seed = (uint64_t)dr_opt_int(o, DR_OPT_seed);
    } else {
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
            DR_FAIL(DR_IO, "the system gives no random numbers: use --seed");
        }
        *seed = random;
    }
    return dr_dist_bcast(d, seed, sizeof *seed, 0);
}

dr_log_level dr_settings_log_level(const dr_options *o)
{
    const char *name = dr_opt_str(o, DR_OPT_console_log_level);
    if (name == NULL || strcmp(name, "INFO") == 0) {
        return DR_LOG_INFO;
    }
    return strcmp(name, "DEBUG") == 0     ? DR_LOG_DEBUG
           : strcmp(name, "WARNING") == 0 ? DR_LOG_WARNING
                                          : DR_LOG_ERROR;
}

void dr_setting_texts_free(dr_setting_texts *t)
{
    free(t->cache_dir);
    dr_arena_deinit(&t->arena);
    *t = (dr_setting_texts){0};
}
