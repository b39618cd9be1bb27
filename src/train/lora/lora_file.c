#include "train/lora/lora_file.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "io/json.h"
#include "train/lora/lora_names.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct dr_lora_file {
    dr_arena arena; /* names */
    dr_tensor_file *tensors;
    dr_lora_facts facts;
    dr_lora_module *at;
    size_t n, cap;
    bool quiet; /* nothing is warned of */
};

/* ---- modules from tensors ------------------------------------------------------------------ */

static dr_lora_module *find_or_add(dr_lora_file *f, const char *name, const char *source)
{
    for (size_t i = f->n; i-- > 0;) { /* a module's tensors mostly stand together */
        if (strcmp(f->at[i].name, name) == 0) {
            return &f->at[i];
        }
    }
    if (f->n == f->cap) {
        f->cap = f->cap > 0 ? 2 * f->cap : 256;
        f->at = dr_xrealloc(f->at, f->cap, sizeof *f->at);
    }
    f->at[f->n] = (dr_lora_module){.name = dr_arena_strdup(&f->arena, name),
                                   .source = dr_arena_strdup(&f->arena, source)};
    return &f->at[f->n++];
}

static dr_status add_tensor(dr_lora_file *f, const dr_file_tensor *t, const dr_lora_name *n)
{
    dr_str name = {0};
    dr_str source = {0};
    dr_str_add_n(&source, t->name, n->n_source);
    dr_status st = dr_lora_name_canonical(t->name, n->n_source, &name);
    if (st == DR_OK) {
        dr_lora_module *m = find_or_add(f, dr_str_get(&name), dr_str_get(&source));
        if (m->part[n->role] != NULL) {
            st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                              "tensors %s and %s are the same part of one module",
                              m->part[n->role]->name, t->name);
        }
        m->part[n->role] = t;
        m->kind = n->tells_kind ? n->kind : m->kind;
    }
    dr_str_free(&name);
    dr_str_free(&source);
    return st;
}

static dr_status check_tensor(const dr_file_tensor *t, bool whole_too)
{
    const bool floating = t->readable && (t->dtype == DR_F64 || t->dtype == DR_F32 ||
                                          t->dtype == DR_F16 || t->dtype == DR_BF16);
    const bool whole = t->readable && (t->dtype == DR_I64 || t->dtype == DR_I32);
    if (!floating && !(whole_too && whole)) {
        DR_FAIL(DR_FORMAT, "tensor %s has dtype %s, expected a floating-point type", t->name,
                t->dtype_name);
    }
    if (t->n_elems == 0) {
        DR_FAIL(DR_FORMAT, "tensor %s is empty", t->name);
    }
    return DR_OK;
}

static dr_status add_tensors(dr_lora_file *f)
{
    size_t others = 0;
    const char *first = NULL;
    for (size_t i = 0; i < dr_tensor_file_count(f->tensors); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(f->tensors, i);
        const char *what = dr_lora_name_unsupported(t->name);
        dr_lora_name n;
        if (what != NULL) {
            DR_FAIL(DR_UNSUPPORTED,
                    "tensor %s belongs to %s; LoRA, LoCon, LoHa, LoKr, DoRA and whole differences "
                    "can be read",
                    t->name, what);
        }
        if (dr_lora_name_parse(t->name, &n)) {
            DR_TRY(check_tensor(t, n.role == DR_LORA_ALPHA));
            DR_TRY(add_tensor(f, t, &n));
        } else if (t->name[0] != '<') { /* token embeddings are counted by the facts */
            first = first == NULL ? t->name : first;
            others++;
        }
    }
    if (others > 0 && !f->quiet) {
        dr_warn("%s: %zu tensor(s) belong to no module and are left out, the first is %s",
                dr_tensor_file_path(f->tensors), others, first);
    }
    return DR_OK;
}

/* ---- what a module's shapes say ------------------------------------------------------------ */

static int64_t size_of(const dr_file_tensor *t, int dim)
{
    return t != NULL && dim < t->rank ? t->shape[dim] : 1;
}

static int64_t window(const dr_file_tensor *t)
{
    return size_of(t, 2) * size_of(t, 3);
}

static void set_kernel(dr_lora_module *m, const dr_file_tensor *t)
{
    m->kernel[0] = size_of(t, 2);
    m->kernel[1] = size_of(t, 3);
}

