/* Memory of this process's cgroup, versions 2 and 1. */
#include "launcher/machine.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number after "name " in a file of such lines; with name "" the first one in it. */
static int64_t number_in(const char *folder, const char *file, const char *name)
{
    char line[128];
    char path[900];
    int64_t found = 0;
    size_t n = strlen(name);
    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, (int)sizeof line, f) != NULL) {
        if (n == 0 || (dr_str_starts(line, name) && line[n] == ' ')) {
            found = strtoll(line + n, NULL, 10); /* "max" is 0: no limit */
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return found;
}

static void add_group(dr_memory_use *u, const char *folder, bool v2)
{
    const int64_t no_limit = INT64_MAX / 2; /* version 1 says so by a number near 2^63 */
    int64_t limit = number_in(folder, v2 ? "memory.max" : "memory.limit_in_bytes", "");
    u->oom_kills += number_in(folder, v2 ? "memory.events" : "memory.oom_control", "oom_kill");
    if (limit > 0 && limit < no_limit) {
        u->limit = limit;
        u->peak = number_in(folder, v2 ? "memory.peak" : "memory.max_usage_in_bytes", "");
    }
}

dr_memory_use dr_machine_memory(void)
{
    char line[512];
    char path[768];
    dr_memory_use u = {0};
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f != NULL && fgets(line, (int)sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const char *v1 = strstr(line, ":memory:");
        if (dr_str_starts(line, "0::/")) {
            (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s", line + strlen("0::"));
            add_group(&u, path, true);
        } else if (v1 != NULL) {
            (void)snprintf(path, sizeof path, "/sys/fs/cgroup/memory%s", v1 + strlen(":memory:"));
            add_group(&u, path, false);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return u;
}
