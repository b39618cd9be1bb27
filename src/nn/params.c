#include "nn/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_ELEMS = 16 };

void dr_params_init(dr_params *set, dr_arena *arena)
{
    *set = (dr_params){.arena = arena};
}

void dr_params_deinit(dr_params *set)
{
    free(set->at);
    *set = (dr_params){0};
}

int dr_params_begin_segment(dr_params *set)
{
    return set->n_segments++;
}

dr_param *dr_params_add(dr_params *set, dr_param_kind kind, int rank, const int64_t *dim,
                        const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    DR_CHECK(len > 0 && len < (int)sizeof name, "parameter name of %d characters", len);
    DR_CHECK(set->n_segments > 0, "%s: no segment has begun", name);
    dr_param *p = dr_arena_alloc(set->arena, sizeof *p);
    p->name = dr_arena_strdup(set->arena, name);
    p->kind = kind;
    p->rank = rank;
    p->n = 1;
    for (int i = 0; i < rank; i++) {
        DR_CHECK(dim[i] > 0, "%s: size %lld", name, (long long)dim[i]);
        p->dim[i] = dim[i];
        p->n *= dim[i];
    }
    p->segment = set->n_segments - 1;
    p->trainable = true;
    p->offset = set->n_elems;
    set->n_elems += (p->n + ALIGN_ELEMS - 1) / ALIGN_ELEMS * ALIGN_ELEMS;
    if (set->n == set->cap) {
        set->cap = set->cap > 0 ? 2 * set->cap : 64;
        set->at = dr_xrealloc(set->at, set->cap, sizeof(dr_param *));
    }
    set->at[set->n++] = p;
    return p;
}

dr_param *dr_params_find(const dr_params *set, const char *name)
{
    for (size_t i = 0; i < set->n; i++) {
        if (strcmp(set->at[i]->name, name) == 0) {
            return set->at[i];
        }
    }
    return NULL;
}

void dr_params_segment_range(const dr_params *set, int segment, int64_t *begin, int64_t *end)
{
    *begin = set->n_elems;
    *end = set->n_elems;
    for (size_t i = 0; i < set->n; i++) {
        if (set->at[i]->segment >= segment && set->at[i]->offset < *begin) {
            *begin = set->at[i]->offset;
        }
        if (set->at[i]->segment > segment && set->at[i]->offset < *end) {
            *end = set->at[i]->offset;
        }
    }
}

int64_t dr_params_count(const dr_params *set)
{
    int64_t n = 0;
    for (size_t i = 0; i < set->n; i++) {
        n += set->at[i]->n;
    }
    return n;
}

static dr_tensor view_of(const dr_param *p, dr_dtype dtype, void *base)
{
    const int64_t *d = p->dim;
    char *at = (char *)base + (size_t)p->offset * dr_dtype_size(dtype);
    if (p->kind == DR_PARAM_CONV) {
        return dr_tensor_of(at, dtype, 4, DR_DIMS(d[0], d[2], d[3], d[1]));
    }
    return dr_tensor_of(at, dtype, p->rank, d);
}

void dr_params_bind_grads(dr_params *set, dr_dtype dtype, void *grads)
{
    for (size_t i = 0; i < set->n; i++) {
        dr_param *p = set->at[i];
        p->grad = grads != NULL && p->trainable ? view_of(p, dtype, grads) : (dr_tensor){0};
    }
}

void dr_params_bind_masters(dr_params *set, dr_dtype dtype, void *masters)
{
    for (size_t i = 0; i < set->n; i++) {
        set->at[i]->master = view_of(set->at[i], dtype, masters);
    }
}

void dr_params_bind(dr_params *set, dr_dtype dtype, void *values, void *grads)
{
    for (size_t i = 0; i < set->n; i++) {
        set->at[i]->value = view_of(set->at[i], dtype, values);
    }
    dr_params_bind_masters(set, dtype, values);
    dr_params_bind_grads(set, dtype, grads);
}