static bool is_core(const dr_file_tensor *t, int64_t rank)
{
    return t->rank == 4 && t->shape[0] == rank && t->shape[1] == rank;
}

static bool shape_factors(dr_lora_module *m)
{
    const dr_file_tensor *down = m->part[DR_LORA_DOWN];
    const dr_file_tensor *up = m->part[DR_LORA_UP];
    const dr_file_tensor *mid = m->part[DR_LORA_MID];
    if (down == NULL || up == NULL || down->rank < 2 || up->rank < 2) {
        return false;
    }
    m->rank = down->shape[0];
    m->in = down->shape[1];
    m->out = up->shape[0];
    set_kernel(m, mid != NULL ? mid : down);
    return up->shape[1] == m->rank && window(up) == 1 &&
           (mid == NULL || (is_core(mid, m->rank) && window(down) == 1));
}

/* LoHa and LoKr without a core have the window of a convolution in their columns, where only the
 * name shows it: these are 3x3 in every Stable Diffusion U-Net. */
static void unfold_window(dr_lora_module *m)
{
    static const char *const endings[] = {"_conv1", "_conv2", "samplers_0_conv", "_conv_in",
                                          "_conv_out"};
    enum { SIDE = 3, WINDOW = SIDE * SIDE };
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (dr_str_ends(m->name, endings[i]) && m->kernel[0] * m->kernel[1] == 1 &&
            m->in % WINDOW == 0) {
            m->in /= WINDOW;
            m->kernel[0] = SIDE;
            m->kernel[1] = SIDE;
        }
    }
}

static bool shape_hadamard(dr_lora_module *m)
{
    const dr_file_tensor *const *p = m->part;
    for (dr_lora_role r = DR_LORA_W1_A; r <= DR_LORA_W2_B; r++) {
        if (r != DR_LORA_W2 && (p[r] == NULL || p[r]->rank != 2)) {
            return false;
        }
    }
    const bool cores = p[DR_LORA_T1] != NULL;
    const int axis_of_rank = cores ? 0 : 1;
    m->rank = p[DR_LORA_W1_B]->shape[0];
    m->out = p[DR_LORA_W1_A]->shape[1 - axis_of_rank];
    m->in = p[DR_LORA_W1_B]->shape[1];
    const int64_t cols = m->in;
    set_kernel(m, p[DR_LORA_T1]);
    unfold_window(m);
    return p[DR_LORA_W1_A]->shape[axis_of_rank] == m->rank &&
           p[DR_LORA_W2_A]->shape[axis_of_rank] == p[DR_LORA_W2_B]->shape[0] &&
           p[DR_LORA_W2_A]->shape[1 - axis_of_rank] == m->out &&
           p[DR_LORA_W2_B]->shape[1] == cols && cores == (p[DR_LORA_T2] != NULL) &&
           (!cores ||
            (is_core(p[DR_LORA_T1], m->rank) && is_core(p[DR_LORA_T2], p[DR_LORA_W2_B]->shape[0]) &&
             window(p[DR_LORA_T1]) == window(p[DR_LORA_T2])));
}

/* Rows, columns and rank of one half of a LoKr. */
static bool shape_half(const dr_lora_module *m, const dr_lora_role role[3],
                       const dr_file_tensor *core, int64_t dim[2], int64_t *rank)
{
    const dr_file_tensor *whole = m->part[role[0]];
    const dr_file_tensor *a = m->part[role[1]];
    const dr_file_tensor *b = m->part[role[2]];
    if (whole != NULL) {
        dim[0] = size_of(whole, 0);
        dim[1] = size_of(whole, 1);
        return whole->rank >= 2 && a == NULL && b == NULL;
    }
    if (a == NULL || b == NULL || a->rank != 2 || b->rank < 2) {
        return false;
    }
    const int axis_of_rank = core != NULL ? 0 : 1;
    *rank = b->shape[0];
    dim[0] = a->shape[1 - axis_of_rank];
    dim[1] = b->shape[1] * window(b); /* flat: in * k * k */
    return a->shape[axis_of_rank] == *rank && (core == NULL || is_core(core, *rank));
}

