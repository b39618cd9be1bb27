/*
 * Caption files and their processing: the first bytes choose the options, the rest is the file
 * beside a pretended picture.
 */
#include "fuzz.h"

#include "base/log.h"
#include "data/caption.h"
#include "data/folders.h"

#include <string.h>

enum { N_OPTIONS = 4 };

static dr_status probe(const char *path, const dr_image_options *o, dr_size_px *out)
{
    (void)path;
    (void)o;
    *out = (dr_size_px){512, 512};
    return DR_OK;
}

static void process(const dr_subset_options *o, const char *caption, unsigned seed)
{
    dr_str out = {0};
    for (uint64_t sample = 0; sample < 3; sample++) {
        const dr_caption_use use = {
            .seed = seed, .epoch = 1, .sample = sample, .step = (int64_t)sample, .n_steps = 4};
        dr_caption_process(&o->captions, caption, &use, &out);
        DR_CHECK(strlen(dr_str_get(&out)) == out.len, "a caption with a NUL character");
    }
    dr_str_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const separators[] = {",", ";", "|", ", "};
    if (size < N_OPTIONS) {
        return 0;
    }
    dr_subset_options o = dr_subset_options_default();
    o.captions.wildcard = (data[0] & 1) != 0;
    o.captions.shuffle = (data[0] & 2) != 0;
    o.captions.keep_separator = (data[0] & 4) != 0 ? "|||" : NULL;
    o.captions.secondary = (data[0] & 8) != 0 ? ";;" : NULL;
    o.captions.prefix = (data[0] & 16) != 0 ? "{a|b}" : NULL;
    o.captions.suffix = (data[0] & 32) != 0 ? "|||" : NULL;
    o.captions.warmup_steps = (data[0] & 64) != 0 ? 3.0 : 0.0;
    o.captions.tag_dropout_rate = (data[0] & 128) != 0 ? 0.5 : 0.0;
    o.captions.keep_tokens = data[1] % 8;
    o.captions.warmup_min = data[2] % 8;
    o.captions.separator = separators[data[3] % 4];
    dr_log_configure(DR_LOG_ERROR, 0);
    (void)dr_fuzz_file("a.png", "x", 1);
    (void)dr_fuzz_file("a.txt", data + N_OPTIONS, size - N_OPTIONS);
    dr_arena arena;
    dr_arena_init(&arena);
    const dr_folder_options folders = {.caption_extension = ".txt", .probe = probe};
    const dr_subset_spec spec = {.image_dir = dr_fuzz_dir(), .repeats = 1, .options = &o};
    dr_folder_scan scan;
    if (dr_subsets_scan(&arena, &folders, &spec, 1, &scan) == DR_OK) {
        process(&o, scan.images[0].caption, data[1]);
    }
    dr_error_clear();
    dr_arena_deinit(&arena);
    return 0;
}
