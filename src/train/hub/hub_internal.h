/*
 * train/hub/hub_internal.h - what the files of train/hub*.c share.
 *
 * Layer:    train, internal.
 */
#ifndef DR_TRAIN_HUB_INTERNAL_H
#define DR_TRAIN_HUB_INTERNAL_H

#include "base/str.h"
#include "io/http.h"
#include "train/hub/hub.h"

enum { DR_HUB_COMMIT = 41, DR_HUB_MAX_INDEX = 32 << 20 }; /* hex digits and NUL; bytes */

typedef struct dr_hub_id {
    char repo[200];     /* owner/name */
    char revision[200]; /* branch, tag or commit; "main" when none was given */
    char file[256];     /* one file of the repository; "": a model */
} dr_hub_id;

/* ---- hub_index.c: IDs, lists of files; no files, no network ---- */

/* False when text is no ID. */
bool dr_hub_id_parse(dr_hub_id *id, const char *text);
/* 40 lower-case hex digits. */
bool dr_hub_is_commit(const char *text);
/*
 * The answer of /api/models/ID/revision/REVISION: commit and file names. source names it in
 * messages. DR_FORMAT when the answer is none. names is appended to.
 */
DR_MUST_USE dr_status dr_hub_index_parse(const char *source, const void *text, size_t n,
                                         char commit[DR_HUB_COMMIT], dr_strv *names);
/*
 * Picks of names what the use needs: configs, and one form of the weights of each part
 * (.safetensors before .bin, full precision before fp16, one file before a sharded set). needed is
 * appended to and holds no path that leaves its folder. False: *missing says what is not there.
 */
bool dr_hub_choose(const dr_strv *names, dr_hub_use use, const dr_hub_id *id, dr_strv *needed,
                   dr_str *missing);

/* ---- hub_cache.c: the folders on this disk ---- */

/* A folder of Hugging Face's; false when there is no home directory either. */
bool dr_hub_cache_dir(dr_str *out); /* .../hub */
bool dr_hub_home(dr_str *out);      /* HF_HOME */
bool dr_hub_is_offline(void);
/* CACHE/models--owner--name */
void dr_hub_repo_dir(dr_str *out, const char *cache, const dr_hub_id *id);
/*
 * A snapshot in the cache that holds all that is needed. commit: of the revision, "" when the
 * cache does not know it. *found false: missing says why.
 */
DR_MUST_USE dr_status dr_hub_cache_find(const char *cache, const dr_hub_id *id, dr_hub_use use,
                                        char commit[DR_HUB_COMMIT], bool *found, dr_str *missing);
/* Path of the model (snapshot folder, or the one file) of a commit. */
void dr_hub_snapshot(dr_str *out, const char *cache, const dr_hub_id *id, const char *commit);

/* ---- hub_server.c: requests ---- */

typedef struct dr_hub_server {
    const dr_hub_id *id;
    dr_http *http;
    char *endpoint; /* without a slash at its end */
    char *token;    /* or NULL; never printed */
} dr_hub_server;

enum { DR_HUB_MAX_FUTILE = 3 }; /* attempts in a row that bring nothing */

/* Endpoint and token from the environment; id outlives the server. On error nothing is open. */
DR_MUST_USE dr_status dr_hub_server_open(dr_hub_server *s, const dr_hub_id *id);
void dr_hub_server_close(dr_hub_server *s);
const char *dr_hub_host(const dr_hub_server *s); /* for messages */
/* Waits before another attempt: 1 s, 2 s, ... */
void dr_hub_wait(int futile);
/* A request that is repeated while that may help. DR_OK: an answer came, whatever its status. */
DR_MUST_USE dr_status dr_hub_ask(const dr_hub_server *s, const dr_http_request *q,
                                 dr_http_reply *r);
/* An error with what to do for an answer that is none of 2xx and 3xx. what: "file", NULL: model. */
DR_MUST_USE dr_status dr_hub_check_status(const dr_hub_server *s, const dr_http_reply *r,
                                          const char *what);

/* ---- hub_download.c ---- */

/* Fetches what is not in the cache yet; commit gets the one that the revision stands for. */
DR_MUST_USE dr_status dr_hub_download(const char *cache, const dr_hub_id *id, dr_hub_use use,
                                      char commit[DR_HUB_COMMIT]);

/* ---- hub_blob.c: one file of the cache ---- */

typedef struct dr_hub_file {
    char etag[65]; /* SHA-256 of a large file, git's SHA-1 of a small one; the blob's name */
    uint64_t size;
    uint64_t present; /* bytes of an earlier, interrupted download */
} dr_hub_file;

typedef struct dr_hub_blob dr_hub_blob; /* a download in work, locked against other processes */

/*
 * Locks the file and opens what an earlier run left of it. *out NULL and DR_OK: another process
 * has completed it meanwhile.
 */
DR_MUST_USE dr_status dr_hub_blob_open(dr_hub_blob **out, const char *repo_dir,
                                       const char *lock_dir, const dr_hub_file *f);
uint64_t dr_hub_blob_size(const dr_hub_blob *b); /* bytes so far */
DR_MUST_USE dr_status dr_hub_blob_add(dr_hub_blob *b, const void *data, size_t n);
/* Throws away all bytes so far. */
DR_MUST_USE dr_status dr_hub_blob_restart(dr_hub_blob *b);
/* True when all bytes are there and have the hash of the name. */
bool dr_hub_blob_is_good(dr_hub_blob *b);
/* fsync, rename. */
DR_MUST_USE dr_status dr_hub_blob_commit(dr_hub_blob *b);
void dr_hub_blob_close(dr_hub_blob *b); /* keeps the bytes for the next run; NULL is fine */
/* snapshots/COMMIT/name -> blobs/ETAG, relative. */
DR_MUST_USE dr_status dr_hub_link(const char *repo_dir, const char *commit, const char *name,
                                  const char *etag);

#endif
