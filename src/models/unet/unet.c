#include "models/unet/unet.h"

#include <stdio.h>

dr_status dr_unet_config_check(const dr_unet_config *c)
{
    if (c->n_levels < 1 || c->n_levels > DR_UNET_MAX_LEVELS) {
        DR_FAIL(DR_FORMAT, "block_out_channels has %d levels, expected 1 to %d", c->n_levels,
                DR_UNET_MAX_LEVELS);
    }
    if (c->layers_per_block < 1 || c->norm_groups < 1 || c->context_dim < 1 || c->in_channels < 1 ||
        c->out_channels < 1) {
        DR_FAIL(DR_FORMAT, "layers_per_block, norm_num_groups, cross_attention_dim, in_channels "
                           "and out_channels must be positive");
    }
    /* time, conv_in, (layers + 1) per level both ways, middle, head */
    if (c->layers_per_block > DR_UNET_MAX_SEGMENTS ||
        2 * c->n_levels * (c->layers_per_block + 1) + 4 > DR_UNET_MAX_SEGMENTS) {
        DR_FAIL(DR_FORMAT, "layers_per_block %d is too many", c->layers_per_block);
    }
    if (c->channels[0] % 2 != 0) {
        DR_FAIL(DR_FORMAT,
                "block_out_channels[0] is %lld, expected an even number: the time embedding has "
                "as many sines as cosines",
                (long long)c->channels[0]);
    }
    for (int i = 0; i < c->n_levels; i++) {
        if (c->channels[i] < 1 || c->channels[i] % c->norm_groups != 0) {
            DR_FAIL(DR_FORMAT, "block_out_channels[%d] is %lld, not divisible into %d norm groups",
                    i, (long long)c->channels[i], c->norm_groups);
        }
        if (c->heads[i] < 1 || c->channels[i] % c->heads[i] != 0) {
            DR_FAIL(DR_FORMAT,
                    "block_out_channels[%d] is %lld, not divisible by %d heads "
                    "(attention_head_dim)",
                    i, (long long)c->channels[i], c->heads[i]);
        }
        if (c->depth[i] < 1 || c->depth[i] > DR_MAX_DEPTH) {
            DR_FAIL(DR_FORMAT, "transformer_layers_per_block is %d, expected 1 to %d", c->depth[i],
                    DR_MAX_DEPTH);
        }
    }
    return DR_OK;
}

typedef struct builder {
    dr_unet *u;
    dr_params *set;
    int skips[DR_UNET_MAX_SEGMENTS]; /* stack of value indices; a value is a segment's output */
    int n_skips;
    int64_t channels[DR_UNET_MAX_SEGMENTS]; /* of each value */
} builder;

static dr_unet_segment *begin_segment(builder *b)
{
    dr_unet_segment *s = &b->u->segment[b->u->n_segments++];
    (void)dr_params_begin_segment(b->set);
    *s = (dr_unet_segment){.source = -1};
    return s;
}

/* Output of the newest segment has c channels; it may serve as skip. */
static void end_segment(builder *b, dr_unet_segment *s, int64_t c, bool pushes)
{
    int value = b->u->n_segments - 1;
    s->pushes = pushes;
    b->channels[value] = c;
    if (pushes) {
        b->skips[b->n_skips++] = value;
    }
}

static int64_t pop_skip(builder *b, dr_unet_segment *s)
{
    DR_CHECK(b->n_skips > 0, "unet: no skip is left");
    s->pops = true;
    s->source = b->skips[--b->n_skips];
    return b->channels[s->source];
}

static dr_unet_unit *add_unit(const builder *b, dr_unet_segment *s, dr_unet_unit_kind kind)
{
    DR_CHECK(s->n_units < DR_UNET_MAX_UNITS, "unet: too many units in a segment");
    dr_unet_unit *unit = &s->unit[s->n_units++];
    unit->kind = kind;
    unit->first_param = b->set->n;
    return unit;
}

static void add_resblock(builder *b, dr_unet_segment *s, const char *name, int64_t in, int64_t out)
{
    const dr_unet_config *c = &b->u->config;
    dr_unet_unit *unit = add_unit(b, s, DR_UNIT_RESBLOCK);
    unit->res = dr_arena_alloc(b->set->arena, sizeof *unit->res);
    dr_resblock_init(unit->res, b->set, name, in, out, 4 * c->channels[0], c->norm_groups,
                     c->norm_eps);
}

static void add_transformer(builder *b, dr_unet_segment *s, const char *name, int level)
{
    const dr_unet_config *c = &b->u->config;
    dr_unet_unit *unit = add_unit(b, s, DR_UNIT_TRANSFORMER);
    unit->attn = dr_arena_alloc(b->set->arena, sizeof *unit->attn);
    dr_transformer_init(unit->attn, b->set, name,
                        &(dr_transformer_config){.channels = c->channels[level],
                                                 .context_dim = c->context_dim,
                                                 .heads = c->heads[level],
                                                 .depth = c->depth[level],
                                                 .groups = c->norm_groups,
                                                 .linear_projection = c->linear_projection});
}

