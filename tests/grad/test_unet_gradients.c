/*
 * A two-level U-Net against finite differences: every parameter along one direction through all
 * of its elements, and the context. Forward-only runs give the differences, training runs the
 * gradients, with checkpointing and without.
 */
#include "grad_case.h"
#include "models/unet/unet.h"

enum { BATCH = 2, HEIGHT = 4, WIDTH = 6, WORDS = 5, D = 6 };

typedef struct unet_case {
    int layers_per_block, depth;
    bool linear_projection, checkpointing, attention_below;
    const char *adapters; /* text in the names of the weights that have one; NULL: none */
    bool frozen_context;
} unet_case;

typedef struct unet_block {
    dr_unet unet;
    dr_unet_run *train, *infer;
    dr_tensor x, t, context; /* context: the frozen one */
    float times[BATCH];
} unet_block;

static void unet_init(dr_grad_case *g)
{
    const unet_case *k = g->spec->config;
    const dr_unet_config c = {.in_channels = 4,
                              .out_channels = 4,
                              .n_levels = 2,
                              .channels = {8, 16},
                              .attention = {true, k->attention_below},
                              .heads = {2, 2},
                              .depth = {k->depth, 1},
                              .layers_per_block = k->layers_per_block,
                              .context_dim = D,
                              .norm_groups = 4,
                              .norm_eps = 1e-5F,
                              .linear_projection = k->linear_projection};
    unet_block *b = g->block = dr_arena_alloc(&g->model.arena, sizeof *b);
    DR_CHECK(dr_unet_config_check(&c) == DR_OK, "%s", dr_error_message());
    dr_unet_init(&b->unet, &c, &g->model.params);
    if (k->adapters != NULL) {
        dr_grad_add_adapters(g, k->adapters, &(dr_grad_adapter){0});
    }
    b->train = dr_unet_run_create(&b->unet, (dr_unet_options){.train = true,
                                                              .checkpointing = k->checkpointing,
                                                              .context = !k->frozen_context});
    b->infer = dr_unet_run_create(&b->unet, (dr_unet_options){.train = false});
    b->x = dr_model_case_input(&g->model, "unet.x", 3.0, 4, DR_DIMS(BATCH, HEIGHT, WIDTH, 4));
    b->context = dr_model_case_input(&g->model, "unet.context", 3.0, 3, DR_DIMS(BATCH, WORDS, D));
    b->times[0] = 1.0F;
    b->times[1] = 981.0F;
    b->t = dr_tensor_of(b->times, DR_F32, 1, DR_DIMS(BATCH));
}

static void unet_end(dr_grad_case *g)
{
    unet_block *b = g->block;
    dr_unet_run_destroy(b->train);
    dr_unet_run_destroy(b->infer);
}

static dr_status unet_step(dr_context *cx, dr_grad_case *g, dr_tensor *y, dr_frame f)
{
    unet_block *b = g->block;
    (void)f;
    dr_unet_run *r = g->backward ? b->train : b->infer;
    const dr_tensor *context = g->spec->n_inputs > 0 ? &g->x[0] : &b->context;
    DR_TRY(dr_unet_forward(cx, r, &b->x, &b->t, context, y));
    return g->backward ? dr_unet_backward(cx, r, &g->dy, g->dx[0], NULL) : DR_OK;
}

#define UNET(block_name, ...)                                                                      \
    .name = block_name, .config = &(const unet_case){__VA_ARGS__}, .init = unet_init,              \
    .end = unet_end, .step = unet_step, .input_rank = {3}, .input_dim = {{BATCH, WORDS, D}},       \
    .only_adds = {true}, .output_rank = 4, .output_dim = {BATCH, HEIGHT, WIDTH, 4}, .checked = 0

static const dr_grad_block blocks[] = {
    {UNET("one layer, SD1", 1, 1, false, false, false, NULL, false), .n_inputs = 1},
    {UNET("two layers, SD2", 2, 1, true, false, false, NULL, false), .n_inputs = 1},
    {UNET("one layer, depth 2, attention below, checkpointing", 1, 2, true, true, true, NULL,
          false),
     .n_inputs = 1},
    {UNET("adapters", 1, 1, false, false, true, "attentions", false), .n_inputs = 1},
    {UNET("adapters, convolutions too", 1, 1, false, false, false, "s.0", false), .n_inputs = 1},
    {UNET("adapters in attention, frozen context", 1, 1, true, false, false, "attentions", true)},
    {UNET("late adapters, frozen context", 2, 1, false, false, false, "up_blocks.1.att", true)},
    {UNET("late adapters, frozen context, checkpointing", 2, 1, false, true, false,
          "up_blocks.1.resnets.1.conv2", true)},
    {UNET("adapters in the middle, checkpointing", 1, 1, true, true, true, "mid_block", true)},
};

int main(void)
{
    return dr_grad_run("unet gradients", blocks, sizeof blocks / sizeof *blocks);
}
