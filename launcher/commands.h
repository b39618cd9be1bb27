/*
 * launcher/commands.h - dreamrun env, dreamrun config, dreamrun submit.
 *
 * Layer:    launcher.  May include base/ only.
 */
#ifndef DR_LAUNCHER_COMMANDS_H
#define DR_LAUNCHER_COMMANDS_H

#include "launcher/plan.h"

/*
 * `dreamrun env [--json] [launch options]`: what the launcher sees of machine, Slurm and MPI, and
 * each option's value with its source, on stdout. Errors: those of the options.
 */
DR_MUST_USE dr_status dr_command_env(const dr_launch_facts *f, int argc, const char *const *argv);

/*
 * `dreamrun config`: asks and writes the file with launch options; `config default
 * [--mixed_precision X] [--config_file F]` writes defaults without asking; `config update
 * [--config_file F]` writes an existing file anew. accelerate can read it too, but for the key
 * dreamrun. Errors: DR_INVALID usage; DR_OUTPUT the file.
 */
DR_MUST_USE dr_status dr_command_config(const dr_launch_facts *f, int argc,
                                        const char *const *argv);

/*
 * `dreamrun submit [options] launch ... train_db ...`: prints a job script (--print), or becomes
 * sbatch with it. Errors: those of the options and of the launch; DR_DEVICE no sbatch.
 */
DR_MUST_USE dr_status dr_command_submit(const dr_launch_facts *f, int argc,
                                        const char *const *argv);

#endif
