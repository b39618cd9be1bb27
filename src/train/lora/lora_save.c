#include "train/lora/lora_save.h"

#include "base/str.h"
#include "train/lora/lora_names.h"
#include "train/lora/lora_write.h"

#include <stdlib.h>
#include <string.h>

typedef struct writing {
    const dr_lora_network *l;
    const dr_lora_save *s;
    dr_arena arena;
    dr_safetensors_entry *entry;
    dr_lora_role *role; /* of each entry */
    const dr_lora_site **site;
    size_t n;
} writing;

static const char *const part_names[] = {"unet", "text_encoder"}; /* by dr_model_part */

static const char *entry_name(writing *w, const dr_lora_site *site, dr_lora_role role)
{
    static const dr_lora_kind kinds[] = {[DR_ADAPTER_FACTORS] = DR_LORA_FACTORS,
                                         [DR_ADAPTER_HADAMARD] = DR_LORA_HADAMARD,
                                         [DR_ADAPTER_KRONECKER] = DR_LORA_KRONECKER};
    if (w->s->dialect == DR_LORA_KOHYA) {
        return dr_arena_printf(&w->arena, "%s.%s", site->name,
                               dr_lora_role_name(role, kinds[site->adapter.kind]));
    }
    return dr_arena_printf(&w->arena, "%s.%s.%s", part_names[site->part], site->path,
                           role == DR_LORA_DOWN ? "lora_A.weight" : "lora_B.weight");
}

/* LyCORIS has the inner factors of LoHa and LoKr as matrices, with the window in the columns. */
static void set_shape(writing *w, dr_lora_role role, const dr_param *p, dr_safetensors_entry *e)
{
    e->rank = p->rank;
    e->shape = p->dim;
    if (role == DR_LORA_W1_B || role == DR_LORA_W2_B) {
        int64_t *shape = dr_arena_array(&w->arena, 2, sizeof *shape);
        shape[0] = p->dim[0];
        shape[1] = p->n / p->dim[0];
        e->rank = 2;
        e->shape = shape;
    }
}

static void list_entries(writing *w)
{
    const size_t most = w->l->n_sites * DR_LORA_ROLES;
    w->entry = dr_arena_array(&w->arena, most, sizeof *w->entry);
    w->role = dr_arena_array(&w->arena, most, sizeof *w->role);
    w->site = dr_arena_array(&w->arena, most, sizeof *w->site);
    for (size_t i = 0; i < most; i++) {
        const dr_lora_site *site = &w->l->site[i / DR_LORA_ROLES];
        const dr_lora_role role = (dr_lora_role)(i % DR_LORA_ROLES);
        const dr_param *p = site->role[role];
        if (role == DR_LORA_ALPHA ? w->s->dialect == DR_LORA_DIFFUSERS : p == NULL) {
            continue;
        }
        w->role[w->n] = role;
        w->site[w->n] = site;
        w->entry[w->n] = (dr_safetensors_entry){
            .name = entry_name(w, site, role), .dtype = w->s->dtype, .shape = site->weight->dim};
        if (p != NULL) {
            set_shape(w, role, p, &w->entry[w->n]);
        }
        w->n++;
    }
}

/* The scalar of an adapter, 1 without one, in *out. */
static dr_status read_scalar(const writing *w, const dr_lora_site *site, float *out)
{
    const dr_param *p = site->adapter.scalar;
    char raw[sizeof(double)];
    *out = 1.0F;
    if (p != NULL) {
        DR_TRY(w->s->device->download(raw, p->master.data, dr_nbytes(&p->master)));
        dr_convert(out, DR_F32, raw, p->master.dtype, 1);
    }
    return DR_OK;
}

/* What a factor is multiplied with: the scalar is in one of them, Diffusers' scale, too. */
static dr_status scale_of(const writing *w, const dr_lora_site *site, dr_lora_role role, float *out)
{
    *out = 1.0F;
    if (role == DR_LORA_UP || role == DR_LORA_W1 || role == DR_LORA_W1_A) {
        DR_TRY(read_scalar(w, site, out));
    }
    if (w->s->dialect == DR_LORA_DIFFUSERS && role == DR_LORA_UP) {
        *out *= site->adapter.scale;
    }
    return DR_OK;
}

