/* TOML's strings, numbers, booleans, dates and times. */
#include "io/toml_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- strings ------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void add_code_point(dr_str *s, uint32_t cp)
{
    char b[4];
    size_t n = 0;
    if (cp < 0x80) {
        b[n++] = (char)cp;
    } else if (cp < 0x800) {
        b[n++] = (char)(0xc0 | cp >> 6);
        b[n++] = (char)(0x80 | (cp & 0x3f));
    } else if (cp < 0x10000) {
        b[n++] = (char)(0xe0 | cp >> 12);
        b[n++] = (char)(0x80 | (cp >> 6 & 0x3f));
        b[n++] = (char)(0x80 | (cp & 0x3f));
    } else {
        b[n++] = (char)(0xf0 | cp >> 18);
        b[n++] = (char)(0x80 | (cp >> 12 & 0x3f));
        b[n++] = (char)(0x80 | (cp >> 6 & 0x3f));
        b[n++] = (char)(0x80 | (cp & 0x3f));
    }
    dr_str_add_n(s, b, n);
}

/* \uXXXX and \UXXXXXXXX, behind the letter. */
static dr_status take_unicode(dr_toml *t, int digits, dr_str *out)
{
    const char *begin = t->at - 2;
    uint32_t cp = 0;
    for (int i = 0; i < digits; i++) {
        int d = t->at < t->end ? hex_digit(*t->at) : -1;
        if (d < 0) {
            return dr_toml_fail(t, begin, "\\%c needs %d hexadecimal digits", begin[1], digits);
        }
        cp = cp << 4 | (uint32_t)d;
        t->at++;
    }
    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
        return dr_toml_fail(t, begin, "%.*s is not a Unicode character", digits + 2, begin);
    }
    add_code_point(out, cp);
    return DR_OK;
}

/* One escape, at its backslash; those that end a line are handled before. */
static dr_status take_escape(dr_toml *t, dr_str *out)
{
    static const char letters[] = "btnfr\"\\";
    static const char values[] = "\b\t\n\f\r\"\\";
    char name[40];
    const char *found = t->end - t->at > 1 ? strchr(letters, t->at[1]) : NULL;
    if (found != NULL && *found != '\0') {
        dr_str_add_n(out, &values[found - letters], 1);
        t->at += 2;
        return DR_OK;
    }
    if (t->end - t->at > 1 && (t->at[1] == 'u' || t->at[1] == 'U')) {
        t->at += 2;
        return take_unicode(t, t->at[-1] == 'u' ? 4 : 8, out);
    }
    dr_toml_name_char(t, t->at + 1, name);
    return dr_toml_fail(t, t->at,
                        "no escape begins with a backslash and %s; a backslash itself is written "
                        "\\\\, or use single quotes",
                        name);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* A backslash, blanks and a line end: passes them and all white space that follows. */
static bool pass_line_continuation(dr_toml *t)
{
    const char *p = t->at + 1;
    while (p < t->end && is_blank(*p)) {
        p++;
    }
    if (p == t->end || (*p != '\n' && !(*p == '\r' && p + 1 < t->end && p[1] == '\n'))) {
        return false;
    }
    t->at = p;
    while (t->at < t->end && (is_blank(*t->at) || dr_toml_newline(t))) {
        t->at += t->at < t->end && is_blank(*t->at);
    }
    return true;
}

static dr_status refuse_control(const dr_toml *t)
{
    char name[40];
    dr_toml_name_char(t, t->at, name);
    return dr_toml_fail(t, t->at, "%s is not allowed in a string", name);
}

static bool is_control(char c)
{
    return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static dr_status take_one_line(dr_toml *t, char quote, dr_str *out)
{
    const char *begin = t->at++;
    for (;;) {
        if (t->at == t->end || *t->at == '\n' || dr_toml_starts(t, "\r\n")) {
            return dr_toml_fail(t, begin, "this string has no closing %c on its line", quote);
        }
        if (*t->at == quote) {
            t->at++;
            return DR_OK;
        }
        if (*t->at == '\\' && quote == '"') {
            DR_TRY(take_escape(t, out));
            continue;
        }
        if (is_control(*t->at)) {
            return refuse_control(t);
        }
        dr_str_add_n(out, t->at++, 1);
    }
}

/* Quotes at the place, at most five: the last three close the string. */
static size_t count_quotes(const dr_toml *t, char quote)
{
    size_t n = 0;
    while (n < 5 && t->at + n < t->end && t->at[n] == quote) {
        n++;
    }
    return n;
}

static dr_status take_lines(dr_toml *t, char quote, dr_str *out)
{
    const int first_line = t->line;
    t->at += 3;
    (void)dr_toml_newline(t);
    for (;;) {
        if (t->at == t->end) {
            return dr_toml_fail(t, t->at, "the string that begins in line %d has no closing %c%c%c",
                                first_line, quote, quote, quote);
        }
        size_t quotes = count_quotes(t, quote);
        if (quotes >= 3) {
            dr_str_add_n(out, t->at, quotes - 3);
            t->at += quotes;
            return DR_OK;
        }
        if (dr_toml_newline(t)) {
            dr_str_add(out, "\n");
        } else if (*t->at == '\\' && quote == '"') {
            if (!pass_line_continuation(t)) {
                DR_TRY(take_escape(t, out));
            }
        } else if (is_control(*t->at)) {
            return refuse_control(t);
        } else {
            dr_str_add_n(out, t->at++, 1);
        }
    }
}

dr_status dr_toml_string(dr_toml *t, bool key, const char **out, size_t *n)
{
    char quote = *t->at;
    bool lines = t->end - t->at >= 3 && t->at[1] == quote && t->at[2] == quote;
    if (lines && key) {
        return dr_toml_fail(t, t->at, "a key cannot be a string of several lines");
    }
    dr_str text = {0};
    dr_str_add(&text, "");
    dr_status st = lines ? take_lines(t, quote, &text) : take_one_line(t, quote, &text);
    if (st == DR_OK) {
        *n = text.len;
        char *copy = dr_arena_alloc(t->arena, text.len + 1);
        memcpy(copy, text.data, text.len);
        *out = copy;
    }
    dr_str_free(&text);
    return st;
}

/* --- dates and times ------------------------------------------------------------------------ */

/* n digits at s as a number, or -1. */
static int digits_at(const char *s, int n)
{
    int v = 0;
    for (int i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return -1;
        }
        v = v * 10 + (s[i] - '0');
    }
    return v;
}

static bool is_date(const char *s)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = digits_at(s, 4);
    int month = year >= 0 && s[4] == '-' ? digits_at(s + 5, 2) : -1;
    int day = month >= 0 && s[7] == '-' ? digits_at(s + 8, 2) : -1;
    if (month < 1 || month > 12 || day < 1) {
        return false;
    }
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return day <= days[month - 1] + (month == 2 && leap);
}

