/*
 * tests/interop/data_driver.c - answers data_peers.py: one command per line on stdin, one answer
 * per line on stdout. Texts travel as hexadecimal digits, "-" is the empty text.
 *
 *   list W H LO HI STEP                 predefined bucket sizes
 *   fit W H LO HI STEP MODE IW IH       MODE 0 predefined, 1 no upscale, 2 no buckets
 *   name HEX                            repeats and class tokens of a folder name
 *   caption KEEP SEPARATOR HEX          processed with tag dropout that never happens
 *   tree TRAIN REG EXTENSION            the dataset of two folders (REG "-": none)
 *   pixels LO W H MODE FLIP PICTURE OUT writes the sample's floats to OUT; answers width, height
 */
#include "base/arena.h"
#include "base/file.h"
#include "data/batch.h"
#include "data/caption.h"
#include "data/dataset.h"
#include "data/picture_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 1 << 16 };

static void print_hex(const char *s)
{
    if (s[0] == '\0') {
        (void)putchar('-');
    }
    for (; *s != '\0'; s++) {
        (void)printf("%02x", (unsigned)(unsigned char)*s);
    }
}

/* Decodes in place. */
static char *read_hex(char *hex)
{
    if (strcmp(hex, "-") == 0) {
        hex[0] = '\0';
        return hex;
    }
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        const char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        hex[i] = (char)strtol(digits, NULL, 16);
    }
    hex[n] = '\0';
    return hex;
}

static dr_bucket_options read_options(const int *v, int mode)
{
    return (dr_bucket_options){.resolution = {v[0], v[1]},
                               .min_px = v[2],
                               .max_px = v[3],
                               .step_px = v[4],
                               .enable = mode != 2,
                               .no_upscale = mode == 1};
}

static void answer_list(const char *line)
{
    int v[5];
    if (sscanf(line, "list %d %d %d %d %d", &v[0], &v[1], &v[2], &v[3], &v[4]) != 5) {
        return;
    }
    dr_arena arena;
    dr_arena_init(&arena);
    dr_bucket_options o = read_options(v, 0);
    dr_bucket_set set;
    dr_bucket_set_build(&set, &o, &arena);
    for (size_t i = 0; i < set.n; i++) {
        (void)printf("%dx%d ", set.sizes[i].w, set.sizes[i].h);
    }
    dr_arena_deinit(&arena);
}

static void answer_fit(const char *line)
{
    int v[5];
    int mode = 0;
    dr_size_px image = {0, 0};
    if (sscanf(line, "fit %d %d %d %d %d %d %d %d", &v[0], &v[1], &v[2], &v[3], &v[4], &mode,
               &image.w, &image.h) != 8) {
        return;
    }
    dr_arena arena;
    dr_arena_init(&arena);
    dr_bucket_options o = read_options(v, mode);
    dr_bucket_set set;
    dr_bucket_set_build(&set, &o, &arena);
    dr_bucket_fit f;
    if (dr_bucket_fit_image(&set, image, &f) == DR_OK) {
        (void)printf("%dx%d %dx%d %d,%d %a", f.bucket.w, f.bucket.h, f.resized.w, f.resized.h,
                     f.crop_x, f.crop_y, f.aspect_error);
    } else {
        (void)printf("unusable");
    }
    dr_arena_deinit(&arena);
}

static void answer_name(char *line)
{
    int64_t repeats = 0;
    const char *tokens = NULL;
    if (!dr_folder_name_parse(read_hex(line + strlen("name ")), &repeats, &tokens)) {
        (void)printf("ignored");
        return;
    }
    (void)printf("%" PRId64 " ", repeats);
    print_hex(tokens);
}

