#include "train/dump.h"

#include "base/file.h"
#include "io/json.h"
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

typedef struct array { /* one tensor of the dump, in file order */
    char name[256];
    dr_dtype dtype;
    int rank;
    int64_t dim[DR_MAX_RANK];
    void *data; /* owned */
} array;

struct dr_dump {
    int n_rows, n_leaves;
    array *at;
    size_t n, cap;
    dr_strv keys;
    dr_str samples; /* their numbers, between commas */
};

dr_dump *dr_dump_create(int n_rows)
{
    dr_dump *d = dr_xcalloc(1, sizeof *d);
    d->n_rows = n_rows;
    return d;
}

static void clear(dr_dump *d)
{
    for (size_t i = 0; i < d->n; i++) {
        free(d->at[i].data);
    }
    d->n = 0;
    d->n_leaves = 0;
    dr_strv_free(&d->keys);
    dr_str_free(&d->samples);
}

void dr_dump_destroy(dr_dump *d)
{
    if (d != NULL) {
        clear(d);
        free(d->at);
        free(d);
    }
}

static array *add_array(dr_dump *d, const char *name, dr_dtype dtype, int rank, const int64_t *dim)
{
    if (d->n == d->cap) {
        d->cap = d->cap > 0 ? 2 * d->cap : 32;
        d->at = dr_xrealloc(d->at, d->cap, sizeof *d->at);
    }
    array *a = &d->at[d->n++];
    *a = (array){.dtype = dtype, .rank = rank};
    (void)snprintf(a->name, sizeof a->name, "%s", name);
    size_t n = 1;
    for (int i = 0; i < rank; i++) {
        a->dim[i] = dim[i];
        n *= (size_t)dim[i];
    }
    a->data = dr_xcalloc(n, dr_dtype_size(dtype));
    return a;
}

static size_t elems(const array *a)
{
    size_t n = 1;
    for (int i = 0; i < a->rank; i++) {
        n *= (size_t)a->dim[i];
    }
    return n;
}

/* A device tensor as it is; rank 4 means an image, (N,H,W,C) there and (N,C,H,W) here. */
static dr_status add_tensor(dr_dump *d, dr_context *cx, const char *name, const dr_tensor *t)
{
    const int64_t *s = t->dim;
    if (t->rank != 4) {
        return dr_download_floats(cx, t, add_array(d, name, DR_F32, t->rank, s)->data);
    }
    array *a = add_array(d, name, DR_F32, 4, DR_DIMS(s[0], s[3], s[1], s[2]));
    float *nhwc = dr_xcalloc(elems(a), sizeof *nhwc);
    dr_status st = dr_download_floats(cx, t, nhwc);
    float *nchw = a->data;
    int64_t pixels = s[1] * s[2];
    for (int64_t n = 0; n < s[0]; n++) {
        for (int64_t p = 0; p < pixels; p++) {
            for (int64_t c = 0; c < s[3]; c++) {
                nchw[(n * s[3] + c) * pixels + p] = nhwc[(n * pixels + p) * s[3] + c];
            }
        }
    }
    free(nhwc);
    return st;
}

static dr_status add_ids(dr_dump *d, dr_context *cx, const dr_tensor *ids)
{
    int64_t n = ids->dim[0] / d->n_rows;
    int64_t length = ids->dim[1];
    array *a = d->n_rows == 1 ? add_array(d, "input_ids", DR_I64, 2, DR_DIMS(n, length))
                              : add_array(d, "input_ids", DR_I64, 3, DR_DIMS(n, d->n_rows, length));
    int32_t *narrow = dr_xcalloc(elems(a), sizeof *narrow);
    dr_status st = dr_download(cx, ids, narrow);
    for (size_t i = 0; i < elems(a); i++) {
        ((int64_t *)a->data)[i] = narrow[i];
    }
    free(narrow);
    return st;
}

