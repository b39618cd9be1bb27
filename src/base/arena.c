#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 * 1024, ALIGN = 16 };

typedef struct dr_arena_chunk {
    struct dr_arena_chunk *next;
    size_t used, size;
    _Alignas(ALIGN) unsigned char data[];
} dr_arena_chunk;

void dr_arena_init(dr_arena *a)
{
    a->head = NULL;
}

void dr_arena_deinit(dr_arena *a)
{
    while (a->head != NULL) {
        dr_arena_chunk *next = a->head->next;
        free(a->head);
        a->head = next;
    }
}

void *dr_arena_alloc(dr_arena *a, size_t bytes)
{
    size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    DR_CHECK(need >= bytes, "arena: %zu bytes", bytes);
    if (a->head == NULL || a->head->size - a->head->used < need) {
        size_t size = need > CHUNK_BYTES ? need : CHUNK_BYTES;
        dr_arena_chunk *c = dr_xcalloc(1, sizeof *c + size);
        c->size = size;
        c->next = a->head;
        a->head = c;
    }
    void *p = a->head->data + a->head->used;
    a->head->used += need;
    return p;
}

void *dr_arena_array(dr_arena *a, size_t n, size_t size)
{
    DR_CHECK(size == 0 || n <= SIZE_MAX / size, "arena: %zu x %zu bytes", n, size);
    return dr_arena_alloc(a, n * size);
}

char *dr_arena_strndup(dr_arena *a, const char *s, size_t n)
{
    char *p = dr_arena_alloc(a, n + 1);
    memcpy(p, s, n);
    return p;
}

char *dr_arena_strdup(dr_arena *a, const char *s)
{
    return dr_arena_strndup(a, s, strlen(s));
}

char *dr_arena_printf(dr_arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    DR_CHECK(n >= 0, "arena: bad format %s", fmt);
    char *p = dr_arena_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    (void)vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

void *dr_xrealloc(void *p, size_t n, size_t size)
{
    DR_CHECK(size == 0 || n <= SIZE_MAX / size, "allocation of %zu x %zu bytes", n, size);
    size_t bytes = n * size > 0 ? n * size : 1;
    void *q = realloc(p, bytes);
    DR_CHECK(q != NULL, "out of host memory: %zu bytes", bytes);
    return q;
}

void *dr_xcalloc(size_t n, size_t size)
{
    void *q = calloc(n > 0 ? n : 1, size > 0 ? size : 1);
    DR_CHECK(q != NULL, "out of host memory: %zu x %zu bytes", n, size);
    return q;
}

dr_status dr_try_calloc(size_t n, size_t size, void **out)
{
    void *q = calloc(n > 0 ? n : 1, size > 0 ? size : 1);
    if (q == NULL) {
        DR_FAIL(DR_NOMEM, "out of host memory: %zu x %zu bytes", n, size);
    }
    *out = q;
    return DR_OK;
}
