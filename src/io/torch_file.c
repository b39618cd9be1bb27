/*
 * Opening either container, and the bytes of a tensor: where they lie in the file, or a copy when
 * they are strided or compressed there.
 */
#include "io/torch_file_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_VERSION = 10 /* of the archive format, in torch 2.15 */,
    METHOD_STORED = 0,
    MAX_META = 10000
};

dr_container dr_torch_sniff_bytes(const unsigned char *head, size_t n)
{
    if (dr_zip_sniff_bytes(head, n)) {
        return DR_CONTAINER_TORCH_ZIP;
    }
    const bool pickle = n >= 3 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5;
    return pickle ? DR_CONTAINER_TORCH_STREAM : DR_CONTAINER_NONE;
}

/* ---- the archive ---- */

static const dr_zip_entry *find_in(const dr_torch_file *f, const char *name)
{
    dr_str full = {0};
    dr_str_printf(&full, "%s%s", f->prefix, name);
    const dr_zip_entry *e = dr_zip_find(f->zip, dr_str_get(&full));
    dr_str_free(&full);
    return e;
}

/* The one folder in the archive that has a data.pkl. */
static dr_status find_prefix(dr_torch_file *f)
{
    static const char last[] = "data.pkl";
    for (size_t i = 0; i < dr_zip_count(f->zip); i++) {
        const char *name = dr_zip_at(f->zip, i)->name;
        if (strcmp(dr_path_base(name), last) != 0) {
            continue;
        }
        if (f->prefix != NULL) {
            DR_FAIL(DR_FORMAT, "%s: the archive holds two checkpoints: %s%s and %s", f->source,
                    f->prefix, last, name);
        }
        f->prefix = dr_arena_strndup(&f->arena, name, strlen(name) - strlen(last));
    }
    if (f->prefix == NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: a zip archive, but not a file that torch.save wrote: it has no data.pkl%s",
                f->source,
                dr_zip_find(f->zip, "model_index.json") != NULL ? "; unpack this model first" : "");
    }
    if (find_in(f, "constants.pkl") != NULL) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: a TorchScript program, not a file of weights: save its state_dict", f->source);
    }
    return DR_OK;
}

/* A record of a few bytes ("3\n", "little"); "" when it is absent. */
static dr_status read_record(const dr_torch_file *f, const char *name, char out[16])
{
    const dr_zip_entry *e = find_in(f, name);
    memset(out, 0, 16);
    if (e == NULL) {
        return DR_OK;
    }
    if (e->bytes >= 16) {
        DR_FAIL(DR_FORMAT, "%s: the archive's record %s has %zu bytes", f->source, name, e->bytes);
    }
    if (e->method == METHOD_STORED) {
        const void *data = NULL;
        DR_TRY(dr_zip_data(f->zip, e, &data));
        memcpy(out, data, e->bytes);
        return DR_OK;
    }
    return dr_zip_read(f->zip, e, out);
}

static dr_status check_records(const dr_torch_file *f)
{
    char text[16];
    int64_t version = 0;
    DR_TRY(read_record(f, "byteorder", text));
    if (text[0] != '\0' && strcmp(text, "little") != 0) {
        DR_FAIL(DR_UNSUPPORTED, "%s: byte order '%s'; only little-endian files can be read",
                f->source, text);
    }
    DR_TRY(read_record(f, find_in(f, "version") != NULL ? "version" : ".data/version", text));
    text[strcspn(text, "\n")] = '\0';
    if (text[0] != '\0' && (!dr_parse_i64(text, &version) || version > MAX_VERSION)) {
        DR_FAIL(DR_UNSUPPORTED, "%s: archive version '%s'; up to %d are known", f->source, text,
                MAX_VERSION);
    }
    return DR_OK;
}

static dr_status read_pickle(dr_torch_file *f)
{
    const dr_zip_entry *e = find_in(f, "data.pkl");
    const void *bytes = NULL;
    dr_pickle_result r;
    if (e->bytes > DR_PICKLE_MAX_BYTES) {
        DR_FAIL(DR_FORMAT, "%s: refused: its pickle has %zu bytes, at most %d are read", f->source,
                e->bytes, DR_PICKLE_MAX_BYTES);
    }
    if (e->method == METHOD_STORED) {
        DR_TRY(dr_zip_data(f->zip, e, &bytes));
    } else {
        void *copy = NULL;
        DR_TRY(dr_try_calloc(e->bytes + 1, 1, &copy));
        f->pickle_copy = copy;
        DR_TRY(dr_zip_read(f->zip, e, copy));
        bytes = copy;
    }
    DR_TRY(dr_pickle_parse(&f->arena, f->source, bytes, e->bytes, &r));
    f->root = r.root;
    return DR_OK;
}