static void build_down(builder *b, int level)
{
    const dr_unet_config *c = &b->u->config;
    char name[128];
    int64_t out = c->channels[level];
    for (int j = 0; j < c->layers_per_block; j++) {
        int64_t in = b->channels[b->u->n_segments - 1];
        dr_unet_segment *s = begin_segment(b);
        (void)snprintf(name, sizeof name, "down_blocks.%d.resnets.%d", level, j);
        add_resblock(b, s, name, in, out);
        if (c->attention[level]) {
            (void)snprintf(name, sizeof name, "down_blocks.%d.attentions.%d", level, j);
            add_transformer(b, s, name, level);
        }
        end_segment(b, s, out, true);
    }
    if (level + 1 < c->n_levels) {
        dr_unet_segment *s = begin_segment(b);
        (void)snprintf(name, sizeof name, "down_blocks.%d.downsamplers.0.conv", level);
        dr_conv_init(&add_unit(b, s, DR_UNIT_CONV)->conv, b->set, name, out, out, 3, 2, 1);
        end_segment(b, s, out, true);
    }
}

static void build_mid(builder *b)
{
    const dr_unet_config *c = &b->u->config;
    int level = c->n_levels - 1;
    int64_t ch = c->channels[level];
    dr_unet_segment *s = begin_segment(b);
    add_resblock(b, s, "mid_block.resnets.0", ch, ch);
    add_transformer(b, s, "mid_block.attentions.0", level);
    add_resblock(b, s, "mid_block.resnets.1", ch, ch);
    end_segment(b, s, ch, false);
}

/* up_blocks.i works at level n_levels-1-i. */
static void build_up(builder *b, int i)
{
    const dr_unet_config *c = &b->u->config;
    char name[128];
    int level = c->n_levels - 1 - i;
    int64_t out = c->channels[level];
    for (int j = 0; j <= c->layers_per_block; j++) {
        int64_t current = b->channels[b->u->n_segments - 1];
        dr_unet_segment *s = begin_segment(b);
        int64_t in = current + pop_skip(b, s);
        (void)snprintf(name, sizeof name, "up_blocks.%d.resnets.%d", i, j);
        add_resblock(b, s, name, in, out);
        if (c->attention[level]) {
            (void)snprintf(name, sizeof name, "up_blocks.%d.attentions.%d", i, j);
            add_transformer(b, s, name, level);
        }
        if (j == c->layers_per_block && level > 0) {
            (void)snprintf(name, sizeof name, "up_blocks.%d.upsamplers.0.conv", i);
            dr_conv_init(&add_unit(b, s, DR_UNIT_UPSAMPLE)->conv, b->set, name, out, out, 3, 1, 1);
        }
        end_segment(b, s, out, false);
    }
}

/* A unit's entries end where those of the next one begin. */
static void end_units(dr_unet *u)
{
    size_t end = u->params->n;
    for (int i = u->n_segments - 1; i >= 0; i--) {
        for (int k = u->segment[i].n_units - 1; k >= 0; k--) {
            u->segment[i].unit[k].end_param = end;
            end = u->segment[i].unit[k].first_param;
        }
    }
}

void dr_unet_init(dr_unet *u, const dr_unet_config *config, dr_params *set)
{
    *u = (dr_unet){.config = *config, .params = set, .trained = set};
    const dr_unet_config *c = &u->config;
    builder b = {.u = u, .set = set};
    (void)dr_params_begin_segment(set);
    dr_linear_init(&u->time1, set, "time_embedding.linear_1", c->channels[0], 4 * c->channels[0],
                   true);
    dr_linear_init(&u->time2, set, "time_embedding.linear_2", 4 * c->channels[0],
                   4 * c->channels[0], true);
    dr_unet_segment *s = begin_segment(&b);
    dr_conv_init(&add_unit(&b, s, DR_UNIT_CONV)->conv, set, "conv_in", c->in_channels,
                 c->channels[0], 3, 1, 1);
    end_segment(&b, s, c->channels[0], true);
    for (int i = 0; i < c->n_levels; i++) {
        build_down(&b, i);
    }
    build_mid(&b);
    for (int i = 0; i < c->n_levels; i++) {
        build_up(&b, i);
    }
    s = begin_segment(&b);
    dr_unet_unit *head = add_unit(&b, s, DR_UNIT_HEAD);
    dr_norm_init(&head->norm, set, "conv_norm_out", c->channels[0], c->norm_groups, c->norm_eps,
                 true);
    dr_conv_init(&head->conv, set, "conv_out", c->channels[0], c->out_channels, 3, 1, 1);
    end_segment(&b, s, c->out_channels, false);
    DR_CHECK(b.n_skips == 0, "unet: %d skips are left", b.n_skips);
    end_units(u);
}
