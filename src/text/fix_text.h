/*
 * text/fix_text.h - cleaning of captions before tokenization, as ftfy.fix_text does by default.
 *
 * Layer:    text (private).
 * Source:   behaviour of ftfy 6.3 (Robyn Speer, Apache-2.0), which CLIPTokenizer calls.
 */
#ifndef DR_TEXT_FIX_TEXT_H
#define DR_TEXT_FIX_TEXT_H

#include "text/codepoints.h"

/* Line by line: HTML entities (up to the first line that holds "<"), wrong encodings, C1 controls,
 * Latin ligatures, full and half width, curly quotes, line breaks, terminal escapes, control
 * characters, NFC; repeated until nothing changes. */
void dr_text_fix(dr_codepoints *text);

#endif
