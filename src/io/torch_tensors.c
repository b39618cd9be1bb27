/*
 * What the pickle says, read as tensors: calls of torch._utils._rebuild_* over storages, whose
 * offsets, sizes and strides are checked against what the storage really has.
 */
#include "io/torch_file_internal.h"

#include "base/checked.h"
#include "io/json.h"
#include "io/xxh3.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_RANK = 64,           /* torch's own limit */
    MAX_TENSORS = 100000,    /* a model of the SD family has under 3000 */
    MAX_WRAPPERS = 4,        /* "state_dict" inside "state_dict" has been seen */
    MAX_REPEATED = 64 * 1024 /* elements of a view larger than its storage (expand) */
};

/* Storage classes and torch.dtype names, with the names that safetensors has for them. */
static const struct {
    const char *storage, *dtype, *name;
    size_t bytes;
} types[] = {
    {"torch.FloatStorage", "torch.float32", "F32", 4},
    {"torch.HalfStorage", "torch.float16", "F16", 2},
    {"torch.BFloat16Storage", "torch.bfloat16", "BF16", 2},
    {"torch.DoubleStorage", "torch.float64", "F64", 8},
    {"torch.LongStorage", "torch.int64", "I64", 8},
    {"torch.IntStorage", "torch.int32", "I32", 4},
    {"torch.ShortStorage", "torch.int16", "I16", 2},
    {"torch.CharStorage", "torch.int8", "I8", 1},
    {"torch.ByteStorage", "torch.uint8", "U8", 1},
    {"torch.BoolStorage", "torch.bool", "BOOL", 1},
    {"torch.ComplexFloatStorage", "torch.complex64", "C64", 8},
    {"torch.ComplexDoubleStorage", "torch.complex128", "C128", 16},
    {"torch.QInt8Storage", "torch.qint8", "QINT8", 1},
    {"torch.QUInt8Storage", "torch.quint8", "QUINT8", 1},
    {"torch.QInt32Storage", "torch.qint32", "QINT32", 4},
    {"", "torch.uint16", "U16", 2},
    {"", "torch.uint32", "U32", 4},
    {"", "torch.uint64", "U64", 8},
    {"", "torch.float8_e4m3fn", "F8_E4M3", 1},
    {"", "torch.float8_e5m2", "F8_E5M2", 1},
    {"", "torch.float8_e4m3fnuz", "F8_E4M3FNUZ", 1},
    {"", "torch.float8_e5m2fnuz", "F8_E5M2FNUZ", 1},
    {"", "torch.float8_e8m0fnu", "F8_E8M0", 1},
};

/* ---- storages ---- */

static dr_status fail_id(const dr_torch_file *f, const char *what)
{
    DR_FAIL(DR_FORMAT, "%s: damaged checkpoint: a reference to a storage %s", f->source, what);
}

static dr_status read_storage_type(const dr_torch_file *f, const dr_pickle_value *v,
                                   dr_torch_storage_id *out)
{
    if (dr_pickle_is_global(v, "torch.storage.UntypedStorage") ||
        dr_pickle_is_global(v, "torch.UntypedStorage")) {
        out->dtype_name = NULL;
        out->elem_bytes = 1;
        return DR_OK;
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (dr_pickle_is_global(v, types[i].storage)) {
            out->dtype_name = types[i].name;
            out->elem_bytes = types[i].bytes;
            return DR_OK;
        }
    }
    if (v->kind == DR_PICKLE_GLOBAL) {
        DR_FAIL(DR_UNSUPPORTED, "%s: a storage of type %s, which this program does not know",
                f->source, v->text);
    }
    return fail_id(f, "has no type");
}

/* Legacy: (key of the view, offset, elements), as ("storage", type, key, location, numel, view). */
static dr_status read_view(const dr_torch_file *f, const dr_pickle_value *v,
                           dr_torch_storage_id *out)
{
    if (v->kind == DR_PICKLE_NONE) {
        return DR_OK;
    }
    const bool good = v->kind == DR_PICKLE_TUPLE && v->n == 3 &&
                      v->items[1]->kind == DR_PICKLE_INT && v->items[2]->kind == DR_PICKLE_INT;
    if (!good || v->items[1]->i < 0 || v->items[2]->i < 0 || v->items[1]->i > out->numel ||
        v->items[2]->i > out->numel - v->items[1]->i) {
        return fail_id(f, "has a view outside of it");
    }
    out->view_offset = v->items[1]->i;
    out->view_numel = v->items[2]->i;
    return DR_OK;
}

