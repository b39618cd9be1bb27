/*
 * Paging in a terminal. The keyboard is read without echo and line by line as long as it lasts; a
 * terminal that does not answer, or goes away, ends the waiting.
 */
#include "apps/debug_dataset.h"
#include "image/terminal_picture.h"

#include "data/epoch_plan.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { ANSWER_MS = 1000, SEQUENCE_MS = 50, TEXT_ROWS = 8 };

typedef enum key { KEY_NEXT, KEY_BACK, KEY_END, KEY_OTHER } key;

bool dr_debug_has_terminal(void)
{
    const char *term = getenv("TERM");
    return isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0 && term != NULL &&
           term[0] != '\0' && strcmp(term, "dumb") != 0;
}

/* Bytes from the keyboard; 0 when none come in time, -1 when it is gone. timeout_ms -1: waits. */
static int read_some(char *buf, size_t size, int timeout_ms)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = poll(&p, 1, timeout_ms);
    if (ready == 0) {
        return 0;
    }
    if (ready < 0) {
        return errno == EINTR ? 0 : -1;
    }
    ssize_t n = (p.revents & POLLIN) != 0 ? read(STDIN_FILENO, buf, size) : 0;
    return n > 0 ? (int)n : -1;
}

static dr_terminal_kind ask_terminal(void)
{
    char answer[512];
    size_t n = 0;
    (void)fputs(DR_TERMINAL_QUERY, stdout);
    (void)fflush(stdout);
    while (n < sizeof answer && !dr_terminal_answer_ends(answer, n)) {
        int got = read_some(answer + n, sizeof answer - n, ANSWER_MS);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    return dr_terminal_kind_of(answer, n);
}

static key read_key(void)
{
    char c = 0;
    int got = 0;
    do {
        got = read_some(&c, 1, -1);
    } while (got == 0);
    if (got < 0 || c == 'q' || c == 'Q' || c == 4) {
        return KEY_END;
    }
    if (c != '\033') {
        return c == 'b' || c == 'p' || c == 127                 ? KEY_BACK
               : c == ' ' || c == 'n' || c == '\r' || c == '\n' ? KEY_NEXT
                                                                : KEY_OTHER;
    }
    char rest[16];
    got = read_some(rest, sizeof rest,
                    SEQUENCE_MS); /* arrows: ESC [ C; Esc alone is followed by nothing */
    if (got < 2 || rest[0] != '[') {
        return KEY_END;
    }
    return rest[1] == 'C' || rest[1] == 'B'   ? KEY_NEXT
           : rest[1] == 'D' || rest[1] == 'A' ? KEY_BACK
                                              : KEY_OTHER;
}

static dr_status show(const dr_debug_view *v, uint32_t i, dr_terminal_kind kind)
{
    struct winsize size = {0};
    const char *color = getenv("COLORTERM");
    bool true_color =
        color != NULL && (strcmp(color, "truecolor") == 0 || strcmp(color, "24bit") == 0);
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
        size = (struct winsize){.ws_col = 80, .ws_row = 24};
    }
    int rows = size.ws_row > TEXT_ROWS + 4 ? size.ws_row - TEXT_ROWS : 4;
    dr_image img = {0};
    dr_str out = {0};
    dr_str text = {0};
    dr_status st = dr_debug_sample(v, i, &img, &text);
    dr_str_add(&out, "\033[2J\033[H");
    if (st == DR_OK) {
        st = dr_terminal_picture(&img, kind, size.ws_col, rows, true_color, &out);
    }
    if (st == DR_OK) {
        dr_str_printf(&out, "%lu of %lu samples of epoch 1; space: next, b: back, Esc: end\n%s\n",
                      (unsigned long)i + 1, (unsigned long)v->plan->n_samples, dr_str_get(&text));
        (void)fwrite(dr_str_get(&out), 1, out.len, stdout);
        (void)fflush(stdout);
    }
    dr_image_free(&img);
    dr_str_free(&text);
    dr_str_free(&out);
    return st;
}

dr_status dr_debug_page(const dr_debug_view *v)
{
    struct termios before;
    if (tcgetattr(STDIN_FILENO, &before) != 0) {
        DR_FAIL(DR_IO, "the terminal's settings cannot be read: %s", strerror(errno));
    }
    struct termios raw = before; /* Ctrl-C goes on to end the program */
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    dr_terminal_kind kind = ask_terminal();
    dr_status st = DR_OK;
    for (uint32_t i = 0; st == DR_OK && i < v->plan->n_samples;) {
        st = show(v, i, kind);
        key k = KEY_OTHER;
        while (st == DR_OK && k == KEY_OTHER) {
            k = read_key();
        }
        if (k == KEY_END) {
            break;
        }
        i = k == KEY_BACK ? (i > 0 ? i - 1 : 0) : i + 1;
    }
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    return st;
}
