/*
 * Residual block, multi-head attention and Transformer2D against finite differences.
 */
#include "grad_case.h"
#include "models/unet/transformer.h"
#include "nn/resblock.h"

enum { BATCH = 2, HEIGHT = 3, WIDTH = 2, TOKENS = HEIGHT * WIDTH, WORDS = 5, C = 8, D = 6 };

typedef struct resblock_config {
    int64_t in, out, time;
} resblock_config;

static void resblock_init(dr_grad_case *g)
{
    const resblock_config *c = g->spec->config;
    dr_params *set = &g->model.params;
    g->block = dr_arena_alloc(&g->model.arena, sizeof(dr_resblock));
    (void)dr_params_begin_segment(set);
    dr_resblock_init(g->block, set, "block", c->in, c->out, c->time, 4, 1e-5F);
}

static dr_status resblock_step(dr_context *cx, dr_grad_case *g, dr_tensor *y, dr_frame f)
{
    dr_resblock_saved saved;
    const dr_tensor *time = g->spec->n_inputs > 1 ? &g->x[1] : NULL;
    DR_TRY(dr_resblock_forward(cx, g->block, &g->x[0], time, y, &saved, f));
    if (!g->backward) {
        return DR_OK;
    }
    return dr_resblock_backward(cx, g->block, &saved,
                                &(dr_resblock_grad){.dy = &g->dy,
                                                    .x = &g->x[0],
                                                    .temb_silu = time,
                                                    .dx = g->dx[0],
                                                    .mode_dx = g->mode,
                                                    .dtemb_silu = g->dx[1]});
}

#define RESBLOCK(block_name, cin, cout)                                                            \
    .name = block_name, .config = &(const resblock_config){cin, cout, 0}, .init = resblock_init,   \
    .step = resblock_step, .n_inputs = 1, .input_rank = {4},                                       \
    .input_dim = {{BATCH, HEIGHT, WIDTH, cin}}, .output_rank = 4,                                  \
    .output_dim = {BATCH, HEIGHT, WIDTH, cout}, .checked = 24
#define RESBLOCK_TIME(block_name, begin, cin, cout)                                                \
    .name = block_name, .config = &(const resblock_config){cin, cout, D}, .init = begin,           \
    .step = resblock_step, .n_inputs = 2, .input_rank = {4, 2},                                    \
    .input_dim = {{BATCH, HEIGHT, WIDTH, cin}, {BATCH, D}}, .only_adds = {false, true},            \
    .output_rank = 4, .output_dim = {BATCH, HEIGHT, WIDTH, cout}, .checked = 24

typedef struct mha_config {
    int64_t c, d;
    int heads;
    bool self, causal;
} mha_config;

static void mha_init(dr_grad_case *g)
{
    const mha_config *c = g->spec->config;
    dr_params *set = &g->model.params;
    dr_mha *m = g->block = dr_arena_alloc(&g->model.arena, sizeof *m);
    (void)dr_params_begin_segment(set);
    dr_linear_init(&m->q, set, "q", c->c, c->c, false);
    dr_linear_init(&m->k, set, "k", c->d, c->c, true);
    dr_linear_init(&m->v, set, "v", c->d, c->c, true);
    dr_linear_init(&m->out, set, "out", c->c, c->c, true);
    m->heads = c->heads;
    m->causal = c->causal;
}

static dr_status mha_step(dr_context *cx, dr_grad_case *g, dr_tensor *y, dr_frame f)
{
    const bool self = ((const mha_config *)g->spec->config)->self;
    const dr_tensor *context = self ? &g->x[0] : &g->x[1];
    dr_mha_saved saved;
    DR_TRY(dr_mha_forward(cx, g->block, &g->x[0], context, y, DR_SET, &saved, f));
    if (!g->backward) {
        return DR_OK;
    }
    return dr_mha_backward(cx, g->block, &saved,
                           &(dr_mha_grad){.dy = &g->dy,
                                          .x = &g->x[0],
                                          .c = context,
                                          .dx = g->dx[0],
                                          .mode_dx = g->mode,
                                          .dc = self ? g->dx[0] : g->dx[1]});
}

static void transformer_init(dr_grad_case *g)
{
    dr_params *set = &g->model.params;
    g->block = dr_arena_alloc(&g->model.arena, sizeof(dr_transformer));
    (void)dr_params_begin_segment(set);
    dr_transformer_init(g->block, set, "attn", g->spec->config);
}

