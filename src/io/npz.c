#include "io/npz.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/str.h"
#include "io/zip_reader.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER_BYTES = 64 * 1024, MAX_NUMBERS = 64 };

struct dr_npz {
    dr_zip *zip;
};

dr_status dr_npz_open(dr_npz **out, const char *path)
{
    *out = NULL;
    dr_zip *zip = NULL;
    DR_TRY(dr_zip_open(&zip, path));
    *out = dr_xcalloc(1, sizeof **out);
    (*out)->zip = zip;
    return DR_OK;
}

dr_status dr_npz_parse(dr_npz **out, const char *source, const void *bytes, size_t n)
{
    *out = NULL;
    dr_zip *zip = NULL;
    DR_TRY(dr_zip_parse(&zip, source, bytes, n));
    *out = dr_xcalloc(1, sizeof **out);
    (*out)->zip = zip;
    return DR_OK;
}

void dr_npz_close(dr_npz *z)
{
    if (z != NULL) {
        dr_zip_close(z->zip);
        free(z);
    }
}

static const dr_zip_entry *find(const dr_npz *z, const char *name)
{
    dr_str member = {0};
    dr_str_printf(&member, "%s.npy", name);
    const dr_zip_entry *e = dr_zip_find(z->zip, dr_str_get(&member));
    dr_str_free(&member);
    return e;
}

bool dr_npz_has(const dr_npz *z, const char *name)
{
    return find(z, name) != NULL;
}

/* ---- the header: {'descr': '<f4', 'fortran_order': False, 'shape': (4, 64, 64), } ---- */

typedef struct text { /* what is left of the header */
    const char *at, *end;
} text;

static void skip_blanks(text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t')) {
        t->at++;
    }
}

static bool take(text *t, const char *word)
{
    skip_blanks(t);
    size_t n = strlen(word);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0) {
        return false;
    }
    t->at += n;
    return true;
}

static bool take_type(text *t, dr_dtype *out)
{
    static const struct {
        const char *name;
        dr_dtype dtype;
    } types[] = {{"'<f4'", DR_F32}, {"'<f8'", DR_F64}, {"'<f2'", DR_F16},
                 {"'<i8'", DR_I64}, {"'<i4'", DR_I32}, {"'<i2'", DR_I16},
                 {"'|i1'", DR_I8},  {"'|u1'", DR_U8},  {"'|b1'", DR_BOOL}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (take(t, types[i].name)) {
            *out = types[i].dtype;
            return true;
        }
    }
    return false;
}

static bool take_side(text *t, int64_t *out)
{
    int64_t v = 0;
    int n = 0;
    skip_blanks(t);
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9' && n < 18; t->at++, n++) {
        v = 10 * v + (*t->at - '0');
    }
    *out = v;
    return n > 0 && n < 18;
}

static bool take_shape(text *t, dr_npy *out)
{
    if (!take(t, "(")) {
        return false;
    }
    for (out->rank = 0; !take(t, ")"); out->rank++) {
        if (out->rank == DR_NPY_MAX_RANK || !take_side(t, &out->dim[out->rank])) {
            return false;
        }
        if (!take(t, ",")) {
            out->rank++;
            return out->rank > 1 && take(t, ")");
        }
    }
    return true;
}

/* False for text that is no such header, and for Fortran order. */
static bool parse_header(text t, dr_npy *out)
{
    bool has_type = false;
    bool has_order = false;
    bool has_shape = false;
    if (!take(&t, "{")) {
        return false;
    }
    while (!take(&t, "}")) {
        bool *seen = NULL;
        bool good = false;
        if (take(&t, "'descr'")) {
            seen = &has_type;
            good = take(&t, ":") && take_type(&t, &out->dtype);
        } else if (take(&t, "'fortran_order'")) {
            seen = &has_order;
            good = take(&t, ":") && take(&t, "False");
        } else if (take(&t, "'shape'")) {
            seen = &has_shape;
            good = take(&t, ":") && take_shape(&t, out);
        }
        if (!good || *seen) {
            return false;
        }
        *seen = true;
        if (!take(&t, ",") && !(take(&t, "}") && (t.at--, true))) {
            return false;
        }
    }
    skip_blanks(&t);
    return t.at == t.end && has_type && has_order && has_shape;
}

/* Elements of the array; false when they are more than there are bytes. */
static bool count_elements(dr_npy *a, size_t bytes)
{
    uint64_t n = 1;
    uint64_t total = 0;
    for (int i = 0; i < a->rank; i++) {
        if (!dr_mul_u64(n, (uint64_t)a->dim[i], &n)) {
            return false;
        }
    }
    a->n = (size_t)n;
    return dr_mul_u64(n, dr_dtype_size(a->dtype), &total) && total == bytes;
}