static dr_status read_archive(dr_torch_file *f)
{
    DR_TRY(find_prefix(f));
    DR_TRY(check_records(f));
    DR_TRY(read_pickle(f));
    return dr_torch_collect(f);
}

/* ---- open and close ---- */

static dr_torch_file *create(const char *source)
{
    dr_torch_file *f = dr_xcalloc(1, sizeof *f);
    dr_arena_init(&f->arena);
    f->source = dr_arena_strdup(&f->arena, source);
    const int rc = pthread_mutex_init(&f->lock, NULL);
    DR_CHECK(rc == 0, "pthread_mutex_init: %d", rc);
    return f;
}

static void collect_meta(dr_torch_file *f)
{
    const dr_pickle_value *v = dr_pickle_member(f->root, "metadata");
    const dr_pickle_value *const *items = NULL;
    size_t n = 0;
    if (v == NULL || !dr_pickle_pairs(v, &items, &n)) {
        return;
    }
    n = n < MAX_META ? n : MAX_META;
    f->meta = dr_arena_array(&f->arena, n, sizeof *f->meta);
    for (size_t i = 0; i < n; i++) {
        const char *key = dr_torch_text(f, items[2 * i]);
        const char *value = key != NULL ? dr_torch_text(f, items[2 * i + 1]) : NULL;
        if (value != NULL) {
            f->meta[f->n_meta++] = (dr_safetensors_meta){key, value};
        }
    }
}

static dr_status finish(dr_torch_file **out, dr_torch_file *f, dr_status st)
{
    if (st != DR_OK) {
        dr_torch_close(f);
        return dr_error_frame(st, __FILE__, __LINE__);
    }
    collect_meta(f);
    *out = f;
    return DR_OK;
}

dr_status dr_torch_open(dr_torch_file **out, const char *path)
{
    *out = NULL;
    dr_torch_file *f = create(path);
    dr_status st = dr_map_open(&f->map, path);
    if (st == DR_OK && dr_zip_sniff_bytes(f->map.data, f->map.size)) {
        dr_map_close(&f->map);
        st = dr_zip_open(&f->zip, path);
        st = st == DR_OK ? read_archive(f) : st;
    } else if (st == DR_OK) {
        st = dr_torch_read_stream(f, f->map.data, f->map.size);
    }
    return finish(out, f, st);
}

dr_status dr_torch_parse(dr_torch_file **out, const char *source, const void *bytes, size_t n)
{
    *out = NULL;
    dr_torch_file *f = create(source);
    dr_status st = DR_OK;
    if (dr_zip_sniff_bytes(bytes, n)) {
        st = dr_zip_parse(&f->zip, source, bytes, n);
        st = st == DR_OK ? read_archive(f) : st;
    } else {
        st = dr_torch_read_stream(f, bytes, n);
    }
    return finish(out, f, st);
}

void dr_torch_close(dr_torch_file *f)
{
    if (f == NULL) {
        return;
    }
    for (size_t i = 0; i < f->n; i++) {
        free(f->tensors[i].copy);
    }
    free(f->unpacked);
    free(f->pickle_copy);
    dr_zip_close(f->zip);
    dr_map_close(&f->map);
    (void)pthread_mutex_destroy(&f->lock);
    dr_arena_deinit(&f->arena);
    free(f);
}

/* ---- questions ---- */

size_t dr_torch_count(const dr_torch_file *f)
{
    return f->n;
}

const dr_file_tensor *dr_torch_at(const dr_torch_file *f, size_t i)
{
    DR_CHECK(i < f->n, "%s: tensor %zu of %zu", f->source, i, f->n);
    return &f->tensors[i].shown;
}

bool dr_torch_number(const dr_torch_file *f, const char *key, int64_t *out)
{
    const dr_pickle_value *v = dr_pickle_member(f->root, key);
    if (v == NULL || v->kind != DR_PICKLE_INT) {
        return false;
    }
    *out = v->i;
    return true;
}

size_t dr_torch_meta_count(const dr_torch_file *f)
{
    return f->n_meta;
}

dr_safetensors_meta dr_torch_meta_at(const dr_torch_file *f, size_t i)
{
    DR_CHECK(i < f->n_meta, "%s: metadata %zu of %zu", f->source, i, f->n_meta);
    return f->meta[i];
}

dr_container dr_torch_container(const dr_torch_file *f)
{
    return f->zip != NULL ? DR_CONTAINER_TORCH_ZIP : DR_CONTAINER_TORCH_STREAM;
}

