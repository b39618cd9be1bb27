/*
 * image/png_write.h - PNG files out (sample pictures), and grids of pictures.
 *
 * Layer:    image.
 * Errors:   DR_OUTPUT, DR_IO (disk full, ...), DR_NOMEM, DR_INVALID (a text that PNG cannot hold).
 */
#ifndef DR_IMAGE_PNG_WRITE_H
#define DR_IMAGE_PNG_WRITE_H

#include "image/image.h"

typedef struct dr_png_text {
    const char *key;   /* 1 to 79 printable ASCII characters: "parameters", "Software" */
    const char *value; /* UTF-8; what is not ASCII goes into an iTXt chunk, else tEXt */
} dr_png_text;

/* Writes an 8-bit RGB PNG that appears whole or not at all (base/file.h). texts may be NULL when
 * n_texts is 0. The bytes depend on pixels and texts alone (and on the zlib version). */
DR_MUST_USE dr_status dr_png_write(const char *path, const dr_image *img, const dr_png_text *texts,
                                   int n_texts);

/*
 * Pictures side by side, row by row, black lines of pad pixels around and between them. Cells have
 * the size of the largest width and height; smaller pictures lie in their cell's top left corner.
 * n >= 1, columns >= 1, pad >= 0. out is owned by the caller.
 */
DR_MUST_USE dr_status dr_image_grid(const dr_image *images, int n, int columns, int pad,
                                    dr_image *out);

#endif
