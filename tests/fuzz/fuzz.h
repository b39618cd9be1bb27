/*
 * tests/fuzz/fuzz.h - what fuzz targets share.
 *
 * A target is one file fuzz_<name>.c:
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
 *     {
 *         dr_thing *t = NULL;
 *         if (dr_thing_parse(&t, "input", data, size) == DR_OK) {
 *             ... use all of what was read, so that a wrong size shows ...
 *         }
 *         dr_thing_close(t);
 *         return 0;
 *     }
 *
 * Any status is fine; a crash, a sanitizer's report, a leak or a panic is a finding. Errors of the
 * library are cleared by nobody: the next one replaces them.
 */
#ifndef DR_TESTS_FUZZ_H
#define DR_TESTS_FUZZ_H

#include "dreamrun/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A folder of this process for code that needs paths (in TMPDIR, else /tmp), removed at exit with
 * the files in it; the same at every call. */
const char *dr_fuzz_dir(void);
/* Writes the bytes to dr_fuzz_dir()/name and returns that path, valid until the next call. */
const char *dr_fuzz_file(const char *name, const void *data, size_t size);
/* Reads every byte, so that a range that is not there shows. */
void dr_fuzz_touch(const void *data, size_t size);

#endif