static bool shape_kronecker(dr_lora_module *m)
{
    static const dr_lora_role first[3] = {DR_LORA_W1, DR_LORA_W1_A, DR_LORA_W1_B};
    static const dr_lora_role second[3] = {DR_LORA_W2, DR_LORA_W2_A, DR_LORA_W2_B};
    const dr_file_tensor *core = m->part[DR_LORA_T2];
    int64_t d1[2] = {0, 0};
    int64_t d2[2] = {0, 0};
    if (!shape_half(m, first, NULL, d1, &m->rank) || !shape_half(m, second, core, d2, &m->rank)) {
        return false;
    }
    m->out = d1[0] * d2[0];
    m->in = d1[1] * d2[1];
    set_kernel(m, core != NULL ? core : m->part[DR_LORA_W2]);
    unfold_window(m);
    return true;
}

static bool shape_difference(dr_lora_module *m)
{
    const dr_file_tensor *diff = m->part[DR_LORA_DIFF];
    const dr_file_tensor *first = diff != NULL ? diff : m->part[DR_LORA_BIAS];
    if (first == NULL || first->rank < 1) {
        return false;
    }
    m->out = first->shape[0];
    m->in = size_of(first, 1);
    set_kernel(m, first);
    return true;
}

/* A magnitude is [out], [out,1,..] or [1,in,1,..]. */
static bool check_magnitude(const dr_lora_module *m)
{
    const dr_file_tensor *t = m->part[DR_LORA_MAGNITUDE];
    return t == NULL || t->n_elems == m->out || (t->n_elems == m->in && size_of(t, 1) == m->in);
}

static bool check_bias(const dr_lora_module *m)
{
    const dr_file_tensor *t = m->part[DR_LORA_BIAS];
    return t == NULL || (t->rank == 1 && t->n_elems == m->out);
}

/* A bias alone. */
static bool is_bias(const dr_lora_module *m)
{
    bool others = false;
    for (int r = 0; r < DR_LORA_ROLES; r++) {
        others = others || (m->part[r] != NULL && r != DR_LORA_BIAS && r != DR_LORA_ALPHA);
    }
    return m->part[DR_LORA_BIAS] != NULL && !others;
}

/* Sizes multiply without overflow below these bounds, which no layer comes near. */
static bool is_sane(const dr_lora_module *m)
{
    const int64_t most = INT64_C(1) << 24;
    const int64_t most_kernel = 64;
    return m->out > 0 && m->out <= most && m->in > 0 && m->in <= most && m->rank <= most &&
           m->kernel[0] > 0 && m->kernel[0] <= most_kernel && m->kernel[1] > 0 &&
           m->kernel[1] <= most_kernel;
}

static dr_status shape_module(dr_lora_module *m)
{
    static bool (*const shape[])(dr_lora_module *) = {
        [DR_LORA_FACTORS] = shape_factors,
        [DR_LORA_HADAMARD] = shape_hadamard,
        [DR_LORA_KRONECKER] = shape_kronecker,
        [DR_LORA_DIFFERENCE] = shape_difference,
    };
    m->kind = is_bias(m) ? DR_LORA_DIFFERENCE : m->kind;
    if (shape[m->kind](m) && is_sane(m) && check_magnitude(m) && check_bias(m)) {
        return DR_OK;
    }
    dr_str found = {0};
    for (int r = 0; r < DR_LORA_ROLES; r++) {
        const dr_file_tensor *t = m->part[r];
        if (t == NULL) {
            continue;
        }
        dr_str_printf(&found, "%s%s [", found.len > 0 ? ", " : "", t->name);
        for (int d = 0; d < t->rank; d++) {
            dr_str_printf(&found, "%s%lld", d > 0 ? "," : "", (long long)t->shape[d]);
        }
        dr_str_add(&found, "]");
    }
    (void)dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                       "module %s is not whole, or its shapes do not fit together; found %s",
                       m->source, dr_str_get(&found));
    dr_str_free(&found);
    return DR_FORMAT;
}

/* ---- alpha --------------------------------------------------------------------------------- */

static dr_status read_scalar(const dr_lora_file *f, const dr_file_tensor *t, double *out)
{
    const void *data = NULL;
    if (t->n_elems != 1) {
        DR_FAIL(DR_FORMAT, "tensor %s has %lld numbers, expected one", t->name,
                (long long)t->n_elems);
    }
    DR_TRY(dr_tensor_file_data(f->tensors, t, &data));
    if (t->dtype == DR_I64 || t->dtype == DR_I32) { /* sd-scripts' default alpha is one of these */
        int64_t i = 0;
        int32_t i32 = 0;
        memcpy(t->dtype == DR_I64 ? (void *)&i : (void *)&i32, data, t->bytes);
        *out = (double)(t->dtype == DR_I64 ? i : i32);
    } else {
        dr_convert(out, DR_F64, data, t->dtype, 1);
    }
    dr_tensor_file_release(f->tensors, t);
    if (!isfinite(*out)) {
        DR_FAIL(DR_FORMAT, "tensor %s is no finite number", t->name);
    }
    return DR_OK;
}

