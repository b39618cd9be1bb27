/*
 * Downloads what the cache lacks: the list of files, then sizes and hashes of all, then free space,
 * then the bytes; the revision's name is written last.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "train/hub/hub_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const double plain_interval_s = 5.0;   /* between plain lines: a log stays readable */
static const double rewrite_interval_s = 0.1; /* a terminal needs no more */
enum { MAX_ATTEMPTS = 200 };                  /* of one file */

typedef struct download {
    const dr_hub_id *id;
    dr_hub_server server;
    dr_str repo_dir, lock_dir;
    char commit[DR_HUB_COMMIT];
    dr_strv needed;
    dr_hub_file *files; /* one per needed file */
    /* for the progress line: */
    const char *name;
    uint64_t total, done, begun; /* bytes of all files, so far, of earlier runs */
    double started_s, printed_s;
    bool terminal, line_open;
} download;

/* ---- the list of files --------------------------------------------------------------------- */

static dr_status take_text(void *ctx, const dr_http_reply *r, const void *data, size_t n)
{
    dr_str *body = ctx;
    (void)r;
    if (n > DR_HUB_MAX_INDEX - body->len) {
        DR_FAIL(DR_FORMAT, "the list of files has more than %d bytes", DR_HUB_MAX_INDEX);
    }
    dr_str_add_n(body, data, n);
    return DR_OK;
}

static void add_revision(dr_str *url, const char *revision)
{
    for (const char *p = revision; *p != '\0'; p++) {
        static const char plain[] = "-._~";
        const bool word = (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') ||
                          (*p >= 'a' && *p <= 'z') || strchr(plain, *p) != NULL;
        dr_str_printf(url, word ? "%c" : "%%%02X", (unsigned char)*p);
    }
}

/* A checkpoint at the top of a repository; NULL: none. */
static const char *single_file(const dr_strv *names)
{
    for (size_t i = 0; i < names->n; i++) {
        if (strchr(names->at[i], '/') == NULL &&
            (dr_str_ends(names->at[i], ".safetensors") || dr_str_ends(names->at[i], ".ckpt"))) {
            return names->at[i];
        }
    }
    return NULL;
}

static dr_status fail_incomplete(const download *d, const dr_strv *names, dr_hub_use use,
                                 const char *missing)
{
    const char *repo = d->id->repo;
    const char *single = d->id->file[0] == '\0' ? single_file(names) : NULL;
    if (d->id->file[0] != '\0') {
        DR_FAIL(DR_INVALID, "%s: the repository has no file %s", repo, missing);
    }
    if (single != NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: the repository has no %s in Diffusers' form (%s missing), but single files: "
                "name one, for example %s/%.200s",
                repo, use == DR_HUB_VAE ? "VAE" : "model", missing, repo, single);
    }
    DR_FAIL(DR_FORMAT, "%s: the repository holds no %s that can be used here: %s missing", repo,
            use == DR_HUB_VAE ? "VAE" : "Stable Diffusion model", missing);
}

static dr_status list_files(download *d, dr_hub_use use)
{
    dr_str url = {0};
    dr_str body = {0};
    dr_http_reply r;
    dr_str_printf(&url, "%s/api/models/%s/revision/", d->server.endpoint, d->id->repo);
    add_revision(&url, d->id->revision);
    dr_status st =
        dr_hub_ask(&d->server,
                   &(dr_http_request){
                       .url = url.data, .token = d->server.token, .sink = take_text, .ctx = &body},
                   &r);
    if (st == DR_OK) {
        st = dr_hub_check_status(&d->server, &r, NULL);
    }
    dr_str_free(&url);
    if (st == DR_OK) {
        dr_strv names = {0};
        dr_str missing = {0};
        dr_str source = {0};
        dr_str_printf(&source, "%s: the list of files from %s", d->id->repo,
                      dr_hub_host(&d->server));
        st = dr_hub_index_parse(source.data, dr_str_get(&body), body.len, d->commit, &names);
        if (st == DR_OK && !dr_hub_choose(&names, use, d->id, &d->needed, &missing)) {
            st = fail_incomplete(d, &names, use, dr_str_get(&missing));
        }
        dr_strv_free(&names);
        dr_str_free(&missing);
        dr_str_free(&source);
    }
    dr_str_free(&body);
    return st;
}