static void answer_caption(char *line)
{
    char *keep = strtok_r(line + strlen("caption "), " ", &line);
    char *separator = strtok_r(NULL, " ", &line);
    char *text = strtok_r(NULL, " ", &line);
    dr_caption_options o = dr_caption_options_default();
    o.keep_tokens = (int32_t)strtol(keep, NULL, 10);
    o.separator = read_hex(separator);
    o.tag_dropout_rate = 1e-30; /* smaller than every non-zero draw */
    dr_str out = {0};
    dr_caption_process(&o, read_hex(text), &(dr_caption_use){.seed = 42, .epoch = 1, .sample = 1},
                       &out);
    print_hex(dr_str_get(&out));
    dr_str_free(&out);
}

static void answer_tree(char *line)
{
    char *train = strtok_r(line + strlen("tree "), " ", &line);
    char *reg = strtok_r(NULL, " ", &line);
    char *extension = strtok_r(NULL, " ", &line);
    dr_arena arena;
    dr_arena_init(&arena);
    dr_dataset_options o = {.buckets = dr_bucket_options_default(), .prior_loss_weight = 1.0f};
    o.folders = (dr_folder_options){.train_data_dir = read_hex(train),
                                    .reg_data_dir = strcmp(reg, "-") == 0 ? NULL : read_hex(reg),
                                    .caption_extension = read_hex(extension),
                                    .probe = dr_picture_check};
    dr_dataset d;
    if (dr_dataset_open(&arena, &o, &d) != DR_OK) {
        (void)printf("error %d", (int)dr_error_status());
    } else {
        for (size_t i = 0; i < d.n_images; i++) {
            print_hex(d.images[i].path);
            (void)printf(":%lu:", (unsigned long)d.images[i].repeats);
            print_hex(d.images[i].caption);
            (void)putchar(' ');
        }
    }
    dr_arena_deinit(&arena);
}

static dr_status write_pixels(const dr_bucket_options *o, const char *path, bool flip,
                              const char *out, dr_arena *arena)
{
    dr_bucket_set set;
    dr_bucket_set_build(&set, o, arena);
    dr_dataset_image image = {.path = path};
    DR_TRY(dr_picture_check(path, NULL, &image.size));
    DR_TRY(dr_bucket_fit_image(&set, image.size, &image.fit));
    size_t n = (size_t)image.fit.bucket.w * (size_t)image.fit.bucket.h * 3;
    float *nhwc = dr_arena_array(arena, n, sizeof *nhwc);
    DR_TRY(dr_sample_pixels(&image, flip, nhwc));
    DR_TRY(dr_file_write(out, nhwc, n * sizeof *nhwc));
    (void)printf("%d %d", image.fit.bucket.w, image.fit.bucket.h);
    return DR_OK;
}

static void answer_pixels(const char *line)
{
    int v[5] = {0, 0, 0, 2048, 64};
    int mode = 0;
    int flip = 0;
    char path[2048], out[2048];
    if (sscanf(line, "pixels %d %d %d %d %d %2047s %2047s", &v[2], &v[0], &v[1], &mode, &flip, path,
               out) != 7) {
        return;
    }
    dr_arena arena;
    dr_arena_init(&arena);
    dr_bucket_options o = read_options(v, mode);
    if (write_pixels(&o, read_hex(path), flip == 1, read_hex(out), &arena) != DR_OK) {
        (void)printf("error %s", dr_error_message());
    }
    dr_arena_deinit(&arena);
}

int main(void)
{
    static char line[LINE_BYTES];
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "list ", 5) == 0) {
            answer_list(line);
        } else if (strncmp(line, "fit ", 4) == 0) {
            answer_fit(line);
        } else if (strncmp(line, "name ", 5) == 0) {
            answer_name(line);
        } else if (strncmp(line, "caption ", 8) == 0) {
            answer_caption(line);
        } else if (strncmp(line, "tree ", 5) == 0) {
            answer_tree(line);
        } else if (strncmp(line, "pixels ", 7) == 0) {
            answer_pixels(line);
        }
        (void)putchar('\n');
        (void)fflush(stdout);
    }
    return 0;
}
