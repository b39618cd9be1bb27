#include "train/model/model_output.h"

#include "io/torch_writer.h"
#include "train/model/metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dr_out_init(dr_out_list *l, const dr_model_config *config, dr_model_values values)
{
    *l = (dr_out_list){.config = config, .values = values};
    dr_arena_init(&l->arena);
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        dr_params_init(&l->set[i], &l->arena);
    }
}

void dr_out_deinit(dr_out_list *l)
{
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        dr_params_deinit(&l->set[i]);
    }
    dr_arena_deinit(&l->arena);
    free(l->at);
}

dr_out_tensor *dr_out_add(dr_out_list *l)
{
    if (l->n == l->cap) {
        l->cap = l->cap > 0 ? 2 * l->cap : 256;
        l->at = dr_xrealloc(l->at, l->cap, sizeof *l->at);
    }
    l->at[l->n] = (dr_out_tensor){0};
    return &l->at[l->n++];
}

dr_out_tensor *dr_out_find(dr_out_list *l, const char *name)
{
    for (size_t i = l->n; i-- > 0;) { /* what is looked for was mostly added last */
        if (strcmp(l->at[i].name, name) == 0) {
            return &l->at[i];
        }
    }
    return NULL;
}

void dr_out_add_copy(dr_out_list *l, const char *name, const dr_tensor_file *file,
                     const dr_file_tensor *t)
{
    *dr_out_add(l) = (dr_out_tensor){.name = dr_arena_strdup(&l->arena, name),
                                     .dtype = t->dtype,
                                     .rank = t->rank,
                                     .shape = t->shape,
                                     .file = file,
                                     .tensor = t};
}

static const dr_params *params_of(dr_out_list *l, dr_model_part part)
{
    if (l->set[part].n == 0) {
        dr_model_part_params(l->config, part, &l->set[part]);
    }
    return &l->set[part];
}

static const int64_t *keep_shape(dr_out_list *l, const int64_t *dim)
{
    int64_t *kept = dr_arena_array(&l->arena, DR_MAX_RANK, sizeof *kept);
    memcpy(kept, dim, DR_MAX_RANK * sizeof *kept);
    return kept;
}

dr_status dr_out_add_diffusers(dr_out_list *l, dr_model_part part)
{
    const dr_params *set = params_of(l, part);
    for (size_t i = 0; i < set->n; i++) {
        const dr_param *p = set->at[i];
        dr_out_tensor *t = dr_out_add(l);
        *t = (dr_out_tensor){
            .name = p->name, .rank = p->rank, .shape = p->dim, .part = part, .n_pieces = 1};
        t->piece[0] = p;
        DR_TRY(l->values.dtype(l->values.user, part, p, &t->dtype));
    }
    return DR_OK;
}

static dr_status add_slice(dr_out_list *l, dr_model_part part, const dr_param *p,
                           const dr_file_slice *s)
{
    dr_out_tensor *t = dr_out_find(l, s->name);
    const bool first = s->first_row == 0;
    if (t == NULL) {
        t = dr_out_add(l);
        t->name = dr_arena_strdup(&l->arena, s->name);
        t->rank = s->rank;
        t->shape = keep_shape(l, s->dim);
    } else if (first && t->part != part) {
        t->rank = s->rank; /* the VAE of --vae in place of the source's */
        t->shape = keep_shape(l, s->dim);
    }
    if (first) {
        t->part = part;
        t->n_pieces = 0;
        DR_TRY(l->values.dtype(l->values.user, part, p, &t->dtype));
    }
    DR_CHECK(t->n_pieces < DR_OUT_PIECES && s->first_row == t->n_pieces * s->n_rows,
             "%s: rows out of order", s->name);
    t->piece[t->n_pieces++] = p;
    return DR_OK;
}

dr_status dr_out_add_ldm(dr_out_list *l, dr_model_part part, dr_clip_layout layout)
{
    const dr_params *set = params_of(l, part);
    for (size_t i = 0; i < set->n; i++) {
        dr_file_slice s;
        dr_model_ldm_slice(l->config, part, layout, set->at[i], &s);
        DR_TRY(add_slice(l, part, set->at[i], &s));
    }
    return DR_OK;
}

