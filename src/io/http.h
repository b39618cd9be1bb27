/*
 * io/http.h - HTTP requests: HEAD and GET with ranges, redirects and a token that stays at home.
 *
 * Layer:    io.  The only place that knows libcurl.
 * Threads:  a connection belongs to one thread.
 *
 * Nothing of a reply is trusted: header values are cut to their fields and hold printable ASCII
 * only. Messages name the host, never a whole URL (signed addresses are credentials) and never the
 * token. From the environment: libcurl's proxy variables, and the file of certificates
 * (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE).
 */
#ifndef DR_IO_HTTP_H
#define DR_IO_HTTP_H

#include "dreamrun/status.h"

typedef struct dr_http dr_http; /* keeps connections open between requests */

/* On error *out is NULL. stall_s: a transfer that brings nothing for so long has failed. */
DR_MUST_USE dr_status dr_http_open(dr_http **out, int stall_s);
void dr_http_close(dr_http *h); /* NULL is fine */

typedef struct dr_http_reply {
    int status;              /* of the last hop; 0: none came (connection, name, certificate) */
    bool retry;              /* the transfer broke or the server is busy: worth another attempt */
    int64_t length;          /* Content-Length; -1: not told */
    int64_t range_start;     /* first byte of a 206; -1: not told */
    int64_t linked_size;     /* X-Linked-Size, -1: not told */
    char etag[80];           /* ETag without W/ and quotes; "": not told */
    char linked_etag[80];    /* X-Linked-Etag, the same */
    char commit[48];         /* X-Repo-Commit */
    char error_code[48];     /* X-Error-Code */
    char error_message[160]; /* X-Error-Message */
} dr_http_reply;

/* Takes the body of a 2xx reply piece by piece; an error ends the transfer and is returned. */
typedef dr_status (*dr_http_sink)(void *ctx, const dr_http_reply *r, const void *data, size_t n);

typedef struct dr_http_request {
    const char *url;   /* http or https */
    const char *token; /* or NULL; goes as bearer token to url's scheme, host and port only */
    bool head;         /* HEAD; redirects to other hosts are not followed: reply.status 3xx */
    uint64_t from;     /* first byte wanted; a 200 in the reply means: all of it comes */
    dr_http_sink sink; /* NULL: the body is dropped */
    void *ctx;
} dr_http_request;

/*
 * One request with at most 10 redirects (never from https to http). DR_OK when a whole reply came,
 * whatever its status. Errors: DR_IO with host and reason; the sink's.
 */
DR_MUST_USE dr_status dr_http_fetch(dr_http *h, const dr_http_request *q, dr_http_reply *r);

#endif