/* ---- sizes and hashes ---------------------------------------------------------------------- */

static void file_url(const download *d, const char *name, dr_str *url)
{
    dr_str_printf(url, "%s/%s/resolve/%s/", d->server.endpoint, d->id->repo, d->commit);
    for (const char *p = name; *p != '\0'; p++) {
        dr_str_printf(url, *p == ' ' || *p == '+' ? "%%%02X" : "%c", (unsigned char)*p);
    }
}

static bool is_hash(const char *etag)
{
    const size_t n = strlen(etag);
    return (n == 40 || n == 64) && strspn(etag, "0123456789abcdef") == n;
}

/* Bytes of an earlier run, or all when the blob is there. */
static uint64_t present_bytes(const download *d, const dr_hub_file *f)
{
    uint64_t n = 0;
    for (int i = 0; i < 2 && n == 0; i++) {
        dr_str path = {0};
        dr_str_printf(&path, "%s/blobs/%s%s", d->repo_dir.data, f->etag,
                      i == 0 ? "" : ".incomplete");
        FILE *file = fopen(path.data, "rbe");
        if (file != NULL) {
            n = fseeko(file, 0, SEEK_END) == 0 && ftello(file) > 0 ? (uint64_t)ftello(file) : 0;
            (void)fclose(file);
        }
        dr_str_free(&path);
    }
    return n < f->size ? n : f->size;
}

