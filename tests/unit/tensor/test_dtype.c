#include "dr_test.h"

#include "tensor/dtype.h"

#include <math.h>

/* Expected bits: numpy 2.4 float16, torch 2.15 bfloat16. */
static void known_halves(void **state)
{
    (void)state;
    static const struct {
        float f;
        uint16_t half, brain;
    } cases[] = {
        {1.0f, 0x3c00, 0x3f80},     {-2.5f, 0xc100, 0xc020},      {65504.0f, 0x7bff, 0x4780},
        {65520.0f, 0x7c00, 0x4780}, {65519.0f, 0x7bff, 0x4780},   {0x1p-24f, 0x0001, 0x3380},
        {0x1p-25f, 0x0000, 0x3300}, {0x1.8p-24f, 0x0002, 0x33c0}, {6.1035156e-05f, 0x0400, 0x3880},
        {0.1f, 0x2e66, 0x3dcd},     {-0.0f, 0x8000, 0x8000},      {INFINITY, 0x7c00, 0x7f80}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(dr_f32_to_f16(cases[i].f), cases[i].half);
        assert_int_equal(dr_f32_to_bf16(cases[i].f), cases[i].brain);
    }
    assert_true(isnan(dr_f16_to_f32(dr_f32_to_f16(NAN))));
    assert_true(isnan(dr_bf16_to_f32(dr_f32_to_bf16(NAN))));
}

static void every_half_survives_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = dr_f16_to_f32((uint16_t)h);
        float b = dr_bf16_to_f32((uint16_t)h);
        assert_true(isnan(f) || dr_f32_to_f16(f) == h);
        assert_true(isnan(b) || dr_f32_to_bf16(b) == h);
    }
}

static void names_and_sizes_agree(void **state)
{
    (void)state;
    for (int t = 0; t < DR_DTYPE_COUNT; t++) {
        dr_dtype back;
        assert_true(dr_dtype_from_name(dr_dtype_name((dr_dtype)t), &back));
        assert_int_equal(back, t);
    }
    dr_dtype t;
    assert_false(dr_dtype_from_name("f32", &t));
    assert_int_equal(dr_dtype_size(DR_BF16), 2);
}

static void conversion_rounds_once(void **state)
{
    (void)state;
    double d[3] = {0.1, -3.0, 1e300};
    float f[3];
    dr_convert(f, DR_F32, d, DR_F64, 3);
    assert_true(f[0] == 0.1f && f[1] == -3.0f && isinf(f[2]));
    uint16_t h[3];
    dr_convert(h, DR_F16, f, DR_F32, 2);
    assert_int_equal(h[1], 0xc200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_halves),
        cmocka_unit_test(every_half_survives_the_round_trip),
        cmocka_unit_test(names_and_sizes_agree),
        cmocka_unit_test(conversion_rounds_once),
    };
    return DR_TEST_MAIN("dtype", tests);
}
