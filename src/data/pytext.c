#include "data/pytext.h"

/* The digit zero of every run of ten decimal digits (category Nd), Unicode 14.0, ascending. */
static const uint32_t digit_zeros[] = {
    0x00030, 0x00660, 0x006f0, 0x007c0, 0x00966, 0x009e6, 0x00a66, 0x00ae6, 0x00b66, 0x00be6,
    0x00c66, 0x00ce6, 0x00d66, 0x00de6, 0x00e50, 0x00ed0, 0x00f20, 0x01040, 0x01090, 0x017e0,
    0x01810, 0x01946, 0x019d0, 0x01a80, 0x01a90, 0x01b50, 0x01bb0, 0x01c40, 0x01c50, 0x0a620,
    0x0a8d0, 0x0a900, 0x0a9d0, 0x0a9f0, 0x0aa50, 0x0abf0, 0x0ff10, 0x104a0, 0x10d30, 0x11066,
    0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0,
    0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2,
    0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0};

size_t dr_py_utf8_next(const char *s, size_t n, uint32_t *cp)
{
    if (n == 0) {
        return 0;
    }
    unsigned lead = (unsigned char)s[0];
    if (lead < 0x80) {
        *cp = lead;
        return 1;
    }
    size_t len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || n < len) {
        return 0;
    }
    uint32_t value = lead & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        unsigned byte = (unsigned char)s[i];
        if ((byte & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (byte & 0x3f);
    }
    bool overlong = (len == 3 && value < 0x800) || (len == 4 && value < 0x10000);
    if (overlong || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
        return 0;
    }
    *cp = value;
    return len;
}

size_t dr_py_utf8_check(const char *s, size_t n)
{
    size_t at = 0;
    while (at < n) {
        uint32_t cp = 0;
        size_t len = dr_py_utf8_next(s + at, n - at, &cp);
        if (len == 0) {
            break;
        }
        at += len;
    }
    return at;
}

static bool is_space(uint32_t c) /* str.isspace() */
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

void dr_py_strip(const char **s, size_t *n)
{
    size_t first = *n;
    size_t end = *n;
    bool seen = false;
    for (size_t at = 0; at < *n;) {
        uint32_t cp = 0;
        size_t len = dr_py_utf8_next(*s + at, *n - at, &cp);
        bool blank = len != 0 && is_space(cp);
        len = len == 0 ? 1 : len;
        if (!blank) {
            first = seen ? first : at;
            end = at + len;
            seen = true;
        }
        at += len;
    }
    *s += first;
    *n = end - first;
}

static int digit_value(uint32_t cp)
{
    for (size_t i = 0; i < sizeof digit_zeros / sizeof digit_zeros[0] && digit_zeros[i] <= cp;
         i++) {
        if (cp - digit_zeros[i] < 10) {
            return (int)(cp - digit_zeros[i]);
        }
    }
    return -1;
}

/* int() strips C's white space and the spaces beyond ASCII, but not the separators 0x1c to 0x1f
 * that str.strip() removes: they make the text invalid. */
static bool has_separator(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] >= 0x1c && s[i] <= 0x1f) {
            return true;
        }
    }
    return false;
}

bool dr_py_int(const char *s, size_t n, int64_t *out)
{
    if (has_separator(s, n)) {
        return false;
    }
    dr_py_strip(&s, &n);
    bool negative = n > 0 && s[0] == '-';
    if (n > 0 && (s[0] == '-' || s[0] == '+')) {
        s++;
        n--;
    }
    int64_t value = 0;
    bool huge = false;
    size_t at = 0;
    while (at < n) {
        uint32_t cp = 0;
        size_t len = dr_py_utf8_next(s + at, n - at, &cp);
        int digit = len == 0 ? -1 : digit_value(cp);
        if (digit < 0) {
            return false;
        }
        huge = huge || value > (INT64_MAX - digit) / 10;
        value = huge ? value : value * 10 + digit;
        at += len;
    }
    if (at == 0) {
        return false;
    }
    value = huge ? INT64_MAX : value;
    *out = negative ? (huge ? INT64_MIN : -value) : value;
    return true;
}