/* Splits a member's bytes into header and data. */
static dr_status parse_array(const char *file, const char *name, const unsigned char *p, size_t n,
                             dr_npy *out, size_t *data_at)
{
    static const unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    if (n < 12 || memcmp(p, magic, sizeof magic) != 0 || p[6] < 1 || p[6] > 3) {
        DR_FAIL(DR_FORMAT, "%s: '%s' is no array of numpy's format 1 to 3", file, name);
    }
    size_t at = p[6] == 1 ? 10 : 12;
    size_t header =
        p[6] == 1 ? (size_t)p[8] | (size_t)p[9] << 8
                  : (size_t)p[8] | (size_t)p[9] << 8 | (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (header > MAX_HEADER_BYTES || header > n - at) {
        DR_FAIL(DR_FORMAT, "%s: '%s' is damaged: its header would have %zu bytes", file, name,
                header);
    }
    const char *text_at = (const char *)p + at;
    *out = (dr_npy){0};
    if (!parse_header((text){text_at, text_at + header}, out)) {
        DR_FAIL(DR_FORMAT,
                "%s: '%s': its header is not that of numbers in C order, little-endian: %.*s", file,
                name, (int)(header < 200 ? header : 200), text_at);
    }
    if (!count_elements(out, n - at - header)) {
        DR_FAIL(DR_FORMAT, "%s: '%s' is damaged: %zu bytes are not what its shape asks for", file,
                name, n - at - header);
    }
    *data_at = at + header;
    return DR_OK;
}

/* A member's bytes; the caller frees them. */
static dr_status read_member(const dr_npz *z, const char *name, void **bytes, size_t *n)
{
    const dr_zip_entry *e = find(z, name);
    if (e == NULL) {
        DR_FAIL(DR_FORMAT, "%s: there is no array '%s'", dr_zip_path(z->zip), name);
    }
    DR_TRY(dr_try_calloc(e->bytes > 0 ? e->bytes : 1, 1, bytes));
    dr_status st = dr_zip_read(z->zip, e, *bytes);
    if (st != DR_OK) {
        free(*bytes);
        return st;
    }
    *n = e->bytes;
    return DR_OK;
}

dr_status dr_npz_describe(const dr_npz *z, const char *name, dr_npy *out)
{
    void *bytes = NULL;
    size_t n = 0;
    size_t at = 0;
    DR_TRY(read_member(z, name, &bytes, &n));
    dr_status st = parse_array(dr_zip_path(z->zip), name, bytes, n, out, &at);
    free(bytes);
    return st;
}

static bool is_floating(dr_dtype t)
{
    return t == DR_F64 || t == DR_F32 || t == DR_F16;
}

static dr_status check_shape(const char *file, const char *name, const dr_npy *a, int rank,
                             const int64_t *dim)
{
    bool same = is_floating(a->dtype) && a->rank == rank;
    dr_str found = {0};
    dr_str expected = {0};
    for (int i = 0; i < a->rank; i++) {
        dr_str_printf(&found, "%s%lld", i > 0 ? "," : "", (long long)a->dim[i]);
    }
    for (int i = 0; i < rank; i++) {
        same = same && a->dim[i] == dim[i];
        dr_str_printf(&expected, "%s%lld", i > 0 ? "," : "", (long long)dim[i]);
    }
    dr_status st =
        same ? DR_OK
             : dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                            "%s: '%s' is %s (%s), expected floating point (%s)", file, name,
                            dr_dtype_name(a->dtype), dr_str_get(&found), dr_str_get(&expected));
    dr_str_free(&found);
    dr_str_free(&expected);
    return st;
}

dr_status dr_npz_read_f32(const dr_npz *z, const char *name, int rank, const int64_t *dim,
                          float *out)
{
    void *bytes = NULL;
    size_t n = 0;
    size_t at = 0;
    dr_npy a;
    DR_TRY(read_member(z, name, &bytes, &n));
    dr_status st = parse_array(dr_zip_path(z->zip), name, bytes, n, &a, &at);
    if (st == DR_OK) {
        st = check_shape(dr_zip_path(z->zip), name, &a, rank, dim);
    }
    if (st == DR_OK) { /* the header's length may leave the data unaligned */
        memmove(bytes, (char *)bytes + at, n - at);
        dr_convert(out, DR_F32, bytes, a.dtype, a.n);
    }
    free(bytes);
    return st;
}

static double number_at(const dr_npy *a, const unsigned char *data, size_t i)
{
    const unsigned char *p = data + i * dr_dtype_size(a->dtype);
    double d = 0.0;
    int64_t i64 = 0;
    int32_t i32 = 0;
    int16_t i16 = 0;
    switch (a->dtype) {
    case DR_F64:
    case DR_F32:
    case DR_F16:
        dr_convert(&d, DR_F64, p, a->dtype, 1);
        return d;
    case DR_I64:
        memcpy(&i64, p, sizeof i64);
        return (double)i64;
    case DR_I32:
        memcpy(&i32, p, sizeof i32);
        return i32;
    case DR_I16:
        memcpy(&i16, p, sizeof i16);
        return i16;
    case DR_I8:
        return (signed char)*p;
    default:
        return *p;
    }
}

dr_status dr_npz_read_numbers(const dr_npz *z, const char *name, size_t n, double *out)
{
    void *bytes = NULL;
    size_t size = 0;
    size_t at = 0;
    dr_npy a;
    DR_CHECK(n <= MAX_NUMBERS, "%zu numbers of '%s'", n, name);
    DR_TRY(read_member(z, name, &bytes, &size));
    dr_status st = parse_array(dr_zip_path(z->zip), name, bytes, size, &a, &at);
    if (st == DR_OK && a.n != n) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__, "%s: '%s' has %zu numbers, expected %zu",
                          dr_zip_path(z->zip), name, a.n, n);
    }
    if (st == DR_OK) {
        memmove(bytes, (char *)bytes + at, size - at);
    }
    for (size_t i = 0; st == DR_OK && i < n; i++) {
        out[i] = number_at(&a, bytes, i);
    }
    free(bytes);
    return st;
}
