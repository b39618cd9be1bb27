#include "image/terminal_picture.h"

#include "image/resize.h"

#include <string.h>

enum { CELL_W = 8, CELL_H = 16, KITTY_CHUNK = 4096, LEVELS = 6 };

/* ---- what the terminal said ---- */

/* The attributes "ESC [ ? numbers c" in the answer, or NULL. */
static const char *find_attributes(const char *answer, size_t n, size_t *len)
{
    for (size_t i = 0; i + 3 < n; i++) {
        if (memcmp(answer + i, "\033[?", 3) != 0) {
            continue;
        }
        size_t end = i + 3;
        while (end < n && (answer[end] == ';' || (answer[end] >= '0' && answer[end] <= '9'))) {
            end++;
        }
        if (end < n && answer[end] == 'c') {
            *len = end - i - 3;
            return answer + i + 3;
        }
    }
    return NULL;
}

bool dr_terminal_answer_ends(const char *answer, size_t n)
{
    size_t len = 0;
    return find_attributes(answer, n, &len) != NULL;
}

dr_terminal_kind dr_terminal_kind_of(const char *answer, size_t n)
{
    static const char yes[] = "\033_Gi=31;OK";
    size_t len = 0;
    for (size_t i = 0; i + sizeof yes - 1 <= n; i++) {
        if (memcmp(answer + i, yes, sizeof yes - 1) == 0) {
            return DR_TERMINAL_KITTY;
        }
    }
    const char *at = find_attributes(answer, n, &len);
    for (size_t i = 0; at != NULL && i < len; i++) { /* attribute 4: sixels */
        bool starts = i == 0 || at[i - 1] == ';';
        bool ends = i + 1 == len || at[i + 1] == ';';
        if (at[i] == '4' && starts && ends) {
            return DR_TERMINAL_SIXEL;
        }
    }
    return DR_TERMINAL_BLOCKS;
}

/* ---- the three ways ---- */

static void add_kitty(const dr_image *img, dr_str *out)
{
    size_t n = (size_t)img->width * (size_t)img->height * 3;
    size_t piece = KITTY_CHUNK / 4 * 3;
    for (size_t at = 0; at < n; at += piece) {
        size_t len = n - at < piece ? n - at : piece;
        dr_str_add(out, "\033_G");
        if (at == 0) {
            dr_str_printf(out, "a=T,f=24,q=2,s=%d,v=%d,", img->width, img->height);
        }
        dr_str_printf(out, "m=%d;", at + len < n ? 1 : 0);
        dr_str_add_base64(out, img->pixels + at, len);
        dr_str_add(out, "\033\\");
    }
    dr_str_add(out, "\n");
}

/* Level 0..5 of a channel, by ordered dithering (Bayer's 4 x 4 matrix). */
static int dithered(unsigned char v, int x, int y)
{
    static const int bayer[4][4] = {{0, 8, 2, 10}, {12, 4, 14, 6}, {3, 11, 1, 9}, {15, 7, 13, 5}};
    int scaled = v * (LEVELS - 1) * 16 + 255 * bayer[y % 4][x % 4];
    int level = scaled / (255 * 16);
    return level < LEVELS ? level : LEVELS - 1;
}

/* Sixels of one colour in one band of six rows, runs shortened. */
static void add_sixel_row(const unsigned char *colors, int width, int rows, int color, dr_str *out)
{
    int run = 0;
    int last = -1;
    dr_str_printf(out, "#%d", color);
    for (int x = 0; x <= width; x++) {
        int bits = 0;
        for (int y = 0; x < width && y < rows; y++) {
            bits |= (colors[y * width + x] == color ? 1 : 0) << y;
        }
        if (x < width && bits == last) {
            run++;
            continue;
        }
        if (run > 3) {
            dr_str_printf(out, "!%d%c", run, (char)(63 + last));
        } else {
            for (int i = 0; i < run; i++) {
                dr_str_printf(out, "%c", (char)(63 + last));
            }
        }
        last = bits;
        run = 1;
    }
}