static dr_status ask_file(const download *d, const char *name, dr_hub_file *f)
{
    dr_str url = {0};
    dr_http_reply r;
    file_url(d, name, &url);
    dr_status st =
        dr_hub_ask(&d->server,
                   &(dr_http_request){.url = url.data, .token = d->server.token, .head = true}, &r);
    dr_str_free(&url);
    if (st == DR_OK) {
        st = dr_hub_check_status(&d->server, &r, "file");
    }
    DR_TRY(st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", name));
    const char *etag = r.linked_etag[0] != '\0' ? r.linked_etag : r.etag;
    const int64_t size = r.linked_size >= 0 ? r.linked_size : r.length;
    if (!is_hash(etag) || size < 0) {
        DR_FAIL(DR_FORMAT,
                "%s/%s: %s tells no hash and size (found ETag '%s', size %lld), without which a "
                "download cannot be checked; is HF_ENDPOINT a Hugging Face hub?",
                d->id->repo, name, dr_hub_host(&d->server), etag, (long long)size);
    }
    memcpy(f->etag, etag, strlen(etag) + 1);
    f->size = (uint64_t)size;
    f->present = present_bytes(d, f);
    return DR_OK;
}

static dr_status check_space(const download *d)
{
    struct statvfs fs;
    const uint64_t need = d->total - d->begun;
    if (statvfs(d->repo_dir.data, &fs) != 0) {
        return DR_OK; /* it shows while writing */
    }
    const uint64_t avail = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (need <= avail) {
        return DR_OK;
    }
    char need_text[24];
    char avail_text[24];
    dr_format_bytes(need, need_text);
    dr_format_bytes(avail, avail_text);
    DR_FAIL(DR_IO,
            "%s: %s are to be downloaded, but only %s are free in %s: make room, or name another "
            "folder in HF_HOME",
            d->id->repo, need_text, avail_text, d->repo_dir.data);
}

static dr_status ask_files(download *d)
{
    d->files = dr_xcalloc(d->needed.n, sizeof *d->files);
    for (size_t i = 0; i < d->needed.n; i++) {
        DR_TRY(ask_file(d, d->needed.at[i], &d->files[i]));
        d->total += d->files[i].size;
        d->begun += d->files[i].present;
    }
    d->done = d->begun;
    DR_TRY(dr_mkdirs(d->repo_dir.data));
    return check_space(d);
}

/* ---- progress ------------------------------------------------------------------------------ */

static void show(download *d, bool now)
{
    const double t = dr_now_s();
    if (!now && t - d->printed_s < (d->terminal ? rewrite_interval_s : plain_interval_s)) {
        return;
    }
    char done[24], total[24], rate[24];
    const double elapsed = t - d->started_s;
    const double per_s = elapsed > 0.0 ? (double)(d->done - d->begun) / elapsed : 0.0;
    const double left = per_s > 0.0 ? (double)(d->total - d->done) / per_s : 0.0;
    const long eta = left < 359999.0 ? (long)(left + 0.5) : 359999;
    dr_format_bytes(d->done, done);
    dr_format_bytes(d->total, total);
    dr_format_bytes((uint64_t)per_s, rate);
    char line[512];
    (void)snprintf(
        line, sizeof line, "%sdownload %3.0f%% %s of %s | %s/s | ETA %02ld:%02ld:%02ld | %s%s",
        d->terminal ? "\r" : "", d->total > 0 ? 100.0 * (double)d->done / (double)d->total : 100.0,
        done, total, rate, eta / 3600, eta / 60 % 60, eta % 60, d->name,
        d->terminal ? "\033[K" : "\n");
    (void)fputs(line, stderr);
    (void)fflush(stderr);
    d->printed_s = t;
    d->line_open = d->terminal;
}

static void end_line(download *d)
{
    if (d->line_open) {
        (void)fputc('\n', stderr);
        d->line_open = false;
    }
}

/* ---- the bytes ----------------------------------------------------------------------------- */

typedef struct transfer {
    download *d;
    dr_hub_blob *blob;
    uint64_t from;
    bool begun;
} transfer;

static dr_status take_bytes(void *ctx, const dr_http_reply *r, const void *data, size_t n)
{
    transfer *t = ctx;
    if (!t->begun) {
        t->begun = true;
        const bool goes_on = r->status == 206 && r->range_start == (int64_t)t->from;
        if (r->status == 206 && !goes_on) {
            DR_FAIL(DR_IO, "the server sends bytes from %lld on, asked for %llu",
                    (long long)r->range_start, (unsigned long long)t->from);
        }
        if (!goes_on && t->from > 0) { /* it sends the whole file */
            t->d->done -= t->from;
            DR_TRY(dr_hub_blob_restart(t->blob));
        }
    }
    DR_TRY(dr_hub_blob_add(t->blob, data, n));
    t->d->done += n;
    show(t->d, false);
    return DR_OK;
}

/* Attempts until all bytes are there. */
static dr_status fill(download *d, const dr_hub_file *f, dr_hub_blob *blob, const char *url)
{
    int futile = 0;
    for (int attempt = 0; dr_hub_blob_size(blob) < f->size; attempt++) {
        const uint64_t from = dr_hub_blob_size(blob);
        transfer t = {.d = d, .blob = blob, .from = from};
        dr_http_reply r;
        dr_status st = dr_http_fetch(
            d->server.http,
            &(dr_http_request){
                .url = url, .token = d->server.token, .from = from, .sink = take_bytes, .ctx = &t},
            &r);
        if (st == DR_OK && r.status == 416) { /* what is there is no part of the file */
            d->done -= from;
            st = dr_hub_blob_restart(blob);
        } else if (st == DR_OK && !r.retry) {
            DR_TRY(dr_hub_check_status(&d->server, &r, "file"));
        }
        futile = dr_hub_blob_size(blob) > from ? 0 : futile + 1;
        if (futile == DR_HUB_MAX_FUTILE || attempt == MAX_ATTEMPTS || (st != DR_OK && !r.retry)) {
            st = st == DR_OK ? dr_hub_check_status(&d->server, &r, "file") : st;
            return dr_error_prefix(
                st == DR_OK ? dr_error_set(DR_IO, __FILE__, __LINE__, "the server sends nothing")
                            : st,
                "%s/%s: download interrupted at %llu of %llu bytes (the next run goes on there)",
                d->id->repo, d->name, (unsigned long long)dr_hub_blob_size(blob),
                (unsigned long long)f->size);
        }
        dr_error_clear();
        if (futile > 0) {
            dr_hub_wait(futile);
        }
    }
    return DR_OK;
}

/* Damaged bytes are thrown away and fetched once more. */
static dr_status fill_checked(download *d, const dr_hub_file *f, dr_hub_blob *blob, const char *url)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        DR_TRY(fill(d, f, blob, url));
        if (dr_hub_blob_is_good(blob)) {
            return dr_hub_blob_commit(blob);
        }
        end_line(d);
        if (attempt == 0) {
            dr_warn("%s/%s: the downloaded bytes do not have the hash that %s tells: fetching them "
                    "once more",
                    d->id->repo, d->name, dr_hub_host(&d->server));
        }
        d->done -= f->size;
        DR_TRY(dr_hub_blob_restart(blob));
    }
    DR_FAIL(DR_FORMAT,
            "%s/%s: twice the downloaded bytes did not have the hash %.12s... that %s tells; they "
            "were thrown away. Something between here and the server changes data (a proxy?)",
            d->id->repo, d->name, f->etag, dr_hub_host(&d->server));
}

