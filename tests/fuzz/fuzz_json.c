/* JSON documents (config.json, index files): every value is visited. */
#include "fuzz.h"

#include "io/json.h"

#include <string.h>

enum { MAX_DEPTH = 8 }; /* deeper values are counted by their parents only */

static void visit(const dr_json_value *v, int depth)
{
    dr_fuzz_touch(dr_json_string_value(v), strlen(dr_json_string_value(v)));
    (void)dr_json_int_value(v);
    for (size_t i = 0; depth < MAX_DEPTH && i < dr_json_size(v); i++) {
        visit(dr_json_item(v, i), depth + 1);
    }
    for (dr_json_iter it = {0}; depth < MAX_DEPTH && dr_json_next(v, &it);) {
        visit(it.value, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dr_json_doc *d = NULL;
    if (dr_json_parse(&d, "input", data, size) == DR_OK) {
        double number = 0;
        bool found = false;
        dr_json_ints ints = {0};
        visit(dr_json_root(d), 0);
        (void)dr_json_kind_of(d, "block_out_channels/0");
        (void)!dr_json_get_double(d, "sample_size", &number, &found);
        (void)!dr_json_get_ints(d, "block_out_channels", &ints, &found);
        dr_json_ints_free(&ints);
    }
    dr_json_close(d);
    return 0;
}
