#include "image/image_internal.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

/* A progressive file needs some ten scans; thousands over a large picture are an attack on time.
 * libjpeg-turbo's own fuzzers stop at 500. */
#define MAX_SCANS 500

typedef struct jpeg_job {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
    unsigned char *cmyk_row; /* four-component files only */
} jpeg_job;

/* Walks the marker segments to the frame header: SOF0-SOF15 without DHT, JPG and DAC. */
dr_status dr_jpeg_probe(const dr_image_bytes *in, dr_image_info *info)
{
    const unsigned char *d = in->data;
    size_t at = 2;
    while (at + 9 < in->size) {
        unsigned marker = d[at + 1];
        if (d[at] != 0xFF || marker == 0x00 || marker == 0xFF) {
            at++; /* padding, or bytes that do not belong there: decoders skip them */
            continue;
        }
        if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
            at += 2;
            continue;
        }
        if (marker == 0xD9 || marker == 0xDA) {
            DR_FAIL(DR_FORMAT, "%s: damaged JPEG: no frame header before the image data; %s",
                    in->path, DR_IMAGE_RESAVE);
        }
        if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 &&
            marker != 0xCC) {
            *info = (dr_image_info){.format = DR_IMAGE_JPEG,
                                    .height = d[at + 5] << 8 | d[at + 6],
                                    .width = d[at + 7] << 8 | d[at + 8]};
            return DR_OK;
        }
        at += 2 + ((size_t)d[at + 2] << 8 | d[at + 3]);
    }
    DR_FAIL(DR_FORMAT, "%s: truncated JPEG: the file ends after %zu bytes, inside its headers; %s",
            in->path, in->size, DR_IMAGE_RESAVE);
}

static void jump_out(j_common_ptr c)
{
    jpeg_job *job = c->client_data;
    c->err->format_message(c, job->message);
    longjmp(job->jump, 1);
}

/* Warnings that leave every pixel as the writer meant it; all others mean damaged data. */
static bool is_harmless(const struct jpeg_error_mgr *e)
{
    switch (e->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
        return true;
    case JWRN_EXTRANEOUS_DATA: /* padding between segments is common, lost sync is not */
        return e->msg_parm.i[1] < 0xD0 || e->msg_parm.i[1] > 0xD7;
    default:
        return false;
    }
}

static void take_message(j_common_ptr c, int level)
{
    if (level < 0 && !is_harmless(c->err)) {
        jump_out(c);
    }
}

static void check_scans(j_common_ptr c)
{
    jpeg_job *job = c->client_data;
    if (c->is_decompressor && ((j_decompress_ptr)c)->input_scan_number > MAX_SCANS) {
        (void)snprintf(job->message, sizeof job->message, "more than %d scans", MAX_SCANS);
        longjmp(job->jump, 1);
    }
}

/* a * b / 255 rounded, as Pillow does it in its CMYK conversion. */
static unsigned mul_div_255(unsigned a, unsigned b)
{
    unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* libjpeg gives the stored values, which are inverted (255 = no ink) by Adobe's convention; Pillow
 * assumes it for every file. */
static void cmyk_row_to_rgb(const unsigned char *in, unsigned char *rgb, int width)
{
    for (int x = 0; x < width; x++, in += 4, rgb += 3) {
        unsigned k = in[3];
        for (int c = 0; c < 3; c++) {
            unsigned ink = mul_div_255(255u - in[c], k);
            rgb[c] = (unsigned char)(k - ink);
        }
    }
}

static dr_status choose_output(jpeg_job *job, const dr_image_bytes *in)
{
    struct jpeg_decompress_struct *c = &job->cinfo;
    if (c->num_components == 1 || c->num_components == 3) {
        c->out_color_space = JCS_RGB;
        return DR_OK;
    }
    if (c->num_components != 4) {
        DR_FAIL(DR_FORMAT,
                "%s: a JPEG with %d colour components, expected 1, 3 or 4; save it anew as PNG or "
                "JPEG",
                in->path, c->num_components);
    }
    c->out_color_space = JCS_CMYK;
    void *row = NULL;
    DR_TRY(dr_try_calloc(c->image_width, 4, &row));
    job->cmyk_row = row;
    return DR_OK;
}

static void read_rows(jpeg_job *job, dr_image *out)
{
    struct jpeg_decompress_struct *c = &job->cinfo;
    while (c->output_scanline < c->output_height) {
        unsigned char *rgb = out->pixels + (size_t)c->output_scanline * (size_t)out->width * 3;
        JSAMPROW row = job->cmyk_row != NULL ? job->cmyk_row : rgb;
        (void)jpeg_read_scanlines(c, &row, 1);
        if (job->cmyk_row != NULL) {
            cmyk_row_to_rgb(job->cmyk_row, rgb, out->width);
        }
    }
}

/* The only function that libjpeg jumps back into; everything it changes lives in job and out. */
static dr_status run(jpeg_job *job, const dr_image_bytes *in, const dr_image_info *info,
                     dr_image *out)
{
    struct jpeg_decompress_struct *c = &job->cinfo;
    if (setjmp(job->jump) != 0) {
        DR_FAIL(DR_FORMAT, "%s: damaged or truncated JPEG: %s (%zu bytes, %d x %d pixels); %s",
                in->path, job->message, in->size, info->width, info->height, DR_IMAGE_RESAVE);
    }
    jpeg_create_decompress(c);
    c->progress = &job->progress;
    jpeg_mem_src(c, in->data, (unsigned long)in->size);
    (void)jpeg_read_header(c, TRUE);
    if (c->image_width != (JDIMENSION)info->width || c->image_height != (JDIMENSION)info->height) {
        DR_FAIL(DR_FORMAT, "%s: damaged JPEG: its headers disagree, %d x %d or %u x %u pixels; %s",
                in->path, info->width, info->height, c->image_width, c->image_height,
                DR_IMAGE_RESAVE);
    }
    DR_TRY(choose_output(job, in));
    DR_TRY(dr_image_alloc(out, info->width, info->height));
    (void)jpeg_start_decompress(c);
    read_rows(job, out);
    (void)jpeg_finish_decompress(c);
    return DR_OK;
}

dr_status dr_jpeg_decode(const dr_image_bytes *in, const dr_image_info *info, dr_image *out)
{
    jpeg_job job;
    memset(&job, 0, sizeof job);
    job.cinfo.err = jpeg_std_error(&job.errors);
    job.cinfo.client_data = &job;
    job.errors.error_exit = jump_out;
    job.errors.emit_message = take_message;
    job.progress.progress_monitor = check_scans;
    dr_status st = run(&job, in, info, out);
    jpeg_destroy_decompress(&job.cinfo);
    free(job.cmyk_row);
    return st;
}
