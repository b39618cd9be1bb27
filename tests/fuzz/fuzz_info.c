/* The file of --cache_info, whatever its lines say: its hash is made to fit. */
#include "fuzz.h"

#include "base/log.h"
#include "data/info_cache.h"
#include "io/xxh3.h"

#include <stdio.h>
#include <string.h>

enum { HEAD = 160 };

/* The first line that this program writes. */
static size_t read_head(char head[HEAD])
{
    const dr_info_entry none[1] = {{.path = "x", .size = {1, 1}, .stamp = {1, 1, 1, 1, true}}};
    dr_info_cache *c = dr_info_cache_open(dr_fuzz_dir(), NULL);
    dr_info_cache_save(c, none, 1);
    dr_info_cache_close(c);
    dr_str path = {0};
    dr_str_printf(&path, "%s/.dreamrun_pictures", dr_fuzz_dir());
    FILE *f = fopen(dr_str_get(&path), "rb");
    const bool good = f != NULL && fgets(head, HEAD, f) != NULL;
    if (f != NULL) {
        (void)fclose(f);
    }
    dr_str_free(&path);
    return good ? strlen(head) : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char head[HEAD];
    static size_t n_head;
    dr_log_configure(DR_LOG_ERROR, 0);
    n_head = n_head > 0 ? n_head : read_head(head);
    DR_CHECK(n_head > 0, "no file was written");
    char hash[DR_XXH3_HEX];
    dr_str text = {0};
    dr_str_add_n(&text, head, n_head);
    dr_str_add_n(&text, (const char *)data, size);
    dr_xxh3_hex(dr_xxh3_bytes(dr_str_get(&text), text.len), hash);
    dr_str_printf(&text, "end %s\n", hash);
    (void)dr_fuzz_file(".dreamrun_pictures", text.data, text.len);
    dr_str_free(&text);
    dr_info_cache *c = dr_info_cache_open(dr_fuzz_dir(), NULL);
    const char *const names[] = {"a.png", "b", "", " ", "1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const dr_file_stamp stamp = {1, 2, 3, 4, true};
        bool whole = false;
        dr_size_px s = {0, 0};
        if (dr_info_cache_find(c, names[i], &stamp, &whole, &s)) {
            DR_CHECK(s.w > 0 && s.h > 0, "a picture of %d x %d", (int)s.w, (int)s.h);
        }
    }
    dr_info_cache_close(c);
    return 0;
}
