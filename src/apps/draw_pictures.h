/*
 * apps/draw_pictures.h - synthetic training pictures: simple shapes on plain backgrounds.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_DRAW_PICTURES_H
#define DR_APPS_DRAW_PICTURES_H

#include "dreamrun/status.h"

typedef struct dr_picture_set {
    const char *dir;
    int n, size;   /* pictures; longer side in pixels */
    uint64_t seed; /* a picture depends on seed, its number, size and subject alone */
    bool subject;  /* a red ring with a blue square, else other shapes in other colours */
} dr_picture_set;

/* Writes dir/00.png, ... (dir is made if missing), and 00.caption for every second one. Errors: as
 * dr_png_write, dr_file_write, dr_mkdirs. */
DR_MUST_USE dr_status dr_picture_set_write(const dr_picture_set *set);

#endif
