#include "image/image_internal.h"

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
    JOCTET *icc; /* from libjpeg's malloc */
} jpeg_job;

/* SOF0-SOF15 without DHT, JPG and DAC. */
static bool is_frame_header(unsigned marker)
{
    return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

static int app1_orientation(const unsigned char *segment, size_t n)
{
    return n > 6 && memcmp(segment, "Exif\0\0", 6) == 0 ? dr_exif_orientation(segment + 6, n - 6)
                                                        : 1;
}

/* Walks the marker segments to the scan, for the frame header and EXIF's orientation. */
dr_status dr_jpeg_probe(const dr_image_bytes *in, dr_image_info *info)
{
    const unsigned char *d = in->data;
    size_t at = 2;
    bool found = false;
    *info = (dr_image_info){.format = DR_IMAGE_JPEG, .orientation = 1};
    while (at < in->size && in->size - at > 9) {
        unsigned marker = d[at + 1];
        size_t length = (size_t)d[at + 2] << 8 | d[at + 3];
        if (d[at] != 0xFF || marker == 0x00 || marker == 0xFF) {
            at++; /* padding, or bytes that do not belong there: decoders skip them */
            continue;
        }
        if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
            at += 2;
            continue;
        }
        if (marker == 0xD9 || marker == 0xDA) {
            break;
        }
        if (is_frame_header(marker) && !found) {
            info->height = d[at + 5] << 8 | d[at + 6];
            info->width = d[at + 7] << 8 | d[at + 8];
            found = true;
        }
        if (marker == 0xE1 && info->orientation == 1 && length >= 2 &&
            length <= in->size - at - 2) {
            info->orientation = app1_orientation(d + at + 4, length - 2);
        }
        at += 2 + length;
    }
    if (found) {
        return DR_OK;
    }
    if (at < in->size && in->size - at > 9) {
        DR_FAIL(DR_FORMAT, "%s: damaged JPEG: no frame header before the image data; %s", in->path,
                DR_IMAGE_RESAVE);
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

static dr_status choose_output(const dr_image_bytes *in, const dr_image_info *info,
                               struct jpeg_decompress_struct *c, dr_raster *out)
{
    switch (c->num_components) {
    case 1:
        c->out_color_space = JCS_GRAYSCALE;
        return dr_raster_alloc(out, info, DR_GRAY, false, 8);
    case 3:
        c->out_color_space = JCS_RGB;
        return dr_raster_alloc(out, info, DR_RGB, false, 8);
    case 4:
        c->out_color_space = JCS_CMYK;
        return dr_raster_alloc(out, info, DR_CMYK, false, 8);
    default:
        DR_FAIL(DR_FORMAT,
                "%s: a JPEG with %d colour components, expected 1, 3 or 4; save it anew as PNG or "
                "JPEG",
                in->path, c->num_components);
    }
}

/* libjpeg gives the stored values, which are inverted (255 = no ink) by Adobe's convention; Pillow
 * assumes it for every file. */
static void read_rows(struct jpeg_decompress_struct *c, dr_raster *out)
{
    size_t n = dr_raster_row_bytes(out);
    while (c->output_scanline < c->output_height) {
        JSAMPROW row = out->data + (size_t)c->output_scanline * n;
        (void)jpeg_read_scanlines(c, &row, 1);
        for (size_t i = 0; i < n && out->colours == DR_CMYK; i++) {
            row[i] = (unsigned char)(255 - row[i]);
        }
    }
}

static dr_status take_profile(jpeg_job *job, dr_raster *out)
{
    unsigned n = 0;
    if (!jpeg_read_icc_profile(&job->cinfo, &job->icc, &n)) {
        return DR_OK;
    }
    return dr_raster_set_icc(out, job->icc, n);
}

/* The only function that libjpeg jumps back into; everything it changes lives in job and out. */
static dr_status run(jpeg_job *job, const dr_image_bytes *in, const dr_image_info *info,
                     dr_raster *out)
{
    struct jpeg_decompress_struct *c = &job->cinfo;
    if (setjmp(job->jump) != 0) {
        DR_FAIL(DR_FORMAT, "%s: damaged or truncated JPEG: %s (%zu bytes, %d x %d pixels); %s",
                in->path, job->message, in->size, info->width, info->height, DR_IMAGE_RESAVE);
    }
    jpeg_create_decompress(c);
    c->progress = &job->progress;
    jpeg_mem_src(c, in->data, (unsigned long)in->size);
    jpeg_save_markers(c, JPEG_APP0 + 2, 0xFFFF);
    (void)jpeg_read_header(c, TRUE);
    if (c->image_width != (JDIMENSION)info->width || c->image_height != (JDIMENSION)info->height) {
        DR_FAIL(DR_FORMAT, "%s: damaged JPEG: its headers disagree, %d x %d or %u x %u pixels; %s",
                in->path, info->width, info->height, c->image_width, c->image_height,
                DR_IMAGE_RESAVE);
    }
    DR_TRY(take_profile(job, out));
    DR_TRY(choose_output(in, info, c, out));
    (void)jpeg_start_decompress(c);
    read_rows(c, out);
    (void)jpeg_finish_decompress(c);
    return DR_OK;
}

dr_status dr_jpeg_decode(const dr_image_bytes *in, const dr_image_info *info, dr_raster *out)
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
    free(job.icc);
    return st;
}
