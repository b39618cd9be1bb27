#include "train/lora/lora_parts.h"

#include "train/lora/lora_names.h"

#include <math.h>

typedef struct builder {
    dr_params *set;
    const dr_lora_settings *s;
    dr_lora_site *site;
} builder;

static dr_param *add(builder *b, dr_lora_role role, dr_param_kind kind, const int64_t *dim)
{
    const int rank = kind == DR_PARAM_CONV ? 4 : 2;
    dr_param *p = dr_params_add(b->set, kind, rank, dim, "%s.%s", b->site->name,
                                dr_lora_role_name(role, b->s->kind));
    b->site->role[role] = p;
    return p;
}

static bool has_window(const dr_param *w)
{
    return w->kind == DR_PARAM_CONV && (w->dim[2] > 1 || w->dim[3] > 1);
}

/* ---- LoRA ------------------------------------------------------------------------------------ */

static void add_factors(builder *b)
{
    const dr_param *w = b->site->weight;
    const int64_t *d = w->dim;
    const int64_t r = b->site->rank;
    dr_adapter_pair *pair = &b->site->adapter.pair[0];
    const bool core = b->s->form.tucker && has_window(w);
    pair->down =
        add(b, DR_LORA_DOWN, w->kind, core ? DR_DIMS(r, d[1], 1, 1) : DR_DIMS(r, d[1], d[2], d[3]));
    pair->up = add(b, DR_LORA_UP, w->kind, DR_DIMS(d[0], r, 1, 1));
    pair->core = core ? add(b, DR_LORA_MID, w->kind, DR_DIMS(r, r, d[2], d[3])) : NULL;
}

/* ---- LoHa, and the pairs of LoKr ---------------------------------------------------------------
 */

typedef struct pair_roles {
    dr_lora_role up, down, core;
} pair_roles;
static const pair_roles first_pair = {DR_LORA_W1_A, DR_LORA_W1_B, DR_LORA_T1};
static const pair_roles second_pair = {DR_LORA_W2_A, DR_LORA_W2_B, DR_LORA_T2};

/* The pair of a matrix of rows times cols, whose window is the weight's. */
static void add_pair(builder *b, pair_roles roles, int64_t rows, int64_t cols,
                     dr_adapter_pair *pair)
{
    const dr_param *w = b->site->weight;
    const int64_t *d = w->dim;
    const int64_t r = b->site->rank;
    pair->up_is_transposed = b->s->form.tucker && has_window(w);
    if (pair->up_is_transposed) {
        pair->up = add(b, roles.up, DR_PARAM_MATRIX, DR_DIMS(r, rows));
        pair->down = add(b, roles.down, DR_PARAM_MATRIX, DR_DIMS(r, cols));
        pair->core = add(b, roles.core, DR_PARAM_CONV, DR_DIMS(r, r, d[2], d[3]));
        return;
    }
    pair->up = add(b, roles.up, DR_PARAM_MATRIX, DR_DIMS(rows, r));
    pair->down = add(b, roles.down, w->kind, DR_DIMS(r, cols, d[2], d[3]));
}

/* ---- LoKr ------------------------------------------------------------------------------------ */

