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

/* Goes through the chunks: length, name, data, CRC. eXIf may stand before or behind the pixels. */
static int find_orientation(const dr_image_bytes *in)
{
    size_t at = 8;
    while (in->size - at >= 12) {
        size_t length = dr_be32(in->data + at);
        if (length > in->size - at - 12) {
            return 1;
        }
        if (memcmp(in->data + at + 4, "eXIf", 4) == 0) {
            return dr_exif_orientation(in->data + at + 8, length);
        }
        at += 12 + length;
    }
    return 1;
}

/* Signature (8), length and name of IHDR (8), width (4), height (4). */
dr_status dr_png_probe(const dr_image_bytes *in, dr_image_info *info)
{
    if (in->size < 24) {
        DR_FAIL(DR_FORMAT, "%s: truncated PNG: the file ends after %zu bytes; %s", in->path,
                in->size, DR_IMAGE_RESAVE);
    }
    uint32_t width = dr_be32(in->data + 16);
    uint32_t height = dr_be32(in->data + 20);
    if (memcmp(in->data + 12, "IHDR", 4) != 0 || width > INT_MAX || height > INT_MAX) {
        DR_FAIL(DR_FORMAT, "%s: damaged PNG: no valid header chunk; %s", in->path, DR_IMAGE_RESAVE);
    }
    *info = (dr_image_info){.format = DR_IMAGE_PNG,
                            .width = (int)width,
                            .height = (int)height,
                            .orientation = find_orientation(in)};
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

/* Gray or RGB, with or without alpha, 8 or 16 bits; palettes become RGB, tRNS becomes alpha. */
static dr_status choose_output(png_job *job, const dr_image_info *info, dr_raster *out)
{
    const uint16_t one = 1;
    bool little_endian = *(const unsigned char *)&one == 1;
    png_byte kind = png_get_color_type(job->png, job->info);
    bool gray = kind == PNG_COLOR_TYPE_GRAY || kind == PNG_COLOR_TYPE_GRAY_ALPHA;
    bool trns = png_get_valid(job->png, job->info, PNG_INFO_tRNS) != 0;
    out->clips = kind == PNG_COLOR_TYPE_GRAY;
    png_set_expand(job->png);
    if (little_endian) {
        png_set_swap(job->png);
    }
    return dr_raster_alloc(out, info, gray ? DR_GRAY : DR_RGB,
                           (kind & PNG_COLOR_MASK_ALPHA) || trns,
                           png_get_bit_depth(job->png, job->info) == 16 ? 16 : 8);
}

static dr_status take_profile(png_job *job, dr_raster *out)
{
    png_charp name = NULL;
    png_bytep data = NULL;
    png_uint_32 n = 0;
    int method = 0;
    if (png_get_iCCP(job->png, job->info, &name, &method, &data, &n) != PNG_INFO_iCCP) {
        return DR_OK;
    }
    return dr_raster_set_icc(out, data, n);
}

/* The only function that libpng jumps back into; everything it changes lives in job and out. */
static dr_status run(png_job *job, const dr_image_info *info, dr_raster *out)
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
    DR_TRY(take_profile(job, out));
    DR_TRY(choose_output(job, info, out));
    int passes = png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    size_t row_bytes = dr_raster_row_bytes(out);
    DR_CHECK(png_get_rowbytes(job->png, job->info) == row_bytes, "%s: %zu bytes per row, not %zu",
             in->path, png_get_rowbytes(job->png, job->info), row_bytes);
    for (int pass = 0; pass < passes; pass++) {
        for (int y = 0; y < info->height; y++) {
            png_read_row(job->png, out->data + (size_t)y * row_bytes, NULL);
        }
    }
    png_read_end(job->png, NULL);
    return DR_OK;
}

dr_status dr_png_decode(const dr_image_bytes *in, const dr_image_info *info, dr_raster *out)
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
