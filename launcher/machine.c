#define _GNU_SOURCE /* sched_getaffinity, CPU_SET */
#include "launcher/machine.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/str.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- CPUs ---------------------------------------------------------------------------------------
 */

static void allowed_cpus(cpu_set_t *set)
{
    CPU_ZERO(set);
    if (sched_getaffinity(0, sizeof *set, set) != 0 || CPU_COUNT(set) == 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN); /* more than CPU_SETSIZE CPUs, or no permission */
        for (int i = 0; i < n && i < CPU_SETSIZE; i++) {
            CPU_SET((size_t)i, set);
        }
    }
}

int dr_machine_cpus(void)
{
    cpu_set_t set;
    allowed_cpus(&set);
    return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
}

/* The first line of a small file; false when it cannot be read. */
static bool read_line(const char *path, char *buf, int size)
{
    FILE *f = fopen(path, "re");
    bool ok = f != NULL && fgets(buf, size, f) != NULL;
    if (f != NULL) {
        (void)fclose(f);
    }
    return ok;
}

/* Whether cpu is the first of its physical core among the allowed ones. */
static bool leads_core(const cpu_set_t *set, int cpu)
{
    char path[96];
    char list[256];
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                   cpu);
    if (!read_line(path, list, (int)sizeof list)) {
        return true; /* no topology known: every CPU counts */
    }
    for (const char *p = list; *p >= '0' && *p <= '9';) {
        char *end = NULL;
        long first = strtol(p, &end, 10);
        long last = *end == '-' ? strtol(end + 1, &end, 10) : first;
        for (long i = first; i <= last && i < cpu; i++) {
            if (i < CPU_SETSIZE && CPU_ISSET((size_t)i, set)) {
                return false;
            }
        }
        p = *end == ',' ? end + 1 : end;
    }
    return true;
}

/* CPUs of the cgroup's quota, rounded down; 0: no limit. */
static int quota_of(double quota, double period)
{
    return quota > 0.0 && period > 0.0 ? (int)(quota / period > 1.0 ? quota / period : 1.0) : 0;
}

/* The nearest limit from this process's cgroup up to the root; version 2, then version 1. */
static int cgroup_quota(void)
{
    char line[512];
    char path[640];
    double quota = 0.0;
    double period = 0.0;
    char *group = NULL;
    if (read_line("/proc/self/cgroup", line, (int)sizeof line) && dr_str_starts(line, "0::/")) {
        line[strcspn(line, "\n")] = '\0';
        group = line + strlen("0::");
    }
    while (group != NULL) {
        char max[96];
        (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
        if (read_line(path, max, (int)sizeof max) && sscanf(max, "%lf %lf", &quota, &period) == 2) {
            return quota_of(quota, period);
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            break;
        }
        *slash = '\0';
    }
    char number[32];
    if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", number, (int)sizeof number)) {
        quota = strtod(number, NULL);
        if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", number, (int)sizeof number)) {
            return quota_of(quota, strtod(number, NULL));
        }
    }
    return 0;
}

int dr_machine_cores(void)
{
    cpu_set_t set;
    allowed_cpus(&set);
    int cores = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        cores += CPU_ISSET((size_t)cpu, &set) && leads_core(&set, cpu);
    }
    int quota = cgroup_quota();
    cores = quota > 0 && quota < cores ? quota : cores;
    return cores > 0 ? cores : 1;
}

static bool on_node(int cpu, int node)
{
    char path[96];
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpu%d", node, cpu);
    return node < 0 || access(path, F_OK) == 0;
}

int dr_machine_core_list(int node, int *list, int cap)
{
    cpu_set_t set;
    allowed_cpus(&set);
    int n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET((size_t)cpu, &set) && leads_core(&set, cpu) && on_node(cpu, node)) {
            if (n < cap) {
                list[n] = cpu;
            }
            n++;
        }
    }
    return n;
}

