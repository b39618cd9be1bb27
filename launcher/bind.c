#define _GNU_SOURCE /* sched_setaffinity, CPU_SET */
#include "launcher/bind.h"

#include "base/arena.h"
#include "base/str.h"
#include "launcher/machine.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

static int env_number(const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        const char *text = getenv(names[i]);
        int64_t v = 0;
        if (text != NULL && dr_parse_i64(text, &v) && v >= 0 && v < 1 << 20) {
            return (int)v;
        }
    }
    return -1;
}

void dr_bind_share(int n_cores, int i, int n, int *first, int *count)
{
    *first = n_cores * i / n;
    *count = n_cores < n ? 0 : n_cores * (i + 1) / n - *first;
}

/* Ranks of this host by their NUMA node: mine is share *i of *n on node. Without GPUs all are on
 * node -1, which is the whole host. */
static void share_of(bool by_gpu, int local, int n_local, int *node, int *i, int *n)
{
    *node = by_gpu ? dr_machine_gpu_node(local) : -1;
    *i = 0;
    *n = 0;
    for (int q = 0; q < n_local; q++) {
        if (!by_gpu || dr_machine_gpu_node(q) == *node) {
            *i += q < local;
            *n += 1;
        }
    }
}

void dr_bind_rank(void)
{
    static const char *const locals[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", NULL};
    static const char *const sizes[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE",
                                        NULL};
    const char *how = getenv("DREAMRUN_BIND");
    int local = env_number(locals);
    int n_local = env_number(sizes);
    if (how == NULL || local < 0 || n_local <= local) {
        return;
    }
    int node, i, n, first, count;
    cpu_set_t cores;
    share_of(strcmp(how, "gpu") == 0, local, n_local, &node, &i, &n);
    int n_cores = dr_machine_core_list(node, NULL, 0);
    int *list = dr_xcalloc((size_t)n_cores + 1, sizeof *list);
    (void)dr_machine_core_list(node, list, n_cores);
    dr_bind_share(n_cores, i, n, &first, &count);
    CPU_ZERO(&cores);
    for (int c = first; c < first + count; c++) {
        CPU_SET((size_t)list[c], &cores);
    }
    if (count > 0) {
        (void)sched_setaffinity(0, sizeof cores, &cores);
    }
    free(list);
}
