/* The input is a safetensors file without its first 8 bytes: up to a NUL the header, then data.
 * Every module's difference and bias are computed. */
#include "fuzz.h"
#include "train/lora/lora_file.h"

#include <stdlib.h>
#include <string.h>

/* Applied to a weight of zeros, if that is a small one. */
static void apply(const dr_lora_file *f, const dr_lora_module *m)
{
    enum { MOST = 1 << 16 };
    const int64_t n = dr_lora_weight_elems(m);
    if (n > MOST) {
        return;
    }
    float *weight = calloc((size_t)n, sizeof *weight);
    DR_CHECK(weight != NULL, "no memory");
    if (dr_lora_has_weight(m)) {
        (void)!dr_lora_apply(f, m, 0.5, weight);
    }
    if (m->part[DR_LORA_BIAS] != NULL) {
        (void)!dr_lora_apply_bias(f, m, 0.5, weight);
    }
    dr_fuzz_touch(weight, (size_t)n * sizeof *weight);
    free(weight);
}

static void visit(dr_lora_file *f)
{
    const dr_lora_module *first = NULL;
    size_t n_zero = 0;
    (void)!dr_lora_file_count_zero(f, &n_zero, &first);
    for (size_t i = 0; i < dr_lora_file_count(f); i++) {
        const dr_lora_module *m = dr_lora_file_at(f, i);
        dr_fuzz_touch(m->name, strlen(m->name));
        DR_CHECK(dr_lora_file_find(f, m->name) != NULL, "%s is not found", m->name);
        apply(f, m);
    }
    dr_lora_file_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned char *end = size > 0 ? memchr(data, '\0', size) : NULL;
    const size_t header = end == NULL ? size : (size_t)(end - data);
    const size_t rest = end == NULL ? 0 : size - header - 1;
    unsigned char *bytes = malloc(8 + header + rest);
    dr_tensor_file *tensors = NULL;
    dr_lora_file *f = NULL;
    DR_CHECK(bytes != NULL, "no memory");
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)((uint64_t)header >> (8 * i));
    }
    if (size > 0) {
        memcpy(bytes + 8, data, header);
        memcpy(bytes + 8 + header, data + size - rest, rest);
    }
    if (dr_tensor_file_parse(&tensors, "input", bytes, 8 + header + rest) == DR_OK &&
        dr_lora_file_take(&f, tensors, true) == DR_OK) {
        visit(f);
    }
    free(bytes);
    return 0;
}
