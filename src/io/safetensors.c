/*
 * Reading. The header is parsed as JSON, turned into a table in one arena, sorted by offset and
 * checked to tile the data; a hash table over the names answers dr_safetensors_find.
 */
#include "io/safetensors.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/file.h"
#include "io/json.h"
#include "io/xxh3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, SNIFF_BYTES = 64 };

struct dr_safetensors {
    dr_arena arena;
    dr_map map; /* empty when parsed from memory */
    char *source;
    const unsigned char *data; /* first byte after the header */
    dr_safetensors_tensor *tensors;
    size_t n;
    uint32_t *slots; /* hash table: index + 1 of a tensor, 0 for empty; n_slots a power of two */
    size_t n_slots;
    dr_safetensors_meta *meta;
    size_t n_meta;
};

/* Types of the format that have no dr_dtype: their size is needed to check the file. */
static const struct {
    const char *name;
    unsigned bits;
} foreign_dtypes[] = {
    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"F8_E5M2", 8},
    {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"U16", 16},    {"U32", 32},    {"U64", 64},        {"C64", 64},
};

static uint64_t read_u64_le(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        v = v << 8 | p[i];
    }
    return v;
}

bool dr_safetensors_sniff_bytes(const unsigned char *head, size_t n)
{
    if (n < LENGTH_BYTES + 2) {
        return false;
    }
    uint64_t length = read_u64_le(head);
    size_t i = LENGTH_BYTES;
    while (i < n && strchr(" \t\r\n", head[i]) != NULL && head[i] != '\0') {
        i++;
    }
    return length >= 2 && length <= DR_SAFETENSORS_MAX_HEADER && i < n && head[i] == '{';
}

bool dr_safetensors_sniff(const char *path)
{
    unsigned char head[SNIFF_BYTES];
    FILE *f = fopen(path, "rbe");
    if (f == NULL) {
        return false;
    }
    size_t n = fread(head, 1, sizeof head, f);
    (void)fclose(f);
    return dr_safetensors_sniff_bytes(head, n);
}

/* What a file that is no safetensors file most likely is. */
static const char *guess_kind(const unsigned char *bytes, size_t n)
{
    static const struct {
        const char *magic, *kind;
    } known[] = {
        {"version https://git-lfs",
         "; this is a Git LFS pointer, not the model: run 'git lfs pull'"},
        {"PK\x03\x04", "; this is a zip archive (a torch .ckpt or .bin file renamed?)"},
        {"\x80\x02", "; this is a pickle (an old torch file renamed?)"},
        {"<", "; this is a web page, not a model: download it again"},
        {"GGUF", "; this is a GGUF file"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t len = strlen(known[i].magic);
        if (n >= len && memcmp(bytes, known[i].magic, len) == 0) {
            return known[i].kind;
        }
    }
    return "";
}

static dr_status fail_truncated(const dr_safetensors *s, size_t n, const char *least, uint64_t want)
{
    DR_FAIL(DR_FORMAT, "%s: the file is truncated: %zu of %s%llu bytes; download it again",
            s->source, n, least, (unsigned long long)want);
}

size_t dr_safetensors_data_at(const unsigned char *bytes, size_t n)
{
    const uint64_t length = n < LENGTH_BYTES ? UINT64_MAX : read_u64_le(bytes);
    return n < LENGTH_BYTES || length > n - LENGTH_BYTES ? 0 : LENGTH_BYTES + (size_t)length;
}

static dr_status check_length(const dr_safetensors *s, const unsigned char *bytes, size_t n,
                              size_t *header_bytes)
{
    if (n < LENGTH_BYTES) {
        return fail_truncated(s, n, "at least ", LENGTH_BYTES + 2);
    }
    uint64_t length = read_u64_le(bytes);
    if (length > DR_SAFETENSORS_MAX_HEADER) {
        DR_FAIL(DR_FORMAT,
                "%s: not a safetensors file: its header would have %llu bytes, at most %d are "
                "allowed%s",
                s->source, (unsigned long long)length, DR_SAFETENSORS_MAX_HEADER,
                guess_kind(bytes, n));
    }
    if (length > n - LENGTH_BYTES) {
        return fail_truncated(s, n, "at least ", length + LENGTH_BYTES);
    }
    *header_bytes = (size_t)length;
    return DR_OK;
}

static dr_status find_dtype(dr_safetensors *s, dr_safetensors_tensor *t, const char *name,
                            unsigned *bits)
{
    t->dtype_name = dr_arena_strdup(&s->arena, name);
    t->readable = dr_dtype_from_name(name, &t->dtype);
    if (t->readable) {
        *bits = (unsigned)dr_dtype_size(t->dtype) * 8;
        return DR_OK;
    }
    for (size_t i = 0; i < sizeof foreign_dtypes / sizeof foreign_dtypes[0]; i++) {
        if (strcmp(foreign_dtypes[i].name, name) == 0) {
            *bits = foreign_dtypes[i].bits;
            return DR_OK;
        }
    }
    DR_FAIL(DR_FORMAT, "%s: tensor '%s' has dtype '%s', which the format does not define",
            s->source, t->name, name);
}

static dr_status read_shape(dr_safetensors *s, dr_safetensors_tensor *t, const dr_json_value *list)
{
    if (dr_json_kind_of_value(list) != DR_JSON_LIST) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s' has no list 'shape'", s->source, t->name);
    }
    size_t rank = dr_json_size(list);
    int64_t *shape = dr_arena_array(&s->arena, rank, sizeof *shape);
    uint64_t n_elems = 1;
    for (size_t i = 0; i < rank; i++) {
        const dr_json_value *v = dr_json_item(list, i);
        shape[i] = dr_json_int_value(v);
        if (dr_json_kind_of_value(v) != DR_JSON_INT || shape[i] < 0) {
            DR_FAIL(DR_FORMAT, "%s: tensor '%s': size %zu of its shape is not an integer >= 0",
                    s->source, t->name, i);
        }
        if (!dr_mul_u64(n_elems, (uint64_t)shape[i], &n_elems) || n_elems > INT64_MAX) {
            DR_FAIL(DR_FORMAT, "%s: tensor '%s': the number of elements overflows 63 bits",
                    s->source, t->name);
        }
    }
    t->shape = shape;
    t->rank = (int)rank; /* a header of 100 MB cannot hold more sizes than an int counts */
    t->n_elems = (int64_t)n_elems;
    return DR_OK;
}

