/*
 * base/arena.h - bump allocator: objects that live and die together.
 *
 * Layer:    base.
 * Threads:  an arena belongs to one thread at a time.
 * Errors:   running out of host memory ends in DR_NOMEM from dr_arena_try, and in a panic from
 *           dr_arena_alloc (names, tables and small structs of start-up).
 */
#ifndef DR_BASE_ARENA_H
#define DR_BASE_ARENA_H

#include "dreamrun/status.h"

typedef struct dr_arena {
    struct dr_arena_chunk *head; /* newest chunk */
} dr_arena;

/* An empty arena; owns nothing until the first allocation. */
void dr_arena_init(dr_arena *a);
/* Frees everything; the arena is empty and usable again. Pointers into it are invalid. */
void dr_arena_deinit(dr_arena *a);
/* Zeroed memory, aligned to 16 bytes; panics when the host is out of memory. */
void *dr_arena_alloc(dr_arena *a, size_t bytes);
/* n * size bytes, checked for overflow; panics as above. */
void *dr_arena_array(dr_arena *a, size_t n, size_t size);
/* Copies of strings, living in the arena. */
char *dr_arena_strdup(dr_arena *a, const char *s);
char *dr_arena_strndup(dr_arena *a, const char *s, size_t n);
char *dr_arena_printf(dr_arena *a, const char *fmt, ...) DR_PRINTF(2, 3);

/* Host memory outside arenas: never NULL (panics), grows like realloc, checked n * size. */
void *dr_xrealloc(void *p, size_t n, size_t size);
void *dr_xcalloc(size_t n, size_t size);
/* Host memory of a size that comes from data: DR_NOMEM with the size in the message. */
DR_MUST_USE dr_status dr_try_calloc(size_t n, size_t size, void **out);

#endif