void dr_params_bind_dry(dr_params *set, dr_dtype dtype, bool with_grads)
{
    void *fake = (void *)(uintptr_t)4096; /* never read: a dry context touches no memory */
    dr_params_bind(set, dtype, fake, with_grads ? fake : NULL);
}

dr_status dr_params_begin_grads(dr_params *set, const dr_device *device)
{
    for (size_t i = 0; i < set->n; i++) {
        dr_param *p = set->at[i];
        p->fresh = p->grad.data != NULL && p->one_writer;
        if (p->grad.data != NULL && !p->fresh) {
            DR_TRY(device->zero(p->grad.data, dr_nbytes(&p->grad)));
        }
    }
    return DR_OK;
}

dr_status dr_params_settle_grads(dr_params *set, const dr_device *device, int64_t begin,
                                 int64_t end)
{
    for (size_t i = 0; i < set->n; i++) {
        dr_param *p = set->at[i];
        if (p->fresh && p->offset >= begin && p->offset < end) {
            p->fresh = false;
            DR_TRY(device->zero(p->grad.data, dr_nbytes(&p->grad)));
        }
    }
    return DR_OK;
}

void dr_params_set_trainable(dr_params *set, bool trainable)
{
    for (size_t i = 0; i < set->n; i++) {
        set->at[i]->trainable = trainable;
    }
}

/* Elements gathered at a time, in a buffer on the stack that fits the L1 cache. */
enum { CHUNK = 512 };

/* One element of 2, 4 or 8 bytes; the constant sizes let the compiler use plain moves. */
static void copy_element(char *dst, const char *src, size_t width)
{
    switch (width) {
    case 2:
        memcpy(dst, src, 2);
        return;
    case 4:
        memcpy(dst, src, 4);
        return;
    default:
        DR_CHECK(width == 8, "parameters have no elements of %zu bytes", width);
        memcpy(dst, src, 8);
    }
}

typedef struct walk { /* a place in an array of blocks of rows x cols, read column by column */
    int64_t rows, cols, block, r, c;
} walk;

static void gather(char *buf, const char *src, size_t width, size_t n, walk *w)
{
    for (size_t i = 0; i < n; i++) {
        copy_element(buf + i * width, src + (size_t)(w->block + w->r * w->cols + w->c) * width,
                     width);
        if (++w->r < w->rows) {
            continue;
        }
        w->r = 0;
        if (++w->c == w->cols) {
            w->c = 0;
            w->block += w->rows * w->cols;
        }
    }
}

/* Swaps rows and columns of every block of rows x cols elements. */
static void copy_transposed(const dr_param *p, const char *src, dr_dtype src_type, char *dst,
                            dr_dtype dst_type, walk w)
{
    uint64_t buf[CHUNK]; /* aligned for every dtype */
    const size_t width = dr_dtype_size(src_type);
    const bool plain = w.rows == 1 || w.cols == 1;
    for (size_t done = 0; done < (size_t)p->n;) {
        const size_t left = (size_t)p->n - done;
        const size_t count = left < CHUNK ? left : CHUNK;
        if (plain) {
            memcpy(buf, src + done * width, count * width);
        } else {
            gather((char *)buf, src, width, count, &w);
        }
        dr_convert(dst + done * dr_dtype_size(dst_type), dst_type, buf, src_type, count);
        done += count;
    }
}

void dr_param_from_file_order(const dr_param *p, const void *src, dr_dtype src_type, void *dst,
                              dr_dtype dst_type)
{
    walk w = {.rows = 1, .cols = 1};
    if (p->kind == DR_PARAM_CONV) {
        w.rows = p->dim[1];
        w.cols = p->dim[2] * p->dim[3];
    }
    copy_transposed(p, src, src_type, dst, dst_type, w);
}

void dr_param_to_file_order(const dr_param *p, const void *src, dr_dtype src_type, void *dst,
                            dr_dtype dst_type)
{
    walk w = {.rows = 1, .cols = 1};
    if (p->kind == DR_PARAM_CONV) {
        w.rows = p->dim[2] * p->dim[3];
        w.cols = p->dim[1];
    }
    copy_transposed(p, src, src_type, dst, dst_type, w);
}