dr_status dr_dump_add(dr_dump *d, dr_context *cx, const dr_dump_leaf *leaf)
{
    int64_t n = leaf->in->latents.dim[0];
    DR_TRY(add_tensor(d, cx, "latents", &leaf->in->latents));
    DR_TRY(add_tensor(d, cx, "noise", &leaf->in->noise));
    DR_TRY(add_tensor(d, cx, "noisy_latents", &leaf->out->noisy));
    DR_TRY(add_tensor(d, cx, "target", &leaf->out->target));
    DR_TRY(add_tensor(d, cx, "model_pred", &leaf->out->pred));
    DR_TRY(add_tensor(d, cx, "encoder_hidden_states", &leaf->out->context));
    DR_TRY(add_tensor(d, cx, "loss", &leaf->out->loss));
    DR_TRY(add_ids(d, cx, &leaf->in->ids));
    if (leaf->in->mask.rank > 0) {
        DR_TRY(add_tensor(d, cx, "loss_mask", &leaf->in->mask));
    }
    if (leaf->in->token_weights.rank > 0) {
        dr_tensor weights = dr_reshape(&leaf->in->token_weights, 2,
                                       DR_DIMS(n, dr_numel(&leaf->in->token_weights) / n));
        DR_TRY(add_tensor(d, cx, "token_weights", &weights));
    }
    int64_t *t = add_array(d, "timesteps", DR_I64, 1, &n)->data;
    float *w = add_array(d, "loss_weights", DR_F32, 1, &n)->data;
    for (int64_t i = 0; i < n; i++) {
        t[i] = leaf->timesteps[i];
        w[i] = leaf->loss_weights[i];
        dr_strv_push(&d->keys, leaf->keys[i]);
        dr_str_printf(&d->samples, "%s%lld", d->samples.len > 0 ? ", " : "",
                      (long long)leaf->samples[i].sample);
    }
    d->n_leaves++;
    return DR_OK;
}

static bool same_row_shape(const array *a, const array *b)
{
    return a->rank == b->rank &&
           memcmp(a->dim + 1, b->dim + 1, sizeof a->dim - sizeof a->dim[0]) == 0;
}

/* Leaves come one after the other with the same names: join equal shapes, else number them. */
static void join_leaves(dr_dump *d)
{
    if (d->n_leaves < 2) {
        return;
    }
    size_t per_leaf = d->n / (size_t)d->n_leaves;
    bool same = true;
    for (size_t i = per_leaf; i < d->n; i++) {
        same = same && same_row_shape(&d->at[i], &d->at[i % per_leaf]);
    }
    for (size_t i = 0; !same && i < d->n; i++) {
        size_t len = strlen(d->at[i].name);
        (void)snprintf(d->at[i].name + len, sizeof d->at[i].name - len, ".leaf%zu", i / per_leaf);
    }
    for (size_t i = per_leaf; same && i < d->n; i++) {
        array *first = &d->at[i % per_leaf];
        size_t old = elems(first) * dr_dtype_size(first->dtype);
        size_t more = elems(&d->at[i]) * dr_dtype_size(first->dtype);
        first->data = dr_xrealloc(first->data, old + more, 1);
        memcpy((char *)first->data + old, d->at[i].data, more);
        first->dim[0] += d->at[i].dim[0];
        free(d->at[i].data);
    }
    d->n = same ? per_leaf : d->n;
}

/* The gradient of a parameter without loss scale, in file order. */
static dr_status add_gradient(dr_dump *d, const char *name, const dr_param *p,
                              const dr_dump_step *s)
{
    const dr_device *device = s->gradients->o.backend->device;
    array *a = add_array(d, name, DR_F32, p->rank, p->dim);
    void *memory_order = dr_xcalloc((size_t)p->n, dr_dtype_size(p->grad.dtype));
    const dr_status st = device->download(memory_order, p->grad.data, dr_nbytes(&p->grad));
    dr_param_to_file_order(p, memory_order, p->grad.dtype, a->data, DR_F32);
    free(memory_order);
    for (int64_t i = 0; i < p->n; i++) { /* a power of two: exact */
        ((float *)a->data)[i] /= (float)s->loss_scale;
    }
    return st;
}