/* LyCORIS' factorization(): two factors of n, the smaller one first and near `factor`. */
static void factorize(int64_t n, int64_t factor, int64_t out[2])
{
    int64_t small = 1;
    int64_t large = n;
    if (factor > 0 && n % factor == 0) {
        small = factor;
        large = n / factor;
    } else {
        const int64_t most = factor < 0 ? n : factor;
        while (small < large) {
            int64_t next = small + 1;
            while (n % next != 0) {
                next++;
            }
            if (next + n / next > n + 1 || next > most) {
                break;
            }
            small = next;
            large = n / next;
        }
    }
    out[0] = small < large ? small : large;
    out[1] = small < large ? large : small;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void add_kronecker(builder *b)
{
    const dr_param *w = b->site->weight;
    const dr_lycoris_form *form = &b->s->form;
    const int64_t r = b->site->rank;
    dr_adapter *a = &b->site->adapter;
    int64_t in[2];
    int64_t out[2];
    factorize(w->dim[1], form->factor, in);
    factorize(w->dim[0], form->factor, out);
    if (form->unbalanced) {
        const int64_t first = out[0];
        out[0] = out[1];
        out[1] = first;
    }
    if (form->decompose_both && 2 * r < larger(out[0], in[0]) && !form->full_matrix) {
        a->pair[0].up = add(b, DR_LORA_W1_A, DR_PARAM_MATRIX, DR_DIMS(out[0], r));
        a->pair[0].down = add(b, DR_LORA_W1_B, DR_PARAM_MATRIX, DR_DIMS(r, in[0]));
    } else {
        a->whole[0] = add(b, DR_LORA_W1, DR_PARAM_MATRIX, DR_DIMS(out[0], in[0]));
    }
    if (2 * r >= larger(out[1], in[1]) || form->full_matrix) {
        a->whole[1] = add(b, DR_LORA_W2, w->kind, DR_DIMS(out[1], in[1], w->dim[2], w->dim[3]));
    } else {
        add_pair(b, second_pair, out[1], in[1], &a->pair[1]);
    }
}

/* ---- all kinds ------------------------------------------------------------------------------- */

static void add_products(builder *b)
{
    const int64_t *d = b->site->weight->dim;
    dr_adapter *a = &b->site->adapter;
    switch (b->s->kind) {
    case DR_LORA_HADAMARD:
        a->kind = DR_ADAPTER_HADAMARD;
        add_pair(b, first_pair, d[0], d[1], &a->pair[0]);
        add_pair(b, second_pair, d[0], d[1], &a->pair[1]);
        break;
    case DR_LORA_KRONECKER:
        a->kind = DR_ADAPTER_KRONECKER;
        add_kronecker(b);
        break;
    default:
        a->kind = DR_ADAPTER_FACTORS;
        add_factors(b);
        break;
    }
}

static void add_extras(builder *b)
{
    const dr_param *w = b->site->weight;
    dr_adapter *a = &b->site->adapter;
    /* LyCORIS scales a number that is not trained down, where there is none that is. */
    const bool limited =
        b->s->norm_limit > 0.0 && b->s->lycoris.preset != NULL && b->s->kind != DR_LORA_KRONECKER;
    b->site->scalar_is_fixed = limited && !b->s->form.scalar;
    if (b->s->form.scalar || limited) {
        a->scalar =
            dr_params_add(b->set, DR_PARAM_VECTOR, 1, DR_DIMS(1), "%s.scalar", b->site->name);
    }
    if (b->s->form.magnitude) {
        a->by_input = b->s->form.by_input;
        a->magnitude = add(b, DR_LORA_MAGNITUDE, w->kind,
                           a->by_input ? DR_DIMS(1, w->dim[1], 1, 1) : DR_DIMS(w->dim[0], 1, 1, 1));
        a->base = w;
    }
}

static dr_status find_scale(builder *b, bool from_file)
{
    dr_lora_site *site = b->site;
    const bool whole = site->role[DR_LORA_W1] != NULL && site->role[DR_LORA_W2] != NULL;
    const double rank = (double)site->rank;
    const bool root = b->s->form.root_scale && !from_file;
    if (whole && root) {
        DR_FAIL(DR_UNSUPPORTED,
                "--network_args rs_lora: %s is two whole matrices (rank %lld is large for it), "
                "which LyCORIS scales by sqrt(rank) and loads without; leave rs_lora out, or take "
                "a smaller rank or factor",
                site->name, (long long)site->rank);
    }
    site->alpha = whole || site->alpha == 0.0 ? rank : site->alpha;
    site->alpha *= root ? sqrt(rank) : 1.0;
    site->adapter.scale = (float)(site->alpha / rank);
    return DR_OK;
}

dr_status dr_lora_parts_add(dr_params *set, const dr_lora_settings *s, bool from_file,
                            dr_lora_site *site)
{
    builder b = {.set = set, .s = s, .site = site};
    add_products(&b);
    add_extras(&b);
    site->adapter.dropout = s->dropout;
    site->weight->adapter = &site->adapter;
    return find_scale(&b, from_file);
}
