#include "image/image_internal.h"

#include <limits.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

typedef struct png_job {
    const dr_image_bytes *in;
    size_t at; /* next byte of in */
    png_structp png;
    png_infop info;
    char message[160];
} png_job;

static unsigned long read_u32(const unsigned char *p)
{
    return (unsigned long)p[0] << 24 | (unsigned long)p[1] << 16 | (unsigned long)p[2] << 8 | p[3];
}

/* Signature (8), length and name of IHDR (8), width (4), height (4). */
dr_status dr_png_probe(const dr_image_bytes *in, dr_image_info *info)
{
    if (in->size < 24) {
        DR_FAIL(DR_FORMAT, "%s: truncated PNG: the file ends after %zu bytes; %s", in->path,
                in->size, DR_IMAGE_RESAVE);
    }
    unsigned long width = read_u32(in->data + 16);
    unsigned long height = read_u32(in->data + 20);
    if (memcmp(in->data + 12, "IHDR", 4) != 0 || width > INT_MAX || height > INT_MAX) {
        DR_FAIL(DR_FORMAT, "%s: damaged PNG: no valid header chunk; %s", in->path, DR_IMAGE_RESAVE);
    }
    *info = (dr_image_info){.format = DR_IMAGE_PNG, .width = (int)width, .height = (int)height};
    return DR_OK;
}

static void jump_out(png_structp png, png_const_charp message)
{
    png_job *job = png_get_error_ptr(png);
    (void)snprintf(job->message, sizeof job->message, "%s", message);
    png_longjmp(png, 1);
}

/* libpng warns about metadata (profiles, gamma, text) that this program does not use. */
static void drop_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void give_bytes(png_structp png, png_bytep to, size_t n)
{
    png_job *job = png_get_io_ptr(png);
    if (n > job->in->size - job->at) {
        png_error(png, "the file ends too early");
    }
    memcpy(to, job->in->data + job->at, n);
    job->at += n;
}

/* Every kind of PNG to 8-bit RGB, as Pillow's convert("RGB"): see dr_image_load. */
static void choose_output(png_structp png)
{
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    png_set_gray_to_rgb(png);
}

/* The only function that libpng jumps back into; everything it changes lives in job and out. */
static dr_status run(png_job *job, const dr_image_info *info, dr_image *out)
{
    const dr_image_bytes *in = job->in;
    if (setjmp(png_jmpbuf(job->png)) != 0) {
        DR_FAIL(DR_FORMAT, "%s: damaged or truncated PNG: %s (%zu bytes, %d x %d pixels); %s",
                in->path, job->message, in->size, info->width, info->height, DR_IMAGE_RESAVE);
    }
    png_set_read_fn(job->png, job, give_bytes);
    png_set_user_limits(job->png, INT_MAX, INT_MAX); /* the pixel limit was checked already */
    png_set_crc_action(job->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_read_info(job->png, job->info);
    choose_output(job->png);
    int passes = png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    size_t row_bytes = (size_t)info->width * 3;
    DR_CHECK(png_get_rowbytes(job->png, job->info) == row_bytes, "%s: %zu bytes per row, not %zu",
             in->path, png_get_rowbytes(job->png, job->info), row_bytes);
    DR_TRY(dr_image_alloc(out, info->width, info->height));
    for (int pass = 0; pass < passes; pass++) {
        for (int y = 0; y < info->height; y++) {
            png_read_row(job->png, out->pixels + (size_t)y * row_bytes, NULL);
        }
    }
    png_read_end(job->png, NULL);
    return DR_OK;
}

dr_status dr_png_decode(const dr_image_bytes *in, const dr_image_info *info, dr_image *out)
{
    png_job job = {.in = in};
    job.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, jump_out, drop_warning);
    job.info = job.png != NULL ? png_create_info_struct(job.png) : NULL;
    if (job.info == NULL) {
        png_destroy_read_struct(&job.png, NULL, NULL);
        DR_FAIL(DR_NOMEM, "%s: not enough memory to start the PNG decoder", in->path);
    }
    dr_status st = run(&job, info, out);
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return st;
}