/* Reads data_offsets and compares their distance with the size by shape and dtype. */
static dr_status read_extent(const dr_safetensors *s, dr_safetensors_tensor *t,
                             const dr_json_value *list, unsigned bits)
{
    const dr_json_value *v[2] = {dr_json_item(list, 0), dr_json_item(list, 1)};
    if (dr_json_kind_of_value(list) != DR_JSON_LIST || dr_json_size(list) != 2 ||
        dr_json_kind_of_value(v[0]) != DR_JSON_INT || dr_json_kind_of_value(v[1]) != DR_JSON_INT) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s' has no 'data_offsets' of two integers", s->source,
                t->name);
    }
    int64_t begin = dr_json_int_value(v[0]);
    int64_t end = dr_json_int_value(v[1]);
    if (begin < 0 || end < begin) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s': data_offsets [%lld, %lld] are not a range", s->source,
                t->name, (long long)begin, (long long)end);
    }
    uint64_t n_bits = 0;
    if (!dr_mul_u64((uint64_t)t->n_elems, bits, &n_bits)) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s': its size overflows 64 bits", s->source, t->name);
    }
    if (n_bits % 8 != 0) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s': %lld elements of %u bits do not fill whole bytes",
                s->source, t->name, (long long)t->n_elems, bits);
    }
    if ((uint64_t)(end - begin) != n_bits / 8) {
        DR_FAIL(DR_FORMAT,
                "%s: tensor '%s': data_offsets span %lld bytes, its shape and dtype %s need %llu",
                s->source, t->name, (long long)(end - begin), t->dtype_name,
                (unsigned long long)(n_bits / 8));
    }
    t->offset = (size_t)begin;
    t->bytes = (size_t)(end - begin);
    return DR_OK;
}

