#include "io/http.h"

#include "base/arena.h"
#include "base/str.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_HOPS = 10, CONNECT_S = 20, BUFFER_BYTES = 256 * 1024 };

struct dr_http {
    CURL *curl;
    const dr_http_request *request; /* in work */
    dr_http_reply *reply;
    dr_status sink_status;
    char error[CURL_ERROR_SIZE];
};

/* ---- addresses ----------------------------------------------------------------------------- */

/* Length of "scheme://host:port" at the start of url. */
static size_t origin_length(const char *url)
{
    const char *host = strstr(url, "://");
    host = host == NULL ? url : host + 3;
    return (size_t)(host - url) + strcspn(host, "/?#");
}

static bool same_origin(const char *a, const char *b)
{
    const size_t n = origin_length(a);
    return n == origin_length(b) && strncasecmp(a, b, n) == 0;
}

/* ---- the reply's head ---------------------------------------------------------------------- */

/* Printable ASCII of a header's value into a field of a reply. */
static void keep_text(char *field, size_t size, const char *value, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len + 1 < size; i++) {
        if (value[i] >= ' ' && value[i] <= '~') {
            field[len++] = value[i];
        }
    }
    field[len] = '\0';
}

/* "abc", W/"abc" and abc are the same etag. */
static void keep_etag(char *field, size_t size, const char *value, size_t n)
{
    if (n >= 2 && (value[0] == 'W' || value[0] == 'w') && value[1] == '/') {
        value += 2;
        n -= 2;
    }
    while (n > 0 && value[0] == '"') {
        value++;
        n--;
    }
    while (n > 0 && value[n - 1] == '"') {
        n--;
    }
    keep_text(field, size, value, n);
}

/* A number >= 0 at the start of text, up to one of the stop characters; -1 for anything else. */
static int64_t number_until(const char *text, size_t n, char stop)
{
    char digits[24] = "";
    int64_t value = -1;
    size_t len = 0;
    while (len < n && text[len] != stop) {
        len++;
    }
    keep_text(digits, sizeof digits, text, len);
    return dr_parse_i64(digits, &value) && value >= 0 ? value : -1;
}

static void keep_header(dr_http_reply *r, const char *name, size_t n_name, const char *value,
                        size_t n)
{
#define IS(text) (n_name == sizeof(text) - 1 && strncasecmp(name, text, n_name) == 0)
    if (IS("etag")) {
        keep_etag(r->etag, sizeof r->etag, value, n);
    } else if (IS("x-linked-etag")) {
        keep_etag(r->linked_etag, sizeof r->linked_etag, value, n);
    } else if (IS("x-linked-size")) {
        r->linked_size = number_until(value, n, '\0');
    } else if (IS("x-repo-commit")) {
        keep_text(r->commit, sizeof r->commit, value, n);
    } else if (IS("x-error-code")) {
        keep_text(r->error_code, sizeof r->error_code, value, n);
    } else if (IS("x-error-message")) {
        keep_text(r->error_message, sizeof r->error_message, value, n);
    } else if (IS("content-length")) {
        r->length = number_until(value, n, '\0');
    } else if (IS("content-range") && n > 6 && strncasecmp(value, "bytes ", 6) == 0) {
        r->range_start = number_until(value + 6, n - 6, '-');
    }
#undef IS
}

static void clear_reply(dr_http_reply *r)
{
    *r = (dr_http_reply){.length = -1, .range_start = -1, .linked_size = -1};
}

/* libcurl's header callback: one line per call; a status line begins a new head. */
static size_t on_header(char *line, size_t one, size_t n, void *user)
{
    dr_http *h = user;
    const char *colon = memchr(line, ':', n);
    if (n >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        clear_reply(h->reply);
    } else if (colon != NULL) {
        const char *value = colon + 1;
        const char *end = line + n;
        while (value < end && (*value == ' ' || *value == '\t')) {
            value++;
        }
        while (end > value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) {
            end--;
        }
        keep_header(h->reply, line, (size_t)(colon - line), value, (size_t)(end - value));
    }
    return one * n;
}

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    dr_http *h = user;
    long status = 0;
    (void)curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
    h->reply->status = (int)status;
    if (h->request->sink == NULL || status < 200 || status > 299) {
        return one * n;
    }
    h->sink_status = h->request->sink(h->request->ctx, h->reply, data, n);
    return h->sink_status == DR_OK ? one * n : 0;
}

/* ---- requests ------------------------------------------------------------------------------ */