dr_status dr_torch_read_id(const dr_torch_file *f, const dr_pickle_value *persistent,
                           dr_torch_storage_id *out)
{
    const dr_pickle_value *id =
        persistent->kind == DR_PICKLE_PERSISTENT ? persistent->args : persistent;
    if (id->kind != DR_PICKLE_TUPLE || id->n < 5 || id->n > 6 ||
        !dr_pickle_is(id->items[0], "storage")) {
        return fail_id(f, "is no ('storage', type, key, location, size)");
    }
    const dr_pickle_value *key = id->items[2];
    const dr_pickle_value *numel = id->items[4];
    if (key->kind != DR_PICKLE_STR || key->n == 0 || key->n > 100 ||
        memchr(key->text, '\0', key->n) != NULL || memchr(key->text, '/', key->n) != NULL) {
        return fail_id(f, "has no proper key");
    }
    if (numel->kind != DR_PICKLE_INT || numel->i < 0) {
        return fail_id(f, "has no size");
    }
    *out = (dr_torch_storage_id){
        .key = key->text, .n_key = key->n, .numel = numel->i, .view_numel = numel->i};
    DR_TRY(read_storage_type(f, id->items[1], out));
    return id->n == 6 ? read_view(f, id->items[5], out) : DR_OK;
}

static dr_status find_entry(const dr_torch_file *f, const dr_torch_storage_id *id,
                            dr_torch_tensor *t)
{
    dr_str name = {0};
    dr_str_printf(&name, "%sdata/%.*s", f->prefix, (int)id->n_key, id->key);
    t->entry = dr_zip_find(f->zip, dr_str_get(&name));
    dr_str_free(&name);
    if (t->entry == NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: the data of tensor '%s' (%sdata/%.*s) are missing in the archive; download it "
                "again",
                f->source, t->shown.name, f->prefix, (int)id->n_key, id->key);
    }
    return DR_OK;
}

/* Finds the storage and checks that it has as many bytes as the pickle says. */
static dr_status find_storage(const dr_torch_file *f, const dr_torch_storage_id *id,
                              dr_torch_tensor *t)
{
    uint64_t need = 0;
    uint64_t have = 0;
    if (f->zip != NULL) {
        DR_TRY(find_entry(f, id, t));
        have = t->entry->bytes;
    } else {
        const dr_torch_storage *s = dr_torch_stream_storage(f, id);
        if (s == NULL || s->at == NULL) {
            DR_FAIL(DR_FORMAT, "%s: the data of tensor '%s' are missing in the stream", f->source,
                    t->shown.name);
        }
        t->at = s->at;
        have = (uint64_t)s->numel * s->elem_bytes;
    }
    if (!dr_mul_u64((uint64_t)id->numel, id->elem_bytes, &need) || need > have) {
        DR_FAIL(DR_FORMAT,
                "%s: the storage of tensor '%s' has %llu bytes, %lld elements of %zu bytes are "
                "claimed",
                f->source, t->shown.name, (unsigned long long)have, (long long)id->numel,
                id->elem_bytes);
    }
    t->storage_bytes = (size_t)need;
    return DR_OK;
}

/* ---- sizes and strides ---- */

static dr_status fail_tensor(const dr_torch_file *f, const dr_torch_tensor *t, const char *what)
{
    DR_FAIL(DR_FORMAT, "%s: tensor '%s' %s", f->source, t->shown.name, what);
}

/* A tuple of integers >= 0 (or torch.Size over one), into the arena. */
static dr_status read_sizes(dr_torch_file *f, const dr_torch_tensor *t, const dr_pickle_value *v,
                            const int64_t **out, size_t *rank)
{
    if (dr_pickle_is_call(v, "torch.Size") && v->args->n == 1) {
        v = v->args->items[0];
    }
    if ((v->kind != DR_PICKLE_TUPLE && v->kind != DR_PICKLE_LIST) || v->n > MAX_RANK) {
        return fail_tensor(f, t, "has no list of at most 64 sizes and strides");
    }
    int64_t *sizes = dr_arena_array(&f->arena, v->n, sizeof *sizes);
    for (size_t i = 0; i < v->n; i++) {
        if (v->items[i]->kind != DR_PICKLE_INT || v->items[i]->i < 0) {
            return fail_tensor(f, t, "has a size or stride that is no integer >= 0");
        }
        sizes[i] = v->items[i]->i;
    }
    *out = sizes;
    *rank = v->n;
    return DR_OK;
}

