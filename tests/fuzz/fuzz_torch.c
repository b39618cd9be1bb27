/* Files of torch.save as they are: archives (zip, zip64, deflate) and the older stream. */
#include "weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dr_tensor_file *f = NULL;
    int64_t epoch = 0;
    if (dr_tensor_file_parse(&f, "input", data, size) == DR_OK) {
        (void)dr_tensor_file_number(f, "epoch", &epoch);
    }
    visit_weights(f);
    return 0;
}
