/*
 * data/pytext.h - the few rules of Python's str that folder names and captions depend on.
 *
 * Layer:    data.  Strings are (pointer, length); nothing is allocated.
 * Source:   CPython's int(), str.strip(), str.split(); Unicode 14.0 (CPython 3.11) for the digits.
 *           tests/interop/data_peers.py compares with the running Python.
 */
#ifndef DR_DATA_PYTEXT_H
#define DR_DATA_PYTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed UTF-8 sequence at s (n bytes are readable) and its code point; 0 when
 * there is none. */
size_t dr_py_utf8_next(const char *s, size_t n, uint32_t *cp);
/* Offset of the first byte that is not UTF-8; n when there is none. */
size_t dr_py_utf8_check(const char *s, size_t n);
/* str.strip(): narrows the string to what stands between Unicode white space. */
void dr_py_strip(const char **s, size_t *n);
/* int(text): sign, Unicode digits, surrounding white space; saturates at the limits of int64_t.
 * False when Python would raise ValueError. Digit groups with "_" are not accepted. */
bool dr_py_int(const char *s, size_t n, int64_t *out);

#endif
