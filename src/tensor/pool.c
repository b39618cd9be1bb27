#include "tensor/pool.h"

#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };
static const uintptr_t DRY_BASE = 1u << 20; /* fake addresses start here, never NULL */

typedef struct block {
    size_t offset, bytes;
    dr_frame frame;
} block;

struct dr_pool {
    const dr_device *device; /* NULL: dry */
    char *base;
    size_t capacity, peak, used;
    block *blocks; /* sorted by offset, without overlap */
    size_t n, cap;
    dr_frame last_frame;
};

dr_pool *dr_pool_create_dry(void)
{
    dr_pool *p = dr_xcalloc(1, sizeof *p);
    p->base = (char *)DRY_BASE;
    p->capacity = SIZE_MAX / 2;
    return p;
}

dr_status dr_pool_create(const dr_device *device, size_t bytes, dr_pool **out)
{
    void *base = NULL;
    DR_TRY(device->alloc(bytes > 0 ? bytes : ALIGN, &base));
    dr_pool *p = dr_xcalloc(1, sizeof *p);
    p->device = device;
    p->base = base;
    p->capacity = bytes;
    *out = p;
    return DR_OK;
}

void dr_pool_destroy(dr_pool *p)
{
    if (p == NULL) {
        return;
    }
    if (p->device != NULL) {
        p->device->free(p->base);
    }
    free(p->blocks);
    free(p);
}

bool dr_pool_is_dry(const dr_pool *p)
{
    return p->device == NULL;
}

dr_frame dr_pool_frame_begin(dr_pool *p)
{
    return ++p->last_frame;
}

void dr_pool_frame_end(dr_pool *p, dr_frame f)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->blocks[i].frame == f) {
            p->used -= p->blocks[i].bytes;
#ifndef NDEBUG
            if (p->device != NULL && p->device->host_visible) {
                memset(p->base + p->blocks[i].offset, 0xff, p->blocks[i].bytes);
            }
#endif
        } else {
            p->blocks[kept++] = p->blocks[i];
        }
    }
    p->n = kept;
}

void *dr_pool_alloc(dr_pool *p, dr_frame f, size_t bytes)
{
    DR_CHECK(f > 0 && f <= p->last_frame, "allocation in frame %lld", (long long)f);
    size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    size_t at = 0;
    size_t i = 0;
    while (i < p->n && p->blocks[i].offset - at < need) { /* first gap that is large enough */
        at = p->blocks[i].offset + p->blocks[i].bytes;
        i++;
    }
    DR_CHECK(need <= p->capacity && at <= p->capacity - need,
             "the plan of this step was too small: %zu bytes at %zu of %zu", need, at, p->capacity);
    if (p->n == p->cap) {
        p->cap = p->cap > 0 ? p->cap * 2 : 256;
        p->blocks = dr_xrealloc(p->blocks, p->cap, sizeof *p->blocks);
    }
    memmove(p->blocks + i + 1, p->blocks + i, (p->n - i) * sizeof *p->blocks);
    p->blocks[i] = (block){.offset = at, .bytes = need, .frame = f};
    p->n++;
    p->used += need;
    p->peak = at + need > p->peak ? at + need : p->peak;
    return p->base + at;
}

size_t dr_pool_peak_bytes(const dr_pool *p)
{
    return p->peak;
}

size_t dr_pool_used_bytes(const dr_pool *p)
{
    return p->used;
}

size_t dr_pool_capacity_bytes(const dr_pool *p)
{
    return p->capacity;
}