/* hh:mm with both in range. */
static bool is_minute(const char *s)
{
    int hour = digits_at(s, 2);
    int minute = hour >= 0 && s[2] == ':' ? digits_at(s + 3, 2) : -1;
    return hour >= 0 && hour <= 23 && minute >= 0 && minute <= 59;
}

/* hh:mm:ss with a fraction; its length, or 0. */
static size_t time_length(const char *s)
{
    if (!is_minute(s) || s[5] != ':' || digits_at(s + 6, 2) < 0 || digits_at(s + 6, 2) > 59) {
        return 0;
    }
    size_t n = 8;
    if (s[n] == '.') {
        size_t digits = strspn(s + n + 1, "0123456789");
        n = digits > 0 ? n + 1 + digits : 0;
    }
    return n;
}

static bool is_offset(const char *s)
{
    return strcmp(s, "Z") == 0 || strcmp(s, "z") == 0 ||
           ((s[0] == '+' || s[0] == '-') && is_minute(s + 1) && s[6] == '\0');
}

/* A date, a time, or both; the text is terminated. */
static bool is_date_time(const char *s)
{
    if (!is_date(s)) {
        size_t n = time_length(s);
        return n > 0 && s[n] == '\0';
    }
    if (s[10] == '\0') {
        return true;
    }
    size_t n = s[10] == 'T' || s[10] == 't' || s[10] == ' ' ? time_length(s + 11) : 0;
    return n > 0 && (s[11 + n] == '\0' || is_offset(s + 11 + n));
}

static bool looks_like_time(const char *s, size_t n)
{
    return (n >= 5 && digits_at(s, 4) >= 0 && s[4] == '-') ||
           (n >= 3 && digits_at(s, 2) >= 0 && s[2] == ':');
}

/* --- numbers -------------------------------------------------------------------------------- */

/* Digits of the base with single underscores between them; copies the digits. */
static const char *take_digits(const char *s, int base, dr_str *out)
{
    const char *begin = s;
    for (;;) {
        int d = hex_digit(*s);
        if (d < 0 || d >= base) {
            bool between = *s == '_' && s > begin && s[-1] != '_';
            if (!between) {
                break;
            }
        } else {
            dr_str_add_n(out, s, 1);
        }
        s++;
    }
    return s > begin && s[-1] != '_' ? s : NULL;
}

static bool take_based(const char *s, dr_config_value *v, bool *too_big)
{
    int base = s[1] == 'x' ? 16 : s[1] == 'o' ? 8 : 2;
    dr_str digits = {0};
    const char *end = take_digits(s + 2, base, &digits);
    bool good = end != NULL && *end == '\0';
    if (good) {
        errno = 0;
        v->kind = DR_CONFIG_INT;
        v->i = strtoll(dr_str_get(&digits), NULL, base);
        *too_big = errno == ERANGE;
    }
    dr_str_free(&digits);
    return good;
}

