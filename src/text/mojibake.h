/*
 * text/mojibake.h - repair of text that was decoded in the wrong encoding.
 *
 * Layer:    text (private).
 * Source:   behaviour of ftfy 6.3 (Robyn Speer, Apache-2.0): fix_encoding with its defaults.
 */
#ifndef DR_TEXT_MOJIBAKE_H
#define DR_TEXT_MOJIBAKE_H

#include "text/codepoints.h"

/* Replaces UTF-8 that was read as Latin-1, Windows-125x, ISO 8859-2, MacRoman or CP437 by the text
 * that was meant, as often as it helps. Text that does not look broken stays as it is. */
void dr_text_fix_encoding(dr_codepoints *text);

#endif
