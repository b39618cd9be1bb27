/* The input is a safetensors file without its first 8 bytes: up to a NUL the header, then data. */
#include "weights.h"

#include <stdlib.h>

static void parse(const unsigned char *bytes, size_t n)
{
    dr_tensor_file *f = NULL;
    (void)!dr_tensor_file_parse(&f, "input", bytes, n);
    visit_weights(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned char *end = size > 0 ? memchr(data, '\0', size) : NULL;
    const size_t header = end == NULL ? size : (size_t)(end - data);
    const size_t rest = end == NULL ? 0 : size - header - 1;
    unsigned char *bytes = malloc(8 + header + rest);
    DR_CHECK(bytes != NULL, "no memory");
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)((uint64_t)header >> (8 * i));
    }
    if (size > 0) {
        memcpy(bytes + 8, data, header);
        memcpy(bytes + 8 + header, data + size - rest, rest);
    }
    parse(bytes, 8 + header + rest);
    parse(data, size); /* and as it is */
    free(bytes);
    return 0;
}