static dr_status add_sixel(const dr_image *img, dr_str *out)
{
    enum { BAND = 6, COLORS = LEVELS * LEVELS * LEVELS };
    dr_image band = {0};
    DR_TRY(dr_image_alloc(&band, img->width, BAND)); /* holds colour numbers */
    dr_str_printf(out, "\033Pq\"1;1;%d;%d", img->width, img->height);
    for (int c = 0; c < COLORS; c++) {
        dr_str_printf(out, "#%d;2;%d;%d;%d", c, c / 36 * 20, c / 6 % 6 * 20, c % 6 * 20);
    }
    for (int top = 0; top < img->height; top += BAND) {
        int rows = img->height - top < BAND ? img->height - top : BAND;
        bool used[COLORS] = {false};
        for (int y = 0; y < rows; y++) {
            for (int x = 0; x < img->width; x++) {
                const unsigned char *p =
                    img->pixels + ((size_t)(top + y) * (size_t)img->width + (size_t)x) * 3;
                int c = 36 * dithered(p[0], x, top + y) + 6 * dithered(p[1], x, top + y) +
                        dithered(p[2], x, top + y);
                band.pixels[y * img->width + x] = (unsigned char)c;
                used[c] = true;
            }
        }
        for (int c = 0; c < COLORS; c++) {
            if (used[c]) {
                add_sixel_row(band.pixels, img->width, rows, c, out);
                dr_str_add(out, "$");
            }
        }
        dr_str_add(out, "-");
    }
    dr_str_add(out, "\033\\\n");
    dr_image_free(&band);
    return DR_OK;
}

static void add_color(const unsigned char *p, int ground, bool true_color, dr_str *out)
{
    if (true_color) {
        dr_str_printf(out, "\033[%d;2;%d;%d;%dm", ground, p[0], p[1], p[2]);
        return;
    }
    int level[3];
    for (int i = 0; i < 3; i++) { /* xterm's cube: 0 95 135 175 215 255 */
        level[i] = p[i] < 48 ? 0 : p[i] < 115 ? 1 : (p[i] - 35) / 40;
    }
    dr_str_printf(out, "\033[%d;5;%dm", ground, 16 + 36 * level[0] + 6 * level[1] + level[2]);
}

/* Two rows of pixels a line: the upper half block in the foreground, the lower as background. */
static void add_blocks(const dr_image *img, bool true_color, dr_str *out)
{
    size_t stride = (size_t)img->width * 3;
    for (int y = 0; y < img->height; y += 2) {
        for (int x = 0; x < img->width; x++) {
            const unsigned char *p = img->pixels + (size_t)y * stride + (size_t)x * 3;
            add_color(p, 38, true_color, out);
            if (y + 1 < img->height) {
                add_color(p + stride, 48, true_color, out);
            }
            dr_str_add(out, "\xe2\x96\x80");
        }
        dr_str_add(out, "\033[0m\n");
    }
}

dr_status dr_terminal_picture(const dr_image *img, dr_terminal_kind kind, int columns, int rows,
                              bool true_color, dr_str *out)
{
    bool blocks = kind == DR_TERMINAL_BLOCKS;
    double room_w = blocks ? columns : columns * CELL_W;
    double room_h = blocks ? rows * 2 : rows * CELL_H;
    double scale =
        room_w / img->width < room_h / img->height ? room_w / img->width : room_h / img->height;
    scale = scale < 1.0 ? scale : 1.0;
    int w = (int)(img->width * scale);
    int h = (int)(img->height * scale);
    dr_image small = {0};
    DR_TRY(dr_image_resize(img, w > 0 ? w : 1, h > 0 ? h : 1, DR_RESIZE_AUTO, &small));
    dr_status st = DR_OK;
    if (kind == DR_TERMINAL_KITTY) {
        add_kitty(&small, out);
    } else if (kind == DR_TERMINAL_SIXEL) {
        st = add_sixel(&small, out);
    } else {
        add_blocks(&small, true_color, out);
    }
    dr_image_free(&small);
    return st;
}
