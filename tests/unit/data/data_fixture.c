#include "dr_test.h"

#include "data_fixture.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

char *fixture_root(const char *name)
{
    char *root = dr_path_join(dr_test_tmpdir(), name);
    assert_ok(dr_mkdirs(root));
    return root;
}

void fixture_write(const char *root, const char *path, const void *data, size_t n)
{
    char *full = dr_path_join(root, path);
    char *slash = strrchr(full, '/');
    *slash = '\0';
    assert_ok(dr_mkdirs(full));
    *slash = '/';
    assert_ok(dr_file_write(full, data, n));
    free(full);
}

void fixture_text(const char *root, const char *path, const char *text)
{
    fixture_write(root, path, text, strlen(text));
}

dr_status fixture_probe(const char *path, const dr_image_options *o, dr_size_px *out)
{
    (void)o;
    char *text = NULL;
    size_t n = 0;
    DR_TRY(dr_file_read(path, 100, &text, &n));
    int w = 0;
    int h = 0;
    bool good = sscanf(text, "%d %d", &w, &h) == 2 && w > 0 && h > 0;
    free(text);
    if (!good) {
        DR_FAIL(DR_FORMAT, "%s: not a picture", path);
    }
    *out = (dr_size_px){w, h};
    return DR_OK;
}

dr_dataset_options fixture_options(dr_arena *arena, const char *root, bool with_reg)
{
    dr_dataset_options o = {.buckets = dr_bucket_options_default(), .prior_loss_weight = 0.5f};
    o.folders = (dr_folder_options){.train_data_dir = dr_arena_printf(arena, "%s/train", root),
                                    .caption_extension = "txt",
                                    .probe = fixture_probe,
                                    .threads = 4};
    if (with_reg) {
        o.folders.reg_data_dir = dr_arena_printf(arena, "%s/reg", root);
    }
    o.buckets.enable = true;
    return o;
}
