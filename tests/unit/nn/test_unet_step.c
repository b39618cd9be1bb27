/*
 * Laws of a whole U-Net step: checkpointing, threads, batch and planning change no bit and no byte.
 */
#include "backend/ref/backend_ref.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif
#include "dr_test.h"
#include "unet_case.h"

#include <string.h>

static const dr_unet_config two_levels = {.in_channels = 4,
                                          .out_channels = 4,
                                          .n_levels = 2,
                                          .channels = {8, 16},
                                          .attention = {true, false},
                                          .heads = {2, 2},
                                          .depth = {1, 1},
                                          .layers_per_block = 1,
                                          .context_dim = 6,
                                          .norm_groups = 4,
                                          .norm_eps = 1e-5F};
static const dr_unet_config three_levels = {.in_channels = 4,
                                            .out_channels = 4,
                                            .n_levels = 3,
                                            .channels = {16, 32, 24},
                                            .attention = {true, false, true},
                                            .heads = {2, 1, 3},
                                            .depth = {2, 1, 1},
                                            .layers_per_block = 2,
                                            .context_dim = 10,
                                            .norm_groups = 8,
                                            .norm_eps = 1e-5F,
                                            .linear_projection = true};

static const dr_backend *const backends[] = {
    &dr_backend_ref_f32,
#ifdef DR_HAVE_CPU_BACKEND
    &dr_backend_cpu,
#endif
};
enum { BACKENDS = sizeof backends / sizeof *backends };

