/*
 * The pickle is put together first, from opcodes of protocol 2 without memo; then each tensor is
 * one storage of its own, under its number.
 */
#include "io/torch_writer.h"

#include "base/arena.h"
#include "base/checked.h"
#include "io/json.h"
#include "io/zip_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 /* torch's */, NAME_BYTES = 40 /* of "archive/data/<number>" */ };

struct dr_torch_writer {
    dr_outfile out;
    dr_zip_writer zip;
    uint64_t *bytes; /* of each tensor */
    size_t n, i;     /* i: the tensor whose entry is open; n after the last */
};

/* ---- the pickle ---- */

static void add_byte(dr_str *p, int byte)
{
    const char c = (char)byte;
    dr_str_add_n(p, &c, 1);
}

static void add_le(dr_str *p, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        add_byte(p, (int)(value >> (8 * i) & 0xff));
    }
}

static void add_text(dr_str *p, const char *text)
{
    add_byte(p, 'X'); /* BINUNICODE */
    add_le(p, strlen(text), 4);
    dr_str_add(p, text);
}

static void add_int(dr_str *p, int64_t v)
{
    if (v >= 0 && v < 256) {
        add_byte(p, 'K'); /* BININT1 */
        add_le(p, (uint64_t)v, 1);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
        add_byte(p, 'J'); /* BININT */
        add_le(p, (uint64_t)v, 4);
    } else {
        add_byte(p, 0x8a); /* LONG1 */
        add_byte(p, 8);
        add_le(p, (uint64_t)v, 8);
    }
}

static void add_ints(dr_str *p, const int64_t *v, int n)
{
    add_byte(p, '('); /* MARK ... TUPLE */
    for (int i = 0; i < n; i++) {
        add_int(p, v[i]);
    }
    add_byte(p, 't');
}

static const char *storage_class(dr_dtype t)
{
    static const char *const names[DR_DTYPE_COUNT] = {
        [DR_I64] = "LongStorage",  [DR_F64] = "DoubleStorage",    [DR_F32] = "FloatStorage",
        [DR_I32] = "IntStorage",   [DR_BF16] = "BFloat16Storage", [DR_F16] = "HalfStorage",
        [DR_I16] = "ShortStorage", [DR_I8] = "CharStorage",       [DR_U8] = "ByteStorage",
        [DR_BOOL] = "BoolStorage"};
    return names[t];
}

static const char empty_dict[] = "ccollections\nOrderedDict\n)R"; /* GLOBAL, EMPTY_TUPLE, REDUCE */

/* _rebuild_tensor_v2(storage, 0, sizes, strides, False, OrderedDict()) */
static void add_tensor(dr_str *p, const dr_safetensors_entry *e, size_t number, int64_t n_elems)
{
    char key[24];
    int64_t *stride = dr_xcalloc((size_t)e->rank + 1, sizeof *stride);
    int64_t step = 1;
    for (int i = e->rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= e->shape[i] > 1 ? e->shape[i] : 1; /* measured: their product fits */
    }
    (void)snprintf(key, sizeof key, "%zu", number);
    add_text(p, e->name);
    dr_str_add(p, "ctorch._utils\n_rebuild_tensor_v2\n((");
    add_text(p, "storage");
    dr_str_printf(p, "ctorch\n%s\n", storage_class(e->dtype));
    add_text(p, key);
    add_text(p, "cpu");
    add_int(p, n_elems);
    dr_str_add(p, "tQ"); /* TUPLE, BINPERSID */
    add_int(p, 0);
    add_ints(p, e->shape, e->rank);
    add_ints(p, stride, e->rank);
    add_byte(p, 0x89); /* NEWFALSE */
    dr_str_add(p, empty_dict);
    dr_str_add(p, "tR");
    free(stride);
}

static void add_state_dict(dr_str *p, const dr_torch_content *c, const int64_t *n_elems)
{
    dr_str_add(p, empty_dict);
    add_byte(p, '(');
    for (size_t i = 0; i < c->n_entries; i++) {
        add_tensor(p, &c->entries[i], i, n_elems[i]);
    }
    add_byte(p, 'u'); /* SETITEMS */
}

static void add_meta(dr_str *p, const dr_torch_content *c)
{
    add_text(p, "metadata");
    dr_str_add(p, "}(");
    for (size_t i = 0; i < c->n_meta; i++) {
        add_text(p, c->meta[i].key);
        add_text(p, c->meta[i].value);
    }
    add_byte(p, 'u');
}