static dr_status fetch_file(download *d, size_t i)
{
    const dr_hub_file *f = &d->files[i];
    dr_hub_blob *blob = NULL;
    d->name = d->needed.at[i];
    dr_status st = dr_hub_blob_open(&blob, d->repo_dir.data, d->lock_dir.data, f);
    if (st == DR_OK && blob != NULL) {
        dr_str url = {0};
        d->done = d->done - f->present + dr_hub_blob_size(blob);
        file_url(d, d->name, &url);
        st = fill_checked(d, f, blob, url.data);
        dr_str_free(&url);
    }
    dr_hub_blob_close(blob);
    if (st == DR_OK) {
        st = dr_hub_link(d->repo_dir.data, d->commit, d->name, f->etag);
    }
    return st;
}

static dr_status write_ref(const download *d)
{
    dr_str path = {0};
    dr_str dir = {0};
    dr_status st = DR_OK;
    if (strcmp(d->id->revision, d->commit) != 0) {
        dr_str_printf(&path, "%s/refs/%s", d->repo_dir.data, d->id->revision);
        dr_str_add_n(&dir, path.data, (size_t)(dr_path_base(path.data) - path.data) - 1);
        st = dr_mkdirs(dir.data);
        if (st == DR_OK) {
            st = dr_file_write(path.data, d->commit, strlen(d->commit));
        }
    }
    dr_str_free(&path);
    dr_str_free(&dir);
    return st;
}

static dr_status fetch_all(download *d)
{
    char text[24];
    dr_format_bytes(d->total - d->begun, text);
    dr_info("hub: %s@%s: downloading %s into %s", d->id->repo, d->id->revision, text,
            d->repo_dir.data);
    d->started_s = dr_now_s();
    d->printed_s = d->started_s;
    d->terminal = isatty(STDERR_FILENO) != 0;
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < d->needed.n; i++) {
        st = fetch_file(d, i);
    }
    if (st == DR_OK) {
        show(d, true);
    }
    end_line(d);
    return st == DR_OK ? write_ref(d) : st;
}

dr_status dr_hub_download(const char *cache, const dr_hub_id *id, dr_hub_use use,
                          char commit[DR_HUB_COMMIT])
{
    download d = {.id = id};
    DR_TRY(dr_hub_server_open(&d.server, id));
    dr_hub_repo_dir(&d.repo_dir, cache, id);
    dr_str_printf(&d.lock_dir, "%s/.locks/%s", cache, dr_path_base(d.repo_dir.data));
    dr_status st = list_files(&d, use);
    if (st == DR_OK) {
        st = ask_files(&d);
    }
    if (st == DR_OK) {
        st = fetch_all(&d);
    }
    memcpy(commit, d.commit, sizeof d.commit);
    dr_hub_server_close(&d.server);
    free(d.files);
    dr_strv_free(&d.needed);
    dr_str_free(&d.repo_dir);
    dr_str_free(&d.lock_dir);
    return st == DR_OK ? DR_OK : dr_error_frame(st, __FILE__, __LINE__);
}
