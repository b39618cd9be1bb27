#include "image/png_write.h"

#include "base/arena.h"
#include "base/file.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#define MAX_KEY_CHARS 79 /* PNG specification 11.3.4.2 */

typedef struct png_job {
    dr_outfile file;
    png_structp png;
    png_infop info;
    png_text *chunks; /* one per text */
    dr_status status; /* of the file, when libpng was told to stop because of it */
    char message[160];
} png_job;

static void jump_out(png_structp png, png_const_charp message)
{
    png_job *job = png_get_error_ptr(png);
    (void)snprintf(job->message, sizeof job->message, "%s", message);
    png_longjmp(png, 1);
}

static void drop_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void take_bytes(png_structp png, png_bytep data, size_t n)
{
    png_job *job = png_get_io_ptr(png);
    job->status = dr_outfile_write(&job->file, data, n);
    if (job->status != DR_OK) {
        png_error(png, "write failed");
    }
}

static void flush_nothing(png_structp png)
{
    (void)png; /* dr_outfile_commit flushes */
}

static bool is_ascii(const char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s > 126) {
            return false;
        }
    }
    return true;
}

static dr_status check_key(const char *path, const char *key)
{
    size_t n = strlen(key);
    bool good = n >= 1 && n <= MAX_KEY_CHARS && is_ascii(key) && key[0] != ' ' && key[n - 1] != ' ';
    for (size_t i = 0; i < n; i++) {
        good = good && key[i] >= ' ';
    }
    if (!good) {
        DR_FAIL(DR_INVALID, "%s: text key '%s' is not 1 to %d printable ASCII characters", path,
                key, MAX_KEY_CHARS);
    }
    return DR_OK;
}

/* libpng copies the texts; its struct wants pointers to char, not const. */
static void fill_chunks(png_job *job, const dr_png_text *texts, int n_texts)
{
    for (int i = 0; i < n_texts; i++) {
        bool ascii = is_ascii(texts[i].value);
        job->chunks[i] =
            (png_text){.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
                       .key = (png_charp)(uintptr_t)texts[i].key,
                       .text = (png_charp)(uintptr_t)texts[i].value};
    }
}

/* The only function that libpng jumps back into; everything it changes lives in job. */
static dr_status run(png_job *job, const char *path, const dr_image *img, int n_texts)
{
    if (setjmp(png_jmpbuf(job->png)) != 0) {
        if (job->status != DR_OK) {
            return dr_error_frame(job->status, __FILE__, __LINE__);
        }
        DR_FAIL(DR_IO, "%s: cannot write PNG: %s", path, job->message);
    }
    png_set_write_fn(job->png, job, take_bytes, flush_nothing);
    png_set_user_limits(job->png, 0x7FFFFFFF, 0x7FFFFFFF);
    png_set_IHDR(job->png, job->info, (png_uint_32)img->width, (png_uint_32)img->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (n_texts > 0) {
        png_set_text(job->png, job->info, job->chunks, n_texts);
    }
    png_write_info(job->png, job->info);
    for (int y = 0; y < img->height; y++) {
        png_write_row(job->png, img->pixels + (size_t)y * (size_t)img->width * 3);
    }
    png_write_end(job->png, job->info);
    return DR_OK;
}

static dr_status write_file(png_job *job, const char *path, const dr_image *img, int n_texts)
{
    job->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, job, jump_out, drop_warning);
    job->info = job->png != NULL ? png_create_info_struct(job->png) : NULL;
    if (job->info == NULL) {
        DR_FAIL(DR_NOMEM, "%s: not enough memory to start the PNG encoder", path);
    }
    DR_TRY(dr_outfile_open(&job->file, path));
    dr_status st = run(job, path, img, n_texts);
    if (st != DR_OK) {
        dr_outfile_abort(&job->file);
        return st;
    }
    return dr_outfile_commit(&job->file);
}

dr_status dr_png_write(const char *path, const dr_image *img, const dr_png_text *texts, int n_texts)
{
    DR_CHECK(img->pixels != NULL && img->channels == 3, "PNG from %d channels", img->channels);
    for (int i = 0; i < n_texts; i++) {
        DR_TRY(check_key(path, texts[i].key));
    }
    png_job job = {0};
    job.chunks = dr_xcalloc((size_t)n_texts + 1, sizeof *job.chunks);
    fill_chunks(&job, texts, n_texts);
    dr_status st = write_file(&job, path, img, n_texts);
    png_destroy_write_struct(&job.png, &job.info);
    free(job.chunks);
    return st;
}