static dr_status read_shape(dr_torch_file *f, dr_torch_tensor *t, const dr_pickle_value *const *a)
{
    size_t rank = 0;
    size_t n_strides = 0;
    uint64_t n = 1;
    uint64_t bytes = 0;
    DR_TRY(read_sizes(f, t, a[2], &t->shown.shape, &rank));
    DR_TRY(read_sizes(f, t, a[3], &t->stride, &n_strides));
    if (rank != n_strides) {
        return fail_tensor(f, t, "has not as many strides as sizes");
    }
    for (size_t i = 0; i < rank; i++) {
        if (!dr_mul_u64(n, (uint64_t)t->shown.shape[i], &n) || n > INT64_MAX) {
            return fail_tensor(f, t, "has more than 2^63 elements");
        }
    }
    if (!dr_mul_u64(n, t->elem_bytes, &bytes) || bytes > INT64_MAX) {
        return fail_tensor(f, t, "has more than 2^63 bytes");
    }
    t->shown.rank = (int)rank;
    t->shown.n_elems = (int64_t)n;
    t->shown.bytes = (size_t)bytes;
    return DR_OK;
}

/* The last element must lie inside the view of numel elements. */
static dr_status check_extent(const dr_torch_file *f, const dr_torch_tensor *t, int64_t offset,
                              int64_t numel)
{
    uint64_t last = (uint64_t)offset;
    if (t->shown.n_elems == 0) {
        return DR_OK;
    }
    for (int i = 0; i < t->shown.rank; i++) {
        uint64_t step = 0;
        if (!dr_mul_u64((uint64_t)t->shown.shape[i] - 1, (uint64_t)t->stride[i], &step) ||
            !dr_add_u64(last, step, &last)) {
            return fail_tensor(f, t, "has strides that overflow 64 bits");
        }
    }
    if (last >= (uint64_t)numel) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s' reaches to element %llu of a storage of %lld",
                f->source, t->shown.name, (unsigned long long)last, (long long)numel);
    }
    if (t->shown.n_elems > numel && t->shown.n_elems > MAX_REPEATED) {
        DR_FAIL(DR_FORMAT, "%s: refused: tensor '%s' claims %lld elements over a storage of %lld",
                f->source, t->shown.name, (long long)t->shown.n_elems, (long long)numel);
    }
    return DR_OK;
}

static bool is_contiguous(const dr_torch_tensor *t)
{
    int64_t expected = 1;
    for (int i = t->shown.rank - 1; i >= 0; i--) {
        if (t->shown.shape[i] != 1 && t->stride[i] != expected) {
            return t->shown.n_elems == 0;
        }
        expected *= t->shown.shape[i]; /* checked: at most n_elems, or 0 */
    }
    return true;
}

/* ---- tensors ---- */

static void set_dtype(dr_torch_tensor *t, const char *name, size_t elem_bytes)
{
    t->shown.dtype_name = name;
    t->shown.readable = dr_dtype_from_name(name, &t->shown.dtype);
    t->elem_bytes = elem_bytes;
}

static dr_status read_dtype(const dr_torch_file *f, dr_torch_tensor *t, const dr_pickle_value *v)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (dr_pickle_is_global(v, types[i].dtype)) {
            set_dtype(t, types[i].name, types[i].bytes);
            return DR_OK;
        }
    }
    DR_FAIL(DR_UNSUPPORTED, "%s: tensor '%s' has dtype %s, which this program does not know",
            f->source, t->shown.name, v->kind == DR_PICKLE_GLOBAL ? v->text : "?");
}

