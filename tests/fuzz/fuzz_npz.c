/* Arrays of numpy's archives, as sd-scripts' latent caches hold them. */
#include "fuzz.h"

#include "io/npz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"latents", "latents_flipped", "original_size", "crop_ltrb",
                                        "alpha_mask"};
    static const int64_t dim[3] = {4, 3, 2};
    dr_npz *z = NULL;
    if (dr_npz_parse(&z, "input", data, size) != DR_OK) {
        return 0;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        dr_npy a = {0};
        float values[4 * 3 * 2];
        double numbers[4];
        if (!dr_npz_has(z, names[i])) {
            continue;
        }
        if (dr_npz_describe(z, names[i], &a) == DR_OK) {
            dr_fuzz_touch(&a, sizeof a);
        }
        if (dr_npz_read_f32(z, names[i], 3, dim, values) == DR_OK) {
            dr_fuzz_touch(values, sizeof values);
        }
        for (size_t n = 1; n <= 4; n++) {
            if (dr_npz_read_numbers(z, names[i], n, numbers) == DR_OK) {
                dr_fuzz_touch(numbers, n * sizeof *numbers);
            }
        }
    }
    dr_npz_close(z);
    return 0;
}