static void build_pickle(dr_str *p, const dr_torch_content *c, const int64_t *n_elems)
{
    add_byte(p, 0x80);
    add_byte(p, 2);
    if (c->bare) {
        add_state_dict(p, c, n_elems);
    } else {
        dr_str_add(p, "}(");
        add_text(p, "state_dict");
        add_state_dict(p, c, n_elems);
        for (size_t i = 0; i < c->n_numbers; i++) {
            add_text(p, c->numbers[i].key);
            add_int(p, c->numbers[i].value);
        }
        if (c->n_meta > 0) {
            add_meta(p, c);
        }
        add_byte(p, 'u');
    }
    add_byte(p, '.');
}

/* ---- checks ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static dr_status check_meta(const char *path, const dr_torch_content *c)
{
    for (size_t i = 0; i < c->n_meta; i++) {
        const char *const texts[] = {c->meta[i].key, c->meta[i].value};
        for (int k = 0; k < 2; k++) {
            if (!dr_json_utf8_valid(texts[k]) || strlen(texts[k]) > INT32_MAX) {
                DR_FAIL(DR_INVALID, "%s: metadata '%s' is not valid UTF-8", path, texts[0]);
            }
        }
    }
    return DR_OK;
}

static dr_status check_names(const char *path, const dr_torch_content *c)
{
    const char **names = dr_xcalloc(c->n_entries + 1, sizeof *names);
    dr_status st = DR_OK;
    for (size_t i = 0; i < c->n_entries; i++) {
        names[i] = c->entries[i].name;
    }
    qsort((void *)names, c->n_entries, sizeof *names, by_text);
    for (size_t i = 0; st == DR_OK && i < c->n_entries; i++) {
        if (!dr_json_utf8_valid(names[i]) || strlen(names[i]) > INT32_MAX) {
            st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                              "%s: tensor name '%s' is not valid UTF-8", path, names[i]);
        } else if (i > 0 && strcmp(names[i - 1], names[i]) == 0) {
            st = dr_error_set(DR_INVALID, __FILE__, __LINE__, "%s: tensor name '%s' is given twice",
                              path, names[i]);
        }
    }
    free((void *)names);
    return st;
}

/* Elements and bytes of all tensors; the sizes other than 0 must have a product, too (strides). */
static dr_status measure(dr_torch_writer *w, const char *path, const dr_torch_content *c,
                         int64_t *n_elems, uint64_t *all)
{
    for (size_t i = 0; i < c->n_entries; i++) {
        const dr_safetensors_entry *e = &c->entries[i];
        uint64_t extent = dr_dtype_size(e->dtype);
        bool good = true;
        bool empty = false;
        for (int d = 0; good && d < e->rank; d++) {
            const uint64_t size = e->shape[d] > 1 ? (uint64_t)e->shape[d] : 1;
            empty = empty || e->shape[d] == 0;
            good = e->shape[d] >= 0 && dr_mul_u64(extent, size, &extent) && extent <= INT64_MAX;
        }
        w->bytes[i] = empty ? 0 : extent;
        n_elems[i] = (int64_t)(w->bytes[i] / dr_dtype_size(e->dtype));
        if (!good || !dr_add_u64(*all, w->bytes[i], all) || *all > INT64_MAX) {
            DR_FAIL(DR_INVALID, "%s: tensor '%s' has a negative size or more than 2^63 bytes", path,
                    e->name);
        }
    }
    return DR_OK;
}

/* ---- the archive ---- */

/* Ends entries that are complete and begins the next, past tensors without bytes. */
static dr_status advance(dr_torch_writer *w)
{
    char name[NAME_BYTES];
    while (w->i < w->n) {
        if (w->zip.is_open && w->zip.left > 0) {
            return DR_OK;
        }
        if (w->zip.is_open) {
            DR_TRY(dr_zip_writer_end(&w->zip));
            w->i++;
        }
        if (w->i < w->n) {
            (void)snprintf(name, sizeof name, "archive/data/%zu", w->i);
            DR_TRY(dr_zip_writer_begin(&w->zip, name, w->bytes[w->i], ALIGN));
        }
    }
    return DR_OK;
}

