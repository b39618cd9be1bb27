#include "base/file.h"
#include "data/folders_internal.h"
#include "data/pytext.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CAPTION_BYTES = 1 << 20 }; /* a caption is a line; more is another kind of file */

/* Bytes of a double-byte character at s[i] in Shift-JIS and in GBK; 1 for single bytes, 0: none. */
static size_t shift_jis_length(const unsigned char *s, size_t n, size_t i)
{
    if (s[i] < 0x80 || (s[i] >= 0xa1 && s[i] <= 0xdf)) {
        return 1;
    }
    bool lead = (s[i] >= 0x81 && s[i] <= 0x9f) || (s[i] >= 0xe0 && s[i] <= 0xfc);
    bool pair = lead && i + 1 < n && s[i + 1] >= 0x40 && s[i + 1] <= 0xfc && s[i + 1] != 0x7f;
    return pair ? 2 : 0;
}

static size_t gbk_length(const unsigned char *s, size_t n, size_t i)
{
    if (s[i] < 0x80) {
        return 1;
    }
    bool pair = s[i] >= 0x81 && s[i] <= 0xfe && i + 1 < n && s[i + 1] >= 0x40 && s[i + 1] <= 0xfe &&
                s[i + 1] != 0x7f;
    return pair ? 2 : 0;
}

/*
 * Which of the two East Asian encodings fits better, or NULL. Both have room for nearly every pair
 * of high bytes, so the ranges that their everyday text fills are counted: kana and common kanji
 * (leads 0x82, 0x83, 0x88..0x9f) against the characters of GB 2312 (both bytes from 0xa1 on).
 */
static const char *guess_east_asian(const unsigned char *s, size_t n)
{
    size_t japanese = 0;
    size_t chinese = 0;
    bool is_jis = true;
    bool is_gbk = true;
    for (size_t i = 0; i < n && is_jis;) {
        size_t k = shift_jis_length(s, n, i);
        is_jis = k > 0;
        japanese += k == 2 && (s[i] == 0x82 || s[i] == 0x83 || (s[i] >= 0x88 && s[i] <= 0x9f));
        i += k;
    }
    for (size_t i = 0; i < n && is_gbk;) {
        size_t k = gbk_length(s, n, i);
        is_gbk = k > 0;
        chinese += k == 2 && s[i] >= 0xa1 && s[i] <= 0xf7 && s[i + 1] >= 0xa1;
        i += k;
    }
    if (is_jis && japanese > 0 && (!is_gbk || japanese >= chinese)) {
        return "SHIFT_JIS";
    }
    return is_gbk ? "GBK" : is_jis ? "SHIFT_JIS" : NULL;
}

static const char *guess_encoding(const unsigned char *s, size_t n)
{
    if (n >= 2 && s[0] == 0xff && s[1] == 0xfe) {
        return "UTF-16LE";
    }
    if (n >= 2 && s[0] == 0xfe && s[1] == 0xff) {
        return "UTF-16BE";
    }
    size_t zeros[2] = {0, 0};
    size_t pairs = 0;
    size_t high = 0;
    for (size_t i = 0; i < n; i++) {
        zeros[i % 2] += s[i] == 0;
        high += s[i] >= 0x80;
        pairs += i > 0 && s[i] >= 0x80 && s[i - 1] >= 0x80;
    }
    if (zeros[0] + zeros[1] > n / 4) {
        return zeros[1] > zeros[0] ? "UTF-16LE" : "UTF-16BE";
    }
    /* Western text has single accented letters; runs of high bytes are another script. Shift-JIS
     * mixes high bytes with trail bytes that look like ASCII, but has its kana leads. */
    const char *asian = guess_east_asian(s, n);
    bool kana = asian != NULL && strcmp(asian, "SHIFT_JIS") == 0;
    return pairs * 2 > high || (kana && high > 2) ? asian : "WINDOWS-1252";
}

static dr_status encoding_error(const char *path, const char *data, size_t n, size_t offset)
{
    const unsigned char *bytes = (const unsigned char *)data;
    const char *guess = guess_encoding(bytes, n);
    if (guess == NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: the caption is not UTF-8 (byte 0x%02x at offset %zu), and no encoding that is "
                "common for captions either; save it as UTF-8",
                path, bytes[offset], offset);
    }
    DR_FAIL(DR_FORMAT,
            "%s: the caption is not UTF-8 (byte 0x%02x at offset %zu); it looks like %s: "
            "iconv -f %s -t UTF-8 FILE > NEW",
            path, bytes[offset], offset, guess, guess);
}