dr_status dr_http_open(dr_http **out, int stall_s)
{
    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        DR_FAIL(DR_IO, "libcurl cannot start");
    }
    dr_http *h = dr_xcalloc(1, sizeof *h);
    h->curl = curl_easy_init();
    if (h->curl == NULL) {
        dr_http_close(h);
        DR_FAIL(DR_NOMEM, "libcurl cannot start: not enough memory");
    }
    (void)curl_easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(h->curl, CURLOPT_FOLLOWLOCATION, 0L); /* hop by hop, see fetch */
    (void)curl_easy_setopt(h->curl, CURLOPT_USERAGENT, "dreamrun");
    (void)curl_easy_setopt(h->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    (void)curl_easy_setopt(h->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(h->curl, CURLOPT_LOW_SPEED_TIME, (long)stall_s);
    (void)curl_easy_setopt(h->curl, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    (void)curl_easy_setopt(h->curl, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(h->curl, CURLOPT_HEADERDATA, h);
    (void)curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, h);
    (void)curl_easy_setopt(h->curl, CURLOPT_ERRORBUFFER, h->error);
    static const char *const bundles[] = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"};
    for (size_t i = sizeof bundles / sizeof *bundles; i-- > 0;) {
        const char *file = getenv(bundles[i]);
        if (file != NULL && file[0] != '\0') {
            (void)curl_easy_setopt(h->curl, CURLOPT_CAINFO, file);
        }
    }
    *out = h;
    return DR_OK;
}

void dr_http_close(dr_http *h)
{
    if (h != NULL) {
        curl_easy_cleanup(h->curl);
        curl_global_cleanup();
        free(h);
    }
}

/* Failures that another attempt may not meet. */
static bool is_passing(CURLcode code)
{
    switch (code) {
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

static dr_status fail_transfer(dr_http *h, const char *url, CURLcode code)
{
    if (h->sink_status != DR_OK) {
        return dr_error_frame(h->sink_status, __FILE__, __LINE__);
    }
    h->reply->retry = is_passing(code);
    DR_FAIL(DR_IO, "%.*s: %s", (int)origin_length(url), url,
            h->error[0] != '\0' ? h->error : curl_easy_strerror(code));
}

/* One hop. *next: where a redirect leads, a fresh string, or NULL. */
static dr_status hop(dr_http *h, const char *url, char **next)
{
    const dr_http_request *q = h->request;
    struct curl_slist *headers = curl_slist_append(NULL, "Accept-Encoding: identity");
    dr_str line = {0};
    if (q->token != NULL && same_origin(url, q->url)) {
        dr_str_printf(&line, "Authorization: Bearer %s", q->token);
        headers = curl_slist_append(headers, dr_str_get(&line));
        dr_str_free(&line);
    }
    if (q->from > 0) {
        dr_str_printf(&line, "Range: bytes=%llu-", (unsigned long long)q->from);
        headers = curl_slist_append(headers, dr_str_get(&line));
        dr_str_free(&line);
    }
    clear_reply(h->reply);
    h->sink_status = DR_OK;
    h->error[0] = '\0';
    (void)curl_easy_setopt(h->curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(h->curl, q->head ? CURLOPT_NOBODY : CURLOPT_HTTPGET, 1L);
    const CURLcode code = curl_easy_perform(h->curl);
    long status = 0;
    char *target = NULL;
    (void)curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(h->curl, CURLINFO_REDIRECT_URL, &target);
    (void)curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    h->reply->status = (int)status;
    if (code != CURLE_OK) {
        return fail_transfer(h, url, code);
    }
    h->reply->retry = status == 408 || status == 429 || status >= 500;
    if (target != NULL) {
        dr_str_add(&line, target);
        *next = line.data;
    }
    return DR_OK;
}

dr_status dr_http_fetch(dr_http *h, const dr_http_request *q, dr_http_reply *r)
{
    h->request = q;
    h->reply = r;
    char *url = NULL;
    dr_status st = hop(h, q->url, &url);
    for (int hops = 1; st == DR_OK && url != NULL; hops++) {
        char *next = NULL;
        if (q->head && !same_origin(url, q->url)) {
            break; /* the reply stands as it is */
        }
        if (hops > MAX_HOPS) {
            st = dr_error_set(DR_IO, __FILE__, __LINE__, "%.*s: more than %d redirects",
                              (int)origin_length(url), url, MAX_HOPS);
        } else if (strncasecmp(q->url, "https:", 6) == 0 && strncasecmp(url, "https:", 6) != 0) {
            st = dr_error_set(DR_IO, __FILE__, __LINE__,
                              "%.*s: the server redirects to an unencrypted address, which is not "
                              "followed",
                              (int)origin_length(q->url), q->url);
        } else {
            st = hop(h, url, &next);
        }
        free(url);
        url = next;
    }
    free(url);
    return st;
}
