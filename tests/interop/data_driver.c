/*
 * tests/interop/data_driver.c - answers data_peers.py: one command per line on stdin, one answer
 * per line on stdout. Texts travel as hexadecimal digits, "-" is the empty text.
 *
 *   list W H LO HI STEP                 predefined bucket sizes
 *   fit W H LO HI STEP MODE IW IH       MODE 0 predefined, 1 no upscale, 2 no buckets
 *   name HEX                            repeats and class tokens of a folder name
 *   caption KEEP SEPARATOR HEX          processed with tag dropout that never happens
 *   process KEY=VALUE... HEX            every caption option; texts in hexadecimal digits
 *   cut RANDOM LEAST MOST BUCKETED W H BW BH SEED EPOCH SAMPLE PATH    resized size and corner
 *   colors SEED EPOCH SAMPLE            hue shift and gamma of a use
 *   recolor HUE GAMMA IN OUT            raw RGB bytes recoloured
 *   tree TRAIN REG EXTENSION            the dataset of two folders (REG "-": none)
 *   pixels LO W H MODE FLIP PICTURE OUT writes the sample's floats to OUT; answers width, height
 */
#include "base/arena.h"
#include "base/file.h"
#include "data/batch.h"
#include "data/caption.h"
#include "data/dataset.h"
#include "data/picture_check.h"
#include "image/recolor.h"

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

/* The value of "key=..." in the words of the line; "" when it is not there. */
static const char *value_of(char *const *words, int n, const char *key)
{
    size_t length = strlen(key);
    for (int i = 0; i < n; i++) {
        if (strncmp(words[i], key, length) == 0 && words[i][length] == '=') {
            return words[i] + length + 1;
        }
    }
    return "";
}

static double number_of(char *const *words, int n, const char *key)
{
    return strtod(value_of(words, n, key), NULL);
}

static const char *text_of(char *const *words, int n, const char *key)
{
    return read_hex((char *)(uintptr_t)value_of(words, n, key));
}

static void answer_process(char *line)
{
    enum { MOST = 32 };
    char *words[MOST];
    int n = 0;
    for (char *w = strtok_r(line + strlen("process "), " ", &line); w != NULL && n < MOST;
         w = strtok_r(NULL, " ", &line)) {
        words[n++] = w;
    }
    const dr_caption_options o = {
        .prefix = text_of(words, n, "prefix"),
        .suffix = text_of(words, n, "suffix"),
        .wildcard = number_of(words, n, "wildcard") > 0,
        .shuffle = number_of(words, n, "shuffle") > 0,
        .keep_tokens = (int32_t)number_of(words, n, "keep"),
        .keep_separator = text_of(words, n, "keep_separator"),
        .separator = text_of(words, n, "separator"),
        .secondary = text_of(words, n, "secondary"),
        .dropout_rate = number_of(words, n, "dropout"),
        .dropout_every_n_epochs = (int32_t)number_of(words, n, "every"),
        .tag_dropout_rate = number_of(words, n, "tag_dropout"),
        .warmup_min = (int32_t)number_of(words, n, "warmup_min"),
        .warmup_steps = number_of(words, n, "warmup_steps"),
    };
    const dr_caption_use use = {.seed = (uint64_t)number_of(words, n, "seed"),
                                .epoch = (uint32_t)number_of(words, n, "epoch"),
                                .sample = (uint64_t)number_of(words, n, "sample"),
                                .step = (int64_t)number_of(words, n, "step"),
                                .n_steps = (int64_t)number_of(words, n, "n_steps")};
    dr_str out = {0};
    dr_caption_process(&o, text_of(words, n, "caption"), &use, &out);
    print_hex(dr_str_get(&out));
    dr_str_free(&out);
}

static void answer_cut(const char *line)
{
    int random_crop = 0;
    int bucketed = 0;
    dr_subset_options o = dr_subset_options_default();
    dr_dataset_image image = {.options = &o};
    dr_size_px *const bucket = &image.fit.bucket;
    unsigned long long seed = 0;
    unsigned long long sample = 0;
    dr_sample_use use = {0};
    char path[2048];
    if (sscanf(line, "cut %d %lf %lf %d %d %d %d %d %llu %u %llu %2047s", &random_crop,
               &o.face_least, &o.face_most, &bucketed, &image.size.w, &image.size.h, &bucket->w,
               &bucket->h, &seed, &use.epoch, &sample, path) != 12) {
        return;
    }
    o.random_crop = random_crop == 1;
    use.seed = seed;
    use.sample = sample;
    image.path = read_hex(path);
    image.unbucketed = bucketed == 0;
    dr_bucket_set set = {.options = {.resolution = *bucket}, .sizes = bucket, .n = 1};
    dr_cut cut;
    const dr_size_px target = *bucket;
    set.sizes = &target;
    if (dr_bucket_fit_image(&set, image.size, &image.fit) != DR_OK ||
        dr_cut_choose(&image, &use, &cut) != DR_OK) {
        (void)printf("error");
        return;
    }
    (void)printf("%dx%d %d,%d", cut.resized.w, cut.resized.h, cut.x, cut.y);
}

static void answer_colors(const char *line)
{
    unsigned long long seed = 0;
    unsigned long long sample = 0;
    dr_sample_use use = {0};
    if (sscanf(line, "colors %llu %u %llu", &seed, &use.epoch, &sample) == 3) {
        use.seed = seed;
        use.sample = sample;
        dr_recolor r = dr_recolor_choose(&use);
        (void)printf("%a %a", r.hue_shift, r.gamma);
    }
}

static void answer_recolor(const char *line)
{
    double hue = 0.0;
    double gamma = 1.0;
    char in[2048], out[2048];
    char *data = NULL;
    size_t n = 0;
    if (sscanf(line, "recolor %lf %lf %2047s %2047s", &hue, &gamma, in, out) != 4 ||
        dr_file_read(read_hex(in), 1 << 26, &data, &n) != DR_OK) {
        return;
    }
    dr_image image = {
        .width = (int)(n / 3), .height = 1, .channels = 3, .pixels = (unsigned char *)data};
    if (hue > 0.0) {
        dr_image_shift_hue(&image, hue);
    } else {
        dr_image_power(&image, gamma);
    }
    (void)printf(dr_file_write(read_hex(out), data, n) == DR_OK ? "done" : "error");
    free(data);
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
        } else if (strncmp(line, "process ", 8) == 0) {
            answer_process(line);
        } else if (strncmp(line, "cut ", 4) == 0) {
            answer_cut(line);
        } else if (strncmp(line, "colors ", 7) == 0) {
            answer_colors(line);
        } else if (strncmp(line, "recolor ", 8) == 0) {
            answer_recolor(line);
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