/* Fraction and exponent of a float behind its whole part; NULL: malformed. */
static const char *take_rest_of_float(const char *s, dr_str *out)
{
    if (*s == '.') {
        dr_str_add(out, ".");
        s = take_digits(s + 1, 10, out);
    }
    if (s != NULL && (*s == 'e' || *s == 'E')) {
        dr_str_add(out, "e");
        s++;
        if (*s == '+' || *s == '-') {
            dr_str_add_n(out, s++, 1);
        }
        s = take_digits(s, 10, out);
    }
    return s;
}

static bool take_decimal(const char *s, dr_config_value *v, bool *too_big)
{
    dr_str digits = {0};
    dr_str_add_n(&digits, s, *s == '-' || *s == '+');
    const char *begin = s + (*s == '-' || *s == '+');
    const char *end = take_digits(begin, 10, &digits);
    bool good = end != NULL && !(begin[0] == '0' && end > begin + 1);
    if (good && *end == '\0') {
        errno = 0;
        v->kind = DR_CONFIG_INT;
        v->i = strtoll(dr_str_get(&digits), NULL, 10);
        *too_big = errno == ERANGE;
    } else if (good) {
        end = take_rest_of_float(end, &digits);
        good = end != NULL && *end == '\0';
        v->kind = DR_CONFIG_REAL;
        v->f = good ? strtod(dr_str_get(&digits), NULL) : 0.0;
    }
    dr_str_free(&digits);
    return good;
}

static bool take_word(const char *s, dr_config_value *v)
{
    const char *word = s + (*s == '-' || *s == '+');
    if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0) {
        v->kind = DR_CONFIG_BOOL;
        v->i = s[0] == 't';
        return true;
    }
    v->kind = DR_CONFIG_REAL;
    v->f = strcmp(word, "inf") == 0 ? (double)INFINITY : (double)NAN;
    v->f = *s == '-' ? -v->f : v->f;
    return strcmp(word, "inf") == 0 || strcmp(word, "nan") == 0;
}

/* --- all of them ------------------------------------------------------------------------------ */

static bool is_bare(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
           (c != '\0' && strchr("_+-.:", c) != NULL);
}

/* Length of the word at the place; a date takes in the time behind one blank. */
static size_t word_length(const dr_toml *t)
{
    const char *p = t->at;
    while (p < t->end && is_bare(*p)) {
        p++;
    }
    bool date = p - t->at == 10 && t->at[4] == '-' && looks_like_time(t->at, 10);
    if (date && t->end - p >= 4 && *p == ' ' && digits_at(p + 1, 2) >= 0 && p[3] == ':') {
        p++;
        while (p < t->end && is_bare(*p)) {
            p++;
        }
    }
    return (size_t)(p - t->at);
}

static dr_status refuse_word(const dr_toml *t, const char *word)
{
    char name[40];
    if (word[0] == '\0') {
        dr_toml_name_char(t, t->at, name);
        return dr_toml_fail(t, t->at, "expected a value, found %s", name);
    }
    if (looks_like_time(word, strlen(word))) {
        return dr_toml_fail(t, t->at,
                            "%s is no date or time; expected 2024-12-31, 23:59:59, or both as "
                            "2024-12-31T23:59:59Z",
                            word);
    }
    size_t sign = word[0] == '-' || word[0] == '+';
    if (word[sign] == '0' && word[sign + 1] >= '0' && word[sign + 1] <= '9') {
        return dr_toml_fail(t, t->at, "%s: numbers have no leading zeros", word);
    }
    if (strchr("0123456789.", word[sign]) != NULL && word[sign] != '\0') {
        return dr_toml_fail(t, t->at, "%s is no number", word);
    }
    if (strcmp(word, "True") == 0 || strcmp(word, "False") == 0) {
        return dr_toml_fail(t, t->at, "%s: TOML writes true and false in small letters", word);
    }
    return dr_toml_fail(t, t->at, "%s is no value; text stands in quotes: \"%s\"", word, word);
}

dr_status dr_toml_scalar(dr_toml *t, dr_config_value *v)
{
    size_t n = word_length(t);
    char *word = dr_arena_strndup(t->arena, t->at, n);
    bool too_big = false;
    bool based = n > 2 && word[0] == '0' && strchr("xob", word[1]) != NULL;
    bool good = n > 0;
    if (good && looks_like_time(word, n)) {
        v->kind = DR_CONFIG_TIME;
        v->text = word;
        v->n = n;
        good = is_date_time(word);
    } else if (good) {
        good = based ? take_based(word, v, &too_big)
                     : take_word(word, v) || take_decimal(word, v, &too_big);
    }
    if (!good) {
        return refuse_word(t, n > 60 ? dr_arena_printf(t->arena, "%.60s...", word) : word);
    }
    if (too_big) {
        return dr_toml_fail(t, t->at, "%.60s does not fit into 64 bits", word);
    }
    if (v->kind == DR_CONFIG_INT) {
        v->f = (double)v->i;
    }
    t->at += n;
    return DR_OK;
}