void dr_out_add_openclip_rest(dr_out_list *l)
{
    static const int64_t scalar[1] = {1};
    const int last = l->config->clip.layers - 1;
    const int64_t width = l->config->clip.width;
    char from[64];
    char to[64];
    dr_dtype dtype = DR_F32;
    (void)snprintf(from, sizeof from, "cond_stage_model.model.transformer.resblocks.%d.", last);
    (void)snprintf(to, sizeof to, "cond_stage_model.model.transformer.resblocks.%d.", last + 1);
    for (size_t i = 0, n = l->n; i < n; i++) {
        const dr_out_tensor t = l->at[i];
        if (dr_str_starts(t.name, from)) {
            dr_out_tensor *copy = dr_out_add(l);
            *copy = t;
            copy->name = dr_arena_printf(&l->arena, "%s%s", to, t.name + strlen(from));
            dtype = t.dtype;
        }
    }
    *dr_out_add(l) = (dr_out_tensor){.name = "cond_stage_model.model.text_projection",
                                     .dtype = dtype,
                                     .rank = 2,
                                     .shape = keep_shape(l, DR_DIMS(width, width))};
    *dr_out_add(l) = (dr_out_tensor){
        .name = "cond_stage_model.model.logit_scale", .dtype = DR_I64, .rank = 0, .shape = scalar};
}

/* ---- writing ------------------------------------------------------------------------------- */

uint64_t dr_out_bytes(const dr_out_list *l)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < l->n; i++) {
        uint64_t n = dr_dtype_size(l->at[i].dtype);
        for (int k = 0; k < l->at[i].rank; k++) {
            n *= (uint64_t)l->at[i].shape[k]; /* the shapes of tensors that exist */
        }
        bytes += n;
    }
    return bytes;
}

typedef struct sink { /* the open file of either kind, and who is told */
    const dr_out_list *list;
    dr_out_progress *progress;
    dr_safetensors_writer *safetensors; /* one of the two */
    dr_torch_writer *torch;
} sink;

static dr_status put(sink *s, const void *data, size_t n)
{
    DR_TRY(s->torch != NULL ? dr_torch_writer_write(s->torch, data, n)
                            : dr_safetensors_writer_write(s->safetensors, data, n));
    if (s->progress != NULL && s->progress->report != NULL) {
        s->progress->done += n;
        s->progress->report(s->progress->user, s->progress->done, s->progress->all);
    }
    return DR_OK;
}

enum { PIECE_ELEMS = 1 << 16 }; /* converted at a time */

static dr_status put_converted(sink *s, const dr_out_tensor *t, const void *data)
{
    const size_t from = dr_dtype_size(t->tensor->dtype);
    const size_t to = dr_dtype_size(t->dtype);
    const size_t n = (size_t)t->tensor->n_elems;
    char *buf = dr_xcalloc(PIECE_ELEMS, to);
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < n; i += PIECE_ELEMS) {
        const size_t count = n - i < PIECE_ELEMS ? n - i : PIECE_ELEMS;
        dr_convert(buf, t->dtype, (const char *)data + i * from, t->tensor->dtype, count);
        st = put(s, buf, count * to);
    }
    free(buf);
    return st;
}

static dr_status put_copy(sink *s, const dr_out_tensor *t)
{
    const void *data = NULL;
    DR_TRY(dr_tensor_file_data(t->file, t->tensor, &data));
    const dr_status st =
        t->dtype == t->tensor->dtype ? put(s, data, t->tensor->bytes) : put_converted(s, t, data);
    dr_tensor_file_release(t->file, t->tensor);
    return st;
}

static dr_status put_ones(sink *s, const dr_out_tensor *t)
{
    const double one = 1.0;
    const int64_t whole = 1;
    unsigned char bytes[8];
    const size_t width = dr_dtype_size(t->dtype);
    size_t n = 1;
    for (int i = 0; i < t->rank; i++) {
        n *= (size_t)t->shape[i];
    }
    if (t->dtype == DR_I64) {
        memcpy(bytes, &whole, sizeof whole);
    } else {
        dr_convert(bytes, t->dtype, &one, DR_F64, 1);
    }
    char *all = dr_xcalloc(n, width); /* a square of the text encoder's width at most */
    for (size_t i = 0; i < n; i++) {
        memcpy(all + i * width, bytes, width);
    }
    const dr_status st = put(s, all, n * width);
    free(all);
    return st;
}

