/*
 * Metadata files of fine-tuning datasets: the first byte chooses form and options, the rest is the
 * file; the pictures "a.png" and "b.png" stand beside it.
 */
#include "fuzz.h"

#include "base/log.h"
#include "data/folders_internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    dr_subset_options o = dr_subset_options_default();
    o.captions.wildcard = (data[0] & 1) != 0;
    o.captions.separator = (data[0] & 2) != 0 ? ", " : ",";
    dr_log_configure(DR_LOG_ERROR, 0);
    (void)dr_fuzz_file("a.png", "x", 1);
    (void)dr_fuzz_file("b.png", "x", 1);
    const char *name = (data[0] & 4) != 0 ? "meta.jsonl" : "meta.json";
    dr_subset_spec spec = {.image_dir = dr_fuzz_dir(),
                           .metadata_file = dr_fuzz_file(name, data + 1, size - 1),
                           .repeats = 1,
                           .options = &o};
    dr_arena arena;
    dr_arena_init(&arena);
    dr_problems bad = {0};
    dr_listed *list = NULL;
    size_t n = 0;
    if (dr_metadata_file_read(&arena, &spec, &bad, &list, &n) == DR_OK) {
        for (size_t i = 0; i < n; i++) {
            dr_fuzz_touch(list[i].path, strlen(list[i].path));
            dr_fuzz_touch(list[i].caption, strlen(list[i].caption));
        }
    }
    free(list);
    dr_problems_free(&bad);
    dr_arena_deinit(&arena);
    return 0;
}