static dr_status transformer_step(dr_context *cx, dr_grad_case *g, dr_tensor *y, dr_frame f)
{
    dr_transformer_saved saved;
    DR_TRY(dr_transformer_forward(cx, g->block, &g->x[0], &g->x[1], y, &saved, f));
    if (!g->backward) {
        return DR_OK;
    }
    return dr_transformer_backward(cx, g->block, &saved,
                                   &(dr_transformer_grad){.dy = &g->dy,
                                                          .x = &g->x[0],
                                                          .context = &g->x[1],
                                                          .dx = g->dx[0],
                                                          .mode_dx = g->mode,
                                                          .dcontext = g->dx[1]});
}

#define MHA(block_name, ...)                                                                       \
    .name = block_name, .config = &(const mha_config){__VA_ARGS__}, .init = mha_init,              \
    .step = mha_step, .output_rank = 3, .output_dim = {BATCH, TOKENS, C}, .checked = 24
#define TRANSFORMER(block_name, begin, n_blocks, linear)                                           \
    .name = block_name,                                                                            \
    .config = &(const dr_transformer_config){.channels = C,                                        \
                                             .context_dim = D,                                     \
                                             .heads = 2,                                           \
                                             .depth = n_blocks,                                    \
                                             .groups = 4,                                          \
                                             .linear_projection = linear},                         \
    .init = begin, .step = transformer_step, .n_inputs = 2, .input_rank = {4, 3},                  \
    .input_dim = {{BATCH, HEIGHT, WIDTH, C}, {BATCH, WORDS, D}}, .only_adds = {false, true},       \
    .output_rank = 4, .output_dim = {BATCH, HEIGHT, WIDTH, C}, .checked = 10

/* ---- adapters on every weight ------------------------------------------------------------
 */

static const dr_grad_adapter lora = {0};
static const dr_grad_adapter lora_cores = {.cores = true,
                                           .dropout = {.ranks = 0.4F, .output = 0.3F, .seed = 5}};
static const dr_grad_adapter lora_dropout = {
    .dropout = {.elements = 0.3F, .ranks = 0.4F, .by_sample = true, .seed = 7}};
static const dr_grad_adapter loha = {.kind = DR_ADAPTER_HADAMARD};
static const dr_grad_adapter loha_cores = {
    .kind = DR_ADAPTER_HADAMARD, .cores = true, .scalar = true};
static const dr_grad_adapter lokr = {.kind = DR_ADAPTER_KRONECKER, .whole = {true, true}};
static const dr_grad_adapter lokr_pairs = {.kind = DR_ADAPTER_KRONECKER};
static const dr_grad_adapter lokr_cores = {.kind = DR_ADAPTER_KRONECKER,
                                           .cores = true,
                                           .whole = {true, false},
                                           .dropout = {.rows = 0.4F, .seed = 9}};
static const dr_grad_adapter dora = {.magnitude = true};
static const dr_grad_adapter dokr = {.kind = DR_ADAPTER_KRONECKER,
                                     .whole = {true, false},
                                     .scalar = true,
                                     .magnitude = true,
                                     .by_input = true};

#define ADAPTED(tag)                                                                               \
    static void tag##_resblock_init(dr_grad_case *g)                                               \
    {                                                                                              \
        resblock_init(g);                                                                          \
        dr_grad_add_adapters(g, ".", &tag);                                                        \
    }
#define ADAPTED_TRANSFORMER(tag)                                                                   \
    static void tag##_transformer_init(dr_grad_case *g)                                            \
    {                                                                                              \
        transformer_init(g);                                                                       \
        dr_grad_add_adapters(g, ".", &tag);                                                        \
    }
ADAPTED(lora)
ADAPTED_TRANSFORMER(lora)
ADAPTED(lora_cores)
ADAPTED(lora_dropout)
ADAPTED_TRANSFORMER(lora_dropout)
ADAPTED(loha)
ADAPTED_TRANSFORMER(loha)
ADAPTED(loha_cores)
ADAPTED(lokr)
ADAPTED_TRANSFORMER(lokr)
ADAPTED(lokr_pairs)
ADAPTED(lokr_cores)
ADAPTED(dora)
ADAPTED_TRANSFORMER(dora)
ADAPTED(dokr)
ADAPTED_TRANSFORMER(dokr)

