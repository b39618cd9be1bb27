#include "base/fence.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_BYTES = 4096 };

static struct {
    char *path; /* NULL: no lock is held */
    int fd;
    int64_t epoch;
} fence = {.fd = -1};

/* What the lock file says; "" when it is new. */
static void read_text(int fd, char text[LOCK_BYTES])
{
    ssize_t n = pread(fd, text, LOCK_BYTES - 1, 0);
    text[n > 0 ? n : 0] = '\0';
}

static int64_t epoch_in(const char *text)
{
    const char *at = strstr(text, "\"epoch\": ");
    return at != NULL ? strtoll(at + strlen("\"epoch\": "), NULL, 10) : 0;
}

static dr_status write_text(int fd, int64_t epoch, const char *path)
{
    char host[256] = "?";
    char text[LOCK_BYTES];
    (void)gethostname(host, sizeof host - 1);
    int n = snprintf(text, sizeof text, "{\"epoch\": %lld, \"pid\": %ld, \"host\": \"%s\"}\n",
                     (long long)epoch, (long)getpid(), host);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != (ssize_t)n || fsync(fd) != 0) {
        DR_FAIL(DR_IO, "%s: %s", path, strerror(errno));
    }
    return DR_OK;
}

/* A start before this one that was given up may take a moment to end, on a host that was cut off.
 */
static bool try_lock(int fd)
{
    enum { NAP_NS = 100000000, PATIENCE = 150 };
    const char *attempt = getenv("DREAMRUN_ATTEMPT");
    const int tries = attempt != NULL && strcmp(attempt, "1") != 0 ? PATIENCE : 1;
    const struct timespec nap = {.tv_nsec = NAP_NS};
    for (int i = 1; flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        if (errno != EWOULDBLOCK || i >= tries) {
            return false;
        }
        (void)nanosleep(&nap, NULL);
    }
    return true;
}

static dr_status lock(int fd, const char *path)
{
    char text[LOCK_BYTES];
    read_text(fd, text);
    if (!try_lock(fd)) {
        text[strcspn(text, "\n")] = '\0';
        DR_FAIL(
            DR_OUTPUT,
            "%s: another run writes into this folder (%s); wait for its end, stop it, or choose "
            "another --output_dir",
            path, errno == EWOULDBLOCK ? text : strerror(errno));
    }
    read_text(fd, text); /* it may have changed before the lock was ours */
    fence.epoch = epoch_in(text) + 1;
    return write_text(fd, fence.epoch, path);
}

dr_status dr_fence_take(const char *folder)
{
    dr_fence_release();
    char *dir = dr_path_join(folder, ".dreamrun");
    char *path = dr_path_join(dir, "lock");
    dr_status st = dr_mkdirs(dir);
    free(dir);
    int fd = st == DR_OK ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (st == DR_OK && fd < 0) {
        st = dr_error_set(DR_OUTPUT, __FILE__, __LINE__, "%s: %s", path, strerror(errno));
    }
    if (st == DR_OK) {
        st = lock(fd, path);
    }
    if (st != DR_OK) {
        if (fd >= 0) {
            (void)close(fd);
        }
        free(path);
        return st;
    }
    fence.fd = fd;
    fence.path = path;
    return DR_OK;
}

dr_status dr_fence_check(void)
{
    char text[LOCK_BYTES] = "";
    if (fence.path == NULL) {
        return DR_OK;
    }
    int fd = open(fence.path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        read_text(fd, text);
        (void)close(fd);
    }
    if (epoch_in(text) != fence.epoch) {
        DR_FAIL(DR_REFUSED,
                "%s: another start of this run has taken over (epoch %lld, this one is %lld): "
                "nothing is saved",
                fence.path, (long long)epoch_in(text), (long long)fence.epoch);
    }
    return DR_OK;
}

void dr_fence_release(void)
{
    if (fence.fd >= 0) {
        (void)close(fence.fd);
    }
    free(fence.path);
    fence.fd = -1;
    fence.path = NULL;
}
