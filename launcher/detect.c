#include "launcher/detect.h"

#include "launcher/settings.h"

#include <stddef.h>

static int number(const char *const *env, const char *name)
{
    const char *text = dr_env_find(env, name);
    int64_t v = 0;
    return text != NULL && dr_parse_i64(text, &v) && v >= 0 && v <= 1 << 24 ? (int)v : 0;
}

/* A step that srun made, not the batch script, an interactive salloc or an extern step: those have
 * the numbers from 0xfffffff0 on. */
static bool in_step(const char *const *env)
{
    const char *text = dr_env_find(env, "SLURM_STEP_ID");
    int64_t v = 0;
    return text != NULL && dr_parse_i64(text, &v) && v < 0xfffffff0LL;
}

static void fill_slurm(const char *const *env, dr_where *w)
{
    int n = number(env, "SLURM_NTASKS");
    int nodes = number(env, "SLURM_JOB_NUM_NODES");
    w->n_tasks = n;
    w->n_nodes = nodes > 0 ? nodes : number(env, "SLURM_NNODES");
    w->node = number(env, "SLURM_NODEID");
}

dr_where dr_detect(const char *const *env, int asked)
{
    const char *names = dr_env_find(env, "PMIX_NAMESPACE");
    dr_where w = {.place = DR_PLACE_ALONE, .job = dr_env_find(env, "SLURM_JOB_ID")};
    int ompi = number(env, "OMPI_COMM_WORLD_SIZE");
    if (ompi > 0) {
        w.place = DR_PLACE_MPIRUN;
        w.world = ompi;
        return w;
    }
    if (w.job == NULL) {
        return w;
    }
    fill_slurm(env, &w);
    int step_nodes = number(env, "SLURM_STEP_NUM_NODES");
    int nodes = step_nodes > 0 ? step_nodes : w.n_nodes;
    if (!in_step(env)) {
        w.place = DR_PLACE_ALLOCATION;
    } else if (asked > w.n_tasks && w.n_tasks == nodes) {
        w.place = DR_PLACE_PER_NODE;
    } else if (names != NULL && dr_str_starts(names, "slurm.pmix")) {
        w.place = DR_PLACE_SRUN;
        w.world = w.n_tasks;
    } else {
        w.place = w.n_tasks > 1 ? DR_PLACE_NO_PMIX : DR_PLACE_ALLOCATION;
    }
    return w;
}

const char *dr_place_text(dr_place place)
{
    static const char *const texts[] = {
        "a shell",
        "a rank of mpirun",
        "a rank of srun",
        "one task of srun per node",
        "an allocation of Slurm",
        "a task of srun without PMIx",
    };
    return texts[place];
}
