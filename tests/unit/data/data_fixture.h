/*
 * tests/unit/data/data_fixture.h - folders of pretend pictures for the tests of data.
 *
 * A picture is a text file "WIDTH HEIGHT"; fixture_probe reads it. Everything else is an error of
 * status DR_FORMAT, as dr_image_probe would give it.
 */
#ifndef DR_DATA_FIXTURE_H
#define DR_DATA_FIXTURE_H

#include "data/dataset.h"

/* A fresh folder below the test's temporary one; the caller frees the path. */
char *fixture_root(const char *name);
/* Writes root/path with its parent folders. */
void fixture_write(const char *root, const char *path, const void *data, size_t n);
void fixture_text(const char *root, const char *path, const char *text);
dr_status fixture_probe(const char *path, const dr_image_options *o, dr_size_px *out);
/* Options for root/train (and root/reg if with_reg), caption extension ".txt". */
dr_dataset_options fixture_options(dr_arena *arena, const char *root, bool with_reg);

#endif
