/*
 * Writing. The header is built and checked before the first byte is written; tensors follow in the
 * official order: dtype as dr_dtype counts them (widest first), then name.
 */
#include "io/safetensors.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/file.h"
#include "io/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { LENGTH_BYTES = 8, HEADER_ALIGN = 8 };

typedef struct planned { /* one tensor in the file's order */
    const dr_safetensors_entry *entry;
    size_t i_entry;
    uint64_t bytes;
} planned;

struct dr_safetensors_writer {
    dr_outfile out;
    planned *order;
    size_t n;
    uint64_t data_bytes, written;
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
    size_t most = c->n_entries > c->n_meta ? c->n_entries : c->n_meta;
    const char **names = dr_xcalloc(most, sizeof *names);
    for (size_t i = 0; i < c->n_entries; i++) {
        names[i] = c->entries[i].name;
    }
    dr_status st = check_names(path, "tensor name", names, c->n_entries);
    for (size_t i = 0; i < c->n_meta; i++) {
        names[i] = c->meta[i].key;
    }
    if (st == DR_OK) {
        st = check_names(path, "metadata key", names, c->n_meta);
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

static void build_header(const dr_safetensors_writer *w, const dr_safetensors_content *c, dr_str *h)
{
    dr_str_add(h, "{");
    if (c->n_meta > 0) {
        dr_str_add(h, "\"__metadata__\":{");
        for (size_t i = 0; i < c->n_meta; i++) {
            dr_str_add(h, i > 0 ? "," : "");
            dr_json_add_string(h, c->meta[i].key);
            dr_str_add(h, ":");
            dr_json_add_string(h, c->meta[i].value);
        }
        dr_str_add(h, w->n > 0 ? "}," : "}");
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

/* Better to learn it before a gigabyte is written; a quota still shows only while writing. */
static dr_status check_free_space(const char *path, uint64_t need)
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

static dr_status begin_file(dr_safetensors_writer *w, const char *path,
                            const dr_safetensors_content *c, dr_str *header)
{
    DR_TRY(plan_order(w, path, c));
    build_header(w, c, header);
    if (header->len > DR_SAFETENSORS_MAX_HEADER) {
        DR_FAIL(DR_INVALID, "%s: the header would have %zu bytes, at most %d are allowed", path,
                header->len, DR_SAFETENSORS_MAX_HEADER);
    }
    DR_TRY(check_free_space(path, LENGTH_BYTES + header->len + w->data_bytes));
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

dr_status dr_safetensors_writer_write(dr_safetensors_writer *w, const void *data, size_t n)
{
    DR_CHECK(n <= w->data_bytes - w->written, "%s: %zu bytes more than the header's %llu",
             w->out.path, n, (unsigned long long)w->data_bytes);
    DR_TRY(dr_outfile_write(&w->out, data, n));
    w->written += n;
    return DR_OK;
}

static void release_writer(dr_safetensors_writer *w)
{
    free(w->order);
    free(w);
}

dr_status dr_safetensors_writer_commit(dr_safetensors_writer *w)
{
    DR_CHECK(w->written == w->data_bytes, "%s: %llu of %llu bytes were written", w->out.path,
             (unsigned long long)w->written, (unsigned long long)w->data_bytes);
    dr_status st = dr_outfile_commit(&w->out);
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