static dr_status add_gradients(dr_dump *d, const char *prefix, const dr_params *set,
                               const dr_dump_step *s)
{
    for (size_t i = 0; set != NULL && i < set->n; i++) {
        const dr_param *p = set->at[i];
        if (p->grad.data == NULL) {
            continue;
        }
        char name[256];
        (void)snprintf(name, sizeof name, "grad.%s%s", prefix, p->name);
        DR_TRY(add_gradient(d, name, p, s));
    }
    return DR_OK;
}

static dr_status save(const dr_dump *d, const char *path, const dr_safetensors_meta *meta,
                      size_t n_meta)
{
    dr_safetensors_entry *entries = dr_xcalloc(d->n, sizeof *entries);
    const void **data = dr_xcalloc(d->n, sizeof *data);
    for (size_t i = 0; i < d->n; i++) {
        const array *a = &d->at[i];
        entries[i] = (dr_safetensors_entry){a->name, a->dtype, a->rank, a->dim};
        data[i] = a->data;
    }
    dr_status st = dr_safetensors_save(
        path,
        &(dr_safetensors_content){
            .entries = entries, .n_entries = d->n, .meta = meta, .n_meta = n_meta},
        (const void *const *)data);
    free(entries);
    free(data);
    return st;
}

static void keys_as_json(const dr_dump *d, dr_str *out)
{
    dr_str_add(out, "[");
    for (size_t i = 0; i < d->keys.n; i++) {
        dr_str_add(out, i > 0 ? ", " : "");
        dr_json_add_string(out, d->keys.at[i]);
    }
    dr_str_add(out, "]");
}

static dr_status write_file(dr_dump *d, const dr_dump_step *s)
{
    char text[7][32];
    (void)snprintf(text[0], sizeof text[0], "%lld", (long long)s->step);
    (void)snprintf(text[1], sizeof text[1], "%u", s->epoch);
    (void)snprintf(text[2], sizeof text[2], "%llu", (unsigned long long)s->global_batch);
    const double numbers[4] = {s->lr_unet, s->lr_text_encoder, s->grad_norm, s->loss};
    for (int i = 0; i < 4; i++) {
        dr_float_repr(numbers[i], text[3 + i]);
    }
    dr_str keys = {0};
    dr_str samples = {0};
    keys_as_json(d, &keys);
    dr_str_printf(&samples, "[%s]", dr_str_get(&d->samples));
    const dr_safetensors_meta meta[] = {
        {"step", text[0]},
        {"epoch", text[1]},
        {"global_batch", text[2]},
        {"lr_unet", text[3]},
        {"lr_text_encoder", text[4]},
        {"grad_norm", text[5]},
        {"loss", text[6]},
        {"image_keys", dr_str_get(&keys)},
        {"samples", dr_str_get(&samples)},
    };
    char file[64];
    (void)snprintf(file, sizeof file, "step-%06lld-rank%d.safetensors", (long long)s->step,
                   s->rank);
    char *path = dr_path_join(s->dir, file);
    dr_status st = save(d, path, meta, sizeof meta / sizeof *meta);
    free(path);
    dr_str_free(&samples);
    dr_str_free(&keys);
    return st;
}

dr_status dr_dump_write(dr_dump *d, const dr_dump_step *s)
{
    dr_status st = dr_mkdirs(s->dir);
    join_leaves(d);
    if (st == DR_OK && s->gradients != NULL) {
        const bool lora = s->gradients->lora != NULL; /* its names say where they belong */
        st = add_gradients(d, lora ? "" : "unet.", s->gradients->trained[DR_PART_UNET].set, s);
        if (st == DR_OK) {
            st = add_gradients(d, lora ? "" : "text_encoder.",
                               s->gradients->trained[DR_PART_TEXT_ENCODER].set, s);
        }
    }
    if (st == DR_OK) {
        st = write_file(d, s);
    }
    clear(d);
    return st;
}
