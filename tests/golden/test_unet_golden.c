/*
 * The U-Net against diffusers: golden.json (spec models.md 11), made by diffusers in f64 with
 * generated weights.
 *
 * Limits: four times the largest difference measured (DR_OP_MEASURE=1 prints all), for norms of the
 * output and the loss; single outputs may differ 100 times, norms of gradients 10 times, single
 * gradients 1000 times as much. The f64 differences come from the time embedding, which diffusers
 * computes in f32: torch's exp() misses the nearest float in 1 of 32 frequencies (tiny) and 3 of
 * 160 (full), which is 3.5e-5 in a sine at t = 981. With torch's three frequencies put in by hand
 * SD 1.5 in f64 came from 3.7e-8 to 2.6e-9 (loss) and from 1.4e-6 to 4.2e-8 (gradients).
 * Measured, largest of both kinds: tiny f64 4.3e-9, full f64 1.4e-7, f32 on cpu 5.9e-7.
 *
 * Full size on 2 cores shared with other work: ref64 SD 1.5 106 s (280 s at load 6) and 13.7 GB, SD
 * 2.1 179 s and 13.8 GB; cpu 41 s and 32 s, 7.0 GB. "full" leaves the f64 SD 2.1 out; "full <name>"
 * runs one test by name.
 */
#include "backend/ref/backend_ref.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif
#include "base/clock.h"
#include "base/file.h"
#include "dr_test.h"
#include "unet_case.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory that programs can have now; 0 where the kernel does not say. */
static double available_gb(void)
{
    char line[128];
    long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "MemAvailable:", 13) == 0) {
            kib = strtol(line + 13, NULL, 10);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return (double)kib * 1024e-9;
}

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

/* Differences of one case by kind, as the largest ratio to its limit. A full-size network holds
 * gigabytes, so a case frees it before it fails. */
typedef struct report {
    double limit;
    double worst;
    int n_wrong;
} report;

static void check_error(report *r, const char *what, double error, double factor)
{
    const double ratio = error / (factor * r->limit);
    r->worst = ratio > r->worst ? ratio : r->worst;
    if (getenv("DR_OP_MEASURE") != NULL) {
        print_message("%.2g (limit %.2g) %s\n", error, factor * r->limit, what);
    }
    if (!(ratio <= 1.0)) {
        print_error("%s: relative error %.3g, allowed %.3g\n", what, error, factor * r->limit);
        r->n_wrong++;
    }
}

/* factor: how many times the case's limit is allowed. */
static void check_close(report *r, const char *what, double got, double want, double factor)
{
    check_error(r, what, fabs(got - want) / (fabs(want) > 1e-3 ? fabs(want) : 1e-3), factor);
}

static double l2(const double *v, size_t n)
{
    double s = 0.0;
    for (size_t i = 0; i < n; i++) {
        s += v[i] * v[i];
    }
    return sqrt(s);
}

