/*
 * The U-Net against diffusers: golden.json (spec models.md 11), made by diffusers in f64 with
 * generated weights. Limits: the f64 differences come from f32 sines of the time embedding and
 * the order of sums; the f32 ones were measured at 3e-6 (loss) and 4e-5 (gradients) and have a
 * factor of 4.
 */
#include "backend/ref/backend_ref.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif
#include "base/file.h"
#include "dr_test.h"
#include "unet_case.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *load_golden(void)
{
    const char *shared = dr_test_shared();
    if (shared == NULL) {
        DR_SKIP("shared");
        return NULL;
    }
    char *path = dr_path_join(shared, "golden.json");
    json_t *doc = json_load_file(path, 0, NULL);
    free(path);
    assert_non_null(doc);
    return doc;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void check_close(const char *what, double got, double want, double limit)
{
    double error = fabs(got - want) / (fabs(want) > 1e-3 ? fabs(want) : 1e-3);
    if (!(error <= limit)) {
        print_error("%s: %.12g, expected %.12g (relative error %.3g)\n", what, got, want, error);
    }
    assert_at_most(error, limit);
}

static double l2(const double *v, size_t n)
{
    double s = 0.0;
    for (size_t i = 0; i < n; i++) {
        s += v[i] * v[i];
    }
    return sqrt(s);
}

static void check_gradients(const dr_unet_case *u, const json_t *want, double limit)
{
    const char *name;
    json_t *g;
    json_object_foreach(json_object_get(want, "grads"), name, g)
    {
        size_t n = 0;
        double *got = dr_unet_case_gradient(u, name, &n);
        check_close(name, l2(got, n), number(g, "l2"), limit);
        double scale = number(g, "l2") / sqrt((double)n);
        for (size_t i = 0; i < 2; i++) {
            double first = json_number_value(json_array_get(json_object_get(g, "first"), i));
            double error = fabs(got[i] - first) / scale;
            assert_at_most(error, 100.0 * limit); /* single elements of the smallest gradients */
        }
        free(got);
    }
    double total = 0.0;
    for (size_t i = 0; i < u->params.n; i++) {
        size_t n = 0;
        double *g2 = dr_unet_case_gradient(u, u->params.at[i]->name, &n);
        total += l2(g2, n) * l2(g2, n);
        free(g2);
    }
    check_close("total gradient norm", sqrt(total), number(want, "grad_norm_total"), limit);
}

static void check_case(const char *key, const dr_unet_config *config, const dr_backend *backend,
                       double limit)
{
    json_t *doc = load_golden();
    const json_t *want = json_object_get(doc, key);
    dr_unet_case u;
    dr_unet_case_create(&u, &(dr_unet_case_config){.unet = *config,
                                                   .backend = backend,
                                                   .batch = 2,
                                                   .height = 16,
                                                   .width = 16,
                                                   .context_length = 77,
                                                   .threads = 2,
                                                   .checkpointing = backend->compute == DR_F64});
    dr_unet_case_step(&u);
    size_t n = 2 * 4 * 16 * 16;
    const json_t *out = json_object_get(want, "out");
    check_close("output L2", l2(u.out, n), number(out, "l2"), limit);
    for (size_t i = 0; i < 4; i++) {
        check_close("output", u.out[i],
                    json_number_value(json_array_get(json_object_get(out, "first"), i)),
                    100.0 * limit);
    }
    check_close("output[last]", u.out[n - 1], number(out, "last"), 100.0 * limit);
    check_close("loss", u.loss, number(want, "loss"), limit);
    check_gradients(&u, want, 10.0 * limit);
    assert_true(u.ready_in_order);
    assert_int_equal(u.last_begin, 0);
    assert_int_equal(u.n_ready, u.params.n_segments);
    assert_int_equal(u.peak_bytes, u.plan_bytes);
    dr_unet_case_destroy(&u);
    json_decref(doc);
}

static const int64_t tiny_channels[4] = {64, 128, 128, 128};
static const int64_t full_channels[4] = {320, 640, 1280, 1280};
static const double f64_limit = 1e-8;
#ifdef DR_HAVE_CPU_BACKEND
static const double f32_limit = 1.6e-5;
#endif

static void tiny_v1_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd1(tiny_channels, 32, 4);
    check_case("unet_tiny", &c, &dr_backend_ref_f64, f64_limit);
}

static void tiny_v2_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd2(tiny_channels, 32, (const int[4]){2, 4, 4, 4});
    check_case("unet_tiny_v2", &c, &dr_backend_ref_f64, f64_limit);
}

static void full_sd15_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd1(full_channels, 768, 8);
    check_case("unet_sd15", &c, &dr_backend_ref_f64, f64_limit);
}

static void full_sd21_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd2(full_channels, 1024, (const int[4]){5, 10, 20, 20});
    check_case("unet_sd21", &c, &dr_backend_ref_f64, f64_limit);
}

#ifdef DR_HAVE_CPU_BACKEND
static void tiny_v1_on_cpu(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd1(tiny_channels, 32, 4);
    check_case("unet_tiny", &c, &dr_backend_cpu, f32_limit);
}

static void tiny_v2_on_cpu(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd2(tiny_channels, 32, (const int[4]){2, 4, 4, 4});
    check_case("unet_tiny_v2", &c, &dr_backend_cpu, f32_limit);
}

static void full_sd15_on_cpu(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd1(full_channels, 768, 8);
    check_case("unet_sd15", &c, &dr_backend_cpu, f32_limit);
}

static void full_sd21_on_cpu(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd2(full_channels, 1024, (const int[4]){5, 10, 20, 20});
    check_case("unet_sd21", &c, &dr_backend_cpu, f32_limit);
}
#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tiny[] = {
        cmocka_unit_test(tiny_v1_in_f64),
        cmocka_unit_test(tiny_v2_in_f64),
#ifdef DR_HAVE_CPU_BACKEND
        cmocka_unit_test(tiny_v1_on_cpu),
        cmocka_unit_test(tiny_v2_on_cpu),
#endif
    };
    const struct CMUnitTest full[] = {
        cmocka_unit_test(full_sd15_in_f64),
        cmocka_unit_test(full_sd21_in_f64),
#ifdef DR_HAVE_CPU_BACKEND
        cmocka_unit_test(full_sd15_on_cpu),
        cmocka_unit_test(full_sd21_on_cpu),
#endif
    };
    if (argc > 1 && strcmp(argv[1], "full") == 0) {
        return DR_TEST_MAIN("unet golden, full size", full);
    }
    return DR_TEST_MAIN("unet golden", tiny);
}