/* Offset of the first byte that cannot be in a caption; n when there is none. */
static size_t first_bad_byte(const char *data, size_t n)
{
    const char *nul = memchr(data, '\0', n);
    size_t end = nul == NULL ? n : (size_t)(nul - data);
    return dr_py_utf8_check(data, end);
}

static bool has_text(const char *s, size_t n)
{
    dr_py_strip(&s, &n);
    return n > 0;
}

/* Every line that is not blank, stripped. */
static const char *join_lines(dr_arena *arena, const char *text, size_t n)
{
    dr_str all = {0};
    for (const char *end = text + n; text < end;) {
        size_t line = strcspn(text, "\r\n");
        const char *next = text + line + 1;
        dr_py_strip(&text, &line);
        if (line > 0) {
            dr_str_add(&all, all.len > 0 ? "\n" : "");
            dr_str_add_n(&all, text, line);
        }
        text = next;
    }
    const char *copy = dr_arena_strdup(arena, dr_str_get(&all));
    dr_str_free(&all);
    return copy;
}

static dr_status read_caption(dr_arena *arena, const char *path, bool all_lines,
                              dr_caption_stats *stats, const char **caption)
{
    char *data = NULL;
    size_t n = 0;
    DR_TRY(dr_file_read(path, MAX_CAPTION_BYTES, &data, &n));
    size_t bad = first_bad_byte(data, n);
    if (bad < n) {
        dr_status st = encoding_error(path, data, n, bad);
        free(data);
        return st;
    }
    const char *text = data;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        n -= 3;
    }
    if (n == 0) {
        free(data);
        DR_FAIL(DR_FORMAT,
                "%s: the caption file is empty; write a caption into it, or delete it to use the "
                "folder's class name",
                path);
    }
    if (all_lines) {
        *caption = join_lines(arena, text, n);
        free(data);
        return DR_OK;
    }
    size_t line = strcspn(text, "\r\n");
    bool more = has_text(text + line, n - line);
    const char *first = text;
    dr_py_strip(&first, &line);
    stats->n_more_lines += more && line > 0;
    stats->n_blank_first_line += more && line == 0;
    *caption = dr_arena_strndup(arena, first, line);
    free(data);
    return DR_OK;
}

/* Length of the path without its last four "_" tokens (face-detection names x_cx_cy_w_h), or 0 when
 * it has fewer than five; like sd-scripts, underscores of parent folders count. */
static size_t without_face_tokens(const char *path, size_t n)
{
    size_t found = 0;
    for (size_t i = n; i > 0; i--) {
        if (path[i - 1] == '_' && ++found == 4) {
            return i - 1;
        }
    }
    return 0;
}

static char *caption_path(const char *path, size_t n, const char *extension)
{
    dr_str s = {0};
    dr_str_add_n(&s, path, n);
    dr_str_add(&s, extension);
    return s.data;
}

dr_status dr_caption_file_find(dr_arena *arena, const char *image_path, const char *extension,
                               bool all_lines, dr_caption_stats *stats, const char **caption)
{
    const char *dot = strrchr(image_path, '.');
    DR_CHECK(dot != NULL, "%s: a picture has an extension", image_path);
    size_t stem = (size_t)(dot - image_path);
    size_t shorter = without_face_tokens(image_path, stem);
    *caption = NULL;
    char *path = caption_path(image_path, stem, extension);
    if (!dr_folders_is_file(path) && shorter > 0) {
        free(path);
        path = caption_path(image_path, shorter, extension);
    }
    dr_status st = DR_OK;
    if (dr_folders_is_file(path)) {
        st = read_caption(arena, path, all_lines, stats, caption);
    }
    free(path);
    if (st == DR_OK && *caption == NULL && strcmp(extension, ".txt") != 0) {
        path = caption_path(image_path, stem, ".txt");
        if (dr_folders_is_file(path)) {
            stats->n_txt_unused++;
            if (stats->first_txt == NULL) {
                stats->first_txt = dr_arena_strdup(arena, path);
            }
        }
        free(path);
    }
    return st;
}