static dr_status put_pieces(sink *s, const dr_out_tensor *t)
{
    const dr_model_values *values = &s->list->values;
    for (int i = 0; i < t->n_pieces; i++) {
        const dr_param *p = t->piece[i];
        const size_t width = dr_dtype_size(t->dtype);
        void *buf = NULL;
        DR_TRY(dr_try_calloc((size_t)p->n, width, &buf));
        dr_status st = values->read(values->user, t->part, p, t->dtype, buf);
        if (st == DR_OK) {
            st = put(s, buf, (size_t)p->n * width);
        }
        free(buf);
        DR_TRY(st);
    }
    return DR_OK;
}

static dr_status put_tensor(sink *s, size_t i)
{
    const dr_out_tensor *t = &s->list->at[i];
    if (t->n_pieces > 0) {
        return put_pieces(s, t);
    }
    return t->file != NULL ? put_copy(s, t) : put_ones(s, t);
}

static dr_status emit_safetensors(void *ctx, dr_safetensors_writer *w, size_t i)
{
    sink *s = ctx;
    s->safetensors = w;
    return put_tensor(s, i);
}

static dr_status emit_torch(void *ctx, dr_torch_writer *w, size_t i)
{
    sink *s = ctx;
    s->torch = w;
    return put_tensor(s, i);
}

static dr_safetensors_entry *entries_of(const dr_out_list *l)
{
    dr_safetensors_entry *entries = dr_xcalloc(l->n, sizeof *entries);
    for (size_t i = 0; i < l->n; i++) {
        const dr_out_tensor *t = &l->at[i];
        entries[i] = (dr_safetensors_entry){
            .name = t->name, .dtype = t->dtype, .rank = t->rank, .shape = t->shape};
    }
    return entries;
}

static dr_status write_safetensors(sink *s, const dr_out_file *file,
                                   const dr_safetensors_entry *entries)
{
    const dr_safetensors_hash hash = {DR_MODELSPEC_HASH, "0x", 0, UINT64_MAX, 64};
    dr_safetensors_meta *all = dr_xcalloc(file->n_meta + 1, sizeof *all);
    size_t n = 0;
    all[n++] = (dr_safetensors_meta){"format", "pt"};
    for (size_t i = 0; i < file->n_meta; i++) {
        const char *key = file->meta[i].key;
        if (strcmp(key, "format") != 0 && (!file->hash || strcmp(key, DR_MODELSPEC_HASH) != 0)) {
            all[n++] = file->meta[i];
        }
    }
    const dr_safetensors_content content = {.entries = entries,
                                            .n_entries = s->list->n,
                                            .meta = all,
                                            .n_meta = n,
                                            .hashes = &hash,
                                            .n_hashes = file->hash ? 1 : 0};
    const dr_status st = dr_safetensors_write(file->path, &content, emit_safetensors, s);
    free(all);
    return st;
}

static dr_status write_torch(sink *s, const dr_out_file *file, const dr_safetensors_entry *entries)
{
    const dr_torch_number numbers[] = {{"epoch", file->epoch}, {"global_step", file->global_step}};
    const bool bare = file->container == DR_OUT_STATE_DICT;
    const dr_torch_content content = {.entries = entries,
                                      .n_entries = s->list->n,
                                      .numbers = numbers,
                                      .n_numbers = bare ? 0 : sizeof numbers / sizeof *numbers,
                                      .meta = file->meta,
                                      .n_meta = bare ? 0 : file->n_meta,
                                      .bare = bare};
    return dr_torch_write(file->path, &content, emit_torch, s);
}

dr_status dr_out_write(const dr_out_list *l, const dr_out_file *file)
{
    sink s = {.list = l, .progress = file->progress};
    dr_safetensors_entry *entries = entries_of(l);
    const dr_status st = file->container == DR_OUT_SAFETENSORS
                             ? write_safetensors(&s, file, entries)
                             : write_torch(&s, file, entries);
    free(entries);
    return st;
}
