/*
 * image/terminal_picture.h - pictures as text that terminals show.
 *
 * Layer:    image.
 * Threads:  no shared state.
 */
#ifndef DR_IMAGE_TERMINAL_PICTURE_H
#define DR_IMAGE_TERMINAL_PICTURE_H

#include "base/str.h"
#include "image/image.h"

typedef enum dr_terminal_kind {
    DR_TERMINAL_BLOCKS, /* half blocks in colours: any terminal with UTF-8 */
    DR_TERMINAL_SIXEL,  /* DEC's sixels: 216 colours, dithered */
    DR_TERMINAL_KITTY   /* kitty's graphics protocol: all colours */
} dr_terminal_kind;

/* Asks for a kitty answer, then for the terminal's attributes, which every terminal tells. */
#define DR_TERMINAL_QUERY "\033_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\033\\\033[c"
/* Whether the answer is complete: it holds the attributes, ESC [ ? ... c. */
bool dr_terminal_answer_ends(const char *answer, size_t n);
/* What a terminal that gave this answer can show; blocks for no answer. */
dr_terminal_kind dr_terminal_kind_of(const char *answer, size_t n);

/*
 * Appends the picture, at most columns x rows cells large, and a line feed. true_color: blocks in
 * 24-bit colours, else the 256 of xterm. Errors: DR_NOMEM.
 */
DR_MUST_USE dr_status dr_terminal_picture(const dr_image *img, dr_terminal_kind kind, int columns,
                                          int rows, bool true_color, dr_str *out);

#endif