static bool both_whole(const dr_lora_module *m)
{
    return m->part[DR_LORA_W1] != NULL && m->part[DR_LORA_W2] != NULL;
}

static dr_status find_scale(const dr_lora_file *f, dr_lora_module *m)
{
    m->alpha = (double)m->rank;
    m->scale = 1.0;
    if (m->part[DR_LORA_ALPHA] != NULL) {
        DR_TRY(read_scalar(f, m->part[DR_LORA_ALPHA], &m->alpha));
    }
    if (m->kind != DR_LORA_DIFFERENCE && !both_whole(m)) {
        if (m->rank == 0) {
            DR_FAIL(DR_FORMAT, "module %s has rank 0", m->source);
        }
        m->alpha = m->alpha == 0.0 ? (double)m->rank : m->alpha; /* as sd-scripts takes it */
        m->scale = m->alpha / (double)m->rank;
    }
    return DR_OK;
}

/* ---- scales of PEFT, which are in a JSON text ---------------------------------------------- */

/* PEFT's config for one part: of diffusers, in the header, with a prefix; of peft, in a file. */
typedef struct peft_scale {
    const dr_json_value *root;
    const char *prefix; /* of keys: "unet.", "text_encoder.", "" */
} peft_scale;

static const dr_json_value *member(const peft_scale *p, const char *key, dr_arena *arena)
{
    return dr_json_member(p->root, dr_arena_printf(arena, "%s%s", p->prefix, key));
}

/* The entry of a pattern that a module's path ends with, as peft matches them. */
static const dr_json_value *match(const dr_json_value *patterns, const char *source)
{
    dr_json_iter it = {0};
    while (dr_json_next(patterns, &it)) {
        const size_t n = strlen(source);
        const size_t k = strlen(it.name);
        if (dr_str_ends(source, it.name) && (n == k || source[n - k - 1] == '.')) {
            return it.value;
        }
    }
    return NULL;
}

static void apply_peft(dr_lora_file *f, const peft_scale *p, bool text)
{
    const dr_json_value *alpha = member(p, "lora_alpha", &f->arena);
    const dr_json_value *patterns = member(p, "alpha_pattern", &f->arena);
    const bool root = dr_json_bool_value(member(p, "use_rslora", &f->arena));
    for (size_t i = 0; alpha != NULL && i < f->n; i++) {
        dr_lora_module *m = &f->at[i];
        if (dr_str_starts(m->name, "lora_te_") != text || m->part[DR_LORA_ALPHA] != NULL ||
            m->rank == 0) {
            continue;
        }
        const dr_json_value *own = match(patterns, m->source);
        m->alpha = dr_json_real_value(own != NULL ? own : alpha);
        m->scale = m->alpha / (root ? sqrt((double)m->rank) : (double)m->rank);
    }
}

static dr_status read_peft_header(dr_lora_file *f, const char *text)
{
    dr_json_doc *d = NULL;
    DR_TRY(dr_json_parse(&d, "lora_adapter_metadata", text, strlen(text)));
    apply_peft(f, &(peft_scale){dr_json_root(d), "unet."}, false);
    apply_peft(f, &(peft_scale){dr_json_root(d), "text_encoder."}, true);
    dr_json_close(d);
    return DR_OK;
}

/* adapter_config.json beside the file, where peft wrote the file itself. */
static dr_status read_peft_file(dr_lora_file *f, const char *path)
{
    dr_json_doc *d = NULL;
    char *dir = dr_arena_strndup(&f->arena, path, (size_t)(dr_path_base(path) - path));
    char *config = dr_path_join(dir[0] != '\0' ? dir : ".", "adapter_config.json");
    dr_status st = DR_OK;
    if (!dr_path_exists(config) && !f->quiet) {
        dr_warn("%s: there is no adapter_config.json beside it, which would tell lora_alpha; the "
                "rank is taken for it",
                path);
    } else if (dr_path_exists(config)) {
        st = dr_json_open(&d, config);
    }
    if (d != NULL) {
        apply_peft(f, &(peft_scale){dr_json_root(d), ""}, false);
        apply_peft(f, &(peft_scale){dr_json_root(d), ""}, true);
    }
    dr_json_close(d);
    free(config);
    return st;
}