static dr_status begin_file(dr_torch_writer *w, const char *path, const dr_torch_content *c,
                            dr_str *pickle, int64_t *n_elems)
{
    uint64_t all = 0;
    DR_TRY(check_names(path, c));
    DR_TRY(check_meta(path, c));
    DR_CHECK(!c->bare || c->n_meta == 0, "%s: a bare state_dict has no place for metadata", path);
    if (c->bare && c->n_numbers > 0) {
        DR_FAIL(DR_INVALID, "%s: a bare state_dict has no place for '%s'", path, c->numbers[0].key);
    }
    DR_TRY(measure(w, path, c, n_elems, &all));
    build_pickle(pickle, c, n_elems);
    const size_t n_files = w->n + 6;
    DR_TRY(dr_check_free_space(
        path, dr_zip_writer_most(n_files, n_files * NAME_BYTES, all + pickle->len + ALIGN, ALIGN)));
    DR_TRY(dr_outfile_open(&w->out, path));
    dr_zip_writer_init(&w->zip, &w->out);
    DR_TRY(dr_zip_writer_add(&w->zip, "archive/data.pkl", pickle->data, pickle->len, ALIGN));
    DR_TRY(dr_zip_writer_add(&w->zip, "archive/.format_version", "1", 1, ALIGN));
    DR_TRY(dr_zip_writer_add(&w->zip, "archive/.storage_alignment", "64", 2, ALIGN));
    DR_TRY(dr_zip_writer_add(&w->zip, "archive/byteorder", "little", 6, ALIGN));
    return advance(w);
}

dr_status dr_torch_writer_open(dr_torch_writer **out, const char *path,
                               const dr_torch_content *content)
{
    *out = NULL;
    dr_torch_writer *w = dr_xcalloc(1, sizeof *w);
    dr_str pickle = {0};
    w->n = content->n_entries;
    w->bytes = dr_xcalloc(w->n + 1, sizeof *w->bytes);
    int64_t *n_elems = dr_xcalloc(w->n + 1, sizeof *n_elems);
    const dr_status st = begin_file(w, path, content, &pickle, n_elems);
    dr_str_free(&pickle);
    free(n_elems);
    if (st != DR_OK) {
        dr_torch_writer_abort(w);
        return dr_error_frame(st, __FILE__, __LINE__);
    }
    *out = w;
    return DR_OK;
}

size_t dr_torch_writer_bytes(const dr_torch_writer *w, size_t i)
{
    DR_CHECK(i < w->n, "%s: tensor %zu of %zu", w->out.path, i, w->n);
    return (size_t)w->bytes[i];
}

dr_status dr_torch_writer_write(dr_torch_writer *w, const void *data, size_t n)
{
    const unsigned char *p = data;
    while (n > 0) {
        DR_CHECK(w->i < w->n, "%s: %zu bytes after the last tensor", w->out.path, n);
        const size_t piece = n < w->zip.left ? n : (size_t)w->zip.left;
        DR_TRY(dr_zip_writer_write(&w->zip, p, piece));
        p += piece;
        n -= piece;
        DR_TRY(advance(w));
    }
    return DR_OK;
}

static dr_status end_archive(dr_torch_writer *w)
{
    DR_TRY(dr_zip_writer_add(&w->zip, "archive/version", "3\n", 2, ALIGN));
    return dr_zip_writer_finish(&w->zip);
}

static void release_writer(dr_torch_writer *w)
{
    dr_zip_writer_deinit(&w->zip);
    free(w->bytes);
    free(w);
}

dr_status dr_torch_writer_commit(dr_torch_writer *w)
{
    DR_CHECK(w->i == w->n, "%s: tensor %zu of %zu is not complete", w->out.path, w->i, w->n);
    dr_status st = end_archive(w);
    if (st == DR_OK) {
        st = dr_outfile_commit(&w->out);
    } else {
        dr_outfile_abort(&w->out);
    }
    release_writer(w);
    return st;
}

void dr_torch_writer_abort(dr_torch_writer *w)
{
    if (w != NULL) {
        dr_outfile_abort(&w->out);
        release_writer(w);
    }
}

dr_status dr_torch_write(const char *path, const dr_torch_content *content, dr_torch_emit emit,
                         void *ctx)
{
    dr_torch_writer *w = NULL;
    DR_TRY(dr_torch_writer_open(&w, path, content));
    for (size_t i = 0; i < content->n_entries; i++) {
        const bool empty = w->bytes[i] == 0;
        const dr_status st = emit(ctx, w, i);
        if (st != DR_OK) {
            dr_torch_writer_abort(w);
            return dr_error_frame(st, __FILE__, __LINE__);
        }
        DR_CHECK(w->i > i && (empty || w->i == w->n || w->zip.left == w->bytes[w->i]),
                 "%s: tensor '%s' got not %llu bytes", path, content->entries[i].name,
                 (unsigned long long)w->bytes[i]);
    }
    return dr_torch_writer_commit(w);
}
