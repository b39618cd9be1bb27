#include "text/codepoints.h"

#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

static void reserve(dr_codepoints *c, size_t extra)
{
    size_t need = c->n + extra;
    if (need > c->cap) {
        c->cap = c->cap * 2 > need ? c->cap * 2 : need + 64;
        c->at = dr_xrealloc(c->at, c->cap, sizeof *c->at);
    }
}

void dr_codepoints_add(dr_codepoints *c, uint32_t codepoint)
{
    reserve(c, 1);
    c->at[c->n++] = codepoint;
}

void dr_codepoints_add_n(dr_codepoints *c, const uint32_t *codepoints, size_t n)
{
    if (n > 0) {
        reserve(c, n);
        memcpy(c->at + c->n, codepoints, n * sizeof *codepoints);
        c->n += n;
    }
}

bool dr_codepoints_equal(const dr_codepoints *a, const dr_codepoints *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->at, b->at, a->n * sizeof *a->at) == 0);
}

void dr_codepoints_swap(dr_codepoints *a, dr_codepoints *b)
{
    dr_codepoints kept = *a;
    *a = *b;
    *b = kept;
}

void dr_codepoints_free(dr_codepoints *c)
{
    free(c->at);
    memset(c, 0, sizeof *c);
}

size_t dr_utf8_next(const unsigned char *bytes, size_t n, uint32_t *codepoint)
{
    unsigned first = bytes[0];
    if (first < 0x80) {
        *codepoint = first;
        return 1;
    }
    size_t len = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || len > n) {
        return 0;
    }
    uint32_t c = first & (0xFFU >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((bytes[i] & 0xC0U) != 0x80U) {
            return 0;
        }
        c = c << 6 | (bytes[i] & 0x3FU);
    }
    if ((len == 3 && c < 0x800) || (len == 4 && c < 0x10000) || c > 0x10FFFF ||
        (c >= 0xD800 && c <= 0xDFFF)) {
        return 0;
    }
    *codepoint = c;
    return len;
}

dr_status dr_utf8_decode(const char *text, size_t n, dr_codepoints *out)
{
    const unsigned char *bytes = (const unsigned char *)text;
    reserve(out, n);
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        size_t len = dr_utf8_next(bytes + i, n - i, &c);
        if (len == 0) {
            DR_FAIL(DR_FORMAT,
                    "text is not UTF-8: byte 0x%02x at offset %zu; save the file as UTF-8",
                    (unsigned)bytes[i], i);
        }
        out->at[out->n++] = c;
        i += len;
    }
    return DR_OK;
}

static size_t encode_one(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = len; i-- > 1;) {
        out[i] = (char)(0x80U | (c & 0x3FU));
        c >>= 6;
    }
    static const unsigned lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(lead[len] | c);
    return len;
}

void dr_utf8_encode(const dr_codepoints *c, dr_str *out)
{
    for (size_t i = 0; i < c->n; i++) {
        char bytes[4];
        dr_str_add_n(out, bytes, encode_one(c->at[i], bytes));
    }
}