static dr_status read_tensor(dr_safetensors *s, const dr_json_iter *it)
{
    dr_safetensors_tensor *t = &s->tensors[s->n];
    t->name = dr_arena_strdup(&s->arena, it->name);
    if (dr_json_kind_of_value(it->value) != DR_JSON_OBJECT) {
        DR_FAIL(DR_FORMAT, "%s: the entry of tensor '%s' is not an object", s->source, t->name);
    }
    const dr_json_value *dtype = dr_json_member(it->value, "dtype");
    if (dr_json_kind_of_value(dtype) != DR_JSON_STRING) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s' has no string 'dtype'", s->source, t->name);
    }
    unsigned bits = 0;
    DR_TRY(find_dtype(s, t, dr_json_string_value(dtype), &bits));
    DR_TRY(read_shape(s, t, dr_json_member(it->value, "shape")));
    DR_TRY(read_extent(s, t, dr_json_member(it->value, "data_offsets"), bits));
    s->n++;
    return DR_OK;
}

static dr_status read_meta(dr_safetensors *s, const dr_json_value *object)
{
    if (dr_json_kind_of_value(object) == DR_JSON_NULL) {
        return DR_OK;
    }
    if (dr_json_kind_of_value(object) != DR_JSON_OBJECT) {
        DR_FAIL(DR_FORMAT, "%s: __metadata__ is not an object", s->source);
    }
    s->meta = dr_arena_array(&s->arena, dr_json_size(object), sizeof *s->meta);
    for (dr_json_iter it = {0}; dr_json_next(object, &it);) {
        if (dr_json_kind_of_value(it.value) != DR_JSON_STRING) {
            DR_FAIL(DR_FORMAT, "%s: __metadata__ '%s' is not a string", s->source, it.name);
        }
        s->meta[s->n_meta].key = dr_arena_strdup(&s->arena, it.name);
        s->meta[s->n_meta].value = dr_arena_strdup(&s->arena, dr_json_string_value(it.value));
        s->n_meta++;
    }
    return DR_OK;
}

