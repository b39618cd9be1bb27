/*
 * The text encoder's backward: finite differences in f64, checkpointing, clip_skip, freezing.
 */
#include "backend/ref/backend_ref.h"
#include "clip_case.h"
#include "dr_test.h"
#include "golden_input.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static clip_case_config small_config(dr_act act)
{
    return (clip_case_config){.model = {.vocab = 13,
                                        .positions = 6,
                                        .width = 12,
                                        .mlp_width = 20,
                                        .layers = 2,
                                        .heads = 3,
                                        .act = act,
                                        .eps = 1e-5f},
                              .options = {.train = true, .clip_skip = 1},
                              .backend = &dr_backend_ref_f64,
                              .batch = 2,
                              .tokens = 5};
}

/* <out, dout> after a forward pass */
static double objective(clip_case *c)
{
    clip_case_step(c);
    const double *out = c->out.data;
    const double *dout = c->dout.data;
    double sum = 0.0;
    for (int64_t i = 0; i < dr_numel(&c->out); i++) {
        sum += out[i] * dout[i];
    }
    return sum;
}

static void shift(const dr_param *p, const double *direction, double step)
{
    double *value = p->value.data;
    for (int64_t i = 0; i < p->n; i++) {
        value[i] += step * direction[i];
    }
}

/*
 * Slope along a random direction of each parameter by central differences. Error of the method:
 * step^2 (1e-10) times third derivatives; measured 4e-9 of the gradient's norm.
 */
static void check_slopes(dr_act act)
{
    const double step = 1e-5;
    clip_case_config config = small_config(act);
    clip_case c;
    clip_case_begin(&c, &config);
    for (size_t i = 0; i < c.m.params.n; i++) {
        const dr_param *p = c.m.params.at[i];
        (void)objective(&c);
        double *g = dr_model_case_gradient(p);
        double *direction = dr_xcalloc((size_t)p->n, sizeof *direction);
        dr_golden_fill(p->name, (size_t)p->n, DR_GOLDEN_UNIT, direction);
        double slope = 0.0;
        for (int64_t k = 0; k < p->n; k++) {
            slope += g[k] * direction[k];
        }
        const double norm = fmax(dr_model_case_l2(g, (size_t)p->n), 1.0);
        shift(p, direction, step);
        const double above = objective(&c);
        shift(p, direction, -2.0 * step);
        const double below = objective(&c);
        shift(p, direction, step);
        const double error = fabs((above - below) / (2.0 * step) - slope) / norm;
        if (!(error <= 1e-7)) {
            print_error("%s\n", p->name);
        }
        assert_at_most(error, 1e-7);
        free(direction);
        free(g);
    }
    clip_case_end(&c);
}

static void slopes_match_finite_differences(void **state)
{
    (void)state;
    check_slopes(DR_ACT_QUICK_GELU);
    check_slopes(DR_ACT_GELU);
}

static size_t flat_bytes(const clip_case *c)
{
    return (size_t)c->m.params.n_elems * dr_dtype_size(c->config.backend->compute);
}

static void checkpointing_changes_no_bit(void **state)
{
    (void)state;
    clip_case_config config = small_config(DR_ACT_GELU);
    config.model.layers = 4;
    config.backend = &dr_backend_ref_f32;
    clip_case kept;
    clip_case_begin(&kept, &config);
    clip_case_step(&kept);
    config.options.checkpointing = true;
    clip_case rerun;
    clip_case_begin(&rerun, &config);
    clip_case_step(&rerun);
    assert_memory_equal(kept.out.data, rerun.out.data, dr_nbytes(&kept.out));
    assert_memory_equal(kept.m.grads, rerun.m.grads, flat_bytes(&kept));
    assert_true(rerun.m.plan_bytes < kept.m.plan_bytes);
    config.options = (dr_clip_options){.clip_skip = 1};
    clip_case inference;
    clip_case_begin(&inference, &config);
    clip_case_step(&inference);
    assert_memory_equal(kept.out.data, inference.out.data, dr_nbytes(&kept.out));
    assert_true(inference.m.plan_bytes < rerun.m.plan_bytes);
    clip_case_end(&kept);
    clip_case_end(&rerun);
    clip_case_end(&inference);
}