static void downsampler_init(dr_grad_case *g)
{
    dr_params *set = &g->model.params;
    g->block = dr_arena_alloc(&g->model.arena, sizeof(dr_conv_layer));
    (void)dr_params_begin_segment(set);
    dr_conv_init(g->block, set, "conv", C, D, 3, 2, 1);
    dr_grad_add_adapters(g, "conv", &lora);
}

static dr_status downsampler_step(dr_context *cx, dr_grad_case *g, dr_tensor *y, dr_frame f)
{
    (void)f;
    DR_TRY(dr_conv_forward(cx, g->block, &g->x[0], y));
    return g->backward ? dr_conv_backward(cx, g->block, &g->x[0], &g->dy, g->dx[0], g->mode)
                       : DR_OK;
}

#define DOWNSAMPLER                                                                                \
    .name = "downsampler with adapter", .init = downsampler_init, .step = downsampler_step,        \
    .n_inputs = 1, .input_rank = {4}, .input_dim = {{BATCH, HEIGHT, 4, C}}, .output_rank = 4,      \
    .output_dim = {BATCH, 2, 2, D}, .checked = 24

static const dr_grad_block blocks[] = {
    {RESBLOCK("resblock", 8, 8)},
    {RESBLOCK("resblock with shortcut", 8, 12)},
    {RESBLOCK_TIME("resblock with time", resblock_init, 8, 8)},
    {RESBLOCK_TIME("resblock with time and shortcut", resblock_init, 12, 8)},
    {MHA("self attention", C, C, 2, true, false), .n_inputs = 1, .input_rank = {3},
     .input_dim = {{BATCH, TOKENS, C}}},
    {MHA("causal self attention", C, C, 4, true, true), .n_inputs = 1, .input_rank = {3},
     .input_dim = {{BATCH, TOKENS, C}}},
    {MHA("cross attention", C, D, 2, false, false), .n_inputs = 2, .input_rank = {3, 3},
     .input_dim = {{BATCH, TOKENS, C}, {BATCH, WORDS, D}}, .only_adds = {false, true}},
    {TRANSFORMER("transformer of SD1", transformer_init, 1, false)},
    {TRANSFORMER("transformer of SD2", transformer_init, 1, true)},
    {TRANSFORMER("two blocks, SD1", transformer_init, 2, false)},
    {TRANSFORMER("two blocks, SD2", transformer_init, 2, true)},
    {RESBLOCK_TIME("resblock with adapters", lora_resblock_init, 12, 8)},
    {TRANSFORMER("transformer with adapters", lora_transformer_init, 1, false)},
    {RESBLOCK_TIME("resblock with cores and dropout", lora_cores_resblock_init, 12, 8)},
    {RESBLOCK_TIME("resblock with dropout as in sd-scripts", lora_dropout_resblock_init, 12, 8)},
    {TRANSFORMER("transformer with dropout as in sd-scripts", lora_dropout_transformer_init, 1,
                 false)},
    {RESBLOCK_TIME("resblock with LoHa", loha_resblock_init, 12, 8)},
    {TRANSFORMER("transformer with LoHa", loha_transformer_init, 1, true)},
    {RESBLOCK_TIME("resblock with LoHa with cores", loha_cores_resblock_init, 12, 8)},
    {RESBLOCK_TIME("resblock with LoKr", lokr_resblock_init, 12, 8)},
    {TRANSFORMER("transformer with LoKr", lokr_transformer_init, 1, false)},
    {RESBLOCK_TIME("resblock with LoKr of pairs", lokr_pairs_resblock_init, 12, 8)},
    {RESBLOCK_TIME("resblock with LoKr with cores, dropout", lokr_cores_resblock_init, 12, 8)},
    {RESBLOCK_TIME("resblock with DoRA", dora_resblock_init, 12, 8)},
    {TRANSFORMER("transformer with DoRA", dora_transformer_init, 1, true)},
    {RESBLOCK_TIME("resblock with LoKr with magnitudes of inputs", dokr_resblock_init, 12, 8)},
    {TRANSFORMER("transformer with LoKr with magnitudes of inputs", dokr_transformer_init, 1,
                 false)},
    {DOWNSAMPLER},
};

int main(void)
{
    return dr_grad_run("block gradients", blocks, sizeof blocks / sizeof *blocks);
}
