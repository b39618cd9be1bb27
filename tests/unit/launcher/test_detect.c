/* The table of spec/launcher.md 3.1: what each way of being started leaves in the environment. */
#include "dr_test.h"

#include "launcher/detect.h"

#include <string.h>

typedef struct row {
    const char *context;
    const char *env[10];
    int asked;
    dr_place place;
    int world, node, n_tasks;
} row;

static const row rows[] = {
    {"plain shell", {"HOME=/root", NULL}, 0, DR_PLACE_ALONE, 0, 0, 0},
    {"singleton MPI program: PMIX_RANK alone", {"PMIX_RANK=0", NULL}, 0, DR_PLACE_ALONE, 0, 0, 0},
    {"mpirun, no Slurm",
     {"OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_RANK=3", "PMIX_NAMESPACE=2473656321", NULL},
     0,
     DR_PLACE_MPIRUN,
     4,
     0,
     0},
    {"salloc shell",
     {"SLURM_JOB_ID=7", "SLURM_NTASKS=6", "SLURM_NNODES=3", NULL},
     0,
     DR_PLACE_ALLOCATION,
     0,
     0,
     6},
    {"salloc shell with an interactive step",
     {"SLURM_JOB_ID=7", "SLURM_NTASKS=6", "SLURM_NNODES=3", "SLURM_STEP_ID=4294967290", NULL},
     0,
     DR_PLACE_ALLOCATION,
     0,
     0,
     6},
    {"sbatch script: PROCID, LOCALID and NODEID are 0 there too",
     {"SLURM_JOB_ID=7", "SLURM_NTASKS=6", "SLURM_NNODES=3", "SLURM_PROCID=0", "SLURM_LOCALID=0",
      "SLURM_NODEID=0", "CUDA_VISIBLE_DEVICES=0,1", NULL},
     6,
     DR_PLACE_ALLOCATION,
     0,
     0,
     6},
    {"srun task with PMIx",
     {"SLURM_JOB_ID=7", "SLURM_STEP_ID=0", "SLURM_NTASKS=6", "SLURM_NNODES=3", "SLURM_PROCID=4",
      "SLURM_NODEID=2", "PMIX_NAMESPACE=slurm.pmix.7.0", NULL},
     6,
     DR_PLACE_SRUN,
     6,
     2,
     6},
    {"mpirun inside sbatch, rank on the head node",
     {"SLURM_JOB_ID=7", "SLURM_NTASKS=6", "SLURM_NNODES=3", "SLURM_PROCID=0",
      "OMPI_COMM_WORLD_SIZE=6", "PMIX_NAMESPACE=1", NULL},
     0,
     DR_PLACE_MPIRUN,
     6,
     0,
     0},
    {"mpirun inside sbatch, rank elsewhere: its daemon's step says 1 task",
     {"SLURM_JOB_ID=7", "SLURM_STEP_ID=0", "SLURM_NTASKS=1", "SLURM_NNODES=2", "SLURM_PROCID=0",
      "OMPI_COMM_WORLD_SIZE=6", "PMIX_NAMESPACE=1", NULL},
     0,
     DR_PLACE_MPIRUN,
     6,
     0,
     0},
    {"srun accelerate launch: one task per node, more ranks asked for",
     {"SLURM_JOB_ID=7", "SLURM_STEP_ID=1", "SLURM_NTASKS=3", "SLURM_NNODES=3", "SLURM_NODEID=1",
      "PMIX_NAMESPACE=slurm.pmix.7.1", NULL},
     6,
     DR_PLACE_PER_NODE,
     0,
     1,
     3},
    {"the same without PMIx",
     {"SLURM_JOB_ID=7", "SLURM_STEP_ID=1", "SLURM_NTASKS=3", "SLURM_NNODES=3", "SLURM_NODEID=0",
      NULL},
     6,
     DR_PLACE_PER_NODE,
     0,
     0,
     3},
    {"several srun tasks without PMIx",
     {"SLURM_JOB_ID=7", "SLURM_STEP_ID=1", "SLURM_NTASKS=6", "SLURM_NNODES=3", NULL},
     6,
     DR_PLACE_NO_PMIX,
     0,
     0,
     6},
    {"a shell by srun --pty: one task without PMIx",
     {"SLURM_JOB_ID=7", "SLURM_STEP_ID=1", "SLURM_NTASKS=1", "SLURM_NNODES=1", NULL},
     0,
     DR_PLACE_ALLOCATION,
     0,
     0,
     1},
};

static void every_context_is_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        dr_where w = dr_detect(r->env, r->asked);
        if (w.place != r->place || w.world != r->world || w.n_tasks != r->n_tasks ||
            w.node != r->node) {
            fail_msg("%s: found %s, world %d, node %d, %d tasks", r->context,
                     dr_place_text(w.place), w.world, w.node, w.n_tasks);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_context_is_known),
    };
    return DR_TEST_MAIN("detect", tests);
}
