#include "train/lora/lora_set.h"

#include "base/file.h"
#include "train/lora/lora_write.h"

#include <stdlib.h>
#include <string.h>

void dr_lora_set_init(dr_lora_set *s)
{
    *s = (dr_lora_set){0};
    dr_arena_init(&s->arena);
}

void dr_lora_set_deinit(dr_lora_set *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->at[i].up);
        free(s->at[i].down);
    }
    free(s->at);
    dr_arena_deinit(&s->arena);
    *s = (dr_lora_set){0};
}

int64_t dr_lora_columns(const dr_lora_shape *shape)
{
    return shape->in * shape->kernel[0] * shape->kernel[1];
}

dr_lora_shape dr_lora_module_shape(const dr_lora_module *m)
{
    const dr_file_tensor *t = m->part[DR_LORA_DOWN];
    return (dr_lora_shape){.out = m->out,
                           .in = m->in,
                           .kernel = {m->kernel[0], m->kernel[1]},
                           .conv = m->kernel[0] * m->kernel[1] > 1 || (t != NULL && t->rank == 4)};
}

dr_status dr_lora_set_add(dr_lora_set *s, const char *name, const dr_lora_shape *shape,
                          int64_t rank, dr_lora_factors **out)
{
    void *up = NULL;
    void *down = NULL;
    dr_status st = dr_try_calloc((size_t)shape->out, (size_t)rank * sizeof(float), &up);
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)dr_lora_columns(shape), (size_t)rank * sizeof(float), &down);
    }
    if (st != DR_OK) {
        free(up);
        return st;
    }
    if (s->n == s->cap) {
        s->cap = s->cap > 0 ? 2 * s->cap : 256;
        s->at = dr_xrealloc(s->at, s->cap, sizeof *s->at);
    }
    s->at[s->n] = (dr_lora_factors){.name = dr_arena_strdup(&s->arena, name),
                                    .shape = *shape,
                                    .rank = rank,
                                    .alpha = (double)rank,
                                    .down = down,
                                    .up = up};
    *out = &s->at[s->n++];
    return DR_OK;
}

/* ---- metadata ------------------------------------------------------------------------------ */

void dr_lora_set_describe(const dr_lora_set *s, bool v2, bool v_prediction, const char *args,
                          dr_metadata *m)
{
    bool same_rank = true;
    bool same_alpha = true;
    for (size_t i = 1; i < s->n; i++) {
        same_rank = same_rank && s->at[i].rank == s->at[0].rank;
        same_alpha = same_alpha && s->at[i].alpha == s->at[0].alpha;
    }
    const dr_ss_facts facts = {
        .v2 = dr_fact_bool(v2),
        .base_model_version = dr_fact_text(dr_base_model_version(v2, v_prediction)),
        .network_module = dr_fact_text("networks.lora"),
        .network_dim = s->n > 0 && same_rank ? dr_fact_int(s->at[0].rank) : dr_fact_text("Dynamic"),
        .network_alpha =
            s->n > 0 && same_alpha ? dr_fact_float(s->at[0].alpha) : dr_fact_text("Dynamic"),
        .network_args = args != NULL ? dr_fact_text(args) : (dr_fact){0}};
    dr_metadata_add_ss(m, &facts, true);
}

/* ---- writing ------------------------------------------------------------------------------- */

enum { PER_MODULE = 3 }; /* alpha, lora_down, lora_up */

typedef struct writing {
    const dr_lora_set *set;
    dr_dtype dtype;
    dr_arena arena;
    dr_safetensors_entry *entry; /* PER_MODULE for each module */
    size_t n;
} writing;

static void add_entry(writing *w, const char *name, const char *end, int rank, const int64_t *dims)
{
    int64_t *kept = dr_arena_array(&w->arena, 4, sizeof *kept);
    memcpy(kept, dims, 4 * sizeof *kept);
    w->entry[w->n++] = (dr_safetensors_entry){.name = dr_arena_printf(&w->arena, "%s%s", name, end),
                                              .dtype = w->dtype,
                                              .rank = rank,
                                              .shape = kept};
}

static void list_entries(writing *w)
{
    w->entry = dr_arena_array(&w->arena, w->set->n * PER_MODULE, sizeof *w->entry);
    for (size_t i = 0; i < w->set->n; i++) {
        const dr_lora_factors *m = &w->set->at[i];
        const dr_lora_shape *s = &m->shape;
        const int rank = s->conv ? 4 : 2;
        const int64_t down[4] = {m->rank, s->in, s->kernel[0], s->kernel[1]};
        const int64_t up[4] = {s->out, m->rank, 1, 1};
        add_entry(w, m->name, ".alpha", 0, up);
        add_entry(w, m->name, ".lora_down.weight", rank, down);
        add_entry(w, m->name, ".lora_up.weight", rank, up);
    }
}

/* The bytes of an entry; the caller frees *out. */
static dr_status bytes_of(void *user, size_t i_entry, void **out, size_t *n)
{
    const writing *w = user;
    const dr_lora_factors *m = &w->set->at[i_entry / PER_MODULE];
    const size_t which = i_entry % PER_MODULE;
    const float alpha = (float)m->alpha;
    const float *from = which == 0 ? &alpha : which == 1 ? m->down : m->up;
    const int64_t elems = which == 0   ? 1
                          : which == 1 ? m->rank * dr_lora_columns(&m->shape)
                                       : m->shape.out * m->rank;
    *n = (size_t)elems * dr_dtype_size(w->dtype);
    DR_TRY(dr_try_calloc((size_t)elems, dr_dtype_size(w->dtype), out));
    dr_convert(*out, w->dtype, from, DR_F32, (size_t)elems);
    return DR_OK;
}

dr_status dr_lora_check_target(const char *path)
{
    dr_outfile probe;
    if (!dr_str_ends(path, ".safetensors") && !dr_lora_is_torch(path)) {
        DR_FAIL(DR_INVALID,
                "%s: a LoRA is written as .safetensors, .ckpt, .pt, .pth or .bin; give one of "
                "these endings",
                path);
    }
    DR_TRY(dr_outfile_open(&probe, path));
    dr_outfile_abort(&probe);
    return DR_OK;
}

dr_status dr_lora_set_write(const dr_lora_set *s, const char *path, dr_dtype dtype,
                            const dr_metadata *m)
{
    writing w = {.set = s, .dtype = dtype};
    dr_arena_init(&w.arena);
    list_entries(&w);
    const dr_lora_content c = {
        .entries = w.entry, .n_entries = w.n, .meta = m, .bytes = bytes_of, .user = &w};
    const dr_status st = dr_lora_write(path, &c);
    dr_arena_deinit(&w.arena);
    return st;
}