int dr_machine_numa_nodes(void)
{
    dr_strv names = {0};
    int n = 0;
    if (dr_list_dir("/sys/devices/system/node", &names) == DR_OK) {
        for (size_t i = 0; i < names.n; i++) {
            int node = 0;
            n += sscanf(names.at[i], "node%d", &node) == 1 &&
                 dr_machine_core_list(node, NULL, 0) > 0;
        }
    }
    dr_error_clear();
    dr_strv_free(&names);
    return n > 0 ? n : 1;
}

/* --- GPUs ----------------------------------------------------------------------------------------
 */

static const char gpu_folder[] = "/proc/driver/nvidia/gpus"; /* one folder per PCI address */

int dr_machine_gpus(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible != NULL) {
        int n = visible[0] != '\0' && strcmp(visible, "-1") != 0;
        for (const char *c = visible; n > 0 && *c != '\0'; c++) {
            n += *c == ',';
        }
        return n;
    }
    dr_strv names = {0};
    int n = dr_list_dir(gpu_folder, &names) == DR_OK ? (int)names.n : 0;
    dr_error_clear();
    dr_strv_free(&names);
    return n;
}

int dr_machine_gpu_node(int i)
{
    dr_strv names = {0};
    char path[128];
    char line[32];
    int node = -1;
    if (dr_list_dir(gpu_folder, &names) == DR_OK && i >= 0 && (size_t)i < names.n) {
        (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", names.at[i]);
        if (read_line(path, line, (int)sizeof line)) {
            node = (int)strtol(line, NULL, 10);
        }
    }
    dr_error_clear();
    dr_strv_free(&names);
    return node;
}

/* --- programs ------------------------------------------------------------------------------------
 */

bool dr_machine_can_run(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

bool dr_machine_find_program(const char *name, char *buf, size_t size)
{
    const char *path = getenv("PATH");
    while (path != NULL && *path != '\0') {
        size_t n = strcspn(path, ":");
        int len = snprintf(buf, size, "%.*s/%s", (int)n, path, name);
        if (n > 0 && len > 0 && (size_t)len < size && dr_machine_can_run(buf)) {
            return true;
        }
        path += n + (path[n] == ':');
    }
    return false;
}

void dr_machine_host(char *buf, size_t size)
{
    if (gethostname(buf, size) != 0) {
        (void)snprintf(buf, size, "localhost");
    }
    buf[size - 1] = '\0';
}

bool dr_machine_mpirun_is_v5(const char *mpirun)
{
    char *real = realpath(mpirun, NULL);
    if (real == NULL) {
        return false;
    }
    char *slash = strrchr(real, '/');
    dr_str beside = {0};
    dr_str_printf(&beside, "%.*s/prterun", slash != NULL ? (int)(slash - real) : 0, real);
    bool found = dr_machine_can_run(dr_str_get(&beside));
    dr_str_free(&beside);
    free(real);
    return found;
}

bool dr_machine_srun_has_pmix(const char *srun)
{
    char line[256];
    dr_str command = {0};
    bool found = false;
    dr_str_printf(&command, "'%s' --mpi=list 2>&1 </dev/null", srun);
    FILE *f = popen(dr_str_get(&command), "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        found = found || strstr(line, "pmix") != NULL;
    }
    if (f != NULL) {
        (void)pclose(f);
    }
    dr_str_free(&command);
    return found;
}

dr_status dr_machine_bin_dir(char *buf, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", buf, size);
    if (n <= 0 || (size_t)n >= size) {
        DR_FAIL(DR_IO, "/proc/self/exe: %s; dreamrun looks for its programs beside itself",
                n < 0 ? strerror(errno) : "the path is too long");
    }
    buf[n] = '\0';
    char *slash = strrchr(buf, '/');
    DR_CHECK(slash != NULL, "%s is not absolute", buf);
    *slash = '\0';
    return DR_OK;
}
