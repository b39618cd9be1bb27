#define _GNU_SOURCE /* sched_getaffinity, CPU_SET */
#include "launcher/machine.h"

#include "base/arena.h"
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
