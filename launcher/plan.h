/*
 * launcher/plan.h - what `dreamrun launch` will start: command line and environment.
 *
 * Layer:    launcher.  May include base/ only.
 * Threads:  none; everything it looks at is in the facts, and hostfile and config file.
 *
 * One rank becomes the trainer in place, without MPI. More ranks start through mpirun or srun,
 * unbound (Open MPI binds a rank to one core otherwise, which would undo the threads), each below
 * an agent (launcher/agent.h).
 */
#ifndef DR_LAUNCHER_PLAN_H
#define DR_LAUNCHER_PLAN_H

#include "launcher/detect.h"
#include "launcher/hosts.h"
#include "launcher/settings.h"

struct dr_machines;

typedef struct dr_launch_facts {
    int n_cpus;  /* CPUs that this process may use (affinity)                      */
    int n_cores; /* physical cores among them, at most the cgroup's CPU quota      */
    int n_gpus;  /* NVIDIA GPUs of this host                                       */
    int n_numa;  /* NUMA nodes of this host                                        */
    bool is_root;
    bool watched;       /* one rank is not to take this process's place                          */
    const char *host;   /* name of this host                                              */
    const char *mpirun; /* path of mpirun; NULL: there is none in PATH                    */
    bool mpirun_is_v5;  /* Open MPI 5 (PRRTE): other spellings                            */
    const char *srun;   /* path of srun; NULL: there is none in PATH                      */
    bool (*srun_has_pmix)(const char *srun); /* asked only inside an allocation               */
    const char *bin_dir;    /* folder of the dreamrun programs                                */
    const char *const *env; /* "NAME=value", NULL at the end                                  */
    bool (*can_run)(const char *path);
    /* attempts after the first */
    int attempt;         /* counts from 0; from 1 on the run goes on with its newest state       */
    int n_ranks;         /* ranks of this attempt; 0: as many as asked for                      */
    int first_ranks;     /* ranks of the first attempt; 0: this is it                           */
    const dr_strv *lost; /* hosts that failed; NULL: none                                        */
    const char *run_dir; /* private folder of this launch; NULL: none (dry run)                  */
    struct dr_machines *machines; /* that came to machine 0; NULL: none, or not yet          */
} dr_launch_facts;

typedef enum dr_starter {
    DR_START_IN_PLACE,
    DR_START_AGENT,
    DR_START_MPIRUN,
    DR_START_SRUN
} dr_starter;

typedef struct dr_launch_plan {
    dr_settings settings;
    dr_where where;
    dr_hosts hosts; /* of the ranks; empty: this host alone                                    */
    dr_starter starter;
    dr_strv argv;     /* argv[0] is the path to execute                                          */
    dr_strv env;      /* the whole environment                                                   */
    dr_strv set;      /* what of it was set here, "NAME=value"                                   */
    dr_strv unset;    /* names that were taken out                                               */
    char program[32]; /* "train_db"                                                              */
    int n_ranks;
    const char *n_ranks_from; /* where that number comes from                                 */
    int n_threads; /* of each rank                                                            */
    const char *n_threads_from;
    bool uses_gpus;
    bool meets;       /* one launch per machine: this is the one of machine_rank             */
    int machine_rank; /* meets: of n_machines; 0 starts the ranks of all                      */
    int n_machines;
    bool supervised; /* start, watch and report; otherwise execute in place                     */
    bool is_rank;    /* already a rank of a running MPI job: nothing is changed                 */
    bool idle;       /* another node's task supervises: nothing is to be done here              */
    bool dry_run, debug, quiet;
    bool help; /* --help was given; nothing else is filled in                             */
} dr_launch_plan;

/*
 * Plans the words after "launch": options, program, the program's own options. The caller ends it
 * with dr_launch_plan_deinit, whatever is returned.
 * Errors: DR_INVALID usage; DR_UNSUPPORTED what is not built; DR_DEVICE no mpirun, too few hosts or
 * slots; DR_IO the trainer is missing beside dreamrun, a file cannot be read.
 */
DR_MUST_USE dr_status dr_launch_plan_make(dr_launch_plan *p, const dr_launch_facts *f, int argc,
                                          const char *const *argv);
void dr_launch_plan_deinit(dr_launch_plan *p);
/* Number of GPUs in the text of --gpu_ids. */
int dr_plan_gpu_ids(const char *ids);
/* One line that a shell would run the same way: env -u ... NAME=value ... program args. */
void dr_launch_plan_print(const dr_launch_plan *p, dr_str *out);
/* "NAME=value" as one string. */
void dr_push_setting(dr_strv *v, const char *name, const char *value);
/* Adds a word so that a POSIX shell reads it as one. */
void dr_quote_word(const char *word, dr_str *out);
/* Whether a first word is the name of a trainer: train_db, train_network, cache_latents, with path
 * or ".py"; or of dreamrun's own test of the ranks. */
bool dr_launch_is_trainer(const char *word);

#endif
