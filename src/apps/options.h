/*
 * apps/options.h - the options of train_db and train_network.
 *
 * Layer:    apps.
 * Threads:  read-only after dr_options_check.
 *
 * An option is read by its id, DR_OPT_<name>: dr_opt_int(o, DR_OPT_max_train_steps); the getters
 * are those of base/optparse.h. What two options say together is asked here.
 */
#ifndef DR_APPS_OPTIONS_H
#define DR_APPS_OPTIONS_H

#include "base/optparse.h"
#include "train/optim/optimizer_settings.h"

enum dr_option_id {
#define GROUP(id, title)                                                 DR_OPT_GROUP_##id,
#define OPT(name, programs, type, def, range, unit, a, why, help)        DR_OPT_##name,
#define OPT_AS(id, name, programs, type, def, range, unit, a, why, help) DR_OPT_##id,
#include "apps/option_list.def"
#undef GROUP
#undef OPT
#undef OPT_AS
    DR_OPTION_COUNT
};

typedef enum dr_program { DR_PROGRAM_TRAIN_DB, DR_PROGRAM_TRAIN_NETWORK } dr_program;

typedef dr_optset dr_options;

/* The table of both programs. */
const dr_opt_table *dr_options_table(void);

void dr_options_init(dr_options *o, dr_program program);
void dr_options_deinit(dr_options *o);
/* Parses argv without the program's name. After DR_OK, o->help says that help was asked for. */
DR_MUST_USE dr_status dr_options_parse(dr_options *o, int argc, const char *const *argv);
/*
 * Everything that can be said without looking at a file: combinations that exclude each other
 * first, then options that are not available, then what is missing or does not fit together.
 * Sets options that others imply (--cache_latents_to_disk: --cache_latents).
 */
DR_MUST_USE dr_status dr_options_check(dr_options *o);
/* What a program that takes the options of a trainer can do without. */
enum { DR_WITHOUT_OUTPUT = 1, DR_WITHOUT_MODEL = 2 };
DR_MUST_USE dr_status dr_options_check_without(dr_options *o, unsigned without);
/* The whole text of --help into out. */
void dr_options_help(dr_program program, dr_str *out);

/* --resolution as width and height, multiples of 64. */
DR_MUST_USE dr_status dr_options_resolution(const dr_options *o, int *width, int *height);

/* --optimizer_type and --optimizer_args over the defaults of its package. */
DR_MUST_USE dr_status dr_options_optimizer(const dr_options *o, dr_optim_settings *out);

/* step_rules of --lr_scheduler_args; NULL: not given. */
const char *dr_options_lr_rules(const dr_options *o);

/* The ending of caption files with its dot, into buf (--caption_extention wins when given). */
DR_MUST_USE dr_status dr_options_caption_extension(const dr_options *o, char *buf, size_t size);

#endif
