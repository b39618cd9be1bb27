#include "train/lora/lora_network.h"

#include "base/philox.h"
#include "io/xxh3.h"

#include <math.h>
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

/* Python's re.match: the pattern holds from the start of the path on. */
static bool matches(const dr_lora_patterns *list, const char *path)
{
    bool found = false;
    for (size_t i = 0; i < list->n && !found; i++) {
        regex_t compiled;
        dr_str anchored = {0};
        dr_str_printf(&anchored, "^(%s)", list->at[i]);
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

static void add_pair(dr_params *set, const dr_lora_site *site, int which, dr_param **up,
                     dr_param **down)
{
    const dr_param *w = site->weight;
    const int64_t *d = w->dim;
    *up = dr_params_add(set, DR_PARAM_MATRIX, 2, DR_DIMS(d[0], site->rank), "%s.hada_w%d_a",
                        site->name, which);
    *down = dr_params_add(set, w->kind, w->rank, DR_DIMS(site->rank, d[1], d[2], d[3]),
                          "%s.hada_w%d_b", site->name, which);
}

static void add_params(const builder *b, dr_lora_site *site)
{
    const dr_param *w = site->weight;
    const int64_t *d = w->dim;
    dr_params *set = &b->l->set[site->part];
    dr_adapter *a = &site->adapter;
    a->scale = (float)(site->alpha / (double)site->rank);
    site->weight->adapter = a;
    if (b->s->kind == DR_LORA_HADAMARD) {
        add_pair(set, site, 1, &a->up, &a->down);
        add_pair(set, site, 2, &a->up2, &a->down2);
        return;
    }
    a->down = dr_params_add(set, w->kind, w->rank, DR_DIMS(site->rank, d[1], d[2], d[3]),
                            "%s.lora_down.weight", site->name);
    a->up = dr_params_add(set, w->kind, w->rank, DR_DIMS(d[0], site->rank, 1, 1),
                          "%s.lora_up.weight", site->name);
}

static const char *kind_name(dr_lora_kind kind)
{
    return kind == DR_LORA_HADAMARD ? "LoHa" : "LoRA";
}

/* Whether a module of a file has the factors of such an adapter and nothing more. */
static bool is_trainable_kind(const dr_lora_module *m, dr_lora_kind kind)
{
    return m->kind == kind && m->part[DR_LORA_MID] == NULL && m->part[DR_LORA_T1] == NULL &&
           m->part[DR_LORA_MAGNITUDE] == NULL && m->part[DR_LORA_BIAS] == NULL;
}

/* Rank and alpha of the file's module; rank 0: it has none. */
static dr_status take_rank(const builder *b, dr_lora_site *site)
{
    const dr_lora_module *m = dr_lora_file_find(b->file, site->name);
    if (m == NULL) {
        return DR_OK;
    }
    if (!is_trainable_kind(m, b->s->kind)) {
        DR_FAIL(DR_UNSUPPORTED,
                "--dim_from_weights: %s is no plain %s; merge the file with "
                "--base_weights instead",
                site->name, kind_name(b->s->kind));
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
    site->alpha = site->alpha != 0.0 ? site->alpha : (double)site->rank;
    add_params(b, site);
    b->l->n_sites++;
    return DR_OK;
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
        const dr_adapter *a = &l->site[i].adapter;
        if (a->down == p || a->up == p || a->down2 == p || a->up2 == p) {
            return &l->site[i];
        }
    }
    DR_CHECK(false, "%s is no factor of this LoRA", p->name);
    return NULL;
}

void dr_lora_network_draw(dr_lora_network *l, double chance, uint64_t seed, uint32_t epoch,
                          uint32_t sample)
{
    for (size_t i = 0; i < l->n_sites; i++) {
        dr_lora_site *site = &l->site[i];
        dr_philox stream;
        const uint64_t name = dr_xxh3_bytes(site->name, strlen(site->name)).low;
        dr_philox_init(&stream, seed, DR_RANDOM_MODULE_DROPOUT, epoch, sample | name << 32);
        site->adapter.dropped =
            site->adapter.down->trainable && (double)dr_philox_uniform(&stream) < chance;
    }
}

/* ---- values ------------------------------------------------------------------------------------
 */

static void put_draws(const dr_param *p, const float *draws, float *values)
{
    dr_param_from_file_order(p, draws, DR_F32, values + p->offset, DR_F32);
}

static void start_normal(const dr_param *p, float deviation, dr_philox *stream, float *values)
{
    float *draws = dr_xcalloc((size_t)p->n, sizeof *draws);
    dr_philox_normal(stream, draws, (size_t)p->n);
    for (int64_t k = 0; k < p->n; k++) {
        draws[k] *= deviation;
    }
    put_draws(p, draws, values);
    free(draws);
}

/* LoRA: down uniform. LoHa as LyCORIS: normal, of deviation 1 and the first pair's up 0.1. The rest
 * stays zero. */
static void start_site(const dr_lora_site *site, dr_philox *stream, float *values)
{
    const dr_param *down = site->adapter.down;
    if (site->adapter.down2 != NULL) {
        start_normal(down, 1.0F, stream, values);
        start_normal(site->adapter.up, 0.1F, stream, values);
        start_normal(site->adapter.down2, 1.0F, stream, values);
        return;
    }
    const double bound = 1.0 / sqrt((double)(down->n / site->rank));
    float *draws = dr_xcalloc((size_t)down->n, sizeof *draws);
    for (int64_t k = 0; k < down->n; k++) {
        draws[k] = (float)((2.0 * (double)dr_philox_uniform(stream) - 1.0) * bound);
    }
    put_draws(down, draws, values);
    free(draws);
}

void dr_lora_network_start(const dr_lora_network *l, dr_model_part part, uint64_t seed,
                           float *values)
{
    memset(values, 0, (size_t)l->set[part].n_elems * sizeof *values);
    for (size_t i = 0; i < l->n_sites; i++) {
        const dr_lora_site *site = &l->site[i];
        if (site->part == part) {
            dr_philox stream;
            dr_philox_init(&stream, seed, DR_RANDOM_INIT, 0,
                           dr_xxh3_bytes(site->name, strlen(site->name)).low);
            start_site(site, &stream, values);
        }
    }
}

static dr_status read_factor(const dr_lora_file *file, const dr_file_tensor *part,
                             const dr_param *p, float *values)
{
    float *numbers = dr_xcalloc((size_t)p->n, sizeof *numbers);
    const dr_status st = dr_lora_part_read(file, part, numbers);
    if (st == DR_OK) {
        dr_param_from_file_order(p, numbers, DR_F32, values + p->offset, DR_F32);
    }
    free(numbers);
    return st;
}

static dr_status read_site(const dr_lora_file *file, const dr_lora_module *m, const dr_adapter *a,
                           float *values)
{
    if (a->down2 == NULL) {
        DR_TRY(read_factor(file, m->part[DR_LORA_DOWN], a->down, values));
        return read_factor(file, m->part[DR_LORA_UP], a->up, values);
    }
    DR_TRY(read_factor(file, m->part[DR_LORA_W1_A], a->up, values));
    DR_TRY(read_factor(file, m->part[DR_LORA_W1_B], a->down, values));
    DR_TRY(read_factor(file, m->part[DR_LORA_W2_A], a->up2, values));
    return read_factor(file, m->part[DR_LORA_W2_B], a->down2, values);
}

static dr_status check_module(const dr_lora_file *file, const dr_lora_module *m,
                              const dr_lora_site *site)
{
    const char *path = dr_tensor_file_path(dr_lora_file_tensors(file));
    const dr_lora_kind kind = site->adapter.down2 != NULL ? DR_LORA_HADAMARD : DR_LORA_FACTORS;
    if (!is_trainable_kind(m, kind)) {
        DR_FAIL(DR_UNSUPPORTED, "%s: %s is no plain %s", path, m->name, kind_name(kind));
    }
    if (!dr_lora_fits(m, site->weight->rank, site->weight->dim)) {
        DR_FAIL(DR_FORMAT,
                "%s: %s changes a weight of %lld x %lld (kernel %lld), the model has "
                "another size: the LoRA is for another model",
                path, m->name, (long long)m->out, (long long)m->in, (long long)m->kernel[0]);
    }
    if (m->rank != site->rank) {
        DR_FAIL(DR_FORMAT,
                "%s: %s has rank %lld, this run %lld: give --network_dim %lld, or "
                "--dim_from_weights",
                path, m->name, (long long)m->rank, (long long)site->rank, (long long)m->rank);
    }
    return DR_OK;
}

dr_status dr_lora_network_read(const dr_lora_network *l, dr_model_part part,
                               const dr_lora_file *file, float *values, size_t *n_missing)
{
    for (size_t i = 0; i < l->n_sites; i++) {
        const dr_lora_site *site = &l->site[i];
        const dr_lora_module *m = dr_lora_file_find(file, site->name);
        if (site->part != part) {
            continue;
        }
        if (m == NULL) {
            (*n_missing)++;
            continue;
        }
        DR_TRY(check_module(file, m, site));
        DR_TRY(read_site(file, m, &site->adapter, values));
    }
    return DR_OK;
}
