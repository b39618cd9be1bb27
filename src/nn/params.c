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

void dr_params_bind(dr_params *set, dr_dtype dtype, void *values, void *grads)
{
    for (size_t i = 0; i < set->n; i++) {
        dr_param *p = set->at[i];
        p->value = view_of(p, dtype, values);
        p->grad = (dr_tensor){0};
        if (grads != NULL && p->trainable) {
            p->grad = view_of(p, dtype, grads);
        }
    }
}

void dr_params_bind_dry(dr_params *set, dr_dtype dtype, bool with_grads)
{
    void *fake = (void *)(uintptr_t)4096; /* never read: a dry context touches no memory */
    dr_params_bind(set, dtype, fake, with_grads ? fake : NULL);
}

void dr_params_set_trainable(dr_params *set, bool trainable)
{
    for (size_t i = 0; i < set->n; i++) {
        set->at[i]->trainable = trainable;
    }
}
