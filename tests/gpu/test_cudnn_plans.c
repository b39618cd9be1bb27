/*
 * The real cuDNN, without a GPU: it plans for the H100 that a table of properties describes. So
 * descriptors, rules and choice of our convolutions are checked wherever the library is installed.
 */
#include "backend/cuda/cuda_cudnn.h"
#include "backend/cuda/cuda_cudnn_internal.h"
#include "dr_test.h"
#include "planned_gpu.h"

#include <string.h>

/* Convolutions of the U-Net and of the VAE's encoder, at 512 pixels. */
static const struct {
    int64_t n, size, in, out;
    int stride;
    bool uneven; /* padded right and bottom only */
} shapes[] = {
    {4, 64, 320, 320, 1, false},  {4, 64, 4, 320, 1, false},    {1, 64, 320, 4, 1, false},
    {1, 64, 320, 320, 2, false},  {4, 32, 640, 640, 1, false},  {1, 32, 1920, 640, 1, false},
    {1, 16, 1280, 1280, 1, true}, {2, 8, 2560, 1280, 1, false}, {1, 8, 1280, 1280, 1, false},
    {1, 512, 3, 128, 1, false},   {1, 512, 128, 128, 2, true},  {1, 64, 512, 512, 1, false},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static dr_cuda_conv conv_of(int shape, dr_cuda_conv_kind kind, dr_dtype dtype, bool adds)
{
    const int before = shapes[shape].uneven ? 0 : 1;
    const int64_t out = (shapes[shape].size + before + 1 - 3) / shapes[shape].stride + 1;
    dr_cuda_conv c;
    memset(&c, 0, sizeof c);
    c.n = shapes[shape].n;
    c.h = c.w = shapes[shape].size;
    c.in = shapes[shape].in;
    c.ho = c.wo = out;
    c.out = shapes[shape].out;
    c.geom = (dr_conv2d_geom){3, 3, shapes[shape].stride, before, before, 1, 1};
    c.kind = kind;
    c.dtype = c.result = dtype;
    c.adds = adds;
    return c;
}

/* Opens cuDNN for the H100, or skips the test where that cannot be. */
static void open_cudnn(bool tf32)
{
    const dr_status st = dr_cuda_cudnn_open_for(dr_planned_h100, tf32);
    if (st != DR_OK) {
        print_message("%s\n", dr_error_message());
        DR_SKIP("cudnn");
    }
}

static void all_have_plans(bool tf32)
{
    static const dr_dtype types[] = {DR_F32, DR_F16, DR_BF16};
    open_cudnn(tf32);
    for (int shape = 0; shape < SHAPES; shape++) {
        for (int t = 0; t < 3; t++) {
            for (int kind = DR_CUDA_CONV_Y; kind <= DR_CUDA_CONV_DW; kind++) {
                for (int adds = 0; adds <= (kind == DR_CUDA_CONV_Y ? 0 : 1); adds++) {
                    const dr_cuda_conv c =
                        conv_of(shape, (dr_cuda_conv_kind)kind, types[t], adds == 1);
                    size_t bytes = 0;
                    if (!dr_cuda_cudnn_has(&c, &bytes)) {
                        fail_msg("shape %d, %s, kind %d, adds %d: no plan", shape,
                                 dr_dtype_name(types[t]), kind, adds);
                    }
                    assert_in_range(bytes, 0, 272 << 20);
                }
            }
        }
    }
    const dr_cuda_cudnn_counts n = dr_cuda_cudnn_counted();
    assert_int_equal(n.planned, SHAPES * 3 * 5);
    assert_int_equal(n.refused, 0);
    dr_cuda_cudnn_close();
}

static void every_convolution_has_a_plan(void **state)
{
    (void)state;
    all_have_plans(false);
}

static void and_with_tf32(void **state)
{
    (void)state;
    all_have_plans(true);
}

/* What cuDNN refuses is counted, and asked for once. */
static void impossible_ones_are_counted(void **state)
{
    (void)state;
    open_cudnn(false);
    dr_cuda_conv c = conv_of(0, DR_CUDA_CONV_Y, DR_F32, false);
    size_t bytes = 1;
    c.wo++; /* no such output */
    for (int i = 0; i < 2; i++) {
        assert_false(dr_cuda_cudnn_has(&c, &bytes));
        assert_int_equal(bytes, 0);
    }
    assert_int_equal(dr_cuda_cudnn_counted().refused, 1);
    dr_cuda_cudnn_close();
}

/* A machine without the library, or before it is opened: nothing has a plan. */
static void closed_it_has_none(void **state)
{
    (void)state;
    const dr_cuda_conv c = conv_of(0, DR_CUDA_CONV_Y, DR_F32, false);
    size_t bytes = 1;
    assert_false(dr_cuda_cudnn_has(&c, &bytes));
    assert_int_equal(dr_cuda_cudnn_version(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_it_has_none),
        cmocka_unit_test(every_convolution_has_a_plan),
        cmocka_unit_test(and_with_tf32),
        cmocka_unit_test(impossible_ones_are_counted),
    };
    return dr_test_run("cudnn_plans", tests, sizeof tests / sizeof *tests);
}