static int by_offset(const void *a, const void *b)
{
    const dr_safetensors_tensor *x = a;
    const dr_safetensors_tensor *y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    if (x->bytes != y->bytes) {
        return x->bytes < y->bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

/* Sorted by offset, the tensors must cover the n_data bytes without gap and overlap. */
static dr_status check_tiling(dr_safetensors *s, size_t header_end, size_t n_data)
{
    size_t end = 0;
    if (s->n > 1) {
        qsort(s->tensors, s->n, sizeof *s->tensors, by_offset);
    }
    for (size_t i = 0; i < s->n; i++) {
        const dr_safetensors_tensor *t = &s->tensors[i];
        if (t->offset != end) {
            DR_FAIL(DR_FORMAT, "%s: tensor '%s' starts at byte %zu of the data, expected %zu (%s)",
                    s->source, t->name, t->offset, end, t->offset > end ? "a gap" : "an overlap");
        }
        end = t->offset + t->bytes;
    }
    if (end > n_data) {
        return fail_truncated(s, header_end + n_data, "", (uint64_t)header_end + end);
    }
    if (end < n_data) {
        DR_FAIL(DR_FORMAT,
                "%s: %zu bytes follow the last tensor: the file has %zu bytes, expected %zu; "
                "download it again",
                s->source, n_data - end, header_end + n_data, header_end + end);
    }
    return DR_OK;
}

static size_t slot_of(const dr_safetensors *s, const char *name)
{
    return (size_t)dr_xxh3_bytes(name, strlen(name)).low & (s->n_slots - 1);
}

static void index_names(dr_safetensors *s)
{
    s->n_slots = 16;
    while (s->n_slots < 2 * s->n) {
        s->n_slots *= 2;
    }
    s->slots = dr_arena_array(&s->arena, s->n_slots, sizeof *s->slots);
    for (size_t i = 0; i < s->n; i++) {
        size_t at = slot_of(s, s->tensors[i].name);
        while (s->slots[at] != 0) {
            at = (at + 1) & (s->n_slots - 1);
        }
        s->slots[at] = (uint32_t)(i + 1); /* a header of 100 MB holds far fewer than 2^32 */
    }
}

static dr_status read_header(dr_safetensors *s, const dr_json_value *root)
{
    if (dr_json_kind_of_value(root) != DR_JSON_OBJECT) {
        DR_FAIL(DR_FORMAT, "%s: the header is not a JSON object", s->source);
    }
    s->tensors = dr_arena_array(&s->arena, dr_json_size(root), sizeof *s->tensors);
    for (dr_json_iter it = {0}; dr_json_next(root, &it);) {
        if (strcmp(it.name, "__metadata__") == 0) {
            DR_TRY(read_meta(s, it.value));
        } else {
            DR_TRY(read_tensor(s, &it));
        }
    }
    return DR_OK;
}

static dr_status parse_file(dr_safetensors *s, const unsigned char *bytes, size_t n)
{
    size_t header_bytes = 0;
    dr_json_doc *doc = NULL;
    DR_TRY(check_length(s, bytes, n, &header_bytes));
    const char *source = dr_arena_printf(&s->arena, "%s: safetensors header", s->source);
    DR_TRY(dr_json_parse(&doc, source, bytes + LENGTH_BYTES, header_bytes));
    dr_status st = read_header(s, dr_json_root(doc));
    dr_json_close(doc);
    DR_TRY(st);
    s->data = bytes + LENGTH_BYTES + header_bytes;
    DR_TRY(check_tiling(s, LENGTH_BYTES + header_bytes, n - LENGTH_BYTES - header_bytes));
    index_names(s);
    return DR_OK;
}

static dr_safetensors *create_reader(const char *source)
{
    dr_safetensors *s = dr_xcalloc(1, sizeof *s);
    dr_arena_init(&s->arena);
    s->source = dr_arena_strdup(&s->arena, source);
    return s;
}

dr_status dr_safetensors_parse(dr_safetensors **out, const char *source, const void *bytes,
                               size_t n)
{
    *out = NULL;
    dr_safetensors *s = create_reader(source);
    dr_status st = parse_file(s, bytes, n);
    if (st != DR_OK) {
        dr_safetensors_close(s);
        return st;
    }
    *out = s;
    return DR_OK;
}

dr_status dr_safetensors_open(dr_safetensors **out, const char *path)
{
    *out = NULL;
    dr_safetensors *s = create_reader(path);
    dr_status st = dr_map_open(&s->map, path);
    if (st == DR_OK) {
        st = parse_file(s, s->map.data, s->map.size);
    }
    if (st != DR_OK) {
        dr_safetensors_close(s);
        return st;
    }
    *out = s;
    return DR_OK;
}

void dr_safetensors_close(dr_safetensors *s)
{
    if (s != NULL) {
        dr_map_close(&s->map);
        dr_arena_deinit(&s->arena);
        free(s);
    }
}

size_t dr_safetensors_count(const dr_safetensors *s)
{
    return s->n;
}

const dr_safetensors_tensor *dr_safetensors_at(const dr_safetensors *s, size_t i)
{
    DR_CHECK(i < s->n, "%s: tensor %zu of %zu", s->source, i, s->n);
    return &s->tensors[i];
}

const dr_safetensors_tensor *dr_safetensors_find(const dr_safetensors *s, const char *name)
{
    for (size_t at = slot_of(s, name); s->slots[at] != 0; at = (at + 1) & (s->n_slots - 1)) {
        const dr_safetensors_tensor *t = &s->tensors[s->slots[at] - 1];
        if (strcmp(t->name, name) == 0) {
            return t;
        }
    }
    return NULL;
}

dr_status dr_safetensors_data(const dr_safetensors *s, const dr_safetensors_tensor *t,
                              const void **data)
{
    if (!t->readable) {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: tensor '%s' has dtype %s, which cannot be read; convert the file to F16 or "
                "F32",
                s->source, t->name, t->dtype_name);
    }
    *data = s->data + t->offset;
    return DR_OK;
}

void dr_safetensors_release(const dr_safetensors *s, const dr_safetensors_tensor *t)
{
    if (s->map.data != NULL) {
        dr_map_release(&s->map, (size_t)(s->data - s->map.data) + t->offset, t->bytes);
    }
}

size_t dr_safetensors_meta_count(const dr_safetensors *s)
{
    return s->n_meta;
}

dr_safetensors_meta dr_safetensors_meta_at(const dr_safetensors *s, size_t i)
{
    DR_CHECK(i < s->n_meta, "%s: metadata %zu of %zu", s->source, i, s->n_meta);
    return s->meta[i];
}

const char *dr_safetensors_meta_get(const dr_safetensors *s, const char *key)
{
    for (size_t i = 0; i < s->n_meta; i++) {
        if (strcmp(s->meta[i].key, key) == 0) {
            return s->meta[i].value;
        }
    }
    return NULL;
}

const char *dr_safetensors_path(const dr_safetensors *s)
{
    return s->source;
}
