#include "apps/option_facts.h"

#include <string.h>

/* Beginnings of names of options that change no number of the training. What they stand for is
 * compared in another way (model, dataset, seed, shards, length) or is no part of the numbers. */
static const char *const free_options[] = {"pretrained_model_name_or_path",
                                           "train_data_dir",
                                           "reg_data_dir",
                                           "dataset_config",
                                           "in_json",
                                           "vae",
                                           "cache_",
                                           "latent_cache_dir",
                                           "skip_bad_images",
                                           "max_data_loader",
                                           "persistent_data_loader",
                                           "debug_dataset",
                                           "max_train_",
                                           "seed",
                                           "virtual_shards",
                                           "gradient_checkpointing",
                                           "output_",
                                           "save_",
                                           "resume",
                                           "initial_",
                                           "skip_until_initial_step",
                                           "metadata_",
                                           "huggingface_",
                                           "console_log",
                                           "log",
                                           "sample_",
                                           "progress",
                                           "dump_",
                                           "profile",
                                           "inject",
                                           "ddp_timeout",
                                           "report",
                                           "nan",
                                           "dead_check",
                                           "check_ranks_every",
                                           "zero_stage",
                                           "cuda_graphs",
                                           "base_check",
                                           "config_file",
                                           "num_cpu_threads_per_process",
                                           "training_comment",
                                           "no_metadata",
                                           "validat",
                                           "max_validation"};

static bool is_free(const char *name)
{
    for (size_t i = 0; i < sizeof free_options / sizeof *free_options; i++) {
        if (dr_str_starts(name, free_options[i])) {
            return true;
        }
    }
    return false;
}

static const char *value_text(const dr_opt_spec *spec, const dr_opt_value *v, dr_arena *arena)
{
    dr_str s = {0};
    if (spec->type == DR_OPT_TYPE_FLAG) {
        dr_str_add(&s, v->i != 0 ? "on" : "off");
    } else if (v->list.n > 0) {
        for (size_t i = 0; i < v->list.n; i++) {
            dr_str_printf(&s, "%s%s", i > 0 ? " " : "", v->list.at[i]);
        }
    } else if (!v->set) {
        dr_str_add(&s, "unset");
    } else if (spec->type == DR_OPT_TYPE_INT) {
        dr_str_printf(&s, "%lld", (long long)v->i);
    } else if (spec->type == DR_OPT_TYPE_FLOAT) {
        char number[32];
        dr_float_repr(v->f, number);
        dr_str_add(&s, number);
    } else {
        dr_str_add(&s, v->text != NULL && v->text[0] != '\0' ? v->text : "unset");
    }
    const char *copy = dr_arena_strdup(arena, dr_str_get(&s));
    dr_str_free(&s);
    return copy;
}

const dr_train_fact *dr_options_facts(const dr_options *o, dr_arena *arena, size_t *n)
{
    const dr_opt_table *table = o->table;
    dr_train_fact *facts = dr_arena_alloc(arena, (size_t)table->n * sizeof *facts);
    *n = 0;
    for (int i = 0; i < table->n; i++) {
        const dr_opt_spec *spec = &table->specs[i];
        const bool in_program = (spec->programs >> o->program & 1U) != 0;
        if (spec->name == NULL || !in_program || spec->availability != DR_OPT_AVAILABLE ||
            is_free(spec->name)) {
            continue;
        }
        facts[(*n)++] = (dr_train_fact){spec->name, value_text(spec, &o->values[i], arena)};
    }
    return facts;
}

static bool is_available(const dr_options *o, int id)
{
    const dr_opt_spec *spec = &o->table->specs[id];
    return spec->name != NULL && (spec->programs >> o->program & 1U) != 0 &&
           spec->availability == DR_OPT_AVAILABLE && id != DR_OPT_wandb_api_key &&
           id != DR_OPT_huggingface_token;
}

const dr_train_option *dr_options_effective(const dr_options *o, dr_arena *arena, size_t *n)
{
    dr_train_option *list = dr_arena_alloc(arena, (size_t)o->table->n * sizeof *list);
    *n = 0;
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_value *v = &o->values[id];
        if (is_available(o, id)) {
            const dr_opt_spec *spec = &o->table->specs[id];
            list[(*n)++] = (dr_train_option){spec->name, value_text(spec, v, arena), v->given};
        }
    }
    return list;
}

/* sd-scripts' get_sanitized_config_or_none keeps these to itself. */
static const int kept_back[] = {DR_OPT_pretrained_model_name_or_path,
                                DR_OPT_vae,
                                DR_OPT_tokenizer_cache_dir,
                                DR_OPT_train_data_dir,
                                DR_OPT_reg_data_dir,
                                DR_OPT_conditioning_data_dir,
                                DR_OPT_output_dir,
                                DR_OPT_logging_dir};

static bool is_logged(const dr_options *o, int id)
{
    for (size_t i = 0; i < sizeof kept_back / sizeof *kept_back; i++) {
        if (kept_back[i] == id) {
            return false;
        }
    }
    return is_available(o, id) &&
           (o->values[id].set || o->table->specs[id].type == DR_OPT_TYPE_FLAG);
}

const dr_event_hparam *dr_options_hparams(const dr_options *o, dr_arena *arena, size_t *n)
{
    dr_event_hparam *list = dr_arena_alloc(arena, (size_t)o->table->n * sizeof *list);
    *n = 0;
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_spec *spec = &o->table->specs[id];
        const dr_opt_value *v = &o->values[id];
        if (!is_logged(o, id)) {
            continue;
        }
        dr_event_hparam h = {.name = spec->name};
        if (spec->type == DR_OPT_TYPE_FLAG || spec->type == DR_OPT_TYPE_INT) {
            h.number = (double)v->i;
            h.is_bool = spec->type == DR_OPT_TYPE_FLAG;
        } else if (spec->type == DR_OPT_TYPE_FLOAT || spec->type == DR_OPT_TYPE_STEPS) {
            h.number = v->f;
        } else {
            h.text = value_text(spec, v, arena);
        }
        if (h.text == NULL || strcmp(h.text, "unset") != 0) {
            list[(*n)++] = h;
        }
    }
    return list;
}