/* args: storage, offset, size, stride, ...; dtype of its own or NULL. */
static dr_status read_rebuilt(dr_torch_file *f, dr_torch_tensor *t, const dr_pickle_value *args,
                              const dr_pickle_value *dtype)
{
    const dr_pickle_value *const *a = args->items;
    dr_torch_storage_id id;
    if (args->kind != DR_PICKLE_TUPLE || args->n < 4 || a[1]->kind != DR_PICKLE_INT ||
        a[1]->i < 0 || a[0]->kind != DR_PICKLE_PERSISTENT) {
        return fail_tensor(f, t, "is not made of storage, offset, sizes and strides");
    }
    DR_TRY(dr_torch_read_id(f, a[0], &id));
    DR_TRY(find_storage(f, &id, t));
    if (dtype != NULL) {
        DR_TRY(read_dtype(f, t, dtype));
    } else {
        set_dtype(t, id.dtype_name != NULL ? id.dtype_name : "U8", id.elem_bytes);
    }
    DR_TRY(read_shape(f, t, a));
    /* all in elements of the tensor's own type, which may be wider than the storage's */
    const uint64_t begin = (uint64_t)id.view_offset * id.elem_bytes;
    const int64_t numel = (int64_t)((uint64_t)id.view_numel * id.elem_bytes / t->elem_bytes);
    DR_TRY(check_extent(f, t, a[1]->i, numel));
    t->offset_bytes =
        t->shown.n_elems == 0 ? 0 : (size_t)(begin + (uint64_t)a[1]->i * t->elem_bytes);
    t->contiguous = is_contiguous(t);
    return DR_OK;
}

/* The call below wrappers: a Parameter's data, a subclass's tensor. NULL when it is no tensor. */
static const dr_pickle_value *unwrap(const dr_pickle_value *v, const dr_pickle_value **args)
{
    for (int level = 0; level < MAX_WRAPPERS; level++) {
        if (v->kind != DR_PICKLE_CALL || v->args->kind != DR_PICKLE_TUPLE) {
            return NULL;
        }
        *args = v->args;
        if (dr_pickle_is_call(v, "torch._tensor._rebuild_from_type_v2") && v->args->n >= 3 &&
            v->args->items[0]->kind == DR_PICKLE_GLOBAL &&
            v->args->items[2]->kind == DR_PICKLE_TUPLE) {
            *args = v->args->items[2];
            return v->args->items[0];
        }
        if ((!dr_pickle_is_call(v, "torch._utils._rebuild_parameter") &&
             !dr_pickle_is_call(v, "torch._utils._rebuild_parameter_with_state")) ||
            v->args->n == 0) {
            return v->callee;
        }
        v = v->args->items[0];
    }
    return NULL;
}

/* What makes v, when that is a tensor of any kind; else NULL. */
static const dr_pickle_value *tensor_maker(const dr_pickle_value *v, const dr_pickle_value **args)
{
    const dr_pickle_value *maker = unwrap(v, args);
    return maker != NULL && (dr_str_starts(maker->text, "torch._utils._rebuild_") ||
                             dr_str_starts(maker->text, "torch._tensor._rebuild_"))
               ? maker
               : NULL;
}

static dr_status read_tensor(dr_torch_file *f, dr_torch_tensor *t, const dr_pickle_value *maker,
                             const dr_pickle_value *args)
{
    if (dr_pickle_is_global(maker, "torch._utils._rebuild_tensor_v2") ||
        dr_pickle_is_global(maker, "torch._utils._rebuild_tensor")) {
        return read_rebuilt(f, t, args, NULL);
    }
    if (dr_pickle_is_global(maker, "torch._utils._rebuild_tensor_v3") && args->n >= 7) {
        return read_rebuilt(f, t, args, args->items[6]);
    }
    DR_FAIL(DR_UNSUPPORTED,
            "%s: tensor '%s' is made by %s (a sparse, quantized or meta tensor), which cannot be "
            "read",
            f->source, t->shown.name, maker->text);
}

/* One string may stand at many places through the memo: copies are counted. */
const char *dr_torch_text(dr_torch_file *f, const dr_pickle_value *v)
{
    if (v->kind != DR_PICKLE_STR || v->n > DR_PICKLE_MAX_BYTES - f->text_bytes ||
        (v->n > 0 && memchr(v->text, '\0', v->n) != NULL)) {
        return NULL;
    }
    f->text_bytes += v->n;
    const char *text = dr_arena_strndup(&f->arena, v->n > 0 ? v->text : "", v->n);
    return dr_json_utf8_valid(text) ? text : NULL;
}

