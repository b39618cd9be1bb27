#include "launcher/launch_options.h"

static const dr_opt_spec launch_specs[DR_LAUNCH_OPTION_COUNT] = {
#define GROUP(id, title) {.help = title},
#define OPT(name_, letter_, type_, def_, range_, unit_, available_, why_, help_)                   \
    {.name = #name_,                                                                               \
     .programs = 1,                                                                                \
     .type = DR_OPT_TYPE_##type_,                                                                  \
     .def = (def_),                                                                                \
     .range = (range_),                                                                            \
     .unit = (unit_),                                                                              \
     .availability = DR_OPT_##available_,                                                          \
     .reason = (why_),                                                                             \
     .help = (help_),                                                                              \
     .letter = (letter_)},
#define FAMILY(id_, beginning_, why_, help_)                                                       \
    {.name = (beginning_),                                                                         \
     .programs = 1,                                                                                \
     .type = DR_OPT_TYPE_FLAG,                                                                     \
     .range = "",                                                                                  \
     .unit = "",                                                                                   \
     .availability = DR_OPT_REFUSED,                                                               \
     .reason = (why_),                                                                             \
     .help = (help_)},
#include "launcher/launch_options.def"
#undef GROUP
#undef OPT
#undef FAMILY
};

static const char *const program_names[] = {"dreamrun launch"};

static const dr_opt_table launch_table = {
    .specs = launch_specs,
    .n = DR_LAUNCH_OPTION_COUNT,
    .programs = program_names,
    .n_programs = 1,
    .syntax = DR_OPT_DASHES | DR_OPT_TO_WORD,
    .own_first = -1,
};

const dr_opt_table *dr_launch_option_table(void)
{
    return &launch_table;
}
