#include "train/lora/lora_network.h"

#include "base/philox.h"
#include "io/xxh3.h"
#include "train/lora/lora_parts.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- which weights --------------------------------------------------------------------------- */

typedef enum site_kind { NO_SITE, OF_TEXT, OF_TRANSFORMER, OF_CONVOLUTIONS } site_kind;

/* By the entry's name; norms, biases, embeddings, first and last convolution are no sites. */
static site_kind kind_of(dr_model_part part, const dr_param *p)
{
    if (p->kind == DR_PARAM_VECTOR) {
        return NO_SITE;
    }
    if (part == DR_PART_TEXT_ENCODER) {
        return strstr(p->name, ".layers.") != NULL ? OF_TEXT : NO_SITE;
    }
    return strstr(p->name, ".attentions.") != NULL ? OF_TRANSFORMER
           : strstr(p->name, ".resnets.") != NULL || strstr(p->name, "samplers.") != NULL
               ? OF_CONVOLUTIONS
               : NO_SITE;
}

static bool is_3x3(const dr_param *p)
{
    return p->kind == DR_PARAM_CONV && p->dim[2] > 1;
}

int dr_lora_block_of(const char *path)
{
    char kind[16];
    int i;
    int j;
    if (strncmp(path, "mid_block.", 10) == 0) {
        return DR_LORA_MIDDLE;
    }
    const bool up = strncmp(path, "up_blocks.", 10) == 0;
    if (sscanf(path, up ? "up_blocks.%d.%15[a-z].%d" : "down_blocks.%d.%15[a-z].%d", &i, kind,
               &j) != 3) {
        return -1;
    }
    const bool sampler = strstr(kind, "samplers") != NULL;
    const int block =
        up ? (sampler ? 15 + 3 * i : 13 + 3 * i + j) : (sampler ? 3 + 3 * i : 1 + 3 * i + j);
    return block < DR_LORA_BLOCKS ? block : -1;
}

/* Whether a preset of LyCORIS has the weight. */
static bool preset_takes(const dr_lora_targets *t, dr_model_part part, const dr_param *p)
{
    const char *name = p->name;
    if (p->kind == DR_PARAM_VECTOR || (is_3x3(p) && !t->windows)) {
        return false;
    }
    if (part == DR_PART_TEXT_ENCODER) {
        return (t->text_attention && strstr(name, ".self_attn.") != NULL) ||
               (t->text_mlp && strstr(name, ".mlp.") != NULL);
    }
    if (strstr(name, ".attentions.") != NULL) {
        return t->transformer || (t->attention && strstr(name, ".attn") != NULL);
    }
    return (t->residual && strstr(name, ".resnets.") != NULL) ||
           (t->samplers && strstr(name, "samplers.") != NULL) ||
           (t->time && dr_str_starts(name, "time_embedding.")) ||
           (t->ends &&
            (strcmp(name, "conv_in.weight") == 0 || strcmp(name, "conv_out.weight") == 0));
}

/* Whether the settings put an adapter on the weight. */
static bool is_wanted(const dr_lora_settings *s, const dr_lora_file *file, dr_model_part part,
                      const dr_param *p)
{
    if (s->lycoris.preset != NULL) {
        return preset_takes(&s->lycoris, part, p);
    }
    const site_kind kind = kind_of(part, p);
    return kind != NO_SITE && (kind != OF_CONVOLUTIONS || file != NULL || s->has_conv);
}

/* Python's re.fullmatch, as sd-scripts' networks have it: the pattern is the whole path. */
static bool matches(const dr_lora_patterns *list, const char *path)
{
    bool found = false;
    for (size_t i = 0; i < list->n && !found; i++) {
        regex_t compiled;
        dr_str anchored = {0};
        dr_str_printf(&anchored, "^(%s)$", list->at[i]);
        DR_CHECK(regcomp(&compiled, dr_str_get(&anchored), REG_EXTENDED | REG_NOSUB) == 0,
                 "%s was checked before", list->at[i]);
        found = regexec(&compiled, path, 0, NULL, 0) == 0;
        regfree(&compiled);
        dr_str_free(&anchored);
    }
    return found;
}

/* Rank and alpha by the settings; rank 0: no adapter. */
static void choose_rank(const dr_lora_settings *s, dr_model_part part, dr_lora_site *site)
{
    const bool large = is_3x3(site->weight);
    if (part == DR_PART_TEXT_ENCODER || !s->by_block) {
        site->rank = large ? s->conv_dim : s->dim;
        site->alpha = large ? s->conv_alpha : s->alpha;
        return;
    }
    if (site->block >= 0) {
        site->rank = large ? s->conv_block_dim[site->block] : s->block_dim[site->block];
        site->alpha = large ? s->conv_block_alpha[site->block] : s->block_alpha[site->block];
    }
}

/* ---- construction ---------------------------------------------------------------------------- */

typedef struct builder {
    dr_lora_network *l;
    dr_arena *arena;
    const dr_lora_settings *s;
    const dr_lora_file *file;
} builder;

