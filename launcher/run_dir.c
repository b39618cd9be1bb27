#include "launcher/run_dir.h"

#include "base/file.h"
#include "base/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *base_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    if (access("/dev/shm", W_OK | X_OK) == 0) {
        return "/dev/shm";
    }
    return tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp";
}

/* Start time of a process in clock ticks since boot; 0: there is none of that number. */
static unsigned long long start_of(long pid)
{
    char path[64];
    char text[1024];
    unsigned long long ticks = 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return 0;
    }
    const char *end = fgets(text, sizeof text, f) != NULL ? strrchr(text, ')') : NULL;
    if (end != NULL) { /* field 22; the name before it may hold anything */
        (void)sscanf(end + 1,
                     " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                     "%llu",
                     &ticks);
    }
    (void)fclose(f);
    return ticks;
}

dr_status dr_run_dir_create(dr_str *path)
{
    long pid = (long)getpid();
    dr_str_printf(path, "%s/dreamrun.%lu.%ld.%llu", base_dir(), (unsigned long)getuid(), pid,
                  start_of(pid));
    if (mkdir(dr_str_get(path), 0700) != 0) {
        DR_FAIL(DR_OUTPUT, "%s: cannot create: %s", dr_str_get(path), strerror(errno));
    }
    return DR_OK;
}

int dr_run_dir_sweep(void)
{
    dr_strv names = {0};
    int n = 0;
    if (dr_list_dir(base_dir(), &names) != DR_OK) {
        dr_error_clear();
        return 0;
    }
    for (size_t i = 0; i < names.n; i++) {
        unsigned long uid = 0;
        long pid = 0;
        unsigned long long ticks = 0;
        bool ours = sscanf(names.at[i], "dreamrun.%lu.%ld.%llu", &uid, &pid, &ticks) == 3 &&
                    uid == (unsigned long)getuid();
        if (ours && start_of(pid) != ticks) {
            char *path = dr_path_join(base_dir(), names.at[i]);
            dr_tree_remove(path);
            free(path);
            n++;
        }
    }
    dr_strv_free(&names);
    return n;
}
