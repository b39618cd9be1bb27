#include "base/append_file.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

dr_status dr_append_open(dr_append_file *f, const char *path, bool exclusive)
{
    struct stat s;
    *f = (dr_append_file){.fd = -1};
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (exclusive ? O_EXCL : 0);
    const int fd = dr_fault_at_write() ? -1 : open(path, flags, 0666);
    if (fd < 0 && exclusive && errno == EEXIST) {
        DR_FAIL(DR_INVALID, "%s: exists already", path);
    }
    if (fd < 0 || fstat(fd, &s) != 0) {
        const int why = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        DR_FAIL(DR_OUTPUT, "%s: cannot be created: %s", path, strerror(why));
    }
    *f = (dr_append_file){.fd = fd, .size = s.st_size};
    return DR_OK;
}

/* False: errno says why; some of the bytes may be in the file. */
static bool write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        const ssize_t wrote = dr_fault_at_write() ? -1 : write(fd, data, n);
        if (wrote < 0 && errno != EINTR) {
            return false;
        }
        const size_t done = wrote > 0 ? (size_t)wrote : 0;
        data += done;
        n -= done;
    }
    return true;
}

dr_status dr_append_add(dr_append_file *f, const char *path, const void *data, size_t n)
{
    errno = EBADF;
    if (f->fd < 0 || !write_all(f->fd, data, n)) {
        const int why = errno;
        if (f->fd >= 0 && ftruncate(f->fd, f->size) != 0) {
            dr_append_close(f);
        }
        DR_FAIL(DR_IO, "%s: cannot be written: %s", path, strerror(why));
    }
    f->size += (off_t)n;
    return DR_OK;
}

void dr_append_close(dr_append_file *f)
{
    if (f->fd >= 0) {
        (void)close(f->fd);
    }
    f->fd = -1;
}