/* ---- the bytes ---- */

static bool is_packed(const dr_torch_tensor *t)
{
    return t->entry != NULL && t->entry->method != METHOD_STORED;
}

/* The storage's first byte; under lock when it is packed. */
static dr_status storage_bytes(dr_torch_file *f, const dr_torch_tensor *t,
                               const unsigned char **base)
{
    const void *data = t->at;
    if (is_packed(t)) {
        if (f->unpacked_from != t->entry) {
            void *fresh = NULL;
            free(f->unpacked);
            f->unpacked = NULL;
            f->unpacked_from = NULL;
            DR_TRY(dr_try_calloc(t->entry->bytes + 1, 1, &fresh));
            f->unpacked = fresh;
            DR_TRY(dr_zip_read(f->zip, t->entry, fresh));
            f->unpacked_from = t->entry;
        }
        data = f->unpacked;
    } else if (t->entry != NULL) {
        DR_TRY(dr_zip_data(f->zip, t->entry, &data));
    }
    *base = data;
    return DR_OK;
}

/* Row-major copy of a strided tensor: the last dimension in a loop, the others as an odometer. */
static void gather(const dr_torch_tensor *t, const unsigned char *from, unsigned char *to)
{
    const int rank = t->shown.rank;
    const size_t width = t->elem_bytes;
    const int64_t inner = rank > 0 ? t->shown.shape[rank - 1] : 1;
    const size_t step = rank > 0 ? (size_t)t->stride[rank - 1] * width : width;
    int64_t at[64] = {0};
    for (int64_t done = 0; done < t->shown.n_elems; done += inner) {
        const unsigned char *p = from;
        for (int64_t i = 0; i < inner; i++, p += step, to += width) {
            memcpy(to, p, width);
        }
        for (int d = rank - 2; d >= 0; d--) {
            from += (size_t)t->stride[d] * width;
            if (++at[d] < t->shown.shape[d]) {
                break;
            }
            from -= (size_t)t->stride[d] * width * (size_t)t->shown.shape[d];
            at[d] = 0;
        }
    }
}

static dr_status make_copy(dr_torch_file *f, dr_torch_tensor *t)
{
    const unsigned char *base = NULL;
    void *copy = NULL;
    DR_TRY(storage_bytes(f, t, &base));
    DR_TRY(dr_try_calloc(t->shown.bytes, 1, &copy));
    if (t->contiguous) {
        memcpy(copy, base + t->offset_bytes, t->shown.bytes);
    } else {
        gather(t, base + t->offset_bytes, copy);
    }
    t->copy = copy;
    return DR_OK;
}

dr_status dr_torch_data(dr_torch_file *f, size_t i, const void **data)
{
    DR_CHECK(i < f->n, "%s: tensor %zu of %zu", f->source, i, f->n);
    dr_torch_tensor *t = &f->tensors[i];
    if (!t->shown.readable) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: tensor '%s' has dtype %s, which cannot be read; convert the file to F16 or "
                "F32",
                f->source, t->shown.name, t->shown.dtype_name);
    }
    if (t->shown.bytes == 0) {
        *data = "";
        return DR_OK;
    }
    if (t->contiguous && !is_packed(t)) {
        const unsigned char *base = NULL;
        DR_TRY(storage_bytes(f, t, &base));
        *data = base + t->offset_bytes;
        return DR_OK;
    }
    (void)pthread_mutex_lock(&f->lock);
    const dr_status st = t->copy != NULL ? DR_OK : make_copy(f, t);
    *data = t->copy;
    (void)pthread_mutex_unlock(&f->lock);
    return st == DR_OK ? DR_OK : dr_error_frame(st, __FILE__, __LINE__);
}

void dr_torch_release(dr_torch_file *f, size_t i)
{
    DR_CHECK(i < f->n, "%s: tensor %zu of %zu", f->source, i, f->n);
    dr_torch_tensor *t = &f->tensors[i];
    (void)pthread_mutex_lock(&f->lock);
    free(t->copy);
    t->copy = NULL;
    if (f->unpacked_from == t->entry) {
        free(f->unpacked);
        f->unpacked = NULL;
        f->unpacked_from = NULL;
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (t->contiguous && t->entry != NULL && t->shown.bytes > 0) {
        dr_zip_release(f->zip, t->entry, t->offset_bytes, t->shown.bytes);
    } else if (t->contiguous && t->at != NULL && f->map.data != NULL) {
        dr_map_release(&f->map, (size_t)(t->at - f->map.data) + t->offset_bytes, t->shown.bytes);
    }
}
