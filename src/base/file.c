#define _GNU_SOURCE /* sync_file_range */
#include "base/file.h"

#include "base/arena.h"
#include "base/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

void dr_file_take_limits(void)
{
    (void)signal(SIGXFSZ, SIG_IGN);
}

static dr_status open_regular(const char *path, int *fd, struct stat *st)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) {
        DR_FAIL(DR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (fstat(*fd, st) != 0 || !S_ISREG(st->st_mode)) {
        (void)close(*fd);
        DR_FAIL(DR_FORMAT, "%s: not a regular file", path);
    }
    return DR_OK;
}

dr_status dr_file_read(const char *path, size_t max_bytes, char **data, size_t *n)
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL) {
        DR_FAIL(DR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    size_t cap = 4096;
    size_t len = 0;
    char *buf = dr_xcalloc(cap, 1);
    for (;;) {
        size_t got = fread(buf + len, 1, cap - len - 1, f);
        len += got;
        if (got == 0 || len > max_bytes) {
            break;
        }
        if (len + 1 == cap) {
            cap *= 2;
            buf = dr_xrealloc(buf, cap, 1);
        }
    }
    bool failed = ferror(f) != 0;
    (void)fclose(f);
    if (failed || len > max_bytes) {
        free(buf);
        if (failed) {
            DR_FAIL(DR_IO, "%s: read error", path);
        }
        DR_FAIL(DR_FORMAT, "%s: larger than %zu bytes", path, max_bytes);
    }
    buf[len] = '\0';
    *data = buf;
    *n = len;
    return DR_OK;
}

dr_status dr_map_open(dr_map *m, const char *path)
{
    int fd = -1;
    struct stat st;
    DR_TRY(open_regular(path, &fd, &st));
    if (st.st_size == 0) {
        (void)close(fd);
        DR_FAIL(DR_FORMAT, "%s: the file is empty", path);
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    if (p == MAP_FAILED) {
        DR_FAIL(DR_IO, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size,
                strerror(errno));
    }
    m->data = p;
    m->size = (size_t)st.st_size;
    return DR_OK;
}

void dr_map_release(const dr_map *m, size_t offset, size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    DR_CHECK(offset <= m->size && n <= m->size - offset, "%zu bytes at %zu of %zu", n, offset,
             m->size);
    const size_t begin = (offset + page - 1) / page * page;
    const size_t end = (offset + n) / page * page;
    if (begin < end) { /* advice only: nothing is lost when it is refused */
        (void)madvise((void *)(uintptr_t)(m->data + begin), end - begin, MADV_DONTNEED);
    }
}

void dr_map_close(dr_map *m)
{
    if (m->data != NULL) {
        (void)munmap((void *)(uintptr_t)m->data, m->size);
    }
    m->data = NULL;
    m->size = 0;
}

dr_status dr_outfile_open(dr_outfile *o, const char *path)
{
    dr_str tmp = {0};
    dr_str_printf(&tmp, "%s.tmp.%ld", path, (long)getpid());
    FILE *f = dr_fault_at_write() ? NULL : fopen(dr_str_get(&tmp), "wbe");
    if (f == NULL) {
        int err = errno;
        dr_str_free(&tmp);
        DR_FAIL(err == ENOSPC ? DR_IO : DR_OUTPUT, "%s: cannot create: %s", path, strerror(err));
    }
    o->f = f;
    o->tmp = tmp.data;
    o->path = dr_xcalloc(strlen(path) + 1, 1);
    memcpy(o->path, path, strlen(path));
    o->written = 0;
    o->on_their_way = 0;
    return DR_OK;
}

/* The disk begins while the rest is still being made, so that the fsync at the end is short. */
static void begin_writing(dr_outfile *o)
{
#if defined(SYNC_FILE_RANGE_WRITE)
    const uint64_t piece = 32u << 20;
    if (o->written - o->on_their_way >= piece) { /* a hint: nothing is lost when it is refused */
        (void)sync_file_range(fileno(o->f), (off_t)o->on_their_way,
                              (off_t)(o->written - o->on_their_way), SYNC_FILE_RANGE_WRITE);
        o->on_their_way = o->written;
    }
#else
    (void)o;
#endif
}

dr_status dr_outfile_write(dr_outfile *o, const void *data, size_t n)
{
    if (n > 0 && (dr_fault_at_write() || fwrite(data, 1, n, o->f) != n)) {
        DR_FAIL(DR_IO, "%s: cannot write: %s", o->path, strerror(errno));
    }
    o->written += n;
    begin_writing(o);
    return DR_OK;
}

static void release_outfile(dr_outfile *o)
{
    free(o->path);
    free(o->tmp);
    memset(o, 0, sizeof *o);
}

void dr_outfile_abort(dr_outfile *o)
{
    if (o->path == NULL) {
        return;
    }
    if (o->f != NULL) {
        (void)fclose(o->f);
    }
    (void)unlink(o->tmp);
    release_outfile(o);
}

void dr_sync_parent(const char *path)
{
    char *dir = dr_xcalloc(strlen(path) + 2, 1);
    memcpy(dir, path, strlen(path));
    char *slash = strrchr(dir, '/');
    if (slash == NULL) {
        dir[0] = '.';
        dir[1] = '\0';
    } else {
        slash[slash == dir ? 1 : 0] = '\0';
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd); /* file systems without directory fsync still renamed atomically */
        (void)close(fd);
    }
    free(dir);
}

dr_status dr_outfile_patch(dr_outfile *o, uint64_t offset, const void *data, size_t n)
{
    DR_CHECK(offset <= INT64_MAX, "%s: patch at %llu", o->path, (unsigned long long)offset);
    if (dr_fault_at_write() || fseeko(o->f, (off_t)offset, SEEK_SET) != 0 ||
        fwrite(data, 1, n, o->f) != n || fseeko(o->f, 0, SEEK_END) != 0) {
        DR_FAIL(DR_IO, "%s: cannot write: %s", o->path, strerror(errno));
    }
    return DR_OK;
}

dr_status dr_outfile_commit(dr_outfile *o)
{
    bool good = !dr_fault_at_write() && fflush(o->f) == 0 && !dr_fault_at_write() &&
                fsync(fileno(o->f)) == 0;
    int err = errno;
    good = fclose(o->f) == 0 && good;
    o->f = NULL;
    if (good && !dr_fault_at_write() && rename(o->tmp, o->path) == 0) {
        dr_sync_parent(o->path);
        release_outfile(o);
        return DR_OK;
    }
    err = good ? errno : err;
    (void)dr_error_set(DR_IO, __FILE__, __LINE__, "%s: cannot finish writing: %s", o->path,
                       strerror(err));
    dr_outfile_abort(o);
    return DR_IO;
}

dr_status dr_file_write(const char *path, const void *data, size_t n)
{
    dr_outfile o = {0};
    DR_TRY(dr_outfile_open(&o, path));
    dr_status st = dr_outfile_write(&o, data, n);
    if (st != DR_OK) {
        dr_outfile_abort(&o);
        return st;
    }
    return dr_outfile_commit(&o);
}

dr_status dr_check_free_space(const char *path, uint64_t need)
{
    const char *base = dr_path_base(path);
    dr_str dir = {0};
    dr_str_add_n(&dir, path, (size_t)(base - path));
    const char *where = dir.len > 0 ? dir.data : ".";
    struct statvfs fs;
    dr_status st = DR_OK;
    if (statvfs(where, &fs) == 0) {
        uint64_t avail = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (avail < need) {
            char need_text[24];
            char avail_text[24];
            dr_format_bytes(need, need_text);
            dr_format_bytes(avail, avail_text);
            st = dr_error_set(DR_IO, __FILE__, __LINE__,
                              "%s: needs %s (%llu bytes) but only %s are free in %s: make room or "
                              "write elsewhere",
                              path, need_text, (unsigned long long)need, avail_text, where);
        }
    } else if (errno == ENOENT || errno == ENOTDIR) {
        st = dr_error_set(DR_OUTPUT, __FILE__, __LINE__,
                          "%s: cannot create: the directory %s does not exist", path, where);
    }
    dr_str_free(&dir);
    return st;
}

bool dr_path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool dr_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

dr_status dr_mkdirs(const char *path)
{
    char *copy = dr_xcalloc(strlen(path) + 1, 1);
    memcpy(copy, path, strlen(path));
    dr_status st = DR_OK;
    for (char *p = copy + 1; st == DR_OK; p++) {
        if (*p != '/' && *p != '\0') {
            continue;
        }
        char saved = *p;
        *p = '\0';
        int err = mkdir(copy, 0777) == 0 ? 0 : errno;
        if (err != 0 && !dr_path_is_dir(copy)) {
            st = dr_error_set(DR_OUTPUT, __FILE__, __LINE__, "%s: cannot create directory: %s",
                              copy, err == EEXIST ? "a file is in the way" : strerror(err));
        }
        *p = saved;
        if (saved == '\0') {
            break;
        }
    }
    free(copy);
    return st;
}

dr_status dr_list_dir(const char *path, dr_strv *names)
{
    DIR *d = opendir(path);
    if (d == NULL) {
        DR_FAIL(DR_IO, "%s: cannot list directory: %s", path, strerror(errno));
    }
    errno = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            dr_strv_push(names, e->d_name);
        }
    }
    int err = errno;
    (void)closedir(d);
    if (err != 0) {
        DR_FAIL(DR_IO, "%s: cannot read directory: %s", path, strerror(err));
    }
    dr_strv_sort(names);
    return DR_OK;
}

char *dr_path_join(const char *a, const char *b)
{
    dr_str s = {0};
    dr_str_add(&s, a);
    if (s.len > 0 && s.data[s.len - 1] != '/') {
        dr_str_add(&s, "/");
    }
    dr_str_add(&s, b);
    return s.data;
}

const char *dr_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}