/* A second step over the same run accumulates nothing from the first: gradients start at zero. */
static void steps_repeat_bit_for_bit(void **state)
{
    (void)state;
    clip_case_config config = small_config(DR_ACT_QUICK_GELU);
    clip_case c;
    clip_case_begin(&c, &config);
    clip_case_step(&c);
    void *first = dr_xcalloc(1, flat_bytes(&c));
    memcpy(first, c.m.grads, flat_bytes(&c));
    clip_case_step(&c);
    assert_memory_equal(first, c.m.grads, flat_bytes(&c));
    free(first);
    clip_case_end(&c);
}

static void the_sink_hears_of_every_segment(void **state)
{
    (void)state;
    clip_case_config config = small_config(DR_ACT_GELU);
    for (int skip = 1; skip <= config.model.layers + 1; skip++) {
        config.options.clip_skip = skip;
        clip_case c;
        clip_case_begin(&c, &config);
        clip_case_step(&c);
        assert_int_equal(c.n_ready, config.model.layers + 2);
        assert_true(c.ready_in_order);
        assert_int_equal(c.ready_begin, 0);
        clip_case_end(&c);
    }
}

/* Freezing the embeddings and the first layer leaves the other gradients as they were. */
static void frozen_parts_get_no_backward(void **state)
{
    (void)state;
    clip_case_config config = small_config(DR_ACT_GELU);
    clip_case all;
    clip_case_begin(&all, &config);
    clip_case_step(&all);
    clip_case some;
    clip_case_begin(&some, &config);
    for (size_t i = 0; i < some.m.params.n; i++) {
        dr_param *p = some.m.params.at[i];
        p->trainable = p->segment >= 2;
    }
    dr_params_bind(&some.m.params, config.backend->compute, some.m.values, some.m.grads);
    clip_case_step(&some);
    int64_t begin;
    int64_t end;
    dr_params_segment_range(&some.m.params, 2, &begin, &end);
    const double *want = all.m.grads;
    const double *got = some.m.grads;
    for (int64_t i = 0; i < some.m.params.n_elems; i++) {
        assert_true(got[i] == (i < begin ? 0.0 : want[i]));
    }
    assert_int_equal(some.n_ready, config.model.layers + 2);
    clip_case_end(&some);
    clip_case_end(&all);
}

static void skipped_layers_can_be_frozen(void **state)
{
    (void)state;
    clip_case_config config = small_config(DR_ACT_GELU);
    clip_case c;
    clip_case_begin(&c, &config);
    dr_clip_freeze_skipped(&c.clip, 2);
    for (size_t i = 0; i < c.m.params.n; i++) {
        const dr_param *p = c.m.params.at[i];
        assert_int_equal(p->trainable, strstr(p->name, "layers.1.") == NULL);
    }
    clip_case_end(&c);
}

static void wrong_use_panics(void **state)
{
    (void)state;
    clip_case_config config = small_config(DR_ACT_GELU);
    clip_case c;
    clip_case_begin(&c, &config);
    assert_panics((void)dr_clip_run_create(&c.clip, (dr_clip_options){.clip_skip = 4}));
    assert_panics((void)dr_clip_run_create(&c.clip, (dr_clip_options){.clip_skip = 0}));
    dr_context cx;
    dr_pool *dry = dr_pool_create_dry();
    dr_context_init(&cx, config.backend, dry, 1);
    assert_panics((void)!dr_clip_backward(&cx, c.run, &c.dout, NULL));
    dr_pool_destroy(dry);
    clip_case_end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slopes_match_finite_differences),
        cmocka_unit_test(checkpointing_changes_no_bit),
        cmocka_unit_test(steps_repeat_bit_for_bit),
        cmocka_unit_test(the_sink_hears_of_every_segment),
        cmocka_unit_test(frozen_parts_get_no_backward),
        cmocka_unit_test(skipped_layers_can_be_frozen),
        cmocka_unit_test(wrong_use_panics),
    };
    return DR_TEST_MAIN("clip_gradients", tests);
}
