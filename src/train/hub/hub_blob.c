/*
 * One file of the cache while it is downloaded: blobs/ETAG.incomplete grows under the lock
 * CACHE/.locks/models--owner--name/ETAG.lock and becomes blobs/ETAG when its hash is right. A run
 * that ends before leaves the .incomplete file, and the next one goes on behind its last byte.
 */
#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "io/digest.h"
#include "train/hub/hub_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct dr_hub_blob {
    dr_hub_file file;
    char *path, *incomplete, *dir;
    int fd, lock;
    uint64_t n;
    dr_digest *digest;
};

static char *join3(const char *dir, const char *name, const char *end)
{
    dr_str s = {0};
    dr_str_printf(&s, "%s/%s%s", dir, name, end);
    return s.data;
}

/* As huggingface_hub: flock, the lock file stays. File systems without locks go on without. */
static dr_status take_lock(dr_hub_blob *b, const char *lock_dir)
{
    DR_TRY(dr_mkdirs(lock_dir));
    char *path = join3(lock_dir, b->file.etag, ".lock");
    dr_status st = DR_OK;
    b->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (b->lock < 0) {
        st = dr_error_set(DR_OUTPUT, __FILE__, __LINE__, "%s: cannot create: %s", path,
                          strerror(errno));
    } else if (flock(b->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            dr_info("waiting for another process that downloads this file (%s)", path);
            while (flock(b->lock, LOCK_EX) != 0 && errno == EINTR) {
            }
        } else {
            dr_warn("%s: no lock (%s): start no second download into this cache", path,
                    strerror(errno));
        }
    }
    free(path);
    return st;
}

static void hash_head(dr_hub_blob *b)
{
    b->digest = dr_digest_create(strlen(b->file.etag) == 64 ? DR_SHA256 : DR_SHA1);
    if (strlen(b->file.etag) != 64) { /* git hashes a header before the bytes */
        dr_str head = {0};
        dr_str_printf(&head, "blob %llu", (unsigned long long)b->file.size);
        dr_digest_add(b->digest, head.data, head.len + 1); /* with its NUL */
        dr_str_free(&head);
    }
}

/* Hashes what is there already. */
static dr_status read_present(dr_hub_blob *b)
{
    enum { PIECE = 1 << 20 };
    char *buf = dr_xcalloc(PIECE, 1);
    ssize_t got = 0;
    while ((got = read(b->fd, buf, PIECE)) > 0) {
        dr_digest_add(b->digest, buf, (size_t)got);
        b->n += (uint64_t)got;
    }
    free(buf);
    if (got < 0) {
        DR_FAIL(DR_IO, "%s: read error: %s", b->incomplete, strerror(errno));
    }
    return b->n > b->file.size ? dr_hub_blob_restart(b) : DR_OK;
}

static dr_status open_blob(dr_hub_blob *b, const char *lock_dir)
{
    DR_TRY(dr_mkdirs(b->dir));
    DR_TRY(take_lock(b, lock_dir));
    struct stat there;
    if (stat(b->path, &there) == 0) {
        if ((uint64_t)there.st_size == b->file.size) {
            return DR_OK;
        }
        dr_warn("%s: has %lld bytes, expected %llu: fetching it again", b->path,
                (long long)there.st_size, (unsigned long long)b->file.size);
        (void)unlink(b->path);
    }
    b->fd = open(b->incomplete, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (b->fd < 0) {
        DR_FAIL(DR_OUTPUT, "%s: cannot create: %s", b->incomplete, strerror(errno));
    }
    hash_head(b);
    return read_present(b);
}

dr_status dr_hub_blob_open(dr_hub_blob **out, const char *repo_dir, const char *lock_dir,
                           const dr_hub_file *f)
{
    dr_hub_blob *b = dr_xcalloc(1, sizeof *b);
    *b = (dr_hub_blob){.file = *f, .fd = -1, .lock = -1};
    b->dir = join3(repo_dir, "blobs", "");
    b->path = join3(b->dir, f->etag, "");
    b->incomplete = join3(b->dir, f->etag, ".incomplete");
    const dr_status st = open_blob(b, lock_dir);
    *out = NULL;
    if (st != DR_OK || b->fd < 0) {
        dr_hub_blob_close(b);
        return st;
    }
    *out = b;
    return DR_OK;
}

uint64_t dr_hub_blob_size(const dr_hub_blob *b)
{
    return b->n;
}

dr_status dr_hub_blob_restart(dr_hub_blob *b)
{
    b->n = 0;
    dr_digest_destroy(b->digest);
    hash_head(b);
    if (ftruncate(b->fd, 0) != 0 || lseek(b->fd, 0, SEEK_SET) != 0) {
        DR_FAIL(DR_IO, "%s: cannot empty: %s", b->incomplete, strerror(errno));
    }
    return DR_OK;
}

dr_status dr_hub_blob_add(dr_hub_blob *b, const void *data, size_t n)
{
    const char *at = data;
    if (n > b->file.size - b->n) {
        DR_FAIL(DR_IO, "%s: the server sends more than the %llu bytes it announced", b->incomplete,
                (unsigned long long)b->file.size);
    }
    for (size_t left = n; left > 0;) {
        const ssize_t put = write(b->fd, at, left);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            DR_FAIL(DR_IO,
                    "%s: cannot write: %s; %llu of %llu bytes are kept, and the next run goes on "
                    "there",
                    b->incomplete, strerror(errno), (unsigned long long)b->n,
                    (unsigned long long)b->file.size);
        }
        dr_digest_add(b->digest, at, (size_t)put);
        b->n += (uint64_t)put;
        at += put;
        left -= (size_t)put;
    }
    return DR_OK;
}

