#include "base/file.h"
#include "data/folders_internal.h"
#include "data/pytext.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CAPTION_BYTES = 1 << 20 }; /* a caption is a line; more is another kind of file */

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
    /* Western text has single accented letters; runs of high bytes are another script. */
    return pairs * 2 > high ? NULL : "WINDOWS-1252";
}

static dr_status encoding_error(const char *path, const char *data, size_t n, size_t offset)
{
    const unsigned char *bytes = (const unsigned char *)data;
    const char *guess = guess_encoding(bytes, n);
    if (guess == NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: the caption is not UTF-8 (byte 0x%02x at offset %zu); save it as UTF-8 "
                "(perhaps it is SHIFT_JIS, GB18030 or another local encoding; iconv converts)",
                path, bytes[offset], offset);
    }
    DR_FAIL(DR_FORMAT,
            "%s: the caption is not UTF-8 (byte 0x%02x at offset %zu); it looks like %s: "
            "iconv -f %s -t UTF-8",
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

static dr_status read_caption(dr_arena *arena, const char *path, dr_caption_stats *stats,
                              const char **caption)
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
                               dr_caption_stats *stats, const char **caption)
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
        st = read_caption(arena, path, stats, caption);
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