static dr_status read_name(dr_torch_file *f, const dr_pickle_value *key, const char **out)
{
    *out = dr_torch_text(f, key);
    if (*out == NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: a tensor of the state_dict has no name: its key is no string, or not UTF-8",
                f->source);
    }
    return DR_OK;
}

/* ---- the state_dict ---- */

static bool has_tensor(const dr_pickle_value *const *items, size_t n)
{
    const dr_pickle_value *args = NULL;
    for (size_t i = 0; i < n; i++) {
        if (tensor_maker(items[2 * i + 1], &args) != NULL) {
            return true;
        }
    }
    return false;
}

/* The dictionary that holds the tensors: "state_dict" wherever there is one, other wrappers only
 * where no tensor stands beside them. */
static const dr_pickle_value *find_state_dict(const dr_pickle_value *v)
{
    static const char *const wrappers[] = {"state_dict", "model", "module", "model_state_dict"};
    const dr_pickle_value *const *items = NULL;
    size_t n = 0;
    for (int level = 0; level < MAX_WRAPPERS && dr_pickle_pairs(v, &items, &n); level++) {
        const dr_pickle_value *next = NULL;
        const bool last = has_tensor(items, n);
        for (size_t i = 0; next == NULL && i < sizeof wrappers / sizeof wrappers[0]; i++) {
            const dr_pickle_value *inner =
                i == 0 || !last ? dr_pickle_member(v, wrappers[i]) : NULL;
            const dr_pickle_value *const *below = NULL;
            size_t n_below = 0;
            next = inner != NULL && dr_pickle_pairs(inner, &below, &n_below) ? inner : NULL;
        }
        if (next == NULL) {
            break;
        }
        v = next;
    }
    return v;
}

static dr_status fail_empty(const dr_torch_file *f, const dr_pickle_value *dict)
{
    const dr_pickle_value *const *items = NULL;
    size_t n = 0;
    dr_str keys = {0};
    if (dr_pickle_pairs(dict, &items, &n)) {
        for (size_t i = 0; i < n && i < 8; i++) {
            const dr_pickle_value *k = items[2 * i];
            if (k->kind == DR_PICKLE_STR) {
                dr_str_printf(&keys, "%s%.*s", keys.len > 0 ? ", " : " ",
                              (int)(k->n < 60 ? k->n : 60), k->text);
            }
        }
    }
    const dr_status st = dr_error_set(
        DR_FORMAT, __FILE__, __LINE__,
        "%s: a torch file without a state_dict: no tensors by name at its top level, nor under "
        "state_dict, model or module. It holds:%s",
        f->source, keys.len > 0 ? keys.data : " no dictionary");
    dr_str_free(&keys);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static dr_status check_unique(const dr_torch_file *f)
{
    const char **names = dr_xcalloc(f->n + 1, sizeof *names);
    dr_status st = DR_OK;
    for (size_t i = 0; i < f->n; i++) {
        names[i] = f->tensors[i].shown.name;
    }
    qsort((void *)names, f->n, sizeof *names, by_name);
    for (size_t i = 1; st == DR_OK && i < f->n; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                              "%s: the state_dict has the tensor '%s' twice", f->source, names[i]);
        }
    }
    free((void *)names);
    return st;
}

dr_status dr_torch_collect(dr_torch_file *f)
{
    const dr_pickle_value *dict = find_state_dict(f->root);
    const dr_pickle_value *const *items = NULL;
    size_t n = 0;
    if (!dr_pickle_pairs(dict, &items, &n) || !has_tensor(items, n)) {
        return fail_empty(f, dict);
    }
    if (n > MAX_TENSORS) {
        DR_FAIL(DR_FORMAT, "%s: refused: a state_dict of %zu entries; at most %d are read",
                f->source, n, MAX_TENSORS);
    }
    f->tensors = dr_arena_array(&f->arena, n, sizeof *f->tensors);
    for (size_t i = 0; i < n; i++) {
        const dr_pickle_value *args = NULL;
        const dr_pickle_value *maker = tensor_maker(items[2 * i + 1], &args);
        if (maker == NULL) {
            continue; /* numbers and settings that stand beside the tensors */
        }
        dr_torch_tensor *t = &f->tensors[f->n];
        t->shown.i_inside = f->n;
        DR_TRY(read_name(f, items[2 * i], &t->shown.name));
        DR_TRY(read_tensor(f, t, maker, args));
        f->n++;
    }
    return check_unique(f);
}
