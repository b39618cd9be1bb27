/*
 * dr_cast: the same bits from every backend; stochastic rounding lands on the two neighbours with
 * the right chance, whatever the pieces.
 */
#include "ops/cast.h"

#include "backend/ref/backend_ref.h"
#include "base/arena.h"
#include "dr_test.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif
#ifdef DR_HAVE_CUDA_BACKEND
#include "backend/cuda/backend_cuda.h"
#endif

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BACKENDS = 3 };
static const dr_backend *backends[MOST_BACKENDS];
static size_t n_backends;

static void add_backend(const dr_backend *b)
{
    backends[n_backends++] = b;
}

static dr_status open_backends(void)
{
    add_backend(&dr_backend_ref_f32);
#ifdef DR_HAVE_CPU_BACKEND
    add_backend(&dr_backend_cpu);
#endif
#ifdef DR_HAVE_CUDA_BACKEND
    const dr_backend *cuda = NULL;
    DR_TRY(dr_cuda_open(0, DR_CUDA_TF32_OFF, &cuda));
    add_backend(cuda);
#endif
    return DR_OK;
}

/* n elements of x into y, both on the host; how says the rest. */
static void cast(const dr_backend *b, void *y, dr_dtype to, const void *x, dr_dtype from, int64_t n,
                 dr_cast_args how)
{
    dr_context cx;
    dr_pool *pool = NULL;
    assert_ok(dr_pool_create(b->device, (size_t)n * 8 + 128, &pool));
    dr_context_init(&cx, b, pool, 2);
    const dr_frame f = dr_frame_begin(&cx);
    const dr_tensor in = dr_new_typed(&cx, f, from, 1, &n);
    dr_tensor out = dr_new_typed(&cx, f, to, 1, &n);
    how.x = &in;
    how.y = &out;
    assert_ok(dr_upload(&cx, &in, x));
    assert_ok(dr_cast(&cx, &how));
    assert_ok(dr_download(&cx, &out, y));
    dr_frame_end(&cx, f);
    dr_pool_destroy(pool);
}

static void cast_array(const dr_backend *b, void *y, dr_dtype to, const void *x, dr_dtype from,
                       int64_t n)
{
    cast(b, y, to, x, from, n, (dr_cast_args){.x = NULL});
}

/* All 65536 numbers of a type to F32 and back, and F32 numbers between them to the nearest. */
static void every_number_survives(void **state)
{
    (void)state;
    enum { N = 65536 };
    uint16_t *narrow = dr_xcalloc(N, sizeof *narrow);
    uint16_t *back = dr_xcalloc(N, sizeof *back);
    float *wide = dr_xcalloc(N, sizeof *wide);
    static const dr_dtype types[] = {DR_F16, DR_BF16};
    for (size_t b = 0; b < n_backends; b++) {
        for (int t = 0; t < 2; t++) {
            for (int i = 0; i < N; i++) {
                narrow[i] = (uint16_t)i;
            }
            cast_array(backends[b], wide, DR_F32, narrow, types[t], N);
            cast_array(backends[b], back, types[t], wide, DR_F32, N);
            for (int i = 0; i < N; i++) {
                float want;
                dr_convert(&want, DR_F32, &narrow[i], types[t], 1);
                assert_true(isnan(want) ? isnan(wide[i]) : wide[i] == want);
                assert_true(isnan(want) || back[i] == narrow[i]);
            }
        }
    }
    free(narrow);
    free(back);
    free(wide);
}

/* Numbers of all sizes, ties and overflows too: the same as dr_convert. */
static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    enum { N = 100003 };
    float *x = dr_xcalloc(N, sizeof *x);
    uint16_t *got = dr_xcalloc(N, sizeof *got);
    uint16_t *want = dr_xcalloc(N, sizeof *want);
    uint32_t bits = 1;
    for (int i = 0; i < N; i++) {
        bits = bits * 1664525U + 1013904223U;
        const uint32_t u = i % 3 == 0 ? (bits & 0xffffe000U) | 0x1000U : bits; /* ties of F16 */
        memcpy(&x[i], &u, sizeof u);
        x[i] = isnan(x[i]) ? INFINITY : x[i];
    }
    static const dr_dtype types[] = {DR_F16, DR_BF16};
    for (size_t b = 0; b < n_backends; b++) {
        for (int t = 0; t < 2; t++) {
            dr_convert(want, types[t], x, DR_F32, N);
            cast_array(backends[b], got, types[t], x, DR_F32, N);
            assert_memory_equal(got, want, N * sizeof *want);
        }
    }
    free(x);
    free(got);
    free(want);
}

static void cast_stochastic(const dr_backend *b, uint16_t *y, const float *x, int64_t n,
                            uint64_t first, uint32_t time)
{
    cast(b, y, DR_BF16, x, DR_F32, n,
         (dr_cast_args){.stochastic = true, .seed = 7, .time = time, .first = first});
}

/* 1 + k/8 of the way to the next number: up in k of 8 cases. 6 standard deviations of N draws. */
static void chance_is_the_distance(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    float *x = dr_xcalloc(N, sizeof *x);
    uint16_t *y = dr_xcalloc(N, sizeof *y);
    for (size_t b = 0; b < n_backends; b++) {
        for (int k = 0; k < 8; k++) {
            int up = 0;
            const float value = -(1.0f + (float)k / 8.0f * 0x1p-7f);
            for (int i = 0; i < N; i++) {
                x[i] = value;
            }
            cast_stochastic(backends[b], y, x, N, 0, (uint32_t)k);
            for (int i = 0; i < N; i++) {
                const float got = dr_bf16_to_f32(y[i]);
                assert_true(got == -1.0f || got == -(1.0f + 0x1p-7f));
                up += got != -1.0f;
            }
            const double p = k / 8.0;
            assert_true(fabs(up - p * N) <= 6.0 * sqrt(p * (1.0 - p) * N));
        }
    }
    free(x);
    free(y);
}

static void pieces_and_backends_agree(void **state)
{
    (void)state;
    enum { N = 40009, CUT = 4096 };
    float *x = dr_xcalloc(N, sizeof *x);
    uint16_t *whole = dr_xcalloc(N, sizeof *whole);
    uint16_t *part = dr_xcalloc(N, sizeof *part);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - 20000) * 1.2345e-3f;
    }
    x[5] = INFINITY;
    x[6] = -INFINITY;
    x[7] = NAN;
    cast_stochastic(backends[0], whole, x, N, 0, 3);
    assert_int_equal(whole[5], 0x7f80);
    assert_int_equal(whole[6], 0xff80);
    assert_true(isnan(dr_bf16_to_f32(whole[7])));
    for (size_t b = 0; b < n_backends; b++) {
        cast_stochastic(backends[b], part, x, CUT, 0, 3);
        cast_stochastic(backends[b], part + CUT, x + CUT, N - CUT, CUT, 3);
        assert_memory_equal(part, whole, N * sizeof *part);
        cast_stochastic(backends[b], part, x, N, 0, 4);
        assert_memory_not_equal(part, whole, N * sizeof *part);
    }
    free(x);
    free(whole);
    free(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_survives),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(chance_is_the_distance),
        cmocka_unit_test(pieces_and_backends_agree),
    };
    if (open_backends() != DR_OK) {
        print_error("%s\n", dr_error_message());
        return 1;
    }
    const int rc = dr_test_run("cast", tests, sizeof tests / sizeof *tests);
#ifdef DR_HAVE_CUDA_BACKEND
    dr_cuda_close();
#endif
    return rc;
}
