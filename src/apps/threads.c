#define _GNU_SOURCE /* sched_getaffinity */
#include "apps/threads.h"

#include "base/str.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

static int from_environment(const char *name)
{
    const char *text = getenv(name);
    int64_t n = 0;
    return text != NULL && dr_parse_i64(text, &n) && n >= 1 && n <= 4096 ? (int)n : 0;
}

static int allowed_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return CPU_COUNT(&set);
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int dr_threads_for_rank(int asked, int local_world)
{
    int n = asked > 0 ? asked : from_environment("DREAMRUN_THREADS");
    n = n > 0 ? n : from_environment("OMP_NUM_THREADS");
    n = n > 0 ? n : allowed_cores() / local_world;
    return n > 0 ? n : 1;
}
