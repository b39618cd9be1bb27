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
/* Whether path is a file that this user may execute. */
bool dr_machine_can_run(const char *path);
/* The path of a program in $PATH into buf; false when there is none. */
bool dr_machine_find_program(const char *name, char *buf, size_t size);
/* The folder that holds this very program. Errors: DR_IO. */
DR_MUST_USE dr_status dr_machine_bin_dir(char *buf, size_t size);

#endif