/* "lora_unet_" and the path with '_' for '.'. */
static const char *kohya_name(dr_arena *arena, dr_model_part part, const char *path)
{
    char *name = dr_arena_printf(arena, "lora_%s_%s", part == DR_PART_UNET ? "unet" : "te", path);
    for (char *c = name; *c != '\0'; c++) {
        *c = *c == '.' ? '_' : *c;
    }
    return name;
}

/* Rank and alpha of the file's module; rank 0: it has none. */
static dr_status take_rank(const builder *b, dr_lora_site *site)
{
    const dr_lora_module *m = dr_lora_file_find(b->file, site->name);
    if (m == NULL) {
        return DR_OK;
    }
    if (m->kind != b->s->kind || m->rank == 0) {
        DR_FAIL(DR_UNSUPPORTED,
                "--dim_from_weights: %s is of another kind than this run's; merge the file with "
                "--base_weights instead",
                site->name);
    }
    site->rank = m->rank;
    site->alpha = m->alpha;
    return DR_OK;
}

static dr_status add_site(builder *b, dr_model_part part, dr_param *w)
{
    const dr_lora_settings *s = b->s;
    if (!is_wanted(s, b->file, part, w)) {
        return DR_OK;
    }
    dr_lora_site *site = &b->l->site[b->l->n_sites];
    *site = (dr_lora_site){.part = part, .weight = w, .block = -1};
    site->path = dr_arena_strndup(b->arena, w->name, strlen(w->name) - strlen(".weight"));
    site->name = kohya_name(b->arena, part, site->path);
    site->block = part == DR_PART_UNET ? dr_lora_block_of(site->path) : -1;
    if (matches(&s->exclude, site->path) && !matches(&s->include, site->path)) {
        return DR_OK;
    }
    if (b->file != NULL) {
        DR_TRY(take_rank(b, site));
    } else {
        choose_rank(s, part, site);
    }
    if (site->rank == 0) {
        return DR_OK;
    }
    b->l->n_sites++;
    return dr_lora_parts_add(&b->l->set[part], s, b->file != NULL, site);
}

static dr_status add_part(builder *b, dr_model_part part, dr_params *base)
{
    dr_params *set = &b->l->set[part];
    int segment = -1;
    for (size_t i = 0; i < base->n; i++) {
        for (; segment < base->at[i]->segment; segment++) {
            (void)dr_params_begin_segment(set);
        }
        const bool wanted = part == DR_PART_UNET ? b->s->unet : b->s->text_encoder;
        if (wanted) {
            DR_TRY(add_site(b, part, base->at[i]));
        }
    }
    return DR_OK;
}

dr_status dr_lora_network_init(dr_lora_network *l, dr_arena *arena, const dr_lora_settings *s,
                               const dr_lora_file *file, dr_params *unet, dr_params *text)
{
    builder b = {.l = l, .arena = arena, .s = s, .file = file};
    *l = (dr_lora_network){.site = dr_arena_array(arena, unet->n + text->n, sizeof *l->site)};
    dr_params_init(&l->set[DR_PART_UNET], arena);
    dr_params_init(&l->set[DR_PART_TEXT_ENCODER], arena);
    DR_TRY(add_part(&b, DR_PART_TEXT_ENCODER, text));
    DR_TRY(add_part(&b, DR_PART_UNET, unet));
    if (l->n_sites == 0) {
        DR_FAIL(DR_INVALID,
                "the LoRA has no module: see --network_dim, --network_args (block_dims, "
                "exclude_patterns), --network_train_..._only");
    }
    return DR_OK;
}

void dr_lora_network_deinit(dr_lora_network *l)
{
    dr_params_deinit(&l->set[DR_PART_UNET]);
    dr_params_deinit(&l->set[DR_PART_TEXT_ENCODER]);
    *l = (dr_lora_network){0};
}

const dr_lora_site *dr_lora_site_of(const dr_lora_network *l, const dr_param *p)
{
    for (size_t i = 0; i < l->n_sites; i++) {
        dr_param *all[DR_ADAPTER_PARAMS];
        for (int k = dr_adapter_params(&l->site[i].adapter, all) - 1; k >= 0; k--) {
            if (all[k] == p) {
                return &l->site[i];
            }
        }
    }
    DR_CHECK(false, "%s is no factor of this LoRA", p->name);
    return NULL;
}

static bool is_trained(const dr_adapter *a)
{
    dr_param *all[DR_ADAPTER_PARAMS];
    return dr_adapter_params(a, all) > 0 && all[0]->trainable; /* all of them are, or none */
}

void dr_lora_network_draw(dr_lora_network *l, const dr_lora_batch *b)
{
    for (size_t i = 0; i < l->n_sites; i++) {
        dr_lora_site *site = &l->site[i];
        dr_adapter *a = &site->adapter;
        a->dropped = false;
        a->dropout.active = b != NULL && is_trained(a);
        if (!a->dropout.active) {
            continue;
        }
        dr_philox stream;
        const uint64_t name = dr_xxh3_bytes(site->name, strlen(site->name)).low;
        a->dropout.seed = b->seed;
        a->dropout.time = b->epoch;
        a->dropout.item = b->sample | name << 32;
        dr_philox_init(&stream, b->seed, DR_RANDOM_MODULE_DROPOUT, b->epoch, a->dropout.item);
        a->dropped = (double)dr_philox_uniform(&stream) < b->module_dropout;
    }
}