/* A factor in a file's order, times scale. */
static dr_status factor_bytes(const writing *w, const dr_param *p, float scale, void *out)
{
    const size_t bytes = dr_nbytes(&p->master);
    void *memory = dr_xcalloc(1, bytes);
    float *numbers = dr_xcalloc((size_t)p->n, sizeof *numbers);
    const dr_status st = w->s->device->download(memory, p->master.data, bytes);
    dr_param_to_file_order(p, memory, p->master.dtype, numbers, DR_F32);
    for (int64_t i = 0; i < p->n; i++) {
        numbers[i] *= scale;
    }
    dr_convert(out, w->s->dtype, numbers, DR_F32, (size_t)p->n);
    free(memory);
    free(numbers);
    return st;
}

/* The bytes of an entry; the caller frees *out. */
static dr_status entry_bytes(void *user, size_t i, void **out, size_t *n)
{
    const writing *w = user;
    const dr_lora_site *site = w->site[i];
    const dr_param *p = site->role[w->role[i]]; /* NULL: alpha */
    *n = (p == NULL ? 1 : (size_t)p->n) * dr_dtype_size(w->s->dtype);
    *out = dr_xcalloc(1, *n);
    if (p == NULL) {
        const float alpha = (float)site->alpha;
        dr_convert(*out, w->s->dtype, &alpha, DR_F32, 1);
        return DR_OK;
    }
    float scale;
    DR_TRY(scale_of(w, site, w->role[i], &scale));
    return factor_bytes(w, p, scale, *out);
}

/* "unet.<key>": {path: rank, ...} of the sites whose rank is not r. */
static void add_pattern(const writing *w, dr_model_part part, const char *key, int64_t r, dr_str *s)
{
    const char *between = "";
    dr_str_printf(s, ", \"%s.%s\": {", part_names[part], key);
    for (size_t i = 0; i < w->l->n_sites; i++) {
        const dr_lora_site *site = &w->l->site[i];
        if (site->part == part && site->rank != r) {
            dr_str_printf(s, "%s\"%s\": %lld", between, site->path, (long long)site->rank);
            between = ", ";
        }
    }
    dr_str_add(s, "}");
}

/*
 * Diffusers' "lora_adapter_metadata": the LoraConfig of each network. Without it diffusers 0.38
 * takes one alpha for all modules, which is wrong where ranks differ.
 */
static const char *describe_adapters(writing *w)
{
    dr_str s = {0};
    dr_str_add(&s, "{");
    for (int part = DR_PART_UNET; part <= DR_PART_TEXT_ENCODER; part++) {
        const char *name = part_names[part];
        int64_t r = 0;
        dr_str modules = {0};
        for (size_t i = 0; i < w->l->n_sites; i++) {
            const dr_lora_site *site = &w->l->site[i];
            if (site->part == (dr_model_part)part) {
                dr_str_printf(&modules, "%s\"%s\"", r > 0 ? ", " : "", site->path);
                r = r > 0 ? r : site->rank;
            }
        }
        if (r > 0) {
            dr_str_printf(&s,
                          "%s\"%s.r\": %lld, \"%s.lora_alpha\": %lld, \"%s.target_modules\": [%s]",
                          s.len > 1 ? ", " : "", name, (long long)r, name, (long long)r, name,
                          dr_str_get(&modules));
            add_pattern(w, part, "rank_pattern", r, &s);
            add_pattern(w, part, "alpha_pattern", r, &s);
        }
        dr_str_free(&modules);
    }
    dr_str_add(&s, "}");
    const char *text = dr_arena_strdup(&w->arena, dr_str_get(&s));
    dr_str_free(&s);
    return text;
}

dr_status dr_lora_network_save(const dr_lora_network *l, const dr_lora_save *s)
{
    writing w = {.l = l, .s = s};
    dr_arena_init(&w.arena);
    list_entries(&w);
    const dr_lora_content c = {.entries = w.entry,
                               .n_entries = w.n,
                               .meta = s->meta,
                               .adapter_metadata =
                                   s->dialect == DR_LORA_DIFFUSERS ? describe_adapters(&w) : NULL,
                               .bytes = entry_bytes,
                               .user = &w};
    const dr_status st = dr_lora_write(s->path, &c);
    dr_arena_deinit(&w.arena);
    return st;
}
