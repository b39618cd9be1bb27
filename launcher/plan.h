/*
 * launcher/plan.h - what `dreamrun launch` will start: command line and environment.
 *
 * Layer:    launcher.  May include base/ only.
 * Threads:  none; pure: everything it looks at is in the facts.
 *
 * One rank becomes the trainer in place, without MPI. More ranks start through mpirun, unbound
 * (Open MPI binds a rank to one core otherwise, which would undo the threads).
 */
#ifndef DR_LAUNCHER_PLAN_H
#define DR_LAUNCHER_PLAN_H

#include "base/str.h"

typedef struct dr_launch_facts {
    int n_cpus;  /* CPUs that this process may use (affinity)                      */
    int n_cores; /* physical cores among them, at most the cgroup's CPU quota      */
    bool is_root;
    const char *mpirun;     /* path of mpirun; NULL: there is none in PATH                    */
    const char *bin_dir;    /* folder of the dreamrun programs                                */
    const char *const *env; /* "NAME=value", NULL at the end                                  */
    bool (*can_run)(const char *path);
} dr_launch_facts;

typedef struct dr_launch_plan {
    dr_strv argv;     /* argv[0] is the path to execute                                          */
    dr_strv env;      /* the whole environment                                                   */
    dr_strv set;      /* what of it was set here, "NAME=value"                                   */
    dr_strv unset;    /* names that were taken out                                               */
    char program[32]; /* "train_db"                                                              */
    int n_ranks;
    int n_threads; /* of each rank                                                            */
    double grace_s;
    bool supervised; /* mpirun: start, watch and report; otherwise execute in place             */
    bool is_rank;    /* already a rank of a running MPI job: nothing is changed                 */
    bool dry_run, debug, quiet;
    bool help; /* --help was given; nothing else is filled in                             */
} dr_launch_plan;

/*
 * Plans the words after "launch": options, program, the program's own options. The caller ends it
 * with dr_launch_plan_deinit, whatever is returned.
 * Errors: DR_INVALID usage; DR_UNSUPPORTED what is not built; DR_DEVICE no mpirun; DR_IO the
 * trainer is missing beside dreamrun.
 */
DR_MUST_USE dr_status dr_launch_plan_make(dr_launch_plan *p, const dr_launch_facts *f, int argc,
                                          const char *const *argv);
void dr_launch_plan_deinit(dr_launch_plan *p);
/* One line that a shell would run the same way: env -u ... NAME=value ... program args. */
void dr_launch_plan_print(const dr_launch_plan *p, dr_str *out);
/* Whether a first word is the name of a trainer: train_db, train_network, cache_latents, with path
 * or ".py". */
bool dr_launch_is_trainer(const char *word);

#endif
