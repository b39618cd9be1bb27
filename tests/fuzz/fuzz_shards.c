/* The input is the index of a set of shards; a.safetensors (tensor "a") and b.bin lie beside it. */
#include "weights.h"

#include <stdio.h>

static void make_shards(void)
{
    static bool made;
    static const char header[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}";
    unsigned char file[8 + sizeof header + 1] = {sizeof header - 1};
    if (!made) {
        memcpy(file + 8, header, sizeof header - 1);
        (void)dr_fuzz_file("a.safetensors", file, sizeof file);
        (void)dr_fuzz_file("b.bin", "\x80\x02}.", 4);
        made = true;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dr_tensor_file *f = NULL;
    make_shards();
    const char *index = dr_fuzz_file("model.safetensors.index.json", data, size);
    (void)!dr_tensor_file_open(&f, index);
    visit_weights(f);
    return 0;
}
