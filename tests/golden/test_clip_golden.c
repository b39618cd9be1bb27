/*
 * The text encoder against transformers in f64 (models_vectors.py): output and every parameter's
 * gradient. Limits, relative to the root mean square: f64 measured 2e-11 (eps is an f32 1e-5 here),
 * f32 by ref and cpu 2e-6; times 5 and 10.
 */
#include "clip_case.h"
#include "golden_compare.h"
#include "data/models_vectors.h"
#include "dr_test.h"
#include "golden_backends.h"

#include <stdlib.h>
#include <string.h>

static clip_case_config config_of(size_t i)
{
    clip_case_config c = {.model = {.vocab = golden_clip[i].vocab,
                                    .positions = golden_clip[i].positions,
                                    .width = golden_clip[i].width,
                                    .mlp_width = golden_clip[i].mlp_width,
                                    .layers = golden_clip[i].layers,
                                    .heads = golden_clip[i].heads,
                                    .eps = 1e-5f},
                          .options = {.train = true, .clip_skip = golden_clip[i].clip_skip},
                          .batch = 2,
                          .tokens = golden_clip[i].tokens};
    assert_ok(dr_clip_act_from_name(golden_clip[i].act, &c.model.act));
    return c;
}

static void check_gradients(size_t i, const clip_case *c, double limit)
{
    assert_int_equal(c->m.params.n, golden_clip[i].n_grads);
    for (int k = 0; k < golden_clip[i].n_grads; k++) {
        const char *name = golden_clip[i].grads[k].name;
        const dr_param *p = dr_params_find(&c->m.params, name);
        assert_non_null(p);
        double *g = dr_model_case_gradient(p);
        const golden_numbers want = {
            .l2 = golden_clip[i].grads[k].l2, .first = golden_clip[i].grads[k].first, .n_first = 2};
        /* key biases cancel in the softmax: their gradient is rounding, on a scale of about 1 */
        golden_check_numbers(name, g, (size_t)p->n, &want, 1.0, limit);
        free(g);
    }
}

static void check_backend(const dr_backend *backend, double limit)
{
    for (size_t i = 0; i < sizeof golden_clip / sizeof *golden_clip; i++) {
        clip_case_config config = config_of(i);
        config.backend = backend;
        clip_case c;
        clip_case_begin(&c, &config);
        clip_case_step(&c);
        golden_check(golden_clip[i].name, &c.out, &golden_clip[i].out, limit);
        check_gradients(i, &c, limit);
        clip_case_end(&c);
    }
}

static void ref_f64_equals_transformers(void **state)
{
    (void)state;
    check_backend(&dr_backend_ref_f64, 1e-10);
}

static void ref_f32_is_close(void **state)
{
    (void)state;
    check_backend(&dr_backend_ref_f32, 2e-5);
}

static void cpu_is_close(void **state)
{
    (void)state;
    const dr_backend *cpu = golden_cpu_backend();
    if (cpu == NULL) {
        DR_SKIP("cpu backend");
        return;
    }
    check_backend(cpu, 2e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_f64_equals_transformers),
        cmocka_unit_test(ref_f32_is_close),
        cmocka_unit_test(cpu_is_close),
    };
    return DR_TEST_MAIN("clip_golden", tests);
}