bool dr_hub_blob_is_good(dr_hub_blob *b)
{
    char hex[DR_DIGEST_HEX];
    if (b->n != b->file.size) {
        return false;
    }
    dr_digest_finish(b->digest, hex);
    b->digest = NULL;
    return strcmp(hex, b->file.etag) == 0;
}

static void sync_dir(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd); /* file systems without directory fsync still renamed atomically */
        (void)close(fd);
    }
}

dr_status dr_hub_blob_commit(dr_hub_blob *b)
{
    if (fsync(b->fd) != 0 || rename(b->incomplete, b->path) != 0) {
        DR_FAIL(DR_IO, "%s: cannot finish writing: %s", b->path, strerror(errno));
    }
    sync_dir(b->dir);
    return DR_OK;
}

void dr_hub_blob_close(dr_hub_blob *b)
{
    if (b == NULL) {
        return;
    }
    if (b->fd >= 0) {
        (void)close(b->fd);
    }
    if (b->lock >= 0) {
        (void)close(b->lock); /* and with it the lock */
    }
    dr_digest_destroy(b->digest);
    free(b->path);
    free(b->incomplete);
    free(b->dir);
    free(b);
}

/* ---- snapshots ----------------------------------------------------------------------------- */

/* "../../blobs/ETAG", one "../" more for each folder in name. */
static void link_target(dr_str *out, const char *name, const char *etag)
{
    dr_str_add(out, "../../");
    for (const char *p = name; *p != '\0'; p++) {
        dr_str_add(out, *p == '/' ? "../" : "");
    }
    dr_str_printf(out, "blobs/%s", etag);
}

/* File systems without links (some network shares) get the file itself, as huggingface_hub does. */
static dr_status place(const char *target, const char *path, const char *repo_dir, const char *etag)
{
    if (symlink(target, path) == 0 || (errno == EEXIST && dr_path_exists(path))) {
        return DR_OK;
    }
    if (errno == EEXIST && unlink(path) == 0 && symlink(target, path) == 0) {
        return DR_OK; /* it led nowhere */
    }
    char *dir = join3(repo_dir, "blobs", "");
    char *blob = join3(dir, etag, "");
    const bool moved = rename(blob, path) == 0;
    const int err = errno;
    free(dir);
    free(blob);
    if (!moved) {
        DR_FAIL(DR_OUTPUT, "%s: cannot link or move the downloaded file there: %s", path,
                strerror(err));
    }
    return DR_OK;
}

dr_status dr_hub_link(const char *repo_dir, const char *commit, const char *name, const char *etag)
{
    dr_str target = {0};
    dr_str path = {0};
    dr_str dir = {0};
    link_target(&target, name, etag);
    dr_str_printf(&path, "%s/snapshots/%s/%s", repo_dir, commit, name);
    dr_str_add_n(&dir, path.data, (size_t)(dr_path_base(path.data) - path.data) - 1);
    dr_status st = dr_mkdirs(dir.data);
    if (st == DR_OK && !dr_path_exists(path.data)) {
        st = place(target.data, path.data, repo_dir, etag);
    }
    sync_dir(dir.data);
    dr_str_free(&target);
    dr_str_free(&path);
    dr_str_free(&dir);
    return st;
}
