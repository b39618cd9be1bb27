/* tests/fuzz/weights.h - visits all that a file of weights says. */
#ifndef DR_TESTS_FUZZ_WEIGHTS_H
#define DR_TESTS_FUZZ_WEIGHTS_H

#include "fuzz.h"
#include "io/tensor_file.h"

#include <string.h>

/* Every name, shape and byte, twice with a release between; then closes f. NULL is fine. */
static inline void visit_weights(dr_tensor_file *f)
{
    for (size_t i = 0; f != NULL && i < dr_tensor_file_count(f); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(f, i);
        const void *data = NULL;
        dr_fuzz_touch(t->name, strlen(t->name));
        dr_fuzz_touch(t->shape, (size_t)t->rank * sizeof *t->shape);
        DR_CHECK(dr_tensor_file_find(f, t->name) == t, "%s is not found", t->name);
        for (int round = 0; round < 2; round++) {
            if (dr_tensor_file_data(f, t, &data) == DR_OK) {
                dr_fuzz_touch(data, t->bytes);
            }
            dr_tensor_file_release(f, t);
        }
    }
    for (size_t i = 0; f != NULL && i < dr_tensor_file_meta_count(f); i++) {
        const dr_safetensors_meta m = dr_tensor_file_meta_at(f, i);
        dr_fuzz_touch(m.value, strlen(m.value));
    }
    dr_tensor_file_close(f);
}

#endif