/* Latent sizes that are odd where the network allows it. */
static const struct {
    const dr_unet_config *unet;
    int64_t batch, height, width, context_length;
} shapes[] = {
    {&two_levels, 1, 2, 2, 1},
    {&two_levels, 3, 6, 10, 27},
    {&three_levels, 2, 8, 4, 7},
    {&three_levels, 1, 12, 8, 93},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void run(dr_unet_case *u, size_t shape, const dr_backend *backend, int threads,
                dr_unet_options options)
{
    dr_unet_case_create(u, &(dr_unet_case_config){.unet = *shapes[shape].unet,
                                                  .backend = backend,
                                                  .batch = shapes[shape].batch,
                                                  .height = shapes[shape].height,
                                                  .width = shapes[shape].width,
                                                  .context_length = shapes[shape].context_length,
                                                  .threads = threads,
                                                  .checkpointing = options.checkpointing,
                                                  .forward_only = !options.train});
    dr_unet_case_step(u);
    assert_true(u->plan_bytes > 0);
    assert_int_equal(u->peak_bytes, u->plan_bytes);
    if (options.train) {
        assert_true(u->ready_in_order);
        assert_int_equal(u->last_begin, 0);
        assert_int_equal(u->n_ready, u->params.n_segments);
    }
}

static size_t output_bytes(const dr_unet_case *u)
{
    return (size_t)(u->c.batch * 4 * u->c.height * u->c.width) * sizeof *u->out;
}

/* Output, loss and all gradients, holes between them included. */
static void assert_same_step(const dr_unet_case *a, const dr_unet_case *b)
{
    assert_memory_equal(a->out, b->out, output_bytes(a));
    assert_memory_equal(&a->loss, &b->loss, sizeof a->loss);
    const size_t bytes = (size_t)a->params.n_elems * dr_dtype_size(a->c.backend->compute);
    assert_memory_equal(a->grads, b->grads, bytes);
}

static const dr_unet_options keep = {.train = true};
static const dr_unet_options checkpoint = {.train = true, .checkpointing = true};
static const dr_unet_options infer = {.train = false};

static void checkpointing_changes_no_bit(void **state)
{
    (void)state;
    for (size_t b = 0; b < BACKENDS; b++) {
        for (size_t s = 0; s < SHAPES; s++) {
            dr_unet_case plain;
            dr_unet_case again;
            run(&plain, s, backends[b], 1, keep);
            run(&again, s, backends[b], 1, checkpoint);
            assert_same_step(&plain, &again);
            dr_unet_case_destroy(&plain);
            dr_unet_case_destroy(&again);
        }
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    for (size_t b = 0; b < BACKENDS; b++) {
        for (size_t s = 0; s < SHAPES; s++) {
            dr_unet_case one;
            dr_unet_case other;
            run(&one, s, backends[b], 1, keep);
            run(&other, s, backends[b], 2, keep);
            assert_same_step(&one, &other);
            dr_unet_case_destroy(&other);
            run(&other, s, backends[b], 3, checkpoint);
            assert_same_step(&one, &other);
            dr_unet_case_destroy(&one);
            dr_unet_case_destroy(&other);
        }
    }
}

static void steps_repeat_on_the_same_memory(void **state)
{
    (void)state;
    dr_unet_case once;
    dr_unet_case twice;
    run(&once, 1, &dr_backend_ref_f32, 1, keep);
    run(&twice, 1, &dr_backend_ref_f32, 1, keep);
    dr_unet_case_step(&twice);
    assert_same_step(&once, &twice);
    dr_unet_case_destroy(&once);
    dr_unet_case_destroy(&twice);
}

static void inference_predicts_the_same_with_less_memory(void **state)
{
    (void)state;
    for (size_t b = 0; b < BACKENDS; b++) {
        for (size_t s = 0; s < SHAPES; s++) {
            dr_unet_case training;
            dr_unet_case inference;
            run(&training, s, backends[b], 1, keep);
            run(&inference, s, backends[b], 1, infer);
            assert_memory_equal(training.out, inference.out, output_bytes(&training));
            assert_true(inference.peak_bytes < training.peak_bytes);
            dr_unet_case_destroy(&training);
            dr_unet_case_destroy(&inference);
        }
    }
}

/* SD 1.5 at 512x512 and batch 1, planned only: what each option keeps. */
static void plan_of_a_real_network(void **state)
{
    (void)state;
    static const int64_t channels[4] = {320, 640, 1280, 1280};
    const dr_unet_config c = dr_unet_case_sd1(channels, 768, 8);
    dr_unet_case_config step = {.unet = c,
                                .backend = &dr_backend_ref_f32,
                                .batch = 1,
                                .height = 64,
                                .width = 64,
                                .context_length = 77,
                                .threads = 1};
    size_t peak[3];
    peak[0] = dr_unet_case_plan(&step);
    step.checkpointing = true;
    peak[1] = dr_unet_case_plan(&step);
    step.forward_only = true;
    peak[2] = dr_unet_case_plan(&step);
    print_message("SD 1.5, 512x512, f32: training %.2f GB, checkpointing %.2f, forward %.2f\n",
                  (double)peak[0] * 1e-9, (double)peak[1] * 1e-9, (double)peak[2] * 1e-9);
    assert_true(peak[1] < peak[0] / 2);
    assert_true(peak[2] < peak[0] / 6);
    assert_true(peak[2] < peak[1]);
}

/* The first sample of three is computed as if it were alone. */
static void samples_of_a_batch_are_independent(void **state)
{
    (void)state;
    dr_unet_case three;
    dr_unet_case one;
    const dr_unet_case_config c = {.unet = two_levels,
                                   .backend = &dr_backend_ref_f32,
                                   .batch = 3,
                                   .height = 4,
                                   .width = 6,
                                   .context_length = 5,
                                   .threads = 1,
                                   .forward_only = true};
    dr_unet_case_config alone = c;
    alone.batch = 1;
    dr_unet_case_create(&three, &c);
    dr_unet_case_create(&one, &alone);
    dr_unet_case_step(&three);
    dr_unet_case_step(&one);
    assert_memory_equal(three.out, one.out, output_bytes(&one));
    assert_memory_not_equal(three.out + 4 * 4 * 6, one.out, output_bytes(&one));
    dr_unet_case_destroy(&three);
    dr_unet_case_destroy(&one);
}

static void sizes_that_cannot_be_halved_panic(void **state)
{
    (void)state;
    dr_arena arena;
    dr_params params;
    dr_unet unet;
    dr_context cx;
    dr_arena_init(&arena);
    dr_params_init(&params, &arena);
    dr_unet_init(&unet, &three_levels, &params);
    dr_params_bind_dry(&params, DR_F32, false);
    dr_unet_run *r = dr_unet_run_create(&unet, infer);
    dr_pool *pool = dr_pool_create_dry();
    dr_context_init(&cx, &dr_backend_ref_f32, pool, 1);
    const dr_frame f = dr_frame_begin(&cx);
    const dr_tensor t = dr_new_typed(&cx, f, DR_F32, 1, DR_DIMS(1));
    const dr_tensor context = dr_new(&cx, f, 3, DR_DIMS(1, 5, 10));
    for (int side = 0; side < 2; side++) {
        const dr_tensor x = dr_new(&cx, f, 4, DR_DIMS(1, side == 0 ? 6 : 8, side == 0 ? 8 : 6, 4));
        dr_tensor out = dr_new_like(&cx, f, &x);
        assert_panics((void)(dr_unet_forward(&cx, r, &x, &t, &context, &out) == DR_OK));
    }
    dr_pool_destroy(pool);
    dr_unet_run_destroy(r);
    dr_params_deinit(&params);
    dr_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkpointing_changes_no_bit),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(steps_repeat_on_the_same_memory),
        cmocka_unit_test(inference_predicts_the_same_with_less_memory),
        cmocka_unit_test(plan_of_a_real_network),
        cmocka_unit_test(samples_of_a_batch_are_independent),
        cmocka_unit_test(sizes_that_cannot_be_halved_panic),
    };
    return DR_TEST_MAIN("unet step", tests);
}
