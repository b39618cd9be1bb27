/*
 * The real cuDNN plans the attention of SD 1.5 and 2.1 for an H100 that need not be there. It
 * compiles its kernels for that, and hands them to the driver: fake_driver.c.
 */
#include "backend/cuda/cuda_cudnn.h"
#include "backend/cuda/cuda_cudnn_internal.h"
#include "backend/cuda/cuda_sdpa.h"
#include "dr_test.h"
#include "planned_gpu.h"

#include <string.h>

/* At 512 pixels: self and cross attention, every head size. */
static const struct {
    int64_t n, heads, sq, sk, d;
    dr_dtype dtype;
} shapes[] = {
    {1, 8, 4096, 4096, 40, DR_F16},   {4, 8, 4096, 77, 40, DR_BF16},
    {1, 8, 1024, 1024, 80, DR_BF16},  {1, 8, 64, 64, 160, DR_F16},
    {1, 10, 1024, 1024, 64, DR_BF16},
};

static dr_cuda_sdpa sdpa_of(size_t shape, bool backward)
{
    dr_cuda_sdpa s;
    memset(&s, 0, sizeof s);
    s.n = shapes[shape].n;
    s.heads = s.all_heads = shapes[shape].heads;
    s.sq = shapes[shape].sq;
    s.sk = shapes[shape].sk;
    s.d = shapes[shape].d;
    s.dtype = shapes[shape].dtype;
    s.is_backward = backward;
    return s;
}

static void open_cudnn(void)
{
    if (dr_cuda_cudnn_open_for(dr_planned_h100, false) != DR_OK) {
        print_message("%s\n", dr_error_message());
        DR_SKIP("cudnn");
    }
}

static void every_attention_has_plans(void **state)
{
    (void)state;
    open_cudnn();
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        const dr_cuda_sdpa s = sdpa_of(i / 2, i % 2 == 1);
        size_t bytes = 0;
        const char *why = NULL;
        if (!dr_cuda_sdpa_has(&s, &bytes, &why)) {
            fail_msg("shape %zu, backward %zu: no plan: %s", i / 2, i % 2, why);
        }
        print_message("shape %zu, backward %zu: %zu bytes of workspace\n", i / 2, i % 2, bytes);
    }
    assert_int_equal(dr_cuda_sdpa_counted().refused, 0);
    dr_cuda_cudnn_close();
}

/* Two of eight heads, as a long image is divided. */
static void so_do_some_of_the_heads(void **state)
{
    (void)state;
    open_cudnn();
    dr_cuda_sdpa s = sdpa_of(0, true);
    size_t bytes = 0;
    const char *why = NULL;
    s.heads = 2;
    if (!dr_cuda_sdpa_has(&s, &bytes, &why)) {
        fail_msg("no plan: %s", why);
    }
    dr_cuda_cudnn_close();
}

static void what_cannot_be_says_why(void **state)
{
    (void)state;
    open_cudnn();
    dr_cuda_sdpa s = sdpa_of(3, false);
    size_t bytes = 1;
    const char *why = NULL;
    s.d = 77; /* no multiple of 8 */
    assert_false(dr_cuda_sdpa_has(&s, &bytes, &why));
    assert_int_equal(bytes, 0);
    assert_non_null(strstr(dr_cuda_sdpa_counted().why, "77 channels"));
    assert_true(why[0] != '\0');
    dr_cuda_cudnn_close();
    assert_false(dr_cuda_sdpa_has(&s, &bytes, &why)); /* closed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_attention_has_plans),
        cmocka_unit_test(so_do_some_of_the_heads),
        cmocka_unit_test(what_cannot_be_says_why),
    };
    return dr_test_run("cudnn_attention", tests, sizeof tests / sizeof *tests);
}
