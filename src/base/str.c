#include "base/str.h"

#include "base/arena.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(dr_str *s, size_t extra)
{
    size_t need = s->len + extra + 1;
    if (need > s->cap) {
        size_t cap = s->cap * 2 > need ? s->cap * 2 : need;
        s->data = dr_xrealloc(s->data, cap, 1);
        s->cap = cap;
    }
}

void dr_str_add_n(dr_str *s, const char *text, size_t n)
{
    reserve(s, n);
    memcpy(s->data + s->len, text, n);
    s->len += n;
    s->data[s->len] = '\0';
}

void dr_str_add(dr_str *s, const char *text)
{
    dr_str_add_n(s, text, strlen(text));
}

void dr_str_add_base64(dr_str *s, const void *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i += 3) {
        const size_t left = n - i;
        const uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                           (left > 2 ? (uint32_t)p[i + 2] : 0);
        const char quad[4] = {digits[v >> 18 & 63], digits[v >> 12 & 63],
                              left > 1 ? digits[v >> 6 & 63] : '=',
                              left > 2 ? digits[v & 63] : '='};
        dr_str_add_n(s, quad, sizeof quad);
    }
}

void dr_str_printf(dr_str *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    DR_CHECK(n >= 0, "bad format %s", fmt);
    reserve(s, (size_t)n);
    va_start(ap, fmt);
    (void)vsnprintf(s->data + s->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->len += (size_t)n;
}

const char *dr_str_get(const dr_str *s)
{
    return s->data != NULL ? s->data : "";
}

void dr_str_free(dr_str *s)
{
    free(s->data);
    memset(s, 0, sizeof *s);
}

void dr_strv_push(dr_strv *v, const char *text)
{
    if (v->n == v->cap) {
        v->cap = v->cap > 0 ? v->cap * 2 : 16;
        v->at = dr_xrealloc(v->at, v->cap, sizeof *v->at);
    }
    size_t len = strlen(text) + 1;
    char *copy = dr_xcalloc(len, 1);
    memcpy(copy, text, len);
    v->at[v->n++] = copy;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void dr_strv_sort(dr_strv *v)
{
    if (v->n > 1) {
        qsort(v->at, v->n, sizeof *v->at, compare_strings);
    }
}

void dr_strv_free(dr_strv *v)
{
    for (size_t i = 0; i < v->n; i++) {
        free(v->at[i]);
    }
    free(v->at);
    memset(v, 0, sizeof *v);
}

bool dr_str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool dr_str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s);
    size_t m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

bool dr_parse_i64(const char *s, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (end == s || *end != '\0' || errno == ERANGE) {
        return false;
    }
    *out = v;
    return true;
}

bool dr_parse_f64(const char *s, double *out)
{
    char *end = NULL;
    double v = strtod(s, &end);
    if (end == s || *end != '\0' || !isfinite(v)) {
        return false;
    }
    *out = v;
    return true;
}

int dr_edit_distance(const char *a, const char *b)
{
    enum { MAX = 128 };
    int row[MAX + 1];
    size_t n = strlen(a);
    size_t m = strlen(b);
    if (n > MAX || m > MAX) {
        return MAX;
    }
    for (size_t j = 0; j <= m; j++) {
        row[j] = (int)j;
    }
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[m];
}

void dr_float_repr(double v, char buf[32])
{
    char digits[32];
    int precision = 1;
    if (!isfinite(v)) { /* as Python spells them */
        (void)snprintf(buf, 32, "%s", isnan(v) ? "nan" : v < 0.0 ? "-inf" : "inf");
        return;
    }
    do { /* the shortest %e that reads back */
        (void)snprintf(digits, sizeof digits, "%.*e", precision - 1, v);
    } while (strtod(digits, NULL) != v && precision++ < 17);
    int exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        (void)snprintf(buf, 32, "%s", digits);
        return;
    }
    int decimals = precision - 1 - exponent;
    (void)snprintf(buf, 32, "%.*f", decimals > 1 ? decimals : 1, v);
}

void dr_format_bytes(uint64_t bytes, char buf[24])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024.0 && u + 1 < sizeof units / sizeof *units) {
        v /= 1024.0;
        u++;
    }
    (void)snprintf(buf, 24, u == 0 || v >= 100.0 ? "%.0f %s" : "%.1f %s", v, units[u]);
}
