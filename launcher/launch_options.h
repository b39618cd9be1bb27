/*
 * launcher/launch_options.h - the options of `dreamrun launch`.
 *
 * Layer:    launcher.  May include base/ only.
 */
#ifndef DR_LAUNCHER_LAUNCH_OPTIONS_H
#define DR_LAUNCHER_LAUNCH_OPTIONS_H

#include "base/optparse.h"

enum dr_launch_option_id {
#define GROUP(id, title)                                                DR_LAUNCH_GROUP_##id,
#define OPT(name, letter, type, def, range, unit, available, why, help) DR_LAUNCH_##name,
#define FAMILY(id, beginning, why, help)                                DR_LAUNCH_FAMILY_##id,
#include "launcher/launch_options.def"
#undef GROUP
#undef OPT
#undef FAMILY
    DR_LAUNCH_OPTION_COUNT
};

const dr_opt_table *dr_launch_option_table(void);

#endif
