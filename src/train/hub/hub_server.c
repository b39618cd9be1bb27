/*
 * The server: its address, the token, and what its answers mean.
 */
#include "base/file.h"
#include "train/hub/hub_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const char default_endpoint[] = "https://huggingface.co";
enum { STALL_S = 60 }; /* unless HF_HUB_DOWNLOAD_TIMEOUT says otherwise */

/* ---- where and who ------------------------------------------------------------------------- */

static dr_status read_endpoint(dr_hub_server *s)
{
    const char *value = getenv("HF_ENDPOINT");
    dr_str text = {0};
    dr_str_add(&text, value != NULL && value[0] != '\0' ? value : default_endpoint);
    while (text.len > 0 && text.data[text.len - 1] == '/') {
        text.data[--text.len] = '\0';
    }
    s->endpoint = text.data;
    const bool http = strncasecmp(text.data, "http://", 7) == 0;
    if ((!http && strncasecmp(text.data, "https://", 8) != 0) ||
        strpbrk(text.data, "@ \t\r\n") != NULL) {
        DR_FAIL(DR_INVALID,
                "HF_ENDPOINT: expected an address like %s without user name or blanks; a token "
                "belongs into HF_TOKEN",
                default_endpoint);
    }
    return DR_OK;
}

/* The token without what surrounds it; false when empty. */
static bool keep_token(dr_hub_server *s, const char *text)
{
    text += strspn(text, " \t\r\n");
    const size_t n = strcspn(text, " \t\r\n");
    if (n == 0) {
        return false;
    }
    dr_str token = {0};
    dr_str_add_n(&token, text, n);
    s->token = token.data;
    return true;
}

static dr_status read_token(dr_hub_server *s)
{
    static const char *const names[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && keep_token(s, value)) {
            return DR_OK;
        }
    }
    const char *named = getenv("HF_TOKEN_PATH");
    dr_str path = {0};
    char *text = NULL;
    size_t n = 0;
    dr_status st = DR_OK;
    if (named != NULL && named[0] != '\0') {
        dr_str_add(&path, named);
    } else if (dr_hub_home(&path)) {
        dr_str_add(&path, "/token");
    }
    if (path.len > 0 && dr_path_exists(path.data)) {
        st = dr_file_read(path.data, 4096, &text, &n);
    }
    if (text != NULL) {
        (void)keep_token(s, text);
        free(text);
    }
    dr_str_free(&path);
    return st;
}

/* ---- what an answer means ------------------------------------------------------------------ */

const char *dr_hub_host(const dr_hub_server *s)
{
    return strstr(s->endpoint, "://") + 3;
}

static dr_status fail_permission(const dr_hub_server *s, const dr_http_reply *r)
{
    const char *repo = s->id->repo;
    if (s->token == NULL) {
        DR_FAIL(DR_INVALID,
                "%s: %s answers %d: no such model, or one that is private or gated. Check the "
                "spelling; for a gated model accept its terms at %s/%s, and give your token in "
                "HF_TOKEN",
                repo, dr_hub_host(s), r->status, s->endpoint, repo);
    }
    DR_FAIL(
        DR_INVALID,
        "%s: %s answers %d to your token%s%s: accept the model's terms at %s/%s, and check that "
        "the token is valid and may read the model",
        repo, dr_hub_host(s), r->status, r->error_message[0] != '\0' ? ": " : "", r->error_message,
        s->endpoint, repo);
}

dr_status dr_hub_check_status(const dr_hub_server *s, const dr_http_reply *r, const char *what)
{
    const dr_hub_id *id = s->id;
    if (r->status >= 200 && r->status < 400) {
        return DR_OK;
    }
    const bool unknown = strcmp(r->error_code, "RepoNotFound") == 0;
    if (r->status == 401 || r->status == 403) {
        return fail_permission(s, r);
    }
    if (r->status == 404 && strcmp(r->error_code, "RevisionNotFound") == 0) {
        DR_FAIL(DR_INVALID,
                "%s: %s knows the model, but no revision '%s': give a branch, tag or commit after "
                "the @",
                id->repo, dr_hub_host(s), id->revision);
    }
    if (r->status == 404) {
        DR_FAIL(DR_INVALID,
                "%s: %s has no %s of this name%s, and there is no such path here: check the "
                "spelling",
                id->repo, dr_hub_host(s), unknown || what == NULL ? "model" : what,
                s->token == NULL ? " (a private model needs a token in HF_TOKEN)" : "");
    }
    if (r->status == 429) {
        DR_FAIL(DR_IO,
                "%s: %s answers 429, too many requests: wait some minutes, then start again%s",
                id->repo, dr_hub_host(s),
                s->token == NULL ? "; with a token in HF_TOKEN more is allowed" : "");
    }
    DR_FAIL(DR_IO, "%s: %s answers %d%s%s; the next run goes on where this one stopped", id->repo,
            dr_hub_host(s), r->status, r->error_message[0] != '\0' ? ": " : "", r->error_message);
}

/* The record of a failed transfer, with what to do. */
static dr_status explain(const dr_hub_server *s, dr_status st)
{
    return dr_error_prefix(st, "%s: the model is not in the local cache and cannot be downloaded",
                           s->id->repo);
}

void dr_hub_wait(int futile)
{
    struct timespec t = {.tv_sec = (time_t)1 << (futile - 1)};
    (void)nanosleep(&t, NULL);
}

dr_status dr_hub_ask(const dr_hub_server *s, const dr_http_request *q, dr_http_reply *r)
{
    for (int futile = 1;; futile++) {
        const dr_status st = dr_http_fetch(s->http, q, r);
        if (!r->retry || futile == DR_HUB_MAX_FUTILE) {
            return st == DR_OK ? DR_OK : explain(s, st);
        }
        dr_error_clear();
        dr_hub_wait(futile);
    }
}

static int stall_seconds(void)
{
    const char *value = getenv("HF_HUB_DOWNLOAD_TIMEOUT");
    int64_t s = 0;
    return value != NULL && dr_parse_i64(value, &s) && s > 0 && s < 86400 ? (int)s : STALL_S;
}

dr_status dr_hub_server_open(dr_hub_server *s, const dr_hub_id *id)
{
    *s = (dr_hub_server){.id = id};
    dr_status st = read_endpoint(s);
    if (st == DR_OK) {
        st = read_token(s);
    }
    if (st == DR_OK) {
        st = dr_http_open(&s->http, stall_seconds());
    }
    if (st != DR_OK) {
        dr_hub_server_close(s);
    }
    return st;
}

void dr_hub_server_close(dr_hub_server *s)
{
    dr_http_close(s->http);
    free(s->endpoint);
    free(s->token);
    *s = (dr_hub_server){0};
}