static void check_gradients(report *r, const dr_unet_case *u, const json_t *want)
{
    const char *name;
    json_t *g;
    json_object_foreach(json_object_get(want, "grads"), name, g)
    {
        size_t n = 0;
        double *got = dr_unet_case_gradient(u, name, &n);
        check_close(r, name, l2(got, n), number(g, "l2"), 10.0);
        double scale = number(g, "l2") / sqrt((double)n);
        for (size_t i = 0; i < 2; i++) { /* single elements of the smallest gradients */
            double first = json_number_value(json_array_get(json_object_get(g, "first"), i));
            check_error(r, name, fabs(got[i] - first) / scale, 1000.0);
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
    check_close(r, "total gradient norm", sqrt(total), number(want, "grad_norm_total"), 10.0);
}

static void check_output(report *r, const dr_unet_case *u, const json_t *want)
{
    const size_t n = 2 * 4 * 16 * 16;
    const json_t *out = json_object_get(want, "out");
    check_close(r, "output L2", l2(u->out, n), number(out, "l2"), 1.0);
    for (size_t i = 0; i < 4; i++) {
        double first = json_number_value(json_array_get(json_object_get(out, "first"), i));
        check_close(r, "output", u->out[i], first, 100.0);
    }
    check_close(r, "output[last]", u->out[n - 1], number(out, "last"), 100.0);
    check_close(r, "loss", u->loss, number(want, "loss"), 1.0);
}

static void check_case(const char *key, const dr_unet_config *config, const dr_backend *backend,
                       double limit)
{
    json_t *doc = load_golden();
    const json_t *want = json_object_get(doc, key);
    report r = {.limit = limit};
    dr_unet_case u;
    const double begin = dr_now_s();
    dr_unet_case_create(&u, &(dr_unet_case_config){.unet = *config,
                                                   .backend = backend,
                                                   .batch = 2,
                                                   .height = 16,
                                                   .width = 16,
                                                   .context_length = 77,
                                                   .threads = 2,
                                                   .checkpointing = backend->compute == DR_F64});
    dr_unet_case_step(&u);
    const double end = dr_now_s();
    check_output(&r, &u, want);
    check_gradients(&r, &u, want);
    const bool in_order = u.ready_in_order && u.last_begin == 0;
    const bool all_segments = u.n_ready == u.params.n_segments;
    const bool as_planned = u.peak_bytes == u.plan_bytes;
    dr_unet_case_destroy(&u);
    json_decref(doc);
    print_message("%s on %s: %.1f s, largest difference %.2f of its limit\n", key, backend->name,
                  end - begin, r.worst);
    assert_int_equal(r.n_wrong, 0);
    assert_true(in_order);
    assert_true(all_segments);
    assert_true(as_planned);
}

/* A machine without the memory for a full-size network skips it instead of being swapped out. */
static void check_full(const char *key, const dr_unet_config *config, const dr_backend *backend,
                       double limit)
{
    const bool f64 = backend->compute == DR_F64;
    if (available_gb() < (f64 ? 15.0 : 8.0)) {
        DR_SKIP(f64 ? "15 GB of free memory" : "8 GB of free memory");
        return;
    }
    check_case(key, config, backend, limit);
}

static const int64_t tiny_channels[4] = {64, 128, 128, 128};
static const int64_t full_channels[4] = {320, 640, 1280, 1280};
static const double tiny_f64_limit = 1.7e-8;
static const double full_f64_limit = 5.5e-7;
#ifdef DR_HAVE_CPU_BACKEND
static const double f32_limit = 2.4e-6;
#endif

static void tiny_v1_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd1(tiny_channels, 32, 4);
    check_case("unet_tiny", &c, &dr_backend_ref_f64, tiny_f64_limit);
}

static void tiny_v2_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd2(tiny_channels, 32, (const int[4]){2, 4, 4, 4});
    check_case("unet_tiny_v2", &c, &dr_backend_ref_f64, tiny_f64_limit);
}

static void full_sd15_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd1(full_channels, 768, 8);
    check_full("unet_sd15", &c, &dr_backend_ref_f64, full_f64_limit);
}

static void full_sd21_in_f64(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd2(full_channels, 1024, (const int[4]){5, 10, 20, 20});
    check_full("unet_sd21", &c, &dr_backend_ref_f64, full_f64_limit);
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
    check_full("unet_sd15", &c, &dr_backend_cpu, f32_limit);
}

static void full_sd21_on_cpu(void **state)
{
    (void)state;
    const dr_unet_config c = dr_unet_case_sd2(full_channels, 1024, (const int[4]){5, 10, 20, 20});
    check_full("unet_sd21", &c, &dr_backend_cpu, f32_limit);
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
        if (argc > 2) {
            cmocka_set_test_filter(argv[2]);
        } else {
            cmocka_set_skip_filter("full_sd21_in_f64");
        }
        return DR_TEST_MAIN("unet golden, full size", full);
    }
    return DR_TEST_MAIN("unet golden", tiny);
}
