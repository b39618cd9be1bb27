#include "dr_test.h"

#include "tensor/device.h"

#include <stdint.h>
#include <string.h>

/* n bytes at p hold the value. */
static bool all_are(const unsigned char *p, size_t n, unsigned char value)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != value) {
            return false;
        }
    }
    return true;
}

/* Large memory is cleared by other stores than small: to the byte, and no further. */
static void clears_what_it_is_told(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 63, 4096, (64u << 20) - 1, 64u << 20, (64u << 20) + 77};
    const size_t guard = 128;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t shift = 0; shift <= 64; shift += 8) {
            void *memory = NULL;
            assert_ok(dr_host_device.alloc(sizes[i] + 2 * guard, &memory));
            unsigned char *p = memory;
            memset(p, 0xff, sizes[i] + 2 * guard);
            assert_ok(dr_host_device.zero(p + shift, sizes[i]));
            assert_true(all_are(p, shift, 0xff));
            assert_true(all_are(p + shift, sizes[i], 0));
            assert_true(all_are(p + shift + sizes[i], guard, 0xff));
            dr_host_device.free(memory);
            shift += sizes[i] > 4096 ? 48 : 0; /* large ones: on a line and off it */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(clears_what_it_is_told)};
    return DR_TEST_MAIN("device", tests);
}
