/*
 * launcher/machine.h - what this machine offers: CPUs, programs, folders.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 */
#ifndef DR_LAUNCHER_MACHINE_H
#define DR_LAUNCHER_MACHINE_H

#include "dreamrun/status.h"

#include <stddef.h>

/* CPUs in this process's affinity mask, at least 1. */
int dr_machine_cpus(void);
/* Physical cores among them, at most the cgroup's CPU quota; at least 1. */
int dr_machine_cores(void);
/* Leading CPUs of the physical cores that this process may use, of one NUMA node (-1: of all):
 * their number, and the first cap of them in list. */
int dr_machine_core_list(int node, int *list, int cap);
/* NUMA nodes with CPUs, at least 1. */
int dr_machine_numa_nodes(void);
/* NVIDIA GPUs that this process may use: entries of CUDA_VISIBLE_DEVICES, else those of the driver.
 */
int dr_machine_gpus(void);
/* NUMA node of the driver's i-th GPU, in order of its PCI address; -1: unknown, or none. */
int dr_machine_gpu_node(int i);
typedef struct dr_memory_use { /* of this process's cgroup; 0: unknown, or no limit               */
    int64_t oom_kills;         /* processes that the system has killed for memory so far        */
    int64_t limit, peak;       /* bytes                                                         */
} dr_memory_use;
dr_memory_use dr_machine_memory(void);
/* Name of this host into buf. */
void dr_machine_host(char *buf, size_t size);
/* Whether mpirun is Open MPI 5's: its daemon's program lies beside it. */
bool dr_machine_mpirun_is_v5(const char *mpirun);
/* Whether `srun --mpi=list` names pmix. */
bool dr_machine_srun_has_pmix(const char *srun);
/* Whether path is a file that this user may execute. */
bool dr_machine_can_run(const char *path);
/* The path of a program in $PATH into buf; false when there is none. */
bool dr_machine_find_program(const char *name, char *buf, size_t size);
/* " (process 123, name)" of who listens at a TCP port of this host into buf; "" where that cannot
 * be told, as of another user's processes. */
void dr_machine_port_owner(int port, char *buf, size_t size);
/* The folder that holds this very program. Errors: DR_IO. */
DR_MUST_USE dr_status dr_machine_bin_dir(char *buf, size_t size);

#endif