static dr_status read_peft(dr_lora_file *f, const char *path)
{
    const char *text = dr_tensor_file_meta_get(f->tensors, "lora_adapter_metadata");
    if (text != NULL) {
        return read_peft_header(f, text);
    }
    return f->n > 0 && dr_str_starts(f->at[0].source, "base_model.model.") ? read_peft_file(f, path)
                                                                           : DR_OK;
}

/* ---- opening ------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dr_lora_module *)a)->name, ((const dr_lora_module *)b)->name);
}

/* cloneofsimo's numbers depend on what was trained: another set of classes has others. */
static dr_status check_numbered(const dr_lora_file *f)
{
    const char *classes = dr_tensor_file_meta_get(f->tensors, "unet");
    if (strcmp(f->facts.names, "cloneofsimo") == 0 && classes != NULL &&
        strstr(classes, "ResnetBlock2D") != NULL) {
        DR_FAIL(DR_UNSUPPORTED,
                "the modules of %s are numbered; only the numbers of CrossAttention, Attention and "
                "GEGLU can be told apart",
                classes);
    }
    return DR_OK;
}

static dr_status fill(dr_lora_file *f, const char *path)
{
    if (!dr_lora_facts_read(&f->facts, f->tensors)) {
        DR_FAIL(DR_FORMAT, "no tensor has a name that a LoRA's tensors have");
    }
    DR_TRY(check_numbered(f));
    DR_TRY(add_tensors(f));
    for (size_t i = 0; i < f->n; i++) {
        DR_TRY(shape_module(&f->at[i]));
        DR_TRY(find_scale(f, &f->at[i]));
    }
    DR_TRY(read_peft(f, path));
    qsort(f->at, f->n, sizeof *f->at, by_name);
    if (f->facts.doubled_prefix && !f->quiet) {
        dr_warn("%s: the prefixes of its names are doubled (%s), a converter's mistake; they are "
                "read without the second one",
                path, f->at[0].source);
    }
    if (f->facts.embeddings > 0 && !f->quiet) {
        dr_warn("%s: holds %lld token embedding(s), which are not used", path,
                (long long)f->facts.embeddings);
    }
    return DR_OK;
}

dr_status dr_lora_file_take(dr_lora_file **out, dr_tensor_file *tensors, bool quiet)
{
    const char *path = dr_tensor_file_path(tensors);
    dr_lora_file *f = dr_xcalloc(1, sizeof *f);
    *out = NULL;
    f->tensors = tensors;
    f->quiet = quiet;
    dr_arena_init(&f->arena);
    dr_status st = fill(f, path);
    if (st != DR_OK) {
        st = dr_error_prefix(st, "%s", path);
        dr_lora_file_close(f);
        return st;
    }
    *out = f;
    return DR_OK;
}

static dr_status open_file(dr_lora_file **out, const char *path, bool quiet)
{
    dr_tensor_file *tensors = NULL;
    *out = NULL;
    DR_TRY(dr_tensor_file_open(&tensors, path));
    return dr_lora_file_take(out, tensors, quiet);
}

dr_status dr_lora_file_open(dr_lora_file **out, const char *path)
{
    return open_file(out, path, false);
}

dr_status dr_lora_file_open_quiet(dr_lora_file **out, const char *path)
{
    return open_file(out, path, true);
}

void dr_lora_file_close(dr_lora_file *f)
{
    if (f != NULL) {
        dr_tensor_file_close(f->tensors);
        dr_arena_deinit(&f->arena);
        free(f->at);
        free(f);
    }
}

size_t dr_lora_file_count(const dr_lora_file *f)
{
    return f->n;
}

const dr_lora_module *dr_lora_file_at(const dr_lora_file *f, size_t i)
{
    DR_CHECK(i < f->n, "module %zu of %zu", i, f->n);
    return &f->at[i];
}

const dr_lora_module *dr_lora_file_find(const dr_lora_file *f, const char *name)
{
    const dr_lora_module key = {.name = name};
    return bsearch(&key, f->at, f->n, sizeof *f->at, by_name);
}

const dr_lora_facts *dr_lora_file_facts(const dr_lora_file *f)
{
    return &f->facts;
}

const dr_tensor_file *dr_lora_file_tensors(const dr_lora_file *f)
{
    return f->tensors;
}
