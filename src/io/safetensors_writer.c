/*
 * Writing. The header is built and checked before the first byte is written; tensors follow in the
 * official order: dtype as dr_dtype counts them (widest first), then name.
 */
#include "io/safetensors.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/file.h"
#include "io/digest.h"
#include "io/json.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, HEADER_ALIGN = 8, MAX_HASHES = 4 };

typedef struct planned { /* one tensor in the file's order */
    const dr_safetensors_entry *entry;
    size_t i_entry;
    uint64_t bytes;
} planned;

typedef struct running_hash { /* of a range of the data, and where its digits go */
    uint64_t begin, end;
    uint64_t place; /* in the file */
    int digits;
    dr_digest *digest;
} running_hash;

struct dr_safetensors_writer {
    dr_outfile out;
    planned *order;
    size_t n;
    uint64_t data_bytes, written;
    running_hash hashes[MAX_HASHES];
    size_t n_hashes;
};

static int by_dtype_then_name(const void *a, const void *b)
{
    const dr_safetensors_entry *x = ((const planned *)a)->entry;
    const dr_safetensors_entry *y = ((const planned *)b)->entry;
    if (x->dtype != y->dtype) {
        return x->dtype < y->dtype ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names must be UTF-8 and unique; sorts them in place. */
static dr_status check_names(const char *path, const char *what, const char **names, size_t n)
{
    if (n > 1) {
        qsort((void *)names, n, sizeof *names, by_text);
    }
    for (size_t i = 0; i < n; i++) {
        if (!dr_json_utf8_valid(names[i])) {
            DR_FAIL(DR_INVALID, "%s: %s '%s' is not valid UTF-8", path, what, names[i]);
        }
        if (i > 0 && strcmp(names[i - 1], names[i]) == 0) {
            DR_FAIL(DR_INVALID, "%s: %s '%s' is given twice", path, what, names[i]);
        }
    }
    return DR_OK;
}

static dr_status check_content(const char *path, const dr_safetensors_content *c)
{
    const size_t n_keys = c->n_meta + c->n_hashes;
    size_t most = c->n_entries > n_keys ? c->n_entries : n_keys;
    DR_CHECK(c->n_hashes <= MAX_HASHES, "%s: %zu hashes", path, c->n_hashes);
    const char **names = dr_xcalloc(most, sizeof *names);
    for (size_t i = 0; i < c->n_entries; i++) {
        names[i] = c->entries[i].name;
    }
    dr_status st = check_names(path, "tensor name", names, c->n_entries);
    for (size_t i = 0; i < c->n_meta; i++) {
        names[i] = c->meta[i].key;
    }
    for (size_t i = 0; i < c->n_hashes; i++) {
        names[c->n_meta + i] = c->hashes[i].key;
    }
    if (st == DR_OK) {
        st = check_names(path, "metadata key", names, n_keys);
    }
    free((void *)names);
    for (size_t i = 0; st == DR_OK && i < c->n_meta; i++) {
        if (!dr_json_utf8_valid(c->meta[i].value)) {
            DR_FAIL(DR_INVALID, "%s: the value of metadata '%s' is not valid UTF-8", path,
                    c->meta[i].key);
        }
    }
    return st;
}

static dr_status measure(const char *path, const dr_safetensors_entry *e, uint64_t *bytes)
{
    if (strcmp(e->name, "__metadata__") == 0) {
        DR_FAIL(DR_INVALID, "%s: a tensor cannot be called __metadata__", path);
    }
    bool good = true;
    *bytes = dr_dtype_size(e->dtype);
    for (int i = 0; i < e->rank; i++) {
        good = good && e->shape[i] >= 0 && dr_mul_u64(*bytes, (uint64_t)e->shape[i], bytes);
    }
    if (!good || *bytes > INT64_MAX) {
        DR_FAIL(DR_INVALID, "%s: tensor '%s' has a negative size or more than 2^63 bytes", path,
                e->name);
    }
    return DR_OK;
}

static dr_status plan_order(dr_safetensors_writer *w, const char *path,
                            const dr_safetensors_content *c)
{
    DR_TRY(check_content(path, c));
    w->n = c->n_entries;
    w->order = dr_xcalloc(w->n, sizeof *w->order);
    for (size_t i = 0; i < w->n; i++) {
        planned *p = &w->order[i];
        *p = (planned){.entry = &c->entries[i], .i_entry = i};
        DR_TRY(measure(path, p->entry, &p->bytes));
        if (!dr_add_u64(w->data_bytes, p->bytes, &w->data_bytes) || w->data_bytes > INT64_MAX) {
            DR_FAIL(DR_INVALID, "%s: the tensors have more than 2^63 bytes", path);
        }
    }
    if (w->n > 1) {
        qsort(w->order, w->n, sizeof *w->order, by_dtype_then_name);
    }
    return DR_OK;
}

static void add_tensor(dr_str *h, const planned *p, uint64_t begin)
{
    const dr_safetensors_entry *e = p->entry;
    dr_json_add_string(h, e->name);
    dr_str_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", dr_dtype_name(e->dtype));
    for (int i = 0; i < e->rank; i++) {
        dr_str_printf(h, "%s%lld", i > 0 ? "," : "", (long long)e->shape[i]);
    }
    dr_str_printf(h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
                  (unsigned long long)(begin + p->bytes));
}

/* A place for the digits of a hash, which are known at the end. */
static void add_hash(dr_safetensors_writer *w, const dr_safetensors_hash *from, dr_str *h)
{
    running_hash *to = &w->hashes[w->n_hashes++];
    DR_CHECK(from->digits > 0 && from->digits < DR_DIGEST_HEX, "%s: %d digits", from->key,
             from->digits);
    dr_json_add_string(h, from->key);
    dr_str_printf(h, ":\"%s", from->prefix);
    const uint64_t end = from->n < UINT64_MAX - from->begin ? from->begin + from->n : UINT64_MAX;
    *to = (running_hash){.begin = from->begin,
                         .end = end,
                         .place = LENGTH_BYTES + h->len,
                         .digits = from->digits,
                         .digest = dr_digest_create(DR_SHA256)};
    for (int i = 0; i < from->digits; i++) {
        dr_str_add(h, "0");
    }
    dr_str_add(h, "\"");
}

static void add_metadata(dr_safetensors_writer *w, const dr_safetensors_content *c, dr_str *h)
{
    dr_str_add(h, "\"__metadata__\":{");
    for (size_t i = 0; i < c->n_meta; i++) {
        dr_str_add(h, i > 0 ? "," : "");
        dr_json_add_string(h, c->meta[i].key);
        dr_str_add(h, ":");
        dr_json_add_string(h, c->meta[i].value);
    }
    for (size_t i = 0; i < c->n_hashes; i++) {
        dr_str_add(h, c->n_meta + i > 0 ? "," : "");
        add_hash(w, &c->hashes[i], h);
    }
    dr_str_add(h, w->n > 0 ? "}," : "}");
}

static void build_header(dr_safetensors_writer *w, const dr_safetensors_content *c, dr_str *h)
{
    dr_str_add(h, "{");
    if (c->n_meta + c->n_hashes > 0) {
        add_metadata(w, c, h);
    }
    uint64_t begin = 0;
    for (size_t i = 0; i < w->n; i++) {
        dr_str_add(h, i > 0 ? "," : "");
        add_tensor(h, &w->order[i], begin);
        begin += w->order[i].bytes;
    }
    dr_str_add(h, "}");
    while (h->len % HEADER_ALIGN != 0) {
        dr_str_add(h, " ");
    }
}

static dr_status plan_file(dr_safetensors_writer *w, const char *path,
                           const dr_safetensors_content *c, dr_str *header)
{
    DR_TRY(plan_order(w, path, c));
    build_header(w, c, header);
    if (header->len > DR_SAFETENSORS_MAX_HEADER) {
        DR_FAIL(DR_INVALID, "%s: the header would have %zu bytes, at most %d are allowed", path,
                header->len, DR_SAFETENSORS_MAX_HEADER);
    }
    return DR_OK;
}

static void release_writer(dr_safetensors_writer *w)
{
    for (size_t i = 0; i < w->n_hashes; i++) {
        dr_digest_destroy(w->hashes[i].digest);
    }
    free(w->order);
    free(w);
}

/* Bytes of header and data of a file that is not written. */
static dr_status measure_file(const char *path, const dr_safetensors_content *c, uint64_t *header,
                              uint64_t *data)
{
    dr_safetensors_writer *w = dr_xcalloc(1, sizeof *w);
    dr_str text = {0};
    const dr_status st = plan_file(w, path, c, &text);
    *header = LENGTH_BYTES + text.len;
    *data = w->data_bytes;
    dr_str_free(&text);
    release_writer(w);
    return st;
}

dr_status dr_safetensors_header_bytes(const char *path, const dr_safetensors_content *content,
                                      uint64_t *out)
{
    uint64_t data = 0;
    return measure_file(path, content, out, &data);
}

dr_status dr_safetensors_file_bytes(const char *path, const dr_safetensors_content *content,
                                    uint64_t *out)
{
    uint64_t header = 0;
    uint64_t data = 0;
    const dr_status st = measure_file(path, content, &header, &data);
    *out = header + data;
    return st;
}

static dr_status begin_file(dr_safetensors_writer *w, const char *path,
                            const dr_safetensors_content *c, dr_str *header)
{
    DR_TRY(plan_file(w, path, c, header));
    DR_TRY(dr_check_free_space(path, LENGTH_BYTES + header->len + w->data_bytes));
    DR_TRY(dr_outfile_open(&w->out, path));
    unsigned char length[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++) {
        length[i] = (unsigned char)(header->len >> (8 * i));
    }
    DR_TRY(dr_outfile_write(&w->out, length, sizeof length));
    return dr_outfile_write(&w->out, header->data, header->len);
}

dr_status dr_safetensors_writer_open(dr_safetensors_writer **out, const char *path,
                                     const dr_safetensors_content *content)
{
    *out = NULL;
    dr_safetensors_writer *w = dr_xcalloc(1, sizeof *w);
    dr_str header = {0};
    dr_status st = begin_file(w, path, content, &header);
    dr_str_free(&header);
    if (st != DR_OK) {
        dr_safetensors_writer_abort(w);
        return st;
    }
    for (size_t i = 0; i < w->n; i++) {
        w->order[i].entry = NULL; /* the caller's; not used from here on */
    }
    *out = w;
    return DR_OK;
}

size_t dr_safetensors_writer_order(const dr_safetensors_writer *w, size_t i)
{
    DR_CHECK(i < w->n, "%s: tensor %zu of %zu", w->out.path, i, w->n);
    return w->order[i].i_entry;
}

size_t dr_safetensors_writer_bytes(const dr_safetensors_writer *w, size_t i)
{
    DR_CHECK(i < w->n, "%s: tensor %zu of %zu", w->out.path, i, w->n);
    return (size_t)w->order[i].bytes;
}

/* The part of n data bytes at that place that a hash is of. */
static void add_to_hash(running_hash *h, uint64_t place, const void *data, size_t n)
{
    const uint64_t begin = place > h->begin ? place : h->begin;
    const uint64_t end = place + n < h->end ? place + n : h->end;
    if (begin < end) {
        dr_digest_add(h->digest, (const char *)data + (begin - place), (size_t)(end - begin));
    }
}

typedef struct hash_job { /* of the bytes of one write */
    dr_safetensors_writer *w;
    const void *data;
    size_t n;
} hash_job;

static void *add_to_hashes(void *arg)
{
    const hash_job *j = arg;
    for (size_t i = 0; i < j->w->n_hashes; i++) {
        add_to_hash(&j->w->hashes[i], j->w->written, j->data, j->n);
    }
    return NULL;
}

/* Large pieces are hashed while they are written. */
dr_status dr_safetensors_writer_write(dr_safetensors_writer *w, const void *data, size_t n)
{
    enum { LARGE = 1 << 20 };
    DR_CHECK(n <= w->data_bytes - w->written, "%s: %zu bytes more than the header's %llu",
             w->out.path, n, (unsigned long long)w->data_bytes);
    hash_job job = {w, data, n};
    pthread_t thread;
    const bool beside =
        n >= LARGE && w->n_hashes > 0 && pthread_create(&thread, NULL, add_to_hashes, &job) == 0;
    const dr_status st = dr_outfile_write(&w->out, data, n);
    if (beside) {
        (void)pthread_join(thread, NULL);
    }
    DR_TRY(st);
    if (!beside) {
        (void)add_to_hashes(&job);
    }
    w->written += n;
    return DR_OK;
}

/* The digits over their places in the header. */
static dr_status patch_hashes(dr_safetensors_writer *w)
{
    for (size_t i = 0; i < w->n_hashes; i++) {
        running_hash *h = &w->hashes[i];
        char hex[DR_DIGEST_HEX];
        dr_digest_finish(h->digest, hex);
        h->digest = NULL;
        DR_TRY(dr_outfile_patch(&w->out, h->place, hex, (size_t)h->digits));
    }
    return DR_OK;
}

dr_status dr_safetensors_writer_commit(dr_safetensors_writer *w)
{
    DR_CHECK(w->written == w->data_bytes, "%s: %llu of %llu bytes were written", w->out.path,
             (unsigned long long)w->written, (unsigned long long)w->data_bytes);
    dr_status st = patch_hashes(w);
    if (st == DR_OK) {
        st = dr_outfile_commit(&w->out);
    } else {
        dr_outfile_abort(&w->out);
    }
    release_writer(w);
    return st;
}

void dr_safetensors_writer_abort(dr_safetensors_writer *w)
{
    if (w != NULL) {
        dr_outfile_abort(&w->out);
        release_writer(w);
    }
}

dr_status dr_safetensors_write(const char *path, const dr_safetensors_content *content,
                               dr_safetensors_emit emit, void *ctx)
{
    dr_safetensors_writer *w = NULL;
    DR_TRY(dr_safetensors_writer_open(&w, path, content));
    uint64_t end = 0;
    for (size_t i = 0; i < w->n; i++) {
        size_t i_entry = w->order[i].i_entry;
        dr_status st = emit(ctx, w, i_entry);
        if (st != DR_OK) {
            dr_safetensors_writer_abort(w);
            return dr_error_frame(st, __FILE__, __LINE__);
        }
        end += w->order[i].bytes;
        DR_CHECK(w->written == end, "%s: tensor '%s': %llu bytes were written, expected %llu", path,
                 content->entries[i_entry].name,
                 (unsigned long long)(w->written - (end - w->order[i].bytes)),
                 (unsigned long long)w->order[i].bytes);
    }
    return dr_safetensors_writer_commit(w);
}

typedef struct save_context {
    const dr_safetensors_content *content;
    const void *const *data;
} save_context;

static dr_status emit_from_memory(void *ctx, dr_safetensors_writer *w, size_t i_entry)
{
    const save_context *c = ctx;
    const dr_safetensors_entry *e = &c->content->entries[i_entry];
    uint64_t bytes = 0;
    DR_TRY(measure(w->out.path, e, &bytes));
    return dr_safetensors_writer_write(w, c->data[i_entry], (size_t)bytes);
}

dr_status dr_safetensors_save(const char *path, const dr_safetensors_content *content,
                              const void *const *data)
{
    save_context c = {.content = content, .data = data};
    return dr_safetensors_write(path, content, emit_from_memory, &c);
}
